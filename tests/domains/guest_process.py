# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest as a process of its own: guest_process.py HOST DOMID PORT ROUNDS.

It watches "in", says so in "ready", writes "out" over and over and reads it back, and for
every event on "in" copies what it finds there to "echo".  At the end it writes "done".
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "glue" / "standin"))

guests: Any = importlib.import_module("guest")
READ, WATCH, WRITE = 2, 4, 11


def main(directory: str, domid: str, port: str, rounds: str) -> int:
    """Exit status 0 where every answer was right."""
    with guests.Host(directory) as host:
        domain = host.guest(int(domid), int(port))
        events: list[Any] = []
        assert domain.request(WATCH, b"in\0t\0", events=events).payload == b"OK\0"
        assert domain.packet().payload == b"in\0t\0"
        assert domain.request(WRITE, b"ready\0").payload == b"OK\0"
        for n in range(int(rounds)):
            value = b"%d " % n * (1 + n % 400)
            assert domain.request(WRITE, b"out\0" + value[:2000], events=events).payload == b"OK\0"
            assert domain.request(READ, b"out\0", events=events).payload == value[:2000]
            while events:
                assert events.pop().payload == b"in\0t\0"
                found = domain.request(READ, b"in\0", events=events).payload
                assert domain.request(WRITE, b"echo\0" + found, events=events).payload == b"OK\0"
        assert domain.request(WRITE, b"done\0", events=events).payload == b"OK\0"
        last = b""
        while last != b"last":  # what came after the rounds
            if not events:
                events.append(domain.packet())
            events.pop()
            last = domain.request(READ, b"in\0", events=events).payload
            assert domain.request(WRITE, b"echo\0" + last, events=events).payload == b"OK\0"
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
