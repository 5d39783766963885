# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image says all that a server knows: one made of it does the same from then on."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.state import image, records, show, trial
from pyxsd.state.host_state import StateError
from pyxsd.system.configuration import Config
from tests.fuzz.program import RECORD
from tests.fuzz.test_cases import corpus
from tests.leaks import differences, live_counts
from tests.state import layout, twins
from tests.world import EVENT, Host, World, packet, packets

RANDOM = int(os.environ.get("PYXSD_IMAGE_PROGRAMS", "200"))


def test_random_programs() -> None:
    """With a second server after every seventh step, which lives for the next 40."""
    made = 0
    for seed in range(RANDOM):
        source = random.Random(seed)
        made += twins.run(
            source.randbytes(1 + RECORD * source.choice((5, 20, 60, 200))),
            lambda number: number % 7 == 3,
        )
    assert made > RANDOM


def test_the_programs_that_reach_the_most() -> None:
    assert sum(twins.run(program, lambda number: number % 5 == 1, 20) for program in corpus()) > 500


# -- by hand ------------------------------------------------------------------


def again(
    world: World,
    now: float | None = None,
    config: Config | None = None,
    alter: Callable[[bytes], bytes] = bytes,
) -> World:
    """A world whose server was made of the image of this one's, altered so; its clients have new
    ends."""
    data = alter(image.save(world.server))
    other: World = World.__new__(World)
    other.host = Host()
    other.server = Server(config or Config(), other.host)
    other.host.server = other.server
    other.host.mfns = dict(world.host.mfns)
    other.now = world.now if now is None else now
    other.sockets, other.rest = {}, dict(world.rest)
    ends: dict[int, MemoryTransport] = {}

    def transport_of(number: int, domid: int | None) -> MemoryTransport:
        known: Any = world.server.connections[number].transport
        ends[number] = twins.again(known)
        if domid is not None:
            other.host.transports[domid] = ends[number]
        return ends[number]

    image.load(image.read(data), other.server, other.now, transport_of)
    for name, (connection, _) in world.sockets.items():
        other.sockets[name] = (other.server.connections[connection.id], ends[connection.id])
    if now is None:
        assert image.save(other.server) == data
    return other


def events_of(world: World, name: str) -> list[bytes]:
    return [body for type_, _, _, body in world.drain(name) if type_ == EVENT]


@pytest.mark.parametrize("go", [0, 1, 2])
def test_events_that_are_still_to_be_delivered(go: int) -> None:
    """A removal below 300 watches is a job of slices; some watches go while it waits."""
    world = World()
    for i in range(300):
        world.ask("s0", "WRITE", b"/top/%03d\0x" % i)
        world.ask("s1", "WATCH", b"/top/%03d\0t%d\0" % (i, i))
    world.drain("s1")
    world.server.agenda.slice_ns = 0
    world.connection("s0")[1].feed(packet("RM", b"/top\0"))
    world.server.begin(world.now, world.now)
    world.server.service(world.connection("s0")[0])
    if go:
        # The watch that the search has come to, and one that it is still to find.
        for i in (128, 127, 129, 200)[: 3 * go]:
            world.connection("s1")[1].feed(packet("UNWATCH", b"/top/%03d\0t%d\0" % (i, i)))
        world.server.service(world.connection("s1")[0])
    other = again(world)
    for each in (world, other):
        each.server.agenda.slice_ns = 10**12
        each.turn()
    one, two = events_of(world, "s1"), events_of(other, "s1")
    assert one == two and len(one) > 290 and one != sorted(one, reverse=True)
    assert world.drain("s0") == other.drain("s0")
    for each in (world, other):
        each.close()


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("slices", [1, 3])
def test_a_commit_that_is_half_told(slices: int, gone: bool) -> None:
    """The changes that are no jobs yet are told of as if nothing had been."""
    world = World()
    world.ask("s1", "WATCH", b"/top\0t\0")
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    for i in range(300):
        world.ask("s0", "WRITE", b"/top/%03d\0v" % i, tx)
    world.ask("s0", "SET_PERMS", b"/top/007\0b0\0", tx)
    world.ask("s0", "RM", b"/top/008\0", tx)
    events_of(world, "s1")
    world.server.agenda.slice_ns = 0
    connection, transport = world.connection("s0")
    transport.feed(packet("TRANSACTION_END", b"T\0", tx))
    for _ in range(slices):
        world.server.service(connection)
    assert connection.has_jobs
    if gone:
        world.server.disconnect(world.sockets.pop("s0")[0])
        assert world.server.kernel.has_jobs
    other = again(world)
    for each in (world, other):
        # In one piece, so that nothing is sent in between.
        each.server.agenda.slice_ns = each.server.agenda.turn_ns = 10**15
        each.turn()
    one, two = events_of(world, "s1"), events_of(other, "s1")
    # What was changed twice is told of once, since the first event is still in the output.
    assert one == two == [b"/top/%03d\0t\0" % i for i in range(300)]
    for each in (world, other):
        each.close()


