# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fuzzer's judge: each kind of wrong answer is seen, right ones pass."""

from __future__ import annotations

import struct

import pytest

from tests.fuzz.ledger import Broken, Ledger
from tests.world import TYPES, packet

READ, WATCH, ERROR, EVENT = (TYPES[name] for name in ("READ", "WATCH", "ERROR", "WATCH_EVENT"))
ASKED = packet(READ, b"/a\0", 5, 1) + packet(WATCH, b"/a\0t\0", 5, 2)
RIGHT = packet(READ, b"v", 5, 1) + packet(WATCH, b"OK\0", 0, 2) + packet(EVENT, b"/a\0t\0", 0, 0)

#: (what is answered, complaint or "")
ANSWERS = {
    "right": (RIGHT, ""),
    "error": (packet(ERROR, b"EIO\0", 5, 1) + packet(ERROR, b"EINVAL\0", 0, 2), ""),
    "nothing": (b"", "without an answer"),
    "one": (packet(READ, b"v", 5, 1), "without an answer"),
    "twice": (RIGHT + packet(READ, b"v", 5, 1), "nobody asked"),
    "order": (packet(WATCH, b"OK\0", 0, 2), "asked 2"),
    "tx_id": (packet(READ, b"v", 0, 1), "asked 2"),
    "watch tx_id": (packet(READ, b"v", 5, 1) + packet(WATCH, b"OK\0", 5, 2), "asked 4"),
    "type": (packet(WATCH, b"v", 5, 1), "asked 2"),
    "unknown error": (packet(ERROR, b"EWRONG\0", 5, 1), "error"),
    "half": (RIGHT + b"\0", "half a packet"),
    "giant": (struct.pack("=4I", READ, 1, 5, 4097), "4097 bytes"),
    "event tail": (packet(EVENT, b"/a\0t\0x", 0, 0), "event"),
    "event req_id": (packet(EVENT, b"/a\0t\0", 0, 1), "event"),
    "event token": (packet(EVENT, b"/a\0u\0", 0, 0), "never given"),
}


@pytest.mark.parametrize("pieces", (1, 1000))
@pytest.mark.parametrize("name", ANSWERS)
def test_judgement(name: str, pieces: int) -> None:
    answer, complaint = ANSWERS[name]
    ledger = Ledger("s0")
    for at in range(0, len(ASKED), pieces):
        ledger.fed(ASKED[at : at + pieces])

    def judge() -> None:
        for at in range(0, len(answer), pieces):
            ledger.received(answer[at : at + pieces])
        ledger.settle()

    if complaint:
        with pytest.raises(Broken, match=complaint):
            judge()
    else:
        judge()
        assert (ledger.requests, ledger.answers) == (2, 2)


def test_a_stream_ends_at_a_giant_packet() -> None:
    ledger = Ledger("s0")
    ledger.fed(ASKED + struct.pack("=4I", READ, 3, 0, 4097) + ASKED)
    assert ledger.doomed
    assert ledger.requests == 2
    ledger.settle()
