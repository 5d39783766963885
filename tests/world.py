# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server in this process: connections are pairs of byte queues, no sockets, no Xen."""

from __future__ import annotations

import struct
from typing import Any

from pyxsd import features
from pyxsd._core import Server
from pyxsd._wire import MemoryTransport, RequestError
from pyxsd.control import Control
from pyxsd.system.configuration import Config
from pyxsd.system.files import replace_contents

HEADER = struct.Struct("=IIII")

TYPES = {
    "CONTROL": 0,
    "DIRECTORY": 1,
    "READ": 2,
    "GET_PERMS": 3,
    "WATCH": 4,
    "UNWATCH": 5,
    "TRANSACTION_START": 6,
    "TRANSACTION_END": 7,
    "INTRODUCE": 8,
    "RELEASE": 9,
    "GET_DOMAIN_PATH": 10,
    "WRITE": 11,
    "MKDIR": 12,
    "RM": 13,
    "SET_PERMS": 14,
    "WATCH_EVENT": 15,
    "ERROR": 16,
    "IS_DOMAIN_INTRODUCED": 17,
    "RESUME": 18,
    "SET_TARGET": 19,
    "RESET_WATCHES": 21,
    "DIRECTORY_PART": 22,
    "GET_FEATURE": 23,
    "SET_FEATURE": 24,
    "GET_QUOTA": 25,
    "SET_QUOTA": 26,
}
EVENT, ERROR = TYPES["WATCH_EVENT"], TYPES["ERROR"]


def packet(type_: int | str, payload: bytes, tx_id: int = 0, req_id: int = 1) -> bytes:
    """One request as it goes over the wire."""
    number = TYPES[type_] if isinstance(type_, str) else type_
    return HEADER.pack(number, req_id, tx_id, len(payload)) + payload


def packets(stream: bytes) -> tuple[list[tuple[int, int, int, bytes]], bytes]:
    """The whole packets of a stream as (type, req_id, tx_id, payload), and the rest."""
    found = []
    at = 0
    while len(stream) - at >= HEADER.size:
        type_, req_id, tx_id, length = HEADER.unpack_from(stream, at)
        if len(stream) - at < HEADER.size + length:
            break
        at += HEADER.size
        found.append((type_, req_id, tx_id, stream[at : at + length]))
        at += length
    return found, stream[at:]


class Host:
    """Domains without Xen: an introduced domain is one more pair of byte queues."""

    def __init__(self) -> None:
        self.server: Any = None
        self.commands: Any = None
        self.transports: dict[int, MemoryTransport] = {}
        self.mfns: dict[int, int] = {}
        self.messages: list[tuple[str, str, str]] = []

    def log(self, level: str, facility: str, text: str) -> None:
        self.messages.append((level, facility, text))

    def complain(self, kind: str, text: str) -> None:
        self.messages.append(("warn", "xenstored", text))

    def introduce(self, connection: Any, domid: int, mfn: int, port: int) -> None:
        if domid in self.server.domains:
            if self.mfns.get(domid, mfn) != mfn:
                raise RequestError("EINVAL")
            return
        if domid < 0 or domid > 0x7FEF or port <= 0:
            raise RequestError("EINVAL")
        self.transports[domid] = MemoryTransport()
        self.mfns[domid] = mfn
        self.server.connect(self.transports[domid], domid)
        self.server.fire_special(b"@introduceDomain", [domid])

    def release(self, connection: Any, domid: int) -> None:
        if domid == 0:
            raise RequestError("EINVAL")
        gone = self.server.domains.get(domid)
        self.server.forget_domain(domid)
        if gone is None:
            raise RequestError("EINVAL")
        self.server.disconnect(gone)
        self.server.fire_special(b"@releaseDomain", [domid])

    def resume(self, connection: Any, domid: int) -> None:
        if domid not in self.server.domains:
            raise RequestError("EINVAL")

    def control(self, connection: Any, payload: bytes) -> bytes | None:
        return self.commands.run(connection, payload)

    def mfn(self, domid: int) -> int:
        return self.mfns[domid]

    def trim(self) -> None:
        pass

    def replace(self, path: bytes, text: str) -> None:
        replace_contents(path, text)

    def record(self, word: str) -> bytes:
        return b"OK\0"

    def live_update(self, connection: Any, arguments: list[str]) -> bytes | None:
        return None if arguments == ["later"] else b"OK\0"

    def feature_or_quota(self, connection: Any, type_: int, payload: bytes) -> bytes:
        return features.run(self.server, connection, type_, payload)


