# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a journal begins with: an image of the server, and what the parts beside it know.

A beginning is one value (state.values), a dict:

    version   of the program
    config    {field: value} of its configuration
    wall      seconds since 1970
    requests  that were served since the daemon's start
    log       is the access log on?
    image     see state.image
    xen       is there a Xen?
    domains   see _domain(), in the order of the domids
    ports     the domids of those whose port is bound, in the order in which they are looked at
    virq      local port of the interrupt for dying domains; 0: none
    down, unasked, closed    domids, see domains.Domains
    refused   [connection, how many of its requests have ended a process]
"""

from __future__ import annotations

import time

from pyxsd import __version__
from pyxsd.domains import Domain
from pyxsd.state import image, values
from pyxsd.state.host_state import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.system.configuration import Config

GROUPS = ("down", "unasked", "closed")


def write(server: Any, domains: Any, config: Config, wall: float = 0.0) -> bytes:
    """The beginning of a journal that is recorded from now on, between two turns; wall: where that
    was at another time."""
    server.agenda.drop_closed()
    table = list(domains.table.values()) if domains is not None else []
    row: dict[str, Any] = {
        "version": __version__,
        "config": dict(config._asdict()),
        "wall": wall or time.time(),
        "requests": server.ops,
        "log": bool(server.log.active),
        "image": image.save(server, None, not config.record_values),
        "xen": domains is not None and domains.xen is not None,
        "domains": [_domain(domain) for domain in table],
        "ports": [c.domid for c in domains.by_port.values()] if table else [],
        "virq": domains.virq_port if domains is not None else 0,
        "refused": [[c.id, c.refused] for c in server.connections.values() if c.refused],
    }
    for group in GROUPS:
        row[group] = sorted(getattr(domains, group)) if domains is not None else []
    return values.encode(row)


def _domain(domain: Domain) -> list[Any]:
    return [
        domain.domid,
        domain.mfn,
        domain.remote_port,
        domain.port,
        bool(domain.page),
        domain.unique_id,
        domain.expected,
        domain.unreadable,
    ]


def read(data: bytes) -> dict[str, Any]:
    """What the bytes say; StateError where they are no beginning, or that of another version."""
    try:
        row: dict[str, Any] = values.decode(data)
        version = row["version"]
    except (KeyError, TypeError, ValueError, StateError) as error:
        raise StateError(f"no beginning of a recording: {error}") from None
    if version != __version__:
        raise StateError(
            f"recorded by pyxsd {version}, and this is {__version__}: only the same "
            "version does the same"
        )
    return row


def restore_domains(row: dict[str, Any], domains: Any, page: Any) -> None:
    """Gives the domains what they knew; the server was loaded before.  page: stands for each
    page that was mapped."""
    for domid, mfn, remote_port, port, is_mapped, unique_id, expected, unreadable in row["domains"]:
        domain = Domain(domid, mfn, remote_port)
        domain.port, domain.unique_id, domain.unreadable = port, unique_id, unreadable
        domain.page = page if is_mapped else 0
        domain.expected = tuple(expected) if expected else None
        domain.connection = domains.server.domains[domid]
        domain.transport = domain.connection.transport
        if is_mapped:
            domain.transport.attach(page, port)
        domains.table[domid] = domain
    for domid in row["ports"]:
        domain = domains.table[domid]
        domains.by_port[domain.port] = domain.connection
    domains.virq_port = row["virq"]
    for group in GROUPS:
        getattr(domains, group).update(row[group])
