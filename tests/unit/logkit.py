# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the logs share: a clock, and what is in log files."""

from __future__ import annotations

from pathlib import Path


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def block(first: int, count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, first + count))


def contents(path: Path) -> dict[str, str]:
    """The log's files, each as the numbers of its lines."""
    return {
        file.name: " ".join(line.split()[-1] for line in file.read_text().splitlines())
        for file in sorted(path.parent.iterdir())
        if file.is_file()
    }
