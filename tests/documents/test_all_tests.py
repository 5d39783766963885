# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make test` runs every test once, and fails where one of them does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "halves.py"
PASSES, FAILS = "def test_{name}(): pass\n", "def test_{name}(): assert False\n"
FOLDERS = ("sanitize", "unit", "rings")


def run(folder: Path, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    done = subprocess.run(
        [*prefix, sys.executable, str(TOOL), "-p", "no:cacheprovider", "-v"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("failing", ["", *FOLDERS])
@pytest.mark.parametrize("prefix", [(), ("taskset", "-c", "0")], ids=["at-once", "one-cpu"])
def test_each_test_once(tmp_path: Path, failing: str, prefix: tuple[str, ...]) -> None:
    for name in ("system", "sanitize", "pythons", "packaging", "fuzz", "differential", *FOLDERS):
        (tmp_path / "tests" / name).mkdir(parents=True, exist_ok=True)
        text = (FAILS if name == failing else PASSES).format(name=name)
        (tmp_path / "tests" / name / f"test_{name}.py").write_text(text)
    status, output = run(tmp_path, prefix)
    assert (status != 0) == bool(failing), output
    said = output.splitlines()
    for name in FOLDERS:
        ran = [line for line in said if line.startswith(f"tests/{name}/") and "%]" in line]
        assert len(ran) == 1, output
        assert ("FAILED" in ran[0]) == (name == failing)
