# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory that runs out within a request: it need not run out where the request is run again, so
nobody goes on from there as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.daemon import wait_for
from tests.no_memory import places
from tests.recovery.parked import EIO
from tests.recovery.test_crash import CrashingDaemon
from tests.recovery.without_memory import CASES


@pytest.mark.parametrize("case", CASES)
def test_wherever_memory_runs_out(no_memory: Path, case: str) -> None:
    tried, ended = places(no_memory, "tests.recovery.without_memory", case)
    assert 0 < ended <= tried


def test_the_process_ends_and_another_one_goes_on(tmp_path: Path) -> None:
    """Else it would serve on with another answer in its journal than whoever goes on for it later
    would give."""
    daemon = CrashingDaemon(env={"PYXSD_KEEP_PID": str(tmp_path / "serving")})
    try:
        with daemon.client() as client:
            client.ask("WRITE", b"/a\0b")
            child = daemon.child
            # A second time there would be enough.
            assert client.ask("CONTROL", b"crash\0memory\x001\0") == EIO
            assert client.ask("READ", b"/a\0")[1] == b"b"
            assert daemon.child != child
            daemon.kill_child()
            assert client.ask("READ", b"/a\0")[1] == b"b"
            assert len(daemon.logged("the daemon was exited with status 71")) == 1
        assert daemon.end() == 0
    finally:
        daemon.stop()


def test_where_there_is_none_behind_the_journal() -> None:
    """Whoever goes on serves, and nobody could go on for that one: it says so."""
    daemon = CrashingDaemon(env={"PYXSD_STARVES": "1"})
    try:
        with daemon.client() as client:
            client.ask("WRITE", b"/a\0b")
            daemon.kill_child()
            assert client.ask("READ", b"/a\0")[1] == b"b"
            wait_for(lambda: daemon.logged("cannot be recovered from for now"), "it is not told")
            assert b"crash recovery: not for now" in client.ask("CONTROL", b"live-update\0")[1]
        assert daemon.end() == 0
    finally:
        daemon.stop()
