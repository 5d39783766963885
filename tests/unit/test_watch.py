# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches: what matches, who may see it, special watches, and many of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.events.probe import Probe
from pyxsd.events.trie import live_counts
from pyxsd.state import image
from pyxsd.store.tree import Tree
from pyxsd.system.configuration import Config
from tests.unit.kit import begin, end, error, events, ok, watch
from tests.world import Host, World, packet

Make = Callable[..., Any]


class Match(NamedTuple):
    """A watch, a change, and the path of its event (None: no event)."""

    path: bytes
    depth: bytes
    type: str
    payload: bytes
    event: bytes | None


# The store: /a/b/c.  Watches are d1's, whose home is /local/domain/1; all is readable.
MATCHES = [
    Match(b"/a", b"", "WRITE", b"/a\0v", b"/a"),
    Match(b"/a", b"", "WRITE", b"/a/b/c\0v", b"/a/b/c"),
    Match(b"/a", b"", "WRITE", b"/a/n/m\0v", b"/a/n/m"),
    Match(b"/a", b"", "WRITE", b"/ab\0v", None),
    Match(b"/a/b", b"", "WRITE", b"/a\0v", None),
    Match(b"/", b"", "WRITE", b"/a/b/c\0v", b"/a/b/c"),
    Match(b"/", b"0\0", "WRITE", b"/a\0v", None),
    Match(b"/", b"1\0", "WRITE", b"/a\0v", b"/a"),
    Match(b"/", b"1\0", "WRITE", b"/a/b\0v", None),
    Match(b"/a", b"0\0", "WRITE", b"/a\0v", b"/a"),
    Match(b"/a", b"0\0", "WRITE", b"/a/b\0v", None),
    Match(b"/a", b"1\0", "WRITE", b"/a/b\0v", b"/a/b"),
    Match(b"/a", b"1\0", "WRITE", b"/a/b/c\0v", None),
    Match(b"/a", b"00001\0", "WRITE", b"/a/b\0v", b"/a/b"),
    Match(b"/a", b"4294967296\0", "WRITE", b"/a/b/c\0v", b"/a/b/c"),
    Match(b"/a", b"", "MKDIR", b"/a/n\0", b"/a/n"),
    Match(b"/a", b"", "MKDIR", b"/a/b\0", None),
    Match(b"/a", b"", "SET_PERMS", b"/a/b\0r0\0", b"/a/b"),
    Match(b"/a", b"", "RM", b"/a/b\0", b"/a/b"),
    Match(b"/a", b"", "RM", b"/a/none\0", None),
    Match(b"/a/b/c", b"", "RM", b"/a\0", b"/a/b/c"),
    Match(b"/a/b/c", b"0\0", "RM", b"/a\0", b"/a/b/c"),
    Match(b"/a/b/none", b"", "RM", b"/a\0", b"/a/b/none"),
    Match(b"/a/b/none/none", b"", "RM", b"/a\0", None),
    Match(b"/a/b", b"", "WRITE", b"/a\0v", None),
    Match(b"/a/b", b"", "SET_PERMS", b"/a\0r0\0", None),
    Match(b"x", b"", "WRITE", b"/local/domain/1/x/y\0v", b"x/y"),
    Match(b"x", b"0\0", "WRITE", b"/local/domain/1/x/y\0v", None),
    Match(b"/local/domain/1/x", b"", "WRITE", b"/local/domain/1/x/y\0v", b"/local/domain/1/x/y"),
    Match(b"x/y", b"", "RM", b"/local/domain/1\0", b"x/y"),
    Match(b"x", b"", "WRITE", b"/x\0v", None),
    Match(b"/", b"", "WRITE", b"/\0v", None),
    Match(b"/", b"", "SET_PERMS", b"/\0r0\0", None),
    Match(b"/", b"", "RM", b"/\0", None),
    Match(b"/", b"", "MKDIR", b"/\0", None),
    Match(b"/a", b"", "RM", b"/\0", b"/a"),
    Match(b"/@introduceDomain", b"", "WRITE", b"@introduceDomain\0v", b"/@introduceDomain"),
    Match(b"/", b"", "WRITE", b"@introduceDomain\0v", b"/@introduceDomain"),
    Match(b"@introduceDomain", b"", "WRITE", b"@introduceDomain\0v", None),
    Match(b"@introduceDomain", b"", "RM", b"/\0", None),
]


