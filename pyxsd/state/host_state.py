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

from types import SimpleNamespace

from pyxsd.named import NamedTuple
from pyxsd.state.errors import StateError as StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, TypeVar

    Kind = TypeVar("Kind", bound="Fields")

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


class Fields(SimpleNamespace):
    """Named fields that can be changed; two values are equal where all their fields are.

    A class says its fields as annotations, in the order in which they can be given, with their
    defaults; each value gets lists and dicts of its own.  TypeError for a field that there is
    not, AttributeError for one that is missing.  (`dataclasses` takes 6 ms of each start.)
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        known = type(self).__annotations__
        if len(given) > len(known) or not named.keys() <= known.keys():
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(known)}")
        fields = dict(zip(known, given), **named)
        for name in known.keys() - fields.keys():
            default = getattr(type(self), name)
            fields[name] = default.copy() if isinstance(default, (list, dict)) else default
        super().__init__(**fields)

    def replaced(self: Kind, **fields: Any) -> Kind:
        """The same value but for the fields given; lists and dicts are shared."""
        return type(self)(**{**vars(self), **fields})


class Client(Fields):
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
    watches: list[Watch] = []  # in the order of the file
    # Events that found no room in `output`: path and token of each
    waiting: list[tuple[bytes, bytes]] = []
    transactions: dict[int, int] = {}  # id: how many requests it had

    @property
    def name(self) -> str:
        """For messages, as "the ring of domain 5" or "the socket 7"."""
        return f"the socket {self.fd}" if self.domid is None else f"the ring of domain {self.domid}"


class Settings(Fields):
    """What holds for one domain."""

    features: int = 0  # bits of the ring page
    quotas: dict[bytes, int] = {}  # by C's names, as b"nodes"


class HostState(Fields):
    """All that a file says, in the order of the file."""

    kind: str  # "stream", "db" or "image"
    version: int = 1  # of the stream or the image
    big_endian: bool = False  # the stream's byte order
    listener: int = -1  # descriptor of the listening socket; -1: none
    evtchn: int = -1  # descriptor of the event channel device; -1: none
    virq_port: Optional[int] = None  # local port of VIRQ_DOM_EXC
    clients: list[Client] = []
    nodes: list[Node] = []  # a node before its children
    domain_quotas: dict[bytes, int] = {}  # of each domain
    global_quotas: dict[bytes, int] = {}  # of all together
    settings: dict[int, Settings] = {}  # by domid
    faults: list[str] = []  # what was left out, and where it stood


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
