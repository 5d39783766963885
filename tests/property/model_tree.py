# SPDX-License-Identifier: LGPL-2.1-or-later
"""The model's store: nodes, the ways to find, replace and count them, and their permissions.

A node is never changed, only replaced along its way to the root, so a snapshot
is a reference and "untouched" is "the same object"; entry counts are counted
anew whenever they are asked for.  Knows nothing of clients and requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional

Parts = tuple[bytes, ...]
Perms = tuple[tuple[int, str], ...]
Counted = dict[int, int]

INTEGER = re.compile(rb"[+-]?[0-9]+\Z")


class Gone(int):
    """The domid of a domain that is gone, in a tree of before: whoever has it now is another."""


class Node:
    """A node; what is below it is in kids.  Never changed once made."""

    def __init__(self, value: bytes, perms: Perms, kids: dict[bytes, Node]) -> None:
        self.value = value
        self.perms = perms
        self.kids = kids


def find(root: Node, path: Parts) -> Optional[Node]:
    """The node at a path, or None."""
    node: Optional[Node] = root
    for name in path:
        node = node.kids.get(name) if node else None
    return node


def put(root: Node, path: Parts, node: Optional[Node]) -> Node:
    """The tree with another node at a path (None: without it); its parent must exist."""
    if not path:
        assert node is not None
        return node
    kids = dict(root.kids)
    below = put(kids[path[0]], path[1:], node) if len(path) > 1 else node
    if below is None:
        kids.pop(path[0], None)
    else:
        kids[path[0]] = below
    return Node(root.value, root.perms, kids)


def walk(node: Node, path: Parts = ()) -> Iterator[tuple[Parts, Node]]:
    """All nodes with their paths, parents first, names in ascending order."""
    yield path, node
    for name in sorted(node.kids):
        yield from walk(node.kids[name], (*path, name))


def counted(root: Node) -> Counted:
    """{owner: nodes}, without the root."""
    counts: Counted = {}
    for path, node in walk(root):
        if path:
            owner = node.perms[0][0]
            counts[owner] = counts.get(owner, 0) + 1
    return counts


def forget(node: Node, domid: int) -> Node:
    """The tree without a domain's nodes and without its entries elsewhere; "/", which
    stays, is then nobody's (-1)."""
    owner = (-1, node.perms[0][1]) if node.perms[0][0] == domid else node.perms[0]
    perms = (owner,) + tuple(entry for entry in node.perms[1:] if entry[0] != domid)
    kids = {name: forget(kid, domid) for name, kid in node.kids.items() if kid.perms[0][0] != domid}
    return Node(node.value, perms, kids)


def bury(node: Node, domid: int) -> Node:
    """A tree of before a domain's end: all is still there, and its next domain is not named."""
    perms = tuple(
        (Gone(who) if who == domid and domid >= 0 else who, letter) for who, letter in node.perms
    )
    return Node(node.value, perms, {name: bury(kid, domid) for name, kid in node.kids.items()})


def names(entry: int, domid: int) -> bool:
    """Does an entry name the domain that has the domid now?"""
    return entry == domid and not isinstance(entry, Gone)


def common(low: Optional[Parts], path: Parts) -> Parts:
    """The deepest common ancestor; low is None where there was nothing before."""
    if low is None:
        return path
    n = 0
    while n < min(len(low), len(path)) and low[n] == path[n]:
        n += 1
    return low[:n]


def untouched(old: Node, new: Node, low: Optional[Parts]) -> bool:
    """Is the node at `low` the same, with the same permissions above it?  Where
    it is in neither tree, does its parent exist now?"""
    if low is None:
        return True
    was, now = find(old, low), find(new, low)
    if was is None and now is None:
        return find(new, low[:-1]) is not None
    for n in range(len(low)):
        above, there = find(old, low[:n]), find(new, low[:n])
        if above is None or there is None or above.perms != there.perms:
            return False
    return was is now


def parse_perms(text: bytes) -> Optional[Perms]:
    """ "n5\\0r0\\0" -> ((5, "n"), (0, "r")); None where it is malformed."""
    perms = []
    for entry in text.split(b"\0")[:-1]:
        if entry[:1] not in (b"n", b"r", b"w", b"b") or not INTEGER.match(entry[1:]):
            return None
        perms.append((int(entry[1:]), entry[:1].decode()))
    return tuple(perms) or None
