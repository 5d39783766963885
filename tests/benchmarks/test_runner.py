# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs of the harness: what is measured, what is missing and named, and the exit status."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyxsd_bench import cli, daemons, limits, proc, results, runner, scenarios, target, versions

from .conftest import Server, missing, need_pyxsd, ok, packet

FAST = ["--seconds", "0.01", "--repeat", "1", "--scale", "0", "-q"]
FLOOR_SCENARIOS = {s.name for s in scenarios.ALL if s.floor}


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "result.json")


def measured(path: str) -> set[tuple[str, str]]:
    return {(s["scenario"], s["daemon"]) for s in results.load(path)["samples"]}


def test_the_floor(out: str) -> None:
    """Without any xenstored: the harness and its compiled parts work, and every figure is there."""
    assert cli.main(["run", "floor", "floor-poll", "-o", out, *FAST]) == 0
    result = results.load(out)
    assert result["complete"]
    assert measured(out) == {(s, d) for s in FLOOR_SCENARIOS for d in ("floor", "floor-poll")}
    # In so short a sample the kernel's account of a process that never slept may not move.
    assert any(s["cpu_us"] > 0 for s in result["samples"] if s["scenario"] == "one-at-a-time")
    for sample in result["samples"]:
        if sample["scenario"] == "in-flight-32" and sample["round"] == 0:
            assert sample["requests"] >= 32
            assert sample["gen_us"] > 0
            assert 0 < sample["p50_us"] <= sample["p99_us"] <= sample["max_us"]
            assert sum(count for _, count in sample["hist"]) == sample["requests"]


def test_the_daemons_that_are_here(out: str) -> None:
    """A smoke run of every scenario against every daemon of this machine."""
    present = []
    for name in ("pyxsd", "oxenstored", "xenstored"):
        command = daemons.built_in(name).command[0].strip("{}")
        program = daemons.places("", "", "", {}).get(command, command)
        if shutil.which(program) or list(Path("/usr/lib").glob(f"xen-*/bin/{name}")):
            present.append(name)
    if len(present) < 3:
        missing(f"daemons: only {present} (pip install . ; Debian package xen-utils-4.17)")
    assert cli.main(["run", *present, "--smoke", "-q", "-o", out]) == 0
    wanted = {
        (s.name, name)
        for s in scenarios.ALL
        for name in present
        if name in (s.kinds or present) and not s.keeper
    }
    assert measured(out) == wanted


@pytest.mark.parametrize(
    "options",
    [
        ["nosuchdaemon"],
        ["floor", "--only", "nosuchscenario"],
        ["floor", "--repeat", "0"],
        ["floor", "--seconds", "0"],
        ["floor", "--scale", "2"],
        ["--socket", "/no/such/socket"],
        ["/no/such/file.ini"],
        ["floor", "-o", "/no/such/folder/r.json"],
    ],
)
def test_bad_options(options: list[str], out: str, capsys: Any) -> None:
    extra = [] if "-o" in options else ["-o", out]
    assert cli.main(["run", *options, *extra]) == runner.USAGE
    assert capsys.readouterr().err.startswith("pyxsd-bench: ")


DAEMONS = {
    "is not there": ("/no/such/program", "is not installed"),
    "ends at once": ("/bin/false", "did not start: ended with status 1"),
    "says why": ("/bin/sh {config}", "ended with status 7; its output: no grants"),
}


@pytest.mark.parametrize("fault", DAEMONS)
def test_a_daemon_that_does_not_start(fault: str, out: str, tmp_path: Path) -> None:
    command, reason = DAEMONS[fault]
    ini = tmp_path / "d.ini"
    ini.write_text(
        f"[daemon]\nname = sick\ncommand = {command}\npreload = no\n"
        "[config]\necho no grants; exit 7; x = y\n"
    )
    status = cli.main(["run", str(ini), "floor", "-o", out, "--only", "churn", *FAST])
    assert status == runner.MISSING
    rows = results.load(out)["missing"]
    assert [row["daemon"] for row in rows] == ["sick"]
    assert reason in rows[0]["reason"]
    assert measured(out) == {("churn", "floor")}  # the rest went on


