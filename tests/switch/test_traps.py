# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be wrong with the state that a foreign xenstored leaves, and what must be right with the
process that goes on: it serves, whatever there is, and says what it has not got."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd._core import OF_ONE
from pyxsd.state import show
from pyxsd.state.stream_writer import write_stream
from tests.clients.daemon import wait_for
from tests.domains.standin import introduce, peers, require, works
from tests.state.recorded import DATA
from tests.switch.kit import SwitchedStand
from tests.switch.left import Guest, Left

C_STATE, OX_STATE = DATA / "c417-domains.bin", DATA / "ox417-domains.db"


def left(path: Path) -> Left:
    """A recorded state; skips where there can be no pretended host."""
    try:
        return Left(path)
    except RuntimeError as error:
        require(str(error))
        raise


@pytest.fixture(name="host")
def a_host() -> Iterator[Left]:
    host = left(C_STATE)
    try:
        yield host
    finally:
        host.stop()


def change(host: Left, edit: Callable[[Any], object]) -> None:
    """Writes another state into the file than the one that was recorded."""
    state = show.read_any(host.file.read_bytes())
    edit(state)
    host.file.write_bytes(write_stream(state))


def serves(host: Left) -> None:
    """A new connection, and one that was there before."""
    for name in ("new", "lu"):
        client = host.clients[name]
        if name == "lu":
            client.packet()  # what the old daemon had still to say
        assert client.ask("WRITE", b"/tool/alive\0yes")[1] == b"OK\0"
        assert client.ask("READ", b"/tool/alive\0")[1] == b"yes"


def status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


def test_the_process_is_as_it_should_be(host: Left) -> None:
    """Its umask; SIGHUP does not end it; no descriptor survives an exec, no socket blocks; the pid
    files are written and the state removed."""
    host.start()
    pid = host.process.pid
    assert status(pid, "Umask") == "0022"
    host.process.send_signal(signal.SIGHUP)
    serves(host)
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if int(fd) <= 2:
            continue
        text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
        flags = int(text.split("flags:")[1].split()[0], 8)
        assert flags & os.O_CLOEXEC, os.readlink(f"/proc/{pid}/fd/{fd}")
        if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
            assert flags & os.O_NONBLOCK
            found += 1
    assert found >= 4  # the listening one, two clients, the new one
    assert (
        (host.root / "run/pyxsd.pid").read_text() == (host.root / "c.pid").read_text() == f"{pid}\n"
    )
    assert not host.file.exists()


def test_what_was_said_about_the_descriptor_of_a_client_is_wrong(host: Left) -> None:
    """A number that is closed, one that is a file, the listening one, the event channels."""

    def edit(state: Any) -> None:
        sockets = [client for client in state.clients if client.domid is None]
        for fd in (90, 1, host.want["listen_fd"], host.want["evtchn_fd"]):
            state.clients.append(type(sockets[0])(None, fd=fd, number=1000 + fd))

    change(host, edit)
    host.start()
    serves(host)
    for fd in (90, 1, host.want["listen_fd"], host.want["evtchn_fd"]):
        assert f"descriptor {fd}, a client, is not what it should be" in host.log()
    assert "2 sockets" in host.log()


@pytest.mark.parametrize("fd", [99, 1, 8])
def test_the_listening_socket_is_not_where_it_should_be(host: Left, fd: int) -> None:
    """It is found among what is open."""
    change(host, lambda state: setattr(state, "listener", fd))
    host.start()
    assert f"descriptor {fd}, the listening socket, is not what it should be" in host.log()
    serves(host)


@pytest.mark.parametrize("fd", [99, 8])
def test_the_event_channels_are_not_where_they_should_be(host: Left, fd: int) -> None:
    """Rings are served when their domains are introduced anew; nodes and watches stay."""
    change(host, lambda state: setattr(state, "evtchn", fd))
    host.start(faults=("param * EINVAL",))
    serves(host)
    assert "the event channels, is not what it should be" in host.log()
    client = host.clients["new"]
    assert introduce(client, host.domains[1], port=host.stand.host.reset_port(1)) == b"OK\0"
    works(host.domains[1], client)
    assert b"watch DOM1: data w1" in client.ask("CONTROL", b"watches\0")[1]


@pytest.mark.parametrize(
    "lines",
    [
        "open-evtchn * EACCES",
        "open-gnttab * EACCES",
        "open-ctrl * EACCES",
        "virq * EEXIST",
        "map * EPERM",
        "info * EPERM",
    ],
)
def test_xen_refuses(host: Left, lines: str) -> None:
    """Whatever it is: sockets are served, and the store is there."""
    host.start(faults=(lines,))
    serves(host)
    assert host.clients["new"].ask("READ", b"/local/domain/1/data/x\0")[1] == b"dom1"


def test_domain_0_has_no_page(host: Left) -> None:
    host.settings = {"xenstored_kva": "/nonexistent", "xenstored_port": "/nonexistent"}
    host.start()
    serves(host)
    works_by_ring(host, 1)
    assert "domain 0 is not served for now" in host.log()


