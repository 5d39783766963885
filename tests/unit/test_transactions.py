# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions: ids, isolation, the three ways to commit, quotas, what ends them.

How a transaction was committed is seen in the access log: "commit" (nothing had
changed), "coalesce" (merged), or "conflict" and then the replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pyxsd._accesslog import AccessLog
from pyxsd.store.tree import live_counts
from tests.state.test_image import again
from tests.unit.kit import begin, end, error, events, ok, recount, watch
from tests.world import EVENT, TYPES, World, packet

Make = Callable[..., Any]
Request = tuple[str, str, bytes]  # who, type, payload

DIRECT, MERGED, REPLAYED, FAILED = "direct", "merged", "replayed", "failed"


class Case(NamedTuple):
    """A transaction of s0, and what others do before it ends."""

    what: str
    inside: list[tuple[str, bytes]]
    outside: list[Request]
    how: str
    without_merge: str = ""  # with merge-activate = false; "" as `how`


STORE = [
    b"/a\0a",
    b"/a/b\0b",
    b"/a/b/c\0c",
    b"/a/d\0d",
    b"/e\0e",
    b"/e/f\0f",
    b"/ab\0A",
    b"/ab/c\0C",
    b"/@s\0s",
    b"/@s/b\0b",
]
W, R, D, G, M, RM, SP = "WRITE", "READ", "DIRECTORY", "GET_PERMS", "MKDIR", "RM", "SET_PERMS"

