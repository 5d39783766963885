# SPDX-License-Identifier: LGPL-2.1-or-later
"""A filter of system calls that refuses a clone with a shared table of descriptors, or
pidfd_open(2), as containers may have it: python -m tests.keeper.refuse clone|pidfd_open ERRNO
PROGRAM ARGUMENT... runs the program under it."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

CLONE_FILES, CLONE_VM = 0x400, 0x100
SET_NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, IF_EQUAL, IF_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
#: The number of clone(2), by processor.
NUMBERS = {"x86_64": 56, "aarch64": 220}
#: And that of pidfd_open(2), everywhere.
PIDFD_OPEN = 434


def _of_clone(error: int) -> tuple[tuple[int, int, int, int], ...]:
    """The rules for a clone."""
    return (
        (LOAD, 0, 0, 0),  # the number of the call
        (IF_EQUAL, 0, 5, NUMBERS[platform.machine()]),
        (LOAD, 0, 0, 16),  # the lower half of the first argument
        (IF_BITS, 0, 3, CLONE_FILES),
        (IF_BITS, 2, 0, CLONE_VM),
        (RETURN, 0, 0, FAIL_WITH | error),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ALLOW),
    )


def install(call: str, error: int) -> None:
    """This process and its children: a clone that shares descriptors and no memory fails so, or
    pidfd_open does."""
    rules: tuple[tuple[int, int, int, int], ...] = (
        (LOAD, 0, 0, 0),
        (IF_EQUAL, 0, 1, PIDFD_OPEN),
        (RETURN, 0, 0, FAIL_WITH | error),
        (RETURN, 0, 0, ALLOW),
    )
    if call == "clone":
        rules = _of_clone(error)
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("<H6xQ", len(rules), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    install(sys.argv[1], int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])
