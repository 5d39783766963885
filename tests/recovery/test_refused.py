# SPDX-License-Identifier: LGPL-2.1-or-later
"""A request that ends the process which serves it is not run again; everybody else is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.daemon import Client
from tests.domains.standin import Stand
from tests.recovery.killed import PROGRAM, killed
from tests.recovery.parked import EIO, the_third_time_parks
from tests.world import EVENT, TYPES

CONTROL = TYPES["CONTROL"]


def environment(path: Path) -> dict[str, str]:
    """What tests.recovery.keep wants to know."""
    return {"PYXSD_KEEP_PID": str(path / "serving"), "PYXSD_CRASH": "1"}


@pytest.mark.parametrize("word", [b"segv", b"abort", b"exit", b"kill"])
def test_the_request_is_answered_eio(word: bytes, tmp_path: Path) -> None:
    """What stood before it was served, and what stands behind it is."""
    with (
        killed(tmp_path, environment(tmp_path)) as daemon,
        daemon.client() as client,
        daemon.client() as other,
    ):
        other.ask("WATCH", b"/a\0t\0")
        client.send("WRITE", b"/a\0b")
        client.send("CONTROL", b"crash\0" + word + b"\0")
        client.send("READ", b"/a\0")
        assert client.answer() == (TYPES["WRITE"], b"OK\0")
        assert client.answer() == EIO
        assert client.answer() == (TYPES["READ"], b"b")
        assert (other.event(), other.event()) == (b"/a\0t\0", b"/a\0t\0")
        assert other.ask("READ", b"/a\0")[1] == b"b"
        # It is written down that it was refused: whoever comes next does the same.
        assert client.ask("CONTROL", b"crash\0segv\0") == EIO
        assert client.ask("READ", b"/a\0")[1] == b"b"
    shown = (b"crash\0" + word + b"\0").hex()
    assert sum(shown in line and "is answered EIO" in line for line in daemon.log()) >= 1


@pytest.mark.parametrize(("count", "answer"), [(4, (CONTROL, b"alive\0")), (5, EIO)])
def test_a_request_within_which_processes_are_killed(
    count: int, answer: tuple[int, bytes], tmp_path: Path
) -> None:
    """By SIGKILL, which is nobody's fault: it is run again, but not for ever."""
    with killed(tmp_path, environment(tmp_path)) as daemon, daemon.client() as client:
        assert client.ask("CONTROL", b"crash\0kill\0%d\0" % count) == answer
        assert client.ask("READ", b"/tool\0") == (TYPES["READ"], b"")
    assert (tmp_path / "serving-crashes").stat().st_size == 5


def test_a_ring_that_does_it_three_times_is_parked(tmp_path: Path) -> None:
    stand = Stand(settings={"allow-debug": "true"})
    stand.program = PROGRAM
    try:
        stand.start(**environment(tmp_path))
        with stand.client() as client:
            one, _ = the_third_time_parks(stand, client)
            works(client)
            assert one.read() == b""
    finally:
        stand.peer.process.terminate()
        stand.peer.process.wait(30)
        stand.close(False)


def works(client: Client) -> None:
    """It is answered, and there is nothing else."""
    assert client.ask("READ", b"/tool\0")[0] != EVENT