def test_nodes_that_are_one_stay_one() -> None:
    """A commit asks whether a node is the very node of its start."""
    world = World()
    world.ask("s0", "WRITE", b"/a/x\0one")
    world.ask("s0", "WRITE", b"/b/y\0one")
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    assert world.ask("s0", "READ", b"/a/x\0", tx)[1] == b"one"
    world.ask("s0", "WRITE", b"/a/x\0two", tx)
    world.ask("s1", "WRITE", b"/b/y\0three")
    other = again(world)
    for each in (world, other):
        assert each.ask("s0", "TRANSACTION_END", b"T\0", tx)[1] == b"OK\0"
        assert each.ask("s1", "READ", b"/a/x\0")[1] == b"two"
        assert each.ask("s1", "READ", b"/b/y\0")[1] == b"three"
        # Merged, and not run again.
        assert each.server.transactions_merged == 1
        each.close()


def test_values_that_copies_share_are_written_once() -> None:
    """Ten transactions have copied 40 nodes with 2,000 bytes each.  The server that is made of the
    image shares them, too: another image is as long."""
    world = World()
    names = [b"/".join([b""] + [b"a"] * n) for n in range(1, 41)]
    for name in names:
        world.ask("s0", "WRITE", name + b"\0" + b"v" * 2000)
    once = len(image.save(world.server))
    assert once > 80_000
    for _ in range(10):
        tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
        world.ask("s0", "WRITE", names[-1] + b"/x\0v", tx)
    assert once < len(image.save(world.server)) < 1.5 * once
    other = again(world)
    assert image.save(other.server) == image.save(world.server)
    for each in (world, other):
        for tx_id in (0, 7):
            assert each.ask("s0", "READ", names[20] + b"\0", tx_id)[1] == b"v" * 2000
        each.close()


def test_what_was_read_still_counts() -> None:
    """Another one changed what a transaction has read: its end fails."""
    world = World()
    world.ask("s0", "WRITE", b"/a/x\0one")
    world.ask("s0", "WRITE", b"/b/y\0one")
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    world.ask("s0", "READ", b"/a/x\0", tx)
    world.ask("s0", "WRITE", b"/b/y\0two", tx)
    world.ask("s1", "WRITE", b"/a/x\0three")
    other = again(world)
    for each in (world, other):
        assert each.ask("s0", "TRANSACTION_END", b"T\0", tx)[1] == b"EAGAIN\0"
        each.close()


def test_an_event_that_is_queued_is_not_queued_again() -> None:
    world = World()
    world.ask("s1", "WATCH", b"/a\0t\0")
    world.drain("s1")
    world.connection("s1")[1].room = 0
    world.ask("s0", "WRITE", b"/a\0one")
    other = again(world)
    for each in (world, other):
        each.ask("s0", "WRITE", b"/a\0two")
        each.connection("s1")[1].room = -1
        each.turn("s1")
        assert events_of(each, "s1") == [b"/a\0t\0"]
        each.close()


def test_ids_stay_below_two_to_the_thirtieth() -> None:
    """Those of transactions begin anew behind the last one, and pass by those that are open."""
    world = World()
    assert world.ask("s0", "TRANSACTION_START", b"\0")[1] == b"1\0"
    other = again(world, alter=lambda data: changed(data, b"CONN", "last_tx", (1 << 30) - 3))
    world.close()
    found = [other.ask("s0", "TRANSACTION_START", b"\0")[1] for _ in range(4)]
    assert found == [b"%d\0" % n for n in ((1 << 30) - 2, (1 << 30) - 1, 2, 3)]
    other.close()


