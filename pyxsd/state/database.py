# SPDX-License-Identifier: LGPL-2.1-or-later
"""oxenstored's dump (`/var/run/xenstored/db`) as a `HostState`, and back.

`dump` has the form of the lines, and is what the running daemon reads and writes.  A dump has
no mark at its end and no checksum: that one is cut between two lines cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyxsd.state import dump
from pyxsd.state.host_state import (
    LETTERS,
    Client,
    HostState,
    Node,
    NodeChecker,
    Permission,
    StateError,
    Watch,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.state.node_reading import NodesOfFile


def read_db(data: bytes, into: NodesOfFile | None = None) -> HostState:
    """The state that a dump's bytes hold.

    StateError where it is no dump.  A line that makes no sense is left out, and described in
    `faults` as in "line 12 at byte 340: not a number: b'x'".  `into`: gets the nodes, and the state
    has none.
    """
    if data.split(b"\n", 1)[0] != dump.FIRST_LINE:
        raise StateError(f'the file does not begin with "{dump.FIRST_LINE.decode()}"')
    state = HostState("db")
    nodes = _Nodes() if into is None else into
    loaded = dump.Loaded(nodes)
    state.faults = [
        f"line {number} at byte {at}: {fault}" for number, at, fault in _read(data, loaded, into)
    ]
    if not data.endswith(b"\n"):
        state.faults.append(f"the file is cut inside of its last line, at byte {len(data)}")
    state.listener = loaded.listener
    if loaded.evtchn is not None:
        state.evtchn, state.virq_port = loaded.evtchn
    if isinstance(nodes, _Nodes):
        state.nodes = nodes.checker.nodes
    state.clients = _clients(loaded, state.faults)
    return state


def _read(
    data: bytes, loaded: dump.Loaded, into: NodesOfFile | None
) -> Iterator[tuple[int, int, str]]:
    """Reads the lines behind the first one, as dump.read_lines() does."""
    at, number = len(dump.FIRST_LINE) + 1, 2
    while at < len(data):
        if into is not None:
            at, taken = into.take_lines(data, at)
            number += taken
            if at == len(data):
                break
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        try:
            dump.read_line(loaded, data[at:end], -1)
        except ValueError as error:
            yield number, at, str(error)
        at, number = end + 1, number + 1


class _Nodes:
    """Stands for the tree that `dump` puts nodes into, and keeps their order."""

    def __init__(self) -> None:
        self.checker = NodeChecker()

    def load(self, names: list[bytes], perms: bytes, value: bytes) -> None:
        """One node, as Tree.load() takes it."""
        special = len(names) == 1 and names[0].startswith(b"@")
        path = names[0] if special else b"/" + b"/".join(names)
        self.checker.add(Node(path, _permissions(perms), value), replace=True)


def _permissions(text: bytes) -> tuple[Permission, ...]:
    """ "n5 NUL r0 NUL" as entries; ValueError."""
    found = []
    for entry in text.rstrip(b"\0").split(b"\0"):
        access = LETTERS.find(entry[:1].decode("latin-1")) if entry else -1
        digits = entry[2:] if entry[1:2] == b"-" else entry[1:]
        if access < 0 or not digits.isdigit() or len(digits) > 18:
            raise ValueError(f"malformed permissions {text[:32]!r}")
        found.append(Permission(int(entry[1:]), access))
    return tuple(found)


def _clients(loaded: dump.Loaded, faults: list[str]) -> list[Client]:
    """The rings and sockets with their watches; what belongs to none of them is a fault."""
    by_owner: dict[int, Client] = {}  # by domid, or minus the descriptor
    for domid, mfn, remote, local in loaded.domains:
        if domid in by_owner:
            faults.append(f"domain {domid} stands there twice")
            continue
        by_owner[domid] = Client(domid, mfn=mfn, remote_port=remote, local_port=local or None)
    for fd in loaded.sockets:
        if -fd in by_owner:
            faults.append(f"the descriptor {fd} stands there twice")
            continue
        by_owner[-fd] = Client(None, fd=fd)
    for domid, ring in loaded.rings.items():
        if domid not in by_owner:
            faults.append(f"a ring of domain {domid}, which is not there")
            continue
        client = by_owner[domid]
        client.unique_id = ring.unique_id
        client.indices = (ring.req_cons, ring.rsp_prod)
        client.torn, client.input, client.output = ring.torn, ring.input, ring.output
    for owner, path, token, depth in loaded.watches:
        if owner not in by_owner:
            faults.append(
                f"a watch of {f'domain {owner}' if owner >= 0 else f'socket {-owner}'},"
                " which is not there"
            )
            continue
        by_owner[owner].watches.append(Watch(path, token, None if depth is None else int(depth)))
    return list(by_owner.values())


# -- writing ------------------------------------------------------------------


def write_db(state: HostState, nodes: bytes = b"") -> bytes:
    """A state as the bytes of a dump; nodes: lines of more nodes than the state has.

    StateError, naming what does not fit, where the format cannot hold it; `carry.for_db` leaves
    that out.
    """
    return b"".join([*(line + b"\n" for line in _lines(state)), nodes])


def _lines(state: HostState) -> Iterator[bytes]:
    yield dump.FIRST_LINE
    yield b"global,%d" % state.listener
    if state.virq_port is not None:
        yield b"evtchn-dev,%d,%d" % (state.evtchn, state.virq_port)
    for client in state.clients:
        if client.domid is None:
            yield b"socket,%d" % client.fd
            owner = -client.fd
        else:
            yield _dom(client, client.domid)
            owner = client.domid
        yield from _stream(client)
        for watch in client.watches:
            line = b"watch,%d,%s,%s" % (owner, _hex(watch.path), _hex(watch.token))
            yield line if watch.depth is None else line + b",%d" % watch.depth
    for node in state.nodes:
        yield _store(node)


def _hex(text: bytes) -> bytes:
    return text.hex().encode()


def _dom(client: Client, domid: int) -> bytes:
    if client.target is not None:
        raise StateError(f"{client.name} acts for domain {client.target}")
    if client.mfn is None or client.remote_port is None:
        raise StateError(f"{client.name}: its page or its remote port is not known")
    line = b"dom,%d,%d,%d" % (domid, client.mfn, client.remote_port)
    return line if client.local_port is None else line + b",%d" % client.local_port


def _stream(client: Client) -> Iterator[bytes]:
    """What was under way, where the client is a ring whose indices are known."""
    if client.domid is not None and client.indices is not None:
        yield b"pyxsd-ring,%d,%d,%d,%d,%d,%s,%s" % (
            client.domid,
            client.unique_id or 0,
            *client.indices,
            client.torn,
            _hex(client.input),
            _hex(client.output),
        )
    elif client.input or client.output:
        raise StateError(f"{client.name} has requests or replies under way")


def _store(node: Node) -> bytes:
    if any(entry.stale for entry in node.permissions):
        raise StateError(f"the node {node.path[:64]!r} has permissions of a domain that is gone")
    path = node.path if node.path.startswith(b"/") else b"/" + node.path
    perms = dump.perms_text([(e.domid, e.access) for e in node.permissions], b"\0")
    return b"store,%s,%s,%s" % (_hex(path), _hex(perms), _hex(node.value))
