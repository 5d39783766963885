# SPDX-License-Identifier: LGPL-2.1-or-later
"""quota-maxwatchevents against Debian's oxenstored: when a writer has to wait for a watcher.

A guest watches and reads nothing more; a socket writes.  Every write whose event found room is seen
in the store.
"""

from __future__ import annotations

import re

import pytest

from tests.clients.daemon import wait_for
from tests.differential.sides import Side
from tests.differential.test_differential import COMMON, both
from tests.world import EVENT, TYPES, packet

HOME = b"/local/domain/1/a"
#: With this token two events fill the ring, and a third one is half sent.
TOKEN = b"t" * 400
IN_RING = 2
WRITES = 40


def ask(side: Side, kind: str, payload: bytes) -> bytes:
    """The answer to domain 0."""
    return side.one("s0", kind, payload)[2]


def written(side: Side) -> int:
    """How many of the writes were served."""
    return len([name for name in ask(side, "DIRECTORY", HOME + b"\0").split(b"\0") if name])


def waiting(side: Side) -> int:
    """How many events wait in the guest's output."""
    found = re.search(rb"watch_event: (\d+)", ask(side, "CONTROL", b"xenbus\x001\0"))
    return int(found.group(1)) if found else 0


def fill(side: Side, served: int) -> None:
    """The guest watches, the socket writes, until so many writes are served."""
    side.start()
    guest, writer = side.clients["d1"], side.clients["s1"]
    ask(side, "MKDIR", HOME + b"\0")
    guest.sendall(packet("WATCH", HOME + b"\0" + TOKEN + b"\0", 0, 7))
    assert [guest.packet()[0] for _ in range(2)] == [TYPES["WATCH"], EVENT]
    for number in range(WRITES):
        writer.sendall(packet("WRITE", HOME + b"/%02d\0" % number, 0, number))
    wait_for(lambda: written(side) >= served, f"{side.name} stops before its limit")


@pytest.mark.parametrize("limit", [1, 5])
def test_the_writer_stops_at_the_limit(limit: int) -> None:
    """`limit` events in the output, as many behind the watch, and one on the writer's account."""
    with both({**COMMON, "quota-maxwatchevents": str(limit)}) as pair:
        for side in pair:
            # oxenstored does not count the packet of which a part is in the ring already.
            served = IN_RING + 2 * limit + 1 + (side.name != "pyxsd")
            fill(side, served)
            for _ in range(10):  # turns in which it could go on
                assert (written(side), waiting(side)) == (served, limit), side.name