def test_waiting_events_come_in_their_order() -> None:
    """One of each watch in turn, the watch first behind which one waits the longest."""
    world = World(Config(quota_maxwatchevents=2))
    for name in (b"c", b"a", b"b"):
        world.ask("s1", "WATCH", b"/%s\0%s\0" % (name, name))
    world.drain("s1")
    world.connection("s1")[1].room = 0
    for path in (b"/x", b"/b/0", b"/a/0", b"/b/1", b"/c/1", b"/b/2", b"/a/1", b"/a/2"):
        world.ask("s0", "WRITE", path + b"\0v")
    other = again(world)
    assert world.connection("s1")[0].waiting_events > 3
    heard = []
    for each in (world, other):
        each.connection("s1")[1].room = -1
        for _ in range(4):
            each.turn("s1")
        heard.append(events_of(each, "s1"))
        each.close()
    assert heard[0] == heard[1] and len(heard[0]) == 7


def test_waiting_special_events_are_all_told() -> None:
    """They are never merged, neither those that wait nor those that come later."""
    world = World(Config(quota_maxwatchevents=2))
    world.ask("s1", "WATCH", b"@releaseDomain\0t\0")
    world.drain("s1")
    world.connection("s1")[1].room = 0
    for _ in range(4):
        world.server.fire_special(b"@releaseDomain", [7])
    other = again(world)
    for each in (world, other):
        assert each.connection("s1")[0].waiting_events == 2
        each.server.fire_special(b"@releaseDomain", [7])
        each.connection("s1")[1].room = -1
        for _ in range(4):
            each.turn("s1")
        assert events_of(each, "s1") == [b"@releaseDomain\0t\0"] * 5
        each.close()


def test_who_was_punished_stays_punished() -> None:
    """A guest without credit is not served, and is known to be found blocked."""
    config = Config(conflict_burst_limit=1.0, conflict_max_history_seconds=1.0)
    world = World(config)
    world.introduce(1)
    world.ask("s0", "WRITE", b"/a\0v")
    world.ask("s0", "SET_PERMS", b"/a\0b0\0")
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    world.ask("s0", "READ", b"/a\0", tx)
    world.ask("s0", "WRITE", b"/b\0w", tx)
    world.ask("d1", "WRITE", b"/a\0x")
    assert world.ask("s0", "TRANSACTION_END", b"T\0", tx)[1] == b"EAGAIN\0"
    world.feed("d1", packet("READ", b"/a\0"))
    assert world.drain("d1") == [] and world.connection("d1")[0].blocked
    other = again(world, config=config)
    assert other.connection("d1")[0].credit == world.connection("d1")[0].credit == 0.0
    answers = []
    for each in (world, other):
        for _ in range(3):
            each.now += 1.0
            each.server.tick(each.now)
            each.turn()
        answers.append(each.drain("d1"))
    assert answers[0] == answers[1] and len(answers[0]) == 1
    for each in (world, other):
        each.close()


def test_who_wrote_too_much_to_be_remembered_still_pays() -> None:
    """A mark stays of what the history had to forget because of a guest's weight."""
    config = Config(conflict_max_history_seconds=1.0)
    world = World(config)
    world.introduce(1)
    deep = b"/".join([b"a"] * 500)
    world.ask("s0", "MKDIR", b"/local/domain/1\0")
    world.ask("s0", "SET_PERMS", b"/local/domain/1\0n1\0")
    world.ask("s0", "WRITE", b"/a\0v")
    world.ask("s0", "SET_PERMS", b"/a\0b0\0")
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    world.ask("s0", "READ", b"/a\0", tx)
    world.ask("s0", "WRITE", b"/b\0w", tx)
    world.ask("d1", "WRITE", b"/a\0x")
    for n in range(40):
        world.ask("d1", "WRITE", deep + b"\0%d" % n)
    other = again(world, config=config)
    for each in (world, other):
        credit = each.connection("d1")[0].credit
        assert each.ask("s0", "TRANSACTION_END", b"T\0", tx)[1] == b"EAGAIN\0"
        assert each.connection("d1")[0].credit == credit - 1
        each.close()


