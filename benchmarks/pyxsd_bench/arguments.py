# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the commands share in reading numbers from their command lines and in telling of files."""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """A finite number of at least 0, such as `0.3`; ArgumentTypeError for `nan`, `inf` and `-1`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of at least 0")
    return value


def whole(text: str) -> int:
    """A whole number of at least 1, such as `5`."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def told(error: BaseException, path: str = "") -> str:
    """An error in words; one of the system with the file: `/tmp/x: No such file or directory`.

    path: the file, where the error does not name it.
    """
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = path or error.filename
    return f"{name}: {error.strerror}" if name else error.strerror
