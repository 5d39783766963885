# SPDX-License-Identifier: LGPL-2.1-or-later
"""From samples to what reports show: medians, spreads, the best peer, growth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import stats
from .results import Result

Key = tuple[str, str, int]  # scenario, measure, size
FLOORS = ("floor", "floor-poll")
MORE_IS_BETTER = ("rate",)


class Figure(NamedTuple):
    """One figure over all rounds."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    values: tuple[float, ...]


class Cell(NamedTuple):
    """All samples of one daemon at one point."""

    samples: tuple[dict[str, Any], ...]
    syscalls: float | None

    def cost(self, name: str) -> float | None:
        """The median of a figure so that less is better: of a rate, the time for one."""
        found = self.figure(name)
        if not found or found.median <= 0:
            return None
        return 1 / found.median if name in MORE_IS_BETTER else found.median

    def figure(self, name: str) -> Figure | None:
        """None where no sample has it."""
        values = [s[name] for s in self.samples if isinstance(s.get(name), (int, float))]
        if not values:
            return None
        return Figure(stats.median(values), *stats.quartiles(values), tuple(values))

    def distribution(self) -> list[tuple[float, int]]:
        """Latencies of all samples: (us, count), ascending."""
        total: dict[float, int] = {}
        for one in self.samples:
            for value, count in one.get("hist", []):
                total[value] = total.get(value, 0) + count
        return sorted(total.items())


class Summary:
    """All results of one or several files, by point and daemon."""

    def __init__(self, files: Sequence[tuple[str, Result]]) -> None:
        self.files = list(files)
        self.scenarios: dict[str, dict[str, Any]] = {}
        self.daemons: dict[str, dict[str, Any]] = {}
        self.missing: list[dict[str, Any]] = []
        self.cells: dict[Key, dict[str, Cell]] = {}
        names = [name for _, result in files for name in result["daemons"]]
        for path, result in files:
            stem = os.path.splitext(os.path.basename(path))[0]
            rename = {n: f"{n} ({stem})" for n in result["daemons"] if names.count(n) > 1}
            self._add(result, rename)

    def _add(self, result: Result, rename: dict[str, str]) -> None:
        self.scenarios.update(result["scenarios"])
        for name, about in result["daemons"].items():
            self.daemons[rename.get(name, name)] = about
        for row in result["missing"]:
            self.missing.append({**row, "daemon": rename.get(row["daemon"], row["daemon"])})
        gathered: dict[tuple[Key, str], list[dict[str, Any]]] = {}
        for one in result["samples"]:
            key = (one["scenario"], one["measure"], one["size"])
            name = rename.get(one["daemon"], one["daemon"])
            gathered.setdefault((key, name), []).append(one)
        for (key, name), samples in gathered.items():
            timed = tuple(s for s in samples if s["round"] >= 0)
            counted = [s["syscalls"] for s in samples if s["round"] < 0 and "syscalls" in s]
            cell = Cell(timed, counted[-1] if counted else None)
            if timed:
                self.cells.setdefault(key, {})[name] = cell

    def unfinished(self) -> list[str]:
        """The files of runs that did not come to their end."""
        return [path for path, result in self.files if not result["complete"]]

    @staticmethod
    def origin(result: Result) -> str:
        """When, where and how a file was measured, in one sentence."""
        m, s = result["machine"], result["settings"]
        return (
            f"{result['created']}, {m.get('cpu')} with {m.get('cpus')} CPUs, "
            f"{m.get('memory_mib')} MiB, Linux {m.get('kernel')}, {m.get('system')}; "
            f"{s.get('repeat')} samples of {s.get('seconds')} s."
        )

    def real_daemons(self) -> list[str]:
        """All that are no floors, in the order of the run."""
        return [name for name in self.daemons if _kind(name) not in FLOORS]

    def measured(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and description of each scenario that has a figure; attacks have their own table."""
        return [
            (name, about)
            for name, about in self.scenarios.items()
            if self.measures(name) and not about.get("attack")
        ]

    def measures(self, scenario: str) -> list[str]:
        """In the order in which they were first seen."""
        return list(dict.fromkeys(m for s, m, _ in self.cells if s == scenario))

    def sizes(self, scenario: str, measure: str) -> list[int]:
        return sorted(n for s, m, n in self.cells if (s, m) == (scenario, measure))

    def main(self, scenario: str) -> str:
        """The figure that this scenario is about."""
        return str(self.scenarios[scenario].get("main", "cpu_us"))

    def points(
        self, scenario: str, measure: str, daemon: str, figure: str
    ) -> list[tuple[float, float]]:
        """(size, median) where there is one."""
        found: list[tuple[float, float]] = []
        for size in self.sizes(scenario, measure):
            cell = self.cells[scenario, measure, size].get(daemon)
            value = cell.figure(figure) if cell else None
            if value is not None:
                found.append((float(size), value.median))
        return found

    def growth(self, scenario: str, measure: str, daemon: str) -> str:
        """How the scenario's figure grows with the size, in words; empty for too few points."""
        found = self.points(scenario, measure, daemon, self.main(scenario))
        # A clock that did not move in a sample says nothing of the growth.
        points = [(size, cost) for size, cost in found if cost > 0]
        if len(points) < 3:
            return ""
        fit = stats.growth(points)
        if fit.shape == "constant":
            return f"constant, {number(fit.base)} µs (±{fit.error:.0%})"
        return f"{number(fit.base)} + {number(fit.slope)} · {fit.shape} µs (±{fit.error:.0%})"

    def memory_slope(self, scenario: str, measure: str, daemon: str) -> float:
        """Resident bytes per one more of the axis."""
        points = self.points(scenario, measure, daemon, "rss")
        return stats.slope(points) if len(points) > 1 else 0.0

    def best_peer(self, key: Key, subject: str) -> tuple[str, bool]:
        """The other daemon with the best main figure, and whether it is the only one there.

        Floors and variants of the subject ("pyxsd-log") are no peers.  An empty name where there
        is none; never alone where the whole run had one peer.
        """
        peers = [n for n in self.real_daemons() if n != subject and n.split("-")[0] != subject]
        found = []
        for name in peers:
            cell = self.cells[key].get(name)
            cost = cell.cost(self.main(key[0])) if cell else None
            if cost:
                found.append((cost, name))
        return (min(found)[1] if found else ""), len(found) == 1 < len(peers)


def _kind(name: str) -> str:
    """The daemon's own name: reports of several files put the file's name behind it."""
    return name.split(" ")[0]


def number(value: float) -> str:
    """Three digits that count, with thousands separated."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    if abs(value) >= 0.01:
        return f"{value:.3g}"
    return f"{value:.1e}"