def test_a_listing_goes_on() -> None:
    world = World()
    for i in range(2000):
        world.ask("s0", "WRITE", b"/dir/%05d\0" % i)
    first = world.ask("s0", "DIRECTORY_PART", b"/dir\x000\0")[1]
    other = again(world)
    count, names = first.split(b"\0", 1)
    rest = b"/dir\0%d\0" % len(names)
    assert world.ask("s0", "DIRECTORY_PART", rest) == other.ask("s0", "DIRECTORY_PART", rest)
    for each in (world, other):
        assert each.ask("s0", "DIRECTORY_PART", rest)[1].startswith(count + b"\0")
        each.ask("s1", "WRITE", b"/dir/more\0")
        assert not each.ask("s0", "DIRECTORY_PART", rest)[1].startswith(count + b"\0")
        each.close()


def test_times_move_with_the_clock() -> None:
    """A punished guest gets its point back when as much time has passed as it had to wait."""
    world = World(Config(conflict_burst_limit=1.0, conflict_max_history_seconds=1.0))
    other = again(world, now=5.0)
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    later = again(world, now=3.0)
    assert later.connection("s0")[0].transactions[tx].since == 3.0
    for each in (world, other, later):
        each.close()


@pytest.mark.parametrize("seed", range(4))
def test_in_slices_while_clients_go_on(seed: int) -> None:
    """Whatever they change between two slices, it is the image of the instant of the first one."""
    before = live_counts()
    source = random.Random(seed)
    world = World(Config(quota_transaction=50))
    for i in range(3000):
        world.ask("s0", "WRITE", b"/top/%d/%d\0v%d" % (i % 40, i, i))
    opened = [int(world.ask("s1", "TRANSACTION_START", b"\0")[1][:-1]) for _ in range(3)]
    for tx in opened:
        world.ask("s1", "WRITE", b"/top/%d/in\0w" % tx, tx)
    world.ask("s0", "DIRECTORY_PART", b"/top\x000\0")
    expected = image.save(world.server)
    parts: list[bytes] = []
    saving = image.Saving(world.server, parts.append)
    steps = 0
    while not saving.step(0.0):
        steps += 1
        path = b"/top/%d/%d\0" % (source.randrange(42), source.randrange(3000))
        for request, payload in source.sample(
            [
                ("WRITE", path + b"other"),
                ("RM", path),
                ("MKDIR", path + b"new/x/y\0"),
                ("SET_PERMS", path + b"b0\0r5\0"),
                ("RM", b"/top/%d\0" % source.randrange(40)),
                ("WATCH", path + b"t\0"),
            ],
            3,
        ):
            world.ask("s0", request, payload)
        if steps % 9 == 0 and opened:
            world.ask("s1", "WRITE", b"/top/more\0w", opened[0])
            world.ask("s1", "TRANSACTION_END", b"T\0", opened.pop(0))
        world.server.flush()
    assert steps > 50
    assert b"".join(parts) == expected
    assert saving.step(0.0)
    other = load(expected)
    assert image.save(other) == expected
    other.close()
    # One that is given up leaves nothing, either.
    image.Saving(world.server, parts.append).step(0.0)
    world.close()
    del saving, world, other
    gc.collect()
    assert not differences(before, live_counts())


def test_domains_that_die_between_two_slices() -> None:
    """Their entries are what they were at the instant of the first one."""

    def nodes(data: bytes) -> bytes:
        # Where one record ends and the next begins is a matter of who holds the nodes.
        found = records.read(data, image.TYPES)
        return b"".join(record.body for record in found if record.type == b"GRPH")

    world = World()
    world.connection("s0")
    for i in range(2000):
        world.server.tree.load([b"%04d" % i], b"n%d\0r5\0r%d\0" % (i % 3, 6 + i % 2), b"v")
    world.server.forget_domain(6)
    opened = int(world.ask("s1", "TRANSACTION_START", b"\0")[1][:-1])
    world.server.forget_domain(9)
    expected = image.save(world.server)
    parts: list[bytes] = []
    saving = image.Saving(world.server, parts.append)
    steps = 0
    while not saving.step(0.0):
        steps += 1
        world.server.forget_domains([2, 5, 7])
        world.ask("s0", "SET_PERMS", b"/%04d\0n0\0r5\0" % (3 * steps))
    assert steps > 5
    assert nodes(b"".join(parts)) == nodes(expected)
    other = again(world, alter=lambda _: expected)
    assert other.ask("s0", "GET_PERMS", b"/0003\0")[1] == b"n0\0r5\0r7\0"
    assert other.ask("s0", "GET_PERMS", b"/0006\0")[1] == b"n0\0r5\0"
    assert other.ask("s1", "GET_PERMS", b"/0006\0", opened)[1] == b"n0\0r5\0"
    other.server.forget_domain(7)
    assert other.ask("s0", "GET_PERMS", b"/0003\0")[1] == b"n0\0r5\0"
    assert other.ask("s1", "GET_PERMS", b"/0003\0", opened)[1] == b"n0\0r5\0r7\0"
    for each in (world, other):
        each.close()


