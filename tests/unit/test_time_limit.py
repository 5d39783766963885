# SPDX-License-Identifier: LGPL-2.1-or-later
"""A test that hangs is failed, and nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: A child that never ends by itself tells its process id; then the test hangs.
CHILD = """
import subprocess, sys, time

def start(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
    open(path, "w").write(str(child.pid))
    return child
"""

#: where the hang is -> the source of the test
HANGS = {
    "in Python": CHILD
    + """
def test_it(child_file):
    child = start(child_file)
    try:
        time.sleep(1e6)
    finally:
        child.kill()
        child.wait()
""",
    # The sum runs in C and never looks at signals.
    "in C": CHILD
    + """
def test_it(child_file):
    child = start(child_file)
    sum(range(10**15))
""",
    "where failures are swallowed": CHILD
    + """
def test_it(child_file):
    child = start(child_file)
    try:
        try:
            time.sleep(1e6)
        except BaseException:
            pass
        time.sleep(1e6)
    finally:
        child.kill()
        child.wait()
""",
}


def is_alive(pid: int) -> bool:
    """Does the process run?  A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("where", HANGS)
def test_a_hang_is_ended(tmp_path: Path, where: str) -> None:
    (tmp_path / "conftest.py").write_text(
        "import os, pytest\n"
        "from tests import timelimit\n"
        "from tests.timelimit import pytest_addoption, pytest_configure\n"
        f"timelimit.GRACE = {1.0 if where == 'in C' else 100.0}\n"
        "timelimit.AGAIN = 1.0\n"
        "@pytest.fixture\n"
        "def child_file():\n"
        f"    return {str(tmp_path / 'child')!r}\n"
    )
    (tmp_path / "test_hang.py").write_text(HANGS[where])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--time-limit=1",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        cwd=tmp_path,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode != 0
    assert "test_it" in done.stdout, done.stdout  # the failure, or the trace of the killed process
    assert ("took longer than 1 seconds" in done.stdout) == (where != "in C"), done.stdout
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30.0
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)  # it was sent SIGKILL, and may take a moment to be gone
    assert not is_alive(child)
