# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image holds of the daemon around its server, in three records of their own:

    HOST  a dict (values.py) with the fields of Surroundings up to `boot`
    DOMS  a row for each domain that has a ring, of the fields of Row
    SOCK  a row for each socket: the id of its connection (8 bytes), its descriptor (4)

Descriptors are those of the process that the image is of, by their numbers; -1 where there is
none.  Numbers are in the byte order of the machine.
"""

from __future__ import annotations

import os
import struct

from pyxsd.named import NamedTuple
from pyxsd.state import values
from pyxsd.state.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyxsd.state.records import Record

CLOSED, DOWN, UNASKED, INDICES = 1, 2, 4, 8  # flags of a row; see domains.Domains
_FLAGS = CLOSED | DOWN | UNASKED | INDICES
_ROW = struct.Struct("=iqIIQIII")
_SOCKET = struct.Struct("=Qi")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
DOMID_MAX = 0x7FEF


class Row(NamedTuple):
    """A domain and its ring."""

    domid: int
    mfn: int
    remote_port: int
    port: int  # the local one; 0: not bound
    unique_id: int  # 0: not known
    flags: int
    req_cons: int  # with INDICES: what its page has in the two places that only the daemon moves
    rsp_prod: int

    @property
    def indices(self) -> tuple[int, int] | None:
        """(req_cons, rsp_prod); None where they are not known."""
        return (self.req_cons, self.rsp_prod) if self.flags & INDICES else None

    @property
    def closed(self) -> bool:
        """Could its page or port not be had?"""
        return bool(self.flags & CLOSED)

    @property
    def down(self) -> bool:
        """Has it shut down?"""
        return bool(self.flags & DOWN)

    @property
    def unasked(self) -> bool:
        """Was its state not read since it was introduced?"""
        return bool(self.flags & UNASKED)


class Surroundings(NamedTuple):
    """What belongs to the process and not to its server."""

    listener: int = -1
    channels: int = -1  # the event channel device
    virq_port: int = 0  # of VIRQ_DOM_EXC; 0: not bound
    access_log: bool = False  # is it on?
    log_file: str = ""  # where `logfile` has sent the daemon log; "" where it has not
    pid_files: tuple[tuple[str, int], ...] = ()  # path and descriptor
    program: tuple[str, ...] = ()  # the command line that the next update runs
    version: str = ""  # of the program that made the image
    boot: str = ""  # of the machine; see boot_id()
    sockets: tuple[tuple[int, int], ...] = ()  # id of the connection and descriptor

    def descriptors(self) -> list[int]:
        """All of them, in the order in which they travel."""
        found = [fd for fd in (self.listener, self.channels) if fd >= 0]
        return found + [fd for _, fd in (*self.pid_files, *self.sockets)]


def boot_id() -> str:
    """What the kernel calls the time since the machine was booted; "" where it does not tell."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def write(around: Surroundings, domains: Any) -> list[tuple[bytes, bytes]]:
    """The records, (type, body)."""
    host = around._asdict()
    del host["sockets"]
    host["log_file"] = os.fsencode(around.log_file)
    host["pid_files"] = [(os.fsencode(path), fd) for path, fd in around.pid_files]
    host["program"] = [os.fsencode(word) for word in around.program]
    return [
        (b"HOST", values.encode(host)),
        (b"DOMS", _rows(domains)),
        (b"SOCK", b"".join(_SOCKET.pack(*socket) for socket in around.sockets)),
    ]


def _rows(domains: Any) -> bytes:
    packed = []
    closed, down, unasked = domains.closed, domains.down, domains.unasked
    for domid, domain in domains.table.items():
        flags = CLOSED * (domid in closed) | DOWN * (domid in down) | UNASKED * (domid in unasked)
        indices = domain.indices
        if indices is not None:
            flags |= INDICES
        packed.append(
            _ROW.pack(
                domid,
                domain.mfn,
                domain.remote_port,
                domain.port,
                domain.unique_id,
                flags,
                *(indices or (0, 0)),
            )
        )
    return b"".join(packed)


def read(found: Iterable[Record]) -> tuple[Surroundings, list[Row]]:
    """What the records of an image say; StateError.  An image of a bare server has none."""
    around, sockets = Surroundings(), ()
    rows: list[Row] = []
    for record in found:
        try:
            if record.type == b"HOST":
                around = _host(values.decode(bytes(record.body)))
            elif record.type == b"DOMS":
                rows = [_checked(Row(*fields)) for fields in _ROW.iter_unpack(record.body)]
            elif record.type == b"SOCK":
                sockets = tuple(_SOCKET.iter_unpack(record.body))  # type: ignore[assignment]
        except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
            raise StateError(f"{record.place}: {error}") from None
    if len({row.domid for row in rows}) != len(rows):
        raise StateError("the image as a whole: a domain stands there twice")
    around = around._replace(sockets=sockets)
    numbers = around.descriptors()
    if len(set(numbers)) != len(numbers) or min(numbers, default=0) < 0:
        raise StateError("the image as a whole: a descriptor stands there twice, or is none")
    return around, rows


def _host(host: dict[str, Any]) -> Surroundings:
    kinds = Surroundings()._asdict()
    del kinds["sockets"]
    host["log_file"] = os.fsdecode(host["log_file"])
    host["pid_files"] = tuple((os.fsdecode(path), fd) for path, fd in host["pid_files"])
    host["program"] = tuple(map(os.fsdecode, host["program"]))
    for name, kind in kinds.items():
        if type(host[name]) is not type(kind):
            raise ValueError(f"{name} is {host[name]!r}")
    for number in (host["virq_port"], *(fd for _, fd in host["pid_files"])):
        if type(number) is not int or not 0 <= number <= 0xFFFFFFFF:
            raise ValueError(f"the number {number!r}")
    return Surroundings(**host)


def _checked(row: Row) -> Row:
    if not 0 <= row.domid <= DOMID_MAX or row.flags & ~_FLAGS:
        raise ValueError(f"domain {row.domid} with flags {row.flags:#x}")
    if not row.flags & INDICES and (row.req_cons or row.rsp_prod):
        raise ValueError(f"domain {row.domid} with indices that are not known")
    return row
