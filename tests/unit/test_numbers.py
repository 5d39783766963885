# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers as clients write them."""

from __future__ import annotations

import pytest

from pyxsd.numbers import number

RIGHT = [
    (b"0", 0),
    (b"7", 7),
    (b"-7", -7),
    (b"12", 12),
    (b"-12", -12),
    (b"007", 7),
    (b"-0", 0),
    (b"9" * 18, 10**18 - 1),
    (b"-" + b"9" * 18, 1 - 10**18),
]
WRONG = [
    b"",
    b"-",
    b"--1",
    b"+1",
    b" 1",
    b"1 ",
    b"1x",
    b"x1",
    b"0x1",
    b"1.0",
    b"1_0",
    b"\xb2",
    b"9" * 19,
    b"-" + b"9" * 19,
    b"-x1",
    b"1-",
]


@pytest.mark.parametrize(("text", "value"), RIGHT)
def test_right(text: bytes, value: int) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", WRONG)
def test_wrong(text: bytes) -> None:
    with pytest.raises(ValueError):
        number(text)


def test_a_long_text_is_shown_short() -> None:
    with pytest.raises(ValueError) as raised:
        number(b"x" * 33)
    assert raised.value.args == (b"x" * 32,)
