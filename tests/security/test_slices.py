# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a request leaves behind is cleared away in slices, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyxsd.events.trie import live_counts as live_watches
from pyxsd.store.tree import live_counts as live_store
from tests.unit.kit import begin, end, ok, recount, watch, write
from tests.world import World, packet

Make = Callable[..., Any]


def turns(world: World, name: str = "s0", data: bytes = b"") -> int:
    """Serves a connection that has sent this, and counts the turns until nothing is left to do."""
    world.connection(name)[1].feed(data)
    world.server.begin(world.now, world.now)
    world.server.service(world.connection(name)[0])
    count = 1
    while world.server.flush():
        count += 1
    world.server.take_changed()
    return count


def close(world: World, name: str) -> int:
    """Ends a connection, and counts the turns like turns()."""
    world.server.disconnect(world.sockets.pop(name)[0])
    return turns(world)


# -- old versions of the store ---------------------------------------------------

NODES = 9000
DEEP = b"/".join([b"a"] * 500)


@pytest.mark.parametrize("how", ["commit", "abort", "close", "reset", "history", "rm"])
def test_old_trees(world: World, how: str) -> None:
    """A transaction keeps 9,000 nodes that were replaced since its start."""
    for n in range(NODES):
        ok(world, "s0", "WRITE", b"/big/%03d/%03d\0v" % (n // 100, n % 100))
    world.turn()
    before = live_store()
    if how == "rm":
        assert turns(world, "s0", packet("RM", b"/big\0")) > NODES // 4096
        assert live_store()["nodes"] < before["nodes"] - NODES
        return
    tx_id = begin(world, "s1")
    if how == "history":
        ok(world, "s0", "SET_PERMS", b"/big\0b0\0")
        for n in range(90):
            ok(world, "d1", "WRITE", b"/big/new%d\0v" % n)
    ok(world, "s0", "RM", b"/big\0")
    assert live_store()["nodes"] > before["nodes"]
    if how == "history":
        assert end(world, "s1", tx_id, b"F") == "OK"
        world.now += 100
        world.server.tick(world.now)
        count = turns(world)
    elif how == "close":
        count = close(world, "s1")
    elif how == "reset":
        count = turns(world, "s1", packet("RESET_WATCHES", b"\0"))
    else:
        letter = b"T\0" if how == "commit" else b"F\0"
        count = turns(world, "s1", packet("TRANSACTION_END", letter, tx_id))
    assert how == "history" or count > NODES // 4096
    assert live_store()["nodes"] < before["nodes"] - NODES
    recount(world)


def test_nodes_with_long_permission_lists_are_freed_in_more_slices(world: World) -> None:
    """960 nodes with 64 entries each take as long as some 9,000 others."""
    for n in range(960):
        ok(world, "d1", "WRITE", b"d/%03d\0v" % n)
        ok(world, "d1", "SET_PERMS", b"d/%03d\0n1\0" % n + b"r2\0" * 63)
    world.turn()
    assert turns(world, "d1", packet("RM", b"d\0")) > 3
    assert live_store()["perms"] < 20


def test_garbage_does_not_pile_up(make_world: Make) -> None:
    """Each of eight guests writes below 500 nodes of its own in each turn, and has a transaction
    open, so that each WRITE makes 1,000 nodes and pages and drops as many: three times what a turn
    clears away by itself."""
    guests = range(1, 9)
    world: World = make_world(tuple(guests))
    for n in guests:
        ok(world, f"d{n}", "MKDIR", DEEP + b"\0")
        begin(world, f"d{n}")
    world.server.agenda.slice_ns = world.server.agenda.turn_ns = 10**15
    most = []
    for k in range(30):
        for n in guests:
            connection, transport = world.connection(f"d{n}")
            transport.feed(write(DEEP, b"%d" % k))
            world.server.ready(connection, False)
        world.server.flush()
        most.append(live_store()["nodes"])
    # Its own, what the history may keep of it, and what is being written and forgotten.
    assert max(most) < 8 * (500 + 4096 + 2 * 1024)


# -- events that wait ------------------------------------------------------------


@pytest.mark.parametrize("who", ["watcher", "cause", "watch"])
def test_waiting_events(make_world: Make, who: str) -> None:
    """s1 has 600 watches and does not read, and four others have caused events for it."""
    world: World = make_world(quota_maxwatchevents=4)
    ok(world, "s0", "MKDIR", b"/w\0")
    for n in range(600):
        watch(world, "s1", b"/w", b"%d" % n)
    world.connection("s1")[1].room = 0
    causes = [f"s{n}" for n in range(2, 6)]
    for n in range(9):
        world.feed("s0", write(b"/w/%d" % n))
    for name in causes:
        world.feed(name, write(b"/w/" + name.encode()))
    assert all(world.connection(name)[0].overflowing == 600 for name in causes)
    if who == "watcher":
        count = close(world, "s1")
    elif who == "watch":
        unwatch = b"".join(packet("UNWATCH", b"/w\0%d\0" % n) for n in range(1, 600))
        count = turns(world, "s1", unwatch)
    else:
        count = close(world, "s2")
        assert [world.connection(name)[0].overflowing for name in causes[1:]] == [600] * 3
        assert count > 1
        close(world, "s1")
    assert count > (4 if who == "watcher" else 1)
    for name in causes[who == "cause" :]:
        assert world.connection(name)[0].overflowing == (1 if who == "watch" else 0), name
        assert world.connection(name)[0].blocked == (who == "watch"), name


def watcher_that_does_not_read(world: World) -> tuple[Any, Any]:
    """d1, with 100 watches on /w, where all may write: its connection and transport."""
    ok(world, "s0", "MKDIR", b"/w\0")
    ok(world, "s0", "SET_PERMS", b"/w\0b0\0")
    for n in range(100):
        watch(world, "d1", b"/w", b"%d" % n)
    guest, transport = world.connection("d1")
    transport.room = 0
    return guest, transport


def test_a_fast_reader_gets_its_waiting_events_in_slices(world: World) -> None:
    """50,000 events wait for s1 when it begins to read, and takes whatever it is sent."""
    ok(world, "s0", "MKDIR", b"/w\0")
    for n in range(100):
        watch(world, "s1", b"/w", b"%d" % n)
    connection, transport = world.connection("s1")
    transport.room = 0
    for n in range(500):
        world.feed("s0", write(b"/w/%d" % n))
    assert connection.waiting_events > 48000
    transport.room = -1
    world.server.begin(world.now, world.now)
    world.server.service(connection)
    moved = world.server.events
    most = 0
    world.server.agenda.turn_ns = 0  # one slice in each turn
    while world.server.flush():
        most = max(most, world.server.events - moved)
        moved = world.server.events
    assert 0 < most <= 128
    assert connection.waiting_events == 0 and connection.queued == (0, 0)
    told = [body for kind, _, _, body in world.drain("s1") if kind == 15]
    assert len(told) == 50_000 == len(set(told))


def test_waiting_events_come_in_turns_of_their_watcher(world: World) -> None:
    """Whoever's output is sent behind that of d1 does not wait until events of d1 have been moved
    into the room that came free."""
    guest, transport = watcher_that_does_not_read(world)
    for n in range(30):
        world.feed("s0", write(b"/w/%d" % n))
    assert guest.waiting_events > 1900
    transport.room = 4096
    world.server.agenda.turn_ns = 0  # one slice in each turn
    world.server.serve_later(guest)
    before = world.server.events
    world.server.flush()  # they do not come among those who ask one thing at a time
    assert not transport.take()
    world.server.flush()
    assert transport.take() and guest.waiting_events > 1900
    assert world.server.events == before
    while world.server.flush():
        pass
    assert 50 < world.server.events - before < 200


def test_waiting_events_do_not_come_among_those_who_ask_one_thing(make_world: Make) -> None:
    """d1 is to be served among them when its output is sent, which was put off before."""
    world: World = make_world((1, 2, 3, 4))
    guest, transport = watcher_that_does_not_read(world)
    for n in range(30):
        world.feed("s0", write(b"/w/%d" % n))
    agenda, server = world.server.agenda, world.server
    agenda.turn_ns, agenda.slice_ns = 0, 10**12
    transport.room = 4096
    for name in ("d2", "d1"):
        world.connection(name)[1].feed(packet("READ", b"/\0"))
        server.service(world.connection(name)[0])
    for name in ("d3", "d4", "d1"):
        world.connection(name)[1].feed(packet("READ", b"/\0"))
        server.serve_later(world.connection(name)[0])
    before = server.events
    server.flush()  # d3 is served, and d2 is sent its answer
    server.flush()  # d4, and d1
    assert transport.take()
    server.flush()  # d1
    assert server.events == before
    while server.flush():
        pass
    assert server.events > before + 50


def test_room_for_events_is_taken_in_slices(world: World) -> None:
    """d1 drops 0.7 MB of events with long paths, which makes room for 4,000 small ones at once."""
    for path in (b"/w", b"/l"):
        ok(world, "s0", "MKDIR", path + b"\0")
        ok(world, "s0", "SET_PERMS", path + b"\0b0\0")
    watch(world, "d1", b"/l", b"long")
    for n in range(99):
        watch(world, "d1", b"/w", b"%d" % n)
    guest, transport = world.connection("d1")
    transport.room = 0
    for n in range(11):
        world.feed("s0", write(b"/w/first%d" % n))
    for n in range(350):
        world.feed("s0", write(b"/l/" + b"x" * 2000 + b"%04d" % n))
    tx_id = begin(world, "s1")
    for n in range(150):
        ok(world, "s1", "WRITE", b"/w/%03d\0v" % n, tx_id)
    assert end(world, "s1", tx_id) == "OK"
    cause = world.connection("s1")[0]
    owed = cause.overflowing
    assert owed > 9000
    world.feed("d1", packet("UNWATCH", b"/l\0long\0"))
    transport.room = -1
    most = 0
    world.server.service(guest)
    world.server.agenda.turn_ns = 0  # one slice in each turn
    while world.server.flush():
        most = max(most, owed - cause.overflowing)
        owed = cause.overflowing
    # Up to three for each of 128 that are sent, and 128 for the room that long paths leave.
    assert 0 < most <= 512
    assert cause.overflowing == guest.waiting_events == 0
    told = [body for kind, _, _, body in world.drain("d1") if kind == 15]
    assert len([body for body in told if body.startswith(b"/w/0")]) == 99 * 100


def test_output_is_sent_for_a_turns_time(world: World) -> None:
    """Four are sent to between two looks at the clock, in the order in which they have got
    something to send; at the end of the daemon nobody is left out."""
    names = [f"s{n}" for n in range(14)]
    for name in names:
        connection, transport = world.connection(name)
        transport.feed(packet("READ", b"/tool\0"))
        world.server.service(connection)
    world.server.agenda.turn_ns = 0
    for n in range(2):
        assert world.server.flush()
        assert [bool(world.drain(name)) for name in names] == [k // 4 == n for k in range(14)]
    world.server.send_all()
    assert [bool(world.drain(name)) for name in names] == [False] * 8 + [True] * 6
    assert not world.server.flush()


def test_dropped_events_count_until_they_are_freed(world: World) -> None:
    """0.8 MB of events wait for d1, which drops them: only as much as was freed can wait anew."""
    guest, transport = watcher_that_does_not_read(world)
    cause = world.connection("s0")[0]
    count = 0
    while not cause.overflowing:
        world.feed("s0", write(b"/w/%05d" % count))
        count += 1
    assert guest.waiting_events > 3000
    # The 64 events that are freed at once make room for about as many; the output is full.
    world.server.agenda.slice_ns = 10**15  # both requests are served, however busy the machine is
    transport.feed(packet("RESET_WATCHES", b"\0") + packet("WATCH", b"/w\0new\0"))
    world.server.service(guest)
    other, writer = world.connection("s1")
    writer.feed(b"".join(write(b"/w/new%05d" % n) for n in range(200)))
    for _ in range(50):
        world.server.service(other)
    assert 50 < guest.waiting_events < 70
    assert other.overflowing == 1
    # Nothing is forgotten: when d1 reads, it is told of all that came after.
    transport.room = -1
    world.turn("d1")
    told = [body for kind, _, _, body in world.drain("d1") if kind == 15]
    assert len([body for body in told if body.endswith(b"\0new\0")]) >= 201
    assert not cause.overflowing and not other.overflowing


# -- searches for watches --------------------------------------------------------


def test_many_watches_on_one_path(world: World) -> None:
    """A change that 5,000 watches match keeps its place and no list of them; the watches at
    that place can go, and new ones are not told."""
    before = live_watches()
    ok(world, "s0", "MKDIR", b"/w\0")
    for n in range(5000):
        ok(world, f"s{2 + n % 5}", "WATCH", b"/w\0%d\0" % n)
    for n in range(2, 7):
        world.drain(f"s{n}")
    connection, transport = world.connection("s0")
    transport.feed(write(b"/w/x"))
    world.server.begin(world.now, world.now)
    looked_at = world.server.events
    world.server.service(connection)
    assert 0 < world.server.events - looked_at <= 128
    # s6 is in the middle of being told: its watches are removed, and s7 sets new ones.
    world.server.disconnect(world.sockets.pop("s6")[0])
    for n in range(200):
        ok(world, "s7", "WATCH", b"/w\0%d\0" % n)
    world.turn()
    assert len(world.drain("s7")) <= 200 + 2 * 200  # replies and first events
    for n in range(2, 6):
        told = [body for kind, _, _, body in world.drain(f"s{n}") if kind == 15]
        assert len(told) == 1000 == len(set(told))
    for name in [name for name in world.sockets if name != "s0"]:
        close(world, name)
    assert live_watches() == before


# -- the history -----------------------------------------------------------------


@pytest.mark.parametrize("others", [False, True])
def test_the_history_of_one_guest_is_bounded(world: World, others: bool) -> None:
    """Each WRITE below 500 nodes copies them, while a transaction is open."""
    ok(world, "d1", "MKDIR", DEEP + b"\0")
    ok(world, "s0", "WRITE", b"/x\0v")
    ok(world, "s0", "SET_PERMS", b"/x\0b0\0")
    tx_id = begin(world, "s0")
    ok(world, "s0", "READ", b"/x\0", tx_id)
    ok(world, "s0", "WRITE", b"/y\0v", tx_id)
    before = live_store()["nodes"]
    # The change that the transaction will fail of comes first, and must not be forgotten.
    ok(world, "d1", "WRITE", b"/x\0new")
    for n in range(200):
        ok(world, "d1", "WRITE", DEEP + b"\0%d" % n)
        if others:
            ok(world, "d2", "WRITE", b"k\0%d" % n)
        # 4,096 copied nodes, what is being written, and the share of domain 2.
        assert live_store()["nodes"] < before + 4096 + 3 * 1024
    credit = world.connection("d1")[0].credit
    assert end(world, "s0", tx_id) == "EAGAIN"
    assert world.connection("d1")[0].credit == credit - 1
    world.now += 100
    world.server.tick(world.now)
    world.turn()
    assert live_store()["nodes"] < before + 600


def test_what_no_transaction_needs_goes_in_slices(world: World) -> None:
    """The transaction for which 350 changes were kept is no longer a recent one."""
    ok(world, "d1", "WRITE", b"a/b/c\0v")
    before = live_store()["nodes"]
    begin(world, "s0")
    for n in range(350):
        ok(world, "d1", "WRITE", b"a/b/c\0%d" % n)
    world.now += 100
    kept = live_store()["nodes"]
    assert kept > before + 350 * 6
    count = 0
    while world.server.tick(world.now) == world.now:
        count += 1
        world.turn()
        assert kept - live_store()["nodes"] < 300 * 8
        kept = live_store()["nodes"]
    world.turn()
    assert count == 350 // 256
    assert live_store()["nodes"] < before + 20
    assert not world.server.wants_time


def test_changes_of_others_are_forgotten_in_slices(make_world: Make) -> None:
    """1,800 changes of others stand between the first and the second one of domain 1."""
    world: World = make_world((1, 2, 3, 4))
    for name in ("d1", "d2", "d3", "d4"):
        ok(world, name, "WRITE", b"k\0v")
    begin(world, "s0")
    ok(world, "d1", "WRITE", b"k\0first")
    for n in range(600):
        for name in ("d2", "d3", "d4"):
            ok(world, name, "WRITE", b"k\0%d" % n)
    # Each weighs a quarter of what is kept of one guest.
    ok(world, "d1", "MKDIR", DEEP + b"\0")
    dropped = []
    for n in range(24):
        kept = live_store()["nodes"]
        ok(world, "d1", "WRITE", DEEP + b"\0%d" % n)
        dropped.append(kept + 504 - live_store()["nodes"])
    assert 512 < max(dropped) < 520 * 5


def test_many_watches_below_a_removed_path(world: World) -> None:
    """Between two slices the watches go at which the search has come to, with their part of the
    trie; each of the others is told once, of its own path and in ascending order."""
    before = live_watches()
    paths = [b"/w/x%02d/y/z%d" % (n // 10, n % 10) for n in range(900)]
    for n, path in enumerate(paths):
        ok(world, "s0", "WRITE", path + b"\0v")
        ok(world, f"s{2 + n % 3}", "WATCH", path + b"\0t\0")
    for n in range(2, 5):
        world.drain(f"s{n}")
    connection, transport = world.connection("s0")
    transport.feed(packet("RM", b"/w\0"))
    world.server.begin(world.now, world.now)
    told = world.server.events
    world.server.service(connection)
    assert 0 < world.server.events - told <= 128
    world.server.disconnect(world.sockets.pop("s4")[0])
    for n in range(300, 600):
        if n % 3 == 0:
            world.feed("s2", packet("UNWATCH", paths[n] + b"\0t\0"))
    world.turn()
    got = [body.split(b"\0")[0] for kind, _, _, body in world.drain("s3") if kind == 15]
    assert got == paths[1::3]
    got = [body.split(b"\0")[0] for kind, _, _, body in world.drain("s2") if kind == 15]
    assert [path for path in got if not paths[300] <= path < paths[600]] == [
        *paths[0:300:3],
        *paths[600::3],
    ]
    for name in [name for name in world.sockets if name != "s0"]:
        close(world, name)
    assert live_watches() == before


def test_a_search_that_no_memory_is_left_to_keep(world: World) -> None:
    """Whichever allocation fails while a change is served that 300 watches match: the watches can
    all go afterwards, and none is held by a search that nobody goes on with."""
    memory = pytest.importorskip("_testcapi")
    before = live_watches()
    ok(world, "s0", "MKDIR", b"/w\0")
    for n in range(300):
        watch(world, "s1", b"/w", b"%d" % n)
    failures = 0
    for n in range(60):
        connection, transport = world.connection("s0")
        transport.feed(write(b"/w/x", b"%d" % n))
        memory.set_nomemory(n, n + 1)
        try:
            world.server.service(connection)
        except MemoryError:
            pass
        finally:
            memory.remove_mem_hooks()
        world.turn()
        world.drain("s1")
        if connection.closed:
            failures += 1
            del world.sockets["s0"]
    assert failures > 0
    for name in list(world.sockets):
        close(world, name)
    assert live_watches() == before
