# SPDX-License-Identifier: LGPL-2.1-or-later
"""Progress on standard error: a line that is rewritten on a terminal, else a line per size."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts steps of the plan and guesses the time left from those done."""

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self.steps = steps
        self.done = 0
        self._begin = time.monotonic()
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._group = ""

    def left(self) -> str:
        """Time left, as "3:20"; "?" while nothing is known."""
        if not self.done:
            return "?"
        each = (time.monotonic() - self._begin) / self.done
        seconds = int(each * (self.steps - self.done))
        return f"{seconds // 60}:{seconds % 60:02d}"

    def step(self, group: str, detail: str) -> None:
        """Before a step of `group` (a scenario and size), done by `detail` (a daemon)."""
        if self._quiet:
            return
        share = f"{self.done}/{self.steps}, {self.left()} left"
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{group} {detail} ({share})")
        elif group != self._group:
            sys.stderr.write(f"{group} ({share})\n")
        self._group = group
        sys.stderr.flush()

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def finish(self) -> None:
        """Leaves the rewritten line."""
        if self._tty and not self._quiet:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        sys.stderr.write(f"\r\x1b[K{text}\n" if self._tty else f"{text}\n")
        sys.stderr.flush()
