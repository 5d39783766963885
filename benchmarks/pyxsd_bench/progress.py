# SPDX-License-Identifier: LGPL-2.1-or-later
"""Progress on standard error: a bar on a terminal, else a line for each size of a scenario."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SPEED_S = 3600.0  # the time left is guessed from what was done in so many seconds


class Progress:
    """Counts steps of the plan and guesses the time left from those done."""

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self.steps = steps
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        # Without automatic refresh: its thread would wake up beside the load generator.
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
            speed_estimate_period=SPEED_S,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps)
        self._group = ""
        self._bar.start()

    @property
    def done(self) -> int:
        return int(self._bar.tasks[0].completed)

    def left(self) -> str:
        """Time left, as "3:20"; "?" while nothing is known."""
        seconds = self._bar.tasks[0].time_remaining
        return "?" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

    def step(self, group: str, detail: str) -> None:
        """Before a step of `group` (a scenario and size), done by `detail` (a daemon)."""
        self._bar.update(self._task, description=f"{group} {detail}")
        self._bar.refresh()
        if not self._console.is_terminal and group != self._group:
            self.note(f"{group} ({self.done}/{self.steps}, {self.left()} left)")
        self._group = group

    def advance(self, steps: int = 1) -> None:
        self._bar.advance(self._task, steps)

    def finish(self) -> None:
        """Takes the bar away."""
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)
