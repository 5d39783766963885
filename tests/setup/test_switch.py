# SPDX-License-Identifier: LGPL-2.1-or-later
"""take-over and give-back: what they say, what they ask, what they do, and what they leave."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.setup import cli, running, switch
from pyxsd.setup.choose import Refused
from tests.domains.standin import home, introduce, require, works
from tests.setup.dom0 import DEBIAN, make
from tests.switch.kit import SwitchedStand, real

KINDS = {"xenstored": "C xenstored", "oxenstored": "oxenstored"}


class Host:
    """A pretended host with a xenstored, and the files of a dom0 with its socket."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stand = SwitchedStand(name)
        self.root = self.stand.root / "dom0"
        make(self.root, DEBIAN)
        self.program = self.stand.pyxsd()
        # The tree's /run/xenstored/socket is that of the host.
        (self.root / "run").rmdir()
        (self.root / "run").mkdir()
        shutil.rmtree(self.stand.root / "run")
        (self.root / "run/xenstored").mkdir()
        (self.stand.root / "run").symlink_to(self.root / "run/xenstored")
        monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(self, *words: str) -> int:
        """pyxsd-setup with this host's files."""
        return cli.main([words[0], "--root", str(self.root), *words[1:]])


@pytest.fixture(name="host", params=sorted(KINDS))
def a_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    real(request.param)
    try:
        host = Host(request.param, monkeypatch)
    except RuntimeError as error:
        require(str(error))
        raise
    with host.stand:
        host.stand.start()
        yield host