CASES = [
    Case("alone", [(W, b"/a/b\0x")], [], DIRECT),
    Case("others only read", [(W, b"/a/b\0x")], [("s1", R, b"/a/b\0")], DIRECT),
    Case("others fail", [(W, b"/a/b\0x")], [("d1", W, b"/a/b\0x")], DIRECT),
    Case("others make what is there", [(W, b"/a/b\0x")], [("s1", M, b"/a/b\0")], DIRECT),
    Case("others remove what is not there", [(W, b"/a/b\0x")], [("s1", RM, b"/a/z\0")], DIRECT),
    Case("elsewhere", [(W, b"/a/b\0x")], [("s1", W, b"/e\0y")], MERGED, REPLAYED),
    Case("sibling of a written node", [(W, b"/a/b\0x")], [("s1", W, b"/a/d\0y")], MERGED, REPLAYED),
    Case(
        "read and written elsewhere",
        [(R, b"/e\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/a/d\0y")],
        MERGED,
        REPLAYED,
    ),
    Case("twice", [(W, b"/e\0x"), (W, b"/e\0x")], [("s1", W, b"/a/d\0y")], MERGED, REPLAYED),
    Case("above", [(W, b"/e/f\0x"), (W, b"/e\0z")], [("s1", W, b"/a/d\0y")], MERGED, REPLAYED),
    Case("same node", [(W, b"/a/b\0x")], [("s1", W, b"/a/b\0y")], REPLAYED),
    Case("same node, equal value", [(W, b"/a/b\0x")], [("s1", W, b"/a/b\0b")], MERGED, REPLAYED),
    Case("the root, equal value", [(W, b"/a/b\0x")], [("s1", W, b"/\0")], DIRECT),
    Case("the root, another value", [(W, b"/a/b\0x")], [("s1", W, b"/\0y")], MERGED, REPLAYED),
    Case("read node written", [(R, b"/a/b\0"), (W, b"/e/f\0x")], [("s1", W, b"/a/b\0y")], FAILED),
    Case(
        "read node touched below",
        [(R, b"/a/b\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/a/b/c\0y")],
        REPLAYED,
    ),
    Case(
        "read value equal again",
        [(R, b"/a/b\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/a/b\0y"), ("s1", W, b"/a/b\0b")],
        REPLAYED,
    ),
    Case("listed node grew", [(D, b"/a\0"), (W, b"/e/f\0x")], [("s1", W, b"/a/z\0y")], FAILED),
    Case(
        "listed node changed below",
        [(D, b"/a\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/a/b\0y")],
        REPLAYED,
    ),
    Case(
        "perms read and changed",
        [(G, b"/a/b\0"), (W, b"/e/f\0x")],
        [("s1", SP, b"/a/b\0r0\0")],
        FAILED,
    ),
    Case("perms changed above", [(W, b"/a/b\0x")], [("s1", SP, b"/a\0r0\0")], REPLAYED),
    Case("value changed above", [(W, b"/a/b\0x")], [("s1", W, b"/a\0y")], MERGED, REPLAYED),
    Case(
        "a failed read would now succeed",
        [(R, b"/a/z\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/a/z\0y")],
        MERGED,
        FAILED,
    ),
    Case("creation counts as the parent", [(W, b"/a/n\0x")], [("s1", W, b"/a/d\0y")], REPLAYED),
    Case(
        "creation beside, other parent",
        [(W, b"/a/n\0x")],
        [("s1", W, b"/e/f\0y")],
        MERGED,
        REPLAYED,
    ),
    Case("removal counts as the parent", [(RM, b"/a/b\0")], [("s1", W, b"/a/d\0y")], REPLAYED),
    Case("mkdir counts as the parent", [(M, b"/a/n\0")], [("s1", W, b"/a/d\0y")], REPLAYED),
    Case(
        "mkdir of what is there does not count",
        [(M, b"/a/b\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/a/b\0y")],
        MERGED,
        REPLAYED,
    ),
    Case(
        "parents made implicitly count as theirs",
        [(W, b"/a/n/m\0x")],
        [("s1", W, b"/a/d\0y")],
        REPLAYED,
    ),
    Case("parent removed", [(W, b"/a/b\0x")], [("s1", RM, b"/a\0")], REPLAYED),
    Case(
        "written node removed, sibling kept", [(W, b"/a/b\0x")], [("s1", RM, b"/a/b\0")], REPLAYED
    ),
    Case("read node removed", [(R, b"/a/b\0"), (W, b"/e/f\0x")], [("s1", RM, b"/a/b\0")], FAILED),
    Case("removed twice", [(RM, b"/a/b\0")], [("s1", RM, b"/a/b\0")], REPLAYED),
    Case("removed under a removal", [(RM, b"/a/b\0")], [("s1", RM, b"/a\0")], FAILED),
    Case(
        "common ancestor of writes",
        [(W, b"/a/b\0x"), (W, b"/a/d\0x")],
        [("s1", W, b"/a\0y")],
        REPLAYED,
    ),
    Case(
        "common ancestor is the root",
        [(W, b"/a/b\0x"), (W, b"/e/f\0x")],
        [("s1", W, b"/tool\0y")],
        REPLAYED,
    ),
    Case(
        "names that begin alike",
        [(W, b"/a/b\0x"), (W, b"/ab/c\0x")],
        [("s1", W, b"/e\0y")],
        REPLAYED,
    ),
    Case(
        "names that begin alike, the longer first",
        [(W, b"/ab/c\0x"), (W, b"/a/b\0x")],
        [("s1", W, b"/e\0y")],
        REPLAYED,
    ),
    Case(
        "a node and one whose name goes on",
        [(W, b"/a\0x"), (W, b"/ab\0x")],
        [("s1", W, b"/e\0y")],
        REPLAYED,
    ),
    Case(
        "a node whose name goes on and the shorter",
        [(W, b"/ab\0x"), (W, b"/a\0x")],
        [("s1", W, b"/e\0y")],
        REPLAYED,
    ),
    Case(
        "a name that goes on was read",
        [(R, b"/ab/c\0"), (R, b"/a\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/ab/c\0y")],
        FAILED,
    ),
    Case(
        "a name with @ below itself",
        [(R, b"/@s/b\0"), (R, b"@s\0"), (W, b"/e/f\0x")],
        [("s1", W, b"/ab\0y")],
        MERGED,
        REPLAYED,
    ),
    Case(
        "a name with @ was read with what is below it",
        [(R, b"/@s/b\0"), (R, b"@s\0"), (W, b"/e/f\0x")],
        [("s1", W, b"@s\0y")],
        FAILED,
    ),
    Case("release touches all", [(W, b"/a/b\0x")], [("s1", "RELEASE", b"2\0")], REPLAYED),
    Case("a failing release too", [(W, b"/a/b\0x")], [("s1", "RELEASE", b"9\0")], REPLAYED),
    Case(
        "control cannot be replayed",
        [("CONTROL", b"x\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/a/b\0y")],
        FAILED,
    ),
    Case(
        "control can be merged",
        [("CONTROL", b"x\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/e\0y")],
        MERGED,
        FAILED,
    ),
    Case(
        "introduced cannot be replayed",
        [("IS_DOMAIN_INTRODUCED", b"1\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/a/b\0y")],
        FAILED,
    ),
    Case(
        "a refused start cannot be replayed",
        [("TRANSACTION_START", b"\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/a/b\0y")],
        FAILED,
    ),
    Case(
        "a wrong end cannot be replayed",
        [("TRANSACTION_END", b"X\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/a/b\0y")],
        FAILED,
    ),
    Case(
        "what failed with EIO is not remembered",
        [("INTRODUCE", b"9\0x\x001\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/a/b\0y")],
        REPLAYED,
    ),
    Case(
        "domain path can be replayed",
        [("GET_DOMAIN_PATH", b"1\0"), (W, b"/a/b\0x")],
        [("s1", W, b"/a/b\0y")],
        REPLAYED,
    ),
    Case(
        "a created node is read",
        [(W, b"/a/n\0x"), (R, b"/a/n\0")],
        [("s1", W, b"/e\0y")],
        MERGED,
        REPLAYED,
    ),
    Case(
        "one whose parent was created is read",
        [(W, b"/a/n/m\0x"), (R, b"/a/n/m\0")],
        [("s1", W, b"/e\0y")],
        REPLAYED,
    ),
    Case("reads only, all changed", [(R, b"/a/b\0"), (D, b"/a\0")], [("s1", RM, b"/a\0")], "OK"),
    Case("failed writes only", [(W, b"/a/\0x"), (RM, b"/x/y\0")], [("s1", RM, b"/a\0")], "OK"),
]


