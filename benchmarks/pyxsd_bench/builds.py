# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two builds measured in one run: is the second as fast as the first, scenario by scenario?

Both took turns, so the samples of one round belong together, and what else the machine did in it
hit both.  For each point (measure and size) and round the ratio second / first of the scenario's
figure is taken; a point's ratio is the median over the rounds, a scenario's the geometric mean over
its points.  Its interval comes from the bootstrap over the rounds.  With a margin of 3 %:

    within 3 %    the whole interval is below 1.03: not slower by more than that
    faster        the whole interval is below 1 / 1.03
    slower        the whole interval is above 1.03
    unclear       the interval reaches over 1.03: more rounds are needed
    incomplete    a point has figures of one build only, or too few rounds
"""

from __future__ import annotations

import math
from typing import NamedTuple

from . import show, stats
from .summary import MORE_IS_BETTER, Cell, Summary, number

FASTER_OR_SAME, SLOWER, UNDECIDED = 0, 1, 3
MIN_ROUNDS = 5


class Point(NamedTuple):
    """One measure and size: medians of both builds, and the logarithm of each round's ratio."""

    label: str
    first: float
    second: float
    logs: dict[int, float]

    @property
    def ratio(self) -> float:
        return math.exp(stats.median(list(self.logs.values())))


class Verdict(NamedTuple):
    """One scenario.  ratio = second / first of its cost: above 1 is slower."""

    scenario: str
    points: list[Point]
    ratio: float
    low: float
    high: float
    word: str


def check(percent: float, rounds: int, names: list[str]) -> None:
    """ValueError where nothing could be judged in the end."""
    if percent <= 0:
        raise ValueError("--within must be above 0")
    if len(names) < 2:
        raise ValueError("--within compares the second daemon with the first: name two")
    if rounds < MIN_ROUNDS:
        raise ValueError(f"--within needs --repeat {MIN_ROUNDS} or more")


def _rounds(cell: Cell, figure: str) -> dict[int, float]:
    """Costs by round; a clock that did not move in a sample says nothing."""
    found = {s["round"]: float(s[figure]) for s in cell.samples if s.get(figure)}
    return {n: 1 / cost if figure in MORE_IS_BETTER else cost for n, cost in found.items()}


def _point(label: str, first: Cell | None, second: Cell | None, figure: str) -> Point | None:
    """None where too few rounds have the figure of both builds."""
    if first is None or second is None:
        return None
    x, y = _rounds(first, figure), _rounds(second, figure)
    logs = {n: math.log(y[n] / x[n]) for n in x if n in y}
    if len(logs) < MIN_ROUNDS:
        return None
    a, b = first.figure(figure), second.figure(figure)
    return Point(label, a.median if a else 0.0, b.median if b else 0.0, logs)


def judge(
    summary: Summary, first: str, second: str, margin: float, figure: str = ""
) -> list[Verdict]:
    """A verdict for each scenario that either build has figures of.  `margin`: 0.03 is 3 %."""
    found = []
    for name, about in summary.measured():
        points: list[Point | None] = []
        for measure in summary.measures(name):
            for size in summary.sizes(name, measure):
                cells = summary.cells[name, measure, size]
                if first in cells or second in cells:
                    label = f"{measure}, {size:,} {about['axis']}" if about.get("axis") else measure
                    wanted = figure or summary.main(name)
                    points.append(_point(label, cells.get(first), cells.get(second), wanted))
        if points:
            found.append(_verdict(name, points, margin))
    return found


def _verdict(name: str, points: list[Point | None], margin: float) -> Verdict:
    whole = [point for point in points if point]
    common = set.intersection(*(set(p.logs) for p in whole)) if whole else set()
    if len(common) < MIN_ROUNDS:
        return Verdict(name, whole, math.nan, math.nan, math.nan, "incomplete")
    rows = [[p.logs[n] for n in sorted(common)] for p in whole]
    ratio = math.exp(sum(stats.median(row) for row in rows) / len(rows))
    low, high = (math.exp(end) for end in stats.median_interval(rows))
    if low > 1 + margin:
        word = "slower"
    elif len(whole) < len(points):
        word = "incomplete"
    elif high < 1 / (1 + margin):
        word = "faster"
    else:
        word = f"within {100 * margin:g} %" if high <= 1 + margin else "unclear"
    return Verdict(name, whole, ratio, low, high, word)


def conclude(summary: Summary, percent: float, figure: str = "", points: bool = False) -> int:
    """Prints the verdicts on the first two builds of a run, and with `points` every point.

    0: each scenario is within the margin or faster; 1: one is slower; 3: one is not decided.
    """
    first, second = summary.real_daemons()[:2]
    verdicts = judge(summary, first, second, percent / 100, figure)
    rows = []
    for v in verdicts:
        worst = max(v.points, key=lambda p: p.ratio, default=None)
        rows.append(
            [
                v.scenario,
                v.word,
                f"{v.ratio:.3f}",
                f"{v.low:.3f}–{v.high:.3f}",
                str(len(v.points)),
                f"{worst.ratio:.3f}" if worst else "–",
                worst.label if worst else "–",
            ]
        )
    ratio = f"{second} / {first}"
    head = ["scenario", "verdict", ratio, "95 % interval", "points", "slowest", "slowest point"]
    show.table(head, rows, left=2)
    if points:
        show.table(
            ["point", first, second, ratio],
            [
                [f"{v.scenario}: {p.label}", number(p.first), number(p.second), f"{p.ratio:.3f}"]
                for v in verdicts
                for p in v.points
            ],
        )
    words = [v.word for v in verdicts]
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    print(f"{len(words)} scenarios: {counted}")
    if "slower" in words:
        return SLOWER
    return UNDECIDED if not words or {"unclear", "incomplete"} & set(words) else FASTER_OR_SAME
