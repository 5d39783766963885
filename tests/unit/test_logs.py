# SPDX-License-Identifier: LGPL-2.1-or-later
"""Log destinations: where rotations fall, what is lost when a disk fails, what syslog gets."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyxsd import logs
from pyxsd.config import Config
from pyxsd.logs import DaemonLog, Log, LogFile, SyslogLog

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes every log that a test made."""
    made: list[Log] = []

    def remember(kind: type[Log]) -> None:
        original = kind.__init__

        def init(self: Log, *arguments: object, **named: object) -> None:
            made.append(self)
            original(self, *arguments, **named)

        monkeypatch.setattr(kind, "__init__", init)

    remember(LogFile)
    remember(SyslogLog)
    before = len(os.listdir("/proc/self/fd"))
    yield
    for log in made:
        log.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "F"


def block(first: int, count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, first + count))


def contents(path: Path) -> dict[str, str]:
    """The log's files, each as the numbers of its lines."""
    return {
        file.name: " ".join(line.split()[-1] for line in file.read_text().splitlines())
        for file in sorted(path.parent.iterdir())
        if file.is_file()
    }


# nb_files, nb_lines, sizes of the blocks written, the files afterwards, rotations told
ROTATIONS: list[tuple[int, int, list[int], dict[str, str], int]] = [
    (3, 3, [3], {"F": "0 1 2"}, 0),
    (3, 3, [4], {"F": "", "F.1": "0 1 2 3"}, 1),
    (3, 3, [1, 1, 1, 1], {"F": "", "F.1": "0 1 2 3"}, 1),
    (3, 3, [5], {"F": "4", "F.1": "0 1 2 3"}, 1),
    (3, 3, [3, 2], {"F": "4", "F.1": "0 1 2 3"}, 1),
    (3, 3, [9], {"F": "8", "F.1": "4 5 6 7", "F.2": "0 1 2 3"}, 1),
    (3, 3, [4, 4, 1], {"F": "8", "F.1": "4 5 6 7", "F.2": "0 1 2 3"}, 2),
    (3, 3, [13], {"F": "12", "F.1": "8 9 10 11", "F.2": "4 5 6 7"}, 1),
    (2, 3, [9], {"F": "8", "F.1": "4 5 6 7"}, 1),
    (1, 3, [5], {"F": "4"}, 1),
    (1, 3, [8], {"F": ""}, 1),
    (4, 0, [1], {"F": "", "F.1": "0"}, 1),
    (4, 0, [3], {"F": "", "F.1": "2", "F.2": "1", "F.3": "0"}, 1),
    (2, -1, [2], {"F": "", "F.1": "1"}, 1),
]


@pytest.mark.parametrize(("nb_files", "nb_lines", "blocks", "files", "told"), ROTATIONS)
def test_rotation(
    log_path: Path,
    nb_files: int,
    nb_lines: int,
    blocks: list[int],
    files: dict[str, str],
    told: int,
) -> None:
    rotations: list[dict[str, str]] = []
    log = LogFile(
        str(log_path), nb_files, nb_lines, rotated=lambda: rotations.append(contents(log_path))
    )
    written = 0
    for count in blocks:
        log.write(block(written, count), count)
        written += count
    assert contents(log_path) == files
    assert len(rotations) == told
    if told:
        assert rotations[-1].keys() == files.keys()
    assert log.lost == 0
    log.close()


def test_rotation_at_the_default_size(log_path: Path) -> None:
    log = LogFile(str(log_path), 2, 13215)
    log.write(block(0, 13214), 13214)
    log.write(block(13214, 5), 5)
    assert log_path.read_bytes() == block(13216, 3)
    assert Path(f"{log_path}.1").read_bytes() == block(0, 13216)


def test_what_stood_there_is_kept_and_not_counted(log_path: Path) -> None:
    log_path.write_bytes(block(90, 9))
    log = LogFile(str(log_path), 2, 3)
    log.write(block(0, 3), 3)
    assert log_path.read_bytes() == block(90, 9) + block(0, 3)


def test_renaming_stops_at_the_first_gap(log_path: Path) -> None:
    for suffix, text in ((".1", b"old 1\n"), (".3", b"old 3\n")):
        Path(f"{log_path}{suffix}").write_bytes(text)
    log = LogFile(str(log_path), 10, 0)
    log.write(b"new 0\n", 1)
    assert contents(log_path) == {"F": "", "F.1": "0", "F.2": "1", "F.3": "3"}