@pytest.mark.parametrize("inside", [False, True], ids=["plain", "transaction"])
@pytest.mark.parametrize("case", MATCHES, ids=repr)
def test_match(make_world: Make, case: Match, inside: bool) -> None:
    world: World = make_world(domids=(1,))
    for path in (
        b"/",
        b"/a",
        b"/a/b",
        b"/a/b/c",
        b"/local/domain/1",
        b"/local/domain/1/x",
        b"@introduceDomain",
    ):
        ok(world, "s0", "WRITE", path + b"\0")
        ok(world, "s0", "SET_PERMS", path + b"\0r0\0")
    watch(world, "d1", case.path, b"tok", case.depth)
    tx_id = begin(world, "s0") if inside else 0
    ok(world, "s0", case.type, case.payload, tx_id)
    if inside:
        assert events(world, "d1") == []
        assert end(world, "s0", tx_id) == "OK"
    assert events(world, "d1") == ([] if case.event is None else [(case.event, b"tok")])


class Sight(NamedTuple):
    """Who sees a change: permissions of /p and /p/k (None: not there), what is done
    to /p/k, and whether domain 1 is told."""

    parent: bytes
    node: bytes | None
    type: str
    payload: bytes
    told: bool


SIGHTS = [
    Sight(b"n0", b"r0", "WRITE", b"v", True),
    Sight(b"r0", b"n0", "WRITE", b"v", True),
    Sight(b"n0", b"n0", "WRITE", b"v", False),
    Sight(b"w0", b"w0", "WRITE", b"v", False),
    Sight(b"n0", b"n0\0r1", "WRITE", b"v", True),
    Sight(b"n0", b"n0\0w1", "WRITE", b"v", False),
    Sight(b"n0", b"n1", "WRITE", b"v", True),
    Sight(b"n0", None, "WRITE", b"v", False),
    Sight(b"r0", None, "WRITE", b"v", True),
    Sight(b"n0", b"r0", "RM", b"", True),
    Sight(b"r0", b"n0", "RM", b"", True),
    Sight(b"n0", b"n0", "RM", b"", False),
    Sight(b"n0", b"n0", "SET_PERMS", b"r0\0", True),
    Sight(b"n0", b"r0", "SET_PERMS", b"n0\0", True),
    Sight(b"n0", b"n0", "SET_PERMS", b"n0\0r2\0", False),
    Sight(b"n0", b"n0", "SET_PERMS", b"n0\0r1\0", True),
]


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("case", SIGHTS, ids=repr)
def test_who_may_see_an_event(make_world: Make, case: Sight, checks: bool) -> None:
    world: World = make_world(domids=(1,), perms_watch_activate=checks)
    ok(world, "s0", "MKDIR", b"/p\0")
    ok(world, "s0", "SET_PERMS", b"/p\0" + case.parent + b"\0")
    if case.node:
        ok(world, "s0", "MKDIR", b"/p/k\0")
        ok(world, "s0", "SET_PERMS", b"/p/k\0" + case.node + b"\0")
    watch(world, "d1", b"/p")
    ok(world, "s0", case.type, b"/p/k\0" + case.payload)
    told = case.told or not checks
    assert events(world, "d1") == ([(b"/p/k", b"t")] if told else [])
    assert world.server.refused == (0 if told else 1)


def test_without_watch_checks_root_changes_are_told(make_world: Make) -> None:
    world: World = make_world(perms_watch_activate=False)
    watch(world, "d1", b"/")
    ok(world, "s0", "WRITE", b"/\0v")
    assert events(world, "d1") == [(b"/", b"t")]


