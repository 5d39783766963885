# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes whose events are not told yet keep the stores around them; guests together keep no more
of those than of the stores at the starts of their transactions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.state import image
from pyxsd.store.tree import live_counts
from pyxsd.system.configuration import Config
from tests.unit.kit import begin, end, ok, recount, watch
from tests.world import Host, World, packet

NODES = 300
READER, BLOCKED, DEAF, WRITER = "s7", "d1", "d2", "d3"


def rewrite(world: World, value: bytes) -> None:
    """d3 replaces all its values, 0.6 MB, a second later, with a transaction open."""
    world.now += 1
    tx_id = begin(world, WRITER)
    for n in range(NODES):
        ok(world, WRITER, "WRITE", b"%03d\0" % n + value * 2000)
    assert end(world, WRITER, tx_id, b"F") == "OK"


def blocked(world: World) -> None:
    """d1 has committed changes whose events must wait, since d2 does not read."""
    for name in (BLOCKED, WRITER):
        ok(world, name, "MKDIR", b"x\0")
    ok(world, BLOCKED, "SET_PERMS", b"x\0n1\0r2\0")
    for n in range(100):
        watch(world, DEAF, b"/local/domain/1/x", b"%d" % n)
    watch(world, READER, b"/local/domain/1/x")
    world.connection(DEAF)[1].room = 0
    rewrite(world, b"a")
    commit(world)


def commit(world: World) -> None:
    """Changes of d1 whose events must wait."""
    tx_id = begin(world, BLOCKED)
    for n in range(90):
        ok(world, BLOCKED, "WRITE", b"x/%02d\0v" % n, tx_id)
    world.feed(BLOCKED, packet("TRANSACTION_END", b"T\0", tx_id))
    assert world.connection(BLOCKED)[0].has_jobs
    # Until here it is told at once, or in slices.
    assert len(told(world)) < 90


def old_nodes(world: World) -> int:
    """How many nodes there are that are not in the store, when no change is kept any more."""
    world.now += 1
    world.turn()
    world.server.tick(world.now)
    world.turn()
    return int(live_counts()["nodes"]) - int(world.server.tree.size)


def again(data: bytes) -> bytes:
    """The image of a server that is made of that one."""
    server = Server(Config(), Host())
    image.load(image.read(data), server, None, lambda _number, _domid: MemoryTransport())
    made = image.save(server)
    server.close()
    return made


def told(world: World) -> list[bytes]:
    """What the reader was told of."""
    return [body.split(b"\0")[0] for kind, _, _, body in world.drain(READER) if kind == 15]


@pytest.mark.parametrize("is_copied", [False, True])
def test_events_that_keep_too_much_are_hurried(
    make_world: Callable[..., World], is_copied: bool
) -> None:
    """Who reads is told of all changes in their order, who does not misses some, and the old nodes
    are gone.  An image knows how long they have waited."""
    world: World = make_world((1, 2, 3))
    blocked(world)
    guest = world.connection(BLOCKED)[0]
    rewrite(world, b"b")
    assert old_nodes(world) > NODES
    rewrite(world, b"c")
    if is_copied:
        data = image.save(world.server)
        assert again(data) == data
    # Written, and once replaced: 8 MB.
    count = 0
    while guest.has_jobs and count < 9:
        count += 1
        rewrite(world, b"%d" % count)
    assert 2 < count < 9
    paths = told(world)
    assert paths == sorted(paths) and paths[-1] == b"/local/domain/1/x/89"
    assert old_nodes(world) < 20
    recount(world)
    # It waits for the events that it has on its account, and is served when they are read.
    world.connection(BLOCKED)[1].feed(packet("READ", b"x/00\0"))
    world.turn(BLOCKED)
    assert world.drain(BLOCKED)[-1][3] == b"OK\0"
    world.connection(DEAF)[1].room = -1
    world.turn(DEAF)
    world.turn()
    assert world.drain(BLOCKED)[-1][3] == b"v"
    # The next time it is hurried as well.
    world.connection(DEAF)[1].room = 0
    commit(world)
    while guest.has_jobs and count < 15:
        count += 1
        rewrite(world, b"%x" % count)
    assert count < 15


# -- changes that are told slowly, to watchers who read --------------------------


def slowly(world: World, who: str) -> None:
    """Somebody has removed /local/domain/1/x and the 300 nodes below it, each by itself; few of
    that is told yet.  `kernel`: domain 1 has, and then gone."""
    ok(world, "d1", "MKDIR", b"x\0")
    ok(world, "d1", "SET_PERMS", b"x\0n1\0r2\0")
    ok(world, WRITER, "MKDIR", b"x\0")
    for n in range(NODES):
        ok(world, "d1", "WRITE", b"x/%03d\0v" % n)
    for name in (READER, DEAF):
        watch(world, name, b"/local/domain/1/x")
    rewrite(world, b"a")
    cause = "d1" if who == "kernel" else who
    tx_id = begin(world, cause)
    for n in range(NODES):
        ok(world, cause, "RM", b"/local/domain/1/x/%03d\0" % n, tx_id)
    ok(world, cause, "RM", b"/local/domain/1/x\0", tx_id)
    connection, transport = world.connection(cause)
    transport.feed(packet("TRANSACTION_END", b"T\0", tx_id))
    world.server.agenda.slice_ns = world.server.agenda.turn_ns = 0
    world.server.service(connection)
    assert connection.has_jobs
    if who == "kernel":
        world.server.disconnect(connection)
        world.host.transports.pop(1)
        world.server.service(world.server.kernel)
        assert world.server.kernel.has_jobs


def rewrite_alone(world: World, value: bytes) -> int:
    """As rewrite(), while others are served for three slices; the fewest nodes that were not in the
    store."""
    connection, transport = world.connection(WRITER)
    few = 10**9
    world.now += 1
    world.server.begin(world.now, world.now)
    while world.server.tick(world.now) == world.now:
        pass
    requests = [packet("WRITE", b"%03d\0" % n + value * 2000) for n in range(NODES)]
    for n, request in enumerate([packet("TRANSACTION_START", b"\0"), *requests]):
        transport.feed(request)
        while transport.unread or connection.partial_input:
            world.server.service(connection)
        world.server.send_all()
        if n % 100 == 99:
            world.server.flush()
            few = min(few, int(live_counts()["nodes"]) - int(world.server.tree.size))
    transport.take()
    transport.feed(packet("TRANSACTION_END", b"F\0", max(connection.transactions)))
    world.server.service(connection)
    return few


@pytest.mark.parametrize("who", ["d1", "kernel", "s2"])
def test_changes_that_are_told_slowly_keep_too_much(
    make_world: Callable[..., World], who: str
) -> None:
    """They keep no old store any more; whoever has all rights is told of all of them all the same,
    in their order, though nothing says by now who might see the nodes that are gone."""
    world: World = make_world((1, 2, 3))
    slowly(world, who)
    few = [rewrite_alone(world, b"%d" % (n % 10)) for n in range(25)]
    assert few[1] > 3 * NODES > 2 * NODES > min(few)
    world.turn()
    assert not world.server.kernel.has_jobs
    removed = [b"/local/domain/1/x/%03d" % n for n in range(NODES)]
    assert told(world) == [*removed, b"/local/domain/1/x"]
    assert old_nodes(world) < 20
    recount(world)
