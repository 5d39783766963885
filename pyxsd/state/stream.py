# SPDX-License-Identifier: LGPL-2.1-or-later
"""C xenstored's state file: the form that reader and writer share.

The file is a header and records.  The header has 16 bytes, big-endian: "xenstore", the version
(1 or 2) and flags, of which bit 0 says that all that follows is big-endian, else it is
little-endian.  A record has a type and the length of its body (two words of 4 bytes), then the
body; the length is a multiple of 8 and includes the padding.

Source: docs/misc/xenstore-migration.md of Xen, and files written by xenstored 4.17 and 4.22.
"""

from __future__ import annotations

import struct

MAGIC = b"xenstore"
HEADER = struct.Struct(">8sII")
BIG_ENDIAN = 1  # a flag of the header
VERSIONS = (1, 2)

END, GLOBAL, CONNECTION, WATCH, TRANSACTION, NODE, GLOBAL_QUOTA, DOMAIN, WATCH_EXTENDED = range(9)
NAMES = (
    "END",
    "GLOBAL",
    "CONNECTION",
    "WATCH",
    "TRANSACTION",
    "NODE",
    "GLOBAL_QUOTA",
    "DOMAIN",
    "WATCH_EXTENDED",
)

RING, SOCKET = 0, 1  # kinds of a CONNECTION
HAS_UNIQUE_ID = 1  # a bit of a CONNECTION's `fields`
NO_TARGET = 0x7FF4  # DOMID_INVALID: the ring acts for no other domain
STALE = 1  # a flag of a permission entry
PACKET_HEADER = 16  # bytes in front of a request's payload
PAYLOAD_MAX = 4096


class Layout:
    """The fixed parts of records in one byte order."""

    def __init__(self, big_endian: bool) -> None:
        order = ">" if big_endian else "<"
        self.record = struct.Struct(order + "II")  # type, length
        self.fds = struct.Struct(order + "ii")  # GLOBAL: listening socket, event channels
        # CONNECTION: id, kind, fields; what follows of a ring or a socket; lengths
        self.connection = struct.Struct(order + "IHH")
        self.ring = struct.Struct(order + "HHI")  # domid, target, local port
        self.socket = struct.Struct(order + "i4x")  # descriptor
        self.lengths = struct.Struct(order + "HHI")  # input, torn output, output
        self.unique_id = struct.Struct(order + "Q")
        self.watch = struct.Struct(order + "IHH")  # connection, bytes of path, of token
        self.depth = struct.Struct(order + "H")
        # NODE: connection, transaction, bytes of path, of value, access, permissions
        self.node = struct.Struct(order + "IIHHHH")
        self.permission = struct.Struct(order + "cBH")  # letter, flags, domid
        self.global_quota = struct.Struct(order + "HH")  # values for each domain, for all
        self.domain = struct.Struct(order + "HHI")  # domid, values, features
        self.value = struct.Struct(order + "I")


def round8(n: int) -> int:
    """The next multiple of 8."""
    return (n + 7) & ~7


def packets(data: bytes, big_endian: bool) -> tuple[list[bytes], bytes]:
    """The whole requests at the front of some bytes, and the rest.

    A header that claims too long a payload ends the whole ones: nothing behind it can be read.
    """
    word = struct.Struct(">I" if big_endian else "<I")
    whole = []
    at = 0
    while len(data) - at >= PACKET_HEADER:
        (length,) = word.unpack_from(data, at + 12)
        if length > PAYLOAD_MAX or len(data) - at < PACKET_HEADER + length:
            break
        whole.append(data[at : at + PACKET_HEADER + length])
        at += PACKET_HEADER + length
    return whole, data[at:]
