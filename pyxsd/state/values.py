# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small values as bytes: None, numbers, bytes, text, lists, and dicts with text as keys.

One letter says what follows:

    N T F   None, true, false
    i       a whole number of 8 bytes, little-endian, signed
    u       the same, unsigned, of a number that does not fit into i
    d       a number with a fraction, 8 bytes (IEEE 754)
    b s     bytes, text in UTF-8 (or what os.fsencode makes of a name): their length in 4 bytes,
            then they
    l       a list: how many values in 4 bytes, then they
    m       a dict: how many pairs in 4 bytes, then a text and a value for each
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH_MAX = 16  # lists and dicts within each other

_SIGNED = struct.Struct("<q")
_UNSIGNED = struct.Struct("<Q")
_FLOAT = struct.Struct("<d")
_COUNT = struct.Struct("<I")


def encode(value: Any) -> bytes:
    """A value as bytes; TypeError or struct.error for one that has no form."""
    out = bytearray()
    _put(out, value)
    return bytes(out)


def _put(out: bytearray, value: Any) -> None:
    if value is None:
        out += b"N"
    elif value is True or value is False:
        out += b"T" if value else b"F"
    elif isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            out += b"i" + _SIGNED.pack(value)
        else:
            out += b"u" + _UNSIGNED.pack(value)
    elif isinstance(value, float):
        out += b"d" + _FLOAT.pack(value)
    elif isinstance(value, bytes):
        out += b"b" + _COUNT.pack(len(value)) + value
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")  # the name of a file may be any bytes
        out += b"s" + _COUNT.pack(len(text)) + text
    elif isinstance(value, (list, tuple)):
        out += b"l" + _COUNT.pack(len(value))
        for item in value:
            _put(out, item)
    elif isinstance(value, dict):
        out += b"m" + _COUNT.pack(len(value))
        for key, item in value.items():
            _put(out, str(key))
            _put(out, item)
    else:
        raise TypeError(f"a value of type {type(value).__name__}")


def decode(data: bytes) -> Any:
    """The value that the bytes hold, lists as lists.  ValueError where they are anything else
    than exactly one value; it names the offset in bytes."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes too many at byte {reader.at}")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def _take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise ValueError(
                f"{n - (len(self.data) - self.at)} bytes are missing at byte {self.at}"
            )
        self.at += n
        return self.data[self.at - n : self.at]

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def value(self, depth: int) -> Any:
        """The next value, which is in so many lists and dicts."""
        start = self.at
        letter = self._take(1)
        if letter in _CONSTANTS:
            return _CONSTANTS[letter]
        if letter in _NUMBERS:
            return self._number(_NUMBERS[letter])
        if letter == b"b":
            return self._take(self._number(_COUNT))
        if letter == b"s":
            return self._take(self._number(_COUNT)).decode("utf-8", "surrogateescape")
        if letter not in (b"l", b"m") or depth == DEPTH_MAX:
            raise ValueError(f"{letter!r} at byte {start}")
        count = self._number(_COUNT)
        if count > len(self.data) - self.at:  # each value has at least one byte
            raise ValueError(f"{count} values at byte {start}")
        if letter == b"l":
            return [self.value(depth + 1) for _ in range(count)]
        found = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise ValueError(f"the key {key!r} before byte {self.at}")
            found[key] = self.value(depth + 1)
        return found


_CONSTANTS = {b"N": None, b"T": True, b"F": False}
_NUMBERS = {b"i": _SIGNED, b"u": _UNSIGNED, b"d": _FLOAT}
