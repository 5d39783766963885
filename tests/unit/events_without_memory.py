# SPDX-License-Identifier: LGPL-2.1-or-later
"""Events for which memory runs out, at each of the places where they ask for some.

    PYTHONMALLOC=malloc LD_PRELOAD=<no_memory.so> python -m tests.unit.events_without_memory CASE

Whoever was served or flushed then may be ended.  Of all others no event is on two accounts, or on
one and nowhere else: when those who did not read do so, everybody is served who had to wait.
Writes how many places there were.
"""

from __future__ import annotations

import ctypes
import gc
import sys

from pyxsd.system.configuration import Config
from tests.unit.kit import ok, watch, write
from tests.world import World, packet

WATCHES, ROOM = 30, 3
DEAF, CAUSE, OTHER = "s2", "s3", "s4"


def deaf(world: World, events: int) -> None:
    """s2 has 30 watches on /w and does not read; so many changes wait for it, and the last one,
    where it finds no room, is s3's."""
    ok(world, "s0", "MKDIR", b"/w\0")
    for n in range(WATCHES):
        watch(world, DEAF, b"/w", b"%d" % n)
    for name in (CAUSE, OTHER):
        ok(world, name, "READ", b"/w\0")
    world.connection(DEAF)[1].room = 0
    for n in range(events):
        world.feed(CAUSE if n == ROOM else "s1", write(b"/w/first%d" % n))
    world.rest.clear()


def change(world: World) -> None:
    """Of s4, which s2 is to be told of."""
    connection, transport = world.connection(OTHER)
    transport.feed(write(b"/w/new"))
    world.server.service(connection)


def read(world: World) -> None:
    """s2 reads."""
    world.connection(DEAF)[1].room = -1
    world.server.service(world.connection(DEAF)[0])
    while world.server.flush():
        pass


def unwatch(world: World) -> None:
    """s2 removes a watch."""
    connection, transport = world.connection(DEAF)
    transport.feed(packet("UNWATCH", b"/w\x003\0"))
    world.server.service(connection)
    while world.server.flush():
        pass


def leave(world: World) -> None:
    """s3 goes."""
    world.server.disconnect(world.connection(CAUSE)[0])
    while world.server.flush():
        pass


#: How many changes wait for s2 before it, and what is done.
CASES = {
    "waits": (1, change),
    "has no room": (ROOM + 1, change),
    "read": (ROOM + 1, read),
    "unwatch": (ROOM + 1, unwatch),
    "leave": (ROOM + 1, leave),
}


def main(case: str) -> int:
    """See above."""
    lib = ctypes.CDLL(None)
    events, act = CASES[case]
    places = 0
    while True:
        world = World(Config(quota_maxwatchevents=ROOM))
        deaf(world, events)
        # The first three are in the output.
        assert world.connection(CAUSE)[0].overflowing == (WATCHES - 3 if events > ROOM else 0)
        gc.collect()
        lib.refuse_after(places)
        try:
            act(world)
        except MemoryError:
            pass
        refused = lib.was_refused()
        check(world)
        world.close()
        if not refused:
            return places
        places += 1


def check(world: World) -> None:
    """See above."""
    for name, (connection, _) in list(world.sockets.items()):
        if connection.closed:
            del world.sockets[name]
    if DEAF in world.sockets:
        connection, transport = world.connection(DEAF)
        transport.room = -1
        world.turn(DEAF)
        world.turn()
        assert connection.waiting_events == 0 and not connection.closed
    for name in list(world.sockets):
        world.turn(name)
        assert world.connection(name)[0].overflowing == 0, name
        world.drain(name)
        ok(world, name, "READ", b"/w\0")


if __name__ == "__main__":
    print(main(sys.argv[1]))
