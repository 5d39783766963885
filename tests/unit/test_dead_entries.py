# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entries of domains that are gone stay in their lists, and nobody sees that.

What is seen is said by whoever cleans all lists at once, the model of tests/property; here are
the orders of events in which that could be told apart, each also with a server made of the
image behind each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pyxsd.state import node_writing
from pyxsd.store.forget import Forgetting
from pyxsd.store.tree import Tree, live_counts
from tests.state.test_image import again
from tests.unit.kit import begin, end, error, events, ok, recount, watch
from tests.world import World, packet

Make = Callable[..., World]
Look = Callable[["Stage"], object]


class Stage:
    """A world with a node /k, of domain 2, and transactions by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open: dict[str, int] = {}

    def perms(self, path: bytes = b"/k", txn: str = "") -> str:
        """What dom0 is told of a node, as "n2 r5"."""
        body = ok(self.world, "s0", "GET_PERMS", path + b"\0", self.open.get(txn, 0))
        return body[:-1].replace(b"\0", b" ").decode()

    def set(self, text: str, who: str = "s0", path: bytes = b"/k", txn: str = "") -> None:
        body = b"".join(entry.encode() + b"\0" for entry in text.split())
        ok(self.world, who, "SET_PERMS", path + b"\0" + body, self.open.get(txn, 0))

    def dies(self, *domids: int) -> None:
        """Domains go, some of which may not have been known."""
        for domid in domids:
            if domid in self.world.server.domains:
                ok(self.world, "s0", "RELEASE", b"%d\0" % domid)
            else:
                assert error(self.world, "s0", "RELEASE", b"%d\0" % domid) == "EINVAL"

    def die_at_once(self, *domids: int) -> None:
        self.world.server.forget_domains(domids)

    def comes(self, domid: int) -> None:
        self.world.introduce(domid)

    def write(self, path: bytes, who: str = "s0", txn: str = "") -> None:
        ok(self.world, who, "WRITE", path + b"\0v", self.open.get(txn, 0))

    def begin(self, txn: str) -> None:
        self.open[txn] = begin(self.world, "s0")

    def end(self, txn: str) -> str:
        return end(self.world, "s0", self.open.pop(txn))

    def may(self, who: str, path: bytes = b"/k") -> str:
        """May a guest read and write?"""
        read = self.world.ask(who, "READ", path + b"\0")[1]
        wrote = self.world.ask(who, "WRITE", path + b"\0v")[1]
        return ("r" if read == b"v" else "-") + ("w" if wrote == b"OK\0" else "-")


def listed(tree: Any, *names: bytes) -> Any:
    """The permissions of a node; None where there is none."""
    found = tree.get([*names])
    return found and found[0]


class Order(NamedTuple):
    """What happens, and what is seen at the end of it."""

    name: str
    steps: list[Callable[[Stage], object]]
    seen: list[tuple[Look, object]]


def perms(path: bytes = b"/k", txn: str = "") -> Look:
    return lambda stage: stage.perms(path, txn)


def may(who: str, path: bytes = b"/k") -> Look:
    return lambda stage: stage.may(who, path)


#: The node /k of domain 2 has the list n2 r5 w6 in the beginning; 5 and 6 are introduced.
ORDERS = [
    Order("one dies", [lambda s: s.dies(5)], [(perms(), "n2 w6"), (may("d6"), "-w")]),
    Order("both die", [lambda s: s.dies(5, 6)], [(perms(), "n2")]),
    Order("both at once", [lambda s: s.die_at_once(5, 6, 7)], [(perms(), "n2")]),
    Order("everybody stays", [lambda s: s.set("n2 b32757"), lambda s: s.dies(32757)],
          [(perms(), "n2 b32757"), (may("d6"), "rw")]),
    Order("the domid comes again", [lambda s: s.dies(5), lambda s: s.comes(5)],
          [(perms(), "n2 w6"), (may("d5"), "--")]),
    Order("and is named before it comes",
          [lambda s: s.dies(5), lambda s: s.set("n2 b5", "d2"), lambda s: s.comes(5)],
          [(perms(), "n2 b5"), (may("d5"), "rw")]),
    Order("and is named when it is there",
          [lambda s: s.dies(5), lambda s: s.comes(5), lambda s: s.set("n2 w6 r5", "d2")],
          [(perms(), "n2 w6 r5"), (may("d5"), "r-")]),
    Order("and dies again, named",
          [lambda s: s.dies(5), lambda s: s.set("n2 r5 w6"), lambda s: s.dies(5)],
          [(perms(), "n2 w6")]),
    Order("and dies again, not named", [lambda s: s.dies(5), lambda s: s.dies(5)],
          [(perms(), "n2 w6")]),
    Order("one after the other", [lambda s: s.dies(6), lambda s: s.dies(5)], [(perms(), "n2")]),
    Order("a child has the list",
          [lambda s: s.dies(5), lambda s: s.write(b"/k/x/y", "d2"), lambda s: s.comes(5)],
          [(perms(b"/k/x/y"), "n2 w6"), (may("d5", b"/k/x/y"), "--")]),
    Order("a child had it before",
          [lambda s: s.write(b"/k/x", "d2"), lambda s: s.dies(5), lambda s: s.dies(6)],
          [(perms(b"/k/x"), "n2")]),
    Order("its owner dies", [lambda s: s.dies(2)],
          [(lambda s: s.world.server.tree.get([b"k"]), None)]),
    Order("a transaction of before sees it",
          [lambda s: s.begin("t"), lambda s: s.dies(5)],
          [(perms(), "n2 w6"), (perms(txn="t"), "n2 r5 w6")]),
    Order("and of between two deaths",
          [lambda s: s.begin("t"), lambda s: s.dies(5), lambda s: s.begin("u"),
           lambda s: s.dies(6)],
          [(perms(), "n2"), (perms(txn="u"), "n2 w6"), (perms(txn="t"), "n2 r5 w6")]),
    Order("and of between two deaths of one domid",
          [lambda s: s.begin("t"), lambda s: s.dies(5), lambda s: s.set("n2 w5"),
           lambda s: s.begin("u"), lambda s: s.dies(5), lambda s: s.set("n2 b5")],
          [(perms(), "n2 b5"), (perms(txn="u"), "n2 w5"), (perms(txn="t"), "n2 r5 w6")]),
    Order("a transaction of before names it",
          [lambda s: s.begin("t"), lambda s: s.dies(5), lambda s: s.set("n2 b5", txn="t")],
          [(perms(txn="t"), "n2 b5"), (perms(), "n2 w6"), (lambda s: s.end("t"), "OK"),
           (perms(), "n2 b5")]),
    Order("a transaction named it before",
          [lambda s: s.begin("t"), lambda s: s.set("n2 b5", txn="t"), lambda s: s.dies(5)],
          [(perms(txn="t"), "n2 b5"), (lambda s: s.end("t"), "OK"), (perms(), "n2 b5")]),
    Order("a transaction saw it",
          [lambda s: s.begin("t"), lambda s: s.perms(txn="t"), lambda s: s.write(b"/z", txn="t"),
           lambda s: s.dies(5)],
          [(lambda s: s.end("t"), "EAGAIN"), (perms(), "n2 w6")]),
    Order("a transaction of later sees no change",
          [lambda s: s.dies(5), lambda s: s.begin("t"), lambda s: s.perms(txn="t"),
           lambda s: s.write(b"/k/t", txn="t"), lambda s: s.write(b"/other/z")],
          [(lambda s: s.end("t"), "OK"), (lambda s: s.world.server.transactions_merged, 1),
           (perms(b"/k/t"), "n2 w6")]),
    Order("an equal list is no change above",
          [lambda s: s.write(b"/k/a/b"), lambda s: s.dies(5), lambda s: s.begin("t"),
           lambda s: s.write(b"/k/a/b", txn="t"), lambda s: s.set("n2 w6")],
          [(lambda s: s.end("t"), "OK"), (lambda s: s.world.server.transactions_merged, 1)]),
    Order("another list is one",
          [lambda s: s.write(b"/k/a/b"), lambda s: s.dies(5), lambda s: s.begin("t"),
           lambda s: s.write(b"/k/a/b", txn="t"), lambda s: s.set("n2 w6 r5")],
          [(lambda s: s.end("t"), "OK"), (lambda s: s.world.server.transactions_merged, 0)]),
    Order("the root",
          [lambda s: s.set("n0 r5 w6", path=b"/"), lambda s: s.dies(5)],
          [(perms(b"/"), "n0 w6"), (may("d6", b"/"), "-w")]),
    Order("the root's owner",
          [lambda s: s.set("n5 r5 w6", path=b"/"), lambda s: s.write(b"/new", "d5"),
           lambda s: s.dies(5)],
          [(lambda s: listed(s.world.server.tree), [(-1, 0), (6, 2)]),
           (lambda s: s.world.server.tree.get([b"new"]), None)]),
    Order("the root goes on in its age",
          [lambda s: s.dies(5), lambda s: ok(s.world, "s0", "RM", b"/\0"),
           lambda s: s.write(b"/k"), lambda s: s.set("n2 r5"), lambda s: s.dies(5)],
          [(perms(), "n2")]),
    Order("a number that no domain has",
          [lambda s: s.set("n2 r5 r40000 w6 r-3"), lambda s: s.dies(5), lambda s: s.dies(40000)],
          [(perms(), "n2 w6 r9223372036854775805")]),
    Order("and owns",
          [lambda s: s.set("n40000"), lambda s: s.write(b"/k/x"), lambda s: s.dies(5, 40000)],
          [(lambda s: s.world.server.tree.get([b"k"]), None)]),
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=[order.name for order in ORDERS])
@pytest.mark.parametrize("images", [False, True])
def test_orders(make_world: Make, order: Order, images: bool) -> None:
    stage = Stage(make_world(domids=(2, 5, 6)))
    stage.write(b"/k")
    stage.set("n2 r5 w6")
    for step in order.steps:
        step(stage)
        recount(stage.world)
        if images:
            before, stage.world = stage.world, again(stage.world)
            before.close()
    for look, expected in order.seen:
        assert look(stage) == expected
    recount(stage.world)
    stage.world.close()


def test_what_is_written_into_files(world: World) -> None:
    """No format but the image has entries of those who are gone."""
    ok(world, "s0", "WRITE", b"/a\0v")
    ok(world, "s0", "WRITE", b"/b\0v")
    ok(world, "s0", "SET_PERMS", b"/a\0n0\0r7\0r8\0")
    ok(world, "s0", "SET_PERMS", b"/b\0n0\0r8\0")
    ok(world, "s1", "WRITE", b"/c\0v")
    tree = world.server.tree
    before = tree.copy()
    world.server.forget_domain(7)
    shown: list[Any] = []

    def line(entries: Any) -> bytes:
        shown.append(entries)
        return b""

    node_writing.lines(tree, line)
    assert [entries for entries in shown if len(entries) > 1] == [[(0, 0), (8, 1)]]
    shown.clear()
    node_writing.records(tree, lambda entries: (line(entries), False), print)
    assert [entries for entries in shown if len(entries) > 1] == [[(0, 0), (8, 1)]]
    assert before.get([b"a"]) == ([(0, 0), (7, 1), (8, 1)], b"v")


def test_who_is_told_of_a_change(world: World) -> None:
    """The rights of a watcher who has the domid of one who is gone are its own."""
    ok(world, "s0", "WRITE", b"/k\0v")
    ok(world, "s0", "SET_PERMS", b"/k\0n0\0r1\0")
    watch(world, "d1", b"/k")
    ok(world, "s0", "WRITE", b"/k\0w")
    assert events(world, "d1") == [(b"/k", b"t")]
    ok(world, "s0", "RELEASE", b"1\0")
    world.introduce(1)
    watch(world, "d1", b"/k")
    ok(world, "s0", "WRITE", b"/k\0x")
    ok(world, "s0", "RM", b"/k\0")
    assert events(world, "d1") == []


@pytest.mark.parametrize("how", ["commit", "rm"])
def test_a_change_of_before_the_death_is_told_later(world: World, how: str) -> None:
    """With the rights of then, however late that is."""
    world.introduce(9)
    watches = 100 if how == "rm" else 1
    for n in range(300):
        ok(world, "s0", "WRITE", b"/k/%03d\0v" % n)
        ok(world, "s0", "SET_PERMS", b"/k/%03d\0n0\0r9\0" % n)
        if how == "rm":
            watch(world, "s1", b"/k/%03d" % n)
        if n % 3 == 0 and watches:
            watches -= 1
            watch(world, "d9", b"/k/%03d" % n if how == "rm" else b"/k")
    agenda = world.server.agenda
    world.drain("d9")
    tx_id = begin(world, "s0")
    for n in range(300):
        ok(world, "s0", "WRITE", b"/k/%03d\0w" % n, tx_id)
    last = packet("RM", b"/k\0") if how == "rm" else packet("TRANSACTION_END", b"T\0", tx_id)
    agenda.slice_ns = 0
    world.connection("s0")[1].feed(last)
    world.server.begin(world.now, world.now)
    world.server.service(world.connection("s0")[0])
    assert world.connection("s0")[0].has_jobs
    # Its own watches stay, so that it is told what it might see then.
    world.server.forget_domain(9)
    other = again(world)
    for each in (world, other):
        each.server.agenda.slice_ns = 10**12
        each.turn()
        assert len(events(each, "d9")) == (100 if how == "rm" else 300)
    other.close()


def test_what_a_transaction_of_before_allows(world: World) -> None:
    """Its requests run again, so it is the next domain that is named, and told."""
    world.introduce(5)
    ok(world, "s0", "WRITE", b"/k\0v")
    tx_id = begin(world, "s0")
    ok(world, "s0", "SET_PERMS", b"/k\0n0\0r5\0", tx_id)
    ok(world, "s0", "RELEASE", b"5\0")
    world.introduce(5)
    watch(world, "d5", b"/k")
    assert end(world, "s0", tx_id) == "OK"
    assert events(world, "d5") == [(b"/k", b"t")]
    assert ok(world, "d5", "READ", b"/k\0") == b"v"


@pytest.mark.parametrize("mine", [b"n0\0b5\0", b"n5\0"])
@pytest.mark.parametrize("images", [False, True])
def test_who_acts_for_the_next_domain(make_world: Make, mine: bytes, images: bool) -> None:
    """It may not do, in a store of before, what it could do for the one that is gone."""
    world = make_world(domids=(4, 5))
    ok(world, "s0", "WRITE", b"/k\0secret")
    ok(world, "s0", "SET_PERMS", b"/k\0" + mine)
    tx_id = begin(world, "d4")
    ok(world, "s0", "RELEASE", b"5\0")
    world.introduce(5)
    ok(world, "s0", "SET_TARGET", b"4\0005\0")
    if images:
        before, world = world, again(world)
        before.close()
    for type_, payload in (("READ", b""), ("GET_PERMS", b""), ("WRITE", b"v"), ("RM", b""),
                           ("SET_PERMS", b"n5\0")):  # fmt: skip
        body = b"/k\0" + payload
        assert error(world, "d4", type_, body, tx_id) == "EACCES"
    world.close()


# -- what it costs --------------------------------------------------------------


def crowd(make_world: Make, guests: int, nodes: int, entries: int) -> World:
    """Guests that name domain 5 in each of their nodes; 5 owns ten nodes of its own."""
    world = make_world(domids=(5, *range(100, 100 + guests)))
    tree = world.server.tree
    names = b"r5\0" + b"".join(b"r%d\0" % (1000 + n) for n in range(entries - 2))
    for domid in (5, *range(100, 100 + guests)):
        home = [b"local", b"domain", b"%d" % domid]
        for depth in range(1, 4):
            if tree.get(home[:depth]) is None:
                tree.load(home[:depth], b"n0\0r%d\0" % domid, b"")
        for n in range(nodes if domid != 5 else 10):
            if n % 100 == 0:
                at = [*home, b"%d" % (n // 100)]
                tree.load(at, b"n%d\0" % domid + names, b"v")
            tree.load([*at, b"%d" % n], b"n%d\0" % domid + names, b"v")
    assert tree.owners_hold()
    return world


@pytest.mark.parametrize("guests", [1, 20])
def test_what_others_did_makes_an_end_no_longer(make_world: Make, guests: int) -> None:
    """Nodes looked at, copied and removed, with any number of accomplices."""
    world = crowd(make_world, guests, 300, 16)
    tree = world.server.tree
    keep = tree.copy()
    before = live_counts()
    work = Forgetting(tree, [5])
    work.clean()
    # The nodes up to the homes, these, and the top of its own.
    assert work.steps <= 8 + guests
    assert live_counts()["nodes"] - before["nodes"] <= 5
    assert live_counts()["perms"] == before["perms"]
    assert tree.entries(5) == 0 and keep.entries(5) == 12
    assert all(5 not in dict(perms) for _, perms, _ in tree.walk())
    assert sum(5 in dict(perms) for _, perms, _ in keep.walk()) >= 300 * guests
    recount(world)


@pytest.mark.parametrize("step", [16, 32, 256, 1024, 4096])
def test_whatever_domids_guests_have_an_end_takes_no_longer(step: int) -> None:
    """A guest that is started often enough has a domid that it likes, as 1029 for a victim of 5."""
    tree = Tree()
    tree.load([b"h"], b"n0\0", b"")
    guests = range(5, 0x7FF0, step)[:50]
    for domid in guests:
        for name in ([], [b"a"], [b"b"]):
            tree.load([b"h", b"%d" % domid, *name], b"n%d\0" % domid, b"")
    assert tree.owners_hold()
    for domid in guests:
        work = Forgetting(tree.copy(), [domid])
        work.clean()
        assert work.steps == 2 + len(guests)


def test_one_who_owns_nothing_is_not_looked_for(make_world: Make) -> None:
    world = crowd(make_world, 2, 100, 4)
    for gone in ([77], [32757], [-5], range(6, 90)):
        work = Forgetting(world.server.tree, gone)
        work.clean()
        assert work.steps == 0


def test_many_at_once_are_looked_for_everywhere(make_world: Make) -> None:
    """More than can be told by their bits."""
    world = crowd(make_world, 80, 3, 3)
    tree = world.server.tree
    work = Forgetting(tree, range(100, 180))
    work.clean()
    assert set(tree.all_entries()) == {0, 5}
    recount(world)


def test_owners_are_known_above(world: World) -> None:
    """Whatever a tree is changed by, what a domain owns is found."""
    server = world.server

    def check() -> None:
        assert server.tree.owners_hold()
        copy = server.tree.copy()
        for domid in copy.all_entries():
            if domid > 0:
                other = copy.copy()
                Forgetting(other, [domid]).clean()
                assert other.entries(domid) == 0

    ok(world, "s0", "WRITE", b"/a/b/c/d\0v")
    ok(world, "s0", "SET_PERMS", b"/a/b/c\0n700\0")
    check()
    ok(world, "s0", "WRITE", b"/a/b/c/d/e/f\0v")
    ok(world, "s0", "SET_PERMS", b"/a/b/c/d/e/f\0n40\0")
    check()
    tx_id = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/a/x/y\0v", tx_id)
    ok(world, "s0", "SET_PERMS", b"/a/x/y\0n1999\0", tx_id)
    ok(world, "s0", "WRITE", b"/z\0v")
    assert end(world, "s0", tx_id) == "OK" and server.transactions_merged == 1
    check()
    ok(world, "s0", "SET_PERMS", b"/\0n31\0")
    ok(world, "s0", "WRITE", b"/below/it\0v")
    check()
    ok(world, "s0", "RELEASE", b"31\0") if 31 in server.domains else server.forget_domain(31)
    ok(world, "s0", "WRITE", b"/again/below\0v")
    check()
    ok(world, "s0", "RM", b"/\0")
    ok(world, "s0", "WRITE", b"/again/below\0v")
    check()


def test_lives_end_with_the_entries_that_name_them(world: World) -> None:
    """However often a domid is named and its domain dies."""
    tree = world.server.tree
    ok(world, "s0", "WRITE", b"/k\0v")
    ok(world, "s0", "WRITE", b"/l\0v")
    begun = tree.lives()
    ok(world, "s0", "SET_PERMS", b"/l\0n0\0r7\0")
    for n in range(500):
        ok(world, "s0", "SET_PERMS", b"/k\0n0\0r7\0r%d\0" % (100 + n))
        world.server.forget_domains([7, 100 + n])
        assert tree.lives() - begun <= 3
    ok(world, "s0", "SET_PERMS", b"/k\0n0\0")
    assert tree.lives() - begun == 1  # the one that /l names
    held = tree.copy()
    ok(world, "s0", "RM", b"/l\0")
    assert tree.lives() - begun == 1
    del held
    world.turn()
    assert tree.lives() == begun


def test_a_tree_of_before_is_not_older() -> None:
    tree = Tree()
    tree.load([b"a"], b"n0\0r3\0", b"")
    copy = tree.copy()
    Forgetting(tree, [3]).clean()
    tree.load([b"b"], b"n0\0r3\0", b"")
    second = tree.copy()
    Forgetting(tree, [3]).clean()
    assert [listed(one, b"a") for one in (copy, second, tree)] == [
        [(0, 0), (3, 1)],
        [(0, 0)],
        [(0, 0)],
    ]
    assert [listed(one, b"b") for one in (second, tree)] == [[(0, 0), (3, 1)], [(0, 0)]]