def test_what_does_not_start_is_tried_once(out: str, tmp_path: Path, capsys: Any) -> None:
    tries = tmp_path / "tries"
    ini = tmp_path / "d.ini"
    ini.write_text(
        "[daemon]\nname = sick\ncommand = /bin/sh {config}\npreload = no\n"
        f"[config]\necho x >>{tries}; exit 1; x = y\n"
    )
    options = ["--only", "churn", "--only", "in-flight", "-o", out, *FAST]
    assert cli.main(["run", str(ini), *options]) == runner.MISSING
    assert tries.read_text() == "x\n"
    assert [row["scenario"] for row in results.load(out)["missing"]] == ["in-flight-32", "churn"]
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["missing: in-flight-32, churn: sick did not start: ended with status 1"]


def test_the_daemon_behind_a_wrapper_is_measured(tmp_path: Path) -> None:
    """Its CPU time is what counts, and it must not be left behind."""
    ini = tmp_path / "d.ini"
    ini.write_text(
        "[daemon]\nname = wrapped\npreload = no\necho = yes\n"
        "command = /bin/sh {config} {python} {run}/socket\n"
        '[config]\n"$1" -m pyxsd_bench.floor "$2"; x = y\n'
    )
    found = target.start(daemons.find(str(ini)))
    try:
        assert b"pyxsd_bench.floor" in Path(f"/proc/{found.pid}/cmdline").read_bytes()
        assert not Path(f"/proc/{found.pid}/cmdline").read_bytes().startswith(b"/bin/sh")
    finally:
        found.close()
    assert not proc.alive(found.pid)


