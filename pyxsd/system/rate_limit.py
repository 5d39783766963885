# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many lines of one kind are written in a minute, and how many were left out."""

from __future__ import annotations

# Enough to see what happens; a guest that causes one line a request fills no disk with them.
LINES = 5
SECONDS = 60.0


class _Window:
    """The minute that began with the first line of a kind."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.lines = 0


class RateLimit:
    """Admits LINES lines of each kind in SECONDS, which begin with the kind's first line.

    A kind is a fixed word of the program, never a text that a guest can vary: each one that had
    a line within the last minute is kept here.
    """

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def admits(self, kind: str, now: float) -> bool:
        """Whether a line of this kind is to be written at `now` (seconds); counts it.

        `ended` is to be asked first, or a minute that is over goes on.
        """
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(now)
        window.lines += 1
        return window.lines <= LINES

    def ended(self, now: float) -> list[tuple[str, int]]:
        """The kinds whose minute is over at `now`, each with how many lines were left out.

        They are forgotten; kinds of which nothing was left out are not among them.
        """
        over = [kind for kind, window in self._windows.items() if now - window.began >= SECONDS]
        counts = [(kind, self._windows.pop(kind).lines - LINES) for kind in over]
        return [(kind, count) for kind, count in counts if count > 0]
