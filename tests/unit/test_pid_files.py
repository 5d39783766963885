# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pid files of live, killed and foreign daemons, and of racing ones."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.system import pid_file
from pyxsd.system.errors import AlreadyRunning, ServiceError
from pyxsd.system.pid_file import PidFile
from tests.unit.processes import end, line_of, race, start


@pytest.fixture
def pid_path(tmp_path: Path) -> str:
    return str(tmp_path / "xenstored.pid")


def refused(pid_path: str, text: str) -> None:
    """The pid file is held: neither a look at it nor a claim gets past, or leaves it open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AlreadyRunning, match=text):
        pid_file.check_pid_file(pid_path)
    with pytest.raises(AlreadyRunning, match=text):
        PidFile.claim(pid_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pid_file(pid_path: str) -> None:
    mask = os.umask(0o077)
    try:
        held = PidFile.claim(pid_path)
    finally:
        os.umask(mask)
    assert Path(pid_path).read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(os.stat(pid_path).st_mode) == 0o640
    held.remove()
    held.remove()
    assert not os.path.exists(pid_path)


CLAIM_AND_WAIT = """
held = pid_file.PidFile.claim(sys.argv[1])
print('up')
sys.stdin.read()
held.remove()
print('removed')
"""


def test_a_live_daemon_holds_its_pid_file(pid_path: str) -> None:
    process = start(CLAIM_AND_WAIT, pid_path)
    assert line_of(process) == "up"
    text = f"process {process.pid} holds the pid file {pid_path}"
    refused(pid_path, text)
    for configured, given in ((pid_path, ""), ("", pid_path)):
        with pytest.raises(AlreadyRunning, match=text):
            pid_file.claim_pid_files(configured, given)
    assert Path(pid_path).read_text() == f"{process.pid}\n"
    process.communicate()
    assert not os.path.exists(pid_path)
    pid_file.check_pid_file(pid_path)


def test_a_killed_daemon_s_pid_file_is_taken_over(pid_path: str) -> None:
    process = start(CLAIM_AND_WAIT, pid_path)
    assert line_of(process) == "up"
    process.send_signal(signal.SIGKILL)
    # Not waited for yet: a zombie holds no lock and is no live daemon.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(pid_path).read_text() == f"{process.pid}\n"
    pid_file.check_pid_file(pid_path)
    held = PidFile.claim(pid_path)
    assert Path(pid_path).read_text() == f"{os.getpid()}\n"
    held.remove()
    process.communicate()


def test_c_xenstored_s_lock_is_respected(pid_path: str) -> None:
    """It locks with lockf(3) and need not have written its pid yet."""
    code = """
