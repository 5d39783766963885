# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a xenstored leaves for its successor, whatever file it wrote it to.

A `HostState` is a plain value: two are equal where they mean the same.  `stream_reader` and
`stream_writer` know C xenstored's file, `database` oxenstored's, `picture` what an image of
pyxsd's has in common with these; `carry` says what one of the first two cannot hold.

What a reader cannot make sense of is one of two things.  Damage to the form of the file (a
length that leads outside, a missing end) raises StateError: nothing of the file can be trusted.
A record that is whole and says something impossible (a node without its parent) is left out and
described in `faults`: a host whose xenstored does not start is lost, so the rest is of use.  A
state with faults is not the whole one; callers that can refuse it should.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from pyxsd.state.errors import StateError as StateError

LETTERS = "nrwb"  # the access of a permission entry as a letter, by its number


class Permission(NamedTuple):
    """One entry of a permission list; the first entry of a list names the owner."""

    domid: int
    access: int  # 1 read | 2 write
    # The domain that was meant is gone, and the entry grants nothing any more (as the first
    # entry it still names the owner).
    stale: bool = False


class Node(NamedTuple):
    """A node of the store."""

    path: bytes  # "/", "/a/b" or "@releaseDomain"
    permissions: tuple[Permission, ...]
    value: bytes


class Watch(NamedTuple):
    """A watch as its client asked for it."""

    path: bytes  # relative where the client gave it so
    token: bytes
    depth: Optional[int] = None  # how many levels below the path are watched; None: all


@dataclass
class Client:
    """A connection.  None stands for what the file does not tell."""

    domid: Optional[int]  # of a domain's ring; None: a socket
    number: int = 0  # the connection's id in the file; 0: the format has none
    fd: int = -1  # a socket's descriptor; -1 for a ring
    target: Optional[int] = None  # the domain that it also acts for (SET_TARGET)
    mfn: Optional[int] = None  # the ring's page
    remote_port: Optional[int] = None  # the event channel's end in the domain
    local_port: Optional[int] = None  # and in the xenstored's own domain
    unique_id: Optional[int] = None  # tells a domain from a later one with the same domid
    indices: Optional[tuple[int, int]] = None  # (req_cons, rsp_prod) of the ring page
    torn: int = 0  # bytes at the front of `output` that are the rest of a packet partly sent
    input: bytes = b""  # what was read and not served: requests as the client sent them
    output: bytes = b""  # what was not sent yet
    watches: list[Watch] = field(default_factory=list)  # in the order of the file
    # Events that found no room in `output`: path and token of each
    waiting: list[tuple[bytes, bytes]] = field(default_factory=list)
    transactions: dict[int, int] = field(default_factory=dict)  # id: how many requests it had

    @property
    def name(self) -> str:
        """For messages, as "the ring of domain 5" or "the socket 7"."""
        return f"the socket {self.fd}" if self.domid is None else f"the ring of domain {self.domid}"


@dataclass
class Settings:
    """What holds for one domain."""

    features: int = 0  # bits of the ring page
    quotas: dict[bytes, int] = field(default_factory=dict)  # by C's names, as b"nodes"


@dataclass
class HostState:
    """All that a file says, in the order of the file."""

    kind: str  # "stream", "db" or "image"
    version: int = 1  # of the stream or the image
    big_endian: bool = False  # the stream's byte order
    listener: int = -1  # descriptor of the listening socket; -1: none
    evtchn: int = -1  # descriptor of the event channel device; -1: none
    virq_port: Optional[int] = None  # local port of VIRQ_DOM_EXC
    clients: list[Client] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)  # a node before its children
    domain_quotas: dict[bytes, int] = field(default_factory=dict)  # of each domain
    global_quotas: dict[bytes, int] = field(default_factory=dict)  # of all together
    settings: dict[int, Settings] = field(default_factory=dict)  # by domid
    faults: list[str] = field(default_factory=list)  # what was left out, and where it stood


class NodeChecker:
    """Collects the nodes of a file and refuses those that no tree can have."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._index: dict[bytes, int] = {}

    def add(self, node: Node, replace: bool) -> None:
        """Takes the next node.  ValueError where its path is malformed, its parent is missing,
        it has no permissions, or its path came before and `replace` is false."""
        path = node.path
        if not is_node_path(path):
            raise ValueError(f"not a path: {path[:64]!r}")
        if not node.permissions:
            raise ValueError(f"{path[:64]!r} has no permissions")
        if path in self._index:
            if not replace:
                raise ValueError(f"{path[:64]!r} stands there twice")
            self.nodes[self._index[path]] = node
            return
        if path[:1] == b"/" and path != b"/":
            parent = path[: path.rindex(b"/")] or b"/"
            if parent not in self._index:
                raise ValueError(f"{path[:64]!r}: the parent is missing")
        self._index[path] = len(self.nodes)
        self.nodes.append(node)


def is_node_path(path: bytes) -> bool:
    """Can it be the path of a node: "/", "/a/b", or one name that begins with "@"?"""
    if b"\0" in path:
        return False
    if path[:1] == b"@":
        return len(path) > 1
    return path == b"/" or (path[:1] == b"/" and path[-1:] != b"/" and b"//" not in path)