def test_nothing_stays_behind() -> None:
    before = live_counts()
    world = World()
    world.introduce(1)
    world.ask("s0", "WRITE", b"/a/b\0c")
    world.ask("s0", "WATCH", b"/a\0t\0")
    world.ask("s0", "TRANSACTION_START", b"\0")
    other = again(world)
    world.close()
    other.close()
    del world, other
    assert not differences(before, live_counts())


def test_not_inside_of_a_request() -> None:
    world = World()
    caught: list[type[BaseException]] = []

    def introduce(*_: object) -> None:
        try:
            image.save(world.server)
        except RuntimeError as error:
            caught.append(type(error))

    world.host.introduce = introduce  # type: ignore[method-assign, assignment]
    world.ask("s0", "INTRODUCE", b"1\x004660\x007\0")
    assert caught == [RuntimeError]
    world.close()


# -- another process ----------------------------------------------------------

OTHER = """
import sys
from pyxsd._siphash import use_key
from pyxsd.state import image
found = image.read(open(sys.argv[1], "rb").read())
use_key(image.hash_key(found))
from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.system.configuration import Config
from tests.world import Host
server = Server(Config(), Host())
image.load(found, server, 1000.0, lambda number, domid: MemoryTransport())
sys.stdout.buffer.write(image.save(server))
"""


def example() -> World:
    """A server with something of everything, in few bytes."""
    world = World(Config(quota_maxwatchevents=1))
    world.introduce(1)
    world.ask("s0", "WRITE", b"/a/b\0value")
    world.ask("s0", "SET_PERMS", b"/a\0b0\0r1\0")
    world.ask("s1", "WATCH", b"/a\0token\0")
    world.connection("s1")[1].room = 0
    for name, path in (("s0", b"/a/1"), ("s0", b"/a/2"), ("s2", b"/a/3")):
        # The first event is in the output, the second waits, the third holds up who caused it.
        world.ask(name, "WRITE", path + b"\0x")
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    world.ask("s0", "WRITE", b"/a/t\0x", tx)
    world.ask("s0", "DIRECTORY_PART", b"/a\x000\0")
    world.feed("s0", packet("READ", b"/a\0")[:17])
    return world


def test_another_process_with_the_key(tmp_path: Any) -> None:
    world = example()
    data = image.save(world.server)
    world.close()
    (tmp_path / "image").write_bytes(data)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    environment.pop("PYXSD_HASH_KEY", None)
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path / "image")],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout == data


def test_another_key_is_refused() -> None:
    world = example()
    data = changed(image.save(world.server), b"SERV", "hash_key", bytes(16))
    with pytest.raises(StateError, match="another hash key"):
        load(data)
    load(data, any_key=True).close()
    world.close()


# -- shown --------------------------------------------------------------------


def test_shown(tmp_path: Any) -> None:
    world = example()
    path = tmp_path / "image"
    path.write_bytes(image.save(world.server))
    world.close()
    lines = show.show_file(str(path)).output.decode().splitlines()
    assert lines[0] == "format image"
    assert 'node "/a" b0,r1 ""' in lines and 'node "/a/b" n0 "value"' in lines
    assert '  watch "/a" "token"' in lines
    assert sum(line.startswith("  waiting-event ") for line in lines) == 2
    assert "  transaction 1 requests=1" in lines
    for as_format in show.WRITERS:
        converted = show.show_file(str(path), as_format)
        assert any("1 open transactions" in line for line in converted.told)
        assert any("2 events that wait" in line for line in converted.told)
        assert {node.path: node for node in show.read_any(converted.output).nodes}[
            b"/a/b"
        ].value == b"value"


