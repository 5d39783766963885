# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests for which memory runs out, at each of the places where they ask for some.

    LD_PRELOAD=<no_memory.so> python -m tests.unit.without_memory CASE

The counts of the store must be those of its nodes afterwards, and nothing may be left of it at the
end.  Writes how many places there were.
With PYTHONMALLOC=malloc Python's objects are among them; see events_without_memory.py.
"""

from __future__ import annotations

import ctypes
import gc
import sys

from pyxsd.system.configuration import Config
from tests.leaks import differences, live_counts
from tests.unit.kit import begin, end, ok, recount
from tests.world import World, packet

DEEP = b"/".join([b"x"] * 300)


def nodes(world: World) -> None:
    """A wide and deep subtree of two owners."""
    for path in (b"/t/a/", b"/t/b/", b"/t/a/" + DEEP + b"/"):
        ok(world, "s0", "MKDIR", path + b"1\0")
    for n in range(200):
        ok(world, "s0", "MKDIR", b"/t/wide/%03d/y\0" % n)
        if n % 3:
            ok(world, "s0", "SET_PERMS", b"/t/wide/%03d\0n%d\0" % (n, n % 7))


def shared(world: World) -> None:
    """The same while a transaction holds it."""
    nodes(world)
    ok(world, "s1", "TRANSACTION_START", b"\0")


def full(world: World) -> None:
    """A directory whose pages are all full, and the page above them."""
    for n in range(32 * 32):
        ok(world, "s0", "MKDIR", b"/f/%04d\0" % n)


def leaf(world: World) -> None:
    """A directory of one full page."""
    for n in range(32):
        ok(world, "s0", "MKDIR", b"/f/%04d\0" % n)


def full_and_shared(world: World) -> None:
    """The same while a transaction holds it."""
    full(world)
    ok(world, "s1", "TRANSACTION_START", b"\0")


def owners(world: World) -> None:
    """Nodes of so many domains that the table of counts has no room for one more; a transaction
    holds them."""
    for n in range(16):
        ok(world, "s0", "MKDIR", b"/o/%d/x\0" % n)
        ok(world, "s0", "SET_PERMS", b"/o/%d\0n%d\0" % (n, n))
        ok(world, "s0", "SET_PERMS", b"/o/%d/x\0n%d\0" % (n, n))
    ok(world, "s1", "TRANSACTION_START", b"\0")


CASES = {
    "owner": (owners, "SET_PERMS", b"/o/5\0n99\0"),
    "write": (full, "WRITE", b"/f/0500x\0v"),
    "write-last": (full, "WRITE", b"/f/9\0v"),
    "write-shared": (full_and_shared, "WRITE", b"/f/0500x/y/z\0v"),
    "write-merged": (leaf, "WRITE", b"/f/x/y/z\0v"),
    "write-leaf": (leaf, "WRITE", b"/f/0005x\0v"),
    "rm": (nodes, "RM", b"/t\0"),
    "rm-shared": (shared, "RM", b"/t\0"),
    "rm-root": (nodes, "RM", b"/\0"),
    "rm-one": (shared, "RM", b"/t/wide/150\0"),
    "rm-owners": (owners, "RM", b"/o\0"),
    # More domains than there is room for.
    "perms": (nodes, "SET_PERMS", b"/t\0n0\0" + b"".join(b"r%d\0" % (9 + n) for n in range(70))),
}

#: Those whose request is one of a transaction, which is merged then.
MERGED = {"write-merged"}


def main(case: str) -> int:
    """See above."""
    before = live_counts()
    places = 0
    while is_refused(case, places):
        places += 1
    gc.collect()
    left = differences(before, live_counts())
    assert not left, left
    return places


def is_refused(case: str, places: int) -> bool:
    """One request that gets memory so many times; were there more times that it asked?"""
    lib = ctypes.CDLL(None)
    prepare, type_, payload = CASES[case]
    world = World(Config())
    prepare(world)
    connection, transport = world.connection("s0")
    tx_id = begin(world, "s0") if case in MERGED else 0
    transport.feed(packet(type_, payload, tx_id))
    lib.refuse_after(places)
    try:
        world.server.service(connection)
    except MemoryError:
        pass
    refused = lib.was_refused()
    world.rest.clear()
    if connection.closed:
        world.sockets.pop("s0")
    elif tx_id:
        world.turn()
        world.drain("s0")
        ok(world, "s0", "MKDIR", b"/f/0000/x\0", tx_id)
        ok(world, "s1", "MKDIR", b"/of-another\0")
        assert end(world, "s0", tx_id) == "OK"
    recount(world)
    world.close()
    return bool(refused)


if __name__ == "__main__":
    print(main(sys.argv[1]))
