# SPDX-License-Identifier: LGPL-2.1-or-later
"""One guest that makes the daemon remember all that it can at the same time.

    python -m tests.security.everything WATCHES REPLACED CHANGES REQUEST OTHERS SHAPE

with PYTHONMALLOC=malloc.  WATCHES: `short` ones, with long `tokens`, with long `paths`, too, or all
but one on paths of their own that are as long as can be, and `joined` of two pieces.
REPLACED: values of 1,000 bytes (2,000 in the shape `perms`) that it replaces while its transactions
are open; CHANGES: small ones.  REQUEST: `long-path`, `long-value`, `short` or `perms`, of what it
asks in its transactions.  OTHERS: how many others own a node.  SHAPE: `wide`, its nodes are in one
directory; `deep`, each 32 are below the last one of those before, so that a change copies as many
full pages as there are; `sparse`, each is below the last one, and had 17 others beside it once;
`perms`, as wide, and each node that it replaces gets new permissions before its new value.  Writes
how many bytes it is, by part, and their sum, without the nodes that it owns.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys

from pyxsd.system.configuration import Config
from tests.unit.kit import ok, write
from tests.unit.test_memory import MallInfo
from tests.world import World, packet

#: What a node takes beside its name and its value, at least.
NODE = 100
REQUESTS = {
    "short": ("WRITE", b"%d", b"v"),
    "long-path": ("WRITE", b"x" * 900 + b"%d", b"v"),
    "long-value": ("WRITE", b"%d", b"v" * 1900),
    "perms": ("SET_PERMS", b"%03d", b"n1\0" + b"r2\0" * 63),
}
HOME = b"/local/domain/1"
#: Levels of the shape of that name.
SPARSE = 300


def live() -> int:
    """Bytes that malloc has given out."""
    gc.collect()
    lib = ctypes.CDLL(None)
    lib.mallinfo2.restype = MallInfo
    info = lib.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def own(world: World) -> int:
    """Bytes of the nodes that domain 1 owns."""
    return sum(
        NODE + len(names[-1]) + len(value)
        for names, perms, value in world.server.tree.walk()
        if perms[0][0] == 1
    )


def fill(world: World, where: bytes) -> None:
    """Changes below `where`, by dom0, until no event of them finds room with domain 1."""
    connection, transport = world.connection("s1")
    n = 0
    while not connection.overflowing:
        n += 1
        for request in (write(where + b"/%d" % n), packet("RM", where + b"/%d\0" % n)):
            transport.feed(request)
            world.turn("s1")
            transport.take()
    # Whoever has changes that wait would be served no more.
    world.server.disconnect(world.sockets.pop("s1")[0])


def join(world: World) -> None:
    """As many watches as can be, on long paths that another watch cuts in two, and then goes."""
    for n in range(100):
        for type_, path in (
            ("WATCH", b"%03d/x" % n),
            ("WATCH", b"%03d/" % n + b"p" * 4070),
            ("UNWATCH", b"%03d/x" % n),
        ):
            if world.ask("d1", type_, path + b"\0t\0")[1] != b"OK\0":
                return
            world.drain("d1")


def node(n: int, shape: str) -> bytes:
    """The path of the node of that number."""
    if shape == "sparse":
        return b"a/" * min(n, SPARSE) + b"%03d" % n
    if shape != "deep":
        return b"%03d" % n
    return b"31/" * (n // 32) + b"%02d" % (n % 32)


def main(
    watches: str, replaced: int, changes: int, request: str, others: int, shape: str
) -> dict[str, int]:
    """See above."""
    world = World(Config())
    world.introduce(1)
    where = b"/w/" + b"/".join([b"p" * 200] * 4) if watches in ("paths", "joined") else b"/w"
    for path, perms in ((HOME, b"n1\0"), (where, b"b0\0")):
        ok(world, "s0", "MKDIR", path + b"\0")
        ok(world, "s0", "SET_PERMS", path + b"\0" + perms)
    for n in range(others):
        ok(world, "s0", "MKDIR", b"/local/domain/%d\0" % (2 + n))
        ok(world, "s0", "SET_PERMS", b"/local/domain/%d\0n%d\0" % (2 + n, 2 + n))
    ok(world, "s1", "READ", b"/\0")
    parts: dict[str, int] = {}
    last = [live()]

    def part(name: str) -> None:
        now = live() - own(world)
        parts[name] = now - last[0]
        last[0] = now

    part("nothing")
    token = {"tokens": b"t" * 3900, "paths": b"t" * 2900}.get(watches, b"")
    if watches == "joined":
        ok(world, "d1", "WATCH", where + b"\0t\0")
        join(world)
    while world.ask("d1", "WATCH", where + b"\0%d" % len(parts) + token + b"\0")[0] == 4:
        world.drain("d1")
        token += b"t"
    world.drain("d1")
    part("watches")
    size = 2000 if shape == "perms" else 1000
    for n in range(900 if shape != "sparse" else 0):
        ok(world, "d1", "WRITE", node(n, shape) + b"\0" + b"v" * size)
    ok(world, "d1", "WRITE", b"read\0" + b"v" * 1000)
    for n in range(SPARSE if shape == "sparse" else 0):
        for type_ in ("MKDIR", "RM"):
            for k in range(17):
                ok(world, "d1", type_, b"a/" * n + b"b%d\0" % k)
            ok(world, "d1", "MKDIR", b"a/" * n + b"a\0")
    part("what nodes take more")
    while world.ask("d1", "TRANSACTION_START", b"\0")[0] == 6:
        pass
    transactions = world.connection("d1")[0].transactions
    part("transactions")
    if shape == "perms":
        # So long that no change is kept any more: what is replaced then is changed in place.
        for _ in range(2):
            world.now += 1
            world.server.tick(world.now)
            ok(world, "d1", "WRITE", b"999\0v")
    for n in range(replaced):
        if shape == "perms":
            ok(world, "d1", "SET_PERMS", node(n, shape) + b"\0n1\0")
        ok(world, "d1", "WRITE", node(n, shape) + b"\0" + b"w" * size)
    part("what it replaced")
    if shape in ("deep", "sparse"):
        for n in range(changes):
            ok(world, "d1", "WRITE", node(899, shape) + b"\0%d" % n)
        part("deep changes that are kept")
        changes = 0
    type_, path, value = REQUESTS[request]
    if shape == "sparse":
        path = b"a/" * SPARSE + path
    served = 0
    # In the shape `sparse` each has copied all of its levels before one has asked all that it can.
    for tx_id, count in [(tx_id, 1) for tx_id in transactions if shape == "sparse"] + [
        (tx_id, 900) for tx_id in transactions
    ]:
        for n in range(count):
            body = (path % n) + b"\0" + value
            if world.ask("d1", type_, body, tx_id)[1] != b"OK\0":
                break
            served += 1
    part("requests in transactions")
    for n in range(changes):
        # Nodes come and go, so that the counts of nodes change, too.
        for type_, more in (("WRITE", b"%d" % n), ("RM", b"")):
            ok(world, "d1", type_, b"%03d\0" % (900 + n % 60) + more)
    part("changes that are kept")
    world.connection("d1")[1].room = 0
    for _ in range(3000):
        world.feed("d1", packet("READ", b"read\0"))
    part("replies")
    fill(world, where)
    part("events")
    parts["sum"] = sum(parts.values()) - parts["nothing"]
    parts["requests"] = served
    parts["open"] = len(transactions)
    world.close()
    return parts


if __name__ == "__main__":
    print(
        json.dumps(
            main(
                sys.argv[1],
                int(sys.argv[2]),
                int(sys.argv[3]),
                sys.argv[4],
                int(sys.argv[5]),
                sys.argv[6],
            )
        )
    )
