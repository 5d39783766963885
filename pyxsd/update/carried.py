# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state that a live update carries over: written by the old daemon, read by the new one.

write() makes bytes of everything that the server and the domains hold, read() makes a State of
such bytes, and build() puts a State into a fresh server.  Loading and writing again gives the same
bytes, which is how a new program proves that it understands them.

The bytes begin with lines of fields that commas part; texts are in hex.  A connection line and
watch lines belong to the domain or socket line before them.

    pyxsd-update,<version of this format>
    host,<listens>,<has event channels>,<port of the interrupt>,<access log is on>,<log file>
    pid-file,<path>
    domain,<domid>,<mfn>,<remote port>,<local port>,<unique id>,<flags>,<req_cons>,<rsp_prod>
    socket
    connection,<features>,<generation>,<last transaction>,<quota of watches>,
        <quota of transactions>,<target>,<is broken>,<torn>,<input>,<output>
    watch,<path>,<token>,<depth, or -1>
    quota,<name>,<value>
    owner-quota,<domid>,<nodes>
    tree,<bytes>

After the tree line comes the tree (store.packed), and nothing else.  The descriptors that travel
beside it are, in this order: the listening socket, the event channel device, the pid files, the
sockets; those of the first two that there are.

A reader refuses a line that it does not know: what an older program cannot carry on must not get
lost.
"""

from __future__ import annotations

from typing import NamedTuple

from pyxsd._limits import QUOTAS
from pyxsd.store import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

FORMAT = 1
CLOSED, DOWN, UNASKED = 1, 2, 4  # flags of a domain line; see domains.Domains


class StateError(ValueError):
    """Bytes that are no state that can be taken over; the text says where and why."""


class Surroundings(NamedTuple):
    """What belongs to the process and not to its server."""

    listens: bool
    has_channels: bool
    virq_port: int
    access_log: bool
    log_file: str  # where `logfile` has sent the daemon log; "" where it has not
    pid_files: tuple[str, ...]


class Watch(NamedTuple):
    """A watch as it was given."""

    path: bytes
    token: bytes
    depth: int  # -1: unlimited


# No dataclass: every start of the daemon imports this module, and dataclasses take 10 ms.
class Client:
    """A connection; domain is None for a socket."""

    def __init__(self, domain: tuple[int, ...] | None) -> None:
        self.domain = domain
        self.numbers: tuple[int, ...] = ()  # of the connection line, in its order
        self.input = b""
        self.output = b""
        self.watches: list[Watch] = []


class State(NamedTuple):
    """What the bytes say."""

    surroundings: Surroundings
    clients: list[Client]
    quotas: list[tuple[str, int]]
    owner_quotas: list[tuple[int, int]]
    tree: Any


# -- what cannot be carried ---------------------------------------------------


def obstacles(server: Any) -> list[str]:
    """One line for each connection with something that cannot be carried over, in the words of
    oxenstored: open transactions, and events that found no room in its output or that it has
    caused and that are not delivered yet."""
    return [
        f"{_name(c)}: {len(c.transactions)} tx, out: {'true' if _waits(c) else 'false'}, "
        f'perm: {c.domid}"rw"'
        for c in server.connections.values() if c.transactions or _waits(c)]


def _waits(connection: Any) -> bool:
    return bool(connection.waiting_events or connection.overflowing or connection.has_jobs)


def _name(connection: Any) -> str:
    """D5 for a domain; A and a number for a socket."""
    return f"A{connection.id}" if connection.is_socket else f"D{connection.domid}"


# -- writing ------------------------------------------------------------------


def sockets(server: Any) -> list[Any]:
    """The connections of sockets, in the order of their lines and of their descriptors."""
    return [c for c in server.connections.values() if c.is_socket]


def write(server: Any, domains: Any, around: Surroundings) -> bytes:
    """The whole state, between two turns."""
    tree = packed.pack(server.tree)
    return b"\n".join([*_lines(server, domains, around), b"tree,%d" % len(tree), tree])


def _lines(server: Any, domains: Any, around: Surroundings) -> Iterator[bytes]:
    yield b"pyxsd-update,%d" % FORMAT
    yield b"host,%d,%d,%d,%d,%s" % (around.listens, around.has_channels, around.virq_port,
                                    around.access_log, _hex(around.log_file.encode(
                                        "utf-8", "surrogateescape")))
    for path in around.pid_files:
        yield b"pid-file,%s" % _hex(path.encode("utf-8", "surrogateescape"))
    for domain in domains.table.values():
        flags = (CLOSED * (domain.domid in domains.closed) | DOWN * (domain.domid in domains.down)
                 | UNASKED * (domain.domid in domains.unasked))
        yield b"domain,%d,%d,%d,%d,%d,%d,%d,%d" % (
            domain.domid, domain.mfn, domain.remote_port, domain.port, domain.unique_id, flags,
            *(domain.expected or (-1, -1)))
        yield from _connection(domain.connection)
    for connection in sockets(server):
        yield b"socket"
        yield from _connection(connection)
    for quota in QUOTAS:
        yield b"quota,%s,%d" % (quota.name.encode(), server.quota(quota.name))
    for domid, nodes in sorted(server.owner_quotas.items()):
        yield b"owner-quota,%d,%d" % (domid, nodes)


def _connection(c: Any) -> Iterator[bytes]:
    yield b"connection,%d,%d,%d,%d,%d,%d,%d,%d,%s,%s" % (
        c.features, *c.counters, c.target, c.bad, c.torn_output, _hex(c.partial_input),
        _hex(c.pending_output))
    for path, token, depth in c.watch_list():
        yield b"watch,%s,%s,%d" % (_hex(path), _hex(token), -1 if depth is None else depth)


def _hex(data: bytes) -> bytes:
    return data.hex().encode()


# -- reading ------------------------------------------------------------------


class _Reader:
    """Collects what the lines say."""

    def __init__(self) -> None:
        self.host: tuple[int, ...] | None = None
        self.log_file = ""
        self.pid_files: list[str] = []
        self.clients: list[Client] = []
        self.quotas: list[tuple[str, int]] = []
        self.owner_quotas: list[tuple[int, int]] = []

    def on_host(self, fields: list[bytes]) -> None:
        """host"""
        self.host = tuple(map(int, fields[:4]))
        self.log_file = _text(fields[4])

    def on_pid_file(self, fields: list[bytes]) -> None:
        """pid-file"""
        self.pid_files.append(_text(fields[0]))

    def on_domain(self, fields: list[bytes]) -> None:
        """domain"""
        client = Client(tuple(map(int, fields)))
        if fields[6:] != [b"-1", b"-1"] and b"-" in fields[6] + fields[7]:
            raise ValueError("one index of a ring without the other")
        self.clients.append(client)

    def on_socket(self, _fields: list[bytes]) -> None:
        """socket"""
        self.clients.append(Client(None))

    def on_connection(self, fields: list[bytes]) -> None:
        """connection"""
        client = self.clients[-1]
        client.numbers = tuple(map(int, fields[:8]))
        client.input, client.output = _bytes(fields[8]), _bytes(fields[9])

    def on_watch(self, fields: list[bytes]) -> None:
        """watch"""
        self.clients[-1].watches.append(
            Watch(_bytes(fields[0]), _bytes(fields[1]), int(fields[2])))

    def on_quota(self, fields: list[bytes]) -> None:
        """quota"""
        self.quotas.append((fields[0].decode(), int(fields[1])))

    def on_owner_quota(self, fields: list[bytes]) -> None:
        """owner-quota"""
        self.owner_quotas.append((int(fields[0]), int(fields[1])))


#: By the first field of a line: who reads the others, and how many there are.
READERS: dict[bytes, tuple[Callable[[_Reader, list[bytes]], None], int]] = {
    b"host": (_Reader.on_host, 5),
    b"pid-file": (_Reader.on_pid_file, 1),
    b"domain": (_Reader.on_domain, 8),
    b"socket": (_Reader.on_socket, 0),
    b"connection": (_Reader.on_connection, 10),
    b"watch": (_Reader.on_watch, 3),
    b"quota": (_Reader.on_quota, 2),
    b"owner-quota": (_Reader.on_owner_quota, 2),
}


def read(data: bytes) -> State:
    """What the bytes say; StateError, with the offset in bytes, where they are no state or one of
    another version."""
    reader = _Reader()
    at = 0
    first = b"pyxsd-update,%d" % FORMAT
    while True:
        end = data.find(b"\n", at)
        if end < 0:
            raise StateError(f"offset {at}: the end is missing")
        kind, *fields = data[at:end].split(b",")
        try:
            if at == 0:
                if data[:end] != first:
                    raise ValueError(f"it does not begin with {first.decode()}")
            elif kind == b"tree":
                return _whole(reader, data, end + 1, int(fields[0]))
            elif kind not in READERS:
                raise ValueError(f"unknown line {kind[:32]!r}")
            elif len(fields) != READERS[kind][1]:
                raise ValueError(f"{kind.decode()} with {len(fields)} fields")
            else:
                READERS[kind][0](reader, fields)
        except (ValueError, IndexError, OverflowError) as error:
            raise StateError(f"offset {at}: {error}") from None
        at = end + 1


def _whole(reader: _Reader, data: bytes, at: int, size: int) -> State:
    if size != len(data) - at:
        raise ValueError(f"a tree of {size} bytes in {len(data) - at}")
    if reader.host is None:
        raise ValueError("the line host is missing")
    if not all(client.numbers for client in reader.clients):
        raise ValueError("a line connection is missing")
    tree, taken = packed.unpack(memoryview(data)[at:])
    if taken != size:
        raise ValueError(f"{size - taken} bytes behind the tree")
    listens, has_channels, virq_port, access_log = reader.host
    around = Surroundings(bool(listens), bool(has_channels), virq_port, bool(access_log),
                          reader.log_file, tuple(reader.pid_files))
    return State(around, reader.clients, reader.quotas, reader.owner_quotas, tree)


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.decode("ascii"))


def _text(text: bytes) -> str:
    return _bytes(text).decode("utf-8", "surrogateescape")


def build(state: State, server: Any, domains: Any, adopt: Callable[[int], Any]) -> None:
    """Puts the state into a fresh server without connections; ValueError, OverflowError or
    LookupError where it cannot be.

    adopt(i) connects the i-th socket and returns its connection.  Nobody is served, and no page of
    a domain is mapped: see Domains.map_taken_over.
    """
    server.set_tree(state.tree)
    number = 0
    connections = []
    for client in state.clients:
        if client.domain is None:
            connections.append(adopt(number))
            number += 1
        else:
            domid, mfn, remote_port, port, unique_id, flags, *expected = client.domain
            connections.append(domains.take_over(
                domid, mfn, remote_port, port, unique_id,
                None if expected[0] < 0 else (expected[0], expected[1])))
            for bit, group in ((CLOSED, domains.closed), (DOWN, domains.down),
                               (UNASKED, domains.unasked)):
                (group.add if flags & bit else group.discard)(domid)
    for client, connection in zip(state.clients, connections):
        _restore(client, connection, server)
    for name, value in state.quotas:
        server.set_quota(name, value)
    for domid, nodes in state.owner_quotas:
        server.set_owner_quota(domid, nodes)


def _restore(client: Client, connection: Any, server: Any) -> None:
    features, generation, last_tx, watches, transactions, target, bad, torn = client.numbers
    connection.features = features
    # A quota that was lowered since does not take watches away.
    server.set_quota("watches", 0, connection)
    for path, token, depth in client.watches:
        server.restore_watch(connection, path, token, None if depth < 0 else b"%d" % depth)
    connection.restore_counters(generation, last_tx, watches, transactions)
    if client.input or client.output or torn:
        server.restore_stream(connection, client.input, client.output, torn)
    if bad:
        server.restore_state(connection, True)
    if target >= 0:
        server.set_target(connection, target)
