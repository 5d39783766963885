# SPDX-License-Identifier: LGPL-2.1-or-later
"""Short forms for tests on rings: the page, its fields, what a healthy neighbour sees."""

from __future__ import annotations

from typing import Any, Callable

from pyxsd.system.configuration import Config
from tests.fakexen import (
    CONNECTION,
    ERROR_FIELD,
    FEATURES,
    REQ_CONS,
    REQ_PROD,
    RSP_CONS,
    RSP_PROD,
    Guest,
    RingWorld,
)
from tests.unit.kit import ok, recount
from tests.world import packet, packets

INDICES = {"req_cons": REQ_CONS, "req_prod": REQ_PROD, "rsp_cons": RSP_CONS, "rsp_prod": RSP_PROD}
FIELDS = {**INDICES, "server_features": FEATURES, "connection": CONNECTION, "error": ERROR_FIELD}
RING = 1024
PAGE_END = 2080  # nothing of the interface lies behind it
BAD_INDICES, BAD_LENGTH = 2, 3
ALL_FEATURES = 15  # reconnection, error indicator, WATCH depth, permissions for everybody
MASK = 0xFFFFFFFF
GUARD = b"\xa5"

Make = Callable[..., "Rings"]


class Rings(RingWorld):
    """A RingWorld with domains that have homes of their own.

    What lies behind the interface in a page is filled with a pattern that
    nobody may change.
    """

    def __init__(self, domids: tuple[int, ...] = (1, 2), **config: Any) -> None:
        super().__init__(Config(**config))
        self.connection("s0")
        self.connection("s1")
        for domid in domids:
            self.bear(domid)

    def bear(self, domid: int, mfn: int = 4660) -> Guest:
        """A new domain, introduced, with a home that it owns."""
        guest = self.guest(domid)
        guest.page[PAGE_END:] = GUARD * (len(guest.page) - PAGE_END)
        self.host.introduce(None, domid, mfn, 7)
        home = b"/local/domain/%d\0" % domid
        ok(self, "s0", "MKDIR", home)
        ok(self, "s0", "SET_PERMS", home + b"n%d\0" % domid)
        return guest

    def notified(self, domid: int) -> int:
        """How often the domain was notified since the last look."""
        port = self.host.domains.table[domid].port
        count: int = self.xen.channels.notified.count(port)
        while port in self.xen.channels.notified:
            self.xen.channels.notified.remove(port)
        return count

    def is_bad(self, domid: int) -> bool:
        """Is its ring parked?"""
        return bool(self.server.domains[domid].bad)

    def open_transactions(self, domid: int) -> int:
        """How many transactions the domain has open."""
        return len(self.server.domains[domid].transactions)

    def works(self, domid: int, value: bytes = b"fine") -> None:
        """The domain writes and reads back over its ring."""
        name = f"d{domid}"
        assert ok(self, name, "WRITE", b"alive\0" + value) == b"OK\0"
        assert ok(self, name, "READ", b"alive\0") == value

    def reconnect(self, domid: int) -> None:
        """The domain asks for a reconnect, which is done in one turn."""
        guest = self.guests[domid]
        guest.unsent = b""
        self.rest.pop(f"d{domid}", None)
        guest.put(CONNECTION, 1)
        self.turn(f"d{domid}")
        assert guest.get(CONNECTION) == 0

    def check(self) -> None:
        """Nothing was written behind an interface, no request failed for a
        bug, the entry counts are those of the nodes."""
        for domid, guest in self.guests.items():
            if domid in self.host.domains.table and guest.page[-1:] == GUARD:
                assert guest.page[PAGE_END:] == GUARD * (len(guest.page) - PAGE_END), domid
        bugs = [
            text
            for level, _, text in self.host.messages
            if level == "error" and "request failed" in text
        ]
        assert not bugs, bugs[0]
        recount(self)


def start_at(guest: Guest, index: int) -> None:
    """Both rings are empty, with all indices there."""
    for offset in INDICES.values():
        guest.put(offset, index)


def indices(guest: Guest) -> dict[str, int]:
    """The four indices by name."""
    return {name: guest.get(offset) for name, offset in INDICES.items()}


__all__ = [
    "ALL_FEATURES",
    "BAD_INDICES",
    "BAD_LENGTH",
    "FIELDS",
    "GUARD",
    "INDICES",
    "MASK",
    "PAGE_END",
    "RING",
    "Guest",
    "Make",
    "Rings",
    "indices",
    "packet",
    "packets",
    "start_at",
]
