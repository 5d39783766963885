# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest whose requests end the daemon's process, one after the other."""

from __future__ import annotations

from typing import Any

from tests.clients.daemon import Client, wait_for
from tests.domains.standin import Stand, with_homes
from tests.world import TYPES, packet

CRASH = b"crash\0segv\0"
EIO = (TYPES["ERROR"], b"EIO\0")


def the_third_time_parks(stand: Stand, client: Client) -> tuple[Any, Any]:
    """EIO twice; then the first guest is not served any more, and the other one is."""
    one, other = with_homes(stand, client, 5, 6)
    for _ in range(2):
        answer = one.request(TYPES["CONTROL"], CRASH)
        assert (answer.type, answer.payload) == EIO
        assert other.request(TYPES["WRITE"], b"a\0b").payload == b"OK\0"
    one.send(packet("CONTROL", CRASH))
    wait_for(lambda: "not served any more" in stand.log(), "it is served")
    assert other.request(TYPES["READ"], b"a\0").payload == b"b"
    return one, other
