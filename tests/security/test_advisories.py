# SPDX-License-Identifier: LGPL-2.1-or-later
"""Xen's security advisories about xenstored: one test, or a few, for each.

What concerns only the shared page of a ring (half of XSA-38) is tested with the
rings; everything else here, over connections of domains in this process.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd.store.tree import live_counts
from tests.unit.kit import begin, end, error, events, ok, recount, watch, write
from tests.world import ERROR, EVENT, HEADER, TYPES, World, packet

Make = Callable[..., Any]


def tree(world: World) -> list[Any]:
    """The whole store."""
    return list(world.server.tree.walk())


def others_are_served(world: World) -> None:
    assert ok(world, "s1", "GET_DOMAIN_PATH", b"7\0") == b"/local/domain/7\0"
    assert ok(world, "d2", "GET_DOMAIN_PATH", b"1\0") == b"/local/domain/1\0"


# -- XSA-38: ring indices and message sizes trusted ---------------------------


@pytest.mark.parametrize("name", ["s0", "d1"])
@pytest.mark.parametrize("length", [4097, 0x10000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
def test_xsa_38_message_sizes_only_end_their_connection(
    world: World, name: str, length: int
) -> None:
    connection, transport = world.connection(name)
    world.feed(name, HEADER.pack(TYPES["WRITE"], 1, 0, length) + b"x" * 9000)
    assert transport.failed == 3
    assert connection.closed or connection.bad
    if connection.bad:
        world.feed(name, packet("WRITE", b"/x\0v"))
    assert error(world, "s1", "READ", b"/x\0") == "ENOENT"
    others_are_served(world)


# -- XSA-72: reply over 4096 bytes --------------------------------------------


def test_xsa_72_replies_over_4096_bytes_are_e2big(make_world: Make) -> None:
    """Names, values and permission lists that grew in pieces."""
    world: World = make_world(
        quota_maxentity=5000, quota_maxsize=4096, quota_path_max=3000, quota_maxperms=0
    )
    for n in range(410):
        ok(world, "d1", "MKDIR", b"dir/%09d\0" % n)
    assert error(world, "d1", "DIRECTORY", b"dir\0") == "E2BIG"
    ok(world, "d1", "RM", b"dir/%09d\0" % 7)
    assert len(ok(world, "d1", "DIRECTORY", b"dir\0")) == 4090
    long = b"n1\0" + b"".join(b"r%d\0" % n for n in range(100, 900))
    ok(world, "d1", "SET_PERMS", b"dir\0" + long)
    assert len(long) > 3900 and ok(world, "d1", "GET_PERMS", b"dir\0") == long
    # -1 takes less room in the request than in the answer.
    ok(world, "d1", "SET_PERMS", b"dir\0n1\0" + b"r-1\0" * 1000)
    assert error(world, "d1", "GET_PERMS", b"dir\0") == "E2BIG"
    others_are_served(world)


# -- XSA-115: watch events and special watches without permission ------------


def test_xsa_115_no_events_of_what_may_not_be_read(world: World) -> None:
    watch(world, "d1", b"/")
    watch(world, "d1", b"/secret/key")
    ok(world, "s0", "WRITE", b"/secret/key\0v")
    ok(world, "s0", "SET_PERMS", b"/secret/key\0n2\0")
    ok(world, "d2", "WRITE", b"own\0v")
    ok(world, "s0", "RM", b"/secret\0")
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/secret/key\0v", tx_id)
    assert end(world, "s0", tx_id) == "OK"
    assert events(world, "d1") == []
    assert world.server.refused > 0


def test_xsa_115_special_watches_need_permission(world: World) -> None:
    for name in (b"@introduceDomain", b"@releaseDomain", b"@releaseDomain/9"):
        watch(world, "d1", name)
    watch(world, "d1", b"@introduceDomain", b"deep", b"1\0")
    ok(world, "s0", "INTRODUCE", b"9\x004660\x007\0")
    ok(world, "s0", "RELEASE", b"9\0")
    assert events(world, "d1") == []
    ok(world, "s0", "SET_PERMS", b"@introduceDomain\0n0\0r1\0")
    ok(world, "s0", "INTRODUCE", b"9\x004660\x007\0")
    ok(world, "s0", "RELEASE", b"9\0")
    assert events(world, "d1") == [(b"@introduceDomain", b"t")]


@pytest.mark.parametrize(
    "request_",
    [
        ("IS_DOMAIN_INTRODUCED", b"2\0"),
        ("INTRODUCE", b"9\x001\x007\0"),
        ("RELEASE", b"2\0"),
        ("RESUME", b"2\0"),
        ("SET_TARGET", b"1\x000\0"),
        ("GET_QUOTA", b""),
        ("SET_QUOTA", b"x\x001\0"),
        ("GET_FEATURE", b"1\0"),
        ("SET_FEATURE", b"1\x001\0"),
        ("SET_PERMS", b"@releaseDomain\0r1\0"),
    ],
)
def test_xsa_115_domain_0_only(world: World, request_: tuple[str, bytes]) -> None:
    before = tree(world)
    assert error(world, "d1", *request_) == "EACCES"
    tx_id = begin(world, "d1")
    assert error(world, "d1", *request_, tx_id) == "EACCES"
    assert tree(world) == before and sorted(world.server.domains) == [0, 1, 2]


# -- XSA-206: transactions starved by others' writes --------------------------


def test_xsa_206_a_guest_cannot_starve_domain_0(world: World) -> None:
    """However often it writes what the transaction reads, some attempt goes through."""
    ok(world, "s0", "MKDIR", b"/shared\0")
    ok(world, "s0", "SET_PERMS", b"/shared\0b0\0")
    for attempt in range(20):
        tx_id = begin(world, "s0")
        ok(world, "s0", "READ", b"/shared\0", tx_id)
        ok(world, "s0", "WRITE", b"/tool/x\0v", tx_id)
        world.feed("d1", write(b"/shared", b"%d" % attempt))
        if end(world, "s0", tx_id) == "OK":
            break
    assert attempt == 5
    others_are_served(world)


# -- XSA-233, XSA-425: double free at RELEASE and domain death ---------------


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["release", "introduce", "disconnect"])), ids="-".join
)
def test_xsa_233_425_release_death_and_introduction_in_any_order(
    world: World, order: tuple[str, ...]
) -> None:
    for round_ in range(6):
        for what in (*order, *order):
            gone = world.server.domains.get(1)
            if gone is not None:
                watch(world, "d1", b"x", b"%d" % round_)
                world.ask("d1", "WRITE", b"x\0v", begin(world, "d1"))
                world.feed("d1", packet("READ", b"x\0")[:9])
            if what == "release":
                want = "OK" if gone is not None else "EINVAL"
                assert world.ask("s0", "RELEASE", b"1\0")[1] == want.encode() + b"\0"
            elif what == "introduce":
                assert ok(world, "s0", "INTRODUCE", b"1\x004660\x007\0") == b"OK\0"
                if gone is not None:
                    world.server.disconnect(gone)
                    world.server.disconnect(gone)
            elif gone is not None:
                # It dies: as the floor above does it.
                world.server.forget_domain(1)
                world.server.disconnect(gone)
                world.server.fire_special(b"@releaseDomain", [1])
            world.rest.pop("d1", None)
            recount(world)
        assert (
            world.server.watch_total == world.server.open_transactions == 0
            or 1 in world.server.domains
        )
    others_are_served(world)


def test_xsa_233_425_a_domain_that_releases_itself(world: World) -> None:
    """It may, with domain 0 as its target; there is nobody left to answer."""
    ok(world, "s0", "SET_TARGET", b"1\x000\0")
    connection = world.connection("d1")[0]
    world.connection("d1")[1].feed(packet("RELEASE", b"1\0") + packet("READ", b"/tool\0"))
    world.turn("d1")
    assert connection.closed and 1 not in world.server.domains
    world.server.service(connection)
    world.turn()
    others_are_served(world)


def test_xsa_233_425_in_a_transaction(world: World) -> None:
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/x\0v", tx_id)
    ok(world, "s0", "RELEASE", b"1\0", tx_id)
    assert error(world, "s0", "RELEASE", b"1\0", tx_id) == "EINVAL"
    # RELEASE cannot be run again, and it touched all nodes.
    assert end(world, "s0", tx_id) == "EAGAIN"
    recount(world)


# -- XSA-272, 419, 421, 483: entry quota -------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_xsa_272_419_421_483_counts_equal_a_recount(make_world: Make, seed: int) -> None:
    """Random changes by several owners, in and out of transactions, with owners dying."""
    world: World = make_world(domids=(1, 2, 3), quota_maxentity=12, quota_transaction=3)
    pick = random.Random(seed)
    paths = [b"/s", b"/s/a", b"/s/a/b", b"/s/c", b"x", b"x/y", b"x/y/z", b"w"]
    ok(world, "s0", "MKDIR", b"/s\0")
    ok(world, "s0", "SET_PERMS", b"/s\0b0\0")
    for _ in range(400):
        who = pick.choice(["s0", "d1", "d2", "d3"])
        if who != "s0" and int(who[1:]) not in world.server.domains:
            world.introduce(int(who[1:]))
            home = b"/local/domain/%c\0" % who.encode()[1]
            ok(world, "s0", "MKDIR", home)
            ok(world, "s0", "SET_PERMS", home + b"n%c\0" % who.encode()[1])
        open_ = sorted(world.connection(who)[0].transactions)
        tx_id = pick.choice([0, *open_])
        kind = pick.random()
        if kind < 0.45:
            world.ask(who, pick.choice(["WRITE", "MKDIR"]), pick.choice(paths) + b"\0", tx_id)
        elif kind < 0.6:
            world.ask(who, "RM", pick.choice(paths) + b"\0", tx_id)
        elif kind < 0.75:
            owner = b"%d" % pick.randrange(4)
            world.ask(who, "SET_PERMS", pick.choice(paths) + b"\0b" + owner + b"\0", tx_id)
        elif kind < 0.85:
            world.ask(who, "TRANSACTION_START", b"\0")
        elif kind < 0.97:
            world.ask(who, "TRANSACTION_END", pick.choice([b"T\0", b"T\0", b"F\0"]), tx_id)
        else:
            world.ask("s0", "RELEASE", b"%d\0" % pick.randrange(1, 4))
        # Nobody pays for conflicts here.
        world.now += 10.0
        recount(world)


def test_xsa_272_removal_gives_the_quota_back(make_world: Make) -> None:
    world: World = make_world(quota_maxentity=3)
    for _ in range(5):
        ok(world, "d1", "WRITE", b"a/b\0v")
        assert error(world, "d1", "MKDIR", b"c\0") == "EQUOTA"
        ok(world, "d1", "RM", b"a\0")
    assert world.server.tree.entries(1) == 1


def test_xsa_419_421_transactions_do_not_get_around_the_quota(make_world: Make) -> None:
    world: World = make_world(quota_maxentity=3)
    tx_id = begin(world, "d1")
    for name in (b"a", b"b"):
        ok(world, "d1", "MKDIR", name + b"\0", tx_id)
    assert error(world, "d1", "MKDIR", b"c\0", tx_id) == "EQUOTA"
    assert end(world, "d1", tx_id) == "OK"
    assert error(world, "d1", "MKDIR", b"c\0") == "EQUOTA"
    # One that is dropped counts for nothing.
    ok(world, "d1", "RM", b"a\0")
    tx_id = begin(world, "d1")
    ok(world, "d1", "MKDIR", b"d\0", tx_id)
    assert end(world, "d1", tx_id, b"F") == "OK"
    ok(world, "d1", "MKDIR", b"e\0")
    recount(world)


def test_xsa_483_counts_follow_when_an_owner_dies(make_world: Make) -> None:
    """Its nodes held nodes of others; a new domain of that number begins at nothing."""
    world: World = make_world()
    ok(world, "s0", "WRITE", b"/local/domain/1/backend\0")
    ok(world, "s0", "SET_PERMS", b"/local/domain/1/backend\0b2\0")
    for n in range(20):
        ok(world, "d2", "WRITE", b"/local/domain/1/backend/%d\0" % n)
    assert world.server.tree.entries(2) == 22
    ok(world, "s0", "RELEASE", b"1\0")
    assert world.server.tree.entries(2) == 1 and world.server.tree.entries(1) == 0
    recount(world)


# -- XSA-322: a reused domid inherits rights ----------------------------------


@pytest.mark.parametrize("how", ["release", "failing release"])
def test_xsa_322_a_reused_domid_has_no_old_rights(world: World, how: str) -> None:
    domid = 1 if how == "release" else 9
    for path, perms in ((b"/given", b"n0\0b%d\0"), (b"/owned", b"b%d\0"), (b"/two", b"n2\0r%d\0")):
        ok(world, "s0", "WRITE", path + b"\0v")
        ok(world, "s0", "SET_PERMS", path + b"\0" + perms % domid)
    ok(world, "s0", "SET_TARGET", b"1\x002\0")
    world.ask("s0", "RELEASE", b"%d\0" % domid)
    name = f"d{domid}"
    world.introduce(domid)
    for path, want in ((b"/given", "EACCES"), (b"/owned", "ENOENT"), (b"/two", "EACCES")):
        assert error(world, name, "READ", path + b"\0") == want
    assert world.connection(name)[0].target == -1
    recount(world)


# -- XSA-323: relative path over the limit ------------------------------------


def test_xsa_323_no_path_is_over_the_limit(make_world: Make) -> None:
    """Written relative or in full, the same paths are legal; what is stored can be
    asked for, watched and removed."""
    world: World = make_world(quota_path_max=64)
    for name, n in ((b"r" * 64, True), (b"r" * 65, False)):
        for path in (name, b"/local/domain/1/" + name):
            got = world.ask("d1", "WRITE", path + b"\0v")
            assert (got[0] == TYPES["WRITE"]) == n, path
        got = world.ask("d1", "READ", name + b"\0")
        assert (got[0] == TYPES["READ"]) == n
    ok(world, "s0", "RM", b"/local/domain/1/" + b"r" * 64 + b"\0")
    assert error(world, "s0", "WRITE", b"/" + b"r" * 64 + b"\0v") == "EINVAL"
    ok(world, "s0", "WRITE", b"/" + b"r" * 63 + b"\0v")
    # Of a domain with more digits too.
    world.introduce(32000)
    ok(world, "s0", "WRITE", b"/local/domain/32000/" + b"r" * 64 + b"\0v")


# -- XSA-324: token so long that the event exceeds 4096 -----------------------


@pytest.mark.parametrize("token_len", [4000, 4089, 4090])
def test_xsa_324_events_are_never_broken_packets(world: World, token_len: int) -> None:
    """ "x" + NUL + token + NUL: 4090 gives a first event of 4093 bytes, and "x/y/z"
    one that would have 4097."""
    token = b"T" * token_len
    world.feed("d1", packet("WATCH", b"x\0" + token + b"\0"))
    got = world.drain("d1")
    assert [(type_, len(body)) for type_, _, _, body in got] == [
        (TYPES["WATCH"], 3),
        (EVENT, token_len + 3),
    ]
    for path in (b"x", b"x/y", b"x/y/z", b"x/y/z/" + b"w" * 1000):
        ok(world, "s0", "WRITE", b"/local/domain/1/" + path + b"\0v")
        got = world.drain("d1")
        if len(path) + token_len + 2 <= 4096:
            assert [(type_, body) for type_, _, _, body in got] == [
                (EVENT, path + b"\0" + token + b"\0")
            ]
        else:
            assert got == []
    assert ok(world, "d1", "GET_DOMAIN_PATH", b"1\0")
    ok(world, "d1", "UNWATCH", b"x\0" + token + b"\0")


# -- XSA-325, 326, 416: memory without bound ----------------------------------


@pytest.fixture
def small(make_world: Make) -> World:
    world: World = make_world(
        quota_maxoutstanding=8,
        quota_maxwatchevents=8,
        quota_maxwatch=8,
        quota_transaction=4,
        quota_maxrequests=16,
        quota_maxentity=50,
    )
    return world


def test_xsa_325_unread_replies_are_bounded(small: World) -> None:
    connection, transport = small.connection("d1")
    transport.room = 0
    ok(small, "s0", "WRITE", b"/local/domain/1/big\0" + b"v" * 2000)
    for _ in range(500):
        small.feed("d1", packet("READ", b"big\0") * 100)
    assert connection.queued == (8, 0)
    assert len(connection.pending_output) == 8 * 2016
    assert len(connection.partial_input) < 70_000
    others_are_served(small)


def test_xsa_326_unread_events_are_bounded(small: World) -> None:
    """By (watches + 1) x quota, whoever causes them and however."""
    connection, transport = small.connection("d1")
    for n in range(9):
        watch(small, "d1", b"/local/domain/1", b"%d" % n)
    transport.room = 0
    for who in ("s0", "s1", "d1"):
        for n in range(300):
            small.feed(
                who,
                write(b"/local/domain/1/%s" % who.encode(), b"v")
                + packet("RM", b"/local/domain/1/%s\0" % who.encode())
                + packet("MKDIR", b"/local/domain/1/%s-%d\0" % (who.encode(), n)),
            )
            assert connection.queued[1] <= 8
            assert connection.waiting_events <= 8 * 9
            for other in ("s0", "s1", "d1"):
                assert small.connection(other)[0].overflowing <= 9
    assert all(small.connection(who)[0].blocked for who in ("s0", "s1", "d1"))
    others = ok(small, "s2", "READ", b"@releaseDomain\0")
    assert others == b""
    transport.room = -1
    small.turn("d1")
    small.turn("d1")
    assert not any(small.connection(who)[0].blocked for who in ("s0", "s1", "d1"))


def test_xsa_326_special_events_are_bounded_by_blocking(small: World) -> None:
    """A guest that does not read @releaseDomain holds up domain 0's ring alone."""
    ok(small, "s0", "SET_PERMS", b"@releaseDomain\0r0\0")
    watch(small, "d1", b"@releaseDomain")
    small.connection("d1")[1].room = 0
    for _ in range(40):
        small.introduce(7)
        ok(small, "s0", "RELEASE", b"7\0")
    connection = small.connection("d1")[0]
    assert connection.queued[1] == 8 and connection.waiting_events == 8
    assert small.connection("d0")[0].overflowing == 24


