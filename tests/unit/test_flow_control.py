# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flow control: clients that do not read, that flood, that go away; bounded queues.

Small limits: 4 replies and 4 events in the output of a connection, 4 more
events behind each watch.  The limit that counts is never the size of a kernel
buffer: MemoryTransport.room says how many bytes a client takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kit import begin, events, ok, watch, write
from tests.world import ERROR, EVENT, TYPES, World, packet

Make = Callable[..., Any]
LIMIT = 4


@pytest.fixture
def small(make_world: Make) -> World:
    """Domains 1 and 2, the limits above, and /w that everybody may read and write."""
    world: World = make_world(
        quota_maxoutstanding=LIMIT, quota_maxwatchevents=LIMIT, quota_maxwatch=100
    )
    ok(world, "s0", "MKDIR", b"/w\0")
    ok(world, "s0", "SET_PERMS", b"/w\0b0\0")
    return world


def stop_reading(world: World, *names: str) -> None:
    for name in names:
        world.connection(name)[1].room = 0


def read_on(world: World, *names: str) -> None:
    """They read all that they get from now on."""
    for name in names:
        world.connection(name)[1].room = -1
    world.turn(*names)


def replies(world: World, name: str) -> list[int]:
    """The req_ids of the replies that came, which must be successes."""
    found = []
    for got, req_id, _, body in world.drain(name):
        assert got != ERROR, body
        if got != EVENT:
            found.append(req_id)
    return found


def blocked(world: World, name: str) -> bool:
    return bool(world.connection(name)[0].blocked)


def bounded(world: World) -> None:
    """No queue is over its limit."""
    for name in world.names():
        connection = world.connection(name)[0]
        queued, pending = connection.queued
        assert queued <= LIMIT, name
        assert pending <= LIMIT, name
        assert connection.waiting_events <= LIMIT * connection.watch_count, name
        assert len(connection.partial_input) <= 65536 + 4112, name


# -- replies ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s0", "d1"])
def test_a_client_that_floods_and_never_reads(small: World, name: str) -> None:
    stop_reading(small, name)
    flood = [packet("GET_DOMAIN_PATH", b"1\0", req_id=n) for n in range(20_000)]
    transport = small.connection(name)[1]
    for first in range(0, len(flood), 1000):
        small.feed(name, b"".join(flood[first : first + 1000]))
        bounded(small)
    assert blocked(small, name)
    assert small.connection(name)[0].queued == (LIMIT, 0)
    # What was not served stays where it was, outside of the daemon.
    assert transport.unread > 250_000
    # Others are served meanwhile.
    assert ok(small, "d2", "GET_DOMAIN_PATH", b"1\0")
    read_on(small, name)
    got: list[int] = []
    while len(got) < len(flood):
        more = replies(small, name)
        assert more, "it does not go on"
        got += more
        small.turn(name)
    assert got == list(range(len(flood)))
    assert not blocked(small, name) and small.connection(name)[0].queued == (0, 0)


def test_one_byte_at_a_time(small: World) -> None:
    """The stream stays whole whatever the pieces are in which it is read."""
    connection, transport = small.connection("d1")
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    small.feed("d1", b"".join(packet("GET_DOMAIN_PATH", b"1\0", req_id=n) for n in range(10)))
    small.feed("s0", write(b"/w/a") + write(b"/w/b"))
    got = []
    for _ in range(3000):
        transport.room = 1
        small.turn("d1")
        bounded(small)
        got += small.drain("d1")
        if len(got) == 12:
            break
    assert [req_id for type_, req_id, _, _ in got if type_ != EVENT] == list(range(10))
    assert [body for type_, _, _, body in got if type_ == EVENT] == [b"/w/a\0t\0", b"/w/b\0t\0"]
    assert connection.queued == (0, 0) and connection.pending_output == b""


# -- events -------------------------------------------------------------------


def fill(world: World, writer: str, count: int, first: int = 0) -> None:
    """Distinct writes below /w."""
    for n in range(first, first + count):
        world.feed(writer, write(b"/w/%d" % n, req_id=n))


def paths(first: int, last: int) -> list[tuple[bytes, bytes]]:
    return [(b"/w/%d" % n, b"t") for n in range(first, last)]


