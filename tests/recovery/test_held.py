# SPDX-License-Identifier: LGPL-2.1-or-later
"""Old trees that somebody holds while a journal is recorded, who is not there in its replay: nodes
of theirs are copied and not changed in place, and what changes let go of counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pyxsd._memory import Memory
from pyxsd.recovery import beside
from pyxsd.state import dump, image
from tests.record.kit import Tape
from tests.recovery.kit import Kept, NoDomains, Recovered, without_clock
from tests.unit.kit import begin, end, ok
from tests.world import World, packet

NODES = 75
HOME = b"/local/domain/1"


@pytest.fixture(name="world")
def a_world(no_leaks: None) -> Iterator[World]:
    """Domain 1 has two transactions open that no change is kept for any more."""
    world = World()
    without_clock(world.server)
    world.introduce(1)
    ok(world, "s0", "MKDIR", HOME + b"\0")
    ok(world, "s0", "SET_PERMS", HOME + b"\0n1\0")
    write(world, b"a")
    for _ in range(2):
        begin(world, "d1")
    later(world)
    write(world, b"b")
    yield world
    world.close()


def later(world: World) -> None:
    """A second later."""
    world.now += 1
    world.turn()
    world.server.tick(world.now)


def write(world: World, value: bytes) -> None:
    """Domain 1 writes all its nodes, which are in no old tree of the server but those above."""
    for n in range(NODES):
        ok(world, "d1", "WRITE", b"%03d\0" % n + value * 1500)


def third(world: World) -> str:
    """Domain 1 wants to begin a third transaction, which depends on what it has replaced."""
    world.feed("d1", packet("TRANSACTION_START", b"\0"))
    return str(world.drain("d1")[-1][3])


class Slices:
    """An image in the making."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        server = kept.world.server
        server.settle()
        kept.number += 1
        self.length = 0

        def put(data: bytes) -> None:
            kept.memory.put(kept.number, self.length, data)
            self.length += len(data)

        def around() -> list[tuple[bytes, bytes]]:
            kept.journal.next_segment(kept.number)
            return [beside.write(server, NoDomains())]

        self.saving = image.Saving(server, put, around)
        assert not self.saving.step(0.0)

    def finish(self) -> None:
        """It is whole."""
        while not self.saving.step(1.0):
            pass
        self.kept.memory.swap(self.kept.number, self.length)


@pytest.mark.parametrize("is_whole", [False, True])
def test_an_image_in_slices(world: World, is_whole: bool) -> None:
    """Requests between two slices count as they did, whichever image somebody begins with."""
    kept = Kept(world)
    slices = Slices(kept)
    write(world, b"c")
    refused = third(world)
    if is_whole:
        slices.finish()
        write(world, b"d")
    again = Recovered(Memory.copy_of(kept.memory))
    assert again.failures == [] and "EQUOTA" in refused
    assert image.save(again.server) == image.save(world.server)
    again.close()
    kept.close()


def database(world: World) -> Any:
    """The lines of a database of now, of which the first node is written by now."""
    lines = dump.lines(world.server, [], -1, None, sockets=False)
    assert any(line.startswith(b"store,") for line in lines)
    return lines


def garbage(world: World) -> Any:
    """What is left of a tree with all nodes of now, and takes some turns to be freed."""
    for n in range(9000):
        ok(world, "s0", "WRITE", b"/a/%03d/%03d\0v" % (n // 100, n % 100))
    later(world)
    tx_id = begin(world, "s1")
    ok(world, "s0", "RM", b"/a\0")
    ok(world, "d1", "WRITE", b"new\0v")
    later(world)
    connection, transport = world.connection("s1")
    transport.feed(packet("TRANSACTION_END", b"F\0", tx_id))
    world.server.service(connection)
    assert world.server.flush()


def nothing(_world: World) -> Any:
    """Nobody holds anything."""


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("holder", [database, garbage, nothing])
def test_a_recording(world: World, holder: Any, when: str) -> None:
    """Somebody holds trees when the recording begins, or begins to while it is under way."""
    held = holder(world) if when == "before" else None
    tape = Tape(world)
    if when == "meanwhile":
        held = holder(world)
    write(world, b"c")
    third(world)
    tape.check()
    del held
    for value in (b"d", b"e"):
        later(world)
        write(world, value)
        tape.check()
    # Nobody holds anything by now.
    assert end(world, "d1", 1) in ("OK", "EAGAIN")