import fcntl
file = open(sys.argv[1], 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print('up')
sys.stdin.read()
"""
    process = start(code, pid_path)
    assert line_of(process) == "up"
    text = f"another process holds the pid file {pid_path}"
    refused(pid_path, text)
    end(process)
    PidFile.claim(pid_path).remove()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[object]:
    """Starts processes that sleep under a name; they are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    sleep = shutil.which("sleep")
    assert sleep is not None

    def start_sleep(name: str, *command: str) -> int:
        program = tmp_path / name
        if command:
            program.write_text("import sys\nsys.stdin.read()\n")
        else:
            shutil.copy(sleep, program)
        process = subprocess.Popen(
            [*command, str(program)] if command else [str(program), "1000"],
            stdin=subprocess.PIPE,
        )
        started.append(process)
        # exec(2) has returned for Popen a moment before the new command line is there to read.
        deadline = time.monotonic() + 10
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline, f"{name} does not start"
        return process.pid

    yield start_sleep
    for process in started:
        process.kill()
        process.communicate()


# name, interpreter before it, whether the process is a xenstored
NAMES = [
    ("oxenstored", (), True),
    ("xenstored", (), True),
    ("oxenstored-4.17", (), True),
    ("xenstored.orig", (), True),
    ("sleep", (), False),
    ("my-xenstored", (), False),
    ("pyxsd", (sys.executable,), True),
    ("pyxsd", (sys.executable, "-u"), True),
    ("other", (sys.executable,), False),
]


@pytest.mark.parametrize(("name", "interpreter", "expected"), NAMES)
def test_pids_are_judged_by_their_process(
    pid_path: str, sleeper: object, name: str, interpreter: tuple[str, ...], expected: bool
) -> None:
    """oxenstored locks nothing: the name tells it from a stranger that got a dead daemon's pid."""
    assert callable(sleeper)
    pid = sleeper(name, *interpreter)
    Path(pid_path).write_text(f"{pid}\n")
    assert pid_file.is_xenstored(pid) is expected
    if expected:
        refused(pid_path, f"process {pid} holds")
        assert Path(pid_path).read_text() == f"{pid}\n"
    else:
        pid_file.check_pid_file(pid_path)
        PidFile.claim(pid_path).remove()


@pytest.mark.parametrize("hidden", [False, True])
def test_anybody_else_may_call_a_process_xenstored(
    pid_path: str, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """He that gets the pid of a daemon which has died keeps the next one from starting, else.  The
    folder of a process that hides its memory is root's, whoever has started it."""
    # It becomes somebody else itself, who may not be able to read this interpreter.
    code = (
        "import os, ctypes; c = ctypes.CDLL(None); os.getuid() or os.setuid(65534); "
        "c.prctl(15, b'xenstored'); c.prctl(4, %d); print(flush=True); os.read(0, 1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code % (not hidden)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    Path(pid_path).write_text(f"{process.pid}\n")
    if os.getuid():
        assert pid_file.is_xenstored(process.pid)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not pid_file.is_xenstored(process.pid)
    pid_file.check_pid_file(pid_path)
    PidFile.claim(pid_path).remove()
    process.communicate(b"\n")


def test_a_zombie_is_no_live_daemon(sleeper: object) -> None:
    assert callable(sleeper)
    pid = sleeper("oxenstored")
    assert pid_file.is_xenstored(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{pid}/comm").read_text() == "oxenstored\n"
    assert not pid_file.is_xenstored(pid)


# what a stale pid file may hold
CONTENTS = [b"", b"\n", b"0\n", b"-1\n", b"x\n", b"\xff\0", b"9" * 31, b"99999999\n", b"1" * 5000]


@pytest.mark.parametrize("text", [*CONTENTS, f"{os.getpid()}\n".encode()])
def test_stale_contents(pid_path: str, text: bytes) -> None:
    """Among them one's own pid: after a reboot, or in a live update."""
    Path(pid_path).write_bytes(text)
    pid_file.check_pid_file(pid_path)
    held = PidFile.claim(pid_path)
    assert Path(pid_path).read_text() == f"{os.getpid()}\n"
    held.remove()


def test_another_s_pid_file_is_not_removed(pid_path: str) -> None:
    held = PidFile.claim(pid_path)
    os.unlink(pid_path)
    Path(pid_path).write_text("1\n")
    held.remove()
    assert Path(pid_path).read_text() == "1\n"


def test_a_pid_file_that_somebody_wrote_anew_for_this_process_is_removed(pid_path: str) -> None:
    """pyxsd-launch does so for a start script that removed it and waits for it."""
    held = PidFile.claim(pid_path)
    os.unlink(pid_path)
    Path(pid_path).write_text(f"{os.getpid()}\n")
    held.remove()
    assert not os.path.exists(pid_path)


@pytest.mark.parametrize(("anew", "held"), [("", True), ("1", False), (None, False)])
def test_a_pid_file_that_somebody_wrote_anew_is_handed_over(
    pid_path: str, anew: str | None, held: bool
) -> None:
    """Where the daemon's pid stands in it; and what is another's stays as it is."""
    first = PidFile.claim(pid_path)
    os.unlink(pid_path)
    if anew is not None:
        Path(pid_path).write_text(f"{anew or os.getpid()}\n", encoding="ascii")
    successor = PidFile.adopt(pid_path, os.dup(first.fileno()))
    first.leave()
    number = successor.fileno()
    successor.pid = 4_000_000
    successor.write()
    assert successor.fileno() == number and not os.get_inheritable(number)
    if anew is not None:
        with open(pid_path, encoding="ascii") as file:
            assert file.read() == ("4000000\n" if held else f"{anew}\n")
            assert pid_file._is_locked(file.fileno()) == held
            found = os.fstat(file.fileno())
        assert (successor.identity == (found.st_dev, found.st_ino)) == held
    successor.remove()
    assert os.path.exists(pid_path) == (anew is not None and not held)


def test_a_device_as_pid_file() -> None:
    before = len(os.listdir("/proc/self/fd"))
    first = PidFile.claim("/dev/null")
    second = PidFile.claim("/dev/null")
    first.remove()
    second.remove()
    assert os.path.exists("/dev/null")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("stale", [False, True])
def test_of_racing_daemons_one_gets_the_pid_file(pid_path: str, stale: bool) -> None:
    if stale:
        Path(pid_path).write_text("99999999\n")
    code = """
try:
    held = pid_file.PidFile.claim(sys.argv[1])
except errors.AlreadyRunning as error:
    print('refused', error)
else:
    print('won', os.getpid())
sys.stdin.read()
"""
    results = race(code, pid_path)
    assert len([result for result in results if result.startswith("won")]) == 1
    assert f"won {Path(pid_path).read_text().strip()}" in results


def test_claiming_while_others_remove(pid_path: str) -> None:
    """At any time at most one holds the file, and the one at the path is the holder's."""
    code = """
witness = sys.argv[2]
wins = 0
while wins < 50:
    try:
        held = pid_file.PidFile.claim(sys.argv[1])
    except errors.AlreadyRunning:
        continue
    os.close(os.open(witness, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert open(sys.argv[1]).read() == f"{os.getpid()}\\n"
    wins += 1
    os.unlink(witness)
    held.remove()
print('done')
"""
    processes = [start(code, pid_path, pid_path + ".witness") for _ in range(4)]
    assert [line_of(process) for process in processes] == ["done"] * 4
    for process in processes:
        process.communicate()
    assert not os.path.exists(pid_path)


def test_both_pid_files(tmp_path: Path) -> None:
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    held, warnings = pid_file.claim_pid_files(*names)
    assert warnings == []
    assert [Path(name).read_text() for name in names] == [f"{os.getpid()}\n"] * 2
    for file in held:
        file.remove()
    assert os.listdir(tmp_path) == []
    assert pid_file.claim_pid_files("", "") == ([], [])


def test_the_same_pid_file_twice(tmp_path: Path) -> None:
    """/var/run/x and /run/x are one file, as on every host."""
    (tmp_path / "link").symlink_to(tmp_path)
    held, warnings = pid_file.claim_pid_files(str(tmp_path / "x"), str(tmp_path / "link" / "x"))
    assert (len(held), warnings) == (1, [])
    held[0].remove()
    assert not (tmp_path / "x").exists()


def test_failures_of_both_pid_files(tmp_path: Path) -> None:
    good, bad = str(tmp_path / "good"), str(tmp_path / "no" / "bad")
    held, warnings = pid_file.claim_pid_files(bad, good)
    assert warnings == [f"cannot write the pid file {bad}: No such file or directory"]
    held[0].remove()
    with pytest.raises(ServiceError, match=f"cannot write the pid file {bad}: No such file"):
        pid_file.claim_pid_files(good, bad)
    with pytest.raises(ServiceError, match=r"cannot write the pid file .*: Is a directory"):
        pid_file.claim_pid_files(good, str(tmp_path))
    with pytest.raises(ServiceError, match="NUL in the name"):
        pid_file.claim_pid_files(good, "\0")
    assert not os.path.exists(good)


def test_a_xenstored_under_other_names(tmp_path: Path) -> None:
    """Its program decides where neither the process nor its command line is called so."""
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    program = tmp_path / "oxenstored"
    shutil.copy(shell, program)
    process = subprocess.Popen(
        ["other", "-c", "printf other > /proc/$$/comm; echo; read line"],
        executable=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    assert Path(f"/proc/{process.pid}/comm").read_text() == "other\n"
    assert pid_file.is_xenstored(process.pid)
    process.communicate(b"\n")


def test_without_proc_a_process_that_exists_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather no start than two daemons on one store."""
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    process = subprocess.Popen(["sleep", "1000"])
    assert pid_file.is_xenstored(process.pid)
    process.kill()
    process.wait()
    assert not pid_file.is_xenstored(process.pid)


def test_a_file_that_cannot_be_read() -> None:
    """As on a disk with a fault: nobody is known to hold it."""
    with open("/proc/self/mem", "rb", buffering=0) as file:
        with pytest.raises(OSError, match="Input/output error"):
            file.read(32)
    pid_file.check_pid_file("/proc/self/mem")
