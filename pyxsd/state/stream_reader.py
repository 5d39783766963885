# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads C xenstored's state file, of Xen 4.15 to 4.22; `stream` describes its form.

Every length is compared with what is there before anything is taken, so a file costs time and
memory in proportion to its size whatever it says.
"""

from __future__ import annotations

import struct

from pyxsd.state import stream
from pyxsd.state.host_state import (
    LETTERS,
    Client,
    HostState,
    Node,
    NodeChecker,
    Permission,
    Settings,
    StateError,
    Watch,
)
from pyxsd.state.stream import round8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.state.node_reading import NodesOfFile


def read_stream(data: bytes, damaged: bool = False, into: NodesOfFile | None = None) -> HostState:
    """The state that a file's bytes hold.

    StateError where the form is damaged; it names the record, counted from 1, and its offset in
    bytes, as in "record 7 (NODE) at byte 272: 40 bytes are missing".  What is whole and
    impossible is described in `faults` in the same way.  `damaged`: damage behind the header ends
    the reading, and is a fault too: for a host that has nothing else to go on with.  `into`: gets
    the nodes, and the state has none.
    """
    return _Reader(data, into).read(damaged)


class _Cut(Exception):
    """The record at hand is damaged."""


class _Fields:
    """The body of one record, taken piece by piece."""

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.at = 0

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next fixed part."""
        return layout.unpack(self.take(layout.size))

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > len(self.body) - self.at:
            raise _Cut(f"{n - (len(self.body) - self.at)} bytes are missing")
        self.at += n
        return bytes(self.body[self.at - n : self.at])

    def text(self, n: int, what: str) -> bytes:
        """The next n bytes, of which exactly the last one is NUL; without it."""
        text = self.take(n)
        if n == 0 or text.find(b"\0") != n - 1:
            raise _Cut(f"the {what} does not end in its only NUL")
        return text[:-1]

    def names(self, count: int) -> list[bytes]:
        """So many names, each with its NUL."""
        *found, rest = bytes(self.body[self.at :]).split(b"\0", count)
        if len(found) < count:
            raise _Cut(f"{count - len(found)} names are missing")
        self.at = len(self.body) - len(rest)
        return found

    def align(self) -> None:
        """Skips the padding up to a multiple of 8 from the start of the body."""
        self.take(round8(self.at) - self.at)

    def end(self) -> None:
        """Nothing but padding may be left."""
        if len(self.body) - self.at >= 8:
            raise _Cut(f"{len(self.body) - self.at} bytes are left over")


