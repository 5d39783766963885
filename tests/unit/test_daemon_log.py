# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines of the daemon log, and what it does about its own failures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pyxsd.system import rate_limit
from pyxsd.system.configuration import Config
from pyxsd.system.daemon_log import BANNER, DaemonLog, cut_line, open_daemon_log, timestamp
from pyxsd.system.log import RETRY_SECONDS
from pyxsd.system.log_file import LogFile
from tests.unit.logkit import Clock, block

pytestmark = pytest.mark.usefixtures("closed_logs")


def daemon_log(path: Path, level: str = "info", **extra: object) -> DaemonLog:
    nb_chars = extra.pop("nb_chars", -1)
    assert isinstance(nb_chars, int)
    return DaemonLog(
        str(path), level, 10, 100, nb_chars, wall_clock=lambda: 1795348854.1884,
        **extra,  # type: ignore[arg-type]
    )  # fmt: skip


FIRST = f"{BANNER}\n"


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
    assert first == BANNER
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
    assert cut_line(line, nb_chars) == expected


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
    assert timestamp(now) == expected


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
    clock.now += RETRY_SECONDS
    access.write(block(0, 3), 3)
    stderr = os.read(reading, 4096).decode().splitlines()
    assert [line.split(":")[1] for line in stderr] == [
        f" daemon log {directory}/d",
        f" access log {directory}/a",
    ]
    directory.mkdir()
    clock.now += RETRY_SECONDS
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
    clock.now += RETRY_SECONDS
    daemon.error("f", "x")
    os.close(reading)
    os.close(writing)


def test_no_space_anywhere_is_survived() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    log = DaemonLog("/dev/full", "info", 10, 100, stderr=full)
    log.error("f", "x")
    assert log.lost == 2
    os.close(full)


def test_open_daemon_log(log_path: Path) -> None:
    settings = Config(
        xenstored_log_file=str(log_path),
        xenstored_log_level="error",
        xenstored_log_nb_files=2,
        xenstored_log_nb_lines=0,
        xenstored_log_nb_chars=10,
    )
    log = open_daemon_log(settings)
    log.warn("f", "x")
    assert log_path.read_bytes() == b""
    assert log_path.with_name("F.1").read_bytes() == b"Xen Sto..\n"


def said(path: Path) -> list[str]:
    """The texts of the lines behind the first."""
    return [line.split("] ", 1)[1] for line in path.read_text().splitlines()[1:]]


def test_limited_lines(log_path: Path, clock: Clock) -> None:
    """Some of each kind, then a count when the minute is over, and all begins anew."""
    log = daemon_log(log_path, "warn", clock=clock)
    for number in range(1000):
        log.limited("too long", f"long {number}")
        clock.now += rate_limit.SECONDS / 1000 - 1e-3
    log.limited("broken", "other")
    first = [f"long {number}" for number in range(rate_limit.LINES)]
    assert said(log_path) == [*first, "other"]
    clock.now += 2.0
    log.tell_left_out()
    log.tell_left_out()
    left_out = f"too long: {1000 - rate_limit.LINES} more lines in 60 s"
    assert said(log_path) == [*first, "other", left_out]
    log.limited("too long", "again")
    assert said(log_path)[-2:] == [left_out, "again"]


def test_the_next_line_tells_what_was_left_out(log_path: Path, clock: Clock) -> None:
    log = daemon_log(log_path, "warn", clock=clock)
    for _line in range(rate_limit.LINES + 1):
        log.limited("k", "x", "error", "domain")
    clock.now += rate_limit.SECONDS
    log.limited("k", "y")
    assert said(log_path)[-3:] == ["x", "k: 1 more lines in 60 s", "y"]
    assert "|error|domain] k: 1 more" in log_path.read_text()


@pytest.mark.parametrize(("more", "last"), [(0, "x"), (3, "k: 3 more lines in 60 s")])
def test_the_end_tells_what_was_left_out(
    log_path: Path, clock: Clock, more: int, last: str
) -> None:
    log = daemon_log(log_path, "warn", clock=clock)
    for _line in range(rate_limit.LINES + more):
        log.limited("k", "x")
    log.close()
    assert said(log_path)[-1] == last


def test_limited_lines_of_a_level_that_is_not_wanted(log_path: Path, clock: Clock) -> None:
    log = daemon_log(log_path, "error", clock=clock)
    for _line in range(100):
        log.limited("k", "x")
    log.close()
    assert said(log_path) == []
