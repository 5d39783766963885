# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other processes that a test starts, listens to, races and kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORTS = """
import os, sys
from pyxsd.system import background, descriptors, errors, listening, pid_file
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process with pyxsd importable; talks by lines on stdin and stdout."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", IMPORTS + code] + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line of its stdout; fails with its stderr where there is none."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        pytest.fail(f"ended early: {process.stderr.read()}")
    return line.strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


RACE_COUNT = 12


def race(code: str, *arguments: object) -> list[str]:
    """What each of several processes says that were released together."""
    racers = [
        start("print('up'); sys.stdin.readline()\n" + code, *arguments) for _ in range(RACE_COUNT)
    ]
    for racer in racers:
        assert line_of(racer) == "up"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    results = [line_of(racer) for racer in racers]
    for racer in racers:
        end(racer)
    return results
