# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-bench compare`: what changed between two result files, or between two builds of one file.

`compare A B`: a point counts as changed where the Mann-Whitney test gives p below the level and the
medians differ by more than the threshold; the bootstrap interval of the ratio stands beside it.
With many points some differ by chance: the last line says how many at this level, and --holm keeps
the chance of even one below the level (that needs more samples: five on each side cannot give less
than p = 0.008).  Points with too few samples to ever reach the level are counted, not judged.

`compare A --within PERCENT`: the file's two builds took turns; `builds` judges them.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import NamedTuple

from . import builds, results, show, stats
from .arguments import finite
from .results import Result
from .summary import MORE_IS_BETTER, Summary, number

SAME, WORSE, BAD_INPUT = 0, 1, 2
WITHIN = 3.0  # percent


class Change(NamedTuple):
    """One point in both files.  ratio = B / A of the scenario's figure; above 1 is worse."""

    where: str
    daemon: str
    figure: str
    before: float
    after: float
    low: float
    high: float
    p: float

    @property
    def ratio(self) -> float:
        return self.after / self.before


def changes(a: Result, b: Result, level: float, figure: str = "") -> tuple[list[Change], int, int]:
    """All comparable points; how many had too few samples; how many are in one file only."""
    left, right = Summary([("a", a)]), Summary([("b", b)])
    found: list[Change] = []
    few = alone = 0
    for key in [*left.cells, *(k for k in right.cells if k not in left.cells)]:
        before, after = left.cells.get(key, {}), right.cells.get(key, {})
        alone += len(before.keys() ^ after.keys())
        name = figure or (left if key in left.cells else right).main(key[0])
        for daemon in before:
            x = before[daemon].figure(name)
            y = after[daemon].figure(name) if daemon in after else None
            if not x or not y or x.median <= 0:
                continue
            m, n = len(x.values), len(y.values)
            if min(m, n) < 2 or 2 / math.comb(m + n, m) >= level:
                few += 1
                continue
            low, high = stats.ratio_interval(x.values, y.values)
            p = stats.mann_whitney(x.values, y.values)
            where = f"{key[0]} / {key[1]} / {key[2]}"
            found.append(Change(where, daemon, name, x.median, y.median, low, high, p))
    return found, few, alone


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", help="result file A")
    parser.add_argument("after", nargs="?", help="result file B; without it A's two builds")
    parser.add_argument("--level", type=finite, default=0.01, help="chance of a false alarm (0.01)")
    parser.add_argument(
        "--threshold", type=finite, default=0.05, help="smaller changes do not matter (0.05: 5 %%)"
    )
    parser.add_argument(
        "--figure", default="", help="compare this figure (rate, cpu_us, p99_us...)"
    )
    parser.add_argument("--holm", action="store_true", help="correct for the number of points")
    parser.add_argument(
        "--within",
        type=finite,
        default=WITHIN,
        metavar="PERCENT",
        help=f"how much slower the second build of one file may be ({WITHIN:g})",
    )
    parser.add_argument("--points", action="store_true", help="list every point of two builds")


def run(options: argparse.Namespace) -> int:
    """Prints what changed.  0: nothing got worse; 1: something did; 2: nothing to compare.

    Of two builds in one file also 3: not decided.
    """
    paths = [path for path in (options.before, options.after) if path]
    try:
        files = [(path, results.load(path)) for path in paths]
    except results.BadResult as error:
        print(f"pyxsd-bench: {error}", file=sys.stderr)
        return BAD_INPUT
    if len(files) > 1:
        return _two_files(files[0][1], files[1][1], options)
    summary = Summary(files)
    if len(summary.real_daemons()) < 2:
        print(f"pyxsd-bench: {paths[0]}: only one build is in it", file=sys.stderr)
        return BAD_INPUT
    return builds.conclude(summary, options.within, options.figure, options.points)


def _two_files(a: Result, b: Result, options: argparse.Namespace) -> int:
    found, few, alone = changes(a, b, options.level, options.figure)
    if not found:
        text = f"nothing to compare ({few} points with too few samples)"
        print(f"pyxsd-bench: {text}", file=sys.stderr)
        return BAD_INPUT
    p_values = [change.p for change in found]
    corrected = stats.holm(p_values) if options.holm else p_values
    rows: list[list[str]] = []
    worse = 0
    for change, p in sorted(zip(found, corrected), key=lambda pair: -pair[0].ratio):
        if p >= options.level or abs(change.ratio - 1) <= options.threshold:
            continue
        is_worse = (change.ratio > 1) != (change.figure in MORE_IS_BETTER)
        worse += is_worse
        rows.append(
            [
                "worse" if is_worse else "better",
                f"{change.daemon}: {change.where}: {change.figure}",
                f"{number(change.before)} → {number(change.after)}",
                f"{change.ratio:.2f}",
                f"{change.low:.2f}–{change.high:.2f}",
                f"{p:.2g}",
            ]
        )
    if rows:
        head = ["", "point", "A → B", "B / A", "95 % interval", "p"]
        show.table(head, rows, left=2)
    print(
        f"{len(found)} points: {worse} worse, {len(rows) - worse} better, "
        f"{len(found) - len(rows)} within the noise (at this level some "
        f"{len(found) * (0 if options.holm else options.level):.0f} differ by chance); "
        f"{few} with too few samples, {alone} in one file only"
    )
    return WORSE if worse else SAME
