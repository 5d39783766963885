# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories of hundreds of names, changed at random in the store and in transactions, with
snapshots held: every tree stays that of a dictionary.

The random requests of test_model.py have few names, so that they meet; directories of more
than one page, and pages that trees share, are for here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kit import begin, end, recount
from tests.world import World, packet

Make = Callable[..., Any]
Names = dict[bytes, bytes]
EVERYBODY = b"n0\0"


def names_of(tree: Any) -> Names:
    """{name: value} of /w; what is below a name adds its value with a "/"."""
    found: Names = {}
    for path, _, value in tree.walk():
        if path[:1] == (b"w",) and len(path) == 2:
            found[path[1]] = value
        elif path[:1] == (b"w",) and len(path) == 3:
            found[path[1]] += b"/" + value
    return found


class Side:
    """A tree that changes (the store, or a transaction of it), and what must be in it."""

    def __init__(self, world: World, tx_id: int, names: Names) -> None:
        self.world = world
        self.tx_id = tx_id
        self.names = names

    @property
    def tree(self) -> Any:
        if self.tx_id:
            return self.world.connection("s0")[0].transactions[self.tx_id].tree
        return self.world.server.tree

    def change(self, pick: random.Random, name: bytes, value: bytes, removing: bool) -> None:
        """One random request about a name."""
        path = b"/w/" + name
        what = pick.random()
        if removing:
            self.ask("RM", path + b"\0")
            self.names.pop(name, None)
        elif what < 0.7:
            self.ask("WRITE", path + b"\0" + value)
            below = self.names.get(name, b"").partition(b"/")[1:]
            self.names[name] = value + b"".join(below)
        elif what < 0.8:
            self.ask("WRITE", path + b"/below\0" + value)
            self.names[name] = self.names.get(name, b"").partition(b"/")[0] + b"/" + value
        elif what < 0.9:
            self.ask("SET_PERMS", path + b"\0" + EVERYBODY)
        else:
            # The directory itself changes: its pages are shared then, not copied.
            self.ask("WRITE", b"/w\0" + value)

    def ask(self, type_: str, payload: bytes) -> None:
        connection, transport = self.world.connection("s0")
        transport.feed(packet(type_, payload, self.tx_id))
        self.world.turn("s0")
        transport.take()


@pytest.mark.parametrize("names", [60, 700])
@pytest.mark.parametrize("seed", range(4))
def test_wide_directories_under_snapshots(make_world: Make, seed: int, names: int) -> None:
    world: World = make_world(domids=())
    pick = random.Random(seed)
    store = Side(world, 0, {})
    sides = [store]
    held: list[tuple[Any, Names]] = []
    store.ask("MKDIR", b"/w\0")
    for round_ in range(3000):
        side = pick.choice(sides)
        # It grows, then shrinks to nearly nothing, and again.
        removing = pick.random() < (0.25 if round_ // 750 % 2 == 0 else 0.85)
        some = sorted(side.names) if removing and pick.random() < 0.9 else []
        name = pick.choice(some) if some else b"%04d" % pick.randrange(names)
        side.change(pick, name, b"%d" % round_, removing)
        if pick.random() < 0.01:
            held.append((store.tree.copy(), dict(store.names)))
            del held[: -pick.randrange(1, 5)]
        if pick.random() < 0.01 and len(sides) < 4:
            sides.append(Side(world, begin(world, "s0"), dict(store.names)))
        if pick.random() < 0.01 and len(sides) > 1:
            gone = sides.pop(pick.randrange(1, len(sides)))
            assert end(world, "s0", gone.tx_id, b"F") == "OK"
        if round_ % 250 == 249:
            for each in sides:
                assert names_of(each.tree) == each.names
                assert list(names_of(each.tree)) == sorted(each.names)
            for tree, want in held:
                assert names_of(tree) == want
            recount(world)
    for each in sides[1:]:
        assert end(world, "s0", each.tx_id, b"F") == "OK"
    held.clear()


@pytest.mark.parametrize(("names", "seed"), [(40, 1), (1500, 2), (1500, 3), (5000, 4)])
def test_pieces_of_a_wide_directory(make_world: Make, names: int, seed: int) -> None:
    """A guest gets the names from any byte on, and a count that is equal where the names are,
    however the directory came about and whatever snapshots hold of it."""
    world: World = make_world(domids=(1,))
    pick = random.Random(seed)
    there: set[bytes] = set()
    held: list[Any] = []
    counts: dict[bytes, frozenset[bytes]] = {}
    connection, transport = world.connection("s0")

    def ask(type_: str, payload: bytes) -> None:
        transport.feed(packet(type_, payload))
        world.turn("s0")
        transport.take()

    def look(offset: int) -> bytes:
        """The count of what d1 gets from there on."""
        _, body = world.ask("d1", "DIRECTORY_PART", b"/w\0%d\0" % offset)
        count, got = body.split(b"\0", 1)
        room = 4094 - len(count) - 1
        whole = b"".join(name + b"\0" for name in sorted(there))[offset:]
        cut = whole[: whole.rfind(b"\0", 0, room) + 1]
        assert got == (whole + b"\0" if len(whole) <= room else cut)
        return count

    ask("MKDIR", b"/w\0")
    ask("SET_PERMS", b"/w\0" + b"b0\0")
    for growing in (0.9, 0.2, 0.8, 0.0):
        for step in range(names):
            if pick.random() < growing:
                name = b"%d" % pick.randrange(10 ** pick.randrange(1, 7))
                if pick.random() < 0.3:
                    name += b"-" * pick.randrange(300)
                there.add(name)
                ask("WRITE", b"/w/" + name + b"\0v")
            elif there:
                # Neighbours, so that pages become sparse.
                name = min(there) if pick.random() < 0.8 else pick.choice(tuple(there)[:50])
                there.discard(name)
                ask("RM", b"/w/" + name + b"\0")
            if step % (names // 20) == 0:
                size = sum(map(len, there)) + len(there)
                count = look(pick.randrange(size + 2))
                assert counts.setdefault(count, frozenset(there)) == there
                held = held[-3:] + [world.server.tree.copy()]
    # Another way to the same names.
    there = {b"%07d" % n for n in range(names)}
    seen = set()
    for order in (sorted(there), pick.sample(sorted(there), names)):
        ask("RM", b"/w\0")
        ask("MKDIR", b"/w\0")
        ask("SET_PERMS", b"/w\0" + b"b0\0")
        for name in order:
            ask("WRITE", b"/w/" + name + b"\0")
        seen.add(look(pick.randrange(8 * names)))
    assert len(seen) == 1
