# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree: wide and deep, snapshots, permissions, entry counts, what a domain leaves."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pyxsd.store.forget import Forgetting
from pyxsd.store.tree import Tree, live_counts
from tests.unit.kit import begin, end, error, ok, recount, write
from tests.world import ERROR, TYPES, World, packet

Make = Callable[..., Any]
Shape = list[tuple[tuple[bytes, ...], bytes, bytes]]


def shape(tree: Any) -> list[Any]:
    """All nodes: components, permissions, value."""
    return list(tree.walk())


def later(world: World) -> None:
    """Time passes, so that what is only kept for a while is let go."""
    world.now += 10.0
    world.server.tick(world.now)


# -- the tree by itself -------------------------------------------------------


def test_load_and_walk() -> None:
    tree = Tree()
    tree.load([b"b"], b"n1\0r2\0", b"vb")
    tree.load([b"a"], b"b0\0", b"")
    tree.load([b"b", b"x"], b"w1\0", b"v\0x")
    assert shape(tree) == [
        ((), [(0, 0)], b""),
        ((b"a",), [(0, 3)], b""),
        ((b"b",), [(1, 0), (2, 1)], b"vb"),
        ((b"b", b"x"), [(1, 2)], b"v\0x"),
    ]
    assert [names for names, _, _ in tree.walk(True)] == [(), (b"b",), (b"b", b"x"), (b"a",)]
    assert tree.size == 3 and tree.all_entries() == {0: 1, 1: 2} and tree.entries(1) == 2


@pytest.mark.parametrize(
    "names, perms", [([b"x", b"y"], b"n0\0"), ([b"x"], b""), ([b"x"], b"q0\0"), ([b"x"], b"n0")]
)
def test_load_refuses(names: list[bytes], perms: bytes) -> None:
    tree = Tree()
    with pytest.raises(ValueError, match=r"."):
        tree.load(names, perms, b"")
    assert tree.size == 0


def test_a_walk_holds_a_snapshot(world: World) -> None:
    """The tree may change, and even go, while it is walked."""
    for n in range(100):
        ok(world, "s0", "WRITE", b"/w/%02d\0v" % n)
    tree = world.server.tree
    walk = tree.walk()
    first = [next(walk) for _ in range(5)]
    ok(world, "s0", "RM", b"/\0")
    ok(world, "s0", "WRITE", b"/new\0v")
    rest = [names for names, _, _ in walk]
    assert len(first) + len(rest) > 105 and (b"w", b"99") in rest and (b"new",) not in rest


@pytest.mark.parametrize("seed", range(6))
def test_wide_directories_stay_ordered(make_world: Make, seed: int) -> None:
    """Insertions and removals in random order, with and without a snapshot held;
    every state is that of a dictionary."""
    world: World = make_world(domids=())
    pick = random.Random(seed)
    names: dict[bytes, bytes] = {}
    held: list[tuple[Any, list[bytes]]] = []
    for round_ in range(4000):
        if pick.random() < (0.7 if round_ < 2500 else 0.2):
            name, value = b"n%d" % pick.randrange(3000), b"%d" % round_
            world.connection("s0")[1].feed(write(b"/wide/" + name, value))
            names[name] = value
        else:
            name = pick.choice(sorted(names)) if names and pick.random() < 0.9 else b"none"
            world.connection("s0")[1].feed(packet("RM", b"/wide/" + name + b"\0"))
            names.pop(name, None)
        world.turn("s0")
        if round_ % 500 == 100:
            walk = world.server.tree.walk()
            held.append((walk, sorted(names)))
    got = [
        (path[1], value)
        for path, _, value in world.server.tree.walk()
        if path[:1] == (b"wide",) and len(path) == 2
    ]
    assert got == sorted(names.items())
    for walk, then in held:
        assert [path[1] for path, _, _ in walk if path[:1] == (b"wide",) and len(path) == 2] == then
    world.connection("s0")[1].take()
    world.rest.clear()
    recount(world)


def test_order_is_by_bytes(world: World) -> None:
    names = [b"Z", b"a", b"-", b"_", b"@", b"0", b"a-", b"a0", b"aa", b"b", b"aaa"]
    for name in names:
        ok(world, "s0", "MKDIR", b"/o/" + name + b"\0")
    assert ok(world, "s0", "DIRECTORY", b"/o\0").split(b"\0")[:-1] == sorted(names)


def test_directory_part_gives_a_wide_directory_whole(world: World) -> None:
    names = sorted(b"name-%d" % n for n in range(3000))
    for name in names:
        ok(world, "s0", "MKDIR", b"/wide/" + name + b"\0")
    assert error(world, "s0", "DIRECTORY", b"/wide\0") == "E2BIG"
    found = b""
    generation = None
    for _ in range(100):
        body = ok(world, "s0", "DIRECTORY_PART", b"/wide\0%d\0" % len(found))
        assert len(body) <= 4096
        head, _, rest = body.partition(b"\0")
        assert generation in (None, head)
        generation = head
        if rest.endswith(b"\0\0") or rest == b"\0":
            found += rest[:-1]
            break
        found += rest
    assert found.split(b"\0")[:-1] == names
    ok(world, "s1", "WRITE", b"/wide/name-5/x\0")
    assert ok(world, "s0", "DIRECTORY_PART", b"/wide\x000\0").split(b"\0")[0] != generation


