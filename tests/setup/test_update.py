# SPDX-License-Identifier: LGPL-2.1-or-later
"""update: what it says, what it asks, what it does, and what it leaves."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyxsd
from pyxsd.setup import cli
from tests.setup.dom0 import DEBIAN, make
from tests.update.kit import UpdatedDaemon


@pytest.fixture
def host() -> Iterator[Path]:
    """A dom0 in a folder whose name is short enough for a socket."""
    root = Path(subprocess.run(["mktemp", "-d", "/tmp/dom0.XXXX"], stdout=subprocess.PIPE,
                               text=True, check=True).stdout.strip())
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


def test_it_is_updated(capsys: pytest.CaptureFixture[str], host: Path,
                       daemon: UpdatedDaemon) -> None:
    pid = daemon.pid
    assert run(host, "--yes") == 0
    out = capsys.readouterr().out
    assert daemon.pid != pid
    assert f"running now:      pyxsd {pyxsd.__version__}, process {pid}, answers on" in out
    assert "will start:       " in out and "-m pyxsd --live --restart" in out
    assert out.endswith(f"Updated: pyxsd {pyxsd.__version__}, process {daemon.pid}, serves now; "
                        f"process {pid} ends.\n")


@pytest.mark.parametrize("typed,status", [("n\n", 1), ("\n", 1), ("", 1), ("y\n", 0),
                                          ("YES\n", 0)])
def test_it_asks_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                      host: Path, daemon: UpdatedDaemon, typed: str, status: int) -> None:
    pid = daemon.pid
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert run(host) == status
    assert (daemon.pid != pid) == (status == 0)
    assert capsys.readouterr().out.count("Update now?") == 1


def test_nobody_to_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                       host: Path, daemon: UpdatedDaemon) -> None:
    pid = daemon.pid
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run(host) == 1
    assert daemon.pid == pid
    assert "--yes does it without asking" in capsys.readouterr().err


def test_what_holds_it_up_is_told(capsys: pytest.CaptureFixture[str], host: Path,
                                  daemon: UpdatedDaemon) -> None:
    pid = daemon.pid
    with daemon.client() as client:
        client.ask("TRANSACTION_START", b"\0")
        assert run(host, "--yes", "--timeout", "0") == 1
    assert daemon.pid == pid
    assert ": 1 tx, out: false" in capsys.readouterr().err


def test_nothing_runs(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert run(host, "--yes") == 1
    assert "nothing to update: no xenstored answers on" in capsys.readouterr().err
    assert not os.path.exists(host / "run/xenstored/socket")