def test_a_result_that_cannot_be_written(
    out: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A disk that fills up after the start: said in one line, and the run ends with a status."""
    save, calls = results.save, []

    def full(path: str, result: results.Result) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, result)

    monkeypatch.setattr(results, "save", full)
    assert cli.main(["run", "floor", "-o", out, "--only", "churn", *FAST]) == runner.USAGE
    assert capsys.readouterr().err == f"pyxsd-bench: {out}: No space left on device\n"


def test_uncountable_system_calls_are_said_once(
    out: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Without the right to count: one line for the whole run, and the result says so."""

    def refused(pid: int) -> proc.Syscalls:
        raise OSError(errno.EACCES, "perf_event_open: Permission denied")

    monkeypatch.setattr(proc, "Syscalls", refused)
    options = [option for option in FAST if option != "-q"]
    assert cli.main(["run", "floor", "floor-poll", "-o", out, "--only", "churn", *options]) == 0
    assert capsys.readouterr().err.count("system calls are not counted") == 1
    assert "Permission denied" in results.load(out)["settings"]["syscalls"]


@pytest.mark.parametrize("name", daemons.DEFAULT)
def test_versions_are_named(name: str) -> None:
    description = daemons.built_in(name)
    if name == "pyxsd":
        need_pyxsd()
    if name in ("oxenstored", "xenstored") and not list(Path("/usr/lib").glob(f"xen-*/bin/{name}")):
        missing(f"{name} (Debian package xen-utils-4.17)")
    assert versions.version(description)[:1].isdigit()


def mostly_ok(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
    """Writes succeed, reads give what was never written."""
    return ok(kind, req_id, tx_id, payload) if kind != 2 else packet(2, req_id, tx_id, b"else")


SICK = {
    "wrong values": (mostly_ok, "unexpected reply"),
    "errors": (lambda k, r, t, p: packet(16, r, t, b"EACCES\0"), "EACCES"),
    "closing": (lambda k, r, t, p: None, "closed the connection"),
}


@pytest.mark.parametrize("fault", SICK)
def test_errors_are_never_measured(fault: str, out: str, serve: Callable[..., Server]) -> None:
    """A daemon that answers fast and wrong gives no figures but an exit status."""
    answer, reason = SICK[fault]
    server = serve(answer)
    status = cli.main(["run", "--socket", server.path, "-o", out, "--only", "one-at-a-time", *FAST])
    assert status == runner.MISSING
    result = results.load(out)
    assert result["samples"] == []
    assert reason in result["missing"][0]["reason"]


def test_a_running_daemon_is_cleaned_up_behind(out: str, serve: Callable[..., Server]) -> None:
    server = serve()
    cli.main(["run", "--socket", server.path, "-o", out, "--only", "transaction-length", *FAST])
    assert measured(out)
    assert (13, 0, b"/bench\0") in server.requests


def test_a_running_daemon_gets_no_domains(out: str, serve: Callable[..., Server]) -> None:
    """Stories would overwrite the trees of a host's real guests."""
    server = serve()
    words = [word for s in scenarios.ALL if s.needs for word in ("--only", s.name)]
    assert {"rings", "boot-storm", "device-models", "hostile-guest"} <= set(words)
    assert cli.main(["run", "--socket", server.path, "-o", out, *words, *FAST]) == 0
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("idle-connections", 10**9, "descriptors"),
        ("fan-out", 10**9, "descriptors"),
        ("store-size", 10**9, "MiB of memory"),
        ("rings", 10, "stand-in"),
    ],
)
def test_sizes_that_the_machine_cannot_hold(name: str, size: int, reason: str) -> None:
    scenario = next(s for s in scenarios.ALL if s.name == name)
    assert reason in limits.objection(scenario, size, 3, False)
    assert limits.objection(scenario, 1, 1, True) == ""


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0, [1]),
        (0.001, [1]),
        (0.01, [1, 10]),
        (0.5, [1, 10, 100, 500]),
        (1, [1, 10, 100, 500, 1000]),
    ],
)
def test_scale(scale: float, expected: list[int]) -> None:
    scenario = next(s for s in scenarios.ALL if s.name == "fan-out")
    assert runner.sizes(scenario, scale) == expected


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def test_ctrl_c_keeps_what_is_done(out: str) -> None:
    # Many short sizes: the file is written after each.
    command = [
        sys.executable,
        "-m",
        "pyxsd_bench",
        "run",
        "floor",
        "-o",
        out,
        "--seconds",
        "0.02",
        "--repeat",
        "3",
        "--scale",
        "1",
        "--only",
        "clients",
        "--only",
        "idle",
        "--only",
        "placement",
    ]
    # As from a terminal: a shell's background jobs ignore the signal.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    def some() -> bool:
        return os.path.exists(out) and bool(results.load(out)["samples"])

    try:
        wait_for(some)
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == runner.INTERRUPTED
    assert "interrupted" in text
    assert "left" in text  # the progress says how long it takes
    result = results.load(out)
    assert result["samples"]
    assert not result["complete"]


def test_a_daemon_that_dies_in_the_middle(out: str, tmp_path: Path) -> None:
    """Killed while it is measured: named, and the next daemon's figures are there."""
    pid_file = tmp_path / "pid"
    ini = tmp_path / "d.ini"
    ini.write_text(
        "[daemon]\nname = mortal\npreload = no\necho = yes\n"
        f"command = /bin/sh -c echo${{IFS}}$$>{pid_file};exec${{IFS}}{sys.executable}"
        "${IFS}-m${IFS}pyxsd_bench.floor${IFS}{run}/socket\n"
    )
    command = [
        sys.executable,
        "-m",
        "pyxsd_bench",
        "run",
        str(ini),
        "floor",
        "-o",
        out,
        "--only",
        "one-at-a-time",
        "--seconds",
        "0.3",
        "--repeat",
        "2",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        text = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == runner.MISSING, text
    result = json.loads(Path(out).read_text())
    assert result["missing"][0]["daemon"] == "mortal"
    reason = result["missing"][0]["reason"]
    assert "killed by signal 9 (SIGKILL)" in reason
    assert ("one-at-a-time", "floor") in measured(out)
