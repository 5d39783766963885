# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first hour with the project: `make run` and the tools, used well and badly."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.copy import DEADLINE, ROOT, MakeRun, environment


def run(copy: Path, *command: str, **extra: str) -> tuple[int, str]:
    """(status, stdout and stderr) of a command in the copy."""
    done = subprocess.run(
        command,
        cwd=copy,
        env={**environment(copy), **extra},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=DEADLINE,
    )
    return done.returncode, done.stdout


def ask(copy: Path, *words: str) -> tuple[int, str]:
    """(status, output) of tools/ask.py."""
    return run(copy, sys.executable, "tools/ask.py", *words)


#: Words for ask.py in order, each with status and output (a pattern for the whole).
BOOT = r"domain 5 writes: OK\ndomain 5 reads: guest\n"
STEPS: tuple[tuple[list[str], int, str], ...] = (
    (["write", "/hello", "world", "ls", "/"], 0, r"(?s).*hello = 'world'\n.*"),
    (["write", "/hello", "world", "read", "/hello"], 0, r"world\n"),
    (["domain", "5"], 0, BOOT),
    (["domain", "5"], 0, r"domain 5 is destroyed\n" + BOOT),
    (["ls", "/local/domain"], 0, r"5 = ''\n name = 'guest'\n"),
    (["perms", "/local/domain/5"], 0, r"n5\n"),
    (["mkdir", "/m", "perms", "/m", "rm", "/m"], 0, r"n0\n"),
    (["write", "/deep" + "/d" * 1010, "x", "ls", "/deep"], 0, r"(?s).* d = 'x'\n"),
    (["write", "/bytes", "\udcff", "read", "/bytes"], 0, r"\\xff\n"),
    # wrong input: one line, no traceback
    (["read", "/none"], 1, r"read /none: ENOENT\n"),
    (["domain", "five"], 1, r"domain five: a domid is a number from 1 to 32751\n"),
    (["domain", "0"], 1, r"domain 0: a domid is a number from 1 to 32751\n"),
    (["domain", "9" * 5000], 1, r"domain 9{200}\.\.: a domid is a number from 1 to 32751\n"),
    (["write", "/x", "y" * 5000], 1, r"write /x: more than the 4096 bytes .*\n"),
    (["write", "relative path", "y"], 1, r"write relative path: EINVAL\n"),
    (["wrote"], 1, r"(?s)unknown command 'wrote'\nTalks to the daemon.*"),
    (["read"], 1, r"(?s)read: an argument is missing\nTalks to.*"),
    ([], 2, r"(?s)Talks to the daemon.*"),
    (["--help"], 0, r"(?s)Talks to the daemon.*"),
)


def test_make_run(copy: Path, running: MakeRun) -> None:
    """It says when it is ready; a second one leaves it alone; Ctrl-C leaves no socket."""
    socket = copy / "run" / "socket"
    assert running.seen[-1] == f"ready: {socket}"
    for words, status, output in STEPS:
        got = ask(copy, *words)
        assert got[0] == status and re.fullmatch(output, got[1]), (words[:2], got)
    inodes = [path.stat().st_ino for path in (socket, copy / "run" / "host")]
    status, output = run(copy, "make", "run")
    assert status != 0
    assert "A pyxsd runs here already" in output and "python3 tools/ask.py" in output
    assert [path.stat().st_ino for path in (socket, copy / "run" / "host")] == inodes
    assert ask(copy, "domain", "6")[0] == 0
    running.interrupt()
    assert running.wait_for("Goodbye") == f"Goodbye. The logs are in {copy}/run/."
    running.process.wait(DEADLINE)
    assert not socket.exists()
    assert ask(copy, "ls", "/") == (
        1,
        f"ls /: {socket}: No such file or directory: is `make run` running?\n",
    )


def control(client: socket.socket, *words: bytes) -> bytes:
    """The answer to a CONTROL."""
    payload = b"".join(word + b"\0" for word in words)
    client.sendall(struct.pack("=IIII", 0, 1, 0, len(payload)) + payload)
    return client.recv(4096)[16:].rstrip(b"\0")


def test_make_run_follows_a_live_update(copy: Path, running: MakeRun) -> None:
    """The daemon that took over is served by as before, and Ctrl-C ends it."""
    pid_file = copy / "run" / "xenstored.pid"
    assert ask(copy, "write", "/hello", "world")[0] == 0
    for _ in range(2):
        before = pid_file.read_text()
        old = os.pidfd_open(int(before))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(copy / "run" / "socket"))
            client.settimeout(DEADLINE)
            while (told := control(client, b"live-update", b"-s")) == b"BUSY":
                pass
            assert told == b"OK" and pid_file.read_text() != before
        assert select.select([old], [], [], DEADLINE)[0]  # it may stay for a second
        os.close(old)
        assert ask(copy, "read", "/hello") == (0, "world\n")
    last = os.pidfd_open(int(pid_file.read_text()))
    running.interrupt()
    assert running.wait_for("Goodbye") == f"Goodbye. The logs are in {copy}/run/."
    running.process.wait(DEADLINE)
    assert not (copy / "run" / "socket").exists()
    assert select.select([last], [], [], 0)[0]
    os.close(last)


