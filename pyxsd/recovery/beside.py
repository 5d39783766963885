# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image in memory has beside those of state.image and state.surroundings, so that the
journal behind it can be run again: the record "keep", a dict (state.values):

    ports        the domids of those whose port is bound, in the order in which they are looked at
    unreadable   the domids whose state could not be read, which was said in the log
    expected     [domid, [req_cons, rsp_prod]] of rings that are not mapped
    refused      [connection, how many of its requests have ended a process]
"""

from __future__ import annotations

from pyxsd.state import image, records, values
from pyxsd.state.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.state.records import Record

TYPE = b"keep"
TYPES = image.TYPES | {TYPE}


def write(server: Any, domains: Any) -> tuple[bytes, bytes]:
    """The record, (type, body)."""
    table = domains.table.values()
    row = {
        "ports": [connection.domid for connection in domains.by_port.values()],
        "unreadable": [domain.domid for domain in table if domain.unreadable],
        "expected": [[domain.domid, domain.expected] for domain in table if domain.expected],
        "refused": [[c.id, c.refused] for c in server.connections.values() if c.refused],
    }
    return TYPE, values.encode(row)


def read(data: memoryview) -> list[Record]:
    """The records of an image in memory; StateError."""
    found = records.read(data, TYPES)
    if not any(record.type == TYPE for record in found):
        raise StateError("the image as a whole: there is no record keep")
    return found


def restore(found: list[Record], server: Any, domains: Any) -> None:
    """Gives the domains and the connections what they knew; they are there already.  StateError."""
    record = next(record for record in found if record.type == TYPE)
    try:
        row = values.decode(bytes(record.body))
        order = {domains.table[domid].port: domid for domid in row["ports"]}
        if set(order) != set(domains.by_port):
            raise ValueError("the ports are not those of the domains")
        domains.by_port.clear()
        for port, domid in order.items():
            domains.by_port[port] = domains.table[domid].connection
        for domid in row["unreadable"]:
            domains.table[domid].unreadable = True
        for domain in domains.table.values():
            domain.expected = None
        for domid, indices in row["expected"]:
            domains.table[domid].expected = tuple(indices)
        for number, count in row["refused"]:
            server.connections[number].refused = count
    except (KeyError, TypeError, ValueError, StateError) as error:
        raise StateError(f"{record.place}: {error}") from None
