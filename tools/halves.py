# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs all tests: halves.py [ARGUMENT OF PYTEST...]

In two halves at once, where there is more than one CPU: one half waits for virtual machines and
compilers most of the time.  Its output comes behind that of the other half, in one piece.  The
status is 0 where both passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: The folders of the half whose output comes last.
SLOW = ("system", "sanitize", "pythons", "packaging", "fuzz", "differential")


def halves(tests: Path) -> tuple[list[str], list[str]]:
    """What pytest is given for each half: the folders in SLOW, and all others."""
    slow = [str(tests / name) for name in SLOW]
    return slow, [str(tests), *(f"--ignore={folder}" for folder in slow)]


def main(arguments: list[str], tests: Path = Path("tests")) -> int:
    """Runs both halves; the exit status: of the first half that failed, else 0."""
    command = [sys.executable, "-m", "pytest", *arguments]
    slow, others = halves(tests)
    if len(os.sched_getaffinity(0)) == 1:
        status = subprocess.call([*command, *others])
        return subprocess.call([*command, *slow]) or status
    with tempfile.TemporaryFile() as output:
        behind = subprocess.Popen([*command, *slow], stdout=output, stderr=subprocess.STDOUT)
        try:
            status = subprocess.call([*command, *others])
            if behind.poll() is None:
                print("waiting for the tests in", ", ".join(SLOW), flush=True)
            status = behind.wait() or status
        finally:
            # Ctrl-C ends both; where this one ends by something else nobody is left behind.
            behind.terminate()
            behind.wait()
            output.seek(0)
            sys.stdout.flush()
            while piece := output.read(65536):
                sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