class World:
    """A server with named connections: s0, s1 ... are sockets, d<n> is domain n."""

    def __init__(self, config: Config | None = None, log: Any = None) -> None:
        self.host = self.make_host()
        self.server = Server(config or Config(), self.host, log)
        self.host.server = self.server
        self.host.commands = Control(self.server, self.host)
        self.now = 1000.0
        # Domain 0's own ring, as the kernel of dom0 has it.
        self.host.transports[0] = MemoryTransport()
        self.host.mfns[0] = 0
        self.server.connect(self.host.transports[0], 0)
        self.sockets: dict[str, tuple[Any, MemoryTransport]] = {}
        self.rest: dict[str, bytes] = {}

    def make_host(self) -> Host:
        """The host of the server."""
        return Host()

    def introduce(self, domid: int, mfn: int = 4660) -> None:
        """Gives a domain a connection, as INTRODUCE does."""
        self.host.introduce(None, domid, mfn, 7)

    def connection(self, name: str) -> tuple[Any, MemoryTransport]:
        """A connection and the transport that the test holds the other end of."""
        if name[0] == "d":
            domid = int(name[1:])
            return self.server.domains[domid], self.host.transports[domid]
        if name not in self.sockets:
            transport = MemoryTransport()
            self.sockets[name] = (self.server.connect(transport), transport)
        return self.sockets[name]

    def turn(self, *names: str) -> None:
        """One turn of the loop, with these connections ready."""
        self.server.begin(self.now, self.now)
        for name in names:
            self.server.service(self.connection(name)[0])
        while self.server.flush():
            pass
        self.server.take_changed()

    def feed(self, name: str, data: bytes) -> None:
        """Bytes from a client, and a turn in which they are served."""
        self.connection(name)[1].feed(data)
        self.turn(name)

    def drain(self, name: str) -> list[tuple[int, int, int, bytes]]:
        """All whole packets that a connection has received and not taken yet."""
        stream = self.rest.get(name, b"") + self.connection(name)[1].take()
        found, self.rest[name] = packets(stream)
        return found

    def ask(self, name: str, type_: int | str, payload: bytes, tx_id: int = 0) -> tuple[int, bytes]:
        """One request; its reply.  Events that came before it are dropped."""
        self.feed(name, packet(type_, payload, tx_id))
        for got, _, _, body in self.drain(name):
            if got != EVENT:
                return got, body
        raise AssertionError(f"no reply to {type_} {payload!r}")

    def names(self) -> list[str]:
        """All connections that are open, domain 0's ring included."""
        return [*self.sockets, *(f"d{domid}" for domid in self.server.domains)]

    def collect(self) -> dict[str, list[bytes]]:
        """The events that each connection has received and not taken yet; nothing else may be."""
        events: dict[str, list[bytes]] = {}
        for name in self.names():
            for got, req_id, tx_id, body in self.drain(name):
                assert (got, req_id, tx_id) == (EVENT, 0, 0), (name, got, req_id, tx_id, body)
                events.setdefault(name, []).append(body)
        return events

    def step(
        self, name: str, type_: int | str, payload: bytes, tx_id: int = 0
    ) -> tuple[tuple[int, int, bytes], dict[str, list[bytes]]]:
        """One request: its reply as (type, tx_id, body), and all events that came."""
        self.feed(name, packet(type_, payload, tx_id, req_id=77))
        replies = []
        own = []
        for got, req_id, reply_tx, body in self.drain(name):
            if got == EVENT:
                assert (req_id, reply_tx) == (0, 0)
                own.append(body)
            else:
                assert req_id == 77
                replies.append((got, reply_tx, body))
        events = self.collect()
        if own:
            events[name] = own
        assert len(replies) == 1, replies
        return replies[0], events

    def close(self) -> None:
        """Ends all connections; the server is of no use after it."""
        self.server.close()
        self.sockets.clear()
        self.host.transports.clear()
        self.host.server = self.host.commands = None
        self.server = None  # type: ignore[assignment]