@pytest.mark.parametrize("writer", ["s0", "s1", "d2"])
def test_unread_events_block_who_causes_them(small: World, writer: str) -> None:
    """4 queued, 4 behind the watch, the ninth waits with the writer, who is not
    served again until the watcher reads; others are served."""
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    fill(small, writer, 8)
    connection = small.connection(writer)[0]
    assert connection.overflowing == 0 and replies(small, writer) == list(range(8))
    fill(small, writer, 20, first=8)
    assert replies(small, writer) == [8], "the causing request itself is answered, no other"
    assert connection.overflowing == 1 and connection.blocked
    assert small.connection(writer)[1].unread > 0
    bounded(small)
    assert ok(small, "s2", "READ", b"/w/8\0") == b"v"
    ok(small, "s2", "WRITE", b"/elsewhere\0v")
    # Reading is all that is needed: no turn of the writer.
    read_on(small, "d1")
    assert events(small, "d1") == paths(0, 28)
    assert replies(small, writer) == list(range(9, 28))
    assert not connection.blocked and connection.overflowing == 0


def test_the_watcher_reads_little_by_little(small: World) -> None:
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    fill(small, "s0", 40)
    got = []
    for _ in range(5000):
        small.connection("d1")[1].room = 7
        small.turn("d1")
        bounded(small)
        assert small.connection("s0")[0].overflowing <= 1
        got += events(small, "d1")
        if len(got) == 40:
            break
    assert got == paths(0, 40)
    assert replies(small, "s0") == list(range(40))


def test_identical_events_are_merged(small: World) -> None:
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    for n in range(1000):
        small.feed("s0", write(b"/w/same", b"%d" % n))
    assert not blocked(small, "s0") and len(replies(small, "s0")) == 1000
    assert small.connection("d1")[0].queued == (0, 1)
    assert small.server.merged == 999
    read_on(small, "d1")
    assert events(small, "d1") == [(b"/w/same", b"t")]
    # What was read does not count any more.
    small.feed("s0", write(b"/w/same"))
    assert events(small, "d1") == [(b"/w/same", b"t")]


def test_events_are_merged_wherever_they_wait(small: World) -> None:
    """In the output, behind the watch, and with the writer."""
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    fill(small, "s0", 9)
    replies(small, "s0")
    for path in (b"/w/0", b"/w/5", b"/w/8"):
        small.feed("s1", write(path))
    assert len(replies(small, "s1")) == 3
    read_on(small, "d1")
    got = events(small, "d1")
    assert got[:9] == paths(0, 9)
    # The overflow is each writer's own: there the same event may wait twice.
    assert got[9:] in ([], paths(8, 9))


@pytest.mark.parametrize("sent", [1, 15, 16, 20])
def test_an_event_that_is_being_sent_is_not_merged_with(small: World, sent: int) -> None:
    """Its reader may have seen the store already."""
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    small.feed("s0", write(b"/w/same"))
    small.connection("d1")[1].room = sent
    small.turn("d1")
    for _ in range(3):
        small.feed("s0", write(b"/w/same"))
    read_on(small, "d1")
    assert events(small, "d1") == [(b"/w/same", b"t")] * 2


def test_merging_looks_at_watch_and_path(small: World) -> None:
    """Other tokens, other watches and other paths are other events."""
    for path, token in ((b"/w", b"t"), (b"/w", b"u"), (b"/w/a", b"t")):
        watch(small, "d1", path, token)
    stop_reading(small, "d1")
    for _ in range(3):
        small.feed("s0", write(b"/w/a"))
    read_on(small, "d1")
    assert sorted(events(small, "d1")) == [(b"/w/a", b"t"), (b"/w/a", b"t"), (b"/w/a", b"u")]


def test_special_events_are_never_merged(small: World) -> None:
    watch(small, "s0", b"@releaseDomain")
    stop_reading(small, "s0")
    for _ in range(7):
        small.server.fire_special(b"@releaseDomain", [5])
        small.turn()
    assert small.connection("s0")[0].queued == (0, LIMIT)
    read_on(small, "s0")
    assert events(small, "s0") == [(b"@releaseDomain", b"t")] * 7


