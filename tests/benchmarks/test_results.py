# SPDX-License-Identifier: LGPL-2.1-or-later
"""Result files: what is written is read again; everything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyxsd_bench import cli, results
from pyxsd_bench.summary import Summary

SAMPLE = {
    "scenario": "s",
    "measure": "m",
    "size": 1,
    "daemon": "d",
    "round": 0,
    "cpu_us": 2.0,
    "rate": 5.0,
    "p50_us": 3.0,
    "p99_us": 9.0,
    "rss": 1000,
    "hist": [[1.0, 3], [2.0, 1]],
}


def make(samples: list[dict[str, Any]] | None = None) -> results.Result:
    result = results.new({"repeat": 1, "seconds": 0.1})
    result["daemons"] = {"d": {"version": "1", "command": "d --x", "config": {}}}
    result["scenarios"] = {
        "s": {
            "title": "A <title>",
            "why": "Because.",
            "axis": "nodes",
            "unit": "request",
            "main": "cpu_us",
        }
    }
    result["samples"] = [SAMPLE] if samples is None else samples
    return result


def test_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    result = make()
    results.save(path, result)
    results.save(path, result)
    assert results.load(path) == result
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def spoilt(change: dict[str, Any]) -> str:
    return json.dumps({**make(), **change})


BAD = {
    "cut": (json.dumps(make())[:-40], "cut off"),
    "empty": ("", "cut off"),
    "binary": ("\0\xff", "cut off"),
    "nested": ("[" * 100000, "cut off"),
    "another document": ('{"format": "else"}', "not a result file"),
    "a list": ("[]", "not a result file"),
    "newer": (spoilt({"version": 2}), "newer"),
    "no version": (spoilt({"version": None}), "no version"),
    "no samples": (spoilt({"samples": None}), "samples is missing"),
    "no daemons": (spoilt({"daemons": []}), "daemons is missing"),
    "odd sample": (spoilt({"samples": [{"scenario": "s"}]}), "0 of samples: measure is missing"),
    "text for a figure": (spoilt({"samples": [{**SAMPLE, "cpu_us": "1"}]}), "cpu_us is wrong"),
    "text for a size": (spoilt({"samples": [{**SAMPLE, "size": "1"}]}), "size is wrong"),
    "odd histogram": (spoilt({"samples": [{**SAMPLE, "hist": [[1]]}]}), "hist is wrong"),
    "odd missing": (spoilt({"missing": [{}]}), "0 of missing: scenario is missing"),
    "untitled scenario": (spoilt({"scenarios": {"s": {}}}), "a scenario without"),
    "unknown scenario": (spoilt({"samples": [{**SAMPLE, "scenario": "x"}]}), "undescribed"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_named(tmp_path: Path, fault: str, capsys: Any) -> None:
    text, reason = BAD[fault]
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    bad.write_text(text, encoding="latin-1")
    results.save(str(good), make())
    with pytest.raises(results.BadResult, match=reason):
        results.load(str(bad))
    page = tmp_path / "page.html"
    assert cli.main(["report", str(bad), str(good), "--html", str(page)]) == 2
    assert "bad.json" in capsys.readouterr().err
    assert "A &lt;title&gt;" in page.read_text()  # the rest goes on
    assert cli.main(["compare", str(bad), str(good)]) == 2


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["report", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_an_unfinished_run_is_said_to_be(tmp_path: Path) -> None:
    path, out = str(tmp_path / "r.json"), tmp_path / "r.md"
    results.save(path, make())
    assert cli.main(["report", path, "--markdown", str(out)]) == 0
    assert "The run was not finished" in out.read_text()


def test_report_of_several_files_keeps_them_apart(tmp_path: Path) -> None:
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    results.save(a, make())
    results.save(b, make([{**SAMPLE, "cpu_us": 7.0}]))
    summary = Summary([(path, results.load(path)) for path in (a, b)])
    cells = summary.cells["s", "m", 1]
    found = {name: cell.figure("cpu_us") for name, cell in cells.items()}
    assert {n: f.median if f else None for n, f in found.items()} == {"d (a)": 2.0, "d (b)": 7.0}


def test_page_needs_nothing_else_and_is_well_formed(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    path, out = str(tmp_path / "r.json"), tmp_path / "r.html"
    sizes = [
        {**SAMPLE, "size": n, "cpu_us": n * 2.0, "round": r}
        for n in (0, 10, 100, 1000)
        for r in range(3)
    ]
    results.save(path, make(sizes))
    assert cli.main(["report", path, "--html", str(out)]) == 0
    page = out.read_text()
    assert "src=" not in page
    assert 'href="http' not in page
    assert "@media print" in page
    assert "width=device-width" in page
    drawings = page.split("<svg")[1:]
    assert len(drawings) == 2
    for drawing in drawings:
        root = ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")
        assert root.findall(".//{http://www.w3.org/2000/svg}polyline")
