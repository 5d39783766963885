# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arithmetic, against values worked out by hand or by counting all arrangements."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from pyxsd_bench import stats
from pyxsd_bench.stats import holm


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3], 3),
        ([1, 2], 1.5),
        ([3, 1, 2], 2),
        ([4, 1, 3, 2], 2.5),
        ([5, 5, 5], 5),
    ],
)
def test_median(values: list[float], expected: float) -> None:
    assert stats.median(values) == expected


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError):
        stats.median([])
    with pytest.raises(ValueError):
        stats.mann_whitney([], [1.0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5], (2, 4)),
        ([7], (7, 7)),
        ([1, 2], (1.25, 1.75)),
    ],
)
def test_quartiles(values: list[float], expected: tuple[float, float]) -> None:
    assert stats.quartiles(values) == expected


def by_counting(a: list[float], b: list[float]) -> float:
    """The exact two-sided p-value, from all ways to deal the pooled values out."""

    def u(left: list[float], right: list[float]) -> float:
        wins = sum(x > y for x in left for y in right)
        return min(wins, len(left) * len(right) - wins)

    pooled, seen = [*a, *b], u(a, b)
    deals = list(itertools.combinations(range(len(pooled)), len(a)))
    hits = 0
    for deal in deals:
        left = [pooled[i] for i in deal]
        right = [pooled[i] for i in range(len(pooled)) if i not in deal]
        hits += u(left, right) <= seen
    return hits / len(deals)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]),
        ([1, 3, 5, 7], [2, 4, 6, 8]),
        ([1, 2, 9], [3, 4, 5, 6]),
        ([5], [1, 2, 3, 4]),
        ([10, 11, 12, 1, 2, 3], [4, 5, 6, 7]),
    ],
)
def test_mann_whitney_is_exact(a: list[float], b: list[float]) -> None:
    assert stats.mann_whitney(a, b) == pytest.approx(by_counting(a, b))
    assert stats.mann_whitney(b, a) == pytest.approx(stats.mann_whitney(a, b))


def test_mann_whitney_with_ties_and_many() -> None:
    assert stats.mann_whitney([1.0] * 5, [1.0] * 5) == 1.0
    assert stats.mann_whitney([1.0, 2.0, 2.0] * 4, [2.0, 2.0, 3.0] * 4) < 0.05
    many = [float(i) for i in range(40)]
    assert stats.mann_whitney(many, [v + 0.5 for v in many]) > 0.5
    assert stats.mann_whitney(many, [v + 100 for v in many]) < 1e-6


def test_ratio_interval_holds_the_ratio_and_repeats() -> None:
    a, b = [9.0, 10.0, 11.0, 10.5, 9.5], [19.0, 20.0, 21.0, 20.5, 19.5]
    low, high = stats.ratio_interval(a, b)
    assert low < 2.0 < high < 2.5
    assert (low, high) == stats.ratio_interval(a, b)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


SIZES = [10, 100, 1000, 10000, 100000]
SHAPES = {
    "constant": lambda n: 30.0,
    "log n": lambda n: 5 + 3 * math.log2(n + 1),
    "n": lambda n: 20 + 0.5 * n,
    "n log n": lambda n: 1 + 0.1 * n * math.log2(n + 1),
    "n^2": lambda n: 50 + 0.001 * n * n,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_growth_finds_the_shape(shape: str, noise: float) -> None:
    size_of: Any = SHAPES[shape]
    points = [(n, size_of(n) * (1 + noise * (-1) ** i)) for i, n in enumerate(SIZES)]
    found = stats.growth(points)
    assert found.shape == shape
    assert found.error <= 0.05


def test_growth_of_too_little() -> None:
    with pytest.raises(ValueError):
        stats.growth([(1, 1.0), (2, 2.0), (3, 0.0)])


def test_growth_is_never_negative() -> None:
    found = stats.growth([(n, 1000 - n / 200) for n in SIZES])
    assert found.slope >= 0
    assert found.base >= 0


def test_slope() -> None:
    assert stats.slope([(0, 100), (10, 1100), (20, 2100)]) == pytest.approx(100)
    assert stats.slope([(5, 100)]) == 0


def test_the_interval_of_several_rows_holds_their_mean_and_repeats() -> None:
    rows = [[1.0, 1.2, 0.8, 1.1, 0.9], [3.0, 3.2, 2.8, 3.1, 2.9]]
    low, high = stats.median_interval(rows)
    assert low < 2.0 < high
    assert high - low < 0.5  # columns are drawn together: rows do not make each other wider
    assert (low, high) == stats.median_interval(rows)
    assert stats.median_interval([[2.0] * 5]) == (2.0, 2.0)


def test_a_clock_that_did_not_move_has_a_ratio() -> None:
    low, high = stats.ratio_interval([0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    assert 1.0 <= low <= high < float("inf")
