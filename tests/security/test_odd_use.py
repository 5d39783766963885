# SPDX-License-Identifier: LGPL-2.1-or-later
"""What guests and local users can make the daemon do, keep or forget by odd use of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kit import begin, end, ok, watch, write
from tests.world import HEADER, World, packet

Make = Callable[..., Any]


# -- running a transaction's requests again costs no more than one request may ----


def test_a_replay_does_not_list_a_large_directory_again_and_again(world: World) -> None:
    """Each DIRECTORY_PART of a guest looks at hundreds of names, also where its answer is empty."""
    name = b"n" * 900
    for n in range(500):
        ok(world, "d1", "WRITE", b"d/%03d" % n + name + b"\0")
    tx_id = begin(world, "d1")
    for _ in range(200):
        ok(world, "d1", "DIRECTORY_PART", b"d\x00999999999\0", tx_id)
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    ok(world, "d1", "WRITE", b"d/000" + name + b"\0new")
    # 200 listings of 450 kB are 90 MB.
    assert end(world, "d1", tx_id) == "EAGAIN"


def test_a_piece_of_a_large_directory_copies_only_the_piece(world: World) -> None:
    """The names of a guest's directory may take 2 MB; the count is that of every name."""
    name = b"n" * 1500
    for n in range(600):
        ok(world, "d1", "WRITE", b"d/%03d" % n + name + b"\0")
    ok(world, "d1", "DIRECTORY_PART", b"d\0000\0")
    counts = set()
    tracemalloc.start()
    try:
        for n in range(20):
            body = ok(world, "d1", "DIRECTORY_PART", b"d\x00%d\0" % (n * 1504))
            count, names = body.split(b"\0", 1)
            counts.add(count)
            assert names == b"".join(b"%03d" % k + name + b"\0" for k in (n, n + 1))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert len(counts) == 1
    # A name more, one less, and another one at its place.
    for type_, path in (
        ("WRITE", b"d/x"),
        ("RM", b"d/x"),
        ("RM", b"d/300" + name),
        ("WRITE", b"d/300" + name[1:] + b"m"),
    ):
        ok(world, "d1", type_, path + b"\0")
        counts.add(ok(world, "d1", "DIRECTORY_PART", b"d\0000\0").split(b"\0")[0])
    assert len(counts) == 4


def test_a_replay_lists_a_small_directory(world: World) -> None:
    """What it costs is what is listed, not what is left out of the answer."""
    for n in range(100):
        ok(world, "d1", "WRITE", b"d/%d\0" % n)
    tx_id = begin(world, "d1")
    ok(world, "d1", "DIRECTORY_PART", b"d\x00999999999\0", tx_id)
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    ok(world, "d1", "WRITE", b"x\0outside")
    assert end(world, "d1", tx_id) == "OK"
    assert world.server.transactions_merged == 0
    assert ok(world, "d1", "READ", b"x\0") == b"v"


def _failing(world: World, *requests: tuple[str, bytes]) -> int:
    """A transaction of d1 with these requests whose replay fails, and not by others' doing."""
    ok(world, "d1", "WRITE", b"x\0before")
    tx_id = begin(world, "d1")
    for type_, payload in requests:
        ok(world, "d1", type_, payload, tx_id)
    ok(world, "d1", "READ", b"x\0", tx_id)
    return tx_id


def _blame_gets_as_far(world: World, tx_id: int, changes: int, marked: bool = True) -> bool:
    """Is the last one of so many changes looked at, the one that made the transaction fail?"""
    connection = world.connection("d2")[0]
    world.feed("d1", b"".join(write(b"y/%d" % n) for n in range(3)))
    world.feed("d2", b"".join(write(b"k", b"%d" % n) for n in range(changes)))
    before = connection.credit
    ok(world, "s0", "SET_PERMS", b"/local/domain/1/x\0n1\0b2\0")
    if marked:
        ok(world, "d2", "WRITE", b"/local/domain/1/x\0after")
    else:
        # A commit of two changes, which are not known by their paths.
        other = begin(world, "d2")
        ok(world, "d2", "WRITE", b"/local/domain/1/x\0after", other)
        ok(world, "d2", "WRITE", b"k\0after", other)
        assert end(world, "d2", other) == "OK"
    world.drain("d1")
    assert end(world, "d1", tx_id) == "EAGAIN"
    return bool(connection.credit < before)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("nothing", 450),
        ("nothing", 1800),
        ("removes 900 nodes", 200),
        ("copies 511 nodes", 10),
        ("copies 511 nodes", 100),
    ],
)
def test_the_search_for_the_guilty_goes_by_halves_where_it_costs_much(
    world: World, kind: str, changes: int
) -> None:
    """Of 100 changes with a trial of 1,300 units each not even that is possible, but it is known
    that domain 2 changed what is read."""
    requests = [("WRITE", b"z\0v")]
    if kind == "removes 900 nodes":
        for n in range(900):
            ok(world, "d1", "WRITE", b"d/%d\0" % n)
        requests = [("RM", b"d\0")]
    if kind == "copies 511 nodes":
        ok(world, "d1", "MKDIR", b"/".join([b"a"] * 511) + b"\0")
        requests = [("WRITE", b"/".join([b"a"] * 511) + b"\0w")]
    tx_id = _failing(world, *requests)
    assert _blame_gets_as_far(world, tx_id, changes)