def test_xsa_416_transactions_are_bounded(small: World) -> None:
    for _ in range(5):
        begin(small, "d1")
    for _ in range(100):
        assert error(small, "d1", "TRANSACTION_START", b"\0") == "EQUOTA"
    assert len(small.connection("d1")[0].transactions) == 5
    before = live_counts()["nodes"]
    for tx_id in range(1, 6):
        for n in range(40):
            small.ask("d1", "WRITE", b"%d\0v" % n, tx_id)
    # 16 requests in each: copies of the way down and the new nodes.
    assert live_counts()["nodes"] - before <= 5 * (16 + 4)
    assert all(t.count == 16 for t in small.connection("d1")[0].transactions.values())


def test_xsa_416_partial_packets_are_bounded(small: World) -> None:
    """One packet's worth waits for its end, no more."""
    connection = small.connection("d1")[0]
    data = packet("WRITE", b"x\0" + b"v" * 4000)
    for n in range(len(data) - 1):
        small.feed("d1", data[n : n + 1])
    assert len(connection.partial_input) == len(data) - 1


# -- XSA-330, 484: RESET_WATCHES ----------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_xsa_330_484_reset_watches_leaves_nothing(world: World, inside: bool) -> None:
    for _ in range(5):
        for n in range(50):
            watch(world, "d1", b"x/%d" % n)
        tx_ids = [begin(world, "d1") for _ in range(5)]
        for tx_id in tx_ids:
            ok(world, "d1", "WRITE", b"x\0v", tx_id)
        ok(world, "d1", "RESET_WATCHES", b"", tx_ids[2] if inside else 0)
        connection = world.connection("d1")[0]
        assert (connection.watch_count, connection.transactions) == (0, {})
        assert connection.watch_list() == []
        assert world.server.watch_total == world.server.open_transactions == 0
        for tx_id in tx_ids:
            assert error(world, "d1", "READ", b"x\0", tx_id) == "EIO"
    ok(world, "s0", "WRITE", b"/local/domain/1/x/1\0v")
    assert events(world, "d1") == []


