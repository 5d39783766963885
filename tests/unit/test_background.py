# SPDX-License-Identifier: LGPL-2.1-or-later
"""Going into the background, and how the calling process ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.processes import line_of, start

DAEMONIZE = """
print('before', flush=True)
result = background.daemonize()
if isinstance(result, background.Verdict):
    sys.stderr.write(result.message)
    sys.exit(result.status)
pid_file, mode = sys.argv[1:]
with open(pid_file + '.new', 'w') as file:
    file.write(f'{os.getpid()} {os.getsid(0)} {os.getppid()} {os.getcwd()}')
if mode == 'ready':
    sys.stderr.write('warning\\n')
    result.ready()
    os.rename(pid_file + '.new', pid_file)
    with open(pid_file + '.stdio', 'w') as file:
        file.write(' '.join(os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)))
    with open(pid_file + '.hold') as fifo:  # lives until the test opens the other end
        fifo.read()
elif mode == 'failed':
    result.failed(7, 'no luck: \\udcff\\n')
elif mode == 'killed':
    os.kill(os.getpid(), 9)
elif mode == 'raises':
    raise RuntimeError('bug')
"""


def test_what_was_said_before_is_said_once() -> None:
    """By the calling process; the daemon does not have it in its buffers. Streams may be
    missing, as Python has it where a descriptor was closed."""
    code = """
sys.stdout = open(1, 'w', buffering=4096, closefd=False)
sys.stdout.write('once\\n')
sys.stderr = None
result = background.daemonize()
if isinstance(result, background.Launch):
    result.ready()
    sys.stdout.flush()
"""
    process = start(code)
    output, _ = process.communicate()
    assert output.split() == ["once"] and process.returncode == 0


def test_daemonize(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    os.mkfifo(f"{pid_file}.hold")
    caller = start(DAEMONIZE, pid_file, "ready")
    # The caller's pipes are closed although the daemon lives: it has left them.
    stdout, stderr = caller.communicate(timeout=60)
    assert (caller.returncode, stdout, stderr) == (0, "before\n", "warning\n")
    with open(f"{pid_file}.hold", "w"):  # opens when the daemon has come to its end of it
        pid, session, parent, directory = pid_file.read_text().split()
        assert pid != session  # no session leader
        assert session != str(os.getsid(0))
        assert parent != str(caller.pid)
        assert directory == os.getcwd()
        assert Path(f"{pid_file}.stdio").read_text() == "/dev/null /dev/null /dev/null"
        os.kill(int(pid), 0)


# how the daemon ends before it is ready: status and stderr of the caller
FAILURES = [
    ("failed", 7, "no luck: \\udcff\n"),
    ("killed", 2, "the daemon ended before it was ready"),
    ("returns", 2, "the daemon ended before it was ready"),
]


@pytest.mark.parametrize(("mode", "status", "message"), FAILURES)
def test_daemonize_fails(tmp_path: Path, mode: str, status: int, message: str) -> None:
    caller = start(DAEMONIZE, tmp_path / "pid", mode)
    stdout, stderr = caller.communicate(timeout=60)
    assert (caller.returncode, stdout, stderr) == (status, "before\n", message)


def test_daemonize_shows_a_bug(tmp_path: Path) -> None:
    caller = start(DAEMONIZE, tmp_path / "pid", "raises")
    _stdout, stderr = caller.communicate(timeout=60)
    assert caller.returncode == 2
    assert "RuntimeError: bug" in stderr
    assert stderr.endswith("the daemon ended before it was ready")


def test_ensure_stdio() -> None:
    code = """
saved = os.dup(1)
for fd in (0, 1, 2):
    os.close(fd)
background.ensure_stdio()
fd = os.open('/dev/null', os.O_RDONLY)
os.write(saved, f"{fd > 2} {os.readlink('/proc/self/fd/2')}\\n".encode())
"""
    process = start(code)
    assert line_of(process) == "True /dev/null"
    process.communicate()
