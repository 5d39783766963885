# SPDX-License-Identifier: LGPL-2.1-or-later
"""A live update in which one of the four processes is killed: at each moment there is one daemon,
it has a keeper in the end, and no client notices."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pyxsd.update.program import Process, Program
from tests.clients.daemon import PROJECT, wait_for
from tests.keeper.test_daemon import KeptDaemon, broken, processes_of
from tests.update.kit import OK, control, is_gone

#: Point, who is killed there (tests.keeper.late), and whose keeper is there in the end: the old
#: one, the new one, or another.
CASES = (
    ("built", "itself", "old"),
    ("built", "keeper", "old"),
    ("built", "old", "old"),
    ("built", "old-keeper", "new"),
    ("go", "itself", "old"),
    ("go", "keeper", "old"),
    ("go", "old", "new"),
    ("go", "old-keeper", "new"),
    ("gone-on", "itself", "old"),
    ("gone-on", "keeper", "old"),
    ("gone-on", "old", "new"),
    ("gone-on", "old-keeper", "new"),
    ("serving", "itself", "new"),
    ("serving", "keeper", "old"),
    ("serving", "old", "new"),
    ("serving", "old-keeper", "new"),
    ("said", "itself", "new"),
    ("said", "keeper", "another"),
    ("said", "old", "new"),
)


@pytest.mark.parametrize("point,whom,heir", CASES, ids=[f"{p}-{w}" for p, w, _ in CASES])
def test_a_death_while_it_hands_over(point: str, whom: str, heir: str) -> None:
    daemon = KeptDaemon()
    program = daemon.root / "late"
    # The new keeper says who it is.
    program.write_text(
        f"#!/bin/sh\necho $$ >>{daemon.root}/starts\n"
        f"PYTHONPATH={PROJECT} exec {sys.executable} -m tests.keeper.late "
        f'{point} {whom} {daemon.root}/marker "$@"\n'
    )
    program.chmod(0o755)
    try:
        with daemon.client() as client:
            assert client.ask("WATCH", b"/fake\0t\0")[1] == OK
            client.event()
            number = int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
            old = daemon.pid
            assert control(client, "-f", str(program)) == OK
            assert control(client, "-s") == b"BUSY"
            starts = daemon.root / "starts"
            # Those of the check, and the one that takes over.
            wait_for(lambda: len(starts.read_text().split()) == 4, "the update does not begin")
            new = int(starts.read_text().split()[3])

            def whose() -> str:
                pid = daemon.pid
                return {old: "old", new: "new"}.get(pid, "another")

            wait_for(
                lambda: (
                    whose() == heir and processes_of(daemon) == sorted({daemon.pid, daemon.child})
                ),
                "not the processes that there should be",
            )
            wait_for(lambda: b"none under way" in control(client), "an update is under way")
            for n in range(2):
                assert client.ask("WRITE", b"/fake\0%d" % n)[1] == OK
                assert client.event() == b"/fake\0t\0"
                daemon.kill_child()
            assert client.ask("TRANSACTION_END", b"T\0", number)[1] == OK
            assert whose() == heir
        keeper, child = daemon.pid, daemon.child
        os.kill(keeper, 15)
        wait_for(lambda: is_gone(keeper) and is_gone(child), "they do not end")
        assert not daemon.pid_file.exists()
        for line in daemon.log():
            assert "Traceback" not in line, line
    finally:
        daemon.stop()


def test_a_death_in_front_of_the_word() -> None:
    """Whoever goes on says it."""
    daemon = KeptDaemon(program=broken("dies-handing-over"))
    try:
        with daemon.client() as client:
            assert client.ask("WRITE", b"/fake\0fake")[1] == OK
            old = daemon.pid
            assert control(client, "-s") == b"BUSY"
            wait_for(lambda: is_gone(old), "the old keeper stays")
            assert daemon.pid != old
            assert daemon.logged("took over")
            assert client.ask("READ", b"/fake\0")[1] == b"fake"
        daemon.end_all()
    finally:
        daemon.stop()


def test_the_last_words_of_a_killed_program(tmp_path: Path) -> None:
    """They are heard: it may have said that it serves."""
    path = tmp_path / "program"
    path.write_text(
        f"#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -c '\n"
        "import signal, sys\n"
        "from pyxsd.update.channel import Channel\n"
        'Channel(int(sys.argv[-1].partition("=")[2])).send("taken")\n'
        "signal.pause()\n"
        '\' "$@"\n'
    )
    path.chmod(0o755)
    process = Process(Program(str(path)), os.environ, converse=True)
    try:
        assert process.channel is not None
        assert process.channel.receive(30.0, peek=True).word == "taken"
    finally:
        process.take_back()
    assert process.last_words == ["taken"]
