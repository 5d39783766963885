# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose turn it is: who used least time comes first, and nobody gets more than a slice."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.kit import begin, ok
from tests.world import World, packet

ROOT = Path(__file__).resolve().parents[2]
ASK = packet("GET_DOMAIN_PATH", b"1\0")


def queue(world: World, name: str, data: bytes) -> None:
    """Bytes from a client, which will be served in its turn."""
    connection, transport = world.connection(name)
    transport.feed(data)
    world.server.serve_later(connection)


def test_who_used_least_comes_first(world: World) -> None:
    """However early the others came."""
    agenda = world.server.agenda
    queue(world, "d1", b"".join(packet("WRITE", b"k%d\0" % n + b"v" * 500) for n in range(900)))
    while world.server.flush():
        pass
    world.drain("d1")
    agenda.turn_ns = 0  # a turn ends behind the first one that it serves
    for _ in range(3):
        queue(world, "d1", ASK)
        queue(world, "d2", ASK)
        assert agenda.count == 2
        assert world.server.flush()
        assert len(world.drain("d2")) == 1 and not world.drain("d1")
        assert not world.server.flush()
        assert len(world.drain("d1")) == 1


def test_who_came_first_is_served_first(make_world: Callable[..., World]) -> None:
    """Of those that have used no time, however many they are."""
    world = make_world(())
    agenda = world.server.agenda
    agenda.turn_ns = 0
    names = [f"s{n}" for n in range(2, 12)]
    for name in names:
        queue(world, name, ASK)
    for name in names:
        world.server.flush()
        assert [n for n in names if world.drain(n)] == [name]


def test_who_comes_back_has_saved_up_nothing(world: World) -> None:
    """One that was idle for long goes before those who wait, and once it has used the little that
    it may have more than they, it waits."""
    agenda = world.server.agenda
    writes = b"".join(packet("WRITE", b"k%d\0" % n + b"v" * 1000) for n in range(200))
    agenda.turn_ns = 0
    for _ in range(30):
        queue(world, "d1", writes)
        while world.server.flush():
            pass
        world.drain("d1")
    served = {"d1": 0, "d2": 0}
    queue(world, "d1", writes)
    queue(world, "d2", writes)
    while world.server.flush() and min(served.values()) < 200:
        for name in served:
            served[name] += len(world.drain(name))
    for name in served:
        served[name] += len(world.drain(name))
    assert served["d1"] > 0 and served["d2"] > 0


def test_the_times_are_those_of_the_document(world: World) -> None:
    text = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    said = re.search(r"serves each for at most (\d+) µs, all together for (\d+) µs", text)
    assert said is not None
    agenda = world.server.agenda
    assert (agenda.slice_ns, agenda.turn_ns) == tuple(1000 * int(us) for us in said.groups())


def test_a_slice_ends(world: World) -> None:
    """A client that sends without end is put off as soon as its slice is over."""
    agenda = world.server.agenda
    agenda.slice_ns = agenda.turn_ns = 0
    queue(world, "d1", ASK * 200)
    assert world.server.flush()
    first = len(world.drain("d1"))
    assert 0 < first < 200
    while world.server.flush():
        pass
    assert len(world.drain("d1")) == 200 - first


def test_a_slice_is_used_up(world: World) -> None:
    """However many small requests there are: all that was read is served while time is left."""
    agenda = world.server.agenda
    agenda.slice_ns = 1 << 60
    connection, transport = world.connection("s0")
    before = connection.ops
    transport.feed(ASK * 500)  # less than is read at once
    world.server.service(connection)
    assert connection.ops == before + 500 and agenda.count == 0


@pytest.mark.parametrize("type_", ["TRANSACTION_END", "RM", "DIRECTORY_PART", "RESET_WATCHES"])
def test_a_slice_ends_behind_one_dear_request(world: World, type_: str) -> None:
    """What a client did before decides how much work these are: the clock is read behind each."""
    agenda = world.server.agenda
    ok(world, "d1", "MKDIR", b"w\0")
    ids = [begin(world, "d1") if type_ == "TRANSACTION_END" else 0 for _ in range(8)]
    for n, tx_id in enumerate(ids):
        ok(world, "d1", "MKDIR", b"w%d\0" % n, tx_id)
    payloads = {"TRANSACTION_END": b"T\0", "DIRECTORY_PART": b"w\0000\0", "RESET_WATCHES": b"\0"}
    agenda.slice_ns = 0
    connection, transport = world.connection("d1")
    transport.feed(
        b"".join(
            packet(type_, payloads.get(type_, b"w%d\0" % n), tx_id) for n, tx_id in enumerate(ids)
        )
    )
    before = connection.ops
    world.server.service(connection)
    assert connection.ops == before + 1
    world.turn()
    assert connection.ops == before + 8
