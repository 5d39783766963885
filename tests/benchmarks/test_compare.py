# SPDX-License-Identifier: LGPL-2.1-or-later
"""compare: what is beyond the noise, and the exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyxsd_bench import cli, results

from .test_results import SAMPLE, make

QUIET = [10.0, 10.1, 9.9, 10.2, 9.8]
CASES = {
    "the same": (QUIET, QUIET, [], 0, "0 worse, 0 better"),
    "noise": (QUIET, [10.05, 9.95, 10.15, 9.85, 10.3], [], 0, "0 worse, 0 better"),
    "worse": (QUIET, [v * 1.5 for v in QUIET], [], 1, "1 worse, 0 better"),
    "better": (QUIET, [v / 1.5 for v in QUIET], [], 0, "0 worse, 1 better"),
    "small": (QUIET, [v + 0.45 for v in QUIET], [], 0, "0 worse, 0 better"),
    "small, asked for": (QUIET, [v + 0.45 for v in QUIET], ["--threshold", "0.01"], 1, "1 worse"),
    "a rate that fell": (QUIET, [v / 2 for v in QUIET], ["--figure", "rate"], 1, "1 worse"),
    "one sided outlier": (QUIET, [*QUIET[:4], 90.0], [], 0, "0 worse"),
}


def write(path: Path, values: list[float]) -> str:
    results.save(
        str(path),
        make([{**SAMPLE, "round": i, "cpu_us": v, "rate": v} for i, v in enumerate(values)]),
    )
    return str(path)


@pytest.mark.parametrize("case", CASES)
def test_compare(tmp_path: Path, case: str, capsys: Any) -> None:
    before, after, options, status, text = CASES[case]
    a, b = write(tmp_path / "a.json", before), write(tmp_path / "b.json", after)
    assert cli.main(["compare", a, b, *options]) == status
    assert text in capsys.readouterr().out


def test_too_few_samples_are_not_judged(tmp_path: Path, capsys: Any) -> None:
    a, b = write(tmp_path / "a.json", [1.0, 2.0]), write(tmp_path / "b.json", [9.0, 9.0])
    assert cli.main(["compare", a, b]) == 2
    assert "too few samples" in capsys.readouterr().err