def identity(case: Case) -> str:
    return case.what


def make_logged(make_world: Make, **config: Any) -> World:
    world: World = make_world(log=AccessLog(True, -1, True, True, False), **config)
    for payload in STORE:
        ok(world, "s0", "WRITE", payload)
    return world


def way(lines: list[bytes]) -> str:
    """How the log says that the transaction ended."""
    text = b"\n".join(lines)
    if b"EAGAIN" in text:
        return FAILED
    if b"conflict" in text:
        return REPLAYED
    if b"coalesce" in text:
        return MERGED
    return DIRECT if b" commit " in text else "OK"


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("case", CASES, ids=identity)
def test_commit(make_world: Make, case: Case, merge: bool) -> None:
    world = make_logged(make_world, merge_activate=merge)
    tx_id = begin(world, "s0")
    for type_, payload in case.inside:
        world.ask("s0", type_, payload, tx_id)
    for who, type_, payload in case.outside:
        world.ask(who, type_, payload)
    before = list(world.server.tree.walk())
    world.server.log.take()
    answer = end(world, "s0", tx_id)
    how = case.how if merge else case.without_merge or case.how
    assert way(world.server.log.take()[0].splitlines()) == how
    assert answer == ("EAGAIN" if how == FAILED else "OK")
    if how in (FAILED, "OK"):
        assert list(world.server.tree.walk()) == before
    else:
        for type_, payload in case.inside:
            path, _, value = payload.partition(b"\0")
            if type_ == W:
                assert ok(world, "s0", "READ", path + b"\0") == value
            elif type_ == RM:
                assert error(world, "s0", "READ", path + b"\0") == "ENOENT"
        for who, type_, payload in case.outside:
            path, _, value = payload.partition(b"\0")
            if (
                who == "s1"
                and type_ == W
                and b"READ" not in payload
                and all(path != inside.partition(b"\0")[0] for _, inside in case.inside)
            ):
                assert ok(world, "s0", "READ", path + b"\0") == value
    recount(world)


@pytest.mark.parametrize("there", [False, True])
def test_a_replay_that_changes_nothing_leaves_nothing(make_world: Make, there: bool) -> None:
    """The parents of a WRITE that is too large stay where the commit changes something, and only
    there: here not where the replayed MKDIR finds its node."""
    world = make_logged(make_world, quota_maxsize=10)
    tx_id = begin(world, "s0")
    assert error(world, "s0", "WRITE", b"/n/m/v\0" + b"x" * 11, tx_id) == "E2BIG"
    ok(world, "s0", "MKDIR", b"/a/n\0", tx_id)
    ok(world, "s1", "MKDIR", b"/a/n\0" if there else b"/a/o\0")
    world.server.log.take()
    assert end(world, "s0", tx_id) == "OK"
    assert way(world.server.log.take()[0].splitlines()) == REPLAYED
    assert ok(world, "s0", "DIRECTORY", b"/a\0").count(b"n\0") == 1
    listed = ok(world, "s0", "DIRECTORY", b"/\0").split(b"\0")
    assert (b"n" in listed) is not there
    recount(world)


def test_ids_count_up_and_skip_those_in_use(make_world: Make) -> None:
    world: World = make_world()
    assert [begin(world, "s0") for _ in range(3)] == [1, 2, 3]
    assert begin(world, "d1") == 1
    assert end(world, "s0", 2) == "OK"
    assert begin(world, "s0") == 4
    # As where the ids have begun anew and reach those that are still open.
    transactions = world.connection("s0")[0].transactions
    transactions[5] = transactions[6] = transactions[1]
    assert begin(world, "s0") == 7
    del transactions[5], transactions[6]


