# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two builds in one file: the verdict on each scenario, and the exit status."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from pyxsd_bench import builds, cli, daemons, results, runner
from pyxsd_bench.summary import Summary

from .conftest import need_pyxsd
from .test_results import SAMPLE, make

# A machine whose speed changes from round to round: both builds feel it alike.
ROUNDS = [10.0, 14.0, 9.0, 30.0, 11.0, 10.5, 20.0, 12.0]


def result(second: list[float | None], figure: str = "cpu_us") -> results.Result:
    """A run of two builds; None: the second has no sample of that round."""
    samples = []
    for turn, (first, other) in enumerate(zip(ROUNDS, second)):
        for name, value in (("old", first), ("new", other)):
            if value is not None:
                samples.append({**SAMPLE, "daemon": name, "round": turn, figure: value})
    found = make(samples)
    found["daemons"] = dict.fromkeys(("old", "new"), found["daemons"]["d"])
    found["scenarios"]["s"]["main"] = figure
    return found


def times(*factors: float) -> list[float | None]:
    return [value * factors[i % len(factors)] for i, value in enumerate(ROUNDS)]


CASES: dict[str, tuple[list[float | None], str, str, int]] = {
    "the same": (times(1.0), "cpu_us", "within 3 %", 0),
    "a little slower": (times(1.01, 1.02), "cpu_us", "within 3 %", 0),
    "slower": (times(1.08, 1.1), "cpu_us", "slower", 1),
    "faster": (times(0.8, 0.9), "cpu_us", "faster", 0),
    "it depends": (times(0.9, 1.2), "cpu_us", "unclear", 3),
    "a rate that fell": (times(0.9), "rate", "slower", 1),
    "a rate that rose": (times(1.2), "rate", "faster", 0),
    "ended in the middle": ([*times(1.0)[:3], *[None] * 5], "cpu_us", "incomplete", 3),
    "never there": ([None] * 8, "cpu_us", "incomplete", 3),
    "one round missing": ([*times(1.0)[:7], None], "cpu_us", "within 3 %", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(tmp_path: Path, case: str, capsys: Any) -> None:
    second, figure, word, status = CASES[case]
    path = str(tmp_path / "r.json")
    results.save(path, result(second, figure))
    assert cli.main(["compare", path]) == status
    assert f"1 scenarios: 1 {word}" in capsys.readouterr().out


def test_rounds_belong_together() -> None:
    """The rounds differ by a factor of three and the builds by 10 %: seen all the same."""
    verdict = builds.judge(Summary([("r", result(times(1.1)))]), "old", "new", 0.03)[0]
    assert verdict.ratio == pytest.approx(1.1)
    assert verdict.low == pytest.approx(verdict.high) == pytest.approx(1.1)


def test_a_scenario_is_the_mean_of_its_points() -> None:
    """Twice as fast at one size and half as fast at another: neither faster nor slower."""
    found = result(times(0.5))
    found["samples"] += [{**s, "size": 10} for s in result(times(2.0))["samples"]]
    verdict = builds.judge(Summary([("r", found)]), "old", "new", 0.03)[0]
    assert verdict.ratio == pytest.approx(1.0)
    assert [p.ratio for p in verdict.points] == pytest.approx([0.5, 2.0])


def test_points_are_listed(tmp_path: Path, capsys: Any) -> None:
    path = str(tmp_path / "r.json")
    results.save(path, result(times(1.08)))
    assert cli.main(["compare", path, "--within", "10", "--points"]) == 0
    assert "| s: m, 1 nodes | 11.5 | 12.4 |" in " ".join(capsys.readouterr().out.split())


def test_one_build_is_nothing_to_compare(tmp_path: Path, capsys: Any) -> None:
    path = str(tmp_path / "r.json")
    results.save(path, make())
    assert cli.main(["compare", path]) == 2
    assert "only one build" in capsys.readouterr().err


def program(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_build_under_a_name(tmp_path: Path) -> None:
    path = program(tmp_path, "pyxsd")
    old = daemons.find(f"old={path}")
    assert old == daemons.built_in("pyxsd")._replace(name="old", command=old.command)
    assert old.command == (path, *daemons.built_in("pyxsd").command[1:])
    assert daemons.find(f"x=pyxsd-nopoll:{path}").config == daemons.built_in("pyxsd-nopoll").config


@pytest.mark.parametrize(
    "word", ["x=/no/such/pyxsd", "x=", "=pyxsd", "x=other", "x=nosuch:pyxsd", "x=."]
)
def test_bad_builds(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program(tmp_path, "pyxsd")
    program(tmp_path, "other")
    with pytest.raises(daemons.BadDescription):
        daemons.find(word)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["floor", "--within", "3"], "name two"),
        (["floor", "floor-poll", "--within", "0", "--repeat", "5"], "above 0"),
        (["floor", "floor-poll", "--within", "3", "--repeat", "4"], "--repeat 5"),
        (["floor", "floor"], "two daemons are named floor"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    words: list[str], reason: str, tmp_path: Path, capsys: Any
) -> None:
    out = str(tmp_path / "r.json")
    assert cli.main(["run", *words, "-o", out, "--only", "churn"]) == runner.USAGE
    assert reason in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_run_ends_with_the_verdict(tmp_path: Path, capsys: Any) -> None:
    """Two builds of one program, measured in turns."""
    folder = tmp_path / "bin"
    folder.mkdir()
    source = need_pyxsd()
    path = folder / "pyxsd"
    path.symlink_to(source)
    out = str(tmp_path / "r.json")
    status = cli.main(
        [
            "run",
            f"a={source}",
            f"b={path}",
            "--only",
            "in-flight",
            "--scale",
            "0",
            "--seconds",
            "0.01",
            "--repeat",
            "5",
            "--within",
            "400",
            "-q",
            "-o",
            out,
        ]
    )
    assert status in (builds.FASTER_OR_SAME, builds.UNDECIDED)
    text = capsys.readouterr().out
    assert "b / a" in text
    assert "| in-flight-32 |" in text
