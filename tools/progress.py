# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a build command and shows how far it is: progress.py COMMAND...

Of the command's output one line is shown at a time, for Cython and the compiler work on a module
for seconds.  Where the command fails the end of its output is shown, and its status is this
program's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import deque

#: How many lines of output a failure shows.
TAIL = 40

#: What an output line means for somebody who waits.
STAGES = (
    (re.compile(r"\[ *(\d+)/(\d+)\] Cythonizing (\S+)"), r"Cython \1 of \2: \3"),
    (re.compile(r"building '(\S+)' extension"), r"compiling \1"),
    (re.compile(r"[Cc]ollecting (\S+)"), r"fetching \1"),
)


def stage(line: str) -> str:
    """What the line says of the progress; "" where it says nothing."""
    for pattern, text in STAGES:
        found = pattern.search(line)
        if found:
            return found.expand(text)
    return ""


def main(command: list[str]) -> int:
    """Runs the command; its exit status."""
    if not command:
        sys.exit(__doc__)
    tail: deque[str] = deque(maxlen=TAIL)
    width = shutil.get_terminal_size().columns - 1 if sys.stderr.isatty() else 0
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")
    assert process.stdout is not None
    for line in process.stdout:
        tail.append(line)
        text = stage(line)
        if text and width:
            # The line before is overwritten.
            print(f"\r{text[:width]:<{width}}", end="", file=sys.stderr, flush=True)
        elif text:
            print(text, file=sys.stderr, flush=True)
    status = process.wait()
    if width:
        print(f"\r{'':<{width}}\r", end="", file=sys.stderr, flush=True)
    if status:
        print("".join(tail), end="", file=sys.stderr)
        print(f"failed: {' '.join(command)}", file=sys.stderr)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
