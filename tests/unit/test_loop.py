# SPDX-License-Identifier: LGPL-2.1-or-later
"""The turns: what must not wait for the next thing to happen."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._loop import Loop
from tests.unit.kit import ok
from tests.world import packet


def test_what_was_served_between_two_runs_is_sent_before_a_sleep(
    make_world: Callable[..., Any],
) -> None:
    """As by a ring scan, whose guest sent no kick and will send none."""
    world = make_world(domids=())
    ours, theirs = socket.socketpair()
    with select.epoll() as epoll, ours:
        loop = Loop(world.server, epoll.fileno(), 0, lambda: None, lambda fd, error: None)
        connection = loop.adopt(theirs.detach())
        ours.sendall(packet("READ", b"/tool\0"))
        world.server.service(connection)
        due = time.monotonic() + 20
        loop.run(due, True)
        assert loop.poller.now < due, "it slept with a reply in hand"
        assert len(ours.recv(100, socket.MSG_DONTWAIT)) == 16
        world.server.disconnect(connection)
        loop.run(0.0, True)


def test_a_punishment_ends_a_run(make_world: Callable[..., Any]) -> None:
    """The caller is to ask at once when credit comes back, and not when its next timer is due."""
    world = make_world(domids=(1,), conflict_max_history_seconds=1000.0)
    ok(world, "d1", "WRITE", b"x\0old")
    ours, theirs = socket.socketpair()
    with select.epoll() as epoll, ours:
        loop = Loop(world.server, epoll.fileno(), 0, lambda: None, lambda fd, error: None)
        connection = loop.adopt(theirs.detach())
        ours.sendall(packet("TRANSACTION_START", b"\0"))
        loop.run(time.monotonic() + 20, True)
        assert ours.recv(100).endswith(b"1\0")
        tx_id = 1
        ours.sendall(
            packet("READ", b"/local/domain/1/x\0", tx_id) + packet("WRITE", b"/y\0v", tx_id)
        )
        loop.run(time.monotonic() + 20, True)
        ours.recv(100)
        world.now = loop.poller.now
        ok(world, "d1", "WRITE", b"x\0new")
        ours.sendall(packet("TRANSACTION_END", b"T\0", tx_id))
        due = time.monotonic() + 20
        loop.run(due, False)
        assert loop.poller.now < due and world.server.wants_time
        assert b"EAGAIN" in ours.recv(1000)
        world.server.disconnect(connection)
        loop.run(0.0, True)


@pytest.mark.parametrize("fails", [False, True])
def test_a_handler_ends_a_run(make_world: Callable[..., Any], fails: bool) -> None:
    """Where it asks for that, and where it fails, which is told: whoever calls may have to take it
    out before it is called once more."""
    world = make_world(domids=())
    reading, writing = os.pipe()
    os.write(writing, b"x")
    calls: list[int] = []
    failed: list[tuple[int, type[Exception]]] = []

    def handle() -> bool:
        calls.append(reading)
        if len(calls) == 1 and fails:
            raise KeyError
        return True

    with select.epoll() as epoll:
        loop = Loop(
            world.server,
            epoll.fileno(),
            0,
            lambda: None,
            lambda fd, error: failed.append((fd, type(error))),
        )
        loop.add_handler(reading, handle)
        loop.run(time.monotonic() + 20, False)
        assert len(calls) == 1
        assert failed == ([(reading, KeyError)] if fails else [])
    os.close(reading)
    os.close(writing)