# -- damage -------------------------------------------------------------------


def load(data: bytes, any_key: bool = False) -> Any:
    """A server made of an image, which nobody talks to; StateError."""
    server = Server(Config(), Host())
    try:
        image.load(
            image.read(data), server, 1000.0, lambda number, domid: MemoryTransport(), any_key
        )
    except StateError:
        server.close()
        raise
    return server


def put_together(found: Any) -> bytes:
    """The file with these records, (type, body), and the right checksum."""
    parts: list[bytes] = []
    writer = records.Writer(parts.append)
    for type_, body in found:
        writer.add(type_, body)
    writer.finish()
    return b"".join(parts)


def changed(data: bytes, type_: bytes, key: str, value: Any) -> bytes:
    """The image with one field of its records of that type changed."""
    found = []
    for record in records.read(data, image.TYPES):
        body = bytes(record.body)
        if record.type == type_:
            rows = layout.decode(type_, body)
            for row in rows:
                row[key] = value
            body = layout.encode(type_, rows)
        found.append((record.type, body))
    return put_together(found)


def test_cut_and_flipped() -> None:
    world = example()
    data = image.save(world.server)
    world.close()
    for length in range(len(data)):
        with pytest.raises(StateError):
            records.read(data[:length], image.TYPES)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x21
        with pytest.raises(StateError):
            records.read(bytes(damaged), image.TYPES)


def test_altered_with_the_right_checksum() -> None:
    """Content that makes no sense does no harm: it is refused, or a server comes of it."""
    world = example()
    data = image.save(world.server)
    world.close()
    gc.collect()
    before = live_counts()
    whole = records.read(data, image.TYPES)
    refused = 0
    source = random.Random(1)
    for number, record in enumerate(whole):
        for at in range(len(record.body)):
            body = bytearray(record.body)
            body[at] ^= source.choice((1, 0x80, 0xFF, 0x10))
            altered = put_together(
                (each.type, bytes(body) if other == number else each.body)
                for other, each in enumerate(whole)
            )
            try:
                server = load(altered, any_key=True)
            except StateError as error:
                refused += 1
                assert str(error).startswith(("record ", "the image as a whole: "))
            else:
                server.close()
    assert refused > 500
    del server, world
    gc.collect()
    assert not differences(before, live_counts())