# -- XSA-352, 353: ownership, and "/" -----------------------------------------


@pytest.mark.parametrize("perms_activate", [True, False])
def test_xsa_352_an_owner_cannot_give_a_node_away(make_world: Make, perms_activate: bool) -> None:
    world: World = make_world(perms_activate=perms_activate)
    ok(world, "d1", "WRITE", b"x\0v")
    for owner in (0, 2, 9):
        assert error(world, "d1", "SET_PERMS", b"x\0b%d\0" % owner) == "EACCES"
    ok(world, "s0", "SET_TARGET", b"1\x002\0")
    assert error(world, "d1", "SET_PERMS", b"x\0b2\0") == "EACCES"
    assert world.server.tree.entries(1) == 2


@pytest.mark.parametrize("perms", [b"n0\0", b"r0\0", b"b0\0"])
def test_xsa_353_the_root_is_checked_like_any_node(world: World, perms: bytes) -> None:
    ok(world, "s0", "SET_PERMS", b"/\0" + perms)
    # Write access is not ownership.
    for new in (b"b1\0", b"b0\0", b"n0\0b1\0"):
        assert error(world, "d1", "SET_PERMS", b"/\0" + new) == "EACCES"
    if perms != b"b0\0":
        for type_, payload in (("WRITE", b"/\0v"), ("RM", b"/\0"), ("MKDIR", b"/new\0")):
            assert error(world, "d1", type_, payload) == "EACCES"
    if perms == b"n0\0":
        for type_ in ("READ", "DIRECTORY", "GET_PERMS"):
            assert error(world, "d1", type_, b"/\0") == "EACCES"


