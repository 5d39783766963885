# SPDX-License-Identifier: LGPL-2.1-or-later
"""The run directory, and the sockets of live, hung and killed daemons."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyxsd.system import listening
from pyxsd.system.errors import AlreadyRunning, ServiceError
from tests.unit.processes import end, line_of, race, start

# environment, run directory, socket
PATHS = [
    ({}, "/var/run/xenstored", "/var/run/xenstored/socket"),
    ({"XENSTORED_RUNDIR": "/r"}, "/r", "/r/socket"),
    ({"XENSTORED_PATH": "/s"}, "/var/run/xenstored", "/s"),
    ({"XENSTORED_RUNDIR": "/r", "XENSTORED_PATH": "/s"}, "/r", "/s"),
    ({"XENSTORED_RUNDIR": "", "XENSTORED_PATH": ""}, "/var/run/xenstored",
     "/var/run/xenstored/socket"),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "directory", "path"), PATHS)
def test_paths(environ: dict[str, str], directory: str, path: str) -> None:
    assert listening.run_directory(environ) == directory
    assert listening.socket_path(environ) == path


def test_make_directory(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    listening.make_directory(str(deep))
    listening.make_directory(str(deep))
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServiceError, match="cannot make the directory"):
        listening.make_directory(str(file))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "socket")


def test_listen(path: str) -> None:
    fd = listening.listen(path)
    server = socket.socket(fileno=fd)
    server.setblocking(True)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    connection, _ = server.accept()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777 & ~mask & ~stat.S_IWOTH
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert not os.get_inheritable(fd)
    for each in (connection, client, server):
        each.close()


@pytest.mark.parametrize("mask,mode", [(0, 0o775), (0o007, 0o770), (0o077, 0o700)])
def test_others_may_not_connect(path: str, mask: int, mode: int) -> None:
    """Whatever umask the daemon was started with, which stays."""
    os.makedirs(os.path.dirname(path), 0o755)
    before = os.umask(mask)
    try:
        os.close(listening.listen(path))
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_listen_is_non_blocking(path: str) -> None:
    fd = listening.listen(path)
    assert not os.get_blocking(fd)
    os.close(fd)


def test_listen_has_a_long_backlog(path: str) -> None:
    fd = listening.listen(path)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    for client in clients:
        client.setblocking(False)
        client.connect(path)
        client.close()
    os.close(fd)


def listen_and_die(path: str) -> None:
    process = start("fd = listening.listen(sys.argv[1]); print('up'); sys.stdin.read()", path)
    assert line_of(process) == "up"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def leave_link(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    os.symlink("nowhere", path)


@pytest.mark.parametrize("leave", [listen_and_die, leave_link])
def test_a_stale_socket_is_replaced(path: str, leave: object) -> None:
    assert callable(leave)
    leave(path)
    assert os.path.lexists(path)
    fd = listening.listen(path)
    assert listening.probe(path, 0.05) == listening.SILENT
    os.close(fd)
    assert listening.probe(path) == listening.STALE
    os.unlink(path)
    assert listening.probe(path) == listening.ABSENT


def serve_one(server: socket.socket, answer: bytes, got: list[bytes]) -> None:
    connection, _ = server.accept()
    got.append(connection.recv(100))
    # Byte by byte: an answer may come in pieces.  The prober leaves when it has seen enough.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for at in range(len(answer)):
            connection.sendall(answer[at : at + 1])
        connection.recv(1)
    connection.close()


# type of the answer: READ's own, or an error, from a daemon that is live all the same
@pytest.mark.parametrize("kind", [2, 16])
def test_a_live_daemon_is_refused(path: str, kind: int) -> None:
    fd = listening.listen(path)
    server = socket.socket(fileno=fd)
    server.settimeout(10)
    inode = os.stat(path).st_ino
    got: list[bytes] = []
    answer = struct.pack("=IIII", kind, 0, 0, 7) + b"EACCES\0"
    thread = threading.Thread(target=serve_one, args=(server, answer, got))
    thread.start()
    with pytest.raises(AlreadyRunning, match=f"it answers on {path}"):
        listening.listen(path)
    thread.join()
    assert got == [struct.pack("=IIII", 2, 0, 0, 2) + b"/\0"]
    assert os.stat(path).st_ino == inode
    server.close()


@pytest.mark.parametrize(("seconds", "milliseconds"), [(2.5, 2500), (0.0, 0), (-1.0, 0)])
def test_a_time_limit_that_has_passed_is_no_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, milliseconds: int
) -> None:
    """A negative one would be for ever."""
    waits = []

    class Poll:
        def register(self, fd: int, events: int) -> None:
            pass

        def poll(self, wait: float) -> list[object]:
            waits.append(wait)
            return []

    monkeypatch.setattr(select, "poll", Poll)
    assert not listening._readable(0, seconds)
    assert waits == [milliseconds]


@pytest.mark.parametrize("backlog", [100, 0])
def test_a_hung_daemon_is_refused(path: str, backlog: int) -> None:
    """It listens, so it lives: whether it accepts nothing or its backlog is full."""
    fd = listening.listen(path, backlog)
    filler = socket.socket(socket.AF_UNIX)
    if not backlog:
        filler.connect(path)
    with pytest.raises(AlreadyRunning, match=f"something listens on {path}"):
        listening.listen(path, timeout=0.1)
    assert os.path.exists(path)
    filler.close()
    os.close(fd)


def test_a_daemon_that_accepts_and_closes_is_refused(path: str) -> None:
    code = """
