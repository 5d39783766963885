# SPDX-License-Identifier: LGPL-2.1-or-later
"""The core in process, by pytest-benchmark: what a request costs without sockets and kernel.

    pytest benchmarks/core --benchmark-only

Each round feeds one batch of BATCH requests to a connection and serves it in one turn, so a time
divided by BATCH is the cost of one request.  The first batch's replies are checked.  Names last:
saved runs (--benchmark-save) can be compared over the years.
"""

from __future__ import annotations

import struct
from typing import Any, Callable

import pytest
from pyxsd_bench.wire import (
    DIRECTORY,
    ERROR,
    GET_PERMS,
    MKDIR,
    READ,
    RM,
    SET_PERMS,
    UNWATCH,
    WATCH,
    WATCH_EVENT,
    WRITE,
)
from pyxsd_bench.wire import GET_DOMAIN_PATH as DOMAIN_PATH
from pyxsd_bench.wire import TRANSACTION_END as END
from pyxsd_bench.wire import TRANSACTION_START as START

pytest.importorskip("pytest_benchmark")
core = pytest.importorskip("pyxsd._core")
wire = pytest.importorskip("pyxsd._wire")
config = pytest.importorskip("pyxsd.system.configuration")

HEADER = struct.Struct("=IIII")
BATCH = 64
VALUE = b"v" * 32


class Host:
    """A host without domains."""

    def log(self, level: str, facility: str, text: str) -> None:
        assert level != "error", text


def packet(kind: int, payload: bytes, tx_id: int = 0) -> bytes:
    return HEADER.pack(kind, 1, tx_id, len(payload)) + payload


def replies(stream: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(stream):
        kind, _, _, length = HEADER.unpack_from(stream, at)
        found.append((kind, stream[at + 16 : at + 16 + length]))
        at += 16 + length
    return found


class World:
    """A server and clients in this process."""

    def __init__(self) -> None:
        self.server = core.Server(config.Config(), Host())
        self.clients: list[tuple[Any, Any]] = []

    def client(self) -> int:
        """One more connection; its number."""
        transport = wire.MemoryTransport()
        self.clients.append((self.server.connect(transport), transport))
        return len(self.clients) - 1

    def serve(self, client: int, data: bytes) -> bytes:
        """Feeds the bytes, runs turns until all is answered, gives what came back."""
        connection, transport = self.clients[client]
        transport.feed(data)
        out = b""
        while True:
            self.server.begin(1000.0, 1000.0)
            self.server.service(connection)
            while self.server.flush():
                pass
            self.server.take_changed()
            more: bytes = transport.take()
            out += more
            if not more:
                return out

    def must(self, client: int, data: bytes) -> None:
        """Like `serve`, and no reply is an error."""
        assert all(kind != ERROR for kind, _ in replies(self.serve(client, data)))

    def fill(self, folder: bytes, count: int) -> None:
        for first in range(0, count, 1000):
            self.must(
                0,
                b"".join(
                    packet(WRITE, folder + b"/%d\0" % i + VALUE)
                    for i in range(first, min(first + 1000, count))
                ),
            )


@pytest.fixture
def world() -> Any:
    made = World()
    made.client()
    yield made
    made.server.close()


def measure(benchmark: Any, world: World, batch: bytes, expected: int, client: int = 0) -> None:
    """Checks one batch, then times it."""
    first = replies(world.serve(client, batch))
    assert len([kind for kind, _ in first if kind != WATCH_EVENT]) == expected
    assert all(kind != ERROR for kind, _ in first), first[0]
    benchmark(world.serve, client, batch)


Make = Callable[[int], bytes]
REQUESTS: tuple[tuple[str, int, Make], ...] = (
    ("read", 1, lambda i: packet(READ, b"/b/%d\0" % i)),
    ("write", 1, lambda i: packet(WRITE, b"/b/%d\0" % i + VALUE)),
    ("directory", 1, lambda i: packet(DIRECTORY, b"/b/%d\0" % i)),
    ("get-perms", 1, lambda i: packet(GET_PERMS, b"/b/%d\0" % i)),
    ("set-perms", 1, lambda i: packet(SET_PERMS, b"/b/%d\0n0\0r1\0" % i)),
    ("domain-path", 1, lambda i: packet(DOMAIN_PATH, b"%d\0" % i)),
    ("mkdir-rm", 2, lambda i: packet(MKDIR, b"/b/new\0") + packet(RM, b"/b/new\0")),
    ("watch-unwatch", 2, lambda i: packet(WATCH, b"/b\0t\0") + packet(UNWATCH, b"/b\0t\0")),
)


@pytest.mark.parametrize("name", [name for name, _, _ in REQUESTS])
def test_requests(benchmark: Any, world: World, name: str) -> None:
    """BATCH requests (or pairs) in flight on one connection."""
    count, make = next((count, make) for n, count, make in REQUESTS if n == name)
    world.fill(b"/b", BATCH)
    measure(benchmark, world, b"".join(make(i) for i in range(BATCH)), BATCH * count)


@pytest.mark.parametrize("width", [10, 1000, 10000])
def test_create_and_remove_beside_siblings(benchmark: Any, world: World, width: int) -> None:
    world.fill(b"/wide", width)
    pair = packet(WRITE, b"/wide/new\0" + VALUE) + packet(RM, b"/wide/new\0")
    measure(benchmark, world, pair * (BATCH // 2), BATCH)


@pytest.mark.parametrize("nodes", [100, 10000, 100000])
def test_transaction_of_five_writes(benchmark: Any, world: World, nodes: int) -> None:
    """Start, five writes, commit, in a directory of `nodes`."""
    world.fill(b"/t", nodes)

    def transaction() -> list[tuple[int, bytes]]:
        started = replies(world.serve(0, packet(START, b"\0")))[0][1]
        tx_id = int(started[:-1])
        writes = b"".join(packet(WRITE, b"/t/%d\0" % i + VALUE, tx_id) for i in range(5))
        return replies(world.serve(0, writes + packet(END, b"T\0", tx_id)))

    assert [body for _, body in transaction()] == [b"OK\0"] * 6
    benchmark(transaction)


@pytest.mark.parametrize("watchers", [1, 100, 1000])
def test_fan_out(benchmark: Any, world: World, watchers: int) -> None:
    """One write that all watchers are told of; their events are taken out too."""
    world.fill(b"/f", 1)
    for _ in range(watchers):
        world.must(world.client(), packet(WATCH, b"/f\0t\0"))
    data = packet(WRITE, b"/f/0\0" + VALUE)

    def round_() -> int:
        world.serve(0, data)
        return sum(len(transport.take()) > 0 for _, transport in world.clients[1:])

    assert round_() == watchers
    benchmark(round_)


@pytest.mark.parametrize("watches", [0, 1000, 100000])
def test_write_beside_unrelated_watches(benchmark: Any, world: World, watches: int) -> None:
    world.fill(b"/b", BATCH)
    other = world.client()
    for first in range(0, watches, 1000):
        world.must(
            other,
            b"".join(
                packet(WATCH, b"/w/%d/%d\0t\0" % (i // 100, i)) for i in range(first, first + 1000)
            ),
        )
    batch = b"".join(packet(WRITE, b"/b/%d\0" % i + VALUE) for i in range(BATCH))
    measure(benchmark, world, batch, BATCH)
