# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests for which memory runs out, at each of the places where they ask for some, of a server
whose journal outlives the process.

    LD_PRELOAD=<no_memory.so> python -m tests.recovery.without_memory CASE

Whoever goes on then has the same store, or is told that the journal has ended.  Writes how many
places there were, and at how many of them it had ended.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from pyxsd.state import image
from tests.recovery.kit import Kept, Recovered, without_clock
from tests.unit import without_memory
from tests.unit.kit import begin, ok, watch
from tests.world import World, packet


def sparse(world: World) -> None:
    """A directory of two pages that a transaction holds.  When one more is taken out of the second
    one it is joined with the first, and whoever has no memory for that leaves both."""
    for n in range(40):
        ok(world, "s0", "MKDIR", b"/f/%04d\0" % n)
    for n in range(16):
        ok(world, "s0", "RM", b"/f/%04d\0" % n)
    ok(world, "s1", "TRANSACTION_START", b"\0")


def overtaken(world: World) -> int:
    """A transaction that has written; somebody else has so elsewhere, and watches it."""
    without_memory.leaf(world)
    watch(world, "s1", b"/f")
    number = begin(world, "s0")
    ok(world, "s0", "WRITE", b"/f/0005x\0v", number)
    ok(world, "s1", "WRITE", b"/g\0v")
    return number


CASES = {
    **{name: without_memory.CASES[name] for name in ("write", "write-leaf", "rm", "rm-shared")},
    "watch": (without_memory.leaf, "WATCH", b"/f\0token\0"),
    "transaction": (without_memory.leaf, "TRANSACTION_START", b"\0"),
    "rm-sparse": (sparse, "RM", b"/f/0039\0"),
    "commit": (overtaken, "TRANSACTION_END", b"T\0"),
}


def graphs(server: Any) -> list[bytes]:
    """The records of an image with the trees, page by page."""
    return [bytes(r.body) for r in image.read(image.save(server)) if r.type == b"GRPH"]


def known(server: Any) -> tuple[Any, ...]:
    """What a client could tell two servers by, now or later."""
    return (
        graphs(server),
        {c.id: (c.watch_list(), list(c.transactions)) for c in server.connections.values()},
    )


def main(case: str) -> tuple[int, int]:
    """See above."""
    lib = ctypes.CDLL(None)
    prepare, type_, payload = CASES[case]
    places = ended = 0
    while True:
        world = World()
        without_clock(world.server)
        number = prepare(world) or 0  # of its transaction
        kept = Kept(world)
        connection, transport = world.connection("s0")
        transport.feed(packet(type_, payload, number))
        world.server.begin(world.now, world.now)
        lib.refuse_after(places)
        try:
            world.server.service(connection)
        except MemoryError as error:
            kept.journal.met(error)  # as the daemon does
        refused = lib.was_refused()
        world.rest.clear()
        if kept.journal.is_recording:
            again = Recovered(kept.memory)
            assert known(again.server) == known(world.server), places
            again.close()
        else:
            ended += 1
            assert "memory has run out" in kept.journal.fault
            assert not kept.memory.is_begun()
        if connection.closed:
            world.sockets.pop("s0")
        kept.close()
        world.close()
        if not refused:
            return places, ended
        places += 1


if __name__ == "__main__":
    print(*main(sys.argv[1]))