def works_by_ring(host: Left, domid: int) -> None:
    """A guest that was there before is served."""
    client = host.clients[f"d{domid}"]
    assert isinstance(client, Guest)
    assert client.ask("READ", b"data/x\0")[1] == b"dom%d" % domid


@pytest.mark.parametrize("length", [0, 10, 16, 24, 40, 300, -8, -1])
def test_a_damaged_stream(host: Left, length: int) -> None:
    """What stands before the damage is there, and the log says where it begins."""
    data = host.file.read_bytes()
    host.file.write_bytes(data[:length] if length >= 0 else data[: len(data) + length])
    host.start()
    assert host.clients["new"].ask("WRITE", b"/tool/alive\0yes")[1] == b"OK\0"
    assert "record" in host.log() or "the store is empty" in host.log()
    if length < 0:
        assert host.clients["new"].ask("READ", b"/local/domain/1/data/x\0")[1] == b"dom1"
        works_by_ring(host, 1)


def test_no_file(host: Left) -> None:
    host.file.unlink()
    host.start()
    assert host.clients["new"].ask("DIRECTORY", b"/\0")[0] == 1
    assert "No such file or directory; the store is empty" in host.log()


def test_a_file_where_older_ones_leave_it(host: Left) -> None:
    """Xen 4.15 and 4.16 write it elsewhere."""
    other = host.root / "none"
    other.mkdir()
    host.file.rename(other / "state_dump")
    host.file = other / "state_dump"
    host.start()
    serves(host)
    assert not host.file.exists()


def test_limits_of_the_command_line() -> None:
    host = left(DATA / "c417-quotas.bin")
    try:
        host.start()
        told = host.clients["new"].ask("CONTROL", b"quota\0")[1].decode()
        for name, value in (
            ("nodes", 77),
            ("watches", 33),
            ("transactions", 4),
            ("node-size", 1500),
            ("outstanding", 9),
            ("transaction-nodes", 50),
        ):
            assert f"{name:<18}: {value}\n" in told
    finally:
        host.stop()


def test_limits_of_the_file() -> None:
    """Those of all, and those of a domain."""
    host = left(DATA / "chead-features.bin")
    try:
        host.start()
        client = host.clients["new"]
        for name, value in host.state.settings[1].quotas.items():
            type_, told = client.ask("GET_QUOTA", b"1\0" + name + b"\0")
            if name.decode() in OF_ONE:
                assert told == b"%d\0" % value, (name, type_)
    finally:
        host.stop()


def test_oxenstored_without_its_event_channels() -> None:
    """Those before 4.16.3 leave none: everything is bound anew, and deaths are noticed."""
    host = left(OX_STATE)
    try:
        host.bound = False
        host.start()
        serves_ox(host)
        for domid in (1, 2, 5):
            works_by_ring(host, domid)
    finally:
        host.stop()


def serves_ox(host: Left) -> None:
    """As serves(), where nothing is left to be sent."""
    assert host.clients["lu"].ask("WRITE", b"/tool/alive\0yes")[1] == b"OK\0"
    assert host.clients["new"].ask("READ", b"/tool/alive\0")[1] == b"yes"


@pytest.mark.parametrize("words", ["--live --restart --no-fork", "-U -N"])
def test_started_by_hand(words: str) -> None:
    """Beside a xenstored that runs it ends; where there is none it begins as with --restart."""
    with SwitchedStand("pyxsd") as stand:
        stand.start()
        program = stand.pyxsd(pid_file="")
        env = dict(peers.standin_env(stand.root / "host"), XENSTORED_RUNDIR=str(stand.root / "run"))
        done = subprocess.run(
            [program, *words.split()],
            timeout=30,
            check=False,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 2 and "a xenstored is running" in done.stderr
        with stand.client() as client:
            assert client.ask("WRITE", b"/tool/alive\0yes")[1] == b"OK\0"
        stand.terminate()
        with subprocess.Popen([program, *words.split()], env=env) as process:
            wait_for(lambda: peers.answers(stand.root / "run/socket"), "it does not start")
            with stand.client() as client:
                assert client.ask("READ", b"/tool/alive\0")[0] == (2 if "--live" in words else 16)
            process.terminate()


WORDS = [
    "--live --restart --no-fork --help",
    "--live --restart --pid-file /nonexistent/x --help",
    "--help",
    "-U --help",
    "-H -U",
]


@pytest.mark.parametrize("words", WORDS)
def test_a_validation_touches_nothing(words: str, tmp_path: Path) -> None:
    """The old daemon waits for it, and goes on if it fails."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "state_dump").write_bytes(C_STATE.read_bytes())
    path = run / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        stand = SwitchedStand("pyxsd")
        try:
            done = subprocess.run(
                [stand.pyxsd(), *words.split()],
                timeout=30,
                check=False,
                env=dict(peers.standin_env(stand.root / "host"), XENSTORED_RUNDIR=str(run)),
            )
            assert done.returncode == 0
            assert sorted(os.listdir(run)) == ["socket", "state_dump"]
            assert os.listdir(stand.root / "run") == []
        finally:
            stand.close(False)
