# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bytes of Xenstore packets, as far as a load generator needs them.

A packet is a header of four native-endian 32-bit numbers (type, req_id, tx_id, length) and the
payload (Xen's public header io/xs_wire.h).  Every type's number stands here, but for the two that
the compiled engine has to know.
"""

from __future__ import annotations

import struct

from ._load import lib

CONTROL = 0
DIRECTORY = 1
READ = 2
GET_PERMS = 3
WATCH = 4
UNWATCH = 5
TRANSACTION_START = 6
TRANSACTION_END = 7
INTRODUCE = 8
RELEASE = 9
GET_DOMAIN_PATH = 10
WRITE = 11
MKDIR = 12
RM = 13
SET_PERMS = 14
WATCH_EVENT: int = lib.XB_TYPE_EVENT
ERROR: int = lib.XB_TYPE_ERROR
IS_DOMAIN_INTRODUCED = 17
RESUME = 18
SET_TARGET = 19
RESET_WATCHES = 21
DIRECTORY_PART = 22

PAYLOAD_MAX = 4096
HEADER = struct.Struct("=IIII")


def packet(kind: int, req_id: int, payload: bytes) -> bytes:
    """One request with tx_id 0.  ValueError where the payload is too long for the protocol."""
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"payload of {len(payload)} bytes")
    return HEADER.pack(kind, req_id, 0, len(payload)) + payload


# The smallest question that every Xenstore daemon answers: the names below "/".
PROBE = packet(DIRECTORY, 1, b"/\0")
