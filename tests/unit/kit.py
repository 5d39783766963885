# SPDX-License-Identifier: LGPL-2.1-or-later
"""Short forms for the tests of the core: requests that must succeed, and what came."""

from __future__ import annotations

from typing import Union

from tests.world import ERROR, EVENT, TYPES, World, packet

Event = tuple[bytes, bytes]


def ok(world: World, who: str, type_: str, payload: bytes, tx_id: int = 0) -> bytes:
    """The body of a success."""
    got, body = world.ask(who, type_, payload, tx_id)
    assert got == TYPES[type_], (who, type_, payload[:80], body)
    return body


def error(world: World, who: str, type_: Union[str, int], payload: bytes, tx_id: int = 0) -> str:
    """The name of an error."""
    got, body = world.ask(who, type_, payload, tx_id)
    assert got == ERROR, (who, type_, payload[:80], body)
    return body[:-1].decode()


def begin(world: World, who: str) -> int:
    """Starts a transaction; its id."""
    return int(ok(world, who, "TRANSACTION_START", b"\0")[:-1])


def end(world: World, who: str, tx_id: int, letter: bytes = b"T") -> str:
    """Ends a transaction: "OK" or the error."""
    got, body = world.ask(who, "TRANSACTION_END", letter + b"\0", tx_id)
    return body[:-1].decode()


def watch(world: World, who: str, path: bytes, token: bytes = b"t", depth: bytes = b"") -> None:
    """Sets a watch and drops its first event."""
    ok(world, who, "WATCH", path + b"\0" + token + b"\0" + depth)
    world.drain(who)


def events(world: World, who: str) -> list[Event]:
    """(path, token) of each event that came, in order; there must be nothing else."""
    found = []
    for got, _, _, body in world.drain(who):
        assert got == EVENT, (got, body)
        path, token, _ = body.split(b"\0")
        found.append((path, token))
    return found


def write(path: bytes, value: bytes = b"v", tx_id: int = 0, req_id: int = 1) -> bytes:
    """A WRITE as it goes over the wire."""
    return packet("WRITE", path + b"\0" + value, tx_id, req_id)


def recount(world: World) -> None:
    """The entry counts and the size of the store, and of every open transaction,
    are those of its nodes."""
    trees = [world.server.tree]
    for name in world.names():
        trees += [txn.tree for txn in world.connection(name)[0].transactions.values()]
    for tree in trees:
        counts: dict[int, int] = {}
        for names, perms, _ in tree.walk():
            if names:
                counts[perms[0][0]] = counts.get(perms[0][0], 0) + 1
            if tree is world.server.tree:
                assert all(tree.mentions_of(domid) > 0 for domid, _ in perms)
        assert tree.owners_hold()
        assert tree.all_entries() == counts
        assert tree.size == sum(counts.values())
