# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon among other processes: sockets of live, hung and killed daemons, systemd, limits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import stat
import struct
import threading
import time
from pathlib import Path

import pytest

from pyxsd.system import service
from pyxsd.system.service import AlreadyRunning, Notifier, ServiceError
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
    assert service.run_directory(environ) == directory
    assert service.socket_path(environ) == path


def test_make_directory(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    service.make_directory(str(deep))
    service.make_directory(str(deep))
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServiceError, match="cannot make the directory"):
        service.make_directory(str(file))


# --- the socket ---


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "socket")


def test_listen(path: str) -> None:
    fd = service.listen(path)
    server = socket.socket(fileno=fd)
    server.setblocking(True)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    connection, _ = server.accept()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777 & ~mask
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert not os.get_inheritable(fd)
    for each in (connection, client, server):
        each.close()


def test_listen_is_non_blocking(path: str) -> None:
    fd = service.listen(path)
    assert not os.get_blocking(fd)
    os.close(fd)


def test_listen_has_a_long_backlog(path: str) -> None:
    """As many clients can wait to be accepted as the kernel allows, and one that it begins with."""
    longest = int(Path("/proc/sys/net/core/somaxconn").read_text())
    fd = service.listen(path)
    waiting = 0
    while waiting <= longest + 1:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                break
        waiting += 1
    os.close(fd)
    assert waiting == longest + 1


