# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text for a terminal, which does what control characters tell it."""

from __future__ import annotations

_ESCAPES = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160)) if c != 10}


def printable(text: str) -> str:
    r"""The text with \x1b for ESC, and so on for each control character but the end of a line: it
    may have names from a file that anybody has written."""
    return text.translate(_ESCAPES)