def test_a_block_is_one_write(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = os.write

    def counting(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    log = LogFile(str(log_path), 2, 1000)
    monkeypatch.setattr(os, "write", counting)
    log.write(block(0, 500), 500)
    assert sizes == [len(block(0, 500))]


def test_mode_and_descriptor(log_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        log = LogFile(str(log_path), 2, 10)
    finally:
        os.umask(mask)
    assert log_path.stat().st_mode & 0o7777 == 0o644
    assert not os.get_inheritable(log.fileno())


def test_reopen_follows_the_name_and_keeps_the_count(log_path: Path) -> None:
    log = LogFile(str(log_path), 5, 3)
    log.write(block(0, 2), 2)
    moved = log_path.with_name("moved")
    log_path.rename(moved)
    log.write(block(2, 1), 1)
    log.reopen()
    log.write(block(3, 1), 1)
    assert contents(log_path) == {"F": "", "F.1": "3", "moved": "0 1 2"}


def test_reopen_leaks_no_descriptor(log_path: Path) -> None:
    log = LogFile(str(log_path), 3, 0)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        log.reopen()
        log.write(block(number, 1), 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_deleted_file_is_made_anew(log_path: Path, clock: Clock) -> None:
    log = LogFile(str(log_path), 3, 100, clock=clock)
    log.write(block(0, 1), 1)
    log_path.unlink()
    clock.now += logs.RETRY_SECONDS
    log.write(block(1, 1), 1)
    assert contents(log_path) == {"F": "1"}
    assert log.lost == 0


def test_a_vanished_directory(tmp_path: Path, clock: Clock) -> None:
    told: list[str] = []
    directory = tmp_path / "log"
    directory.mkdir()
    path = directory / "F"
    log = LogFile(str(path), 3, 100, name="access log", complain=told.append, clock=clock)
    log.write(block(0, 1), 1)
    shutil.rmtree(directory)
    for number in range(5):
        clock.now += logs.RETRY_SECONDS
        log.write(block(number, 2), 2)
        log.write(block(number, 3), 3)
    assert log.lost == 25
    assert not log.working
    directory.mkdir()
    log.write(block(0, 1), 1)  # too early to try
    clock.now += logs.RETRY_SECONDS
    log.write(block(7, 1), 1)
    assert contents(path) == {"F": "7"}
    assert told == [
        f"access log {path}: No such file or directory; lines are lost until it can be written"
        " again",
        f"access log {path}: written again, 26 lines were lost",
    ]
    assert log.lost == 26
    # a second failure counts anew
    shutil.rmtree(directory)
    clock.now += logs.RETRY_SECONDS
    log.write(block(0, 1), 1)
    directory.mkdir()
    clock.now += logs.RETRY_SECONDS
    log.write(block(0, 1), 1)
    assert told[3] == f"access log {path}: written again, 1 lines were lost"
    assert log.lost == 27


# destination made in the directory, the reason that is told
UNWRITABLE: list[tuple[Callable[[Path], str], str]] = [
    (lambda directory: str(directory), "Is a directory"),
    (lambda directory: str(directory / "no" / "F"), "No such file or directory"),
    (lambda directory: str(directory / "F\0"), "NUL in the name"),
    (lambda directory: "", "No such file or directory"),
    (lambda directory: make_fifo(directory), "No such device or address"),
]


def make_fifo(directory: Path) -> str:
    os.mkfifo(directory / "fifo")
    return str(directory / "fifo")


@pytest.mark.parametrize(("make", "reason"), UNWRITABLE)
def test_an_unwritable_destination(
    tmp_path: Path, clock: Clock, make: Callable[[Path], str], reason: str
) -> None:
    told: list[str] = []
    log = LogFile(make(tmp_path), 3, 1, complain=told.append, clock=clock)
    for _turn in range(4):
        log.write(block(0, 5), 5)
        clock.now += 0.4
    log.reopen()
    log.close()
    log.write(block(0, 5), 5)
    assert log.lost == 25
    assert len(told) == 1
    assert f": {reason}; " in told[0]


def test_a_full_device_is_tried_once_a_second(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    calls: list[int] = []
    write = os.write

    def counting(fd: int, data: bytes) -> int:
        calls.append(fd)
        return write(fd, data)

    told: list[str] = []
    log = LogFile("/dev/full", 3, 1, complain=told.append, clock=clock)
    monkeypatch.setattr(os, "write", counting)
    for _turn in range(100):
        log.write(block(0, 10), 10)
        clock.now += logs.RETRY_SECONDS / 10 + 1e-6
    assert len(calls) == 10
    assert log.lost == 1000
    assert told == ["log /dev/full: No space left on device; "
                    "lines are lost until it can be written again"]  # fmt: skip


def test_a_device_is_never_renamed(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    rotations: list[int] = []
    log = LogFile(str(link), 3, 1, rotated=lambda: rotations.append(1))
    log.write(block(0, 10), 10)
    assert [file.name for file in tmp_path.iterdir()] == ["null"]
    assert rotations == [1]
    assert log.lost == 0


def test_a_rotation_that_is_refused_loses_nothing(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_old: str, _new: str) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    told: list[str] = []
    log = LogFile(str(log_path), 3, 3, complain=told.append)
    monkeypatch.setattr(os, "rename", refuse)
    log.write(block(0, 6), 6)
    assert contents(log_path) == {"F": "0 1 2 3 4 5"}
    assert told == [f"log {log_path}: not rotated: Permission denied"]
    monkeypatch.undo()
    log.write(block(6, 2), 2)
    assert contents(log_path) == {"F": "", "F.1": "0 1 2 3 4 5 6 7"}
    assert log.lost == 0


class FullAfter:
    """os.write of a disk with `space` bytes left: writes what fits, then fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
        self.space = 0
        self._error = error
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.space:
            raise OSError(self._error, os.strerror(self._error))
        done = self._write(fd, data[: self.space])
        self.space -= done
        return done


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("nb_lines", [1000, 3, 0])
@pytest.mark.parametrize("first", range(0, 8 * 7 + 1))
def test_a_full_disk_at_every_byte(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, first: int, nb_lines: int,
    error: int,
) -> None:  # fmt: skip
    """8 lines of 7 bytes where `first` bytes fit, then 2 more, then all: whole lines remain."""
    told: list[str] = []
    disk = FullAfter(monkeypatch, error)
    log = LogFile(str(log_path), 20, nb_lines, complain=told.append, clock=clock)
    disk.space = first
    log.write(block(0, 8), 8)
    if log.working:
        assert first == 56
        assert log.lost == 0
        return
    for space in (0, 2, 1 << 20):
        disk.space = space
        clock.now += logs.RETRY_SECONDS
        log.write(b"after \n", 1)
    log.write(b"after \n" * 8, 8)
    assert log.working
    names = [f"{log_path}.{number}" for number in range(20, 0, -1)] + [str(log_path)]
    text = b"".join(Path(name).read_bytes() for name in names if os.path.exists(name))
    lines = text.splitlines(keepends=True)
    assert all(re.fullmatch(rb"line \d\n|after \n", line) for line in lines)
    began = -(-first // 7)  # a line that was begun is completed, not lost
    before = [line for line in lines if line != b"after \n"]
    assert before == block(0, began).splitlines(keepends=True)
    assert log.lost == (8 + 3 + 8) - len(lines)
    assert len(told) == 2
    assert told[1].endswith(f"written again, {log.lost} lines were lost")
    if nb_lines < 1000:
        for name in names[:-1]:
            if os.path.exists(name):
                assert Path(name).read_bytes().count(b"\n") == nb_lines + 1


def test_the_rest_of_a_torn_line_stays_with_its_file(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    disk = FullAfter(monkeypatch, errno.ENOSPC)
    log = LogFile(str(log_path), 2, 100, clock=clock)
    disk.space = 10
    log.write(block(0, 2), 2)
    log_path.rename(log_path.with_name("moved"))
    log.reopen()
    disk.space = 1 << 20
    log.write(block(2, 1), 1)
    assert log_path.read_bytes() == block(2, 1)
    assert log_path.with_name("moved").read_bytes() == b"line 0\nlin"
    assert log.lost == 1


TMPFS_SCRIPT = """
import os, sys
from pyxsd import logs

class Clock:
    now = 100.0
    def __call__(self):
        return self.now

clock, told, directory = Clock(), [], sys.argv[1]
log = logs.LogFile(directory + "/F", 3, 10**6, complain=told.append, clock=clock)
line = b"x" * 99 + b"\\n"
filler = directory + "/filler"
with open(filler, "wb") as file:
    file.write(b"y" * 4096 * 8)
for turn in range(20):
    log.write(line * 100, 100)
    clock.now += 1.0
assert not log.working and "No space left on device" in told[0], told
kept = 2000 - log.lost
os.unlink(filler)
log.write(line * 100, 100)
clock.now += 1.0
assert log.working and len(told) == 2, told
text = open(directory + "/F", "rb").read()
assert text == line * (kept + 100), (len(text), kept)
print("kept", kept, "lost", log.lost)
"""


def test_a_full_file_system(tmp_path: Path) -> None:
    """A real one: a tmpfs of 64 KiB in a mount namespace of its own."""
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k t "$1" && shift && exec "$@"']
    probe = subprocess.run([*mount, "sh", str(tmp_path), "true"], capture_output=True, check=False)
    if probe.returncode:
        reason = f"no private tmpfs (root and unshare are needed): {probe.stderr.decode()}"
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [*mount, "sh", str(tmp_path), sys.executable, "-c", TMPFS_SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept, lost = (int(word) for word in done.stdout.split()[1::2])
    assert kept + lost == 2000
    assert 300 <= kept <= 330  # 32 KiB of lines of 100 bytes


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
