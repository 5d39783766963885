# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sockets in the loop: what is waited for, and how they end."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd import _journal
from pyxsd._accesslog import AccessLog
from pyxsd._loop import Loop
from tests.record.kit import Tape
from tests.record.test_journal import records
from tests.unit.kit import ok, watch
from tests.world import ERROR, World, packet, packets

Make = Callable[..., Any]
READ = packet("READ", b"/tool\0")
REPLY = 16  # bytes of the reply to READ
FAR = 1e9  # monotonic seconds: a test ends long before
LIMIT = 4


class Served:
    """A server behind a loop, with clients on sockets."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoll = select.epoll()
        self.failures: list[tuple[int, Exception]] = []
        self.written: list[bytes] = []
        self.ends: list[socket.socket] = []
        self.loop = Loop(
            world.server,
            self.epoll.fileno(),
            0,
            self.write_log,
            lambda fd, error: self.failures.append((fd, error)),
        )

    def write_log(self) -> None:
        self.written.append(self.world.server.log.take()[0])

    def client(self) -> tuple[socket.socket, Any]:
        """The client's end and the server's connection."""
        ours, theirs = socket.socketpair()
        self.ends.append(ours)
        return ours, self.loop.adopt(theirs.detach())

    def turns(self, until: Callable[[], bool]) -> None:
        """Turns until something is so; each waits for what epoll knows of."""
        while not until():
            self.loop.run(FAR, True)

    def replies(self, ours: socket.socket, count: int) -> list[bytes]:
        """The bodies of so many successes, in turns that they need."""
        stream = b""

        def enough() -> bool:
            nonlocal stream
            while select.select([ours], [], [], 0)[0]:
                data = ours.recv(1 << 16)
                if not data:
                    return True
                stream += data
            return len(packets(stream)[0]) >= count

        self.turns(enough)
        found, rest = packets(stream)
        assert rest == b"" and len(found) == count and all(row[0] != ERROR for row in found)
        return [row[3] for row in found]

    def close(self) -> None:
        for end in self.ends:
            end.close()
        for connection in list(self.loop.connections.values()):
            self.world.server.disconnect(connection)
        self.loop.run(0.0, True)
        self.epoll.close()
        del self.loop


@pytest.fixture
def served(make_world: Make) -> Iterator[Served]:
    """With domain 1 that reads nothing and whose watch on /w is full after 2 * LIMIT events."""
    world: World = make_world((1,), quota_maxoutstanding=100, quota_maxwatchevents=LIMIT)
    ok(world, "s0", "MKDIR", b"/w\0")
    ok(world, "s0", "SET_PERMS", b"/w\0b0\0")
    watch(world, "d1", b"/w")
    world.connection("d1")[1].room = 0
    one = Served(world)
    yield one
    one.close()


def is_open(fd: int) -> bool:
    """Does the number stand for an open descriptor?"""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def flood(count: int) -> bytes:
    """So many writes that domain 1 is told of."""
    return b"".join(packet("WRITE", b"/w/%d\0v" % n) for n in range(count))


def test_a_descriptor_is_served_and_closed_with_its_connection(served: Served) -> None:
    ours, connection = served.client()
    fd = connection.transport.fileno()
    assert served.loop.connections == {fd: connection} and is_open(fd)
    ours.sendall(READ * 3)
    assert served.replies(ours, 3) == [b""] * 3
    served.world.server.disconnect(connection)
    served.loop.run(0.0, True)
    assert not is_open(fd) and served.loop.connections == {}


#: How a client leaves, and whether it can still be answered.
LEAVING: list[tuple[str, Callable[[socket.socket], object], bool]] = [
    ("it sends no more", lambda end: end.shutdown(socket.SHUT_WR), True),
    ("it closes", lambda end: end.close(), False),
]


@pytest.mark.parametrize(
    ("leave", "reads"), [row[1:] for row in LEAVING], ids=[row[0] for row in LEAVING]
)
@pytest.mark.parametrize("empty_before", [True, False])
def test_a_client_leaves(
    served: Served, leave: Callable[[socket.socket], object], reads: bool, empty_before: bool
) -> None:
    """What it sent is done first.  The descriptor is closed, whether or not the socket was found
    empty before."""
    ours, connection = served.client()
    fd = connection.transport.fileno()
    if empty_before:
        ours.sendall(READ)
        served.replies(ours, 1)
        served.world.server.service(connection)
    ours.sendall(packet("WRITE", b"/last\0word"))
    leave(ours)
    served.turns(lambda: bool(connection.closed))
    assert not is_open(fd) and served.failures == []
    assert ok(served.world, "s0", "READ", b"/last\0") == b"word"
    if reads:
        assert [row[3] for row in packets(ours.recv(4096))[0]] == [b"OK\0"]
        assert ours.recv(1) == b""


def test_a_client_that_does_not_read_gets_all_in_the_end(served: Served) -> None:
    """The loop waits for room, and not for requests that it would not serve."""
    ok(served.world, "s0", "WRITE", b"/large\0" + b"v" * 2000)
    ours, connection = served.client()
    ours.setblocking(False)
    request = packet("READ", b"/large\0")
    sent = 0
    while connection.interest != 4:
        try:
            sent += ours.send(request) == len(request)
        except BlockingIOError:
            pass
        served.loop.run(0.0, True)
    assert connection.registered == 4 and connection.has_output
    assert served.replies(ours, sent) == [b"v" * 2000] * sent
    assert connection.registered == 1


def held_up(served: Served) -> tuple[socket.socket, Any]:
    """A client whose requests wait for domain 1 to read; what could be sent to it is sent."""
    ours, connection = served.client()
    ours.sendall(flood(20))
    served.turns(lambda: bool(connection.blocked) and not connection.has_output)
    served.loop.run(0.0, True)
    assert (connection.interest, connection.registered) == (0, 0)
    return ours, connection


def test_a_client_that_is_held_up_goes_on(served: Served) -> None:
    """Nothing is waited for on its socket meanwhile, and the same as before behind it."""
    ours, connection = held_up(served)
    served.world.connection("d1")[1].room = -1
    served.world.server.service(served.world.connection("d1")[0])
    assert served.replies(ours, 20) == [b"OK\0"] * 20
    assert connection.registered == 1 and served.failures == []
    ours.sendall(READ)
    assert served.replies(ours, 1) == [b""]


def test_a_client_that_is_held_up_leaves(served: Served) -> None:
    """epoll tells of it though nothing is waited for.  Its writes that were not served are not
    done: it would have to wait for ever."""
    ours, connection = held_up(served)
    fd = connection.transport.fileno()
    ours.close()
    served.turns(lambda: bool(connection.closed))
    assert not is_open(fd) and served.failures == []


@pytest.mark.parametrize("shared", ["it", "those before it"])
def test_a_socket_of_which_another_process_has_a_copy(served: Served, shared: str) -> None:
    """Once it is closed here epoll does not speak of it any more, where it was open when the loop
    was told.  For a later one epoll is not asked: that is a system call less for each client."""
    if shared == "those before it":
        served.loop.share()
    ours, theirs = socket.socketpair()
    served.ends.append(ours)
    copy = os.dup(theirs.fileno())
    try:
        connection = served.loop.adopt(theirs.detach())
        if shared == "it":
            served.loop.share()
        fd = connection.transport.fileno()
        served.world.server.disconnect(connection)
        served.loop.run(0.0, True)
        assert not is_open(fd)
        ours.shutdown(socket.SHUT_WR)
        found = [number for number, _ in served.epoll.poll(0)]
        assert found == ([] if shared == "it" else [fd])
    finally:
        os.close(copy)


def test_a_descriptor_that_cannot_be_waited_for(served: Served, tmp_path: Path) -> None:
    """adopt() says so and closes it."""
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    with pytest.raises(PermissionError):
        served.loop.adopt(fd)
    assert not is_open(fd) and served.loop.connections == {}


def test_a_descriptor_that_can_be_waited_for_no_longer(served: Served, tmp_path: Path) -> None:
    """Its connection ends, and the failure is told; others are served.  A replay ends it there,
    too."""
    tape = Tape(served.world)
    ours, connection = served.client()
    ours.sendall(flood(20))
    served.world.server.service(connection)
    served.world.server.flush()
    assert connection.blocked and connection.registered != connection.interest
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), connection.transport.fileno())
    served.loop.run(0.0, True)
    served.turns(lambda: bool(connection.closed))
    assert [(fd, isinstance(error, OSError)) for fd, error in served.failures] == [(-1, True)]
    served.failures.clear()  # their tracebacks hold this frame, and so the connections
    ours, _ = served.client()
    ours.sendall(READ)
    assert served.replies(ours, 1) == [b""]
    told = {(kind, subject) for _, kind, _, subject in records(tape.taken())}
    assert (_journal.DISCONNECT, connection.id) in told
    tape.check()
    tape.close()


def test_connections_are_taken_faster_where_many_come(served: Served, tmp_path: Path) -> None:
    """One in the first turn, then twice as many each time, until there are no more; after a turn
    without any, one again."""
    took: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener, socket.socketpair()[0] as other:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(100)
        listener.setblocking(False)

        def come(count: int) -> None:
            for _ in range(count):
                served.ends.append(socket.socket(socket.AF_UNIX))
                served.ends[-1].connect(str(tmp_path / "socket"))

        served.loop.add_handler(
            listener.fileno(), lambda: took.append(served.loop.accept(listener.fileno()))
        )
        ours, _ = served.client()
        ours.sendall(READ)
        served.replies(ours, 1)  # a turn without a new connection
        come(10)
        served.turns(lambda: sum(took) == 10)
        assert took == [1, 2, 4, 3]
        assert len(served.loop.connections) == 11
        ours.sendall(READ)
        served.replies(ours, 1)
        took.clear()
        come(2)
        served.turns(lambda: sum(took) == 2)
        assert took == [1, 1]
        assert served.loop.accept(other.fileno()) < 0
        del served.loop.handlers[listener.fileno()]


@pytest.fixture
def logged(make_world: Make) -> Iterator[Served]:
    """With an access log, and domain 1 that always has more requests than one turn serves: so
    the loop never sleeps, and lines wait."""
    one = Served(make_world((1,), log=AccessLog(True)))
    one.world.server.agenda.turn_ns = one.world.server.agenda.slice_ns = 0
    connection, transport = one.world.connection("d1")
    reading, writing = os.pipe()
    os.write(writing, b"x")

    def refill() -> None:
        transport.take()
        if transport.unread < 4096:
            transport.feed(packet("GET_DOMAIN_PATH", b"1\0") * 500)
        one.world.server.serve_later(connection)

    one.loop.add_handler(reading, refill)
    one.loop.run(FAR, True)
    one.world.server.log.take()
    one.written.clear()
    yield one
    one.close()
    os.close(reading)
    os.close(writing)


def test_lines_are_kept_back_for_a_while_and_no_longer(logged: Served) -> None:
    """While the loop does not sleep: not written in their own turn, but soon."""
    ours, _ = logged.client()
    logged.world.server.log.take()
    for _ in range(2):
        logged.loop.run(FAR, True)  # turns without lines
        ours.sendall(packet("WRITE", b"/a\0v"))
        while logged.world.server.log.lines == 0:
            logged.loop.run(FAR, True)
        assert logged.written == []
        end = logged.loop.poller.now + 10
        while not logged.written:
            logged.loop.run(FAR, True)
            assert logged.loop.poller.now < end, "it waits for a sleep"
        assert b"/a v" in b"".join(logged.written)
        logged.written.clear()


def test_many_lines_are_written_at_once(logged: Served) -> None:
    """In the turn behind the one that they came in, however young they are."""
    for n in range(40):
        ok(logged.world, "s0", "WRITE", b"/%d\0" % n + b"v" * 2000)
    logged.world.server.serve_later(logged.world.connection("d1")[0])
    for _ in range(2):
        assert logged.written == []
        logged.loop.run(FAR, True)
    assert len(logged.written) == 1 and len(logged.written[0]) > 65536
