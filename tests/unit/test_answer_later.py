# SPDX-License-Identifier: LGPL-2.1-or-later
"""A CONTROL request whose answer the host gives later: its client waits, and nobody else."""

from __future__ import annotations

from tests.world import World, packet

LATER = packet("CONTROL", b"live-update\0later\0", 0, 7)


def test_it_comes_with_its_number_and_in_its_place(make_world: object) -> None:
    """What the client sent behind it is served behind it."""
    world: World = make_world()  # type: ignore[operator]
    world.feed("s0", LATER + packet("WRITE", b"/a\0v", 0, 8))
    assert world.drain("s0") == []
    world.feed("s0", packet("READ", b"/a\0", 0, 9))
    assert world.drain("s0") == []
    assert world.ask("s1", "READ", b"/a\0") == (16, b"ENOENT\0")
    connection = world.connection("s0")[0]
    assert connection.awaits and connection.blocked
    world.server.answer(connection, b"now\0")
    world.turn()
    assert world.drain("s0") == [(0, 7, 0, b"now\0"), (11, 8, 0, b"OK\0"), (2, 9, 0, b"v")]
    # There is nothing left to answer.
    world.server.answer(connection, b"again\0")
    world.turn()
    assert world.drain("s0") == []


def test_events_come_meanwhile(make_world: object) -> None:
    world: World = make_world()  # type: ignore[operator]
    world.ask("s0", "WATCH", b"/a\0t\0")
    world.drain("s0")
    world.feed("s0", LATER)
    world.ask("s1", "WRITE", b"/a\0v")
    assert world.drain("s0") == [(15, 0, 0, b"/a\0t\0")]


def test_a_client_that_has_gone(make_world: object) -> None:
    world: World = make_world()  # type: ignore[operator]
    world.feed("s0", LATER)
    connection = world.connection("s0")[0]
    world.server.disconnect(connection)
    world.server.answer(connection, b"now\0")
    world.turn()
    assert not connection.awaits
    assert world.ask("s1", "READ", b"/\0")[0] == 2


def test_one_that_no_packet_holds(make_world: object) -> None:
    """As with any other answer: E2BIG, in its place."""
    world: World = make_world()  # type: ignore[operator]
    for n, expected in ((4096, (0, 7, 0, b"x" * 4096)), (4097, (16, 7, 0, b"E2BIG\0"))):
        world.feed("s0", LATER)
        world.server.answer(world.connection("s0")[0], b"x" * n)
        world.turn()
        assert world.drain("s0") == [expected]
