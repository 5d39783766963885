# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables of a report: who is compared with whom."""

from __future__ import annotations

from typing import Any

import pytest
from pyxsd_bench import report, tables
from pyxsd_bench.summary import Summary

from .test_results import SAMPLE, make

COSTS = {"pyxsd": 2.0, "pyxsd-log": 1.0, "oxenstored": 8.0, "xenstored": 6.0, "floor": 0.5}


def summary(
    costs: dict[str, float], figure: str = "cpu_us", more: list[dict[str, Any]] | None = None
) -> Summary:
    found = make([{**SAMPLE, "daemon": name, figure: cost} for name, cost in costs.items()])
    found["samples"] += more or []
    found["daemons"] = dict.fromkeys(COSTS, found["daemons"]["d"])
    found["scenarios"]["s"]["main"] = figure
    return Summary([("r.json", found)])


def cells(found: Summary) -> list[str]:
    (row,) = tables.overview(found).rows
    return row[1:]


def test_the_best_other_one_and_the_floor() -> None:
    assert tables.overview(summary(COSTS)).head[-1] == "floor"
    assert cells(summary(COSTS)) == ["2", "6 (xenstored)", "3.00", "0.5"]


def test_more_is_better_for_rates() -> None:
    assert cells(summary(COSTS, "rate")) == ["2", "8 (oxenstored)", "0.25", "0.5"]


def test_a_survivor_is_said_to_be_alone() -> None:
    """Where all others gave up, the one that is left need not be good."""
    left = {name: cost for name, cost in COSTS.items() if name != "xenstored"}
    larger = [{**SAMPLE, "daemon": name, "size": 9, "cpu_us": cost} for name, cost in left.items()]
    assert cells(summary(COSTS, more=larger)) == ["2", "8 (oxenstored alone)", "4.00", "0.5"]


def test_side_by_side() -> None:
    costs = {name: cost for name, cost in COSTS.items() if name != "xenstored"}
    found = tables.side_by_side(summary(costs, "rate"), "s")
    assert found == (["requests/s", *COSTS], [["m", "2", "1", "8", "–", "0.5"]])


@pytest.mark.parametrize(
    ("figure", "is_there"), [("max_us", True), ("p99_us", True), ("p50_us", False), ("rate", False)]
)
def test_the_longest_is_in_the_document(figure: str, is_there: bool) -> None:
    """Where it is what counts, or close to it."""
    head = tables.scenario(summary(COSTS, figure), "s", brief=True).head
    assert ("max µs" in head) == is_there
    assert "max µs" in tables.scenario(summary(COSTS, figure), "s").head


def test_nobody_else() -> None:
    assert cells(summary({"pyxsd": 2.0})) == ["2", "–", "–", "–"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (report.PAGE, "A &lt;title&gt;"),
        (report.DOCUMENT, "## A <title>"),
    ],
)
def test_texts_are_escaped_as_the_format_needs(template: str, expected: str) -> None:
    assert expected in report.render(summary(COSTS), template)


def test_the_document_is_markdown() -> None:
    """Each table: a head, a rule of as many columns, rows of as many; nothing else between."""
    lines = report.render(summary(COSTS), report.DOCUMENT).splitlines()
    rules = [i for i, line in enumerate(lines) if line.startswith("|---")]
    assert len(rules) == 2
    for rule in rules:
        columns = lines[rule].count("|")
        assert lines[rule - 2] == ""
        at = rule - 1
        while lines[at].startswith("|"):
            assert lines[at].count("|") == columns, lines[at]
            at += 1
        assert at > rule + 1
        assert at == len(lines) or lines[at] == ""
