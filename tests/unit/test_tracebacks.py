# SPDX-License-Identifier: LGPL-2.1-or-later
"""All that a traceback needs is loaded before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pyxsd.system import tracebacks
import traceback
{load}
loaded = set(sys.modules)
try:
    [][0] = len([]) // len([]) + 1
except ZeroDivisionError:
    traceback.format_exc()
print(*sorted(set(sys.modules) - loaded))
"""


def loaded_for_a_traceback(path: Path, load: str) -> list[str]:
    """The modules that formatting a traceback loads, behind this statement."""
    path.write_text(CODE.format(load=load))  # the lines that are marked come from a file
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(path)],
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.split()


def test_a_traceback_loads_nothing_more(tmp_path: Path) -> None:
    """Without it, Python 3.11 loads several modules for the first one."""
    if sys.version_info[:2] == (3, 11):
        assert loaded_for_a_traceback(tmp_path / "a.py", "pass") != []
    assert loaded_for_a_traceback(tmp_path / "b.py", "tracebacks.load()") == []
