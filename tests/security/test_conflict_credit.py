# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that makes the transactions of others fail pays for it, however heavy its other changes
are, and however many (XSA-206)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd.store.tree import live_counts
from tests.unit.kit import begin, end, ok
from tests.world import World, packet

Make = Callable[..., Any]
DEEP = b"/".join([b"a"] * 500)


@pytest.fixture
def shared(world: World) -> World:
    """All may write /x, and domains 1 and 2 have 500 nodes below each other."""
    for name in ("d1", "d2"):
        ok(world, name, "MKDIR", DEEP + b"\0")
    ok(world, "s0", "WRITE", b"/x\0v")
    ok(world, "s0", "SET_PERMS", b"/x\0b0\0")
    return world


def reader(world: World) -> int:
    """A transaction of domain 0 that fails if /x changes."""
    tx_id = begin(world, "s0")
    ok(world, "s0", "READ", b"/x\0", tx_id)
    ok(world, "s0", "WRITE", b"/y\0v", tx_id)
    return tx_id


def credit(world: World, name: str) -> float:
    return world.connection(name)[0].credit


@pytest.mark.parametrize("heavy", [0, 40])
def test_a_guest_pays_though_it_wrote_before_the_transaction_too(shared: World, heavy: int) -> None:
    begin(shared, "d2")  # so that changes are kept from here on
    for n in range(heavy):
        ok(shared, "d1", "WRITE", DEEP + b"\0%d" % n)
    before = credit(shared, "d1")
    for n in range(int(before)):
        ok(shared, "d1", "WRITE", b"/x\0before%d" % n)
        tx_id = reader(shared)
        ok(shared, "d1", "WRITE", b"/x\0after%d" % n)
        assert end(shared, "s0", tx_id) == "EAGAIN"
        assert credit(shared, "d1") == before - n - 1
    assert credit(shared, "d1") == 0


@pytest.mark.parametrize(
    ("heavy", "light", "payload", "count"),
    [
        pytest.param("d1", "d2", DEEP, 30, id="its own heavy changes"),
        pytest.param("d2", "d1", DEEP, 30, id="the heavy changes of another"),
        pytest.param("d2", "d1", b"k", 1500, id="the many changes of another"),
    ],
)
def test_a_change_is_not_hidden_behind_later_ones(
    shared: World, heavy: str, light: str, payload: bytes, count: int
) -> None:
    """Domain 1 writes what the transaction has read; then both write what it has not."""
    tx_id = reader(shared)
    before = credit(shared, "d1")
    ok(shared, "d1", "WRITE", b"/x\0new")
    for n in range(count):
        ok(shared, heavy, "WRITE", payload + b"\0%d" % n)
        if n < 30:
            ok(shared, light, "WRITE", b"k\0%d" % n)
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert credit(shared, "d1") == before - 1
    # Changes of domain 2 were forgotten, but none of what the transaction has read.
    assert credit(shared, "d2") == before


def test_who_is_heavy_does_not_pay_for_later_transactions(shared: World) -> None:
    """What was forgotten of a guest came before the transaction that fails."""
    begin(shared, "d2")
    for n in range(40):
        ok(shared, "d1", "WRITE", DEEP + b"\0%d" % n)
    before = credit(shared, "d1")
    tx_id = reader(shared)
    ok(shared, "d1", "WRITE", b"k\0v")
    ok(shared, "d2", "WRITE", b"/x\0new")
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert [credit(shared, name) for name in ("d1", "d2")] == [before, before - 1]


def test_what_was_undone_before_the_transaction_costs_nothing(shared: World) -> None:
    """Domain 1 changed /x and changed it back; then came the transaction, and domain 2."""
    begin(shared, "d2")  # so that changes are kept from here on
    ok(shared, "d1", "WRITE", b"/x\0other")
    ok(shared, "d1", "WRITE", b"/x\0v")
    before = credit(shared, "d1")
    tx_id = reader(shared)
    ok(shared, "d2", "WRITE", b"/x\0new")
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert [credit(shared, name) for name in ("d1", "d2")] == [before, before - 1]


def test_two_heavy_guests_and_a_light_one_are_bounded_in_memory(make_world: Make) -> None:
    """The changes of the light one keep nothing of what the heavy ones replaced."""
    world: World = make_world((1, 2, 3))
    for name in ("d1", "d2"):
        ok(world, name, "MKDIR", DEEP + b"\0")
    begin(world, "s0")
    before = live_counts()["nodes"]
    for n in range(200):
        for name, path in (("d1", DEEP), ("d3", b"k"), ("d2", DEEP), ("d3", b"k")):
            ok(world, name, "WRITE", path + b"\0%d" % n)
        assert live_counts()["nodes"] < before + 2 * 8192 + 3 * 1024


def test_the_changes_of_many_are_not_copied_to_be_searched(make_world: Make) -> None:
    """Forty guests have 150 changes each in the history, 48 KB of references; the search for the
    one that made the difference takes less than a fourth of that."""
    guests = range(1, 41)
    world = make_world(tuple(guests))
    ok(world, "s0", "WRITE", b"/x\0v")
    ok(world, "s0", "SET_PERMS", b"/x\0b0\0")
    tx_id = reader(world)
    for n in range(150):
        for domid in guests:
            ok(world, f"d{domid}", "WRITE", b"/x\0new" if n + domid == 60 else b"k\0v")
    transport = world.connection("s0")[1]
    transport.feed(packet("TRANSACTION_END", b"T\0", tx_id))
    tracemalloc.start()
    world.server.service(world.connection("s0")[0])
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    world.turn()
    assert world.drain("s0")[-1][3] == b"EAGAIN\0"
    assert peak - now < 12_000
    assert sum(credit(world, f"d{domid}") < 5 for domid in guests) == 1
