# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes C xenstored's state file; `stream` describes its form.

Version 1 has all that xenstored 4.15 to 4.20 know: GLOBAL, CONNECTION, WATCH, NODE, END; later
ones read it as well.  Version 2 adds quotas, features and the unique ids of domains.  Neither
gets watches with a depth (type 8), whose layout differs from reader to reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pyxsd.state import stream
from pyxsd.state.host_state import (
    LETTERS,
    Client,
    HostState,
    Node,
    Permission,
    StateError,
    Watch,
)
from pyxsd.state.stream import round8


def write_stream(state: HostState, version: int = 1, nodes: bytes = b"") -> bytes:
    """A state as the bytes of a file, in the state's byte order and in its order of nodes; nodes:
    records of more nodes than the state has, in that byte order.

    StateError, naming what does not fit, where the format cannot hold it; `carry.for_stream`
    leaves that out.
    """
    if version not in stream.VERSIONS:
        raise StateError(f"a stream of version {version}; known are 1 and 2")
    writer = _Writer(state, version, nodes)
    try:
        return writer.write()
    except struct.error as error:
        raise StateError(f"{writer.at_hand}: a number that does not fit: {error}") from None


def entries_of(permissions: Iterable[Permission], layout: stream.Layout) -> bytes:
    """A permission list as it stands in the file; struct.error."""
    return b"".join(
        layout.permission.pack(
            LETTERS[entry.access].encode(), stream.STALE if entry.stale else 0, entry.domid
        )
        for entry in permissions
    )


class _Writer:
    """One state on its way into a file."""

    def __init__(self, state: HostState, version: int, nodes: bytes) -> None:
        self.state = state
        self.nodes = nodes
        self.version = version
        self.layout = stream.Layout(state.big_endian)
        self.parts: list[bytes] = []
        self.at_hand = "the header"  # for messages
        self.lists: dict[tuple[Permission, ...], bytes] = {}  # as they stand in the file

    def write(self) -> bytes:
        """The whole file."""
        state = self.state
        self.parts = [
            stream.HEADER.pack(
                stream.MAGIC, self.version, stream.BIG_ENDIAN if state.big_endian else 0
            )
        ]
        self._record(stream.GLOBAL, self.layout.fds.pack(state.listener, state.evtchn))
        if self.version > 1 and (state.domain_quotas or state.global_quotas):
            self.at_hand = "the quotas"
            self._record(
                stream.GLOBAL_QUOTA,
                self.layout.global_quota.pack(len(state.domain_quotas), len(state.global_quotas)),
                *self._quotas([*state.domain_quotas.items(), *state.global_quotas.items()]),
            )
        for number, client in enumerate(state.clients, 1):
            self.at_hand = client.name
            self._client(client, client.number or number)
        for node in state.nodes:
            self.at_hand = f"the node {node.path[:64]!r}"
            self._node(node)
        self.parts.append(self.nodes)
        if self.version > 1:
            for domid, settings in state.settings.items():
                self.at_hand = f"the quotas of domain {domid}"
                self._record(
                    stream.DOMAIN,
                    self.layout.domain.pack(domid, len(settings.quotas), settings.features),
                    *self._quotas([*settings.quotas.items()]),
                )
        self._record(stream.END)
        return b"".join(self.parts)

    def _record(self, type_: int, *body: bytes) -> None:
        """A record; its body is padded with zeroes."""
        length = sum(len(part) for part in body)
        self.parts.append(self.layout.record.pack(type_, round8(length)))
        self.parts.extend(body)
        self.parts.append(bytes(round8(length) - length))

    def _quotas(self, quotas: Iterable[tuple[bytes, int]]) -> list[bytes]:
        pairs = list(quotas)
        return [
            *(self.layout.value.pack(value) for _, value in pairs),
            *(name + b"\0" for name, _ in pairs),
        ]

    def _client(self, client: Client, number: int) -> None:
        has_id = self.version > 1 and client.unique_id is not None
        if client.domid is None:
            kind, peer = stream.SOCKET, self.layout.socket.pack(client.fd)
        else:
            target = stream.NO_TARGET if client.target is None else client.target
            kind, peer = (
                stream.RING,
                self.layout.ring.pack(client.domid, target, client.local_port or 0),
            )
        whole, rest = stream.packets(client.input, self.state.big_endian)
        given = b"".join(reversed(whole)) + rest
        lengths = self.layout.lengths.pack(len(given), client.torn, len(client.output))
        head = self.layout.connection.pack(number, kind, stream.HAS_UNIQUE_ID if has_id else 0)
        body = head + peer + lengths + given + client.output
        if client.unique_id is not None and has_id:
            body += bytes(round8(len(body)) - len(body))
            body += self.layout.unique_id.pack(client.unique_id)
        self._record(stream.CONNECTION, body)
        for watch in client.watches:
            self._watch(watch, number)

    def _watch(self, watch: Watch, number: int) -> None:
        if watch.depth is not None:
            raise StateError(f"{self.at_hand}: the watch on {watch.path[:64]!r} has a depth")
        if b"\0" in watch.path + watch.token:
            raise StateError(f"{self.at_hand}: a watch with a NUL in it")
        self._record(
            stream.WATCH,
            self.layout.watch.pack(number, len(watch.path) + 1, len(watch.token) + 1),
            watch.path + b"\0",
            watch.token + b"\0",
        )

    def _node(self, node: Node) -> None:
        entries = self.lists.get(node.permissions)
        if entries is None:
            entries = self.lists[node.permissions] = entries_of(node.permissions, self.layout)
        head = self.layout.node.pack(
            0, 0, len(node.path) + 1, len(node.value), 0, len(node.permissions)
        )
        self._record(stream.NODE, b"".join((head, entries, node.path, b"\0", node.value)))
