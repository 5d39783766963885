# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory is given back: what is done again and again does not make the process grow.

The leak check of all tests counts objects; here bytes are counted, so that buffers, tables and
scratch space count too.  The numbers come from glibc (mallinfo2) and from Python's own allocator.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable

import pytest

from pyxsd._outq import OutQueue
from pyxsd._wire import MemoryTransport
from pyxsd.store.tree import Tree
from pyxsd.system.configuration import Config
from tests.unit.kit import begin, end, ok, watch
from tests.world import World, packet

ROUNDS = 500
#: Bytes that may come and go for other reasons; to lose a table or a buffer in each round is more.
SLACK = 12_000


class MallInfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
pytestmark = pytest.mark.skipif(
    mallinfo2 is None or "LD_PRELOAD" in os.environ,
    reason="memory in use is known only with glibc 2.33 or later and its own malloc",
)


def bytes_in_use() -> int:
    """All that malloc has given out, and 16 for each object of Python's allocator: the least
    that one takes."""
    gc.collect()
    assert mallinfo2 is not None
    mallinfo2.restype = MallInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd + 16 * sys.getallocatedblocks())


def a_server(world: World, n: int) -> None:
    other = World(Config())
    ok(other, "s0", "WRITE", b"/a\0v")
    other.close()


def a_store(world: World, n: int) -> None:
    tree = Tree()
    for owner in range(20):
        tree.load([b"%d" % owner], b"n%d\0r1\0" % owner, b"v" * 100)
    copy = tree.copy()
    copy.load([b"x"], b"n21\0", b"v")


def a_connection_with_unread_output(world: World, n: int) -> None:
    """Half of a packet has come, a reply and an event have not gone."""
    transport = MemoryTransport()
    connection = world.server.connect(transport)
    transport.room = 0
    transport.feed(packet("WATCH", b"/w\0t\0") + packet("READ", b"/tool\0")[:-1])
    world.server.service(connection)
    assert connection.has_output and connection.partial_input
    world.server.disconnect(connection)
    world.turn()


def a_queue_of_events(world: World, n: int) -> None:
    queue = OutQueue()
    for k in range(100):
        queue.event(1, b"/path/%d" % k, b"token")
    queue.reply(b"v" * 100)


def a_watch(world: World, n: int) -> None:
    watch(world, "d1", b"/local/domain/1/w%d" % n, b"token%d" % n)
    ok(world, "d1", "UNWATCH", b"/local/domain/1/w%d\0token%d\0" % (n, n))


def a_transaction(world: World, letter: bytes, meanwhile: bool) -> None:
    """Ended with that letter, and whether the store changes before its end."""
    tx_id = begin(world, "d1")
    ok(world, "d1", "WRITE", b"in/side\0v", tx_id)
    if meanwhile:
        ok(world, "s0", "WRITE", b"/else/where\0v")
    assert end(world, "d1", tx_id, letter) == "OK"
    ok(world, "s0", "RM", b"/local/domain/1/in\0" if letter == b"T" else b"/else\0")


def a_transaction_that_is_abandoned(world: World, n: int) -> None:
    a_transaction(world, b"F", True)


def a_commit(world: World, n: int) -> None:
    a_transaction(world, b"T", False)


def a_merge(world: World, n: int) -> None:
    a_transaction(world, b"T", True)


def a_domain(world: World, n: int) -> None:
    """With a node, permissions, a watch, a transaction, a quota of its own and a target."""
    world.introduce(7)
    ok(world, "s0", "WRITE", b"/local/domain/7/x\0v")
    ok(world, "s0", "SET_PERMS", b"/local/domain/7/x\0n7\0r1\0")
    ok(world, "s0", "SET_TARGET", b"7\x001\0")
    watch(world, "d7", b"x")
    begin(world, "d7")
    world.server.set_quota("nodes", 5, world.server.domains[7])
    ok(world, "s0", "RELEASE", b"7\0")
    ok(world, "s0", "RM", b"/local/domain/7\0")
    world.host.transports.pop(7)


def another_target(world: World, n: int) -> None:
    """One domain acts for one after another."""
    ok(world, "s0", "SET_TARGET", b"1\0%d\0" % (100 + n))


def a_wide_directory(world: World, n: int) -> None:
    for k in range(100):
        ok(world, "s0", "WRITE", b"/wide/%d\0v" % k)
    ok(world, "s0", "RM", b"/wide\0")


CYCLES: list[Callable[[World, int], None]] = [
    a_server,
    a_store,
    a_connection_with_unread_output,
    a_queue_of_events,
    a_watch,
    a_transaction_that_is_abandoned,
    a_commit,
    a_merge,
    a_domain,
    another_target,
    a_wide_directory,
]


@pytest.mark.parametrize("cycle", CYCLES, ids=[cycle.__name__ for cycle in CYCLES])
def test_again_and_again(world: World, cycle: Callable[[World, int], None]) -> None:
    for n in range(20):  # tables reach their size, and Python's caches fill
        cycle(world, n)
    before = bytes_in_use()
    for n in range(20, 20 + ROUNDS):
        cycle(world, n)
    assert bytes_in_use() - before < SLACK


def test_large_buffers_go_with_what_was_in_them(world: World) -> None:
    """A client that had much to read, and has read it, costs no more than before."""
    _, transport = world.connection("s0")
    ok(world, "s0", "WRITE", b"/v\0" + b"v" * 2000)
    world.feed("s0", packet("READ", b"/v\0"))
    world.drain("s0")
    before = bytes_in_use()
    transport.room = 0
    for _ in range(16):
        world.feed("s0", packet("READ", b"/v\0"))
    assert bytes_in_use() - before > 2 * SLACK
    transport.room = -1
    world.turn("s0")
    assert len(world.drain("s0")) == 16
    assert bytes_in_use() - before < SLACK


def test_an_input_buffer_is_lent(world: World) -> None:
    """Clients that have nothing under way hold none of the 16 KiB that a read takes; one whose
    request came in part holds that part."""
    names = [f"s{n}" for n in range(200)]
    for name in names:
        world.connection(name)
    before = bytes_in_use()
    for name in names:
        ok(world, name, "READ", b"/tool\0")
    assert bytes_in_use() - before < len(names) * 2048
    for name in names:
        world.feed(name, packet("READ", b"/tool\0")[:-1])
    assert bytes_in_use() - before < len(names) * 4096
