# SPDX-License-Identifier: LGPL-2.1-or-later
"""record-directory of a daemon that is recovered: what comes from outside is in one journal, and in
two places."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd.record import files
from pyxsd.record.recorder import Recorder
from pyxsd.system.configuration import Config
from tests.clients.daemon import Client, wait_for
from tests.domains.standin import Stand, with_homes, works
from tests.record.kit import Recording
from tests.recovery.test_crash import PROGRAM, CrashingDaemon, names, replay


@pytest.fixture(name="made")
def a_daemon(tmp_path: Path) -> Iterator[CrashingDaemon]:
    """One that records, with very many images."""
    running = CrashingDaemon(
        {"record-directory": str(tmp_path / "recorded")}, env={"PYXSD_FULL_BYTES": "16384"}
    )
    try:
        yield running
        running.check_logs("went on after", "has ended a process", "no recording", "what led to")
    finally:
        running.stop()


def child_of(keeper: int) -> int:
    """The process that serves; 0: none at the moment."""
    found = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return int(found[0]) if found else 0


def is_on(client: Client, number: int) -> bool:
    """Into that file?"""
    said = client.ask("CONTROL", b"record\0")[1]
    return said.startswith(b"Recording is on, ") and b"recording-%06d" % number in said


def is_off(client: Client) -> bool:
    """Is nothing recorded?"""
    return client.ask("CONTROL", b"record\0")[1] == b"Recording is off\n\0"


def ask_much(client: Client, name: bytes) -> None:
    """Enough for several images and more than one look."""
    for n in range(300):
        assert client.ask("WRITE", b"/%s/%d\0" % (name, n % 9) + b"v" * (n * 6))[1] == b"OK\0"


def test_each_process_begins_one(made: CrashingDaemon, tmp_path: Path) -> None:
    """Each recording is whole up to a second before the death, and can be run again by itself; the
    last one ends as the daemon did."""
    with made.client() as client:
        assert is_on(client, 1)
        ask_much(client, b"one")
        wait_for(
            lambda: b"/one/2\0" + b"v" * 299 * 6 in (tmp_path / "recorded/recording-000001")
            .read_bytes(),
            "it is not written",
        )  # fmt: skip
        made.kill_child()
        ask_much(client, b"two")
        assert is_on(client, 2)
        made.crash(client)
        ask_much(client, b"three")
        made.told(1)
        client.ask("WRITE", b"/last\0v")
    assert made.end() == 0
    recorded = tmp_path / "recorded"
    assert [name for name in names(recorded) if name != "crashes"] == [
        f"recording-00000{n}" for n in (1, 2, 3)
    ]
    for number, has in ((1, b"/one/2"), (2, b"/two"), (3, b"/last")):
        again = replay(recorded / f"recording-00000{number}", "--as", "text")
        assert again.returncode == 0, again.stderr
        assert b'node "' + has + b'"' in again.stdout
    shown = replay(recorded, "--as", "db").stdout.splitlines()
    stored = (made.run / "db").read_bytes().splitlines()
    assert {line for line in shown if line.startswith(b"store,")} == {
        line for line in stored if line.startswith(b"store,")
    }


def test_off_and_on(made: CrashingDaemon, tmp_path: Path) -> None:
    """The daemon is recovered all the same."""
    with made.client() as client:
        client.ask("CONTROL", b"record\0off\0")
        ask_much(client, b"off")
        wait_for(lambda: is_off(client), "it is on")
        client.ask("CONTROL", b"record\0on\0")
        wait_for(lambda: is_on(client, 2), "it is off")
        ask_much(client, b"on")
        client.ask("CONTROL", b"record\0off\0")
        wait_for(lambda: is_off(client), "it is on")
        made.kill_child()
        assert client.ask("READ", b"/on/0\0")[0] == 2
    assert made.end() == 0
    second = replay(tmp_path / "recorded" / "recording-000002")
    assert second.returncode == 0, second.stderr
    assert b"/off" not in second.stdout and second.stdout.count(b" write ") == 300


def test_guests_on_rings(tmp_path: Path) -> None:
    """Kills among them: each recording can be run again."""
    recorded = tmp_path / "recorded"
    settings = {"record-directory": str(recorded), "crash-recovery": "true"}
    with Stand(settings=settings) as stand:
        stand.program = PROGRAM
        stand.start(PYXSD_FULL_BYTES="8192")
        keeper = stand.peer.process.pid
        with stand.client() as client:
            domains = with_homes(stand, client, 5, 6)
            for _ in range(4):
                for domain in domains:
                    works(domain, client)
                os.kill(child := child_of(keeper), signal.SIGKILL)
                wait_for(lambda: child_of(keeper) not in (0, child), "nobody goes on")
            client.ask("WRITE", b"/last\0v")
        stand.terminate()
        for number in files.numbers(str(recorded)):
            again = replay(recorded / f"recording-{number:06}")
            assert again.returncode == 0, again.stderr
        assert number == 5 and b"/last" in again.stdout


class Protection:
    """As recovery.begin's."""

    recorder: Any = None
    awaited: Any = None


def test_where_the_journal_ends(tmp_path: Path) -> None:
    """The recording ends with it, with what was there, and begins again when it does; not where it
    was switched off meanwhile."""
    from tests.recovery.kit import Kept
    from tests.world import World

    world = World()
    daemon = Recording(Config(record_directory=str(tmp_path / "recorded")))
    daemon.server, daemon.protection = world.server, Protection()
    recorder = Recorder(daemon)
    recorder.start()
    assert daemon.protection.awaited is recorder
    assert daemon.said == ["warn: recording begins when a crash can be recovered from again"]
    kept = Kept(world)
    try:
        recorder.resume()
        assert daemon.protection.recorder is recorder
        world.ask("s0", "WRITE", b"/a\0first")
        recorder.interrupt("no room")
        assert daemon.said[-1] == "error: recording has ended: no room"
        assert b"/a\0first" in (tmp_path / "recorded/recording-000001").read_bytes()
        assert kept.journal.is_recording
        recorder.resume()
        assert recorder.command("").startswith(b"Recording is on")
        recorder.stop()
        recorder.resume()
        assert recorder.command("") == b"Recording is off\n\0"
        assert kept.journal.is_recording
        assert files.numbers(str(tmp_path / "recorded")) == [1, 2]
    finally:
        kept.close()
        world.close()
