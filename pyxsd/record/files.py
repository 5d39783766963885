# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recordings on disk.

A directory holds recordings `recording-NNNNNN`, numbered upward.  Each begins with a state of its
own, so each can be run again without the others, and an old one can be deleted.  Numbers are
little-endian.

A file has a header of 16 bytes: "pyxsdrec", the version of this format (4), 0 (4).  Then blocks: 16
bytes of head, then the body.

    type     4   "BEGN": a beginning (record.beginning), the first block and only that
                 "JRNL": records of the journal (_journal), whole ones
                 "DIED": how the daemon died (record.death); nothing comes behind it
    number   4   of the block, from 0
    length   4   of the body
    checksum 4   CRC-32 of the 12 bytes before it and of the body

A recording that was going on when its daemon died may end within a block; what stands before
it is whole.
"""

from __future__ import annotations

import os
import re
import struct
import zlib

from pyxsd.state.host_state import StateError
from pyxsd.system.files import open_to_read, read_some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAGIC = b"pyxsdrec"
VERSION = 1
BEGINNING, JOURNAL, DEATH = b"BEGN", b"JRNL", b"DIED"
_HEADER = struct.Struct("<8sII")
_HEAD = struct.Struct("<4sII")
_SUM = struct.Struct("<I")
#: What may come behind a block of each type; behind nothing at all at first.
_BEHIND = {b"": (BEGINNING,), BEGINNING: (JOURNAL, DEATH), JOURNAL: (JOURNAL, DEATH)}
_NAME = re.compile(r"recording-(\d{6,})")


def numbers(directory: str) -> list[int]:
    """The numbers of the recordings in a directory, ascending; OSError.

    A name that path_of() does not give is another file's.
    """
    names = os.listdir(directory)
    found = (int(match[1]) for name in names if (match := _NAME.fullmatch(name)))
    return sorted(number for number in set(found) if _name(number) in names)


def path_of(directory: str, number: int) -> str:
    """Where a recording lies."""
    return os.path.join(directory, _name(number))


def _name(number: int) -> str:
    return f"recording-{number:06}"


class Writer:
    """A new recording; OSError where it cannot be written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._blocks = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._write(_HEADER.pack(MAGIC, VERSION, 0))

    def add(self, kind: bytes, body: bytes) -> None:
        """One more block; where it cannot be written whole nothing of it stays."""
        head = _HEAD.pack(kind, self._blocks, len(body))
        self._write(head + _SUM.pack(zlib.crc32(body, zlib.crc32(head))) + body)
        self._blocks += 1

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            try:
                os.ftruncate(self._fd, self.size)
            except OSError:
                pass  # a reader finds that the last block is cut
            raise
        self.size += len(data)

    def close(self, sync: bool = False) -> None:
        """Nothing more comes; sync: it is on the disk, else OSError."""
        try:
            if sync:
                os.fsync(self._fd)
        finally:
            os.close(self._fd)


def read(path: str) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each block, one after the other.

    StateError where the file is no recording, or where a block is cut or altered; it names the
    block and its byte.
    """
    try:
        with open_to_read(path) as file:
            yield from _blocks(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise StateError(str(error.strerror)) from None


def _blocks(file: Any, size: int) -> Iterator[tuple[bytes, bytes]]:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or header[:8] != MAGIC:
        raise StateError("no recording")
    _, version, flags = _HEADER.unpack(header)
    if version != VERSION or flags:
        raise StateError(
            f"a recording of version {version} and flags {flags:#x}; known is version {VERSION}"
        )
    at, number, kind = _HEADER.size, 0, b""
    while at < size:
        place = f"block {number} at byte {at}"
        begin = at + _HEAD.size + _SUM.size
        head = file.read(_HEAD.size + _SUM.size)
        if len(head) < _HEAD.size + _SUM.size:
            raise StateError(f"{place}: the file ends within its head")
        before = kind
        kind, count, length = _HEAD.unpack_from(head)
        if length > size - begin:
            raise StateError(f"{place}: {length - (size - begin)} bytes are missing")
        if kind not in _BEHIND[BEGINNING] and kind != BEGINNING:
            raise StateError(f"{place}: there is no block of the type {kind!r}")
        body = read_some(file, length)
        found = zlib.crc32(body, zlib.crc32(head[: _HEAD.size]))
        if found != _SUM.unpack_from(head, _HEAD.size)[0] or count != number:
            raise StateError(f"{place}: the checksum is wrong, the file was altered")
        if kind not in _BEHIND.get(before, ()):
            raise StateError(f"{place}: not expected there")
        yield kind, body
        at, number = begin + length, number + 1
    if number == 0:
        raise StateError("the recording is empty")