MEANINGLESS = [
    (b"SERV", "quotas", [{"most": 1}], "1 quotas"),
    (b"SERV", "tree", 99, "there is no tree 99"),
    (b"SERV", "owners", [{"owner": 1, "most": -1}], "a quota of -1 nodes"),
    (b"CONN", "id", 1, "the connection 1 stands there twice"),
    (b"CONN", "domid", -2, "the domain -2"),
    (b"CONN", "interest", 77, "waits for 77"),
    (
        b"CONN",
        "pending",
        [{"serial": 12345, "waiting": [], "overflow": []}],
        "there is no watch 12345",
    ),
    (
        b"CONN",
        "listings",
        {"rows": [{"node": 0, "epoch": 1, "generation": 1, "names": b""}]},
        "a listing of nothing",
    ),
    (
        b"CONN",
        "watches",
        [{"serial": 1, "depth": 0, "path_len": 2, "token_len": 1, "path": b"//", "token": b"t"}],
        "a watch on b'//'",
    ),
    (
        b"CONN",
        "watches",
        [{"serial": 99, "depth": 0, "path_len": 2, "token_len": 1, "path": b"/a", "token": b"t"}],
        "a watch with the number 99",
    ),
    (b"CONN", "output", b"x", "the output is not whole packets"),
    (b"CONN", "part_left", 9999, "9999 bytes of a packet in "),
    (
        b"CONN",
        "jobs",
        {
            "rows": [
                {
                    "commit": False,
                    "changes": None,
                    "job": {
                        "text": b"a/b",
                        "name": None,
                        "deep": False,
                        "below": False,
                        "begun": False,
                        "newest": 1,
                        "before": 0,
                        "after": 0,
                        "search": None,
                    },
                }
            ],
            "hurried": False,
            "waits": None,
        },
        "not a path: b'a/b'",
    ),
    (
        b"CONN",
        "jobs",
        {
            "rows": [
                {
                    "commit": True,
                    "job": None,
                    "changes": {"newest": 1, "before": 0, "after": 0, "rows": []},
                }
            ],
            "hurried": False,
            "waits": None,
        },
        "changes between no trees",
    ),
    (
        b"CONN",
        "jobs",
        {
            "rows": [
                {
                    "commit": True,
                    "job": None,
                    # The node /a, which a listing keeps.
                    "changes": {"newest": 1, "before": 4, "after": 4, "rows": []},
                }
            ],
            "hurried": False,
            "waits": None,
        },
        "a node with a name in place of a root",
    ),
    (
        b"LATE",
        "transactions",
        [{"id": 1, "tx_id": 2, "start": 3, "since": 4.0}] * 2,
        "the transaction 2 of 1 stands there twice",
    ),
    (b"LATE", "paused", [{"id": 77}], "77 is missing"),
    (b"LATE", "lost", [{"id": 77, "marks": [{"mark": 3, "commit": 1}]}], "77 is missing"),
    (
        b"LATE",
        "changes",
        [{"commit": 1, "id": 1, "before": 2, "after": 3, "weight": 0, "mark": 0}],
        "a change of weight 0",
    ),
    (
        b"LATE",
        "changes",
        [{"commit": 0, "id": 1, "before": 2, "after": 3, "weight": 5, "mark": 0}],
        "the change 0 after",
    ),
    (b"TURN", "single_waiting", [{"used": 1, "order": 1, "id": 77}], "77 is missing"),
    (
        b"TURN",
        "others_waiting",
        [{"used": 1, "order": 1, "id": 2}, {"used": 0, "order": 2, "id": 3}],
        "waits in the wrong place",
    ),
]


@pytest.mark.parametrize(("type_", "key", "value", "words"), MEANINGLESS)
def test_meaningless(type_: bytes, key: str, value: Any, words: str) -> None:
    world = example()
    data = changed(image.save(world.server), type_, key, value)
    world.close()
    with pytest.raises(StateError) as error:
        load(data)
    assert words in str(error.value)


def test_records_that_are_not_known() -> None:
    """One that may be skipped is; any other one is refused."""
    world = example()
    data = image.save(world.server)
    for type_, refused in ((b"more", False), (b"mORE", False), (b"MORE", True), (b"More", True)):
        more = put_together(
            [
                *((record.type, record.body) for record in records.read(data, image.TYPES)),
                (type_, b"what a later version says"),
            ]
        )
        if refused:
            with pytest.raises(StateError, match=r"\(M(ORE|ore)\) at byte \d+: not known"):
                load(more)
        else:
            load(more).close()
    world.close()


@pytest.mark.parametrize("missing", [b"SERV", b"LATE", b"TURN", b"CONN", b"GRPH"])
def test_records_that_are_missing(missing: bytes) -> None:
    world = example()
    less = put_together(
        [
            (record.type, record.body)
            for record in records.read(image.save(world.server), image.TYPES)
            if record.type != missing
        ]
    )
    world.close()
    with pytest.raises(StateError):
        load(less)


class Long(bytes):
    """Bytes that say another length than they have."""

    length = 0

    def __len__(self) -> int:
        return self.length


def test_the_longest_record() -> None:
    body = Long()
    body.length = records.LENGTH_MAX
    records.Writer(lambda data: None).add(b"more", body)
    body.length += 1
    with pytest.raises(OverflowError, match="4294967296"):
        records.Writer(lambda data: None).add(b"more", body)


def test_a_header_alone() -> None:
    data = records.HEADER.pack(records.MAGIC, records.VERSION, 0)
    with pytest.raises(StateError, match="record 1 at byte 16: the file ends before DONE"):
        records.read(data, image.TYPES)
    with pytest.raises(StateError, match="the file has 15 bytes and no whole header"):
        records.read(data[:-1], image.TYPES)


def test_another_version() -> None:
    data = bytearray(put_together([]))
    data[8] = 9
    with pytest.raises(StateError, match="the image has version 9"):
        records.read(bytes(data), image.TYPES)