def test_several_watches_are_each_told(make_world: Make) -> None:
    world: World = make_world()
    for path, token in ((b"/", b"1"), (b"/a", b"2"), (b"/a", b"3"), (b"/a/b", b"4")):
        watch(world, "s0", path, token)
    ok(world, "s1", "WRITE", b"/a/b\0v")
    assert sorted(events(world, "s0")) == [(b"/a/b", b"%d" % n) for n in (1, 2, 3, 4)]


def test_unwatch_ends_only_that_watch(make_world: Make) -> None:
    world: World = make_world()
    for token in (b"1", b"2"):
        watch(world, "s0", b"/a", token)
        watch(world, "s1", b"/a", token)
    ok(world, "s0", "UNWATCH", b"/a\x001\0")
    assert error(world, "s0", "UNWATCH", b"/a\x001\0") == "ENOENT"
    ok(world, "s2", "WRITE", b"/a\0v")
    assert events(world, "s0") == [(b"/a", b"2")]
    assert sorted(events(world, "s1")) == [(b"/a", b"1"), (b"/a", b"2")]


def test_watch_is_told_at_once_when_the_node_is_not_there(make_world: Make) -> None:
    world: World = make_world()
    assert world.step("d1", "WATCH", b"/none/of/this\0t\0")[1] == {"d1": [b"/none/of/this\0t\0"]}


# -- special watches ----------------------------------------------------------

SPECIAL_WATCHES = [
    (b"@introduceDomain", b"i", b""),
    (b"@releaseDomain", b"r", b""),
    (b"@introduceDomain", b"i1", b"1\0"),
    (b"@releaseDomain", b"r1", b"1\0"),
    (b"@releaseDomain/5", b"r5", b""),
    (b"@releaseDomain/6", b"r6", b""),
]


def test_special_events(make_world: Make) -> None:
    world: World = make_world()
    for path, token, depth in SPECIAL_WATCHES:
        watch(world, "s0", path, token, depth)
    ok(world, "s1", "INTRODUCE", b"5\x004660\x007\0")
    assert sorted(events(world, "s0")) == [
        (b"@introduceDomain", b"i"),
        (b"@introduceDomain/5", b"i1"),
    ]
    ok(world, "s1", "INTRODUCE", b"5\x004660\x007\0")
    assert events(world, "s0") == []
    ok(world, "s1", "RELEASE", b"5\0")
    assert sorted(events(world, "s0")) == [
        (b"@releaseDomain", b"r"),
        (b"@releaseDomain/5", b"r1"),
        (b"@releaseDomain/5", b"r5"),
    ]


def test_several_at_once_fire_the_generic_event_once(make_world: Make) -> None:
    world: World = make_world()
    for path, token, depth in SPECIAL_WATCHES:
        watch(world, "s0", path, token, depth)
    world.server.fire_special(b"@releaseDomain", [5, 6, 7])
    world.turn()
    assert sorted(events(world, "s0")) == [
        (b"@releaseDomain", b"r"),
        (b"@releaseDomain/5", b"r1"),
        (b"@releaseDomain/5", b"r5"),
        (b"@releaseDomain/6", b"r1"),
        (b"@releaseDomain/6", b"r6"),
        (b"@releaseDomain/7", b"r1"),
    ]


SPECIAL_SIGHTS = [
    # permissions of: "/", "@releaseDomain", "@releaseDomain/5" (made only where given);
    # tokens that domain 1 is told.
    (b"n0", b"n0", None, []),
    (b"n0", b"r0", None, [b"r"]),
    (b"n0", b"n0\0r1", None, [b"r"]),
    (b"n0", b"n0\0r2", None, []),
    (b"r0", b"n0", None, [b"r", b"r1", b"r5"]),
    (b"n0", b"n0", b"r0", [b"r1", b"r5"]),
    (b"n0", b"r0", b"n0", [b"r"]),
]