class _Reader:
    """One file on its way through the reader."""

    def __init__(self, data: bytes, into: NodesOfFile | None) -> None:
        self.data = memoryview(data)
        self.state = HostState("stream")
        self.into = into
        self.nodes = NodeChecker() if into is None else into
        self.lists: dict[bytes, tuple[Permission, ...]] = {}  # by what stands in the file
        self.clients: dict[int, Client] = {}
        self.names: set[str] = set()  # of the clients
        self.layout = stream.Layout(False)
        self.number = 0  # of the record at hand
        self.at = 0  # its offset in the file
        self.next = 0  # the offset of the one behind it
        self.type = stream.END
        self.have_global = False

    def read(self, damaged: bool) -> HostState:
        """All of it; see read_stream()."""
        self._header()
        try:
            self._records()
        except StateError as error:
            if not damaged:
                raise
            self.state.faults.append(f"{error}; nothing behind it is known")
        self.state.clients = list(self.clients.values())
        if isinstance(self.nodes, NodeChecker):
            self.state.nodes = self.nodes.nodes
        return self.state

    def _records(self) -> None:
        while True:
            if self.into is not None:
                self.next, taken = self.into.take_records(
                    self.data, self.next, self.state.big_endian
                )
                self.number += taken
            try:
                body = self._next_record()
                if self.type == stream.END:
                    if len(body):
                        raise _Cut("it is not empty")
                    if self.next != len(self.data):
                        raise _Cut(f"{len(self.data) - self.next} bytes stand behind it")
                    break
                reader = _READERS.get(self.type)
                if reader is None:
                    raise ValueError("a type that is not known")
                reader(self, _Fields(body))
            except _Cut as cut:
                raise StateError(f"{self._here()}: {cut}") from None
            except ValueError as error:
                self.state.faults.append(f"{self._here()}: {error}")
        if not self.have_global:
            raise StateError(f"{self._here()}: there was no GLOBAL record")

    def _here(self) -> str:
        name = stream.NAMES[self.type] if self.type < len(stream.NAMES) else f"{self.type:#x}"
        return f"record {self.number} ({name}) at byte {self.at}"

    def _header(self) -> None:
        if len(self.data) < stream.HEADER.size:
            raise StateError(f"the file has {len(self.data)} bytes and no whole header")
        magic, version, flags = stream.HEADER.unpack_from(self.data)
        if magic != stream.MAGIC:
            raise StateError('the file does not begin with "xenstore"')
        if version not in stream.VERSIONS:
            raise StateError(f"the stream has version {version}; known are 1 and 2")
        if flags & ~stream.BIG_ENDIAN:
            raise StateError(f"the header has unknown flags: {flags:#x}")
        self.state.version = version
        self.state.big_endian = bool(flags & stream.BIG_ENDIAN)
        self.layout = stream.Layout(self.state.big_endian)
        self.next = stream.HEADER.size

    def _next_record(self) -> memoryview:
        """Goes on to the next record; its body."""
        self.at = self.next
        self.number += 1
        left = len(self.data) - self.at - self.layout.record.size
        if left < 0:
            raise StateError(f"record {self.number} at byte {self.at}: the file ends before END")
        self.type, length = self.layout.record.unpack_from(self.data, self.at)
        if length % 8:
            raise _Cut(f"its length, {length}, is not a multiple of 8")
        start = self.at + self.layout.record.size
        if length > left and self.type != stream.WATCH_EXTENDED:
            raise _Cut(f"{length - left} bytes are missing")
        self.next = start + length
        return self.data[start : self.next]

    # -- one function for each type -------------------------------------------

    def _global(self, fields: _Fields) -> None:
        if self.have_global:
            raise _Cut("it stands there twice")
        self.state.listener, self.state.evtchn = fields.unpack(self.layout.fds)
        fields.end()
        self.have_global = True

    def _connection(self, fields: _Fields) -> None:
        number, kind, flags = fields.unpack(self.layout.connection)
        if kind not in (stream.RING, stream.SOCKET):
            raise _Cut(f"a connection of kind {kind}")
        if kind == stream.RING:
            domid, target, port = fields.unpack(self.layout.ring)
            client = Client(
                domid,
                number,
                local_port=port,
                target=None if target == stream.NO_TARGET else target,
            )
        else:
            client = Client(None, number, fd=fields.unpack(self.layout.socket)[0])
        given, client.torn, sent = fields.unpack(self.layout.lengths)
        # What is whole was put there newest first; only the end may be a part of a request.
        whole, rest = stream.packets(fields.take(given), self.state.big_endian)
        client.input = b"".join(reversed(whole)) + rest
        client.output = fields.take(sent)
        if client.torn > sent:
            raise _Cut(f"{client.torn} bytes of a packet in {sent} bytes of output")
        if flags & stream.HAS_UNIQUE_ID:
            fields.align()
            (client.unique_id,) = fields.unpack(self.layout.unique_id)
        if not flags & ~stream.HAS_UNIQUE_ID:
            fields.end()
        if number == 0 or number in self.clients:
            raise ValueError(f"the connection id {number} is 0 or was used before")
        if client.name in self.names:
            raise ValueError(f"{client.name} stands there twice")
        self.names.add(client.name)
        self.clients[number] = client

    def _watch(self, fields: _Fields) -> None:
        number, path, token = fields.unpack(self.layout.watch)
        watch = Watch(fields.text(path, "path"), fields.text(token, "token"))
        fields.end()
        self._add_watch(number, watch)

    def _watch_extended(self, fields: _Fields) -> None:
        """A watch with a depth, of which three layouts exist.

        The document puts the path at byte 12; readers look for it at 10; xenstored 4.22 writes
        it at 8, leaves the depth out, and still counts 12 bytes in the length, so that the
        next record may begin 8 bytes sooner than the length says.
        """
        number, path, token = fields.unpack(self.layout.watch)
        start = self.at + self.layout.record.size
        for offset in (12, 10, 8):
            text = bytes(self.data[start + offset : start + offset + path + token])
            if (
                len(text) == path + token
                and text.count(b"\0") == 2
                and text[path - 1] == 0 == text[-1]
                and path
                and token
            ):
                break
        else:
            raise _Cut("path and token do not end in NULs at any known place")
        depth = None
        if offset == 8:
            self.next = start + round8(8 + path + token)
        elif self.next > len(self.data) or start + offset + path + token > self.next:
            raise _Cut("path and token are longer than the record")
        else:
            (depth,) = self.layout.depth.unpack_from(self.data, start + 8)
        self._add_watch(number, Watch(text[: path - 1], text[path:-1], depth))

    def _add_watch(self, number: int, watch: Watch) -> None:
        if number not in self.clients:
            raise ValueError(f"a watch of connection {number}, which is not there")
        self.clients[number].watches.append(watch)

    def _transaction(self, _fields: _Fields) -> None:
        """The document describes it, no xenstored writes it, and C xenstored ignores it."""
        raise ValueError("a transaction, of which a stream cannot hold the nodes")

    def _node(self, fields: _Fields) -> None:
        number, transaction, path_len, value_len, _, count = fields.unpack(self.layout.node)
        entries = fields.take(count * self.layout.permission.size)
        path = fields.text(path_len, "path")
        value = fields.take(value_len)
        fields.end()
        if number or transaction:
            raise ValueError(f"{path[:64]!r} is a node of a transaction")
        permissions = self.lists.get(entries)
        if permissions is None:
            permissions = tuple(
                self._permission(*entry) for entry in self.layout.permission.iter_unpack(entries)
            )
            self.lists[entries] = permissions
        self.nodes.add(Node(path, permissions, value), replace=False)

    @staticmethod
    def _permission(letter: bytes, flags: int, domid: int) -> Permission:
        access = LETTERS.find(letter.decode("latin-1"))
        if access < 0:
            raise ValueError(f"a permission with the letter {letter!r}")
        return Permission(domid, access, bool(flags & stream.STALE))

    def _quotas(self, fields: _Fields, count: int) -> list[tuple[bytes, int]]:
        """So many values, then as many names."""
        values = [fields.unpack(self.layout.value)[0] for _ in range(count)]
        named = list(zip(fields.names(count), values))
        fields.end()
        return named

    def _global_quota(self, fields: _Fields) -> None:
        each, all_ = fields.unpack(self.layout.global_quota)
        named = self._quotas(fields, each + all_)
        self.state.domain_quotas.update(named[:each])
        self.state.global_quotas.update(named[each:])

    def _domain(self, fields: _Fields) -> None:
        domid, count, features = fields.unpack(self.layout.domain)
        settings = Settings(features, dict(self._quotas(fields, count)))
        if domid in self.state.settings:
            raise ValueError(f"domain {domid} stands there twice")
        self.state.settings[domid] = settings


_READERS = {
    stream.GLOBAL: _Reader._global,
    stream.CONNECTION: _Reader._connection,
    stream.WATCH: _Reader._watch,
    stream.TRANSACTION: _Reader._transaction,
    stream.NODE: _Reader._node,
    stream.GLOBAL_QUOTA: _Reader._global_quota,
    stream.DOMAIN: _Reader._domain,
    stream.WATCH_EXTENDED: _Reader._watch_extended,
}