GENERATIONS = [
    ("nothing", [], True),
    ("a sibling", [("WRITE", b"/g2\0v")], True),
    ("the parent's value", [("WRITE", b"/\0v")], True),
    ("its value", [("WRITE", b"/g\0v")], False),
    ("its permissions", [("SET_PERMS", b"/g\0r0\0")], False),
    ("below it", [("WRITE", b"/g/a/b\0v")], False),
    ("an equal value below", [("WRITE", b"/g/a\0a")], False),
    ("a removal below", [("RM", b"/g/a\0")], False),
    ("a removal of nothing", [("RM", b"/g/none\0")], True),
    ("a mkdir of what is there", [("MKDIR", b"/g/a\0")], True),
    ("8 others asked for", [("DIRECTORY_PART", b"/h/%d\x000\0" % n) for n in range(8)], False),
    ("7 others asked for", [("DIRECTORY_PART", b"/h/%d\x000\0" % n) for n in range(7)], True),
]


@pytest.mark.parametrize("what, changes, same", GENERATIONS, ids=lambda x: str(x)[:30])
def test_generation_counts(
    world: World, what: str, changes: list[tuple[str, bytes]], same: bool
) -> None:
    """Equal exactly where nothing at or below the node was touched in between."""
    ok(world, "s0", "WRITE", b"/g/a\0a")
    for n in range(8):
        ok(world, "s0", "WRITE", b"/h/%d\0v" % n)
    first = ok(world, "s0", "DIRECTORY_PART", b"/g\x000\0")
    for type_, payload in changes:
        ok(world, "s0", type_, payload)
    again = ok(world, "s0", "DIRECTORY_PART", b"/g\x000\0")
    assert (first.split(b"\0")[0] == again.split(b"\0")[0]) == same


# -- deep trees ---------------------------------------------------------------

DEEP = b"/" + b"/".join([b"a"] * 1500)


def deep_world(make_world: Make) -> World:
    world: World = make_world(quota_path_max=4000)
    ok(world, "s0", "WRITE", DEEP + b"\0deep")
    return world


def test_paths_of_1500_components(make_world: Make) -> None:
    world = deep_world(make_world)
    assert world.server.tree.size > 1500
    assert ok(world, "s0", "READ", DEEP + b"\0") == b"deep"
    assert ok(world, "s0", "DIRECTORY", DEEP[:-2] + b"\0") == b"a\0"
    ok(world, "s0", "SET_PERMS", DEEP + b"\0n1\0")
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", DEEP + b"\0again", tx_id)
    ok(world, "s1", "WRITE", b"/local/x\0")
    assert end(world, "s0", tx_id) == "OK"
    ok(world, "s0", "WATCH", DEEP + b"\0t\0")
    recount(world)
    assert world.step("s1", "RM", b"/a\0")[1] == {"s0": [DEEP + b"\0t\0"]}
    assert error(world, "s0", "READ", DEEP + b"\0") == "ENOENT"
    recount(world)


@pytest.mark.parametrize("how", ["rm", "rm root", "transaction", "domain", "with the server"])
def test_deep_trees_go_without_recursion(make_world: Make, how: str) -> None:
    """Ten such trees one below the other cannot be written, but 100 beside each other."""
    world: World = make_world(quota_path_max=4000, quota_maxentity=1 << 30)
    before = live_counts()["nodes"]
    for n in range(100):
        path = b"/" + b"/".join([b"%d" % n, *([b"a"] * 1500)])
        ok(world, "s0", "WRITE", path + b"\0v")
    assert live_counts()["nodes"] >= before + 150_000
    if how == "rm":
        for n in range(100):
            ok(world, "s0", "RM", b"/%d\0" % n)
    elif how == "rm root":
        ok(world, "s0", "RM", b"/\0")
    elif how == "transaction":
        tx_id = begin(world, "s0")
        ok(world, "s0", "RM", b"/\0", tx_id)
        assert end(world, "s0", tx_id) == "OK"
    elif how == "domain":
        for n in range(100):
            ok(world, "s0", "SET_PERMS", b"/%d\0n9\0" % n)
        assert error(world, "s0", "RELEASE", b"9\0") == "EINVAL"
    else:
        world.close()
        assert live_counts()["nodes"] == 0
        return
    recount(world)
    later(world)
    assert live_counts()["nodes"] < before + 100


def test_a_subtree_of_a_deep_chain_owned_by_somebody_goes(make_world: Make) -> None:
    world = deep_world(make_world)
    ok(world, "s0", "SET_PERMS", b"/a" * 750 + b"\0n1\0r2\0")
    ok(world, "s0", "RELEASE", b"1\0")
    assert error(world, "s0", "READ", DEEP + b"\0") == "ENOENT"
    assert ok(world, "s0", "READ", b"/a" * 749 + b"\0") == b""
    recount(world)


def deep(components: int, name: bytes = b"a") -> bytes:
    return (b"/" + name) * components


@pytest.mark.parametrize("inside", [False, True], ids=["plain", "transaction"])
@pytest.mark.parametrize("type_", ["WRITE", "MKDIR"])
def test_missing_parents_are_made_in_one_walk(make_world: Make, type_: str, inside: bool) -> None:
    """The nodes visited are a few for each component, not all those above it each time."""
    world: World = make_world(quota_path_max=4000)
    ok(world, "s0", "WRITE", b"/x/y/z\0v")
    tx_id = begin(world, "s0") if inside else 0
    tree = world.connection("s0")[0].transactions[tx_id].tree if inside else world.server.tree
    for base, parts in ((b"", 1000), (b"/x/y/z", 900), (b"/a/a/a/n", 500)):
        before = tree.steps
        ok(world, "s0", type_, base + deep(parts) + b"\0", tx_id)
        assert tree.steps - before <= 2 * (parts + 4)
    before = tree.steps
    ok(world, "s0", "RM", b"/a\0", tx_id)
    ok(world, "s0", "RM", b"/x/y/z\0", tx_id)
    assert tree.steps - before <= 20
    recount(world)