# -- XSA-414, 415, 440, 481: an error changes nothing -------------------------

ODD_PATHS = [
    b"",
    b"/",
    b"//",
    b"/local/domain/",
    b"/local/domain",
    b"/local/domain//x",
    b"/local/domain/1/",
    b"/local/domain/-",
    b"/local/domain/x",
    b"local/",
    b"@",
    b"/@",
    b"@/",
    b"@releaseDomain/",
    b"@releaseDomain/x",
    b"@introduceDomain/1/2",
    b".",
    b"..",
    b"/..",
    b"\xff",
    b"/\xc3\xa4",
    b"x/",
    b"/local/domain/99999999999999999999/x",
    b"/local/domain/" + b"9" * 3000,
    b"x" * 3000,
    b"/x" * 1500,
]


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: repr(path[:30]))
@pytest.mark.parametrize("who", ["s0", "d1"])
def test_xsa_414_415_440_481_odd_paths(world: World, who: str, path: bytes) -> None:
    """Every request, in and out of a transaction: answered, the counts right, the
    daemon alive; and where all was refused nothing has changed."""
    before = tree(world)
    changed = False
    for type_, rest in itertools.product(range(27), (b"", b"t\0", b"n0\0", b"0\0", b"T\0")):
        if type_ in (
            TYPES["INTRODUCE"],
            TYPES["RELEASE"],
            TYPES["SET_TARGET"],
            TYPES["TRANSACTION_START"],
            TYPES["RESET_WATCHES"],
        ):
            continue
        if len(path) + 1 + len(rest) > 4096:
            continue
        got, _ = world.ask(who, type_, path + b"\0" + rest)
        changes = (TYPES["WRITE"], TYPES["MKDIR"], TYPES["RM"], TYPES["SET_PERMS"])
        changed = changed or (type_ in changes and got != ERROR)
        tx_id = begin(world, who)
        world.ask(who, type_, path + b"\0" + rest, tx_id)
        world.ask(who, "TRANSACTION_END", b"F\0", tx_id)
    recount(world)
    if not changed:
        assert tree(world) == before
    others_are_served(world)