def test_a_replay_takes_an_id(make_world: Make) -> None:
    world: World = make_world()
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/a\0x", tx_id)
    ok(world, "s1", "WRITE", b"/a\0y")
    assert end(world, "s0", tx_id) == "OK"
    assert begin(world, "s0") == 3


def test_isolation(make_world: Make) -> None:
    """Inside are the snapshot and the own writes, outside nothing until the commit."""
    world: World = make_world()
    ok(world, "s0", "WRITE", b"/a\0old")
    one, two = begin(world, "s0"), begin(world, "s0")
    ok(world, "s0", "WRITE", b"/a\0one", one)
    ok(world, "s0", "WRITE", b"/b\0new", one)
    ok(world, "s1", "WRITE", b"/c\0now")
    assert ok(world, "s0", "READ", b"/a\0", one) == b"one"
    assert ok(world, "s0", "READ", b"/a\0", two) == b"old"
    assert ok(world, "s1", "READ", b"/a\0") == b"old"
    assert error(world, "s0", "READ", b"/b\0", two) == "ENOENT"
    assert error(world, "s0", "READ", b"/c\0", two) == "ENOENT"
    assert end(world, "s0", two, b"F") == "OK"
    assert end(world, "s0", one) == "OK"
    assert ok(world, "s1", "READ", b"/a\0") == b"one"
    assert ok(world, "s1", "READ", b"/c\0") == b"now"


@pytest.mark.parametrize("letter", [b"T", b"F"])
def test_events_only_at_the_commit_in_order(make_world: Make, letter: bytes) -> None:
    world: World = make_world()
    watch(world, "s1", b"/")
    tx_id = begin(world, "s0")
    for type_, payload in (
        (W, b"/b/c\0x"),
        (W, b"/a\0x"),
        (W, b"/a\0y"),
        (M, b"/m\0"),
        (M, b"/m\0"),
        (SP, b"/m\0r0\0"),
        (RM, b"/none\0"),
        (R, b"/a\0"),
    ):
        ok(world, "s0", type_, payload, tx_id)
    assert events(world, "s1") == []
    assert end(world, "s0", tx_id, letter) == "OK"
    # The second write of /a is merged with the first, whose event is still queued.
    assert events(world, "s1") == (
        [(b"/b/c", b"t"), (b"/a", b"t"), (b"/m", b"t")] if letter == b"T" else []
    )


def test_own_events_come_before_the_reply_to_the_end(make_world: Make) -> None:
    world: World = make_world()
    watch(world, "s0", b"/")
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/a\0x", tx_id)
    world.feed("s0", packet("TRANSACTION_END", b"T\0", tx_id))
    assert [got for got, _, _, _ in world.drain("s0")] == [EVENT, TYPES["TRANSACTION_END"]]


def test_written_and_removed_with_its_parent_fires_nothing_for_the_write(make_world: Make) -> None:
    world: World = make_world()
    watch(world, "s1", b"/")
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/p/q\0x", tx_id)
    ok(world, "s0", "RM", b"/p\0", tx_id)
    assert end(world, "s0", tx_id) == "OK"
    # /p was not there at the start: the removal looks at "/", which is.
    assert events(world, "s1") == [(b"/p", b"t")]


# Permissions of /p and /p/k, what the transaction does to /p/k, what is done to /p
# or /p/k meanwhile (so that it is replayed), and whether domain 1 is told.
SIGHTS = [
    (b"n0", b"n0", SP, b"n0\0r2\0", (SP, b"/p\0r0\0"), False),
    (b"r0", b"n0", SP, b"n2\0", (SP, b"/p\0n0\0"), True),
    (b"n0", b"n0", W, b"v", (SP, b"/p\0r0\0"), False),
    (b"r0", b"n0", W, b"v", (SP, b"/p\0n0\0"), True),
    (b"n0", b"n0", W, b"v", (SP, b"/p/k\0r0\0"), False),
    (b"n0", b"n0", RM, b"", (SP, b"/p\0r0\0"), False),
    (b"r0", b"n0", RM, b"", (SP, b"/p\0n0\0"), True),
]


