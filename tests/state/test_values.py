# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small values as bytes, at the borders of what has a form."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyxsd.state import values

VALUES: list[tuple[Any, bytes]] = [
    (None, b"N"),
    (True, b"T"),
    (False, b"F"),
    (0, b"i" + bytes(8)),
    (1, b"i\1" + bytes(7)),
    (-1, b"i" + b"\xff" * 8),
    ((1 << 63) - 1, b"i" + b"\xff" * 7 + b"\x7f"),
    (-(1 << 63), b"i" + bytes(7) + b"\x80"),
    (1 << 63, b"u" + bytes(7) + b"\x80"),
    ((1 << 64) - 1, b"u" + b"\xff" * 8),
    (1.5, b"d" + struct.pack("<d", 1.5)),
    (b"", b"b\0\0\0\0"),
    (b"\0x", b"b\2\0\0\0\0x"),
    ("", b"s\0\0\0\0"),
    ("\xe9", b"s\2\0\0\0\xc3\xa9"),
    ("/\udcff", b"s\2\0\0\0/\xff"),  # as Python has a file's name that is no text
    ([], b"l\0\0\0\0"),
    ([1, [None]], b"l\2\0\0\0i\1" + bytes(7) + b"l\1\0\0\0N"),
    ({}, b"m\0\0\0\0"),
    ({"a": False}, b"m\1\0\0\0s\1\0\0\0aF"),
]


@pytest.mark.parametrize("value, data", VALUES, ids=[repr(row[0]) for row in VALUES])
def test_there_and_back(value: Any, data: bytes) -> None:
    assert values.encode(value) == data
    found = values.decode(data)
    assert (found, type(found)) == (value, type(value))


NO_FORM: list[tuple[Any, type[Exception], str | None]] = [
    (1 << 64, struct.error, None),
    (-(1 << 63) - 1, struct.error, None),
    ({1, 2}, TypeError, "a value of type set"),
    ([object()], TypeError, "a value of type object"),
]


@pytest.mark.parametrize("value, kind, said", NO_FORM, ids=[repr(row[0])[:20] for row in NO_FORM])
def test_no_form(value: Any, kind: type[Exception], said: str | None) -> None:
    with pytest.raises(kind, match=said):
        values.encode(value)


def nested(levels: int, front: bytes) -> bytes:
    """A value within so many lists or dicts."""
    return front * levels + b"N"


LIST, DICT = b"l\1\0\0\0", b"m\1\0\0\0s\1\0\0\0k"


@pytest.mark.parametrize("front", [LIST, DICT], ids=["lists", "dicts"])
def test_depth(front: bytes) -> None:
    """16 levels, and not one more: what reads them calls itself for each."""
    values.decode(nested(values.DEPTH_MAX, front))
    assert values.DEPTH_MAX == 16
    for levels in (17, 18, 100, 5000):
        with pytest.raises(ValueError, match=f"at byte {16 * len(front)}$"):
            values.decode(nested(levels, front))


WRONG = [
    (b"", "1 bytes are missing at byte 0"),
    (b"i\0", "7 bytes are missing at byte 1"),
    (b"NN", "1 bytes too many at byte 1"),
    (b"T" + bytes(5), "5 bytes too many at byte 1"),
    (b"x", "b'x' at byte 0"),
    (b"b\5\0\0\0ab", "3 bytes are missing at byte 5"),
    (b"l\2\0\0\0N", "2 values at byte 0"),
    (b"l\xff\xff\xff\xff", "4294967295 values at byte 0"),
    (b"m\1\0\0\0i\1" + bytes(7) + b"N", "the key 1 before byte 14"),
    (b"m\2\0\0\0" + b"s\1\0\0\0aN" * 2, "the key 'a' before byte 18"),
]


@pytest.mark.parametrize("data, said", WRONG, ids=[row[1] for row in WRONG])
def test_wrong(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        values.decode(data)