def test_xsa_414_440_failed_creations_leave_the_tree_whole(make_world: Make) -> None:
    """Refused at every depth, by quota, access and size, in a transaction too."""
    world: World = make_world(quota_maxentity=4, quota_maxsize=8)
    for n in range(50):
        before = tree(world)
        assert error(world, "d1", "WRITE", b"/tool/%d/b/c\0v" % n) == "EACCES"
        assert error(world, "d1", "MKDIR", b"/local/domain/2/x/y\0") == "EACCES"
        assert error(world, "s0", "WRITE", b"/tool\x00123456789") == "E2BIG"
        assert error(world, "d1", "SET_PERMS", b"/tool\0n1\0") == "EACCES"
        assert error(world, "d1", "RM", b"/tool\0") == "EACCES"
        assert tree(world) == before
        tx_id = begin(world, "d1")
        world.ask("d1", "WRITE", b"a/b/c/d/e/f\0v", tx_id)
        recount(world)
        assert end(world, "d1", tx_id) == "OK"
        assert tree(world) == before
        recount(world)


# -- XSA-417: stale permission entries honoured -------------------------------


def test_xsa_417_entries_of_a_dead_domain_are_gone(world: World) -> None:
    """Everywhere, in open transactions that are committed later as well."""
    ok(world, "s0", "WRITE", b"/a/b\0v")
    ok(world, "s0", "SET_PERMS", b"/a/b\0n0\0r1\0b2\0")
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/a/c\0v", tx_id)
    ok(world, "s0", "RELEASE", b"1\0")
    assert end(world, "s0", tx_id) == "OK"
    assert ok(world, "s0", "GET_PERMS", b"/a/b\0") == b"n0\0b2\0"
    world.introduce(1)
    assert error(world, "d1", "READ", b"/a/b\0") == "EACCES"
    assert all(domid != 1 for _, perms, _ in tree(world) for domid, _ in perms)


