# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that break off, never read, come by thousands or leave when nobody expects it."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.clients.conftest import require
from tests.clients.daemon import Client, Daemon, wait_for
from tests.world import ERROR, TYPES, packet

MANY = 10_000
#: An idle daemon may wake up now and then; one that spins uses all of a second.
IDLE_CPU = 0.3


def settled(daemon: Daemon) -> int:
    """The daemon's descriptors when nobody is connected."""
    with daemon.client() as client:
        client.ask("DIRECTORY", b"/\0")
        return daemon.descriptors() - 1


def gone(daemon: Daemon, before: int) -> None:
    """Waits until the daemon has let go of all connections."""
    wait_for(lambda: daemon.descriptors() <= before, "connections are not closed")


@pytest.fixture
def many_files() -> Iterator[int]:
    """As many descriptors for this process as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections(daemon: Daemon, many_files: int) -> None:
    """All are served, all at once; none costs anything when idle; all are let go of."""
    if many_files < MANY + 100:
        require(f"the file limit is {many_files}; {MANY + 100} are needed")
    before = settled(daemon)
    clients = []
    try:
        for k in range(MANY):
            client = Client(daemon.socket)
            clients.append(client)
            client.send("WRITE", b"/many/%d\0v" % (k % 100))
        for client in clients:
            assert client.answer() == (TYPES["WRITE"], b"OK\0")
        assert daemon.descriptors() >= MANY
        assert daemon.idle_cpu() < IDLE_CPU
        for client in clients:
            client.send("READ", b"/many/7\0")
        for client in clients:
            assert client.answer() == (TYPES["READ"], b"v")
    finally:
        for client in clients:
            client.close()
    gone(daemon, before)


def test_descriptors_run_out_and_come_back(daemon: Daemon) -> None:
    """Who does not fit waits, without a busy loop, and is served when others leave."""
    before = settled(daemon)
    limit = before + 20
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
    clients = [Client(daemon.socket) for _ in range(60)]
    try:
        for client in clients:
            client.send("GET_DOMAIN_PATH", b"1\0")
        wait_for(lambda: daemon.descriptors() >= limit, "the limit is not reached")
        assert daemon.idle_cpu() < IDLE_CPU
        ready = select.poll()
        for client in clients:
            ready.register(client.sock.fileno(), select.POLLIN)
        served = {fd for fd, _ in ready.poll(0)}
        assert 10 <= len(served) <= 20
        # They leave one by one; each leaves room for one more.
        left = list(clients)
        while left:
            wait_for(lambda: ready.poll(0), "nobody more is served")
            for fd, _ in ready.poll(0):
                client = next(c for c in left if c.sock.fileno() == fd)
                assert client.answer() == (TYPES["GET_DOMAIN_PATH"], b"/local/domain/1\0")
                ready.unregister(fd)
                client.close()
                left.remove(client)
    finally:
        for client in clients:
            client.close()
    gone(daemon, before)
    warnings = [line for line in daemon.log() if "cannot accept" in line]
    assert warnings
    # Once when it begins, not at every attempt.
    assert len(warnings) < 20, len(warnings)
    daemon.check("cannot accept")
    daemon.log_file.write_text("")


def flood(client: Client, data: bytes) -> int:
    """Sends as long as the socket takes it; how many bytes."""
    client.sock.setblocking(False)
    sent = 0
    stuck = 0
    try:
        while stuck < 20:
            try:
                sent += client.sock.send(data[sent % len(data) :])
                stuck = 0
            except BlockingIOError:
                stuck += 1
                select.select([], [client.sock], [], 0.05)
    except OSError as error:
        assert error.errno in (errno.EPIPE, errno.ECONNRESET), error
    return sent


def test_a_client_that_never_reads(daemon: Daemon) -> None:
    """Its requests wait; memory stays where it is; nobody else notices; then all is answered."""
    with daemon.client() as other, daemon.client() as client:
        assert other.ask("WRITE", b"/big\0" + b"x" * 2000) == (TYPES["WRITE"], b"OK\0")
        before = daemon.resident()
        request = packet("READ", b"/big\0")
        sent = flood(client, request * 1000)
        # 1,024 answers of 2 KiB wait in the daemon, and what the kernel holds.
        assert daemon.resident() - before < 16 << 20
        assert daemon.idle_cpu() < IDLE_CPU
        assert other.ask("READ", b"/big\0") == (TYPES["READ"], b"x" * 2000)
        client.sock.settimeout(30)
        for _ in range(sent // len(request)):
            assert client.answer() == (TYPES["READ"], b"x" * 2000)
    daemon.check()


def test_a_client_that_never_reads_and_leaves(daemon: Daemon) -> None:
    before = settled(daemon)
    client = daemon.client()
    flood(client, packet("DIRECTORY", b"/\0") * 1000)
    client.close()
    gone(daemon, before)
    assert daemon.idle_cpu() < IDLE_CPU


@pytest.mark.parametrize("how", ("reads", "leaves", "writer leaves"))
def test_a_watcher_that_never_reads(how: str) -> None:
    """It holds up only who goes on causing its events; whoever moves, all goes on."""
    settings = {"quota-maxwatchevents": "4", "access-log-nb-files": "0"}
    with Daemon(settings) as daemon, daemon.client() as other:
        before = settled(daemon)
        watcher, writer = daemon.client(), daemon.client()
        watcher.ask("WATCH", b"/w\0" + b"t" * 3000 + b"\0")
        # No two paths are the same, so that nothing is merged.
        paths = [b"/w/%d" % k for k in range(2000)]
        flood(writer, b"".join(packet("WRITE", path + b"\0v") for path in paths))
        writer.sock.settimeout(30)
        assert daemon.idle_cpu() < IDLE_CPU
        written = [path for path in paths if other.ask("READ", path + b"\0")[0] != ERROR]
        assert 4 <= len(written) < len(paths), len(written)
        if how == "writer leaves":
            writer.close()
            wait_for(lambda: daemon.descriptors() == before + 1, "the writer is not closed")
            assert daemon.idle_cpu() < IDLE_CPU
        elif how == "leaves":
            watcher.close()
            wait_for(
                lambda: other.ask("READ", paths[-1] + b"\0") == (TYPES["READ"], b"v"),
                "the writer does not go on",
            )
        else:
            # The first event of the watch itself, then one for each path in order.
            assert watcher.event().startswith(b"/w\0")
            for path in paths:
                assert watcher.event() == path + b"\0" + b"t" * 3000 + b"\0"
        if how != "writer leaves":
            for _ in paths:
                assert writer.answer() == (TYPES["WRITE"], b"OK\0")
        writer.close()
        watcher.close()


#: What a client sends before it leaves.
BROKEN = {
    "nothing": b"",
    "half a header": packet("READ", b"/a\0")[:7],
    "a header": packet("READ", b"/a\0")[:16],
    "half a body": packet("WRITE", b"/a\0" + b"x" * 100)[:50],
    "a request": packet("READ", b"/\0"),
    "many requests": packet("DIRECTORY", b"/\0") * 500,
    "one and a half": packet("DIRECTORY", b"/\0") + packet("READ", b"/a\0")[:17],
    "a giant": struct.pack("=4I", 2, 1, 0, 4097) + b"x" * 100,
    "zeros": b"\0" * 160,
    "ones": b"\xff" * 160,
    "text": b"GET / HTTP/1.1\r\n\r\n" * 30,
    "open transactions and watches": packet("TRANSACTION_START", b"\0") * 20
    + b"".join(packet("WATCH", b"/w%d\0t\0" % k) for k in range(50)),
}


@pytest.mark.parametrize("ending", ("close", "reset", "half close"))
def test_broken_off(daemon: Daemon, ending: str) -> None:
    """Whatever was sent, the connection ends, nothing is left of it, and others go on."""
    before = settled(daemon)
    with daemon.client() as other:
        other.ask("WRITE", b"/mine\0v")
        for name, data in BROKEN.items():
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(daemon.socket))
            sock.sendall(data)
            if ending == "half close":
                # It still reads: what it asked for is answered, then the daemon closes.
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(30)
                while sock.recv(1 << 16):
                    pass
            sock.close()
            assert other.ask("READ", b"/mine\0") == (TYPES["READ"], b"v"), name
    gone(daemon, before)
    with daemon.client() as other:
        assert other.ask("CONTROL", b"watches\0") == (0, b"\0")


def test_a_giant_packet_ends_its_connection(daemon: Daemon) -> None:
    """What came before it is answered; nothing after it is looked at."""
    with daemon.client() as client:
        client.sock.sendall(
            packet("GET_DOMAIN_PATH", b"3\0")
            + struct.pack("=4I", TYPES["WRITE"], 1, 0, 4097)
            + packet("WRITE", b"/after\0v") * 600
        )
        with pytest.raises((EOFError, ConnectionResetError)):
            while True:
                client.answer()
    with daemon.client() as client:
        assert client.ask("READ", b"/after\0") == (ERROR, b"ENOENT\0")


KILLED = """
import socket, sys
sys.path.insert(0, sys.argv[2])
from tests.world import packet
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
data = packet("WRITE", b"/k\\0" + b"x" * 1000)
print("ready", flush=True)
k = 0
while True:
    k = (k + 7) % len(data)
    sock.sendall(data * 3 + data[:k])
    sock.sendall(data[k:])
"""


def test_clients_killed_in_the_middle(daemon: Daemon) -> None:
    """Clients that die by SIGKILL while they send."""
    before = settled(daemon)
    root = daemon.env["PYTHONPATH"]
    for _ in range(5):
        client = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(daemon.socket), root], stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        wait_for(lambda: daemon.descriptors() > before, "it does not connect")
        with daemon.client() as other:
            wait_for(lambda: other.ask("READ", b"/k\0")[0] == TYPES["READ"], "it does not write")
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        client.stdout.close()
        gone(daemon, before)


def test_slow_bytes(daemon: Daemon) -> None:
    """Three clients send their requests byte by byte, in turn."""
    clients = [daemon.client() for _ in range(3)]
    for data in zip(*(packet("WRITE", b"/slow/%d\0%d" % (k, k)) for k in range(3))):
        for client, byte in zip(clients, data):
            client.sock.sendall(bytes([byte]))
    for k, client in enumerate(clients):
        assert client.answer() == (TYPES["WRITE"], b"OK\0")
        assert client.ask("READ", b"/slow/%d\0" % k) == (TYPES["READ"], b"%d" % k)
        client.close()