def _replayed(world: World, times: int, type_: str, payload: bytes) -> bool:
    """Does a transaction that asks this so many times, and must be run again, end well?"""
    tx_id = begin(world, "d1")
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    for _ in range(times):
        ok(world, "d1", type_, payload, tx_id)
    ok(world, "d1", "WRITE", b"y\0v")
    answer = end(world, "d1", tx_id)
    assert answer in ("OK", "EAGAIN")
    return answer == "OK"


@pytest.mark.parametrize(("times", "done"), [(100, True), (300, False)])
def test_permission_lists_cost_by_their_entries(world: World, times: int, done: bool) -> None:
    """A replay may set a list of 64 entries some 200 times, not 400 times."""
    perms = b"n1\0" + b"".join(b"r%d\0" % (20000 + n) for n in range(63))
    assert _replayed(world, times, "SET_PERMS", b"x\0" + perms) == done


@pytest.mark.parametrize(("times", "done"), [(20, True), (60, False)])
def test_pieces_of_a_listing_cost_by_its_names(world: World, times: int, done: bool) -> None:
    """For each piece up to a thousand names are looked at, however short they and the piece are."""
    for n in range(900):
        ok(world, "d1", "WRITE", b"d/%03d\0" % n)
    assert _replayed(world, times, "DIRECTORY_PART", b"d\x003599\0") == done


