# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon that is killed: what is seen of it beside replies and events."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.clients.daemon import wait_for
from tests.domains.standin import DEAD, SHUTDOWN, Stand, home, introduce, works
from tests.recovery.killed import PROGRAM, killed


def kill(path: Path) -> None:
    """The process that serves, and waits until another one does."""
    pid = (path / "serving").read_text()
    os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: (path / "serving").read_text() != pid, "nobody goes on")


def sockets(pid: int) -> list[int]:
    """The numbers of a process's sockets."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(path).startswith("socket:"):
                found.append(int(path.name))
    return found


@pytest.fixture(name="stand")
def a_stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand()
    made.program = PROGRAM
    made.start(PYXSD_KEEP_PID=str(tmp_path / "serving"))
    yield made
    made.peer.process.terminate()
    assert made.peer.process.wait(30) == 0, made.log()
    log = made.log()
    made.close(False)
    assert " error|" not in log and "Traceback" not in log, log


def test_each_guest_gets_a_kick(stand: Stand, tmp_path: Path) -> None:
    """Whoever died may have stored an index and told nobody."""
    with stand.client() as client:
        for domid in (5, 6):
            introduce(client, stand.host.create(domid))
        while stand.host.wait(0.2):
            pass
        kill(tmp_path)
        kicked: set[int] = set()
        while kicked < {5, 6}:
            found = stand.host.wait(10)
            assert found, f"kicked are {kicked}"
            kicked.update(found)


def test_what_a_guest_writes_while_nobody_serves(stand: Stand, tmp_path: Path) -> None:
    """With a kick or without one; and what Xen tells of it meanwhile."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        client.ask("WATCH", b"@releaseDomain\0t\0")
        os.kill(int((tmp_path / "serving").read_text()), signal.SIGSTOP)
        domain.write(b"\x0b\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0a\0b")
        stand.host.set_state(5, SHUTDOWN, 0)
        kill(tmp_path)
        assert domain.packet().payload == b"OK\0"
        works(domain, client)
        assert client.event() == b"@releaseDomain\0t\0"
        domain.reconnect()
        works(domain, client)


def test_a_crowd_that_dies_while_nobody_serves(stand: Stand, tmp_path: Path) -> None:
    """More than are buried in one piece; and whoever buries them is killed, too."""
    with stand.client() as client:
        domids = range(100, 220)
        for domid in domids:
            introduce(client, stand.host.create(domid))
        client.ask("WATCH", b"@releaseDomain\0t\0001\0")
        assert client.event() == b"@releaseDomain\0t\0"
        serving = int((tmp_path / "serving").read_text())
        os.kill(serving, signal.SIGSTOP)
        for domid in domids:
            stand.host.set_state(domid, DEAD, 0)
        kill(tmp_path)
        with suppress(ProcessLookupError):
            os.kill(int((tmp_path / "serving").read_text()), signal.SIGKILL)
        told = {client.event() for _ in domids}
        assert told == {b"@releaseDomain/%d\0t\0" % domid for domid in domids}
        for domid in domids:
            assert client.ask("IS_DOMAIN_INTRODUCED", b"%d\0" % domid)[1] == b"F\0"


def test_no_line_of_the_access_log_is_missing(tmp_path: Path) -> None:
    """At most those that were being written are there twice."""
    env = {
        "PYXSD_KILLS": "30",
        "PYXSD_KILL_MS": "30",
        "PYXSD_KILLED": str(tmp_path / "killed"),
        "PYXSD_FULL_BYTES": "8192",
    }
    number = 0
    with killed(tmp_path, env) as daemon, daemon.client() as client:
        while not (tmp_path / "killed").exists():
            assert client.ask("WRITE", b"/n\0line-%d-" % number)[1] == b"OK\0"
            number += 1
    lines = Counter(re.findall(rb"line-(\d+)-", daemon.access_log_file.read_bytes()))
    assert [n for n in range(number) if lines[b"%d" % n] == 0] == []
    assert sum(lines.values()) - number <= 30


