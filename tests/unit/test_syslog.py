# SPDX-License-Identifier: LGPL-2.1-or-later
"""What syslog gets, and what happens when it does not take it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.system import syslog
from pyxsd.system.daemon_log import BANNER, DaemonLog
from pyxsd.system.log import RETRY_SECONDS
from pyxsd.system.syslog import SyslogLog
from tests.unit.logkit import Clock

pytestmark = pytest.mark.usefixtures("closed_logs")


@pytest.fixture
def syslogd(tmp_path: Path) -> Iterator[socket.socket]:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(tmp_path / "log"))
    server.settimeout(10)
    yield server
    server.close()


HEADER = rb"<%d>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d pyxsd\[%d\]: "

# line of the access log, what syslog gets, its severity
ACCESS_LINES: list[tuple[bytes, bytes, int]] = [
    (b"DOM5         write     /a v", b" DOM5         write     /a v", 6),
    (b"DOM5         error     EACCES ", b" DOM5         error     EACCES ", 4),
    (b"DOM5.7       t start   ", b" DOM5.7       t start   ", 7),
    (b"DOM0 (ANON CONN #1) newconn   ", b" DOM0 (ANON CONN #1) newconn   ", 7),
    (b"DOM0 (ANON CONN #1).4 error     EAGAIN ", b" DOM0 (ANON CONN #1).4 error     EAGAIN ", 4),
    (
        b"r(2):DOM0 (ANON CONN #1).3 t start   ",
        b" r(2):DOM0 (ANON CONN #1).3 t start   ",
        7,
    ),
    (b"DOM0 (ANON CONN #1).4 coalesce  write /a/b", b" DOM0 (ANON CONN #1).4 coalesce  write /a/b",
     7),
    (b"DOM5         w event   a error ", b" DOM5         w event   a error ", 6),
    (b"DOM5         is introduced 7 ", b" DOM5         is introduced 7 ", 6),
    (b"=======>     debug     hello", b" =======>     debug     hello", 6),
    (b"DOM5         endconn   ", b" DOM5         endconn   ", 7),
    (b"", b" ", 6),
]  # fmt: skip


def test_access_log_lines_to_syslog(tmp_path: Path, syslogd: socket.socket) -> None:
    log = SyslogLog("local3", path=str(tmp_path / "log"))
    lines = [
        b"[20261122T12:00:54.870Z]  " + line + b"\n" for line, _sent, _severity in ACCESS_LINES
    ]
    for start in range(0, len(lines), 5):  # a queue of datagrams is short
        log.write(b"".join(lines[start : start + 5]), len(lines[start : start + 5]))
        for _line, sent, severity in ACCESS_LINES[start : start + 5]:
            header = HEADER % (19 * 8 + severity, os.getpid())
            got = syslogd.recv(4096)
            assert re.fullmatch(header + re.escape(sent), got), got
    assert log.lost == 0


def test_daemon_log_to_syslog(
    tmp_path: Path, syslogd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "SYSLOG_SOCKET", str(tmp_path / "log"))
    log = DaemonLog("syslog:daemon", "info", 10, 100, 20)
    log.debug("xenstored", "no")
    log.warn("domain", "text that is longer than nb-chars says")
    pid = os.getpid()
    assert re.fullmatch(HEADER % (30, pid) + BANNER.encode(), syslogd.recv(4096))
    text = rb"\[domain\] text that is longer than nb-chars says"
    assert re.fullmatch(HEADER % (28, pid) + text, syslogd.recv(4096))


def test_syslog_that_comes_and_goes(tmp_path: Path, clock: Clock) -> None:
    told: list[str] = []
    path = tmp_path / "log"
    log = SyslogLog("user", path=str(path), complain=told.append, clock=clock)
    log.write(b"a\nb\n", 2, "info")
    clock.now += RETRY_SECONDS / 2
    log.write(b"c\n", 1, "info")
    clock.now += RETRY_SECONDS
    assert log.lost == 3
    assert told == ["log syslog:user: No such file or directory; lines are lost"]
    for letter in (b"d", b"e"):  # the second server takes the first one's place unnoticed
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(str(path))
        server.settimeout(10)
        log.write(letter + b"\n", 1, "info")
        assert server.recv(100).endswith(b": " + letter)
        server.close()
        path.unlink()
    assert log.lost == 3
    assert told[1:] == ["log syslog:user: written again, 3 lines were lost"]


class SlowReader:
    """select.poll of a queue that has room for one more line after `seconds` of waiting."""

    def __init__(self, syslogd: socket.socket, clock: Clock, seconds: float) -> None:
        self._syslogd = syslogd
        self._clock = clock
        self._seconds = seconds
        self.waited = 0.0
        self.read = 0

    def __call__(self) -> SlowReader:
        return self

    def register(self, _fd: int, _events: int) -> None:
        pass

    def poll(self, milliseconds: float) -> None:
        waited = min(self._seconds, milliseconds / 1000)
        self.waited += waited
        self._clock.now += waited
        if waited == self._seconds:
            self._syslogd.recv(100)
            self.read += 1


@pytest.mark.parametrize("seconds", [0.019, 0.001, 1.0])
@pytest.mark.parametrize("size", [1, 600])
def test_a_slow_syslog_is_waited_for_20_ms_in_a_second(
    tmp_path: Path, syslogd: socket.socket, clock: Clock, monkeypatch: pytest.MonkeyPatch,
    size: int, seconds: float,
) -> None:  # fmt: skip
    """In all, whether 600 lines come in one block or one by one."""
    slow = SlowReader(syslogd, clock, seconds)
    monkeypatch.setattr("select.poll", slow)
    log = SyslogLog("user", path=str(tmp_path / "log"), clock=clock)
    allowed = syslog.SYSLOG_WAIT_MS / 1000 + 1e-9
    for second in range(1, 4):
        began = clock.now
        for _block in range(600 // size):
            log.write(b"x\n" * size, size, "info")
        assert 0 < slow.waited <= second * allowed
        clock.now = began + 1.1
    # What was waited for was written.
    queued = 1800 - log.lost - slow.read
    for _line in range(queued):
        assert syslogd.recv(100).endswith(b": x")


def test_a_stuck_syslog_does_not_block(
    tmp_path: Path, syslogd: socket.socket, clock: Clock
) -> None:
    told: list[str] = []
    log = SyslogLog("user", path=str(tmp_path / "log"), complain=told.append, clock=clock)
    log.write(b"x\n" * 5000, 5000, "info")  # nobody reads: its queue takes some, the rest is lost
    assert 0 < log.lost < 5000
    queued = 5000 - log.lost
    log.write(b"y\n", 1, "info")
    assert 5000 - log.lost == queued - 1
    assert len(told) == 1
    for _line in range(queued):
        assert syslogd.recv(100).endswith(b": x")
    clock.now += RETRY_SECONDS
    log.write(b"z\n", 1, "info")
    assert syslogd.recv(100).endswith(b": z")
    assert told[1].endswith(f"written again, {log.lost} lines were lost")