def test_make_run_whose_terminal_is_closed(copy: Path, running: MakeRun) -> None:
    """The daemon ends, though SIGHUP has another meaning for itself."""
    daemon = os.pidfd_open(int((copy / "run" / "xenstored.pid").read_text()))
    running.hang_up()
    assert running.wait_for("Goodbye")
    assert not (copy / "run" / "socket").exists()
    assert select.select([daemon], [], [], DEADLINE)[0]
    os.close(daemon)


def test_nobody_reads_on(copy: Path, running: MakeRun) -> None:
    """`ask.py ls / | true` is no traceback."""
    status, output = run(
        copy,
        "bash",
        "-c",
        "set -o pipefail; python3 tools/ask.py " + "ls / " * 2000 + "| head -n 1",
    )
    assert output.count("\n") == 1, output[-400:]
    assert status in (0, 1)


def test_run_py_takes_no_arguments(copy: Path) -> None:
    status, output = run(copy, sys.executable, "tools/run.py", "extra")
    assert (status, output.splitlines()[0]) == (1, "run.py takes no arguments.")


NEEDS = """
import sys
sys.path.insert(0, 'tools')
import needs
for name in sys.argv[1:]:
    setattr(needs, name, lambda: False)
needs.NEEDS = tuple((getattr(needs, have.__name__, have), *rest) for have, *rest in needs.NEEDS)
print(needs.missing())
"""

#: What is not there, and the line that says so.
MISSING: tuple[tuple[list[str], str], ...] = (
    ([], ""),
    (["has_compiler"], "pyxsd cannot be built: a C compiler missing. On Debian: apt install gcc"),
    (
        ["has_headers", "has_venv"],
        "pyxsd cannot be built: the headers of Python, Python's venv "
        "missing. On Debian: apt install python3-dev python3-venv",
    ),
)


@pytest.mark.parametrize(("names", "line"), MISSING)
def test_what_is_missing(names: list[str], line: str) -> None:
    assert run(ROOT, sys.executable, "-c", NEEDS, *names) == (0, line + "\n")


def test_the_checks_find_what_is_not_there(tmp_path: Path) -> None:
    status, output = run(ROOT, sys.executable, "tools/needs.py", CC="/none/cc -O2")
    assert (status, output.count("\n")) == (1, 1)
    assert "a C compiler missing. On Debian: apt install gcc" in output
    status, output = run(ROOT, sys.executable, "tools/needs.py", PATH=str(tmp_path), CC="")
    assert "a C compiler, make missing. On Debian: apt install gcc make" in output


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        ("CC=/none/cc", "a C compiler missing. On Debian: apt install gcc"),
        ("PYTHON=/none/python3", "Python 3.9 or later missing. On Debian: apt install python3"),
    ],
)
def test_make_says_what_is_missing_before_it_begins(
    copy: Path, tmp_path: Path, variable: str, line: str
) -> None:
    """One line, and make's own word that it failed."""
    name, _, value = variable.partition("=")
    status, output = run(
        copy,
        "make",
        "build",
        f"VENV={tmp_path}/venv",
        variable,
        **({name: value} if name == "CC" else {}),
    )
    first, *rest = output.splitlines()
    assert status != 0 and line in first
    assert all(text.startswith("make: ***") for text in rest), output
    assert not (tmp_path / "venv").exists()


#: A command for progress.py (in Python), the status, and the output.
PROGRESS = (
    ("print('[ 3/21] Cythonizing pyxsd/_x.pyx\\nnoise')", 0, "Cython 3 of 21: pyxsd/_x.pyx\n"),
    ("print(\"building 'pyxsd._x' extension\")", 0, "compiling pyxsd._x\n"),
    ("print('noise')", 0, ""),
    ("print('error: wrong'); raise SystemExit(7)", 7, "error: wrong\nfailed: COMMAND\n"),
    ("import os; os.kill(os.getpid(), 9)", 137, "failed: COMMAND\n"),
)


@pytest.mark.parametrize(("code", "status", "output"), PROGRESS)
def test_progress(code: str, status: int, output: str) -> None:
    command = [sys.executable, "-c", code]
    assert run(ROOT, sys.executable, "tools/progress.py", *command) == (
        status,
        output.replace("COMMAND", " ".join(command)),
    )


def test_progress_of_a_long_failure_shows_its_end() -> None:
    code = "print('\\n'.join(map(str, range(1000)))); raise SystemExit(1)"
    _, output = run(ROOT, sys.executable, "tools/progress.py", sys.executable, "-c", code)
    assert output.splitlines()[:-1] == [str(number) for number in range(960, 1000)]


def test_progress_of_what_cannot_be_run() -> None:
    assert run(ROOT, sys.executable, "tools/progress.py", "/none/x") == (
        1,
        "/none/x: No such file or directory\n",
    )
