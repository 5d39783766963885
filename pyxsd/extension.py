# SPDX-License-Identifier: LGPL-2.1-or-later
"""GET_FEATURE, SET_FEATURE, GET_QUOTA and SET_QUOTA, newer than oxenstored (floor 3).

Rules: Xen's docs/misc/xenstore.txt.  A domid that is not introduced is ENOENT,
an unknown quota or a value out of range EINVAL.
"""

from __future__ import annotations

from pyxsd._core import RequestError
from pyxsd._ring import FEATURES
from pyxsd.control import QUOTA_MAX, QUOTAS, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GET_FEATURE, SET_FEATURE, GET_QUOTA, SET_QUOTA = range(23, 27)

#: Quotas that a domain can have of its own, and the connection's attribute.
#: "nodes" belongs to the owner's entry count instead.
OF_CONNECTION = {"watches": "max_watches", "transactions": "max_transactions"}


def run(server: Any, type_: int, payload: bytes) -> bytes:
    """The answer to one of the four; RequestError."""
    fields = payload.split(b"\0")
    if fields[-1] == b"":
        fields.pop()
    try:
        return HANDLERS[type_](server, fields)
    except ValueError:
        raise RequestError("EINVAL") from None


def _domain(server: Any, text: bytes) -> Any:
    connection = server.domains.get(number(text))
    if connection is None:
        raise RequestError("ENOENT")
    return connection


def _value(text: bytes) -> int:
    value = number(text)
    if not 0 <= value <= QUOTA_MAX:
        raise ValueError(text)
    return value


def _get_feature(server: Any, fields: list[bytes]) -> bytes:
    if not fields:
        return b"%d\0" % FEATURES
    if len(fields) > 1:
        raise ValueError(fields)
    return b"%d\0" % _domain(server, fields[0]).features


def _set_feature(server: Any, fields: list[bytes]) -> bytes:
    if len(fields) != 2:
        raise ValueError(fields)
    connection, value = _domain(server, fields[0]), _value(fields[1])
    if value & ~FEATURES:
        raise ValueError(value)
    connection.features = value
    advertise = getattr(connection.transport, "advertise", None)
    if advertise is not None:
        advertise(value)
    return b"OK\0"


def _quota(name: bytes, domain: bool) -> str:
    text = name.decode("ascii", "replace")
    if text not in (("nodes", *OF_CONNECTION) if domain else QUOTAS):
        raise ValueError(name)
    return text


def _get_quota(server: Any, fields: list[bytes]) -> bytes:
    if not fields:
        return " ".join(QUOTAS).encode() + b"\0"
    if len(fields) > 2:
        raise ValueError(fields)
    if len(fields) == 1:
        return b"%d\0" % getattr(server, QUOTAS[_quota(fields[0], False)])
    name, connection = _quota(fields[1], True), _domain(server, fields[0])
    if name == "nodes":
        return b"%d\0" % server.owner_limit(connection.domid)
    return b"%d\0" % getattr(connection, OF_CONNECTION[name])


def _set_quota(server: Any, fields: list[bytes]) -> bytes:
    if len(fields) == 2:
        setattr(server, QUOTAS[_quota(fields[0], False)], _value(fields[1]))
        return b"OK\0"
    if len(fields) != 3:
        raise ValueError(fields)
    name, connection, value = _quota(fields[1], True), _domain(server, fields[0]), _value(fields[2])
    if name == "nodes":
        server.set_owner_limit(connection.domid, value)
    else:
        setattr(connection, OF_CONNECTION[name], value)
    return b"OK\0"


HANDLERS = {
    GET_FEATURE: _get_feature,
    SET_FEATURE: _set_feature,
    GET_QUOTA: _get_quota,
    SET_QUOTA: _set_quota,
}
