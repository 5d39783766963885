# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL `crash` of a build for debugging, from outside: the daemon dies of it and goes on.

tests/sanitize runs this in such a build, and nobody else does; in every other build there is no
such command (test_crash_command.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.daemon import wait_for
from tests.domains.standin import Stand
from tests.keeper.test_daemon import KeptDaemon
from tests.recovery.parked import CRASH, EIO, the_third_time_parks
from tests.recovery.test_crash import RECORDED, replay
from tests.world import TYPES

CONTROL, READ, WRITE = TYPES["CONTROL"], TYPES["READ"], TYPES["WRITE"]


@pytest.fixture(name="daemon")
def a_daemon() -> Iterator[KeptDaemon]:
    running = KeptDaemon()
    try:
        yield running
    finally:
        running.stop()


#: What is asked; how the daemon's death is called; is it a fault?  Of SIGKILL it dies twice, the
#: second time before it has come back.
DEATHS = (
    (b"crash\0", "killed by SIGSEGV", True),
    (b"crash\0segv\0", "killed by SIGSEGV", True),
    (b"crash\0abort\0", "killed by SIGABRT", True),
    (b"crash\0exit\0", "exited with status 3", True),
    (b"crash\0kill\0", "killed by SIGKILL", False),
)


@pytest.mark.parametrize("asked,cause,is_fault", DEATHS, ids=repr)
def test_the_sender_is_told(daemon: KeptDaemon, asked: bytes, cause: str, is_fault: bool) -> None:
    """EIO for that request, all others are served; the log has its first bytes, and the recording
    that very request."""
    with daemon.client() as client, daemon.client() as other:
        client.send("WRITE", b"/a\0b")
        client.send("CONTROL", asked)
        client.send("READ", b"/a\0")
        assert [client.answer() for _ in range(3)] == [(WRITE, b"OK\0"), EIO, (READ, b"b")]
        assert other.ask("READ", b"/a\0") == (READ, b"b")
        assert b"crash [segv|abort|exit|kill]\n" in other.ask("CONTROL", b"help\0")[1]
    told = f"request 0 with {len(asked)} bytes, {asked.hex()}"
    (line,) = daemon.logged("has ended a process")
    assert f": {told}, has ended a process of this daemon; it is answered EIO" in line
    assert len(daemon.logged(cause)) == 1
    if is_fault:
        wait_for(lambda: daemon.logged(RECORDED), "it is not recorded")
        again = replay(daemon.run / "crashes", "--as", "text")
        assert again.returncode == 0 and told.encode() in again.stderr, again.stderr
        # This program is a build for debugging as well.
        assert b"it has not ended" not in replay(daemon.run / "crashes").stderr


def test_other_words_are_none(daemon: KeptDaemon) -> None:
    with daemon.client() as client:
        assert client.ask("CONTROL", b"crash\0perhaps\0") == (CONTROL, b"OK\0")
    assert daemon.logged("has ended a process") == []


def test_the_third_time_parks_the_ring() -> None:
    """EIO twice; then the guest is not served any more, and all others are."""
    with Stand(settings={"allow-debug": "true", "crash-recovery": "true"}) as stand:
        stand.start()
        with stand.client() as client:
            one, _ = the_third_time_parks(stand, client)
            assert one.read() == b""
        shown = CRASH.hex()
        assert stand.log().count(f"DOM5: request 0 with 11 bytes, {shown}, has ended") == 3