# -- XSA-418: deep trees exhaust the stack ------------------------------------


def test_xsa_418_no_recursion_on_client_made_depth(make_world: Make) -> None:
    """A chain of 2,000 components: made, read, copied, merged, walked, forgotten, removed."""
    world: World = make_world(quota_path_max=4080, quota_maxentity=1 << 20)
    ok(world, "s0", "SET_PERMS", b"/\0b1\0")
    path = b"/" + b"/".join([b"d"] * 2000)
    ok(world, "d1", "WRITE", path + b"\0v")
    watch(world, "d1", path)
    for who in ("d1", "s0"):
        tx_id = begin(world, who)
        ok(world, who, "WRITE", path + b"\0w", tx_id)
        ok(world, "s1", "WRITE", b"/local/%s\0" % who.encode())
        assert end(world, who, tx_id) == "OK"
    recount(world)
    assert world.server.tree.entries(1) >= 2000
    ok(world, "s0", "SET_PERMS", b"/d\0n3\0")
    ok(world, "s0", "RELEASE", b"1\0")
    assert error(world, "s0", "RELEASE", b"3\0") == "EINVAL"
    assert error(world, "s0", "READ", b"/d\0") == "ENOENT"
    recount(world)


# -- XSA-420: negative length after conversion --------------------------------

