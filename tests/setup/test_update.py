# SPDX-License-Identifier: LGPL-2.1-or-later
"""update: what it says, what it asks, what it does, and what it leaves."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyxsd
from pyxsd.setup import choose, cli, running, update
from tests.clients.daemon import PROJECT
from tests.setup.dom0 import DEBIAN, make
from tests.update.kit import UpdatedDaemon


@pytest.fixture
def host() -> Iterator[Path]:
    """A dom0 in a folder whose name is short enough for a socket."""
    root = Path(
        subprocess.run(
            ["mktemp", "-d", "/tmp/dom0.XXXX"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
    )
    yield make(root, DEBIAN)
    subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.fixture
def daemon(host: Path) -> Iterator[UpdatedDaemon]:
    """A pyxsd whose socket is the folder's."""
    started = UpdatedDaemon(env={"XENSTORED_RUNDIR": str(host / "run/xenstored")}, wait=False)
    try:
        started.socket = host / "run/xenstored/socket"
        started.wait_ready()
        yield started
        assert started.answers()
    finally:
        started.stop()


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def run(host: Path, *words: str) -> int:
    return cli.main(["update", "--root", str(host), *words])


def test_it_is_updated(
    capsys: pytest.CaptureFixture[str], host: Path, daemon: UpdatedDaemon
) -> None:
    pid = daemon.pid
    assert run(host, "--yes") == 0
    out = capsys.readouterr().out
    assert daemon.pid != pid
    assert f"running now:      pyxsd {pyxsd.__version__}, process {pid}, answers on" in out
    assert "will start:       " in out and "-m pyxsd --live --restart" in out
    assert out.endswith(
        f"Updated: pyxsd {pyxsd.__version__}, process {daemon.pid}, serves now; "
        f"process {pid} ends.\n"
    )


@pytest.mark.parametrize("typed,status", [("n\n", 1), ("\n", 1), ("", 1), ("y\n", 0), ("YES\n", 0)])
def test_it_asks_once(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: Path,
    daemon: UpdatedDaemon,
    typed: str,
    status: int,
) -> None:
    pid = daemon.pid
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert run(host) == status
    assert (daemon.pid != pid) == (status == 0)
    assert capsys.readouterr().out.count("Update now?") == 1


def test_nobody_to_ask(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: Path,
    daemon: UpdatedDaemon,
) -> None:
    pid = daemon.pid
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run(host) == 1
    assert daemon.pid == pid
    assert "--yes does it without asking" in capsys.readouterr().err


def test_open_transactions_go_on(host: Path, daemon: UpdatedDaemon) -> None:
    """They are not waited for."""
    pid = daemon.pid
    with daemon.client() as client:
        number = int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
        assert client.ask("WRITE", b"/in\0v", number)[1] == b"OK\0"
        assert run(host, "--yes", "--timeout", "0") == 0
        assert daemon.pid != pid
        assert client.ask("TRANSACTION_END", b"T\0", number)[1] == b"OK\0"
        assert client.ask("READ", b"/in\0")[1] == b"v"


def test_nothing_runs(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert run(host, "--yes") == 1
    assert "nothing to update: no xenstored answers on" in capsys.readouterr().err
    assert not os.path.exists(host / "run/xenstored/socket")


NOW = running.Running(running.LIVE, "/run/socket", 7, "pyxsd", "0.0.1")


class Answers:
    """A daemon that gives these answers to CONTROL, the last one again and again, on a clock that
    only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> None:
        self.answers = [*answers]
        self.asked: list[bytes] = []
        self.now = 100.0
        monkeypatch.setattr(running, "control", self.control)
        monkeypatch.setattr(running, "control_version", lambda _path: "9.9")
        monkeypatch.setattr(update, "time", self)

    def control(self, _path: str, payload: bytes) -> bytes:
        self.asked.append(payload)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("now", "named"),
    [(NOW, "0.0.1"), (dataclasses.replace(NOW, version=""), "of an older version")],
)
def test_a_pyxsd_without_live_update(
    monkeypatch: pytest.MonkeyPatch, now: running.Running, named: str
) -> None:
    """It answers the question with OK, and names no program."""
    Answers(monkeypatch, b"OK\0")
    with pytest.raises(choose.Refused, match=rf"\({named}\) cannot be updated while it runs"):
        update.plan(now, "9.9")


def test_the_program_is_the_daemon_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(monkeypatch, b"state: idle\nprogram: /usr/bin/python3 -m pyxsd\nother: x\n\0")
    assert update.plan(NOW, "9.9") == update.Plan(NOW, "9.9", "/usr/bin/python3 -m pyxsd")


def test_it_is_asked_until_there_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that hands over cannot answer for a moment."""
    daemon = Answers(monkeypatch, update.BUSY, b"", update.BUSY, b"OK\0")
    assert update.run(update.Plan(NOW, "9.9", "x"), 5) == "9.9"
    assert daemon.asked == [b"live-update\0-s\0-t\0005\0"] * 4
    assert daemon.now == pytest.approx(100 + 3 * update.PAUSE_SECONDS)


def test_what_never_ends_is_called_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute after the time that the daemon was given."""
    daemon = Answers(monkeypatch, update.BUSY)
    with pytest.raises(choose.Refused, match="called off"):
        update.run(update.Plan(NOW, "9.9", "x"), 5)
    assert daemon.asked[-1] == b"live-update\0-a\0" and daemon.asked.count(daemon.asked[-1]) == 1
    assert 5 + 60 <= daemon.now - 100 < 5 + 60 + 2 * update.PAUSE_SECONDS


def test_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(monkeypatch, update.BUSY, b"no such program\0")
    with pytest.raises(choose.Refused, match="the old daemon goes on: no such program"):
        update.run(update.Plan(NOW, "9.9", "x"), 5)


def test_another_process_has_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer can be that to somebody else's update; and for a moment both are there."""
    daemon = Answers(monkeypatch, b"OK\0")
    seen = iter([NOW, NOW, dataclasses.replace(NOW, pid=8)])
    assert update.successor(NOW, lambda: next(seen)).pid == 8
    assert daemon.now == pytest.approx(100 + 2 * update.PAUSE_SECONDS)
    assert (
        update.successor(NOW, lambda: dataclasses.replace(NOW, pid=0)).pid == 0
    )  # nobody can know
    with pytest.raises(choose.Refused, match="process 7 still serves"):
        update.successor(NOW, lambda: NOW)


KEPT = [
    (b"pyxsd 1\ncrash recovery: by process 3\nprogram: x\n\0", NOW, "by process 3"),
    (b"pyxsd 1\nprogram: x\n\0", NOW, ""),
    (b"", NOW, ""),
    (b"crash recovery: by\0", dataclasses.replace(NOW, kind="oxenstored"), ""),
    (b"crash recovery: by\0", dataclasses.replace(NOW, state=running.SILENT), ""),
]


@pytest.mark.parametrize(("told", "now", "kept"), KEPT)
def test_what_the_daemon_says_of_crash_recovery(
    monkeypatch: pytest.MonkeyPatch, told: bytes, now: running.Running, kept: str
) -> None:
    Answers(monkeypatch, told)
    assert update.crash_recovery(now) == kept


def test_the_manual_says_how_long_it_may_take() -> None:
    page = (PROJECT / "packaging" / "man" / "pyxsd-setup.8").read_text()
    seconds, more = update.SECONDS, update.EXTRA_SECONDS
    assert f"after these and {more} more; 0 to {cli.MOST_SECONDS} (default: {seconds})" in page
