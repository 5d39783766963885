# SPDX-License-Identifier: LGPL-2.1-or-later
"""The launcher's second half in this process: what it looks at before it becomes pyxsd."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd import __version__, cli
from pyxsd.setup import launch
from pyxsd.system import listening
from tests.clients.daemon import Daemon

BECAME = 77  # the status of what stands for pyxsd here


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run directory; whoever becomes pyxsd ends with BECAME, its words in `became`."""
    monkeypatch.setenv("XENSTORED_RUNDIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(launch, "is_journal", lambda _stream: True)

    def become(words: list[str]) -> int:
        (tmp_path / "became").write_text(" ".join(words))
        return BECAME

    monkeypatch.setattr(cli, "main", become)
    return tmp_path


@pytest.fixture
def path() -> Iterator[Path]:
    """A path that is short enough for a socket."""
    folder = Path(os.path.realpath("/tmp")) / f"launch-{os.getpid()}"
    folder.mkdir()
    yield folder / "socket"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def start(*words: str) -> int:
    return launch.main(["/sbin/pyxsd-launch", *words])


def test_nothing_is_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--no-fork", "--restart") == BECAME
    assert (run / "became").read_text() == "--no-fork --restart"
    assert sys.argv == ["/sbin/pyxsd-launch", "--no-fork", "--restart"]
    assert capsys.readouterr() == ("", "")


# words, status, the beginning of stdout and of stderr
ENDS = [
    (["--version"], 0, f"pyxsd-launch {__version__}", ""),
    (["--bogus"], 2, "", "pyxsd-launch: unknown option '--bogus'"),
]


@pytest.mark.parametrize(("words", "status", "out", "error"), ENDS)
def test_words_that_start_nothing(
    run: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    out: str,
    error: str,
) -> None:
    assert start(*words) == status
    told = capsys.readouterr()
    assert not (run / "became").exists()
    assert told.out.startswith(out) and bool(told.out) == bool(out)
    assert told.err.startswith(error) and bool(told.err) == bool(error)


def test_one_answers(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started, and the start script gets its pid file; questions are passed on."""
    with Daemon() as daemon:
        monkeypatch.setenv("XENSTORED_RUNDIR", str(daemon.run))
        assert start("--pid-file", str(run / "pid")) == launch.STATUS_OK == 0
        assert (run / "pid").read_text() == f"{daemon.pid}\n"
        assert capsys.readouterr().err == (
            f"pyxsd-launch: nothing to start: a xenstored (pyxsd, process {daemon.pid}) answers "
            f"on {daemon.socket}\n"
        )
        assert start("--pid-file", str(run / "no" / "pid")) == 0
        assert f"cannot write the pid file {run}/no/pid: No such file" in capsys.readouterr().err
        assert start() == 0
        assert not (run / "became").exists()
        for words in (["--config-test"], ["--live", "--restart"]):
            assert start(*words) == BECAME
        assert start("--show-state", "x") == BECAME


def test_one_hangs(
    run: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked as long as the message says, and no second one is started."""
    asked: list[float] = []

    def probe(_path: str, seconds: float) -> object:
        asked.append(seconds)
        return listening.SILENT

    monkeypatch.setenv("XENSTORED_RUNDIR", str(path.parent))
    monkeypatch.setattr(listening, "probe", probe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert start() == launch.STATUS_HANGS == 1
    assert asked == [5.0]
    assert capsys.readouterr().err == (
        "pyxsd-launch: cannot start pyxsd: a xenstored (an unknown program, process "
        f"{os.getpid()}) listens on {path} but has not answered for 5 seconds; "
        "it hangs, or is very busy\n"
    )
    assert not (run / "became").exists()


def test_one_was_left_behind(
    run: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XENSTORED_RUNDIR", str(path.parent))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    assert start() == BECAME
    assert capsys.readouterr().err == (
        f"pyxsd-launch: {path} was left behind by a daemon that is gone; pyxsd replaces it\n"
    )


def test_it_cannot_be_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path too long for a socket: pyxsd will say what is wrong."""
    monkeypatch.setenv("XENSTORED_RUNDIR", "/" + "x" * 200)
    assert start() == BECAME
    assert capsys.readouterr().err.startswith(
        "pyxsd-launch: cannot tell whether a xenstored runs: /xxx"
    )


def test_a_part_is_missing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyxsd.cli", None)
    assert start() == launch.STATUS_NOT_INSTALLED == 5
    assert "Its package is damaged, or was made for another Python than" in capsys.readouterr().err


@pytest.mark.parametrize("goes_to_the_journal", [True, False])
def test_what_is_said_goes_to_the_system_s_log(
    run: Path, monkeypatch: pytest.MonkeyPatch, goes_to_the_journal: bool
) -> None:
    """As well, where it does not go there anyway; a stderr that is closed is none."""
    monkeypatch.setattr(launch, "is_journal", lambda _stream: goes_to_the_journal)
    for stream in (sys.stderr, None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert start() == BECAME
        is_copied = stream is not None and not goes_to_the_journal
        assert isinstance(sys.stderr, launch.SystemLog) is is_copied