@pytest.mark.parametrize("parent, node, type_, rest, other, told", SIGHTS)
def test_events_of_a_commit_look_at_the_transactions_own_trees(
    make_world: Make,
    parent: bytes,
    node: bytes,
    type_: str,
    rest: bytes,
    other: tuple[str, bytes],
    told: bool,
) -> None:
    """At its start and at its end, whatever the store has become meanwhile."""
    world: World = make_world()
    for path, perms in ((b"/p", parent), (b"/p/k", node)):
        ok(world, "s0", "WRITE", path + b"\0")
        ok(world, "s0", "SET_PERMS", path + b"\0" + perms + b"\0")
    tx_id = begin(world, "s0")
    ok(world, "s0", type_, b"/p/k\0" + rest, tx_id)
    ok(world, "s1", *other)
    watch(world, "d1", b"/p")
    assert end(world, "s0", tx_id) == "OK"
    assert events(world, "d1") == ([(b"/p/k", b"t")] if told else [])


def test_a_failed_commit_changes_nothing(make_world: Make) -> None:
    world: World = make_world()
    ok(world, "s0", "WRITE", b"/a\0x")
    watch(world, "s1", b"/")
    tx_id = begin(world, "s0")
    ok(world, "s0", "READ", b"/a\0", tx_id)
    ok(world, "s0", "WRITE", b"/new/node\0x", tx_id)
    ok(world, "d1", "WRITE", b"z\0z")
    ok(world, "s0", "WRITE", b"/a\0y")
    world.drain("s1")
    before = list(world.server.tree.walk())
    assert end(world, "s0", tx_id) == "EAGAIN"
    assert list(world.server.tree.walk()) == before
    assert events(world, "s1") == []
    assert error(world, "s0", "READ", b"/a\0", tx_id) == "EIO"


def test_open_transactions_one_more_than_the_quota(make_world: Make) -> None:
    world: World = make_world(quota_transaction=2)
    for _ in range(3):
        begin(world, "d1")
    assert error(world, "d1", "TRANSACTION_START", b"\0") == "EQUOTA"
    assert end(world, "d1", 2) == "OK"
    assert begin(world, "d1") == 4
    for _ in range(10):
        begin(world, "s0")


def test_open_transactions_quota_zero_is_no_limit(make_world: Make) -> None:
    world: World = make_world(quota_transaction=0)
    for _ in range(50):
        begin(world, "d1")


@pytest.mark.parametrize("requests", [4, 5])
def test_requests_quota_counts_the_end(make_world: Make, requests: int) -> None:
    """With 5, the END must be the fifth; failed requests count; others go on."""
    world: World = make_world(quota_maxrequests=5)
    tx_id = begin(world, "d1")
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    assert error(world, "d1", "READ", b"none\0", tx_id) == "ENOENT"
    for _ in range(requests - 2):
        ok(world, "d1", "READ", b"x\0", tx_id)
    if requests == 4:
        assert end(world, "d1", tx_id) == "OK"
        return
    for _ in range(2):
        assert end(world, "d1", tx_id) == "EQUOTA"
        assert error(world, "d1", "READ", b"x\0", tx_id) == "EQUOTA"
        assert error(world, "d1", 99, b"x\0", tx_id) == "EQUOTA"
    assert world.server.domains[1].transactions[tx_id].quota_reached
    assert ok(world, "d1", "GET_DOMAIN_PATH", b"1\0")
    ok(world, "d1", "RESET_WATCHES", b"")
    assert error(world, "d1", "READ", b"x\0", tx_id) == "EIO"


def test_requests_quota_negative_is_no_limit_and_not_for_domain_0(make_world: Make) -> None:
    world: World = make_world(quota_maxrequests=-1)
    tx_id = begin(world, "d1")
    for _ in range(100):
        ok(world, "d1", "GET_DOMAIN_PATH", b"1\0", tx_id)
    world = make_world(quota_maxrequests=1)
    tx_id = begin(world, "s0")
    for _ in range(100):
        ok(world, "s0", "GET_DOMAIN_PATH", b"1\0", tx_id)


@pytest.mark.parametrize("how", ["disconnect", "reset", "release", "end"])
def test_nothing_of_a_transaction_stays(make_world: Make, how: str) -> None:
    world: World = make_world()
    tx_id = begin(world, "d1")
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    if how == "disconnect":
        world.server.disconnect(world.connection("d1")[0])
    elif how == "reset":
        ok(world, "d1", "RESET_WATCHES", b"")
    elif how == "release":
        ok(world, "s0", "RELEASE", b"1\0")
    else:
        assert end(world, "d1", tx_id, b"F") == "OK"
    assert world.server.open_transactions == 0
    assert error(world, "s0", "READ", b"/local/domain/1/x\0") == "ENOENT"


