# SPDX-License-Identifier: LGPL-2.1-or-later
"""When the lines of the access log leave the daemon: before a sleep, at a reopening, at the end."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd._accesslog import AccessLog
from pyxsd._loop import Loop
from pyxsd.daemon import Daemon
from pyxsd.system.configuration import Config
from pyxsd.system.daemon_log import DaemonLog
from pyxsd.system.log_file import LogFile
from tests.unit.logkit import Clock
from tests.world import World, packet

Make = Callable[..., Any]


def test_lines_are_written_before_a_sleep(make_world: Make) -> None:
    """Nobody may come for hours, and an administrator looks at the log now."""
    world: World = make_world(domids=(), log=AccessLog(True))
    world.server.log.take()
    written: list[bytes] = []
    waking, wake = os.pipe()

    def write_log() -> None:
        written.append(world.server.log.take()[0])
        os.write(wake, b"x")

    ours, theirs = socket.socketpair()
    with select.epoll() as epoll, ours:
        loop = Loop(world.server, epoll.fileno(), 0, write_log, lambda fd, error: None)
        loop.add_handler(waking, lambda: True)
        connection = loop.adopt(theirs.detach())
        world.server.log.take()
        ours.sendall(packet("WRITE", b"/a\0v"))
        due = time.monotonic() + 5
        loop.run(due, False)
        assert loop.poller.now < due, "it slept with lines in hand"
        assert b"/a v" in b"".join(written)
        world.server.disconnect(connection)
        loop.run(0.0, True)
    os.close(waking)
    os.close(wake)


@pytest.fixture
def world(make_world: Make) -> World:
    world: World = make_world(domids=(), log=AccessLog(True))
    world.server.log.take()
    return world


@pytest.fixture
def access_path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def daemon(world: World, tmp_path: Path, access_path: Path, clock: Clock) -> Iterator[Daemon]:
    """A daemon around the server, whose loop does not run."""
    log = DaemonLog(str(tmp_path / "daemon.log"), "info", 2, 100)
    access = LogFile(str(access_path), 2, 100, clock=clock)
    access.write(b"first\n", 1)  # and not looked at again, as the clock stands still
    daemon = Daemon(Config(), world.server, None, log, access, str(tmp_path), -1)
    yield daemon
    access.close()
    log.close()
    vars(daemon).clear()  # pytest keeps it, and with it the server


@pytest.fixture
def signals() -> Iterator[None]:
    """Puts the handlers of this process back that a daemon replaces."""
    numbers = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_lines_go_into_the_file_that_was_open_before_sighup(
    world: World, daemon: Daemon, access_path: Path, signals: None
) -> None:
    """What happened before the signal belongs into the file that logrotate has moved away."""
    world.ask("s0", "WRITE", b"/before\0v")
    moved = access_path.with_name("moved")
    access_path.rename(moved)
    daemon.install_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert daemon._on_signal()
    world.ask("s0", "WRITE", b"/after\0v")
    daemon.close()
    assert "/before" in moved.read_text() and "/after" not in moved.read_text()
    assert "/after" in access_path.read_text() and "/before" not in access_path.read_text()


def test_lines_in_hand_are_written_at_the_end(
    world: World, daemon: Daemon, access_path: Path
) -> None:
    world.ask("s0", "WRITE", b"/last\0v")
    assert "/last" not in access_path.read_text()
    daemon.close()
    assert "/last" in access_path.read_text()
