# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories of many children while transactions are open.

The children of a node lie in pages of 32, which transactions share with the store until one of
both changes them.  Here both sides change the same directory, and each must see its own changes
alone.
"""

from __future__ import annotations

import random

import pytest

from tests.unit.kit import begin, end, ok, recount
from tests.world import World

Children = dict[bytes, bytes]  # name -> value


def write(world: World, name: bytes, value: bytes, tx_id: int = 0) -> None:
    ok(world, "s0", "WRITE", b"/wide/" + name + b"\0" + value, tx_id)


def children(world: World, tx_id: int = 0) -> list[bytes]:
    """The names that DIRECTORY_PART gives, outside or in a transaction."""
    found = b""
    while not found.endswith(b"\0\0"):
        body = ok(world, "s0", "DIRECTORY_PART", b"/wide\0%d\0" % len(found), tx_id)
        found += body.split(b"\0", 1)[1]
        if found == b"\0":
            return []
    return sorted(found[:-2].split(b"\0"))


def same(world: World, want: Children, tx_id: int = 0) -> None:
    """The directory holds these children with these values."""
    assert children(world, tx_id) == sorted(want)
    for name, value in want.items():
        assert ok(world, "s0", "READ", b"/wide/" + name + b"\0", tx_id) == value


def name_of(i: int) -> bytes:
    return b"n%04d" % i


@pytest.mark.parametrize("size", [31, 32, 33, 34, 63, 64, 65, 96, 200, 1100])
@pytest.mark.parametrize("inside", [False, True])
def test_one_child_comes_or_goes(world: World, size: int, inside: bool) -> None:
    """At the ends and in the middle; the other side does not see it."""
    before = {name_of(2 * i): b"%d" % i for i in range(size)}
    ok(world, "s0", "MKDIR", b"/wide\0")
    for name, value in before.items():
        write(world, name, value)
    places = {0, 1, 2 * (size // 2), 2 * (size // 2) + 1, 2 * size - 2, 2 * size - 1}
    for i in sorted(places):
        tx_id = begin(world, "s0")
        changed = dict(before)
        where = tx_id if inside else 0
        if name_of(i) in changed:
            del changed[name_of(i)]
            ok(world, "s0", "RM", b"/wide/" + name_of(i) + b"\0", where)
        else:
            changed[name_of(i)] = b"new"
            write(world, name_of(i), b"new", where)
        assert children(world, tx_id) == sorted(changed if inside else before)
        assert children(world) == sorted(before if inside else changed)
        assert end(world, "s0", tx_id, b"T" if inside else b"F") == "OK"
        assert children(world) == sorted(changed)
        before = changed
    same(world, before)
    recount(world)


@pytest.mark.parametrize("seed", range(6))
def test_both_sides_change_the_same_directory(world: World, seed: int) -> None:
    """Two transactions and the store, by chance, through all sizes up to some 300 and back."""
    chance = random.Random(seed)
    ok(world, "s0", "MKDIR", b"/wide\0")
    stored: Children = {}
    for round_ in range(6):
        grows = round_ < 3
        ids = [begin(world, "s0"), begin(world, "s0")]
        sides = {0: stored, **{tx_id: dict(stored) for tx_id in ids}}
        for _ in range(240):
            tx_id = chance.choice([0, *ids])
            side = sides[tx_id]
            if side and chance.random() < (0.2 if grows else 0.8):
                name = chance.choice(sorted(side))
                ok(world, "s0", "RM", b"/wide/" + name + b"\0", tx_id)
                del side[name]
            else:
                name, value = name_of(chance.randrange(2000)), b"%d" % chance.randrange(100)
                write(world, name, value, tx_id)
                side[name] = value
        for tx_id, side in sides.items():
            same(world, side, tx_id)
        for tx_id in ids:
            assert end(world, "s0", tx_id, b"F") == "OK"
        same(world, stored)
        recount(world)