@pytest.mark.parametrize("root, node, each, told", SPECIAL_SIGHTS)
def test_who_may_see_special_events(
    make_world: Make, root: bytes, node: bytes, each: bytes | None, told: list[bytes]
) -> None:
    world: World = make_world()
    for path, token, depth in SPECIAL_WATCHES:
        watch(world, "d1", path, token, depth)
    if each:
        ok(world, "s0", "WRITE", b"@releaseDomain/5\0")
        ok(world, "s0", "SET_PERMS", b"@releaseDomain/5\0" + each + b"\0")
    ok(world, "s0", "SET_PERMS", b"@releaseDomain\0" + node + b"\0")
    ok(world, "s0", "SET_PERMS", b"/\0" + root + b"\0")
    world.server.fire_special(b"@releaseDomain", [5])
    world.turn()
    assert sorted(token for _, token in events(world, "d1")) == told


# -- order --------------------------------------------------------------------

#: Paths in the order in which the events of a removal above them leave.
ORDERED = [
    b"/a",
    b"/a/B",
    b"/a/b",
    b"/a/b/c",
    b"/a/b/c/d",
    b"/a/b-c",
    b"/a/d",
    b"/e",
    b"/e-",
    b"/e0",
    b"/e0/x/y/z",
    b"/e_",
    b"/ee",
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("inside", [False, True], ids=["plain", "transaction"])
def test_a_removal_is_told_in_order(make_world: Make, inside: bool, seed: int) -> None:
    """Paths ascend byte by byte at each level, and one comes before what is below it,
    whatever the order in which the watches were set."""
    world: World = make_world()
    shuffled = [b"/r" + path for path in ORDERED]
    random.Random(seed).shuffle(shuffled)
    for path in shuffled:
        ok(world, "s1", "WRITE", path + b"\0")
        watch(world, "s0", path)
    tx_id = begin(world, "s1") if inside else 0
    ok(world, "s1", "RM", b"/r\0", tx_id)
    if inside:
        assert end(world, "s1", tx_id) == "OK"
    assert events(world, "s0") == [(b"/r" + path, b"t") for path in ORDERED]


def test_on_one_path_the_newest_watch_comes_first(make_world: Make) -> None:
    world: World = make_world()
    ok(world, "s1", "WRITE", b"/a/b\0")
    for token in (b"1", b"2", b"3"):
        watch(world, "s0", b"/a", token)
        watch(world, "s0", b"/a/b", token)
    ok(world, "s1", "RM", b"/a\0")
    assert events(world, "s0") == [
        (path, token) for path in (b"/a", b"/a/b") for token in (b"3", b"2", b"1")
    ]


# -- how watches are stored ---------------------------------------------------


def chain(parts: int, name: bytes = b"a") -> bytes:
    return (b"/" + name) * parts


def test_nodes_are_as_many_as_paths_and_not_as_components() -> None:
    """Twice as many at most, of whatever shape the paths are."""
    probe = Probe()
    assert (probe.add(b"/"), probe.nodes) == (True, 0)
    assert (probe.add(b"/a/b/c/d"), probe.nodes) == (True, 1)
    assert (probe.add(b"/a/b/c/d"), probe.nodes) == (False, 1)
    assert (probe.add(b"/a/b"), probe.nodes) == (True, 2)
    assert (probe.add(b"/a/b/x/y"), probe.nodes) == (True, 3)
    assert (probe.add(b"/a/b/c/e"), probe.nodes) == (True, 5)
    assert (probe.add(b"/a/bc"), probe.nodes) == (True, 7)
    assert (probe.add(b"@a/b/c"), probe.nodes) == (True, 8)
    assert (probe.remove(b"/a/b"), probe.nodes) == (True, 8)
    assert (probe.remove(b"/a/b"), probe.nodes) == (False, 8)
    assert (probe.remove(b"/a/b/c/d"), probe.nodes) == (True, 6)
    assert (probe.remove(b"/a/b/x/y"), probe.nodes) == (True, 4)
    assert (probe.remove(b"/a/b/c/e"), probe.nodes) == (True, 2)
    assert probe.remove(b"/a/bc") and probe.remove(b"@a/b/c") and probe.remove(b"/")
    assert (probe.nodes, probe.count) == (0, 0)


def test_a_path_that_ends_within_a_name_matches_nothing() -> None:
    """Within a label of several names too: /x/a is not above /x/ab/c."""
    probe = Probe()
    assert probe.add(b"/x/ab/c")
    for path in (b"/x/a", b"/x/abc", b"/x/ab/c-", b"/x/ab/d"):
        assert not probe.match(path, True) and not probe.touched(path)
    for path in (b"/", b"/x", b"/x/ab", b"/x/ab/c"):
        assert len(probe.match(path, True)) == 1 and probe.touched(path)
    assert probe.add(b"/x/a") and probe.nodes == 3
    assert sorted(probe.paths()) == [b"/x/a", b"/x/ab/c"]


@pytest.mark.parametrize("parts", [10, 2000])
def test_deep_watches_cost_no_more_than_flat_ones(parts: int) -> None:
    probe = Probe()
    for n in range(101):
        assert probe.add(b"/r/w%d" % n + chain(parts))
    assert probe.nodes == 102
    for path, below, told, steps in (
        (b"/r", False, 0, 2),
        (b"/r", True, 101, 103),
        (b"/", True, 101, 103),
        (b"/r/w7", True, 1, 3),
        (b"/r/w7/a", False, 0, 2),
        (b"/r/w8/a/a", True, 1, 3),
    ):
        before = probe.steps
        assert len(probe.match(path, below)) == told
        assert probe.steps - before <= steps
    before = probe.steps
    assert len(probe.below(b"/r", Tree())) == 101
    assert probe.steps - before <= 103


def test_the_watch_trie_of_a_server_stays_small(make_world: Make) -> None:
    world: World = make_world()
    before = live_counts()["trie nodes"]
    for n in range(101):
        ok(world, "s0", "WATCH", b"/r/w%d" % n + chain(2000) + b"\0t\0")
    assert live_counts()["trie nodes"] - before == 102


def test_hash_tables_shrink() -> None:
    probe = Probe()
    smallest = probe.slots
    for n in range(5000):
        assert probe.add(b"/w/%d" % n)
    assert all(slots >= 5000 for slots in probe.slots)
    for n in range(5000):
        assert probe.remove(b"/w/%d" % n)
        assert all(slots <= max(64, 16 * (5000 - n)) for slots in probe.slots)
    assert probe.slots == smallest


def test_hash_tables_move_a_little_at_a_time() -> None:
    """No watch that comes or goes moves more than 64 slots, and all are found meanwhile."""
    probe = Probe()
    names = [b"/w/%d" % n for n in range(3000)]
    seen = [0, 0]

    def step(change: Callable[[bytes], bool], name: bytes) -> None:
        before = probe.slots, probe.moving
        assert change(name)
        for table in range(2):
            if probe.slots[table] == before[0][table]:
                assert before[1][table] - probe.moving[table] <= 64
            else:
                # All slots of the smaller or larger one are still to be moved.
                assert before[1][table] == 0 and probe.moving[table] == before[0][table]
            seen[table] += probe.moving[table] > 0

    for n, name in enumerate(names):
        step(probe.add, name)
        assert not probe.add(names[n // 2])
    for n, name in enumerate(names):
        step(probe.remove, name)
        assert n + 1 == len(names) or not probe.add(names[-1])
    assert min(seen) > 300
    assert probe.moving == (0, 0)


NAMES = [b"a", b"b", b"a-", b"ab", b"@a", b"0", b"Z"]


@pytest.mark.parametrize(
    "names, depth", [(NAMES, 3), ([b"a", b"ab"], 9), ([b"n%d" % n for n in range(300)], 2)]
)
@pytest.mark.parametrize("seed", range(3))
def test_matching_is_that_of_a_plain_list(seed: int, names: list[bytes], depth: int) -> None:
    """Random watches and removals of watches: every match is what a list of paths says."""
    pick = random.Random(seed)
    probe = Probe()
    tree = Tree()
    there: set[tuple[bytes, ...]] = {()}
    watched: dict[tuple[bytes, ...], list[bytes]] = {}

    def some_path() -> tuple[bytes, ...]:
        return tuple(pick.choice(names) for _ in range(pick.randrange(depth + 1)))

    for _ in range(200):
        path = some_path()
        for n in range(1, len(path) + 1):
            if path[:n] not in there:
                tree.load(list(path[:n]), b"n0\0", b"")
                there.add(path[:n])
    for round_ in range(600):
        path, token = some_path(), pick.choice([b"1", b"2", b"3"])
        text = b"/" + b"/".join(path)
        tokens = watched.setdefault(path, [])
        if pick.random() < (0.7 if round_ < 400 else 0.3):
            assert probe.add(text, token) == (token not in tokens)
            if token not in tokens:
                tokens.insert(0, token)
        else:
            assert probe.remove(text, token) == (token in tokens)
            if token in tokens:
                tokens.remove(token)
        paths = sorted(path for path in watched if watched[path])
        assert probe.nodes <= 2 * len(paths)
        if round_ % 5:
            continue
        changed = some_path()
        event = b"/" + b"/".join(changed)
        above = [(p, False) for p in paths if changed[: len(p)] == p]
        below = [(p, True) for p in paths if p[: len(changed)] == changed and p != changed]
        for with_below in (False, True):
            want = [
                (b"/" + b"/".join(p), token, b"/" + b"/".join(p) if own else event, own)
                for p, own in above + (below if with_below else [])
                for token in watched[p]
            ]
            assert probe.match(event, with_below) == want
            # The same where the search is parked every few steps.
            assert probe.match(event, with_below, pick.randint(1, 5)) == want
        assert probe.below(event, tree) == [
            (
                b"/" + b"/".join(p),
                token,
                (b"", *p)[-2] if p[:-1] in there else None,
                p[-1] if p in there else None,
            )
            for p, _ in below
            for token in watched[p]
        ]
        assert probe.touched(event) == bool(above or below)
        assert sorted(probe.paths()) == sorted(
            b"/" + b"/".join(p) for p in paths for _ in watched[p]
        )
    for path, tokens in watched.items():
        for token in tokens:
            assert probe.remove(b"/" + b"/".join(path), token)
    assert (probe.nodes, probe.count) == (0, 0)


# -- limits -------------------------------------------------------------------


def test_one_more_than_the_quota_is_accepted(make_world: Make) -> None:
    world: World = make_world(quota_maxwatch=3)
    for n in range(4):
        watch(world, "d1", b"/w%d" % n)
    assert error(world, "d1", "WATCH", b"/w9\0t\0") == "EQUOTA"
    ok(world, "d1", "UNWATCH", b"/w0\0t\0")
    watch(world, "d1", b"/w9")
    for n in range(20):
        watch(world, "s0", b"/w%d" % n)


def test_long_watches_of_a_guest_are_fewer(make_world: Make) -> None:
    """A path counts twice, since it stands in two places: 512 KiB of both and of tokens.  What
    goes, in whatever way, gives its room back; an image need not say it."""
    world: World = make_world()

    def fill() -> None:
        for n in range(65):
            watch(world, "d1", b"%02d" % n + b"p" * 4000, b"t" * 60)
        assert error(world, "d1", "WATCH", b"w\0t\0") == "EQUOTA"

    fill()
    ok(world, "d1", "UNWATCH", b"00" + b"p" * 4000 + b"\0" + b"t" * 60 + b"\0")
    watch(world, "d1", b"w")
    ok(world, "d1", "RESET_WATCHES", b"\0")
    fill()
    server = Server(Config(), Host())
    image.load(image.read(image.save(world.server)), server, None, lambda *_: MemoryTransport())
    world.server, other = server, world.server
    world.host.server = server
    for domid, connection in server.domains.items():
        world.host.transports[domid] = connection.transport
    assert error(world, "d1", "WATCH", b"w\0t\0") == "EQUOTA"
    other.close()
    for n in range(200):
        watch(world, "s9", b"%03d" % n + b"p" * 4000, b"t" * 60)


@pytest.mark.parametrize(
    "config", [{"quota_maxwatch": 0}, {"quota_maxwatch": 2, "quota_activate": False}]
)
def test_no_watch_quota(make_world: Make, config: dict[str, Any]) -> None:
    world: World = make_world(**config)
    for n in range(20):
        watch(world, "d1", b"/w%d" % n)


def test_a_hundred_thousand_watches(make_world: Make) -> None:
    """On their own paths, on one path, and none is told of what it does not match."""
    world: World = make_world(quota_maxwatchevents=1 << 20)
    for first in range(0, 100_000, 1000):
        world.connection("s0")[1].feed(
            b"".join(
                packet("WATCH", b"/w/%d/%d\0t\0" % (n % 300, n) if n % 2 else b"/same\0%d\0" % n)
                for n in range(first, first + 1000)
            )
        )
        world.turn("s0")
        world.turn("s0")
        world.connection("s0")[1].take()
    assert world.server.watch_total == world.connection("s0")[0].watch_count == 100_000
    ok(world, "s1", "WRITE", b"/w/7/10507/deep\0v")
    assert events(world, "s0") == [(b"/w/7/10507/deep", b"t")]
    ok(world, "s1", "WRITE", b"/same\0v")
    got = events(world, "s0")
    assert len(got) == 50_000 and {path for path, _ in got} == {b"/same"}
    ok(world, "s1", "RM", b"/w\0")
    # Only those whose node or parent was there: /w/7/10507 and what stood beside it under /w/7.
    got = events(world, "s0")
    assert {path for path, _ in got} == {
        b"/w/7/%d" % n for n in range(1, 100_000, 2) if n % 300 == 7
    }
    world.server.disconnect(world.connection("s0")[0])
    assert world.server.watch_total == 0
    del world.sockets["s0"]


def test_a_path_that_is_gone_at_the_end_of_its_transaction(world: World) -> None:
    """Nobody is told that it was written, not even domain 0: there is no node that says who may
    see it.  Outside of a transaction a written path is there, and all rights are enough."""
    watch(world, "s0", b"/a")
    tx_id = begin(world, "s1")
    ok(world, "s1", "WRITE", b"/a/b\0v", tx_id)
    ok(world, "s1", "RM", b"/a\0", tx_id)
    assert end(world, "s1", tx_id) == "OK"
    assert events(world, "s0") == [(b"/a", b"t")] and world.server.refused == 1
    ok(world, "s1", "WRITE", b"/a/b\0v")
    assert events(world, "s0") == [(b"/a/b", b"t")] and world.server.refused == 1


def test_a_watch_that_goes_while_a_search_stands_at_it(make_world: Make) -> None:
    """It is freed when the search goes on, and not found by the next one."""
    world: World = make_world(domids=())
    for n in range(300):
        ok(world, "s1", "WATCH", b"/top/%03d\0t\0" % n)
        ok(world, "s0", "WRITE", b"/top/%03d\0" % n)
    before = live_counts()["watches"]
    world.drain("s1")
    world.server.agenda.slice_ns = 0
    world.connection("s0")[1].feed(packet("RM", b"/top\0"))
    world.server.begin(world.now, world.now)
    world.server.service(world.connection("s0")[0])
    for n in range(50, 250):
        world.connection("s1")[1].feed(packet("UNWATCH", b"/top/%03d\0t\0" % n))
        world.server.service(world.connection("s1")[0])
    assert live_counts()["watches"] == before - 199, "one is held"
    world.server.agenda.slice_ns = 10**12
    world.turn("s0", "s1")
    assert live_counts()["watches"] == before - 200
    world.drain("s0")
    world.drain("s1")
    for n in range(300):
        ok(world, "s0", "WRITE", b"/top/%03d\0" % n)
    assert len(events(world, "s1")) == 100
