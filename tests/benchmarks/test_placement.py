# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where generator and daemon run: chosen, measured in each way, and put back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyxsd_bench import cli, placement, results

from .conftest import Server, missing, need_pyxsd

CPUS = (2, 5, 7)


@pytest.mark.parametrize(
    ("place", "generator", "daemon"),
    [
        (placement.APART, {2}, {5, 7}),
        (placement.TOGETHER, {2}, {2}),
        (placement.SCHEDULER, {2, 5, 7}, {2, 5, 7}),
        (placement.BUSY, {2, 5, 7}, {2, 5, 7}),
    ],
)
def test_sides(place: str, generator: set[int], daemon: set[int]) -> None:
    assert placement.sides(place, CPUS) == (generator, daemon)


def test_one_cpu_cannot_be_apart() -> None:
    assert [p for p in placement.ALL if not placement.possible(p, (0,))] == [placement.APART]


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    yield process.pid
    process.kill()
    process.communicate()


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("place", placement.ALL)
def test_placed_and_put_back(place: str, sleeper: int) -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    if not placement.possible(place, cpus):
        missing("a second CPU")
    before, running = (os.sched_getaffinity(0), os.sched_getaffinity(sleeper)), children()
    with placement.placed(sleeper, place, cpus):
        found = (os.sched_getaffinity(0), os.sched_getaffinity(sleeper))
        assert found == placement.sides(place, cpus)
        assert len(children() - running) == (len(cpus) if place == placement.BUSY else 0)
    assert (os.sched_getaffinity(0), os.sched_getaffinity(sleeper)) == before
    assert children() == running


def test_a_process_that_is_gone() -> None:
    with placement.placed(2**22 + 1, placement.TOGETHER, tuple(os.sched_getaffinity(0))):
        pass


def test_every_placement_has_its_figures(tmp_path: Path) -> None:
    """One run measures all of them, over sockets and over rings."""
    need_pyxsd()
    out = str(tmp_path / "r.json")
    assert (
        cli.main(["run", "pyxsd", "floor", "--only", "placement", "--smoke", "-q", "-o", out]) == 0
    )
    found = {(s["scenario"], s["daemon"], s["measure"]) for s in results.load(out)["samples"]}
    cpus = tuple(os.sched_getaffinity(0))
    titles = [placement.TITLES[p] for p in placement.ALL if placement.possible(p, cpus)]
    for title in titles:
        assert ("placement-socket", "pyxsd", f"transaction of 12, {title}") in found
        assert ("placement-socket", "floor", f"read, {title}") in found
        assert ("placement-ring", "pyxsd", f"read, {title}") in found


@pytest.mark.parametrize("place", placement.FIXED)
def test_a_whole_run_is_placed(
    place: str, tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that runs on, here this very process, gets its CPUs back."""
    out, before, used = str(tmp_path / "r.json"), os.sched_getaffinity(0), []
    original = placement.placed

    def placed(pid: int, name: str, cpus: tuple[int, ...]) -> object:
        used.append((pid, name))
        return original(pid, name, cpus)

    monkeypatch.setattr(placement, "placed", placed)
    cli.main(
        [
            "run",
            "--socket",
            serve().path,
            "--placement",
            place,
            "--only",
            "churn",
            "--smoke",
            "-q",
            "-o",
            out,
        ]
    )
    wanted = place if placement.possible(place, tuple(before)) else placement.SCHEDULER
    assert used == [(os.getpid(), wanted)]
    assert results.load(out)["settings"]["placement"] == wanted
    assert os.sched_getaffinity(0) == before
