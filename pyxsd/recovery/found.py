# SPDX-License-Identifier: LGPL-2.1-or-later
"""The descriptors that a process finds which goes on where another one has died: all that one had
open, under its own numbers."""

from __future__ import annotations

import fcntl
import os
import socket
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def opened() -> set[int]:
    """Those that are open now."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            # Where a process has died in this very listing, fstat(2) of its folder fails.
            fcntl.fcntl(int(name), fcntl.F_GETFD)
        except OSError:
            continue  # that of the listing itself
        found.add(int(name))
    return found


def is_socket(fd: int) -> bool:
    """Is it a socket, of whatever kind?"""
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False  # the folder of a process that has gone


def address_of(listener: int) -> str | bytes | None:
    """Where a listening socket is, as a client that it has accepted says, too; None where there is
    no such socket."""
    if listener < 0:
        return None
    try:
        sock = socket.socket(fileno=listener)
    except OSError:
        return None
    try:
        address: str | bytes = sock.getsockname()
    except OSError:
        return None
    finally:
        sock.detach()
    return address


def is_accepted(fd: int, address: str | bytes | None) -> bool:
    """Is that a client that the listening socket at this address has accepted?"""
    if address is None:
        return False
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return (
            sock.family == socket.AF_UNIX
            and sock.type == socket.SOCK_STREAM
            and sock.getsockname() == address
            and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
    except OSError:
        return False
    finally:
        sock.detach()


def close(descriptors: Collection[int]) -> None:
    """Closes them.  Who waits at the other end of a socket hears of it even where somebody else has
    a copy."""
    for fd in descriptors:
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            pass
        else:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is not connected
            sock.detach()
        try:
            os.close(fd)
        except OSError:
            pass
