# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make clean` leaves nothing that lets the next `make build` believe that it is done."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: What is made, and whether it is there after `make clean`.
MADE = {
    "pyxsd/_linked.so": False,
    "pyxsd/store/tree.so": False,
    "benchmarks/load/_load.so": False,
    "pyxsd/__pycache__/cli.pyc": False,
    "tests/unit/__pycache__/x.pyc": False,
    ".venv/.built": False,
    ".venv/.bench": False,
    "build/x": False,
    "run/x": False,
    # What was fetched stays.
    ".venv/.made": True,
    ".venv/.tests": True,
    ".venv/bin/python": True,
    "pyxsd/cli.py": True,
    "glue/x.c": True,
    "packaging/x.py": True,
    "tools/x.py": True,
}


def test_what_clean_removes(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in MADE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert {name: (tmp_path / name).exists() for name in MADE} == MADE
