# SPDX-License-Identifier: LGPL-2.1-or-later
"""The room of buffers."""

from __future__ import annotations

from pyxsd._wire import MemoryTransport
from tests.unit import test_memory
from tests.unit.test_memory import SLACK, bytes_in_use

pytestmark = test_memory.pytestmark


def test_a_large_buffer_has_a_quarter_to_spare_at_most() -> None:
    """It may be of any length, and there may be one for each client."""
    transport = MemoryTransport()
    before = bytes_in_use()
    for n in range(1, 1200):
        transport.feed(b"x" * 1000)
        if n > 65 and n % 40 == 0:
            assert bytes_in_use() - before < n * 1250 + SLACK
