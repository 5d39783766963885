# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a foreign state cannot hold, and may end by itself: the daemon waits for that.

One line for each obstacle, for the client that asked and for the log.
"""

from __future__ import annotations

import _socket  # the bare module, as in the daemon
import struct

from pyxsd.state.stream import packets
from pyxsd.xen import DEAD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Of what a client has sent and nobody has served: C xenstored's file has 16 bits for its length.
INPUT_MAX = 49152
# struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("iII")


def name(connection: Any, fds: Mapping[int, int] | None = None) -> str:
    """D5 for a domain; A and a number for a socket, as oxenstored and the access log call it.

    fds: the descriptors of sockets by the connection's number, where the name is for somebody who
    looks for the program: `A54 (a program of domain 0, process 812)`.
    """
    if not connection.is_socket:
        return f"D{connection.domid}"
    process = _process(fds[connection.id]) if fds and connection.id in fds else 0
    of = f" (a program of domain 0, process {process})" if process else ""
    return f"A{connection.id}{of}"


def _process(fd: int) -> int:
    """The process that has made the connection; 0 where the kernel does not tell."""
    client = _socket.socket(fileno=fd)
    try:
        found: int = _CREDENTIALS.unpack(
            client.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
        )[0]
    except OSError:
        return 0
    finally:
        client.detach()
    return found


def whole_requests(connection: Any) -> int:
    """How many complete requests were read from a client and not served."""
    return len(packets(connection.partial_input, False)[0])


def serve_what_was_read(server: Any) -> None:
    """Serves each request that was read, and reads no more, as far as the clients let it: replies
    and events that nobody takes hold them up."""
    for connection in list(server.connections.values()):
        if server.is_held(connection):
            continue
        before = -1
        while not connection.closed and before != (left := whole_requests(connection)) and left:
            before = left
            server.drain(connection)


def read_behind_what_is_held(server: Any) -> None:
    """What clients have sent behind a request that is held back goes on with it: C xenstored serves
    what it is given in its order, and what it reads itself before that."""
    for connection in server.connections.values():
        if server.is_held(connection):
            server.read_on(connection, INPUT_MAX)


def for_c(server: Any, domains: Any, asked: Any, fds: Mapping[int, int] | None = None) -> list[str]:
    """For C xenstored.  asked: the connection that waits for the outcome.  fds: as of name()."""
    found = []
    for connection in server.connections.values():
        what = _transactions(connection)
        if connection is not asked and connection.awaits:
            what.append("an answer that it waits for")
        if whole_requests(connection) and not server.is_held(connection):
            what.append("requests that wait for room in its output")
        if what:
            found.append(f"{name(connection, fds)}: {', '.join(what)}")
    owners = unintroduced(server, domains)
    return found + [f"domain {domid} owns nodes and is not introduced yet" for domid in owners]


def for_ox(server: Any, fds: Mapping[int, int] | None = None) -> list[str]:
    """For oxenstored.  fds: as of name()."""
    found = []
    for connection in server.connections.values():
        what = _transactions(connection)
        if connection.partial_input:
            what.append("a part of a request")
        if connection.pending_output or connection.waiting_events:
            what.append("output that it does not take")
        if connection.target >= 0 and not connection.is_socket:
            what.append(f"it acts for domain {connection.target}")
        if what:
            found.append(f"{name(connection, fds)}: {', '.join(what)}")
    return found


def is_torn(server: Any) -> bool:
    """Has a client sent, or got, only a part of a packet?  That cannot be given up by force."""
    return any(c.partial_input or c.pending_output for c in server.connections.values())


def unintroduced(server: Any, domains: Any) -> list[int]:
    """Domains that live and own nodes, and are not introduced: a toolstack is about to do it.  A
    C xenstored that reads such a node ends."""
    return [
        domid
        for domid in sorted(server.tree.all_entries())
        if domid not in server.domains and domid and _lives(domains, domid)
    ]


def _lives(domains: Any, domid: int) -> bool:
    if domains.xen is None:
        return False
    # Past the journal: whoever goes on from that asks anew.
    xen = getattr(domains.xen, "inner", domains.xen)
    try:
        return xen.state(domid)[0] not in (UNKNOWN, DEAD)
    except OSError:
        return True  # nobody knows


def _transactions(connection: Any) -> list[str]:
    count = len(connection.transactions)
    found = [f"{count} open transaction{'s' if count > 1 else ''}"] if count else []
    return found + (["events of its changes that are not delivered"] if connection.has_jobs else [])