def test_special_events_count_as_caused_by_domain_0(small: World) -> None:
    """Whoever asked for RELEASE is not blocked by them: domain 0's ring is."""
    watch(small, "s0", b"@releaseDomain")
    stop_reading(small, "s0")
    for domid in range(10, 20):
        small.introduce(domid)
        ok(small, "s1", "RELEASE", b"%d\0" % domid)
    assert small.connection("s1")[0].overflowing == 0
    assert small.connection("d0")[0].overflowing == 2
    small.feed("d0", packet("GET_DOMAIN_PATH", b"1\0"))
    assert replies(small, "d0") == [] and blocked(small, "d0")
    read_on(small, "s0")
    assert len(events(small, "s0")) == 10
    assert len(replies(small, "d0")) == 1


def test_replies_flow_under_a_storm_of_events(small: World) -> None:
    """Both have their own limit."""
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    fill(small, "s0", 20)
    small.feed("d1", packet("GET_DOMAIN_PATH", b"1\0", req_id=99))
    assert small.connection("d1")[0].queued == (1, LIMIT)
    read_on(small, "d1")
    got = small.drain("d1")
    assert [req_id for type_, req_id, _, _ in got if type_ != EVENT] == [99]
    assert len(got) == 21


def test_a_client_blocks_itself_with_its_own_events(small: World) -> None:
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    flood = b"".join(write(b"/w/%d" % n, req_id=n) for n in range(100))
    small.feed("d1", flood)
    bounded(small)
    assert blocked(small, "d1")
    read_on(small, "d1")
    got = []
    for _ in range(100):
        got += small.drain("d1")
        small.turn("d1")
    assert [req_id for type_, req_id, _, _ in got if type_ != EVENT] == list(range(100))
    assert [body for type_, _, _, body in got if type_ == EVENT] == [
        b"/w/%d\0t\0" % n for n in range(100)
    ]


def test_two_that_watch_each_other_and_do_not_read(small: World) -> None:
    """No deadlock: once both read, both are answered and told."""
    for name in ("d1", "d2"):
        watch(small, name, b"/w")
    stop_reading(small, "d1", "d2")
    for n in range(60):
        small.feed("d1", write(b"/w/1-%d" % n, req_id=n))
        small.feed("d2", write(b"/w/2-%d" % n, req_id=n))
    bounded(small)
    read_on(small, "d1", "d2")
    for name in ("d1", "d2"):
        small.turn("d1", "d2")
        got = small.drain(name)
        assert [req_id for type_, req_id, _, _ in got if type_ != EVENT] == list(range(60))
        told = [body.split(b"\0")[0] for type_, _, _, body in got if type_ == EVENT]
        assert len(told) == 120
        for other in (b"1", b"2"):
            mine = [path for path in told if path.startswith(b"/w/" + other)]
            assert mine == [b"/w/%s-%d" % (other, n) for n in range(60)]


def test_each_watch_has_its_own_place(small: World) -> None:
    """A watch that floods does not use up what waits behind another one."""
    watch(small, "d1", b"/w/a", b"a")
    watch(small, "d1", b"/w/b", b"b")
    stop_reading(small, "d1")
    for n in range(9):
        small.feed("s0", write(b"/w/a/%d" % n))
    assert small.connection("s0")[0].overflowing == 1
    for n in range(LIMIT):
        small.feed("s1", write(b"/w/b/%d" % n))
    assert small.connection("s1")[0].overflowing == 0
    small.feed("s1", write(b"/w/b/%d" % LIMIT))
    assert small.connection("s1")[0].overflowing == 1
    read_on(small, "d1")
    got = events(small, "d1")
    for token, count in ((b"a", 9), (b"b", LIMIT + 1)):
        assert [path for path, which in got if which == token] == [
            b"/w/%s/%d" % (token, n) for n in range(count)
        ]


@pytest.mark.parametrize(
    "order", [("s0", "s1", "s2", "s3"), ("s3", "s1", "s2", "s0"), ("s2", "s3", "s0", "s1")]
)
def test_events_of_one_watch_keep_their_order_whoever_caused_them(
    small: World, order: tuple[str, ...]
) -> None:
    for name in ("s0", "s1", "s2", "s3"):
        small.connection(name)
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    fill(small, "d2", 8)
    for n, writer in enumerate(order, 8):
        small.feed(writer, write(b"/w/%d" % n))
        assert small.connection(writer)[0].overflowing == 1
    read_on(small, "d1")
    assert events(small, "d1") == paths(0, 8 + len(order))


