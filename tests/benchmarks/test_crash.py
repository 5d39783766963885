# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon with a keeper: what is measured of it, and the scenario that kills it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyxsd_bench import cli, daemons, placement, proc, report, results, target
from pyxsd_bench.measure import NothingMeasured, Sample
from pyxsd_bench.program import Program
from pyxsd_bench.scenarios import Context, crash, images, state
from pyxsd_bench.scenarios.base import endless, once
from pyxsd_bench.summary import Summary

from .conftest import missing, need_pyxsd

CONTEXT = Context(0.02)
TICK_NS = 1_000_000_000 // proc.TICK


def started(name: str) -> target.Target:
    need_pyxsd()
    try:
        return target.start(daemons.built_in(name))
    except target.NotStarted as error:
        missing(str(error))
        raise


@pytest.fixture
def daemon() -> Iterator[target.Target]:
    """One with a keeper, of which nothing is left in the end."""
    found = started("pyxsd-recovery")
    pids = set(proc.family(found.pid))
    try:
        yield found
        pids |= set(proc.family(found.pid))
    finally:
        found.close()
    assert len(pids) > 1
    assert not any(proc.alive(pid) for pid in pids)


def asked(daemon: target.Target) -> Sample:
    return endless(daemon, Program().directory("/"), Context(0.2), window=32)


def killed(daemon: target.Target) -> None:
    """The process that serves dies, and another one is there."""
    before = proc.serving(daemon.pid)
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + 30
    while proc.serving(daemon.pid) in (before, daemon.pid):
        assert time.monotonic() < end, "nobody takes its place"
        time.sleep(0.005)


def clock(pid: int) -> int:
    return time.clock_gettime_ns((~pid << 3) | 2)


def test_processes_of_a_daemon(daemon: target.Target) -> None:
    """The keeper, which is the target, and its child; of others one process, be it gone or not."""
    keeper, child = proc.family(daemon.pid)
    assert keeper == daemon.pid and child == proc.serving(keeper)
    assert f"PPid:\t{keeper}\n" in Path(f"/proc/{child}/status").read_text()
    assert proc.family(child) == [child] == [proc.serving(child)]
    assert proc.family(2**22 + 1) == [2**22 + 1]


def test_what_counts_of_a_daemon_with_a_keeper(daemon: target.Target) -> None:
    """Both processes, and those that have died."""
    keeper, child = proc.family(daemon.pid)
    before, childs = proc.cpu(keeper).total_ns, clock(child)
    found = asked(daemon)
    own = clock(child) - childs
    spent = proc.cpu(keeper).total_ns - before
    assert spent >= own > 0
    assert found["cpu_us"] * found["requests"] > own / 2e3  # a quarter of the time warmed up
    killed(daemon)
    assert proc.cpu(keeper).total_ns > before + own - 2 * TICK_NS


def test_the_memory_of_both(daemon: target.Target) -> None:
    """The child's, which has the store, and what the keeper does not share with it."""
    program = Program()
    for number in range(3000):
        program.write(f"/big/{number}", b"x" * 2000)
    once(daemon, program)
    alone, childs = (proc._rollup(pid)["Rss"] for pid in proc.family(daemon.pid))
    assert alone < childs <= proc.memory(daemon.pid) < childs + alone
    assert childs / 2 < proc.resident(daemon.pid)
    assert asked(daemon)["rss"] >= childs