NUMBERS = [
    b"-1",
    b"-2147483648",
    b"-9223372036854775808",
    b"9223372036854775807",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9" * 400,
    b"-0",
]


@pytest.mark.parametrize("number", NUMBERS)
def test_xsa_420_numbers_from_clients(world: World, number: bytes) -> None:
    """Offsets, depths, domids and lengths out of every range."""
    ok(world, "s0", "WRITE", b"/n/a\0v")
    for type_, payload in (
        ("DIRECTORY_PART", b"/n\0%s\0"),
        ("WATCH", b"/n\0t\0%s\0"),
        ("WATCH", b"@releaseDomain/%s\0t\0"),
        ("GET_DOMAIN_PATH", b"%s\0"),
        ("IS_DOMAIN_INTRODUCED", b"%s\0"),
        ("RELEASE", b"%s\0"),
        ("RESUME", b"%s\0"),
        ("SET_TARGET", b"%s\x001\0"),
        ("SET_TARGET", b"1\0%s\0"),
        ("INTRODUCE", b"%s\x001\x007\0"),
        ("INTRODUCE", b"5\x001\0%s\0"),
        ("SET_PERMS", b"/n\0n%s\0"),
        ("SET_PERMS", b"/n\0n0\0r%s\0"),
        ("CONTROL", b"quota\0%s\0"),
        ("CONTROL", b"quota\0set\0nodes\0%s\0"),
        ("CONTROL", b"mfn\0%s\0"),
        ("READ", b"/local/domain/%s/x\0"),
    ):
        got, body = world.ask("s0", type_, payload % number)
        recount(world)
        if type_ in ("RELEASE", "RESUME") and number not in (b"-0",):
            # None of them is a domain, however they are read.
            assert (got, body) == (ERROR, b"EINVAL\0")
    assert ok(world, "s0", "READ", b"/n/a\0") == b"v"
    assert len(ok(world, "s0", "DIRECTORY_PART", b"/n\x000\0").split(b"\0", 1)[1]) == 3
