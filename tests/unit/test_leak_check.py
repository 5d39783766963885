# SPDX-License-Identifier: LGPL-2.1-or-later
"""The leak check of all tests: it sees what a test leaves, and blames no test for another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from tests.conftest import make_world, no_leaks, pytest_runtest_makereport, world
"""

TESTS = """
import gc

import pytest

kept = []

def test_first(world):
    connection, _ = world.connection("s0")
    {first}

def test_second(world):
    gc.collect()
    {second}
"""

FINE = "assert connection.closed is False"
#: What the first and the second test do, and what becomes of them.
RUNS = [
    (FINE, "pass", {"passed": 2}),
    ("assert False", "pass", {"failed": 1, "passed": 1}),
    ("pytest.skip('')", "pass", {"skipped": 1, "passed": 1}),
    ("kept.append(connection)", "pass", {"passed": 2, "error": 1}),
    ("kept.append(connection)", "kept.clear()", {"passed": 2, "error": 2}),
    ("assert False", "kept.append(world.connection('s0'))", {"failed": 1, "passed": 1, "error": 1}),
]


@pytest.mark.parametrize(
    ("first", "second", "outcomes"), RUNS, ids=[f"{first}; {second}" for first, second, _ in RUNS]
)
def test_who_is_blamed(tmp_path: Path, first: str, second: str, outcomes: dict[str, int]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_two.py").write_text(TESTS.format(first=first, second=second))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            "/dev/null",
            "--rootdir",
            str(tmp_path),
            "-p",
            "no:cacheprovider",
            "-p",
            "no:benchmark",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    words = done.stdout.splitlines()[-1].replace(",", "").replace("errors", "error").split()
    assert {words[i + 1]: int(words[i]) for i in range(0, words.index("in"), 2)} == outcomes
