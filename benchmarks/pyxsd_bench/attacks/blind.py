# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that sends the same packets in turn and throws away whatever comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Blind:
    """`guest` is one of the stand-in's module `guest`; `sent` counts whole packets."""

    def __init__(self, guest: Any, packets: Sequence[bytes]) -> None:
        self.guest = guest
        self.packets = packets
        self.sent = 0
        self._rest = packets[0]

    def push(self) -> int:
        """Empties the reply ring and fills the request ring; how many packets went in whole."""
        self.guest.read()
        before, moved = self.sent, True
        while moved:
            count = self.guest.write(self._rest)
            moved = count > 0
            self._rest = self._rest[count:]
            if not self._rest:
                self.sent += 1
                self._rest = self.packets[self.sent % len(self.packets)]
        self.guest.kick()
        return self.sent - before