@pytest.mark.parametrize(("times", "done"), [(60, True), (120, False)])
def test_listings_of_short_names_cost_more_than_their_bytes(
    world: World, times: int, done: bool
) -> None:
    """A name of two bytes takes as long as one of a few more."""
    letters = b"abcdefghijklmnopqrstuvwxyz0123"
    for n in range(900):
        ok(world, "d1", "WRITE", b"d/%c%c\0" % (letters[n % 30], letters[n // 30]))
    assert _replayed(world, times, "DIRECTORY", b"d\0") == done


@pytest.mark.parametrize("at", [0, 1, 5 * 12000, 5 * 40000 - 1, 5 * 40000, 1 << 60])
def test_a_piece_of_a_very_wide_directory_looks_at_few_names(world: World, at: int) -> None:
    """Domain 0 has filled it.  Fifteen pieces that look at 40,000 names each are 200,000 units of
    work."""
    for n in range(40000):
        world.connection("s0")[1].feed(write(b"/d/%x" % (1 << 16 | n)))
    world.turn("s0")
    world.drain("s0")
    ok(world, "s0", "SET_PERMS", b"/d\0b0\0")
    tx_id = begin(world, "d1")
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    for _ in range(15):
        ok(world, "d1", "DIRECTORY_PART", b"/d\x00%d\0" % at, tx_id)
    ok(world, "d1", "WRITE", b"y\0v")
    assert end(world, "d1", tx_id) == "OK"


@pytest.mark.parametrize(
    ("listings", "marked", "found"), [(40, False, True), (55, False, False), (55, True, True)]
)
def test_the_search_for_the_guilty_has_what_the_replay_left(
    world: World, listings: int, marked: bool, found: bool
) -> None:
    """A replay with 55 listings of 400 names takes 3,700 units of work, and so does each of the
    two trials of the change: together too much for one commit."""
    for n in range(400):
        ok(world, "d1", "WRITE", b"d/%04d\0" % n)
    tx_id = _failing(world, ("WRITE", b"z\0v"), *[("DIRECTORY", b"d\0")] * listings)
    assert _blame_gets_as_far(world, tx_id, 0, marked) == found


# -- events of one request are delivered in slices of time -----------------------


def test_a_commit_of_many_changes_is_delivered_in_slices(world: World) -> None:
    """No event is lost or out of order, and the request itself delivers only a few."""
    for n in range(20):
        watch(world, "d1", b"/local/domain/1", b"%d" % n)
    tx_id = begin(world, "d1")
    for n in range(100):
        ok(world, "d1", "WRITE", b"k%d\0v" % n, tx_id)
    connection, transport = world.connection("d1")
    transport.feed(packet("TRANSACTION_END", b"T\0", tx_id))
    before = world.server.events + connection.waiting_events
    world.server.begin(world.now, world.now)
    world.server.service(connection)
    assert world.server.events + connection.waiting_events - before < 300
    world.turn()
    got = [body.split(b"\0")[:2] for type_, _, _, body in world.drain("d1") if type_ == 15]
    for n in range(20):
        assert [path for path, token in got if token == b"%d" % n] == [
            b"/local/domain/1/k%d" % k for k in range(100)
        ]


@pytest.mark.parametrize("watched", [b"/local/domain/1", b"/elsewhere"])
def test_a_commit_of_long_paths_looks_for_few_watches_at_once(world: World, watched: bytes) -> None:
    """Each change counts, and a long path more, whether or not somebody watches it."""
    watch(world, "s1", watched)
    tx_id = begin(world, "d1")
    paths = [b"k%03d" % n + b"x" * 1000 for n in range(200)]
    for n, path in enumerate(paths):
        ok(world, "d1", "WRITE", path + b"\0v", tx_id)
        if n % 80 == 79:
            ok(world, "d1", "RM", path + b"\0", tx_id)
    world.server.agenda.slice_ns = 0
    connection, transport = world.connection("d1")
    transport.feed(packet("TRANSACTION_END", b"T\0", tx_id) + packet("WRITE", b"later\0v"))
    world.server.begin(world.now, world.now)
    before = world.server.events
    world.server.service(connection)
    assert world.server.events - before <= 10
    # Each slice, which has no time here, is one change.
    slices = 1
    while connection.has_jobs:
        world.server.service(connection)
        slices += 1
    assert slices > 190
    world.turn()
    # In the order of the transaction, and before what came later.  What was removed is told of
    # twice where its first event was sent already.
    told = [body.split(b"\0")[0] for type_, _, _, body in world.drain("s1") if type_ == 15]
    home = b"/local/domain/1/"
    want = [home + path for path in paths] + [home + b"later"]
    assert list(dict.fromkeys(told)) == (want if watched == b"/local/domain/1" else [])


# -- every watcher is told of a change -------------------------------------------


def _watchers(world: World, path: bytes, count: int) -> None:
    """s1 watches a path, and after it s0 does, so often."""
    watch(world, "s1", path, b"first")
    for n in range(count):
        ok(world, "s0", "WATCH", path + b"\0%d\0" % n)
    world.drain("s0")


def test_all_are_told_of_a_domain_that_releases_itself() -> None:
    """A guest that acts for domain 0 may."""
    from pyxsd.system.configuration import Config
    from tests.fakexen import RingWorld

    world = RingWorld(Config())
    world.guest(5)
    world.introduce(5)
    _watchers(world, b"@releaseDomain", 200)
    ok(world, "s0", "SET_TARGET", b"5\x000\0")
    world.feed("d5", packet("RELEASE", b"5\0"))
    world.turn()
    told = [body for _, _, _, body in world.drain("s1")]
    world.close()
    assert told == [b"@releaseDomain\0first\0"]


def test_all_are_told_of_the_last_change_of_a_broken_ring(world: World) -> None:
    """A guest must not be able to change a node behind the back of those who watch it."""
    _watchers(world, b"/local/domain/1/state", 200)
    world.feed("d1", packet("WRITE", b"state\0closed") + HEADER.pack(11, 1, 0, 5000))
    assert world.connection("d1")[0].bad
    assert [body for _, _, _, body in world.drain("s1")] == [b"/local/domain/1/state\0first\0"]
    assert len(world.drain("s0")) == 200


def _half_told(world: World, who: str, changes: int) -> None:
    """A commit of so many changes below the home of domain 1, of which few are told yet."""
    tx_id = begin(world, who)
    for n in range(changes):
        ok(world, who, "WRITE", b"/local/domain/1/k%03d\0v" % n, tx_id)
    world.server.agenda.slice_ns = 0
    connection, transport = world.connection(who)
    transport.feed(packet("TRANSACTION_END", b"T\0", tx_id))
    world.server.begin(world.now, world.now)
    world.server.service(connection)
    assert connection.has_jobs


@pytest.mark.parametrize("who", ["s2", "d1"])
def test_all_are_told_of_what_somebody_changed_who_has_gone(world: World, who: str) -> None:
    """In the order of the changes, whatever others change meanwhile."""
    watch(world, "s1", b"/local/domain/1")
    _half_told(world, who, 300)
    world.server.disconnect(world.connection(who)[0])
    world.sockets.pop(who, None)
    world.host.transports.pop(1, None)
    ok(world, "s0", "WRITE", b"/local/domain/1/other\0v")
    world.turn()
    told = [body.split(b"\0")[0] for type_, _, _, body in world.drain("s1") if type_ == 15]
    told.remove(b"/local/domain/1/other")
    assert told == [b"/local/domain/1/k%03d" % n for n in range(300)]
    assert not world.server.kernel.has_jobs


def test_who_does_not_read_is_told_what_there_is_room_for(world: World) -> None:
    """What somebody caused who has gone is on nobody's account; but events of domains that come and
    go are, and go before it."""
    world.server.set_quota("watch-events", 20)
    watch(world, "s1", b"/local/domain/1")
    watch(world, "s1", b"@releaseDomain")
    watch(world, "s3", b"/local/domain/1")
    watch(world, "s3", b"@releaseDomain")
    world.connection("s1")[1].room = 0
    _half_told(world, "d1", 300)
    world.server.disconnect(world.connection("d1")[0])
    world.host.transports.pop(1)
    world.server.fire_special(b"@releaseDomain", [1])
    world.server.agenda.turn_ns = 0  # one slice, which is one change, in each turn
    for _ in range(6):
        world.server.flush()
    assert world.server.kernel.has_jobs
    assert b"@releaseDomain\0t\0" in [body for _, _, _, body in world.drain("s3")]
    world.turn()
    assert not world.server.kernel.has_jobs and world.server.kernel.overflowing == 0
    assert world.connection("s1")[0].waiting_events == 20 + 1
    world.connection("s1")[1].room = -1
    world.turn("s1")
    told = [body.split(b"\0")[0] for _, _, _, body in world.drain("s1")]
    told.remove(b"@releaseDomain")
    assert told == [b"/local/domain/1/k%03d" % n for n in range(40)]


def test_who_comes_and_goes_leaves_little_to_be_told(world: World) -> None:
    """What 32 have left is told to the end, and of what comes on top nothing."""
    world.server.set_quota("watch-events", 10_000)
    watch(world, "s1", b"/local/domain/1")
    for n in range(40):
        tx_id = begin(world, f"c{n}")
        for k in range(130):
            ok(world, f"c{n}", "WRITE", b"/local/domain/1/%02d-%03d\0v" % (n, k), tx_id)
        world.connection(f"c{n}")[1].feed(packet("TRANSACTION_END", b"T\0", tx_id))
    world.server.agenda.slice_ns = 0
    world.server.begin(world.now, world.now)
    for n in range(40):
        connection = world.sockets.pop(f"c{n}")[0]
        world.server.service(connection)
        assert connection.has_jobs
        world.server.disconnect(connection)
    world.turn()
    told = [body for type_, _, _, body in world.drain("s1") if type_ == 15]
    last = [n for n in range(40) if b"/local/domain/1/%02d-129\0t\0" % n in told]
    assert last == list(range(len(last))) and len(last) == 32


def test_domains_that_went_are_told_of_by_who_has_gone(world: World) -> None:
    """More of them than what may be left of changes."""
    ok(world, "s1", "WATCH", b"@releaseDomain\0t\x001\0")
    world.drain("s1")
    _half_told(world, "s2", 300)
    connection = world.sockets.pop("s2")[0]
    world.server.fire_special(b"@releaseDomain", range(100, 140), connection)
    world.server.disconnect(connection)
    world.turn()
    told = [body.split(b"\0")[0] for type_, _, _, body in world.drain("s1") if type_ == 15]
    assert told == [b"@releaseDomain/%d" % domid for domid in range(100, 140)]


# -- what one request makes the daemon keep --------------------------------------


def test_one_commit_leaves_few_events_without_room(world: World) -> None:
    """Of a watcher that never reads: this comes on top of its own share."""
    ok(world, "d1", "SET_PERMS", b"/local/domain/1\0n1\0r2\0")
    for n in range(100):
        watch(world, "d2", b"/local/domain/1", b"%d" % n)
    world.connection("d2")[1].room = 0
    tx_id = begin(world, "d1")
    for n in range(990):
        ok(world, "d1", "WRITE", b"k%d\0v" % n, tx_id)
    world.feed("d1", packet("TRANSACTION_END", b"T\0", tx_id))
    assert world.connection("d1")[0].overflowing <= 1024 + 128