class Chain(NamedTuple):
    """What domain 1 asks of an empty home of its own, and what is there afterwards."""

    entries: int  # its entry quota; 1 is its home's
    type: str
    parts: int  # components of the path
    status: str
    made: int  # nodes that exist on the path


CHAINS = [
    Chain(11, "WRITE", 10, "", 10),
    Chain(10, "WRITE", 10, "EQUOTA", 9),
    Chain(11, "MKDIR", 10, "", 10),
    Chain(10, "MKDIR", 10, "EQUOTA", 9),
    Chain(5, "WRITE", 10, "EQUOTA", 4),
    Chain(5, "MKDIR", 10, "EQUOTA", 4),
    Chain(1, "WRITE", 10, "EQUOTA", 0),
    Chain(1, "MKDIR", 1, "EQUOTA", 0),
    Chain(2, "WRITE", 1, "", 1),
    Chain(2, "WRITE", 2, "EQUOTA", 1),
    Chain(0, "WRITE", 2, "EQUOTA", 0),
]


@pytest.mark.parametrize("case", CHAINS, ids=repr)
def test_quota_in_a_chain_of_parents(make_world: Make, case: Chain) -> None:
    world: World = make_world(quota_maxentity=case.entries)
    path = deep(case.parts)[1:]
    if case.status:
        assert error(world, "d1", case.type, path + b"\0") == case.status
    else:
        ok(world, "d1", case.type, path + b"\0")
    there = [names for names, _, _ in world.server.tree.walk() if b"a" in names]
    assert len(there) == case.made and world.server.tree.entries(1) == 1 + case.made
    recount(world)


def test_a_chain_of_parents_is_shared_with_nobody(world: World) -> None:
    """What a transaction creates on the way is not seen outside, and the other way round."""
    ok(world, "s0", "WRITE", b"/p\0v")
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/p/a/b/c\0in", tx_id)
    assert error(world, "s1", "READ", b"/p/a\0") == "ENOENT"
    ok(world, "s1", "WRITE", b"/p/a/b/c\0out")
    ok(world, "s1", "WRITE", b"/p/a/b/c\0again")
    assert ok(world, "s0", "READ", b"/p/a/b/c\0", tx_id) == b"in"
    recount(world)
    assert end(world, "s0", tx_id, b"F") == "OK"


# -- sharing ------------------------------------------------------------------


def test_snapshots_cost_nothing_and_hold_only_what_differs(world: World) -> None:
    for n in range(2000):
        ok(world, "s0", "WRITE", b"/big/%d/%d\0v" % (n % 50, n))
    before = live_counts()
    ids = [begin(world, "s0") for _ in range(100)]
    assert live_counts()["nodes"] == before["nodes"]
    for tx_id in ids:
        ok(world, "s0", "WRITE", b"/big/7/new\0v", tx_id)
    # Each has its own "/", "big", "7" and "new".
    assert live_counts()["nodes"] == before["nodes"] + 400
    for tx_id in ids:
        assert end(world, "s0", tx_id, b"F") == "OK"
    later(world)
    assert live_counts() == before


def test_without_snapshots_nothing_is_copied(world: World) -> None:
    ok(world, "s0", "WRITE", b"/x/y\0v")
    before = live_counts()
    for n in range(100):
        ok(world, "s0", "WRITE", b"/x/y\0%d" % n)
        assert live_counts() == before


WIDE_CHANGES = [
    ("WRITE", b"\0new"),
    ("RM", b"\0"),
    ("SET_PERMS", b"\0r0\0"),
    ("WRITE", b"/below\0new"),
    ("MKDIR", b"/below\0"),
]


