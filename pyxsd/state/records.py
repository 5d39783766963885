# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file that an image of a server is in: a header, records, and a checksum.

The header has 16 bytes: "pyxsdimg", the version and flags (0), each a number of 4 bytes in the
byte order of the machine.  A record is four letters that name its type, the length of its body in
4 bytes, and the body.  The last one is "DONE": how many records stand before it (8 bytes), and the
CRC-32 of all bytes before it (4 bytes).

A type whose first letter is small may be skipped by a reader that does not know it.  A reader
refuses an image with any other record that it does not know: leaving it out would lose state.
"""

from __future__ import annotations

import struct
import zlib

from pyxsd.named import NamedTuple
from pyxsd.state.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Union

    Bytes = Union[bytes, memoryview]

MAGIC = b"pyxsdimg"
VERSION = 3
HEADER = struct.Struct("=8sII")
RECORD = struct.Struct("=4sI")
DONE = b"DONE"
_END = struct.Struct("=QI")
LENGTH_MAX = 0xFFFFFFFF


class Record(NamedTuple):
    """One record."""

    type: bytes
    body: memoryview
    number: int  # counted from 1
    at: int  # where it begins in the file, in bytes

    @property
    def place(self) -> str:
        """For messages, as "record 7 (CONN) at byte 272"."""
        return f"record {self.number} ({_name(self.type)}) at byte {self.at}"


def _name(type_: bytes) -> str:
    return type_.decode("ascii") if type_.isalpha() else repr(type_)


class Writer:
    """Writes the records of a file.  put(bytes) takes the next bytes of it."""

    def __init__(self, put: Callable[[bytes], object]) -> None:
        self._put = put
        self.count = 0
        self._checksum = 0
        self._write(HEADER.pack(MAGIC, VERSION, 0))

    def _write(self, data: bytes) -> None:
        self._checksum = zlib.crc32(data, self._checksum)
        self._put(data)

    def add(self, type_: bytes, body: Bytes) -> None:
        """One more record; OverflowError where its body is longer than LENGTH_MAX bytes."""
        if len(body) > LENGTH_MAX:
            raise OverflowError(f"a record of {len(body)} bytes")
        self._write(RECORD.pack(type_, len(body)))
        self._write(bytes(body))
        self.count += 1

    def finish(self) -> None:
        """The end of the file."""
        self._write(RECORD.pack(DONE, _END.size) + _END.pack(self.count, self._checksum))


def read(data: Bytes, known: Container[bytes]) -> list[Record]:
    """The records of a file whose types are in `known`; their bodies are views of the data.

    StateError where the file is cut, altered, of another version, or has a record that must not
    be left out and is not known.
    """
    data = memoryview(data)
    if len(data) < HEADER.size:
        raise StateError(f"the file has {len(data)} bytes and no whole header")
    magic, version, flags = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f'the file does not begin with "{MAGIC.decode()}"')
    if version != VERSION or flags:
        raise StateError(
            f"the image has version {version} and flags {flags:#x}; known is version {VERSION}"
        )
    found: list[Record] = []
    at, number = HEADER.size, 0
    while True:
        number += 1
        if len(data) - at < RECORD.size:
            raise StateError(f"record {number} at byte {at}: the file ends before DONE")
        type_, length = RECORD.unpack_from(data, at)
        start = at + RECORD.size
        if length > len(data) - start:
            raise StateError(
                f"record {number} ({_name(type_)}) at byte {at}: "
                f"{length - (len(data) - start)} bytes are missing"
            )
        record = Record(type_, data[start : start + length], number, at)
        if type_ == DONE:
            _check_end(record, data)
            return found
        if type_ in known:
            found.append(record)
        elif not type_[:1].islower():
            raise StateError(f"{record.place}: not known, and must not be left out")
        at = start + length


def _check_end(record: Record, data: memoryview) -> None:
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
