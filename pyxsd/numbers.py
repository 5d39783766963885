# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers as clients write them."""


def number(text: bytes) -> int:
    """A plain decimal number with an optional minus sign, of at most 18 digits; ValueError."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 18:
        raise ValueError(text[:32])
    return int(text)