def test_test_eagain_fails_some_and_loses_nothing(make_world: Make) -> None:
    """One attempt in three, first the direct one and then the replay: 1 commit in 9.

    Of 400 commits at least one fails and one passes but for a chance of 1 in 10^20.
    """
    world: World = make_world(test_eagain=True)
    answers = []
    for n in range(400):
        tx_id = begin(world, "s0")
        ok(world, "s0", "WRITE", b"/n\0%d" % n, tx_id)
        answers.append(end(world, "s0", tx_id))
        if answers[-1] == "OK":
            assert ok(world, "s0", "READ", b"/n\0") == b"%d" % n
    assert set(answers) == {"OK", "EAGAIN"}


def test_quota_counts_in_a_transaction_are_its_own(make_world: Make) -> None:
    """Two transactions may each use the last entry; only one of them can be committed."""
    world: World = make_world(quota_maxentity=5)
    ok(world, "d1", "WRITE", b"a/x\0")  # home, a, x: 3 of 5
    ok(world, "d1", "MKDIR", b"b\0")  # 4
    one, two = begin(world, "d1"), begin(world, "d1")
    ok(world, "d1", "MKDIR", b"a/y\0", one)
    ok(world, "d1", "MKDIR", b"b/y\0", two)
    assert error(world, "d1", "MKDIR", b"a/z\0", one) == "EQUOTA"
    recount(world)
    assert end(world, "d1", one) == "OK"
    assert end(world, "d1", two) == "EAGAIN"
    assert world.server.tree.entries(1) == 5
    assert error(world, "d1", "MKDIR", b"c\0") == "EQUOTA"
    recount(world)


def test_a_merge_that_takes_a_count_to_zero_subtracts_it(make_world: Make) -> None:
    world: World = make_world()
    ok(world, "s0", "WRITE", b"/q/r\0")
    ok(world, "s0", "SET_PERMS", b"/q/r\0n7\0")
    tx_id = begin(world, "s0")
    ok(world, "s0", "RM", b"/q/r\0", tx_id)
    ok(world, "s1", "WRITE", b"/local/x\0")
    assert end(world, "s0", tx_id) == "OK"
    assert world.server.transactions_merged == 1
    assert world.server.tree.entries(7) == 0
    recount(world)


def test_a_merge_keeps_to_the_entry_quota(make_world: Callable[..., World]) -> None:
    """Each transaction is within the quota on the store that it began with; all of them are not."""
    world = make_world(quota_maxentity=20, quota_transaction=10)
    for n in range(6):
        ok(world, "d1", "MKDIR", b"part%d\0" % n)
    open_ = [begin(world, "d1") for _ in range(6)]
    for n, tx_id in enumerate(open_):
        for k in range(4):
            ok(world, "d1", "MKDIR", b"part%d/%d\0" % (n, k), tx_id)
    results = [end(world, "d1", tx_id) for tx_id in open_]
    assert "OK" in results and "EAGAIN" in results
    assert world.server.tree.entries(1) <= 20
    recount(world)


def test_a_guest_cannot_keep_many_old_states_of_the_store(make_world: Callable[..., World]) -> None:
    """Each open transaction keeps what was replaced since its start.  What others replace does
    not make it fail, but there are only two such then."""
    world = make_world((1, 2), quota_transaction=10)
    value = b"v" * 2000
    refused = 0
    for _ in range(10):
        got, _body = world.ask("d1", "TRANSACTION_START", b"\0")
        refused += got == 16
        for n in range(900):
            ok(world, "d2", "WRITE", b"n/%d\0" % n + value)
    assert refused == 8
    # Domain 0 is not counted, and those who end theirs may go on.
    for tx_id in list(world.server.domains[1].transactions):
        ok(world, "d1", "WRITE", b"k\0v", tx_id)
        assert end(world, "d1", tx_id) == "OK"
    begin(world, "d1")


def _fill(world: World, who: str, value: bytes) -> None:
    for n in range(900):
        ok(world, who, "WRITE", b"n/%d\0" % n + value * 1000)


def _keep_old_stores(world: World, seconds: float) -> int:
    """Domains 1 to 3 open two transactions each, and before the next one domains 4 to 6 replace all
    their nodes; how many more bytes than before are kept, less what the nodes take."""
    before = 0
    for n, letter in enumerate(b"abcdefg"):
        for who in ("d4", "d5", "d6"):
            _fill(world, who, bytes([letter]))
        world.now += seconds
        world.server.tick(world.now)
        world.turn()
        if n == 0:
            before = live_counts()["nodes"]
        if n < 6:
            begin(world, f"d{1 + n % 3}")
    return live_counts()["nodes"] - before


