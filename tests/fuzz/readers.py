# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any bytes as a state file: each reader takes it, or says in one line why not.

What can be read is also shown and converted, and what a converter wrote can be read again.  An
image's checksum would stop nearly every input, so that of the bytes is put right first.
"""

from __future__ import annotations

import zlib

from pyxsd.state import records, show
from pyxsd.state.host_state import StateError


def run(data: bytes) -> None:
    """One file; any exception but StateError is a find."""
    if data.startswith(records.MAGIC):
        data = signed(data)
    try:
        state = show.read_any(data)
    except StateError as error:
        assert "\n" not in str(error)
        return
    for line in show.text(state):
        assert b"\n" not in line
    for as_format in show.WRITERS:
        try:
            converted, _ = show.convert(state, as_format)
        except StateError:
            continue
        show.read_any(converted)


def signed(data: bytes) -> bytes:
    """An image whose last record has the right checksum."""
    at = len(data) - 4
    start = at - 8 - records.RECORD.size
    if start < records.HEADER.size:
        return data
    return data[:at] + zlib.crc32(data[:start]).to_bytes(4, "little")