def test_there_and_back(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """With a guest; the configuration of the host names what it was."""
    stand, name = host.stand, host.stand.name
    pid, old = stand.pid, real(name)
    settings = host.root / "etc/default/xen"
    settings.write_text(f"XENSTORED={old}\n")
    (host.root / old[1:]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old, host.root / old[1:])
    with stand.client() as client:
        domain = stand.host.create(5)
        assert introduce(client, domain) == b"OK\0"
        home(client, 5)
        path = b"/local/domain/5/store/ring-ref\0"
        client.ask("WRITE", path + b"4660")
        client.ask("SET_PERMS", path + b"n0\0r5\0")
        assert host.run("take-over", "--program", host.program, "--yes") == 0
        told = capsys.readouterr().out
        assert f"running now:      {KINDS[name]}, process {pid}, answers on" in told
        assert f"will become:      pyxsd ({host.program}), in the same process" in told
        assert "Done: pyxsd" in told and f", process {pid}.\n" in told
        assert "The next boot starts" in told and "`pyxsd-setup select` changes that" in told
        assert ("oxenstored's state, stays" in told) == (name == "oxenstored")
        assert stand.what_runs() == "pyxsd"
        works(domain, client)
        assert host.run("take-over", "--yes") == 1
        assert "pyxsd runs already" in capsys.readouterr().err

        assert host.run("give-back", "--yes") == 0
        told = capsys.readouterr().out
        assert f"will become:      {KINDS[name]} ({old})" in told
        assert told.endswith(f"Done: {KINDS[name]} serves now, process {pid}.\n")
        assert stand.what_runs() == name
        works(domain, client)
        assert host.run("give-back", "--yes") == 1
        assert "and not pyxsd" in capsys.readouterr().err


def test_what_the_host_had_before_select(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """The settings file names pyxsd: give-back takes what it would be without."""
    old = real(host.stand.name)
    settings = host.root / "etc/default/xen"
    settings.write_text(f"XENSTORED={old}\n")
    (host.root / old[1:]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old, host.root / old[1:])
    assert host.run("select", "--force") == 0
    assert "pyxsd-launch" in settings.read_text()
    assert host.run("take-over", "--program", host.program, "--yes") == 0
    assert "The next boot" not in capsys.readouterr().out.split("Done: ")[1]
    assert host.run("give-back", "--yes") == 0
    assert (
        "The next boot starts pyxsd still; `pyxsd-setup deselect` changes that."
        in capsys.readouterr().out
    )
    assert host.stand.what_runs() == host.stand.name


@pytest.mark.parametrize(
    ("now", "then", "remedy"),
    [
        ("pyxsd", "oxenstored", "; `pyxsd-setup select` changes that"),
        ("oxenstored", "pyxsd", "; `pyxsd-setup deselect` changes that"),
        ("C xenstored", "oxenstored", ""),
    ],
)
def test_what_the_next_boot_starts(now: str, then: str, remedy: str) -> None:
    """What serves now, and what the host is configured for."""
    assert switch._remedy(now, then) == remedy


def test_it_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be done is said, and nothing changes."""
    stand = host.stand
    assert host.run("take-over", "--program", host.program) == 1
    assert "nobody can be asked here" in capsys.readouterr().err
    assert host.run("take-over", "--program", "/nonexistent", "--yes") == 1
    assert "/nonexistent is missing or cannot be executed" in capsys.readouterr().err
    with stand.client() as holder:
        holder.ask("TRANSACTION_START", b"\0")
        assert host.run("take-over", "--program", host.program, "--yes", "--timeout", "1") == 1
        told = capsys.readouterr().err
        assert f"not changed, and {KINDS[stand.name]} goes on: " in told, told
    assert stand.what_runs() == stand.name
    assert host.run("take-over", "--program", host.program, "--yes") == 0
    assert host.run("give-back", "--program", "/nowhere/xenstored", "--yes") == 1
    assert "there is no program /nowhere/xenstored" in capsys.readouterr().err
    program = stand.script("nothing", "exit 0")
    assert host.run("give-back", "--program", program, "--yes") == 1
    assert "is neither oxenstored nor C xenstored" in capsys.readouterr().err
    program = stand.script("oxenstored", "exit 0")
    assert host.run("give-back", "--program", program, "--yes") == 1
    assert "was refused, and pyxsd goes on: " in capsys.readouterr().err
    assert stand.what_runs() == "pyxsd"


def test_it_asks(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        """Somebody who types."""

        def isatty(self) -> bool:
            """It is one."""
            return True

    for typed, status in (("n\n", 1), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        assert host.run("take-over", "--program", host.program) == status
        assert capsys.readouterr().out.count("Change to pyxsd now? [y/N]") == 1
    assert host.stand.what_runs() == "pyxsd"


def test_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "dom0", DEBIAN)
    for command in ("take-over", "give-back"):
        assert cli.main([command, "--root", str(root), "--yes"]) == 1
        assert "nothing to do: no xenstored answers on" in capsys.readouterr().err


class Busy:
    """A conversation with a daemon that is busy with what it was asked, `busy` times."""

    busy = 1

    def __init__(self, _path: str, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[str] = []

    def __enter__(self) -> Busy:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def ask(self, *words: str) -> str:
        """The answer."""
        self.asked.append(words[0])
        return switch.BUSY.decode() if self.asked.count("-s") in range(1, self.busy + 1) else "OK"


@pytest.mark.parametrize(("late", "refused"), [(0.0, False), (0.001, True)])
def test_when_it_is_called_off(monkeypatch: pytest.MonkeyPatch, late: float, refused: bool) -> None:
    """Not before its time is over."""
    instants = [100.0, 100.0 + 60 + switch.EXTRA_SECONDS + late]
    clock = SimpleNamespace(monotonic=lambda: instants.pop(0), sleep=lambda _seconds: None)
    monkeypatch.setattr(switch, "time", clock)
    monkeypatch.setattr(switch, "Conversation", Busy)
    found: Any = SimpleNamespace(socket="/s", kind="oxenstored", version="", pid=5)
    monkeypatch.setattr(running, "look", lambda _path: found)
    plan = switch.Plan(found, "oxenstored", "/oxenstored")
    if refused:
        with pytest.raises(Refused, match="called off"):
            switch.run(plan, 60)
    else:
        assert switch.run(plan, 60) == "Done: oxenstored serves now, process 5."