@pytest.mark.parametrize("idle", [0, 200])
def test_guests_cannot_keep_old_stores_together(
    make_world: Callable[..., World], idle: int
) -> None:
    """Two transactions of each would keep twice as many stores as there are guests; those that are
    the oldest are given up, and fail, until what is kept is 1 MiB for each guest that has any,
    however many there are that have none."""
    world = make_world((1, 2, 3, 4, 5, 6, *range(10, 10 + idle)), quota_transaction=10)
    assert _keep_old_stores(world, 1.0) < 6_000
    ended = [
        end(world, f"d{domid}", tx_id)
        for tx_id in (1, 2)
        for domid in (1, 2, 3)
        if not ok(world, f"d{domid}", "WRITE", b"k\0v", tx_id).strip(b"OK\0")
    ]
    assert ended[:3] == ["EAGAIN"] * 3 and ended[-1] == "OK"


def test_a_young_transaction_is_not_given_up_for_others(make_world: Callable[..., World]) -> None:
    """However much others replace meanwhile."""
    world = make_world((1, 2, 3, 4, 5, 6), quota_transaction=10)
    assert _keep_old_stores(world, 0.03) > 10_000
    for domid in (1, 2, 3):
        for tx_id in (1, 2):
            ok(world, f"d{domid}", "WRITE", b"k%d\0v" % tx_id, tx_id)
            assert end(world, f"d{domid}", tx_id) == "OK"


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("leaves", ["ends", "reset", "gone"])
@pytest.mark.parametrize(("writes", "result"), [(3, "OK"), (6, "EAGAIN")])
def test_how_much_guests_keep_together(
    make_world: Callable[..., World], images: bool, leaves: str, writes: int, result: str
) -> None:
    """1 MiB, and 1 MiB more for each guest that has a transaction open, as often as others have
    had one."""
    world = make_world((1, 2, 3, 4))
    for n in range(900):
        ok(world, "d3", "WRITE", b"n/%d\0" % n + b"v" * 500)
    begin(world, "d1")
    begin(world, "d2")
    mine = begin(world, "d2")
    begin(world, "d4")
    if images:
        before, world = world, again(world)
        before.close()
    for who in ("d1", "d4"):
        if leaves == "ends":
            end(world, who, 1, b"F")
        elif leaves == "reset":
            ok(world, who, "RESET_WATCHES", b"\0")
        else:
            ok(world, "s0", "RELEASE", who[1:].encode() + b"\0")
    end(world, "d2", 1, b"F")
    world.now += 1
    world.server.tick(world.now)
    for n in range(writes * 900):  # 0.55 MiB each time, with 128 bytes for a node
        ok(world, "d3", "WRITE", b"n/%d\0" % (n % 900) + b"v" * 500)
    ok(world, "d2", "WRITE", b"k\0v", mine)
    assert end(world, "d2", mine) == result
    world.close()


def _rewrite(world: World, tx_id: int) -> None:
    for n in range(990):
        ok(world, "d1", "WRITE", _long(n) + b"w" * 1000)


def _remove(world: World, tx_id: int) -> None:
    ok(world, "d1", "RM", b"/local/domain/1/d\0")


def _commit(world: World, tx_id: int) -> None:
    other = begin(world, "d1")
    ok(world, "d1", "RM", b"/local/domain/1/d\0", other)
    assert end(world, "d1", other) == "OK"


def _shorten(world: World, tx_id: int) -> None:
    for n in range(990):
        ok(world, "d1", "WRITE", _long(n))


def _long(n: int) -> bytes:
    return b"d/%03d" % n + b"n" * 2000 + b"\0"


@pytest.mark.parametrize("replace", [_rewrite, _remove, _commit, _shorten])
@pytest.mark.parametrize("reads", [False, True])
def test_a_guest_keeps_no_second_store(
    make_world: Callable[..., World], replace: Callable[[World, int], None], reads: bool
) -> None:
    """What a guest replaces while it has a transaction open counts with its names and values; over
    1 MiB that transaction is given up, and keeps nothing of what there was."""
    world = make_world((1, 2))
    for n in range(990):
        ok(world, "d1", "WRITE", _long(n) + b"v" * 1000)
    world.turn()
    before = live_counts()["nodes"]
    tx_id, other = begin(world, "d1"), begin(world, "d2")
    ok(world, "d1", "READ", _long(0), tx_id)
    if not reads:
        ok(world, "d1", "WRITE", b"x\0v", tx_id)
    ok(world, "d2", "WRITE", b"x\0v", other)
    replace(world, tx_id)
    assert end(world, "d2", other) == "OK"
    world.now += 1
    world.server.tick(world.now)
    world.turn()
    assert live_counts()["nodes"] < before + 600
    # It can be asked, and it can be ended or given up by the client.
    assert error(world, "d1", "READ", b"nothing\0", tx_id) == "ENOENT"
    ok(world, "d1", "WRITE", b"y\0v", tx_id)
    failed = world.server.transactions_failed
    assert end(world, "d1", tx_id, b"T") == "EAGAIN"
    assert world.server.transactions_failed == failed + 1
    assert error(world, "d1", "READ", b"y\0") == "ENOENT"
    recount(world)
    again = begin(world, "d1")
    ok(world, "d1", "WRITE", b"y\0v", again)
    assert end(world, "d1", again) == "OK"


