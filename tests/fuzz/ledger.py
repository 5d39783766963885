# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a client is owed: follows both byte streams of one connection and checks them.

Every whole request is answered exactly once and in order, with its own req_id, tx_id and type (or
ERROR); events are two strings and belong to a watch that was asked for; no packet is over 4096.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Any

from tests.world import ERROR, EVENT, HEADER, TYPES

PAYLOAD_MAX = 4096
WITHOUT_TX = (TYPES["WATCH"], TYPES["UNWATCH"])
NAMES = {
    b"EINVAL",
    b"ENOENT",
    b"EACCES",
    b"EEXIST",
    b"EAGAIN",
    b"EBUSY",
    b"E2BIG",
    b"EQUOTA",
    b"ENOSYS",
    b"EIO",
}


class Broken(AssertionError):
    """The server did what it must not do; the text says what."""


class Ledger:
    """One connection, from the client's side."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unsent = b""  # decided on by the client, not fed yet
        self.partial = b""  # fed, not a whole packet yet
        self.owed: deque[tuple[int, int, int]] = deque()
        self.rest = b""  # received, not a whole packet yet
        self.doomed = False  # claimed more than 4096 bytes: the stream ends there
        self.over = False  # the client closed it
        self.tokens: set[bytes] = set()
        self.tx_ids: list[int] = []
        self.requests = 0
        # Its ends in the server, set by whoever has both.
        self.transport: Any = None
        self.connection: Any = None
        self.answers = 0

    def fed(self, data: bytes) -> None:
        """The client has sent these bytes."""
        if self.doomed:
            return
        data = self.partial + data
        at = 0
        while len(data) - at >= HEADER.size:
            type_, req_id, tx_id, length = HEADER.unpack_from(data, at)
            if length > PAYLOAD_MAX:
                self.doomed = True
                break
            if len(data) - at < HEADER.size + length:
                break
            payload = data[at + HEADER.size : at + HEADER.size + length]
            if type_ == TYPES["WATCH"]:
                pieces = payload.split(b"\0")
                if len(pieces) > 1:
                    self.tokens.add(pieces[1])
            self.owed.append((type_, req_id, tx_id))
            self.requests += 1
            at += HEADER.size + length
        self.partial = data[at:]

    def received(self, data: bytes) -> None:
        """The client has received these bytes; Broken where they are not what it is owed."""
        data = self.rest + data
        at = 0
        while len(data) - at >= HEADER.size:
            type_, req_id, tx_id, length = HEADER.unpack_from(data, at)
            if length > PAYLOAD_MAX:
                raise Broken(f"{self.name}: a packet of {length} bytes")
            if len(data) - at < HEADER.size + length:
                break
            payload = data[at + HEADER.size : at + HEADER.size + length]
            at += HEADER.size + length
            if type_ == EVENT:
                self._event(req_id, tx_id, payload)
            else:
                self._answer(type_, req_id, tx_id, payload)
        self.rest = data[at:]

    def _event(self, req_id: int, tx_id: int, payload: bytes) -> None:
        pieces = payload.split(b"\0")
        if req_id or tx_id or len(pieces) != 3 or pieces[2]:
            raise Broken(f"{self.name}: event {req_id} {tx_id} {payload!r}")
        if pieces[1] not in self.tokens:
            raise Broken(f"{self.name}: event of a token never given: {payload!r}")

    def _answer(self, type_: int, req_id: int, tx_id: int, payload: bytes) -> None:
        if not self.owed:
            raise Broken(f"{self.name}: an answer that nobody asked for: {type_} {payload!r}")
        asked, want_req, want_tx = self.owed.popleft()
        if asked in WITHOUT_TX:
            want_tx = 0
        if (req_id, tx_id) != (want_req, want_tx) or type_ not in (asked, ERROR):
            raise Broken(
                f"{self.name}: asked {asked} {want_req} {want_tx}, answered {type_} "
                f"{req_id} {tx_id} {payload!r}"
            )
        if type_ == ERROR and payload.rstrip(b"\0") not in NAMES:
            raise Broken(f"{self.name}: error {payload!r}")
        if type_ == asked == TYPES["TRANSACTION_START"]:
            self.tx_ids.append(int(payload[:-1]))
        self.answers += 1

    def settle(self) -> None:
        """At the end: Broken where something is still owed."""
        if self.owed and not self.doomed and not self.over:
            raise Broken(
                f"{self.name}: {len(self.owed)} requests without an answer, the first "
                f"{self.owed[0]}"
            )
        if self.rest and not self.doomed and not self.over:
            raise Broken(f"{self.name}: half a packet left: {self.rest!r}")


def header(type_: int, req_id: int, tx_id: int, length: int) -> bytes:
    """A request's header; numbers of any size are cut to 32 bits."""
    return struct.pack("=4I", *(n & 0xFFFFFFFF for n in (type_, req_id, tx_id, length)))
