# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `packaging/requirements.py` prints is what the two pyproject.toml files state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent.parent / "packaging" / "requirements.py"


def asked(*parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *parts], text=True, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("build", {"setuptools", "cffi"}),
        ("cython", {"Cython"}),
        ("run", {"cffi", "sortedcontainers", "scipy", "jinja2", "rich"}),
        ("test", {"pytest", "hypothesis", "ruff", "mypy"}),
    ],
)
def test_parts(part: str, names: set[str]) -> None:
    done = asked(part)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert names <= {line.split(">")[0].split("=")[0].strip() for line in lines}
    assert len(lines) == len(set(lines))


def test_an_unknown_part_is_an_error() -> None:
    done = asked("run", "nosuch")
    assert done.returncode != 0
    assert "nosuch" in done.stderr
    assert done.stdout == ""