def test_first_events_of_watches_without_room(small: World) -> None:
    """The first event is caused by the watcher and waits behind the watch."""
    stop_reading(small, "d1")
    for n in range(LIMIT):
        small.feed("d1", packet("WATCH", b"/w/%d\0t\0" % n, req_id=n))
    small.feed("d1", packet("WATCH", b"/w/x\0t\0", req_id=50))
    bounded(small)
    read_on(small, "d1")
    got = small.drain("d1")
    assert [req_id for type_, req_id, _, _ in got if type_ != EVENT] == [0, 1, 2, 3, 50]
    assert [body for type_, _, _, body in got if type_ == EVENT] == [
        b"/w/%d\0t\0" % n for n in range(LIMIT)
    ] + [b"/w/x\0t\0"]


def test_a_commit_with_more_events_than_fit(small: World) -> None:
    """All are delivered, in order; the committer waits, the store is changed at once."""
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    tx_id = begin(small, "s0")
    for n in range(50):
        ok(small, "s0", "WRITE", b"/w/%d\0v" % n, tx_id)
    small.feed(
        "s0",
        packet("TRANSACTION_END", b"T\0", tx_id, req_id=5) + packet("READ", b"/w/49\0", req_id=6),
    )
    assert replies(small, "s0") == [5]
    assert small.connection("s0")[0].overflowing == 50 - 2 * LIMIT
    assert ok(small, "s1", "READ", b"/w/49\0") == b"v"
    bounded(small)
    read_on(small, "d1")
    assert events(small, "d1") == paths(0, 50)
    assert replies(small, "s0") == [6]


# -- going away with events waiting -------------------------------------------


def jam(world: World) -> None:
    """d1 has a full output, a full watch, and s0 waits with one event more and a
    request behind it; on another path s1 waits with its own."""
    watch(world, "d1", b"/w")
    watch(world, "d1", b"/v", b"v")
    stop_reading(world, "d1")
    fill(world, "s0", 9)
    for n in range(LIMIT + 1):
        world.feed("s1", write(b"/v/%d" % n))
    world.feed("s0", packet("GET_DOMAIN_PATH", b"7\0", req_id=70))
    world.feed("s1", packet("GET_DOMAIN_PATH", b"7\0", req_id=71))
    assert replies(world, "s0") == list(range(9))
    assert replies(world, "s1") == [1] * (LIMIT + 1)
    assert blocked(world, "s0") and blocked(world, "s1")


def public_v(world: World) -> None:
    ok(world, "s2", "MKDIR", b"/v\0")
    ok(world, "s2", "SET_PERMS", b"/v\0r0\0")


@pytest.mark.parametrize("how", ["disconnect", "closes", "release", "reset", "bad"])
def test_the_watcher_goes_away(small: World, how: str) -> None:
    """Whoever waited for it goes on."""
    public_v(small)
    jam(small)
    connection, transport = small.connection("d1")
    if how == "disconnect":
        small.server.disconnect(connection)
    elif how == "closes":
        transport.eof = True
        small.turn("d1")
    elif how == "release":
        ok(small, "s2", "RELEASE", b"1\0")
    elif how == "reset":
        small.feed("d1", packet("RESET_WATCHES", b"", req_id=3))
    else:
        small.feed("d1", b"\xff" * 16)
        assert connection.bad
    small.turn()
    assert replies(small, "s0") == [70]
    assert replies(small, "s1") == [71]
    assert small.server.watch_total == 0
    assert connection.waiting_events == 0
    if how == "reset":
        # What is in the output goes out, nothing that waited behind it does.
        read_on(small, "d1")
        got = small.drain("d1")
        assert [type_ for type_, _, _, _ in got] == [EVENT] * LIMIT + [TYPES["RESET_WATCHES"]]


def test_unwatch_frees_who_waited_for_that_watch_only(small: World) -> None:
    public_v(small)
    jam(small)
    small.feed("d1", packet("UNWATCH", b"/w\0t\0", req_id=3))
    small.turn()
    assert replies(small, "s0") == [70]
    assert replies(small, "s1") == [] and blocked(small, "s1")
    read_on(small, "d1")
    got = small.drain("d1")
    told = [body for type_, _, _, body in got if type_ == EVENT]
    assert told[:LIMIT] == [b"/w/%d\0t\0" % n for n in range(LIMIT)]
    assert told[LIMIT:] == [b"/v/%d\0v\0" % n for n in range(LIMIT + 1)]
    assert replies(small, "s1") == [71]


