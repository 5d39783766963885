# SPDX-License-Identifier: LGPL-2.1-or-later
"""Log destinations: what syslog gets, the lines of the daemon log, which log is opened."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.system import logs
from pyxsd.system.configuration import Config
from pyxsd.system.logs import DaemonLog, Log, LogFile, SyslogLog
from tests.unit.logkit import Clock, block

pytestmark = pytest.mark.usefixtures("closed_logs")

# --- syslog ---


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
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", str(tmp_path / "log"))
    log = DaemonLog("syslog:daemon", "info", 10, 100, 20)
    log.debug("xenstored", "no")
    log.warn("domain", "text that is longer than nb-chars says")
    pid = os.getpid()
    assert re.fullmatch(HEADER % (30, pid) + logs.FIRST_LINE.encode(), syslogd.recv(4096))
    text = rb"\[domain\] text that is longer than nb-chars says"
    assert re.fullmatch(HEADER % (28, pid) + text, syslogd.recv(4096))


def test_syslog_that_comes_and_goes(tmp_path: Path, clock: Clock) -> None:
    told: list[str] = []
    path = tmp_path / "log"
    log = SyslogLog("user", path=str(path), complain=told.append, clock=clock)
    log.write(b"a\nb\n", 2, "info")
    clock.now += logs.RETRY_SECONDS / 2
    log.write(b"c\n", 1, "info")
    clock.now += logs.RETRY_SECONDS
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
    clock.now += logs.RETRY_SECONDS
    log.write(b"z\n", 1, "info")
    assert syslogd.recv(100).endswith(b": z")
    assert told[1].endswith(f"written again, {log.lost} lines were lost")


# --- the daemon log ---


def daemon_log(path: Path, level: str = "info", **extra: object) -> DaemonLog:
    nb_chars = extra.pop("nb_chars", -1)
    assert isinstance(nb_chars, int)
    return DaemonLog(
        str(path), level, 10, 100, nb_chars, wall_clock=lambda: 1795348854.1884,
        **extra,  # type: ignore[arg-type]
    )  # fmt: skip


FIRST = f"{logs.FIRST_LINE}\n"


def test_lines_of_the_daemon_log(log_path: Path) -> None:
    log = daemon_log(log_path, "debug")
    log.info("xenstored", "No live reload: regular startup")
    log.debug("domain", "domain 0 bind (l 11, r 5)")
    log.warn("xenstored", "w")
    log.error("process", "e")
    assert log_path.read_text() == (
        FIRST
        + "[20261122T12:00:54.188Z| info|xenstored] No live reload: regular startup\n"
        + "[20261122T12:00:54.188Z|debug|domain] domain 0 bind (l 11, r 5)\n"
        + "[20261122T12:00:54.188Z| warn|xenstored] w\n"
        + "[20261122T12:00:54.188Z|error|process] e\n"
    )


# level, what is written of one line at each level
LEVELS = [
    ("debug", "debug info warn error"),
    ("info", "info warn error"),
    ("warn", "warn error"),
    ("error", "error"),
]


@pytest.mark.parametrize(("level", "expected"), LEVELS)
def test_levels(log_path: Path, level: str, expected: str) -> None:
    log = daemon_log(log_path, level)
    for each in ("debug", "info", "warn", "error"):
        log.log(each, "f", each)
        assert log.wants(each) == (each in expected.split())
    first, *lines = log_path.read_text().splitlines()
    assert first == logs.FIRST_LINE
    assert " ".join(line.split("] ")[1] for line in lines) == expected


def test_level_null_and_no_files_make_no_log(log_path: Path) -> None:
    for log in (daemon_log(log_path, "null"), DaemonLog(str(log_path), "debug", 0, 100)):
        log.error("xenstored", "x")
        log.reopen()
        assert log.lost == 0
    assert not log_path.exists()
    assert not daemon_log(log_path, "null").wants("error")


# text, the lines it makes
TEXTS = [
    ("", [""]),
    ("a\nb\n", ["a", "b"]),
    ("a\n\nb", ["a", "", "b"]),
    ("\x1b[2J\t\0\x7f", ["\\027[2J\\009\\000\\127"]),
    ("\udcff é", ["\\udcff é"]),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_texts(log_path: Path, text: str, expected: list[str]) -> None:
    log = daemon_log(log_path)
    log.info("f", text)
    _first, *lines = log_path.read_text(encoding="utf-8").split("\n")[:-1]
    assert lines == [f"[20261122T12:00:54.188Z| info|f] {line}" for line in expected]


# line, nb_chars, what is left
CUTS = [
    (b"12345", -1, b"12345"),
    (b"12345", 0, b"12345"),
    (b"12345", 6, b"12345"),
    (b"12345", 5, b"12.."),
    (b"12345", 4, b"1.."),
    (b"12345", 3, b".."),
    (b"12345", 1, b".."),
    (b"", 1, b""),
    (b"a", 1, b".."),
    (b"x" * 200, 180, b"x" * 177 + b".."),
]


@pytest.mark.parametrize(("line", "nb_chars", "expected"), CUTS)
def test_cut_line(line: bytes, nb_chars: int, expected: bytes) -> None:
    assert logs.cut_line(line, nb_chars) == expected


def test_long_lines_of_the_daemon_log_are_cut(log_path: Path) -> None:
    log = daemon_log(log_path, nb_chars=50)
    log.info("f", "x" * 100)
    assert [len(line) for line in log_path.read_text().splitlines(keepends=True)] == [32, 50]


# seconds, the time as it is written
TIMES = [
    (0.0, "19700101T00:00:00.000Z"),
    (0.9999, "19700101T00:00:00.999Z"),
    (951782399.5, "20000228T23:59:59.500Z"),
    (1795348854.1884, "20261122T12:00:54.188Z"),
]


@pytest.mark.parametrize(("now", "expected"), TIMES)
def test_timestamp(now: float, expected: str) -> None:
    assert logs.timestamp(now) == expected


def test_what_befalls_the_logs_is_told_in_the_other_one(tmp_path: Path, clock: Clock) -> None:
    """Both on a directory that goes and comes back: stderr hears of the daemon log's failure."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    directory = tmp_path / "log"
    directory.mkdir()
    daemon = daemon_log(directory / "d", "warn", clock=clock, stderr=writing)
    access = LogFile(
        str(directory / "a"), 2, 100, name="access log", complain=daemon.complain, clock=clock
    )
    shutil.rmtree(directory)
    clock.now += logs.RETRY_SECONDS
    access.write(block(0, 3), 3)
    stderr = os.read(reading, 4096).decode().splitlines()
    assert [line.split(":")[1] for line in stderr] == [
        f" daemon log {directory}/d",
        f" access log {directory}/a",
    ]
    directory.mkdir()
    clock.now += logs.RETRY_SECONDS
    access.write(block(3, 1), 1)
    lines = [line.split("] ")[1] for line in (directory / "d").read_text().splitlines()]
    assert lines == [
        f"access log {directory}/a: written again, 3 lines were lost",
        f"daemon log {directory}/d: written again, 1 lines were lost",
    ]
    assert daemon.lost == 1
    assert access.lost == 3
    # A stderr that nobody reads any more does not block, and neither does a closed one.
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    shutil.rmtree(directory)
    clock.now += logs.RETRY_SECONDS
    daemon.error("f", "x")
    os.close(reading)
    os.close(writing)


