# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text for a terminal."""

from __future__ import annotations

import unicodedata

from pyxsd.system.printable import printable


def test_control_characters_are_written_out_and_nothing_else() -> None:
    """But the end of a line."""
    for number in range(512):
        character = chr(number)
        is_control = unicodedata.category(character) == "Cc" and character != "\n"
        shown = f"\\x{number:02x}" if is_control else character
        assert printable(f"a{character}b") == f"a{shown}b", number