def test_who_waits_goes_away(small: World) -> None:
    """The watcher keeps what was queued for it, and the others keep waiting."""
    public_v(small)
    jam(small)
    small.server.disconnect(small.connection("s0")[0])
    del small.sockets["s0"]
    small.turn()
    assert blocked(small, "s1")
    read_on(small, "d1")
    got = events(small, "d1")
    assert [event for event in got if event[1] == b"t"][:8] == paths(0, 8)
    assert [event for event in got if event[1] == b"v"] == [
        (b"/v/%d" % n, b"v") for n in range(LIMIT + 1)
    ]
    assert replies(small, "s1") == [71]


def test_a_watch_set_again_gets_nothing_of_the_old_one(small: World) -> None:
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    fill(small, "s0", 9)
    small.feed("d1", packet("UNWATCH", b"/w\0t\0") + packet("WATCH", b"/w\0t\0"))
    read_on(small, "d1")
    assert [body for type_, _, _, body in small.drain("d1") if type_ == EVENT] == [
        b"/w/%d\0t\0" % n for n in range(LIMIT)
    ] + [b"/w\0t\0"]


def test_a_client_that_sends_and_closes(small: World) -> None:
    """What it sent before it closed is done; its output is dropped."""
    connection, transport = small.connection("s0")
    transport.feed(write(b"/w/last") + write(b"/w/half")[:-1])
    small.turn("s0")
    transport.eof = True
    small.turn("s0")
    assert connection.closed and connection.pending_output == b""
    del small.sockets["s0"]
    assert ok(small, "s1", "READ", b"/w/last\0") == b"v"
    assert small.ask("s1", "READ", b"/w/half\0")[0] == ERROR


def test_a_client_that_cannot_be_written_to(small: World) -> None:
    """Nothing is queued for it any more, and it is told of nothing; what it asked before it went
    is done as soon as it can be, and then its connection ends."""
    watch(small, "d1", b"/w")
    stop_reading(small, "d1")
    connection, transport = small.connection("s0")
    watch(small, "s0", b"/other")
    transport.feed(b"".join(write(b"/w/%d" % n) for n in range(3 * LIMIT)))
    transport.room = 0
    small.turn("s0")
    transport.eof = True
    small.turn("s0")
    assert connection.deaf and connection.blocked and not connection.closed
    assert not connection.has_output and connection.watch_count == 0
    while not connection.closed:
        read_on(small, "d1")
        small.drain("d1")
        assert not connection.has_output
    del small.sockets["s0"]
    assert ok(small, "s1", "READ", b"/w/%d\0" % (3 * LIMIT - 1)) == b"v"


OUTPUT_BYTES = 64 * 4096


@pytest.mark.parametrize("less", [0, 1])
@pytest.mark.parametrize(("name", "limited"), [("d1", True), ("s0", False), ("d0", False)])
def test_bytes_of_replies_that_wait(make_world: Make, name: str, limited: bool, less: int) -> None:
    """A guest that does not read is served until 256 KiB wait for it, to the byte."""
    world: World = make_world(quota_maxoutstanding=1000, quota_maxsize=4096)
    for path, size in ((b"/v", 4096 - 16), (b"/w", 4096 - 16 - less)):
        ok(world, "s0", "WRITE", path + b"\0" + b"v" * (size // 2))
        ok(world, "s0", "WRITE", path + b"\0" + b"v" * size)
        ok(world, "s0", "SET_PERMS", path + b"\0b0\0")
    connection, transport = world.connection(name)
    transport.room = 0
    requests = [packet("READ", b"/w\0")] + [packet("READ", b"/v\0")] * 79
    for request in requests:
        world.feed(name, request)
    assert connection.queued[0] == (64 + less if limited else 80)
    transport.room = -1
    while len(world.drain(name)) < 1:
        world.turn(name)


def test_the_loop_is_told_what_to_wait_for(small: World) -> None:
    """Input while it is served, output while something is queued."""
    connection, transport = small.connection("d1")
    assert connection.interest == 1
    stop_reading(small, "d1")
    small.feed("d1", packet("GET_DOMAIN_PATH", b"1\0"))
    assert connection.interest == 1 | 4
    small.feed("d1", packet("GET_DOMAIN_PATH", b"1\0") * 9)
    assert connection.interest == 4
    read_on(small, "d1")
    small.turn("d1")
    assert connection.interest == 1
    small.server.disconnect(connection)
    assert connection.interest == 0
