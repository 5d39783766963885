# SPDX-License-Identifier: LGPL-2.1-or-later
"""Failures of our own: told with their trace, and nobody else notices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kit import error, ok, watch
from tests.world import World, packet


def raises(*arguments: Any) -> None:
    raise ZeroDivisionError("for a test")


def test_a_handler_that_fails(world: World) -> None:
    """The request is answered EIO, and the log says where it happened."""
    host: Any = world.host
    host.resume = raises
    assert error(world, "s0", "RESUME", b"1\0") == "EIO"
    [(level, facility, text)] = host.messages
    assert (level, facility) == ("error", "process")
    assert text.startswith("request failed:\nTraceback")
    assert text.endswith("ZeroDivisionError: for a test\n")
    host.messages.clear()
    assert ok(world, "s0", "READ", b"/tool\0") == b""


@pytest.mark.parametrize("who", ["s1", "d1"])
def test_serving_that_fails(make_world: Any, who: str) -> None:
    """Its connection ends, a ring is parked; all others are served, those that it waited with
    too."""
    world: World = make_world(quota_path_max=4096)
    host: Any = world.host
    ok(world, "s0", "MKDIR", b"/p\0")
    ok(world, "s0", "SET_PERMS", b"/p\0b0\0")
    watch(world, "s0", b"/p", b"t" * 2500)
    connection, _ = world.connection(who)
    complain, host.complain = host.complain, raises
    told: list[str] = []

    def first_fails(kind: str, text: str) -> None:
        told.append(kind)
        if len(told) == 1:
            raise ZeroDivisionError("for a test")
        complain(kind, text)

    host.complain = first_fails
    # The event of this change is too long for a packet, which is to be told.
    world.feed(who, packet("WRITE", b"/p/" + b"x" * 2000 + b"\0v") + packet("READ", b"/p\0"))
    assert told[:2] == ["event too long", "failure"] and world.server.failures == 1
    assert "given up" in host.messages[0][2] and "ZeroDivisionError" in host.messages[0][2]
    assert connection.closed if who == "s1" else connection.bad
    assert world.drain(who) == []
    for other in ("s0", "d2"):
        assert ok(world, other, "WRITE", b"/p/y\0word") == b"OK\0"
    if who == "s1":
        del world.sockets["s1"]