def test_lines_of_several_turns_that_were_still_to_be_written(tmp_path: Path) -> None:
    """They are written by whoever goes on; what was written is not again."""
    env = {"PYXSD_CRASH": "1"}
    with killed(tmp_path, env) as daemon, daemon.client() as client:
        for n in range(5):
            client.ask("WRITE", b"/n\0line-%d-" % n)
        assert client.ask("CONTROL", b"crash\0kill\0001\0")[1] == b"alive\0"
    lines = re.findall(rb"line-(\d+)-", daemon.access_log_file.read_bytes())
    assert lines == [b"%d" % n for n in range(5)]


def test_where_there_is_no_room_it_serves_on(tmp_path: Path) -> None:
    """And says so once.  When there is room again, a death costs nothing again."""
    env = {
        "PYXSD_KEEP_LIMIT": str(1 << 20),
        "PYXSD_FULL_BYTES": "65536",
        "PYXSD_RETRY": "0.1",
    }
    with killed(tmp_path, env) as daemon, daemon.client() as client:
        for n in range(800):
            assert client.ask("WRITE", b"/n/%d\0" % n + b"v" * 2000)[1] == b"OK\0"
        assert client.ask("READ", b"/n/7\0")[1] == b"v" * 2000
        assert client.ask("RM", b"/n\0")[1] == b"OK\0"
        assert client.ask("WRITE", b"/n/7\0v")[1] == b"OK\0"
        wait_for(lambda: any("again from now on" in line for line in daemon.log()), "not again")
        assert client.ask("WRITE", b"/n/8\0v")[1] == b"OK\0"
        kill(tmp_path)
        assert client.ask("READ", b"/n/7\0")[1] == b"v"
        assert client.ask("READ", b"/n/8\0")[1] == b"v"
    told = [line for line in daemon.log() if "cannot be recovered from" in line]
    assert len(told) == 1 and "no room" in told[0]


def test_a_large_image_leaves_room_for_the_next_one(tmp_path: Path) -> None:
    """Two images of 9 MB and their segments in 32 MB: the journal does not get twice as long as the
    image is."""
    env = {"PYXSD_KEEP_LIMIT": str(32 << 20), "PYXSD_FULL_BYTES": "65536"}
    with killed(tmp_path, env) as daemon, daemon.client() as client:
        for n in range(16000):
            assert client.ask("WRITE", b"/n/%d\0" % (n % 4500) + b"v" * 2000)[1] == b"OK\0"
    assert [line for line in daemon.log() if "cannot be recovered from" in line] == []


def test_a_socket_of_which_another_process_has_a_copy(tmp_path: Path) -> None:
    """As right behind a live update.  When its client has gone, what epoll would tell of the copy
    is not taken for that of a later client, which has its number."""
    with killed(tmp_path, {"PYXSD_COPIES": "1"}) as daemon, ExitStack() as stack:
        first = daemon.client()
        first.ask("DIRECTORY", b"/\0")
        kill(tmp_path)
        assert first.ask("DIRECTORY", b"/\0")[0] == 1
        serving = int((tmp_path / "serving").read_text())
        number = max(sockets(serving))
        first.close()
        wait_for(lambda: number not in sockets(serving), "it is not closed")
        while number not in sockets(serving):
            client = stack.enter_context(daemon.client())
            for _ in range(3):
                assert client.ask("DIRECTORY", b"/\0")[0] == 1


def test_descriptors_of_those_that_do_not_come_back(tmp_path: Path) -> None:
    """They are as few as those of one."""
    env = {"PYXSD_DIE_AGAIN": "50"}
    few = ("prlimit", "--nofile=64:64")
    with killed(tmp_path, env, prefix=few) as daemon, daemon.client() as client:
        assert client.ask("WRITE", b"/a\0b") == (11, b"OK\0")
        os.kill(int((tmp_path / "serving").read_text()), signal.SIGKILL)
        assert client.ask("READ", b"/a\0") == (2, b"b")