def test_a_small_guest_is_never_given_up(make_world: Callable[..., World]) -> None:
    """However often it writes what is not shared with the transaction any more."""
    world = make_world((1,))
    tx_id = begin(world, "d1")
    ok(world, "d1", "WRITE", b"x\0v", tx_id)
    world.now += 1
    world.server.tick(world.now)
    for n in range(3000):
        ok(world, "d1", "WRITE", b"k\0" + b"%d" % n + b"v" * 1500)
    assert end(world, "d1", tx_id) == "OK"


def test_what_a_guest_writes_in_a_transaction_counts_too(make_world: Callable[..., World]) -> None:
    """The third one is refused from the time on that more than 1 MiB was written since the start
    of the first."""
    world = make_world(quota_transaction=10)
    value = b"v" * 2000
    first = begin(world, "d1")
    for _ in range(4):
        tx_id = begin(world, "d1")
        end(world, "d1", begin(world, "d1"), b"F")
        for n in range(150):
            ok(world, "d1", "WRITE", b"n/%d\0" % n + value, tx_id)
        end(world, "d1", tx_id, b"F")
    begin(world, "d1")
    assert error(world, "d1", "TRANSACTION_START", b"\0") == "EQUOTA"
    end(world, "d1", first, b"F")
    begin(world, "d1")


def test_what_open_transactions_remember(make_world: Callable[..., World]) -> None:
    """A request takes 280 bytes and its payload: almost three transactions may have a thousand."""
    world = make_world(quota_transaction=10)
    for _ in range(11):
        begin(world, "d1")
    count = 0
    for tx_id in list(world.server.domains[1].transactions):
        for _ in range(1000):
            type_, body = world.ask("d1", "GET_DOMAIN_PATH", b"1\0", tx_id)
            if (type_, body) == (16, b"EQUOTA\0"):
                break
            count += 1
    assert count == -(-786432 // 282)


@pytest.mark.parametrize("size", [0, 100, 900])
def test_what_written_nodes_take_in_open_transactions(
    make_world: Callable[..., World], size: int
) -> None:
    """A WRITE keeps its payload twice, since a node has it too, 240 bytes more, and the path once
    more for the events of the commit."""
    world = make_world(quota_transaction=10)
    ids = [begin(world, "d1") for _ in range(11)]
    count = 0
    for tx_id in ids:
        for n in range(900):
            payload = b"%03d" % n + b"n" * size + b"\0v"
            type_, body = world.ask("d1", "WRITE", payload, tx_id)
            if (type_, body) == (16, b"EQUOTA\0"):
                break
            count += 1
    home = len(b"/local/domain/1/")
    most = -(-786432 // (280 + 128 + 112 + 2 * len(payload) + home + 3 + size))
    # The nodes on the way are copied once in each transaction.
    assert most - 11 < count <= most


def test_what_open_transactions_have_copied(make_world: Callable[..., World]) -> None:
    """128 bytes for each node, and for each 16 slots of pages, and each once, however often what is
    below it is written.  A page takes 3 slots beside the one of its only name."""
    world = make_world(quota_transaction=10)
    ends = [b"/".join([name] * 480) for name in (b"a", b"b")]
    for path in ends:
        ok(world, "d1", "MKDIR", path + b"\0")
    ids = [begin(world, "d1") for _ in range(11)]
    for n in range(40):
        ok(world, "d1", "WRITE", ends[n % 2] + b"\0v", ids[0])
    answers = [
        world.ask("d1", "WRITE", path + b"\0v", tx_id)[1] for tx_id in ids[1:] for path in ends
    ]
    request = 280 + 128 + 112 + 2 * 961 + 975
    # Those above the two chains have some names more.
    pages = ((479 * 4 + 21) // 16, 479 * 4 // 16)
    taken = 40 * request + 128 * (964 + sum(pages))
    each = (request + 128 * (484 + pages[0]), request + 128 * (480 + pages[1]))
    most = 0
    while taken < 786432:
        taken += each[most % 2]
        most += 1
    assert answers == [b"OK\0"] * most + [b"EQUOTA\0"] * (20 - most) and 4 < most < 18
