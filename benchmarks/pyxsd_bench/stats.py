# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arithmetic of the results: medians, tests, fits.  Numbers in, numbers out; standard library.

Samples are few (3 to 30) and skewed by a busy machine, so nothing here assumes a normal
distribution: medians, ranges, the exact Mann-Whitney test and the bootstrap.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Callable, NamedTuple


def median(values: Sequence[float]) -> float:
    """ValueError where there is none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("median of nothing")
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and third quartile, linear between samples."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    return at(0.25), at(0.75)


@cache
def _arrangements(m: int, n: int, u: int) -> int:
    """In how many orders of m and n values the Mann-Whitney statistic is u."""
    if u < 0:
        return 0
    if m == 0 or n == 0:
        return int(u == 0)
    return _arrangements(m - 1, n, u - n) + _arrangements(m, n - 1, u)


EXACT_LIMIT = 400  # m * n up to which the exact distribution is used


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of "a and b come from the same distribution".

    Exact where there are no ties and few samples, else the normal approximation with the
    correction for ties and continuity.  ValueError for an empty sample.
    """
    m, n = len(a), len(b)
    if not m or not n:
        raise ValueError("Mann-Whitney test of nothing")
    u = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    pooled = sorted([*a, *b])
    ties = [pooled.count(value) for value in set(pooled)]
    if max(ties) == 1 and m * n <= EXACT_LIMIT:
        low = int(min(u, m * n - u))
        total = math.comb(m + n, m)
        return min(1.0, 2 * sum(_arrangements(m, n, k) for k in range(low + 1)) / total)
    size = m + n
    spread = m * n / 12 * (size + 1 - sum(t**3 - t for t in ties) / (size * (size - 1)))
    if spread <= 0:
        return 1.0
    z = max(0.0, abs(u - m * n / 2) - 0.5) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2))


def ratio_interval(
    a: Sequence[float], b: Sequence[float], share: float = 0.95, rounds: int = 2000, seed: int = 1
) -> tuple[float, float]:
    """Bootstrap interval of median(b) / median(a).  The same input gives the same answer."""
    rng = random.Random(seed)
    ratios = sorted(
        median(rng.choices(b, k=len(b))) / (median(rng.choices(a, k=len(a))) or 1e-12)
        for _ in range(rounds)
    )
    cut = (1 - share) / 2
    return ratios[int(cut * rounds)], ratios[min(rounds - 1, int((1 - cut) * rounds))]


class Growth(NamedTuple):
    """Cost = base + slope * shape(size); `error` is the root mean square relative error."""

    shape: str
    base: float
    slope: float
    error: float


SHAPES: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("constant", lambda n: 0.0),
    ("log n", lambda n: math.log2(n + 1)),
    ("n", lambda n: n),
    ("n log n", lambda n: n * math.log2(n + 1)),
    ("n^2", lambda n: n * n),
)
BETTER = 0.7  # a steeper shape must cut the error to this share to be chosen


def _fit(points: Sequence[tuple[float, float]], shape: Callable[[float], float]) -> Growth:
    """Least squares of the relative error, with neither part negative."""
    rows = [(1 / y, shape(n) / y) for n, y in points]
    aa = sum(p * p for p, _ in rows)
    ab = sum(p * q for p, q in rows)
    bb = sum(q * q for _, q in rows)
    a1, b1 = sum(p for p, _ in rows), sum(q for _, q in rows)
    det = aa * bb - ab * ab
    base, slope = (a1 / aa, 0.0)
    if det > 1e-12 * max(aa * bb, 1e-300):
        base, slope = (a1 * bb - b1 * ab) / det, (aa * b1 - ab * a1) / det
        if slope < 0:
            base, slope = a1 / aa, 0.0
        elif base < 0:
            base, slope = 0.0, b1 / bb
    error = math.sqrt(sum((base * p + slope * q - 1) ** 2 for p, q in rows) / len(rows))
    return Growth("", base, slope, error)


def growth(points: Sequence[tuple[float, float]]) -> Growth:
    """The simplest shape that describes how a cost grows with a size.

    `points` are (size, cost > 0).  ValueError for fewer than three.
    """
    usable = [(n, y) for n, y in points if y > 0]
    if len(usable) < 3:
        raise ValueError("growth of fewer than three points")
    best = Growth("", 0, 0, math.inf)
    for name, shape in SHAPES:
        fit = _fit(usable, shape)._replace(shape=name)
        if fit.error < best.error * BETTER and (best.shape == "" or fit.slope > 0):
            best = fit
        if best.error < 0.05:
            break
    return best


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The straight line through (size, bytes): bytes per one more.  0 for a single size."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    below = sum((x - mean_x) ** 2 for x, _ in points)
    if not below:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below
