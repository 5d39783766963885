# SPDX-License-Identifier: LGPL-2.1-or-later
"""The judge of the system test, and its archives, without any machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from realxen import checks, packages, session
from realxen.checks import DAEMONS, SIZES, STARTS, STORIES, Run
from realxen.cpio import Archive


def log_of(outcomes: dict[str, bool], end: str = "SYSTEM END 0") -> str:
    """Return a serial log in which these checks passed or failed."""
    lines = [f"CHECK {name} {'ok' if passed else 'fail why'}" for name, passed in outcomes.items()]
    return "\n".join(["(XEN) booting", *lines, end]) + "\n"


RUNS = [
    Run(daemon, start, size, story)
    for daemon in DAEMONS
    for start in STARTS
    for size in SIZES
    for story in STORIES
]
QUICK = [Run(daemon, "debian", "quick") for daemon in DAEMONS]
SWITCHES = [Run(daemon, "debian", "quick", "switches") for daemon in ("oxenstored", "cxenstored")]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_complete_run_is_good(run: Run) -> None:
    """All planned checks, all as they must be."""
    assert checks.verdict(log_of(checks.plan(run)), run) == []


@pytest.mark.parametrize("run", QUICK + SWITCHES, ids=str)
def test_failures_are_told(run: Run) -> None:
    """A failed, a missing, an unknown check, an early end, a difference that is none."""
    planned = checks.plan(run)
    without = {name: passed for name, passed in planned.items() if name != "g1.network"}
    table = [
        (log_of({**planned, "end.alive": False}), "end.alive: why"),
        (log_of(without), "1 missing: g1.network"),
        (log_of({**planned, "g9.new": True}), "g9.new: nobody expected this check"),
        (log_of(planned, "SYSTEM END 1"), "dom0 did not come to its end"),
    ]
    for name in ("g1-first.parts", "g1-given.parts"):
        if not planned.get(name, True):
            complaint = f"{name}: passed, but who serves then is known to fail it"
            table.append((log_of({**planned, name: True}), complaint))
    for log, complaint in table:
        assert checks.verdict(log, run) == [complaint]


@pytest.mark.parametrize("run", SWITCHES, ids=str)
def test_who_serves_decides_what_is_expected(run: Run) -> None:
    """A daemon must fail what it is known to fail, and pyxsd must not, which serves between."""
    planned = checks.plan(run)
    parts = [planned[f"g1-{label}.parts"] for label in ("first", "taken", "given")]
    assert parts == [False, True, False]
    asked = [f"{label}.watches-gone" in planned for label in ("g2-destroy", "g3-destroy")]
    assert asked == [True, run.daemon != "cxenstored"]


@pytest.mark.parametrize("daemon", DAEMONS)
def test_machines(daemon: str) -> None:
    """The quick ones are among the full ones; only pyxsd dies, and is switched to."""
    quick, full = session.runs(daemon, "quick"), session.runs(daemon, "full")
    assert {replace(run, size="full") for run in quick} <= set(full)
    assert len(set(full)) == len(full)
    stories = {run.story for run in full}
    assert stories == (set(STORIES) if daemon == "pyxsd" else {"lives"})


FULL = Run("pyxsd", "debian", "full")


def test_a_check_that_passes_once_and_fails_once_is_told() -> None:
    """A guest that boots twice makes its checks twice; each counts."""
    log = "CHECK g1.network fail no answer\n" + log_of(checks.plan(FULL))
    assert checks.verdict(log, FULL) == ["g1.network: no answer"]


def test_a_guest_that_is_cut_short_must_not_fail_before() -> None:
    """Its checks may come or not; one that comes counts."""
    rest = log_of(checks.plan(FULL))
    table = [
        ("CHECK g2-cut.values ok\n", []),
        ("CHECK g2-cut.values fail no\n", ["g2-cut.values: no"]),
    ]
    for line, complaints in table:
        assert checks.verdict(line + rest, FULL) == complaints


def test_archives_are_read_by_cpio(tmp_path: Path) -> None:
    """What cpio unpacks is what was put in; the last entry of a path wins."""
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    archive = Archive()
    archive.file("/a/b/first", b"old")
    archive.file("/a/b/first", b"some bytes", 0o640)
    archive.file("a/second", source)
    archive.link("/a/link", "b/first")
    archive.directory("/empty")
    size = archive.write(tmp_path / "test.cpio")
    assert size == (tmp_path / "test.cpio").stat().st_size
    target = tmp_path / "unpacked"
    target.mkdir()
    with (tmp_path / "test.cpio").open("rb") as packed:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=packed, cwd=target, check=True)
    found = {str(path.relative_to(target)) for path in target.rglob("*")}
    assert found == {"a", "a/b", "a/b/first", "a/second", "a/link", "empty"}
    assert (target / "a/link").read_bytes() == b"some bytes"
    assert (target / "a/b/first").stat().st_mode & 0o777 == 0o640
    assert (target / "a/second").read_bytes() == b"from a file"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that must be installed is asked for, with its package; nothing is downloaded."""
    monkeypatch.setitem(packages.SOURCES, "usr/bin/no-such-program", "qemu-system-x86")
    with pytest.raises(packages.MissingError, match="apt-get install qemu-system-x86"):
        packages.find("usr/bin/no-such-program")
    with pytest.raises(packages.MissingError, match="/usr/bin/nobody-knows-it is missing"):
        packages.find("usr/bin/nobody-knows-it")


#: What an unpacked package has (name and, where it is a link, its target), and where it is found.
UNPACKED = (
    ("usr/sbin/tool", "", "usr/sbin/tool"),
    ("sbin/tool", "", "sbin/tool"),
    ("sbin/tool", "/bin/other", "bin/other"),
    ("usr/sbin/tool", "../../bin/other", "usr/sbin/tool"),
)


@pytest.mark.parametrize(("name", "target", "found"), UNPACKED)
def test_a_tool_of_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str, found: str
) -> None:
    """Packages have brctl and others in /sbin, where the installed system has them in /usr/sbin."""
    monkeypatch.setitem(packages.SOURCES, "usr/sbin/tool", "tool-package")
    monkeypatch.setattr(packages, "_fetch", lambda package: tmp_path / package)
    root = tmp_path / "tool-package"
    for file in (root / "bin" / "other", root / name):
        file.parent.mkdir(parents=True, exist_ok=True)
    (root / "bin" / "other").touch()
    if target:
        (root / name).symlink_to(target)
    else:
        (root / name).touch()
    assert packages.find("usr/sbin/tool") == root / found


def test_a_package_without_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, where a missing file would have been an error of the test."""
    monkeypatch.setitem(packages.SOURCES, "usr/sbin/tool", "tool-package")
    monkeypatch.setattr(packages, "_fetch", lambda package: tmp_path)
    with pytest.raises(packages.MissingError, match="has no usr/sbin/tool"):
        packages.find("usr/sbin/tool")
