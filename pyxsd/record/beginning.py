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
from pyxsd.state.surroundings import DOMID_MAX
from pyxsd.system import configuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd.system.configuration import Config

GROUPS = ("down", "unasked", "closed")
#: Seconds since 1970 that have a date of four digits are below this.
WALL_MAX = 253402300800.0
_UINT32_MAX, _UINT64_MAX, _INT64_MAX = (1 << 32) - 1, (1 << 64) - 1, (1 << 63) - 1
_KINDS = {"bool": bool, "int": int, "float": float}  # of the configuration; all others are text


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
    for name, is_right in FORMS.items():
        if name not in row:
            raise StateError(f"no beginning of a recording: {name} is missing")
        if not is_right(row[name]):
            raise StateError(f"no beginning of a recording: {name} is {_shown(row[name])}")
    known = {domain[0] for domain in row["domains"]}
    for group in ("ports", *GROUPS):
        if not known.issuperset(row[group]):
            raise StateError(f"no beginning of a recording: {group} names a domain that is missing")
    return row


def is_wall(value: Any) -> bool:
    """Is it a time, in seconds since 1970, that has a date?"""
    return type(value) is float and 0.0 <= value < WALL_MAX


def is_number(value: Any, most: int = _UINT64_MAX) -> bool:
    """Is it a whole number of that range?"""
    return type(value) is int and 0 <= value <= most


def _shown(value: Any) -> str:
    return repr(value)[:64]


def _are_domids(value: Any) -> bool:
    return type(value) is list and all(is_number(domid, DOMID_MAX) for domid in value)


def _is_config(value: Any) -> bool:
    if type(value) is not dict:
        return False
    kinds = configuration.keys()
    return all(
        _is_setting(kinds.get(name.replace("_", "-"), ""), setting)
        for name, setting in value.items()
    )


def _is_setting(kind: str, value: Any) -> bool:
    """Is it a value of that kind?  An empty kind is that of a key that is not known."""
    if kind == "float" and type(value) is float:
        return value - value == 0.0
    if type(value) is int and kind in ("int", "float"):
        return configuration.INT_MIN <= value <= configuration.INT_MAX
    return bool(kind) and type(value) is _KINDS.get(kind, str)


def _are_domains(value: Any) -> bool:
    return type(value) is list and all(map(_is_domain, value))


def _is_domain(value: Any) -> bool:
    """Is it what _domain() gives?"""
    if type(value) is not list or len(value) != 8:
        return False
    domid, mfn, remote_port, port, is_mapped, unique_id, expected, unreadable = value
    return (
        is_number(domid, DOMID_MAX)
        and type(mfn) is int
        and -_INT64_MAX <= mfn <= _INT64_MAX
        and is_number(remote_port, _UINT32_MAX)
        and is_number(port, _UINT32_MAX)
        and is_number(unique_id)
        and (expected is None or _are_numbers(expected, 2, _UINT32_MAX))
        and (type(is_mapped), type(unreadable)) == (bool, bool)
    )


def _are_numbers(value: Any, count: int, most: int = _UINT64_MAX) -> bool:
    return (
        type(value) is list
        and len(value) == count
        and all(is_number(number, most) for number in value)
    )


def _are_refused(value: Any) -> bool:
    return type(value) is list and all(_are_numbers(pair, 2) for pair in value)


#: By name: what a value of a beginning must be.
FORMS: dict[str, Callable[[Any], bool]] = {
    "config": _is_config,
    "wall": is_wall,
    "requests": is_number,
    "log": lambda value: type(value) is bool,
    "image": lambda value: type(value) is bytes,
    "xen": lambda value: type(value) is bool,
    "domains": _are_domains,
    "ports": _are_domids,
    "virq": lambda value: is_number(value, _UINT32_MAX),
    "refused": _are_refused,
    **dict.fromkeys(GROUPS, _are_domids),
}


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
