# SPDX-License-Identifier: LGPL-2.1-or-later
"""The turns: what must not wait for the next thing to happen."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from pyxsd._loop import Loop
from tests.world import packet


def test_what_was_served_between_two_runs_is_sent_before_a_sleep(
        make_world: Callable[..., Any]) -> None:
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
