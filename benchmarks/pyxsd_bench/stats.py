# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arithmetic of the results, as far as it is a choice of ours; the rest is scipy and numpy.

Samples are few (3 to 30) and skewed by a busy machine, so nothing here assumes a normal
distribution: medians, quartiles, the Mann-Whitney test and the bootstrap.  What chance takes part
in starts from a fixed seed: the same samples give the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as scipy_stats

ROUNDS = 2000  # resamples of a bootstrap
SEED = 1
EXACT_LIMIT = 400  # product of the sample sizes up to which the exact Mann-Whitney test is used

Floats = NDArray[np.float64]


def median(values: Sequence[float]) -> float:
    """ValueError where there is none."""
    if not values:
        raise ValueError("median of nothing")
    return float(np.median(values))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and third quartile, linear between samples."""
    low, high = np.quantile(values, (0.25, 0.75))
    return float(low), float(high)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of "a and b come from the same distribution".

    Exact where there are no ties and few samples, else the normal approximation with the
    corrections for ties and continuity.  ValueError for an empty sample.
    """
    if not a or not b:
        raise ValueError("Mann-Whitney test of nothing")
    pooled = {*a, *b}
    if len(pooled) == 1:
        return 1.0
    exact = len(pooled) == len(a) + len(b) and len(a) * len(b) <= EXACT_LIMIT
    found = scipy_stats.mannwhitneyu(a, b, method="exact" if exact else "asymptotic")
    return float(found.pvalue)


def ratio_interval(
    a: Sequence[float], b: Sequence[float], share: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of median(b) / median(a).  ValueError for fewer than two of each."""

    def ratio(x: Floats, y: Floats, axis: int = -1) -> Floats:
        # A clock that did not move gives samples of 0.
        found: Floats = np.median(y, axis=axis) / np.maximum(np.median(x, axis=axis), 1e-12)
        return found

    return _bootstrap((a, b), ratio, share)


def median_interval(rows: Sequence[Sequence[float]], share: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the mean over rows of each row's median.

    The rows' columns belong together (all were measured in the same round), so whole columns are
    drawn.  ValueError for fewer than two columns.
    """
    matrix = np.asarray(rows, dtype=float)

    def mean_of_medians(columns: Floats, axis: int = -1) -> Floats:
        drawn = matrix[:, columns.astype(int)]
        found: Floats = np.median(drawn, axis=-1).mean(axis=0)
        return found

    return _bootstrap((np.arange(matrix.shape[1], dtype=float),), mean_of_medians, share)


def _bootstrap(
    data: tuple[Sequence[float] | Floats, ...], statistic: Callable[..., Floats], share: float
) -> tuple[float, float]:
    found = scipy_stats.bootstrap(
        data,
        statistic,
        paired=False,
        vectorized=True,
        method="percentile",
        confidence_level=share,
        n_resamples=ROUNDS,
        random_state=SEED,
    ).confidence_interval
    return float(found.low), float(found.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order of the input."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected


class Growth(NamedTuple):
    """Cost = base + slope * shape(size); `error` is the root mean square relative error."""

    shape: str
    base: float
    slope: float
    error: float


SHAPES: tuple[tuple[str, Callable[[Floats], Floats]], ...] = (
    ("constant", np.zeros_like),
    ("log n", lambda n: np.log2(n + 1)),
    ("n", lambda n: n),
    ("n log n", lambda n: n * np.log2(n + 1)),
    ("n^2", lambda n: n * n),
)
BETTER = 0.7  # a steeper shape must cut the error to this share to be chosen


def _fit(name: str, values: Floats, costs: Floats) -> Growth:
    """Least squares of the relative error, with neither part negative."""
    scale = max(values.max(), 1.0)
    parts = np.column_stack([1 / costs, values / scale / costs])
    (base, slope), rest = optimize.nnls(parts, np.ones(len(costs)))
    return Growth(name, float(base), float(slope / scale), float(rest / np.sqrt(len(costs))))


def growth(points: Sequence[tuple[float, float]]) -> Growth:
    """The simplest shape that describes how a cost grows with a size.

    `points` are (size, cost); costs of 0 say nothing and are left out.  ValueError for fewer than
    three others.
    """
    usable = np.array([(n, y) for n, y in points if y > 0], dtype=float)
    if len(usable) < 3:
        raise ValueError("growth of fewer than three points")
    sizes, costs = usable.T
    best = _fit("constant", np.zeros_like(sizes), costs)
    for name, shape in SHAPES[1:]:
        if best.error < 0.05:
            break
        fit = _fit(name, shape(sizes), costs)
        if fit.error < best.error * BETTER and fit.slope > 0:
            best = fit
    return best


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The straight line through (size, bytes): bytes per one more.  0 for a single size."""
    sizes, values = np.array(points, dtype=float).T
    if np.ptp(sizes) == 0:
        return 0.0
    return float(np.polyfit(sizes, values, 1)[0])