def test_system_calls_are_those_of_the_process_that_serves(
    daemon: target.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose they are, on machines where they cannot be counted, too."""
    opened: list[tuple[int, int]] = []

    class Lib:
        """Takes note of what is to be counted."""

        @staticmethod
        def xb_syscalls_open(pid: int, tracepoint: int) -> int:
            """A descriptor."""
            opened.append((pid, tracepoint))
            return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(proc, "_tracepoint", lambda: 17)
    monkeypatch.setattr(proc, "lib", Lib)
    with proc.Syscalls(daemon.pid):
        pass
    _, child = proc.family(daemon.pid)
    assert opened == [(child, 17)]


def test_both_are_placed(daemon: target.Target) -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    with placement.placed(daemon.pid, placement.TOGETHER, cpus):
        found = [os.sched_getaffinity(pid) for pid in proc.family(daemon.pid)]
    assert found == [{cpus[0]}] * 2
    assert [os.sched_getaffinity(pid) for pid in proc.family(daemon.pid)] == [set(cpus)] * 2


def test_kills(daemon: target.Target) -> None:
    """Another process serves after each, also behind a larger size, and its figures make sense."""
    pids = {proc.serving(daemon.pid)}
    for size in (1000, 2000):
        crash.prepare(daemon, size, CONTEXT)
        found = crash.SCENARIOS[0].run(daemon, size, CONTEXT)
        assert set(found) == {"idle", "under load"}
        for figures in found.values():
            assert figures["units"] == sum(count for _, count in figures["hist"]) >= 2
            assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]
            assert figures["max_us"] < figures["seconds"] * 1e6
            assert figures["cpu_us"] > 0
        assert found["under load"]["requests"] > found["idle"]["requests"]
        pids.add(proc.serving(daemon.pid))
    assert len(pids) == 3
    assert crash.SCENARIOS[0].run(daemon, 2000, Context(0.02, syscalls=True)) == {}
    log = Path(daemon.run, "xenstored.log").read_text()
    assert log.count("was killed by SIGKILL") >= 4 * 2


def test_images_are_written_while_a_client_reads(daemon: target.Target) -> None:
    """What counts are its READs; the others ask more."""
    for size in (1000, 2000):
        crash.prepare(daemon, size, CONTEXT)
        found = images.SCENARIOS[0].run(daemon, size, Context(0.1))["read"]
        reads = sum(count for _, count in found["hist"])
        assert 0 < reads < found["requests"] / 2
        assert 0 < found["p50_us"] <= found["max_us"]
    asked(daemon)


def test_an_update_of_a_daemon_with_a_keeper(daemon: target.Target) -> None:
    """Keeper and child are others then, and what is measured is they."""
    before = proc.family(daemon.pid)
    state.prepare(daemon, 1000, CONTEXT)
    found = state.SCENARIOS[0].run(daemon, 1000, CONTEXT)["live update"]
    after = proc.family(daemon.pid)
    assert len(after) == 2 and not set(after) & set(before)
    assert found["requests"] > 0 and found["cpu_us"] > 0
    asked(daemon)


def test_a_daemon_that_turns_out_to_have_none() -> None:
    """As where crash recovery is on, and the kernel refuses it."""
    found = started("pyxsd")
    try:
        crash.prepare(found, 1000, CONTEXT)
        with pytest.raises(NothingMeasured, match="no process serves but the keeper, if it is one"):
            crash.SCENARIOS[0].run(found, 1000, CONTEXT)
        assert proc.alive(found.pid)
    finally:
        found.close()


def test_who_takes_part(tmp_path: Path) -> None:
    """Who has no keeper does not, with the reason on the page; the run is whole."""
    out, ini = str(tmp_path / "result.json"), tmp_path / "mine.ini"
    ini.write_text(
        "[daemon]\nname = mine\ncommand = /no/such/program\n[config]\ncrash-recovery = true\n"
    )
    assert daemons.find(str(ini)).keeper
    assert [d.name for d in daemons.BUILT_IN if d.keeper] == ["pyxsd-recovery"]
    names = ["pyxsd", "oxenstored", "floor"]
    assert cli.main(["run", *names, "--only", "state-crash", "--smoke", "-q", "-o", out]) == 0
    found = results.load(out)
    assert found["samples"] == [] == found["missing"]
    page = report.render(Summary([(out, found)]), report.DOCUMENT)
    for line in (
        "- state-crash, pyxsd: not available: crash-recovery is not on\n",
        "- state-crash, oxenstored: not available: nothing takes its place where it is killed\n",
    ):
        assert line in page
    assert "floor: not available" not in page