import socket
server = socket.socket(fileno=listening.listen(sys.argv[1]))
server.setblocking(True)
print('up')
while True:
    server.accept()[0].close()
"""
    process = start(code, path)
    assert line_of(process) == "up"
    assert listening.probe(path, 0.3) == listening.SILENT
    end(process)
    assert listening.probe(path) == listening.STALE


def test_a_daemon_that_leaves_while_it_is_asked_is_none(path: str) -> None:
    """It closes its socket with our connection in the backlog, or just accepted."""
    fd = listening.listen(path)
    server = socket.socket(fileno=fd)

    def leave() -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(10000)
        server.close()

    thread = threading.Thread(target=leave)
    thread.start()
    assert listening.probe(path, 10.0) == listening.STALE
    thread.join()


# what is in the way, what the refusal says
REFUSALS = [
    ("directory", "cannot listen on .*: it is not a socket"),
    ("file", "cannot listen on .*: it is not a socket"),
    ("link", "cannot listen on .*: it is not a socket"),
    ("fifo", "cannot listen on .*: it is not a socket"),
    ("datagram", "cannot listen on .*: Protocol wrong type"),
    ("long", "cannot listen on .*: AF_UNIX path too long"),
]


@pytest.mark.parametrize(("kind", "text"), REFUSALS)
def test_what_cannot_be_replaced(path: str, kind: str, text: str) -> None:
    listening.make_directory(os.path.dirname(path))
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if kind == "directory":
        os.mkdir(path)
    elif kind == "file":
        Path(path).write_text("precious")
    elif kind == "link":
        Path(path + "-target").write_text("precious")
        os.symlink(path + "-target", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "datagram":
        other.bind(path)
    else:
        path += "x" * 100
    mask = os.umask(0o022)
    before = os.lstat(path) if kind != "long" else None
    with pytest.raises(ServiceError, match=text) as caught:
        listening.listen(path)
    assert before is None or os.path.samestat(os.lstat(path), before)
    if kind in ("file", "link"):
        assert Path(path).read_text() == "precious"
    assert not isinstance(caught.value, AlreadyRunning)
    assert os.umask(mask) == 0o022
    other.close()


@pytest.mark.parametrize("stale", [False, True])
def test_of_racing_daemons_one_gets_the_socket(path: str, stale: bool) -> None:
    if stale:
        listen_and_die(path)
    code = """
try:
    fd = listening.listen(sys.argv[1], timeout=0.05)
except errors.AlreadyRunning as error:
    print('refused', error)
else:
    print('won', os.stat(sys.argv[1]).st_ino)
sys.stdin.read()
"""
    results = race(code, path)
    won = [result for result in results if result.startswith("won")]
    assert won == [f"won {os.stat(path).st_ino}"]
    assert all(result.startswith("refused a") for result in results if result not in won)


def locked(path: str) -> int:
    """The lock of a daemon that is about to make this socket."""
    fd = os.open(path + listening.LOCK_SUFFIX, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def test_the_socket_is_locked_only_meanwhile(path: str) -> None:
    fd = listening.listen(path)
    assert os.listdir(os.path.dirname(path)) == ["socket"]
    os.unlink(path)
    lock = locked(path)
    with pytest.raises(AlreadyRunning, match=f"starting in {os.path.dirname(path)}"):
        listening.listen(path, lock_timeout=0.05)
    assert not os.path.exists(path)
    os.close(lock)
    os.close(listening.listen(path))
    os.close(fd)


def test_a_lock_that_is_held_for_a_moment_is_waited_for(path: str) -> None:
    """Whether its holder removes the file or not."""
    listening.make_directory(os.path.dirname(path))
    lock = locked(path)
    process = start("print('up'); listening.listen(sys.argv[1]); print('listens')", path)
    assert line_of(process) == "up"
    os.unlink(path + listening.LOCK_SUFFIX)
    lock, first = locked(path), lock
    os.close(first)
    os.close(lock)
    assert line_of(process) == "listens"
    process.communicate()


def test_whoever_can_read_the_directory_keeps_nobody_from_starting(path: str) -> None:
    """Mode 0755 is usual, and a directory that can be read can be locked."""
    os.makedirs(os.path.dirname(path))
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(listening.listen(path, lock_timeout=0.0))
    os.close(directory)


def test_only_the_owner_can_open_what_is_locked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    probe = listening.probe

    def look(at: str, timeout: float) -> str:
        modes.append(stat.S_IMODE(os.stat(path + listening.LOCK_SUFFIX).st_mode))
        return probe(at, timeout)

    monkeypatch.setattr(listening, "probe", look)
    os.close(listening.listen(path))
    assert modes == [0o600]


def test_a_lock_that_cannot_be_made(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    os.symlink("/nowhere", path + listening.LOCK_SUFFIX)
    with pytest.raises(ServiceError, match=f"cannot open {path}"):
        listening.listen(path)


def test_a_lock_is_given_up_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At that very instant."""
    instants = [100.0, 103.0, 105.0]
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: instants.pop(0), sleep=slept.append)
    monkeypatch.setattr(listening, "time", clock)
    with open(tmp_path / "lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="another daemon is starting in /run"):
            listening._lock(str(tmp_path / "lock"), "/run", 5.0)
    assert len(slept) == 1