def listen_and_die(path: str) -> None:
    process = start("fd = service.listen(sys.argv[1]); print('up'); sys.stdin.read()", path)
    assert line_of(process) == "up"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def leave_file(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text("x")


def leave_link(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    os.symlink("nowhere", path)


@pytest.mark.parametrize("leave", [listen_and_die, leave_file, leave_link])
def test_a_stale_socket_is_replaced(path: str, leave: object) -> None:
    assert callable(leave)
    leave(path)
    assert os.path.lexists(path)
    fd = service.listen(path)
    assert service.probe(path, 0.05) == service.SILENT
    os.close(fd)
    assert service.probe(path) == service.STALE
    os.unlink(path)
    assert service.probe(path) == service.ABSENT


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
    fd = service.listen(path)
    server = socket.socket(fileno=fd)
    server.settimeout(10)
    inode = os.stat(path).st_ino
    got: list[bytes] = []
    answer = struct.pack("=IIII", kind, 0, 0, 7) + b"EACCES\0"
    thread = threading.Thread(target=serve_one, args=(server, answer, got))
    thread.start()
    with pytest.raises(AlreadyRunning, match=f"it answers on {path}"):
        service.listen(path)
    thread.join()
    assert got == [struct.pack("=IIII", 2, 0, 0, 2) + b"/\0"]
    assert os.stat(path).st_ino == inode
    server.close()


@pytest.mark.parametrize("backlog", [100, 0])
def test_a_hung_daemon_is_refused(path: str, backlog: int) -> None:
    """It listens, so it lives: whether it accepts nothing or its backlog is full."""
    fd = service.listen(path, backlog)
    filler = socket.socket(socket.AF_UNIX)
    if not backlog:
        filler.connect(path)
    with pytest.raises(AlreadyRunning, match=f"something listens on {path}"):
        service.listen(path, timeout=0.1)
    assert os.path.exists(path)
    filler.close()
    os.close(fd)


def test_a_daemon_that_accepts_and_closes_is_refused(path: str) -> None:
    code = """
import socket
server = socket.socket(fileno=service.listen(sys.argv[1]))
server.setblocking(True)
print('up')
while True:
    server.accept()[0].close()
"""
    process = start(code, path)
    assert line_of(process) == "up"
    assert service.probe(path, 0.3) == service.SILENT
    end(process)
    assert service.probe(path) == service.STALE


def test_a_daemon_that_leaves_while_it_is_asked_is_none(path: str) -> None:
    """It closes its socket with our connection in the backlog, or just accepted."""
    fd = service.listen(path)
    server = socket.socket(fileno=fd)

    def leave() -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(10000)
        server.close()

    thread = threading.Thread(target=leave)
    thread.start()
    assert service.probe(path, 10.0) == service.STALE
    thread.join()


# what is in the way, what the refusal says
REFUSALS = [
    ("directory", "cannot listen on .*: Is a directory"),
    ("datagram", "cannot listen on .*: Protocol wrong type"),
    ("long", "cannot listen on .*: AF_UNIX path too long"),
]


@pytest.mark.parametrize(("kind", "text"), REFUSALS)
def test_what_cannot_be_replaced(path: str, kind: str, text: str) -> None:
    service.make_directory(os.path.dirname(path))
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if kind == "directory":
        os.mkdir(path)
    elif kind == "datagram":
        other.bind(path)
    else:
        path += "x" * 100
    mask = os.umask(0o022)
    with pytest.raises(ServiceError, match=text) as caught:
        service.listen(path)
    assert not isinstance(caught.value, AlreadyRunning)
    assert os.umask(mask) == 0o022
    other.close()


@pytest.mark.parametrize("stale", [False, True])
def test_of_racing_daemons_one_gets_the_socket(path: str, stale: bool) -> None:
    if stale:
        listen_and_die(path)
    code = """
try:
    fd = service.listen(sys.argv[1], timeout=0.05)
except service.AlreadyRunning as error:
    print('refused', error)
else:
    print('won', os.stat(sys.argv[1]).st_ino)
sys.stdin.read()
"""
    results = race(code, path)
    won = [result for result in results if result.startswith("won")]
    assert won == [f"won {os.stat(path).st_ino}"]
    assert all(result.startswith("refused a") for result in results if result not in won)


def test_the_directory_is_locked_only_meanwhile(path: str) -> None:
    fd = service.listen(path)
    os.unlink(path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(AlreadyRunning, match=f"starting in {os.path.dirname(path)}"):
        service.listen(path, lock_timeout=0.05)
    assert not os.path.exists(path)
    os.close(directory)
    os.close(service.listen(path))
    os.close(fd)


def test_a_lock_that_is_held_for_a_moment_is_waited_for(path: str) -> None:
    service.make_directory(os.path.dirname(path))
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    process = start("print('up'); service.listen(sys.argv[1]); print('listens')", path)
    assert line_of(process) == "up"
    os.close(directory)
    assert line_of(process) == "listens"
    process.communicate()


# --- systemd ---


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, abstract: bool) -> None:
    name = f"@pyxsd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind("\0" + name[1:] if abstract else name)
    manager.settimeout(10)
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.ready()
    assert manager.recv(4096) == b"READY=1"
    assert notifier.ready(1234)
    assert manager.recv(4096) == b"READY=1\nMAINPID=1234"
    before = time.monotonic_ns() // 1000
    assert notifier.reloading()
    first, second = manager.recv(4096).split(b"\n")
    assert first == b"RELOADING=1"
    assert before <= int(second.partition(b"MONOTONIC_USEC=")[2]) <= time.monotonic_ns() // 1000
    assert notifier.stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    manager.close()
    assert not notifier.ready()


def test_notify_without_a_manager(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": ""}).stopping()
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()


# --- going into the background ---

DAEMONIZE = """
print('before', flush=True)
result = service.daemonize()
if isinstance(result, service.Verdict):
    sys.stderr.write(result.message)
    sys.exit(result.status)
pid_file, mode = sys.argv[1:]
with open(pid_file + '.new', 'w') as file:
    file.write(f'{os.getpid()} {os.getsid(0)} {os.getppid()} {os.getcwd()}')
if mode == 'ready':
    sys.stderr.write('warning\\n')
    result.ready()
    os.rename(pid_file + '.new', pid_file)
    with open(pid_file + '.stdio', 'w') as file:
        file.write(' '.join(os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)))
    with open(pid_file + '.hold') as fifo:  # lives until the test opens the other end
        fifo.read()
elif mode == 'failed':
    result.failed(7, 'no luck: \\udcff\\n')
elif mode == 'killed':
    os.kill(os.getpid(), 9)
elif mode == 'raises':
    raise RuntimeError('bug')
"""


def test_daemonize(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    os.mkfifo(f"{pid_file}.hold")
    caller = start(DAEMONIZE, pid_file, "ready")
    # The caller's pipes are closed although the daemon lives: it has left them.
    stdout, stderr = caller.communicate(timeout=60)
    assert (caller.returncode, stdout, stderr) == (0, "before\n", "warning\n")
    with open(f"{pid_file}.hold", "w"):  # opens when the daemon has come to its end of it
        pid, session, parent, directory = pid_file.read_text().split()
        assert pid != session  # no session leader
        assert session != str(os.getsid(0))
        assert parent != str(caller.pid)
        assert directory == os.getcwd()
        assert Path(f"{pid_file}.stdio").read_text() == "/dev/null /dev/null /dev/null"
        os.kill(int(pid), 0)


# how the daemon ends before it is ready: status and stderr of the caller
FAILURES = [
    ("failed", 7, "no luck: \\udcff\n"),
    ("killed", 2, "the daemon ended before it was ready"),
    ("returns", 2, "the daemon ended before it was ready"),
]


@pytest.mark.parametrize(("mode", "status", "message"), FAILURES)
def test_daemonize_fails(tmp_path: Path, mode: str, status: int, message: str) -> None:
    caller = start(DAEMONIZE, tmp_path / "pid", mode)
    stdout, stderr = caller.communicate(timeout=60)
    assert (caller.returncode, stdout, stderr) == (status, "before\n", message)


def test_daemonize_shows_a_bug(tmp_path: Path) -> None:
    caller = start(DAEMONIZE, tmp_path / "pid", "raises")
    _stdout, stderr = caller.communicate(timeout=60)
    assert caller.returncode == 2
    assert "RuntimeError: bug" in stderr
    assert stderr.endswith("the daemon ended before it was ready")


def test_ensure_stdio() -> None:
    code = """
saved = os.dup(1)
for fd in (0, 1, 2):
    os.close(fd)
service.ensure_stdio()
fd = os.open('/dev/null', os.O_RDONLY)
os.write(saved, f"{fd > 2} {os.readlink('/proc/self/fd/2')}\\n".encode())
"""
    process = start(code)
    assert line_of(process) == "True /dev/null"
    process.communicate()


# --- limits ---

# soft and hard limit before, text of nr_open (None: no file), limit after, begin of the warning
LIMITS = [
    (100, 1000, "500\n", 500, ""),
    (100, 1000, "1000\n", 1000, ""),
    (100, 1000, None, 1000, ""),
    (100, 1000, "rubbish", 1000, ""),
    (1000, 1000, "1000\n", 1000, ""),
    # The kernel itself refuses more than its own nr_open, whoever asks.
    (100, 1000, "2147483647\n", 1000, "file limit: 1000 descriptors; 2147483647, as "),
]


@pytest.mark.parametrize(("soft", "hard", "text", "expected", "warning"), LIMITS)
def test_raise_file_limit(
    tmp_path: Path, soft: int, hard: int, text: str | None, expected: int, warning: str
) -> None:
    nr_open = tmp_path / "nr_open"
    if text is not None:
        nr_open.write_text(text)
    code = """
import resource
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(*service.raise_file_limit(sys.argv[3]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    process = start(code, soft, hard, nr_open)
    told, _, said = line_of(process).partition(" ")
    assert (int(told), int(line_of(process))) == (expected, expected)
    assert said.startswith(warning)
    assert bool(said) == bool(warning)
    process.communicate()


def test_raise_file_limit_of_this_host() -> None:
    """Everything that is permitted: with the privilege nr_open, without it the hard limit."""
    wanted = int(Path("/proc/sys/fs/nr_open").read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    process = start("print(*service.raise_file_limit())")
    told, _, said = line_of(process).partition(" ")
    assert int(told) in (wanted, hard)
    assert bool(said) == (int(told) < wanted)
    process.communicate()
