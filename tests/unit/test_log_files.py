# SPDX-License-Identifier: LGPL-2.1-or-later
"""Log files: where rotations fall, and what is lost when a disk fails."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyxsd.system.daemon_log import BANNER, DaemonLog
from pyxsd.system.log import RETRY_SECONDS
from pyxsd.system.log_file import LogFile
from tests.unit.logkit import Clock, block, contents

pytestmark = pytest.mark.usefixtures("closed_logs")

ROOT = Path(__file__).resolve().parents[2]

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
    (1, 3, [8], {"F": "4 5 6 7"}, 1),
    (1, 3, [8, 1], {"F": "8"}, 2),
    (1, 3, [4, 4], {"F": ""}, 2),
    (4, 0, [1], {"F": "", "F.1": "0"}, 1),
    (4, 0, [3], {"F": "", "F.1": "2", "F.2": "1", "F.3": "0"}, 1),
    (2, -1, [2], {"F": "", "F.1": "1"}, 1),
    # no more rotations in one block than there are files
    (2, 0, [5], {"F": "2 3 4", "F.1": "1"}, 1),
    (2, 0, [5, 2], {"F": "6", "F.1": "5"}, 2),
    (0, 0, [2], {"F": "1"}, 1),
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


def test_reopen_follows_the_name_and_keeps_the_count(log_path: Path, clock: Clock) -> None:
    log = LogFile(str(log_path), 5, 3, clock=clock)
    log.write(block(0, 2), 2)
    moved = log_path.with_name("moved")
    log_path.rename(moved)
    log.write(block(2, 1), 1)
    log.reopen()
    log.write(block(3, 1), 1)
    assert contents(log_path) == {"F": "", "F.1": "3", "moved": "0 1 2"}


def test_a_closed_log_stays_closed(log_path: Path, clock: Clock) -> None:
    """What is written later is lost, and makes no file, however long it takes; it is counted."""
    log = LogFile(str(log_path), 2, 100, clock=clock)
    log.write(b"first\n", 1)
    log.close()
    log_path.unlink()
    for _ in range(3):
        clock.now += 100
        log.write(b"late\n", 1)
    assert not log_path.exists() and log.fileno() == -1
    assert (log.lost, log.working) == (3, False)


def test_reopen_leaks_no_descriptor(log_path: Path) -> None:
    log = LogFile(str(log_path), 3, 0)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        log.reopen()
        log.write(block(number, 1), 1)
    assert len(os.listdir("/proc/self/fd")) == before


# What somebody else does to the file F, and the files afterwards.
TAKEN: list[tuple[Callable[[Path], object], dict[str, str]]] = [
    (lambda path: path.unlink(), {"F": "1"}),
    (lambda path: path.rename(path.with_name("moved")), {"F": "1", "moved": "0"}),
    (lambda path: shutil.move(path, path.with_name("moved")) and path.write_text("new 7\n"),
     {"F": "7 1", "moved": "0"}),
    (lambda path: os.replace(shutil.copy(path, path.with_name("copy")), path), {"F": "0 1"}),
    (lambda path: os.truncate(path, 0), {"F": "1"}),
]  # fmt: skip


@pytest.mark.parametrize(("take", "files"), TAKEN)
def test_a_file_that_is_taken_away(
    log_path: Path, clock: Clock, take: Callable[[Path], object], files: dict[str, str]
) -> None:
    """Within a second, and without SIGHUP, lines go where the name leads; none is lost."""
    log = LogFile(str(log_path), 3, 100, clock=clock)
    log.write(block(0, 1), 1)
    take(log_path)
    clock.now += RETRY_SECONDS
    log.write(block(1, 1), 1)
    assert contents(log_path) == files
    assert log.lost == 0


def test_the_name_is_looked_at_once_a_second(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    stat: Any = os.stat
    log = LogFile(str(log_path), 3, 100000, clock=clock)

    def counted(path: object, *rest: Any, **keys: Any) -> os.stat_result:
        looks.append(path)
        return stat(path, *rest, **keys)

    monkeypatch.setattr(os, "stat", counted)
    for number in range(100):
        log.write(block(number, 1), 1)
        clock.now += RETRY_SECONDS / 10 + 1e-6
    assert looks == [str(log_path)] * 10


def test_a_name_that_cannot_be_followed_is_no_reason_to_leave(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    told: list[str] = []
    log = LogFile(str(log_path), 3, 100, complain=told.append, clock=clock)
    log.write(block(0, 1), 1)
    clock.now += RETRY_SECONDS
    with monkeypatch.context() as context:
        context.setattr(os, "stat", refuse)
        context.setattr(os, "open", refuse)
        log.write(block(1, 1), 1)
    assert contents(log_path) == {"F": "0 1"}
    assert told == []


def test_a_vanished_directory(tmp_path: Path, clock: Clock) -> None:
    told: list[str] = []
    directory = tmp_path / "log"
    directory.mkdir()
    path = directory / "F"
    log = LogFile(str(path), 3, 100, name="access log", complain=told.append, clock=clock)
    log.write(block(0, 1), 1)
    shutil.rmtree(directory)
    for number in range(5):
        clock.now += RETRY_SECONDS
        log.write(block(number, 2), 2)
        log.write(block(number, 3), 3)
    assert log.lost == 25
    assert not log.working
    directory.mkdir()
    log.write(block(0, 1), 1)  # too early to try
    clock.now += RETRY_SECONDS
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
    clock.now += RETRY_SECONDS
    log.write(block(0, 1), 1)
    directory.mkdir()
    clock.now += RETRY_SECONDS
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
    assert len(told) == 1  # at once: it may be long until there is something to write
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
        clock.now += RETRY_SECONDS / 10 + 1e-6
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


class Refusal:
    """os.rename as it is where renaming is not permitted; counts how often it is tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr(os, "rename", self)

    def __call__(self, _old: str, _new: str) -> None:
        self.calls += 1
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_rotation_that_is_refused_loses_nothing(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    log = LogFile(str(log_path), 3, 3, complain=told.append, clock=clock)
    Refusal(monkeypatch)
    log.write(block(0, 6), 6)
    assert contents(log_path) == {"F": "0 1 2 3 4 5"}
    assert told == [f"log {log_path}: not rotated: Permission denied"]
    monkeypatch.undo()
    log.write(block(6, 2), 2)
    assert contents(log_path) == {"F": "0 1 2 3 4 5 6 7"}  # too early to try
    clock.now += RETRY_SECONDS
    log.write(block(8, 2), 2)
    assert contents(log_path) == {"F": "8 9", "F.1": "0 1 2 3 4 5 6 7"}
    # The next time it is told again.
    Refusal(monkeypatch)
    log.write(block(10, 2), 2)
    assert contents(log_path) == {"F": "8 9 10 11", "F.1": "0 1 2 3 4 5 6 7"}
    assert told == [f"log {log_path}: not rotated: Permission denied"] * 2
    assert log.lost == 0


@pytest.mark.parametrize("nb_lines", [0, 3])
def test_refused_rotations_are_tried_once_a_second_and_told_once(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, nb_lines: int
) -> None:
    told: list[str] = []
    log = LogFile(str(log_path), 3, nb_lines, complain=told.append, clock=clock)
    refusal = Refusal(monkeypatch)
    for number in range(100):
        log.write(block(10 * number, 10), 10)
        clock.now += RETRY_SECONDS / 10 + 1e-6
    assert refusal.calls == 10
    assert len(told) == 1
    assert log_path.read_bytes() == block(0, 1000)


def test_the_daemon_log_tells_its_own_refused_rotation_in_itself(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that tells it is due for a rotation itself."""
    Refusal(monkeypatch)
    with open(os.devnull, "wb") as null:
        log = DaemonLog(str(log_path), "warn", 3, 0, clock=clock, stderr=null.fileno())
        log.warn("f", "x")
    lines = [line.split("] ")[-1] for line in log_path.read_text().splitlines()]
    assert lines == [BANNER, f"daemon log {log_path}: not rotated: Permission denied", "x"]
    assert log.lost == 0


def test_a_torn_line_ends_in_its_file_before_a_late_rotation(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullAfter(monkeypatch, errno.ENOSPC)
    disk.space = 1 << 20
    log = LogFile(str(log_path), 3, 0, clock=clock)
    with monkeypatch.context() as context:
        Refusal(context)
        log.write(block(0, 1), 1)
        disk.space = 3
        log.write(block(1, 1), 1)
    disk.space = 1 << 20
    clock.now += RETRY_SECONDS
    log.write(block(2, 1), 1)
    assert contents(log_path) == {"F": "", "F.1": "2", "F.2": "0 1"}


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
        clock.now += RETRY_SECONDS
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


def test_a_torn_line_is_completed_in_the_same_file_after_sighup(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    disk = FullAfter(monkeypatch, errno.ENOSPC)
    log = LogFile(str(log_path), 2, 100, clock=clock)
    disk.space = 10
    log.write(block(0, 2), 2)
    log.reopen()
    disk.space = 1 << 20
    log.write(block(2, 1), 1)
    assert log_path.read_bytes() == block(0, 3)
    assert log.lost == 0


TMPFS_SCRIPT = """
import os, sys
from pyxsd.system.log_file import LogFile

class Clock:
    now = 100.0
    def __call__(self):
        return self.now

clock, told, directory = Clock(), [], sys.argv[1]
log = LogFile(directory + "/F", 3, 10**6, complain=told.append, clock=clock)
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