def late_of(world: World) -> dict[str, Any]:
    """The row of the record LATE in an image of a world."""
    found = records.read(image.save(world.server), image.TYPES)
    (late,) = (layout.decode(b"LATE", bytes(row.body)) for row in found if row.type == b"LATE")
    return late[0]


def weight_of_a_commit(is_merged: bool) -> int:
    """Of a transaction of domain 1 that has written at the ends of two chains of 100 nodes."""
    world = World()
    for domid in (1, 2):
        world.introduce(domid)
        world.ask("s0", "MKDIR", b"/local/domain/%d\0" % domid)
        world.ask("s0", "SET_PERMS", b"/local/domain/%d\0n%d\0" % (domid, domid))
    chains = [b"/".join([name] * 100) + b"\0" for name in (b"a", b"b")]
    for chain in chains:
        world.ask("d1", "WRITE", chain)
    assert world.ask("d2", "TRANSACTION_START", b"\0")[1][-1:] == b"\0"
    tx_id = int(world.ask("d1", "TRANSACTION_START", b"\0")[1][:-1])
    for chain in chains:
        assert world.ask("d1", "WRITE", chain + b"new", tx_id)[1] == b"OK\0"
    if is_merged:
        world.ask("s0", "WRITE", b"/else\0v")
    assert world.ask("d1", "TRANSACTION_END", b"T\0", tx_id)[1] == b"OK\0"
    assert world.server.transactions_merged == is_merged
    weight = late_of(world)["changes"][-1]["weight"]
    world.close()
    return int(weight)


def test_a_commit_weighs_what_its_transaction_has_copied() -> None:
    """Who needs the store before keeps all of it; a merge copies some nodes more."""
    weight = weight_of_a_commit(False)
    assert 200 < weight < weight_of_a_commit(True) < weight + 10


@pytest.mark.parametrize("how", ["end", "reset", "close"])
def test_transactions_that_have_ended_are_forgotten(how: str) -> None:
    """Also while an older one is open, in which case nothing is trimmed."""
    world = World()
    world.introduce(1)
    world.ask("s1", "TRANSACTION_START", b"\0")
    for _ in range(300):
        for name in ("s0", "d1"):
            tx = int(world.ask(name, "TRANSACTION_START", b"\0")[1][:-1])
            if how == "end":
                world.ask(name, "TRANSACTION_END", b"F\0", tx)
        if how != "end":
            world.ask("d1", "RESET_WATCHES", b"\0")
        if how == "reset":
            world.ask("s0", "RESET_WATCHES", b"\0")
        elif how == "close":
            world.connection("s0")[1].eof = True
            world.turn("s0")
            del world.sockets["s0"]
    assert len(late_of(world)["transactions"]) == world.server.open_transactions == 1
    world.close()


def test_whole_packets_reach_nobody_twice() -> None:
    """Output that was sent in part goes on where it stopped."""
    world = World()
    world.connection("s0")[1].room = 20
    world.feed("s0", packet("DIRECTORY", b"/\0"))
    got = world.connection("s0")[1].take()
    other = again(world)
    for each in (world, other):
        each.connection("s0")[1].room = -1
        each.turn("s0")
    rest = [each.connection("s0")[1].take() for each in (world, other)]
    for each in (world, other):
        each.close()
    assert rest[0] == rest[1]
    whole, left = packets(got + rest[0])
    assert (len(got), len(whole), left) == (20, 1, b"")


@pytest.mark.parametrize("longer", [b"SERV", b"LATE", b"TURN", b"CONN"])
def test_records_that_are_too_long(longer: bytes) -> None:
    world = example()
    more = put_together(
        [
            (record.type, bytes(record.body) + (b"\1" if record.type == longer else b""))
            for record in records.read(image.save(world.server), image.TYPES)
        ]
    )
    world.close()
    with pytest.raises(StateError, match=longer.decode()):
        load(more)


def test_a_trial_that_fails_leaves_nothing(no_leaks: None) -> None:
    world = example()
    data = changed(image.save(world.server), b"SERV", "tree", 99)
    world.close()
    gc.collect()
    before = live_counts()
    with pytest.raises(StateError):
        trial.loaded(image.read(data), any_key=True)
    assert not differences(before, live_counts())