@pytest.mark.parametrize("width", [2, 33, 100, 1100])
@pytest.mark.parametrize("type_, payload", WIDE_CHANGES)
def test_changes_of_a_wide_directory_stay_in_a_transaction(
    world: World, type_: str, payload: bytes, width: int
) -> None:
    """Writing the directory itself copies it and shares its pages: those at the top, with more
    than 32 children, have two holders then, and what is below them has one."""
    world.server.tree.load([b"w"], b"n0\0", b"v")
    for n in range(width):
        world.server.tree.load([b"w", b"%04d" % n], b"n0\0", b"v")
    before = shape(world.server.tree)
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/w\0changed", tx_id)
    for n in (0, width // 2, width - 1):
        ok(world, "s0", type_, b"/w/%04d" % n + payload, tx_id)
        assert shape(world.server.tree) == before
    inside = shape(world.connection("s0")[0].transactions[tx_id].tree)
    for n in (0, width // 2, width - 1):
        ok(world, "s1", "WRITE", b"/w/%04d\0outside" % n)
    assert shape(world.connection("s0")[0].transactions[tx_id].tree) == inside != before
    recount(world)
    assert end(world, "s0", tx_id, b"F") == "OK"


#: Names left in each page of a directory that was filled in ascending order, 32 in each page,
#: and the page that names are then taken from until it is joined with a neighbour.
JOINS = [
    ([10, 10], 1),
    ([10, 10], 0),
    ([10, 10, 10], 1),
    ([32, 10, 10], 2),
    ([10, 10, 32], 0),
    ([16, 8], 1),
    ([8, 16], 0),
]


@pytest.mark.parametrize("held", [False, True], ids=["alone", "with a snapshot"])
@pytest.mark.parametrize("left, page", JOINS, ids=repr)
def test_sparse_pages_are_joined(world: World, left: list[int], page: int, held: bool) -> None:
    """Also where a snapshot shares the neighbour, which it must not see."""
    names = [[b"%d-%02d" % (p, n) for n in range(32)] for p in range(len(left))]
    for each in names:
        for name in each:
            ok(world, "s0", "MKDIR", b"/w/" + name + b"\0")
    for each, count in zip(names, left):
        while len(each) > count:
            ok(world, "s0", "RM", b"/w/" + each.pop(1) + b"\0")
    pages = live_counts()["pages"]
    snapshot = world.server.tree.copy() if held else None
    before = shape(world.server.tree)
    while len(names[page]) > 2:
        ok(world, "s0", "RM", b"/w/" + names[page].pop() + b"\0")
        assert ok(world, "s0", "DIRECTORY", b"/w\0").split(b"\0")[:-1] == sum(names, [])
    if snapshot is not None:
        assert shape(snapshot) == before
        del snapshot
    assert live_counts()["pages"] < pages
    recount(world)


#: What a transaction reads, what it writes, what changes meanwhile, and whether it still goes in.
MERGES = [
    ([b"/ab", b"/a"], [b"/c/x"], b"/ab", "EAGAIN"),
    ([b"/a", b"/ab"], [b"/c/x"], b"/ab", "EAGAIN"),
    ([b"/a/b", b"/a/bc"], [b"/c/x"], b"/a/bc", "EAGAIN"),
    ([b"/a/bc", b"/a/b"], [b"/c/x"], b"/a/b", "EAGAIN"),
    ([b"/ab/x", b"/ab/y"], [b"/c/x"], b"/a", "OK"),
    ([b"/c"], [b"/a/n", b"/ab/n"], b"/d", "OK"),
    ([b"/c"], [b"/ab/n", b"/a/n"], b"/d", "OK"),
]


@pytest.mark.parametrize("reads, writes, meanwhile, status", MERGES, ids=repr)
def test_a_merge_knows_names_from_beginnings_of_names(
    world: World, reads: list[bytes], writes: list[bytes], meanwhile: bytes, status: str
) -> None:
    """/a is no parent of /ab."""
    for path in (b"/a/b", b"/a/bc", b"/ab/x", b"/ab/y", b"/c/x", b"/d", b"/a/n", b"/ab/n"):
        ok(world, "s0", "WRITE", path + b"\0v")
    tx_id = begin(world, "s0")
    for path in reads:
        ok(world, "s0", "READ", path + b"\0", tx_id)
    for path in writes:
        ok(world, "s0", "WRITE", path + b"\0new", tx_id)
    ok(world, "s1", "WRITE", meanwhile + b"\0meanwhile")
    assert end(world, "s0", tx_id) == status
    assert ok(world, "s0", "READ", meanwhile + b"\0") == b"meanwhile"
    for path in writes:
        assert ok(world, "s0", "READ", path + b"\0") == (b"new" if status == "OK" else b"v")
    recount(world)


def test_no_reference_cycles_hold_a_server(make_world: Make) -> None:
    """All goes by counting references: the daemon runs without the cyclic collector."""
    from tests.leaks import differences
    from tests.leaks import live_counts as all_counts

    before = all_counts()
    gc.collect()
    gc.disable()
    try:
        world: World = make_world()
        for who in ("s0", "d1"):
            ok(world, who, "WATCH", b"x\0t\0")
            tx_id = begin(world, who)
            ok(world, who, "WRITE", b"x\0v", tx_id)
            begin(world, who)
            ok(world, "s1", "WRITE", b"/local/domain/1/y\0v")
            assert end(world, who, tx_id) == "OK"
            world.connection(who)[1].room = 0
        for n in range(3000):
            world.feed("s1", write(b"/local/domain/1/x/%d" % n))
        ok(world, "s2", "DIRECTORY_PART", b"/\x000\0")
        ok(world, "s2", "RELEASE", b"1\0")
        world.close()
        del world
        assert differences(before, all_counts()) == {}
    finally:
        gc.enable()


def test_the_leak_check_sees_what_is_left(make_world: Make) -> None:
    """Each kind of object is counted while it lives, and gone after it."""
    from tests.leaks import differences
    from tests.leaks import live_counts as all_counts

    before = all_counts()
    world: World = make_world()
    ok(world, "s0", "WATCH", b"/a\0t\0")
    begin(world, "s0")
    ok(world, "s0", "WRITE", b"/a\0v")
    left = differences(before, all_counts())
    assert {kind for kind, n in left.items() if n > 0} == set(before)
    world.close()
    assert differences(before, all_counts()) == {}


# -- permissions, quotas ------------------------------------------------------

#: Permissions of /p, and what domain 1 may do there; 32757 stands for everybody.
EVERYBODY = [
    (b"n0\0", ""),
    (b"n0\0r32757\0", "r"),
    (b"n0\0w32757\0", "w"),
    (b"n0\0b32757\0", "rw"),
    (b"b0\0n32757\0", ""),
    (b"n0\0r2\0r32757\0", "r"),
    (b"n0\0r1\0b32757\0", "r"),  # the first entry that fits counts
    (b"n0\0r32757\0b1\0", "r"),
    (b"n0\0n32757\0b1\0", ""),
    (b"n32757\0", ""),  # as the owner it is nobody
    (b"r32757\0", "r"),  # whose entry is the default, as any owner's
    (b"n0\0r32756\0", ""),
]


@pytest.mark.parametrize("perms, may", EVERYBODY, ids=repr)
def test_an_entry_for_everybody(world: World, perms: bytes, may: str) -> None:
    ok(world, "s0", "WRITE", b"/p\0v")
    ok(world, "s0", "SET_PERMS", b"/p\0" + perms)
    assert ok(world, "s0", "GET_PERMS", b"/p\0") == perms
    assert ("r" in may) == (world.ask("d1", "READ", b"/p\0")[0] != ERROR)
    assert ("r" in may) == (world.ask("d1", "GET_PERMS", b"/p\0")[0] != ERROR)
    assert ("w" in may) == (world.ask("d1", "WRITE", b"/p\0w")[0] != ERROR)
    # The right to change permissions is the owner's alone.
    assert error(world, "d1", "SET_PERMS", b"/p\0n0\0r1\0") == "EACCES"


def test_an_entry_for_everybody_stands_when_domains_go(world: World) -> None:
    ok(world, "s0", "WRITE", b"/p\0v")
    ok(world, "s0", "SET_PERMS", b"/p\0n0\0r32757\0r1\0")
    for domid in (b"1", b"32757"):
        world.ask("s0", "RELEASE", domid + b"\0")
    assert ok(world, "s0", "GET_PERMS", b"/p\0") == b"n0\0r32757\0"
    assert ok(world, "d2", "READ", b"/p\0") == b"v"


@pytest.mark.parametrize("who", ["d1", "d2"])
def test_perms_activate_false_checks_no_node(make_world: Make, who: str) -> None:
    world: World = make_world(perms_activate=False)
    ok(world, "s0", "WRITE", b"/p\0secret")
    assert ok(world, who, "READ", b"/p\0") == b"secret"
    ok(world, who, "WRITE", b"/q\0v")
    ok(world, who, "SET_PERMS", b"/q\0r0\0")
    # What only domain 0 may do stays so: requests, and giving nodes away.
    assert error(world, who, "SET_PERMS", b"/q\0r1\0") == "EACCES"
    assert error(world, who, "IS_DOMAIN_INTRODUCED", b"1\0") == "EACCES"


def test_target_gives_both_rights_until_it_disconnects(world: World) -> None:
    ok(world, "s0", "WRITE", b"/t2\0v")
    ok(world, "s0", "SET_PERMS", b"/t2\0n2\0")
    assert error(world, "d1", "READ", b"/t2\0") == "EACCES"
    ok(world, "s0", "SET_TARGET", b"1\x002\0")
    assert ok(world, "d1", "READ", b"/t2\0") == b"v"
    ok(world, "d1", "WRITE", b"own\0v")
    ok(world, "d1", "SET_PERMS", b"/t2\0n2\0r3\0")
    assert error(world, "d1", "SET_PERMS", b"/t2\0n1\0") == "EACCES"
    ok(world, "s0", "SET_TARGET", b"1\x003\0")
    ok(world, "d1", "READ", b"/t2\0")
    assert error(world, "d1", "WRITE", b"/t2\0v") == "EACCES"
    ok(world, "s0", "SET_TARGET", b"1\x000\0")
    assert ok(world, "d1", "IS_DOMAIN_INTRODUCED", b"1\0") == b"T\0"
    # Paths stay relative to its own domain.
    assert ok(world, "d1", "READ", b"own\0") == b"v"
    ok(world, "s0", "RELEASE", b"1\0")
    world.introduce(1)
    assert error(world, "d1", "IS_DOMAIN_INTRODUCED", b"1\0") == "EACCES"


def test_all_who_act_for_a_domain_lose_that_with_it(make_world: Make) -> None:
    """Also where one of them was given another target meanwhile, or has gone."""
    world: World = make_world((1, 2, 3, 4, 5))
    for name in (b"1", b"2", b"3", b"4"):
        ok(world, "s0", "SET_TARGET", name + b"\0005\0")
    ok(world, "s0", "SET_TARGET", b"1\0002\0")
    ok(world, "s0", "RELEASE", b"4\0")
    targets = {domid: world.server.domains[domid].target for domid in (1, 2, 3)}
    assert targets == {1: 2, 2: 5, 3: 5}
    ok(world, "s0", "RELEASE", b"5\0")
    targets = {domid: world.server.domains[domid].target for domid in (1, 2, 3)}
    assert targets == {1: 2, 2: -1, 3: -1}
    ok(world, "s0", "RELEASE", b"2\0")
    assert world.server.domains[1].target == -1


def test_a_new_node_takes_its_parents_permissions_whole(world: World) -> None:
    ok(world, "s0", "MKDIR", b"/p\0")
    ok(world, "s0", "SET_PERMS", b"/p\0n2\0b1\0r3\0")
    ok(world, "d1", "WRITE", b"/p/a/b\0v")
    for path in (b"/p/a", b"/p/a/b"):
        assert ok(world, "s0", "GET_PERMS", path + b"\0") == b"n2\0b1\0r3\0"
    assert world.server.tree.entries(2) == 4 and world.server.tree.entries(1) == 1


def test_implicit_parents_stay_where_the_request_fails(make_world: Make) -> None:
    world: World = make_world(quota_maxentity=4, quota_maxsize=4)
    assert error(world, "d1", "WRITE", b"a/b\x0012345") == "E2BIG"
    assert ok(world, "d1", "DIRECTORY", b"a\0") == b""
    assert error(world, "d1", "WRITE", b"c/d/e/f\0v") == "EQUOTA"
    assert ok(world, "d1", "DIRECTORY", b"c/d\0") == b""
    assert world.server.tree.entries(1) == 4
    recount(world)


def test_quota_off(make_world: Make) -> None:
    world: World = make_world(quota_activate=False, quota_maxentity=1, quota_maxsize=1)
    ok(world, "d1", "WRITE", b"a/b/c\0long value")
    assert world.ask("d1", "TRANSACTION_START", b"\0")[0] == TYPES["TRANSACTION_START"]
    assert world.ask("d1", "READ", b"none\0")[0] == ERROR


def test_counts_move_with_owners(world: World) -> None:
    ok(world, "s0", "WRITE", b"/c/a\0v")
    ok(world, "s0", "SET_PERMS", b"/c/a\0n1\0")
    assert world.server.tree.entries(1) == 2
    ok(world, "s0", "SET_PERMS", b"/c/a\0n2\0")
    assert (world.server.tree.entries(1), world.server.tree.entries(2)) == (1, 2)
    ok(world, "s0", "RM", b"/c\0")
    assert (world.server.tree.entries(1), world.server.tree.entries(2)) == (1, 1)
    recount(world)
    # The root does not count for its owner.
    ok(world, "s0", "SET_PERMS", b"/\0n2\0")
    assert world.server.tree.entries(2) == 1
    recount(world)


def test_many_owners(world: World) -> None:
    """The table of counts grows, stays quick to search, and shrinks again."""
    tree = world.server.tree
    smallest = tree.count_table()[0]
    for n in range(2000):
        ok(world, "s0", "WRITE", b"/o/%d\0" % n)
        ok(world, "s0", "SET_PERMS", b"/o/%d\0n%d\0" % (n, n * 7919 % 32749))
        slots, used, _ = tree.count_table()
        assert used == len(tree.all_entries()) <= slots // 2
    assert tree.count_table()[0] == 4096
    recount(world)
    assert [tree.entries(n * 7919 % 32749) for n in range(1, 2000)] == [1] * 1999
    for n in range(1, 2000, 3):
        ok(world, "s0", "RM", b"/o/%d\0" % n)
        assert tree.entries(n * 7919 % 32749) == 0
    recount(world)
    for n in range(2000):
        ok(world, "s0", "RM", b"/o/%d\0" % n)
        slots, used, _ = tree.count_table()
        assert slots == smallest or (used + 1) * 8 >= slots
    assert tree.count_table()[0] <= 2 * smallest
    recount(world)


@pytest.mark.parametrize("owners", [7, 8, 9, 15, 16, 17, 31, 32, 33])
def test_a_table_of_counts_that_fills_up(owners: int) -> None:
    """Half of the slots stay free, so that the search for an owner who is not there ends."""
    tree = Tree()
    for n in range(1, owners + 1):
        tree.load([b"%d" % n], b"n%d\0" % n, b"")
        slots, used, longest = tree.count_table()
        # The smallest table of 16 slots or twice that and so on.
        assert used == n and slots == max(16, 1 << (2 * used - 1).bit_length())
        assert 1 <= longest <= used
        assert all(tree.entries(100_000 + absent) == 0 for absent in range(100))
        tree.load([b"%d" % n, b"x"], b"n%d\0" % n, b"")  # one more of the same owner
        assert tree.count_table()[0] == slots


def colliding_owners(count: int) -> list[int]:
    """Owners that share one slot of a table whose hash is a product with the golden ratio,
    which anybody can compute."""
    golden = 0x9E3779B97F4A7C15
    found: list[int] = []
    owner = 0
    while len(found) < count:
        owner += 1
        if (owner * golden >> 33) & 0x7FF == 0:
            found.append(owner)
    return found


def test_owners_cannot_be_chosen_to_collide() -> None:
    tree = Tree()
    for owner in colliding_owners(512):
        tree.load([b"%d" % owner], b"n%d\0" % owner, b"")
    slots, used, longest = tree.count_table()
    assert (slots, used) == (1024, 512)
    assert longest < 60


#: {owner: nodes} of the store as it was when a transaction began, at its end, and now; the limits
#: {owner: nodes} apart from 10 for everybody else; whether the merged store has too many.
EXCESSES = [
    ({1: 5}, {1: 6}, {1: 9}, {}, False),
    ({1: 5}, {1: 6}, {1: 10}, {}, True),
    ({1: 5}, {1: 5}, {1: 99}, {}, False),
    ({1: 5}, {1: 4}, {1: 99}, {}, False),
    ({}, {1: 1}, {1: 9}, {}, False),
    ({}, {1: 1}, {1: 10}, {}, True),
    ({}, {1: 1}, {}, {1: 0}, True),
    ({}, {1: 10}, {}, {}, False),
    ({}, {1: 10}, {1: 1}, {}, True),
    ({}, {1: 11}, {}, {}, True),
    ({0: 5}, {0: 50}, {0: 5}, {}, False),
    ({-1: 5}, {-1: 50}, {-1: 5}, {}, False),
    ({1: 5}, {1: 6}, {1: 10}, {1: 11}, False),
    ({1: 5}, {1: 6}, {1: 3}, {1: 3}, True),
    ({1: 5, 2: 5}, {1: 5, 2: 6}, {1: 50, 2: 9}, {}, False),
    ({1: 5, 2: 5}, {1: 4, 2: 6}, {1: 50, 2: 10}, {2: 20}, False),
    ({1: 5, 2: 5}, {2: 6}, {1: 5, 2: 10}, {}, True),
    ({0: 5}, {0: 6}, {0: 50}, {}, False),  # domain 0 has no limit
]


def owned(counts: dict[int, int]) -> Tree:
    """A tree in which these domids own so many nodes."""
    tree = Tree()
    for owner, count in counts.items():
        for n in range(count):
            tree.load([b"%d.%d" % (owner, n)], b"n%d\0" % owner, b"")
    return tree


@pytest.mark.parametrize("base, now, current, limits, too_many", EXCESSES, ids=repr)
def test_whether_a_merge_gives_an_owner_too_many(
    base: dict[int, int],
    now: dict[int, int],
    current: dict[int, int],
    limits: dict[int, int],
    too_many: bool,
) -> None:
    assert owned(current).would_exceed(owned(base), owned(now), 10, limits) == too_many
    same = owned(base)
    assert not owned(current).would_exceed(same, same.copy(), 0, limits)


@pytest.mark.parametrize("is_last", [False, True])
def test_pages_of_24_names_together_become_one(world: World, is_last: bool) -> None:
    """Whichever of the two is the sparse one: of them and the one above, one is left."""
    for n in (*range(16), *range(17, 33), 16):
        ok(world, "s0", "MKDIR", b"/f/%02d\0" % n)
    for letter in b"ab":
        ok(world, "s0", "MKDIR", b"/f/%02d%c\0" % (0 if is_last else 32, letter))
    names = ok(world, "s0", "DIRECTORY", b"/f\0").split(b"\0")[:-1]
    before = live_counts()["pages"]
    while live_counts()["pages"] == before:
        ok(world, "s0", "RM", b"/f/" + names.pop(-1 if is_last else 0) + b"\0")
    assert (len(names), live_counts()["pages"]) == (24, before - 2)


def test_a_tree_without_a_server_frees_at_once() -> None:
    """Nobody would do it later."""
    tree = Tree()
    tree.load([b"a"], b"n0\0", b"v")
    before = live_counts()["nodes"]
    copy = tree.copy()
    tree.load([b"a"], b"n0\0", b"w")
    assert live_counts()["nodes"] > before
    del copy
    assert live_counts()["nodes"] == before


def test_a_request_frees_as_much_as_it_makes(world: World) -> None:
    """Of what was dropped before: the store does not grow meanwhile, and nobody pays for more."""
    for n in range(1500):
        ok(world, "s0", "MKDIR", b"/t/%d\0" % n)
    connection, transport = world.connection("s0")

    def there_are(request: str, payload: bytes) -> int:
        """Nodes and pages behind a request, and before the end of its turn."""
        transport.feed(packet(request, payload))
        world.server.service(connection)
        return live_counts()["nodes"] + live_counts()["pages"]

    left = there_are("RM", b"/t\0")
    assert there_are("READ", b"/tool\0") == left
    assert there_are("MKDIR", b"/a/b/c\0") == left
    world.turn()
    assert live_counts()["nodes"] < left - 500


# -- what a domain leaves -----------------------------------------------------


def test_release_removes_nodes_and_entries(world: World) -> None:
    for path, text in (
        (b"/k", b"n0\0r1\0w2\0"),
        (b"/k/theirs", b"n1\0"),
        (b"/k/theirs/zero", b"n0\0"),
        (b"/k/two", b"n2\0b1\0r1\0"),
        (b"/", b"n0\0r1\0"),
        (b"@releaseDomain", b"n0\0r1\0"),
    ):
        ok(world, "s0", "WRITE", path + b"\0")
        ok(world, "s0", "SET_PERMS", path + b"\0" + text)
    ok(world, "s1", "WATCH", b"/\0t\0")
    world.drain("s1")
    assert world.step("s0", "RELEASE", b"1\0")[1] == {}
    perms = {b"/" + b"/".join(names): found for names, found, _ in world.server.tree.walk()}
    assert perms[b"/k"] == [(0, 0), (2, 2)]
    assert perms[b"/k/two"] == [(2, 0)]
    assert perms[b"/"] == [(0, 0)] and perms[b"/@releaseDomain"] == [(0, 0)]
    assert b"/k/theirs" not in perms and b"/local/domain/1" not in perms
    assert all(domid != 1 for found in perms.values() for domid, _ in found)
    recount(world)


def test_release_of_the_owner_of_the_root(world: World) -> None:
    """ "/" stays, as nobody's; a new domain of that number has no right to it."""
    ok(world, "s0", "SET_PERMS", b"/\0n1\0r2\0")
    ok(world, "d1", "WRITE", b"/\0v")
    ok(world, "s0", "RELEASE", b"1\0")
    world.introduce(1)
    assert error(world, "d1", "READ", b"/\0") == "EACCES"
    assert ok(world, "d2", "READ", b"/\0") == b"v"
    assert ok(world, "s0", "DIRECTORY", b"/\0")
    recount(world)


def test_mentions_end_with_the_lists(make_world: Make) -> None:
    """So the store is not walked for a domain that nothing is left of."""
    world = make_world(domids=())
    tree = world.server.tree
    assert tree.mentions_of(7) == 0
    for path in (b"/a", b"/b", b"/b/c"):
        ok(world, "s0", "WRITE", path + b"\0v")
    ok(world, "s0", "SET_PERMS", b"/a\0n7\0r8\0w7\0")
    ok(world, "s0", "SET_PERMS", b"/b/c\0n8\0")
    for number in range(100, 200):
        ok(world, "s0", "SET_PERMS", b"/b\0n0\0r%d\0" % number)
        assert tree.mentions_of(number) == 1 and tree.mentions_of(number - 1) == 0
    assert (tree.mentions_of(7), tree.mentions_of(8)) == (2, 2)
    assert error(world, "s0", "SET_PERMS", b"/a\0n9\0r9\0x9\0") == "EINVAL"
    assert error(world, "s0", "SET_PERMS", b"/z\0n9\0") == "ENOENT"
    assert tree.mentions_of(9) == 0
    # Numbers that no domain can have are counted together.
    ok(world, "s0", "SET_PERMS", b"/b\0n0\0r32751\0r32752\0w99999\0r-1\0")
    assert tree.mentions_of(32751) == 1
    assert tree.mentions_of(32752) == tree.mentions_of(-1) == tree.mentions_of(77777) == 3
    ok(world, "s0", "SET_PERMS", b"/b\0n0\0")
    assert tree.mentions_of(32752) == tree.mentions_of(32751) == 0
    tx_id = begin(world, "s0")
    ok(world, "s0", "RM", b"/a\0")
    assert tree.mentions_of(7) == 2  # the transaction still sees it
    assert end(world, "s0", tx_id) == "OK"
    assert (tree.mentions_of(7), tree.mentions_of(8)) == (0, 1)
    assert error(world, "s0", "RELEASE", b"8\0") == "EINVAL"  # and cleans
    assert tree.mentions_of(8) == 0
    assert error(world, "s0", "READ", b"/b/c\0") == "ENOENT"
    recount(world)


def domain_world(make_world: Make, parts: int) -> Any:
    """A chain of nodes that mention domains 5 and 6 in turn, and one of other things beside it."""
    world: World = make_world(domids=(), quota_path_max=4000)
    for n in range(1, parts + 1):
        world.server.tree.load([b"a"] * n, b"n0\0r%d\0r9\0" % (5 + n % 2), b"v")
    for n in range(200):
        world.server.tree.load([b"n%03d" % n], b"n%d\0r6\0" % (5 if n % 10 == 3 else 0), b"v")
        world.server.tree.load([b"n%03d" % n, b"below"], b"n9\0r5\0r6\0w8\0", b"v")
    return world


@pytest.mark.parametrize("gone", [{5}, {6}, {5, 6}, {5, 6, 7, 8, 99999, 32757}], ids=repr)
@pytest.mark.parametrize("others", [False, True])
def test_dead_domains_are_forgotten(make_world: Make, gone: set[int], others: bool) -> None:
    """With lists that name a number which no domain can have, and without."""
    world = domain_world(make_world, 30)
    tree = world.server.tree
    if others:
        tree.load([b"n100"], b"n0\0r99999\0r6\0w99998\0", b"")
    snapshot = tree.copy()
    before = shape(tree)
    want: list[Any] = []
    dead: tuple[bytes, ...] = (b"?",)
    for names, perms, value in before:
        if names[: len(dead)] == dead or (names and perms[0][0] in gone):
            dead = names if names[: len(dead)] != dead else dead
            continue
        want.append((names, [entry for entry in perms if entry[0] not in gone], value))
    work = Forgetting(tree, gone)
    work.clean()
    assert shape(tree) == want and shape(snapshot) == before
    assert work.steps <= len(before)
    del work, snapshot
    world.turn()
    assert all(tree.mentions_of(domid) == 0 for domid in gone if domid < 100)
    recount(world)


def test_a_deep_chain_is_cleaned_in_one_pass(make_world: Make) -> None:
    """Of a number for which every list is looked at."""
    world = domain_world(make_world, 2)
    tree = world.server.tree
    for n in range(1, 1501):
        tree.load([b"a"] * n, b"n0\0r%d\0r9\0" % (40005 + n % 2), b"v")
    nodes = live_counts()["nodes"]
    before = tree.steps
    work = Forgetting(tree, {40005, 40006, 5})
    work.clean()
    assert tree.steps - before == 0  # no path is followed from the root
    assert work.steps == nodes - 20  # but those below what 5 owned
    world.turn()
    assert live_counts()["nodes"] < nodes
    assert {tuple(perms) for names, perms, _ in tree.walk() if names[:1] == (b"a",)} == {
        ((0, 0), (9, 1))
    }
    # The nodes that shared a list share the new one.
    assert tree.mentions_of(9) <= 200 + 1500
    recount(world)


def test_what_goes_with_a_node_is_not_looked_at(world: World) -> None:
    """Of a thousand nodes below one of a dead domain."""
    for n in range(1000):
        ok(world, "s0", "MKDIR", b"/a/%d\0" % n)
    ok(world, "s0", "SET_PERMS", b"/a\0n5\0")
    work = Forgetting(world.server.tree, {5})
    work.clean()
    assert 0 < work.steps < 100
    assert error(world, "s0", "READ", b"/a\0") == "ENOENT"
    recount(world)


def test_who_is_mentioned_nowhere_costs_nothing(world: World) -> None:
    tree = world.server.tree
    work = Forgetting(tree, {77, 88, 99999, 32757})
    work.clean()
    assert work.steps == 0
    with pytest.raises(ValueError, match="8 numbers"):
        ok(world, "s0", "SET_PERMS", b"/tool\0n0\0r40000\0")
        Forgetting(tree, range(40000, 40010))
