# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file that an image of a server is in: a header, records, and a checksum.

The header has 16 bytes: "pyxsdimg", the version and flags (0), each a little-endian number of 4
bytes.  A record is four letters that name its type, the length of its body in 4 bytes, and the
body.  The last one is "DONE": how many records stand before it (8 bytes), and the CRC-32 of all
bytes before it (4 bytes).

A type whose first letter is small may be skipped by a reader that does not know it.  A reader
refuses an image with any other record that it does not know: leaving it out would lose state.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container
from typing import NamedTuple

from pyxsd.state.host_state import StateError

MAGIC = b"pyxsdimg"
VERSION = 1
HEADER = struct.Struct("<8sII")
RECORD = struct.Struct("<4sI")
DONE = b"DONE"
_END = struct.Struct("<QI")
LENGTH_MAX = 0xFFFFFFFF


class Record(NamedTuple):
    """One record."""

    type: bytes
    body: bytes
    number: int  # counted from 1
    at: int  # where it begins in the file, in bytes

    @property
    def place(self) -> str:
        """For messages, as "record 7 (CONN) at byte 272"."""
        return f"record {self.number} ({_name(self.type)}) at byte {self.at}"


def _name(type_: bytes) -> str:
    return type_.decode("ascii") if type_.isalpha() else repr(type_)


class Writer:
    """Collects the records of a file."""

    def __init__(self) -> None:
        self.parts = [HEADER.pack(MAGIC, VERSION, 0)]
        self.count = 0

    def add(self, type_: bytes, body: bytes) -> None:
        """One more record; OverflowError where its body is longer than LENGTH_MAX bytes."""
        if len(body) > LENGTH_MAX:
            raise OverflowError(f"a record of {len(body)} bytes")
        self.parts.append(RECORD.pack(type_, len(body)))
        self.parts.append(body)
        self.count += 1

    def finish(self) -> bytes:
        """The whole file."""
        checksum = 0
        for part in self.parts:
            checksum = zlib.crc32(part, checksum)
        self.parts.append(RECORD.pack(DONE, _END.size) + _END.pack(self.count, checksum))
        return b"".join(self.parts)


def read(data: bytes, known: Container[bytes]) -> list[Record]:
    """The records of a file whose types are in `known`.

    StateError where the file is cut, altered, of another version, or has a record that must not
    be left out and is not known.
    """
    if len(data) < HEADER.size:
        raise StateError(f"the file has {len(data)} bytes and no whole header")
    magic, version, flags = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f"the file does not begin with \"{MAGIC.decode()}\"")
    if version != VERSION or flags:
        raise StateError(f"the image has version {version} and flags {flags:#x}; "
                         f"known is version {VERSION}")
    found: list[Record] = []
    at, number = HEADER.size, 0
    while True:
        number += 1
        if len(data) - at < RECORD.size:
            raise StateError(f"record {number} at byte {at}: the file ends before DONE")
        type_, length = RECORD.unpack_from(data, at)
        start = at + RECORD.size
        if length > len(data) - start:
            raise StateError(f"record {number} ({_name(type_)}) at byte {at}: "
                             f"{length - (len(data) - start)} bytes are missing")
        record = Record(type_, data[start : start + length], number, at)
        if type_ == DONE:
            _check_end(record, data)
            return found
        if type_ in known:
            found.append(record)
        elif not type_[:1].islower():
            raise StateError(f"{record.place}: not known, and must not be left out")
        at = start + length


def _check_end(record: Record, data: bytes) -> None:
    if len(record.body) != _END.size:
        raise StateError(f"{record.place}: a body of {len(record.body)} bytes")
    behind = len(data) - record.at - RECORD.size - _END.size
    if behind:
        raise StateError(f"{record.place}: {behind} bytes stand behind it")
    count, checksum = _END.unpack(record.body)
    if count != record.number - 1:
        raise StateError(f"{record.place}: {record.number - 1} records, not {count}")
    if zlib.crc32(data[: record.at]) != checksum:
        raise StateError(f"{record.place}: the checksum is wrong, the file was altered")
