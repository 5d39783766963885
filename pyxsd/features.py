# SPDX-License-Identifier: LGPL-2.1-or-later
"""GET_FEATURE, SET_FEATURE, GET_QUOTA and SET_QUOTA, which are newer than oxenstored.

Rules: Xen's docs/misc/xenstore.txt.  A domid that is not introduced is ENOENT; an unknown quota
or feature, or a value out of range, is EINVAL.
"""

from __future__ import annotations

from pyxsd._core import OF_ONE
from pyxsd._handlers import request_types
from pyxsd._limits import QUOTAS
from pyxsd._ring import FEATURES
from pyxsd._wire import RequestError
from pyxsd.numbers import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(server: Any, connection: Any, type_: int, payload: bytes) -> bytes:
    """The answer to one of the four, asked by a connection; RequestError."""
    fields = payload.split(b"\0")
    while fields and fields[-1] == b"":
        fields.pop()
    try:
        return HANDLERS[type_](server, connection, fields)
    except ValueError:
        raise RequestError("EINVAL") from None


def _domain(server: Any, text: bytes) -> Any:
    connection = server.domains.get(number(text))
    if connection is None:
        raise RequestError("ENOENT")
    return connection


def _get_feature(server: Any, connection: Any, fields: list[bytes]) -> bytes:
    if len(fields) > 1:
        raise ValueError(fields)
    if fields:
        return b"%d\0" % _domain(server, fields[0]).features
    return b"%d\0" % (connection.features if connection.is_guest else FEATURES)


def _set_feature(server: Any, connection: Any, fields: list[bytes]) -> bytes:
    if len(fields) != 2:
        raise ValueError(fields)
    domain, value = _domain(server, fields[0]), number(fields[1])
    if value & ~FEATURES:
        raise ValueError(value)
    domain.features = value
    advertise = getattr(domain.transport, "advertise", None)
    if advertise is not None:
        advertise(value)
    return b"OK\0"


def _quota(name: bytes, of_one: bool) -> str:
    text = name.decode("ascii", "replace")
    if text not in (OF_ONE if of_one else {quota.name for quota in QUOTAS}):
        raise ValueError(name)
    return text


def _get_quota(server: Any, connection: Any, fields: list[bytes]) -> bytes:
    if not fields:
        return " ".join(quota.name for quota in QUOTAS).encode() + b"\0"
    if len(fields) == 1:
        return b"%d\0" % server.quota(_quota(fields[0], False))
    if len(fields) > 2:
        raise ValueError(fields)
    name = _quota(fields[1], True)
    return b"%d\0" % server.quota(name, _domain(server, fields[0]))


def _set_quota(server: Any, connection: Any, fields: list[bytes]) -> bytes:
    if len(fields) == 2:
        server.set_quota(_quota(fields[0], False), number(fields[1]))
    elif len(fields) == 3:
        name = _quota(fields[1], True)
        server.set_quota(name, number(fields[2]), _domain(server, fields[0]))
    else:
        raise ValueError(fields)
    return b"OK\0"


_TYPES = request_types()
HANDLERS = {
    _TYPES["GET_FEATURE"]: _get_feature,
    _TYPES["SET_FEATURE"]: _set_feature,
    _TYPES["GET_QUOTA"]: _get_quota,
    _TYPES["SET_QUOTA"]: _set_quota,
}