def test_no_space_anywhere_is_survived() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    log = DaemonLog("/dev/full", "info", 10, 100, stderr=full)
    log.error("f", "x")
    assert log.lost == 2
    os.close(full)


# changes of the configuration, type of the access log
ACCESS_LOGS: list[tuple[dict[str, object], type[Log]]] = [
    ({}, LogFile),
    ({"access_log_nb_files": 0}, Log),
    ({"access_log_nb_files": -1}, Log),
    ({"access_log_file": "syslog:daemon"}, SyslogLog),
    ({"access_log_file": "syslog:daemon", "access_log_nb_files": 0}, SyslogLog),
]


@pytest.mark.parametrize(("changes", "kind"), ACCESS_LOGS)
def test_open_access_log(log_path: Path, changes: dict[str, object], kind: type[Log]) -> None:
    told: list[str] = []
    log = logs.open_access_log(Config(**{"access_log_file": str(log_path), **changes}), told.append)
    assert type(log) is kind
    log.close()
    assert told == []


def test_open_daemon_log(log_path: Path) -> None:
    settings = Config(
        xenstored_log_file=str(log_path),
        xenstored_log_level="error",
        xenstored_log_nb_files=2,
        xenstored_log_nb_lines=0,
        xenstored_log_nb_chars=10,
    )
    log = logs.open_daemon_log(settings)
    log.warn("f", "x")
    assert log_path.read_bytes() == b""
    assert log_path.with_name("F.1").read_bytes() == b"Xen Sto..\n"
