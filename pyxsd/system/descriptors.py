# SPDX-License-Identifier: LGPL-2.1-or-later
"""Open file descriptors: the limit on them, and some in reserve for when it is reached.

Clients decide how many descriptors are open.  When there are no more, new clients wait, but the
state must be saved all the same.
"""

from __future__ import annotations

import os
import resource

# Less than this is not enough to start: 16 as a rule, and those of Xen.
NEEDED = 32
# A file that is written, and what the C library may open meanwhile.
RESERVED = 4
# What a process may open that goes on where this one dies, with the same descriptors: some 20 as a
# rule, beside what is left of another one that has died before it had come so far.
SUCCESSORS = 256


class Reserve:
    """RESERVED descriptors that can be given up where the process has no other left.

    ::

        with reserve:                # they are free in here
            dump.write_file(...)     # nobody else may open anything meanwhile
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self._fill()

    def __enter__(self) -> None:
        self.close()

    def __exit__(self, *_: object) -> None:
        self._fill()

    def close(self) -> None:
        """Give them up."""
        while self._held:
            os.close(self._held.pop())

    def _fill(self) -> None:
        """Take as many as can be had; those that cannot are taken after the next use."""
        try:
            while len(self._held) < RESERVED:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass  # the whole system has run out


def raise_file_limit(nr_open_path: str = "/proc/sys/fs/nr_open") -> tuple[int, str]:
    """Raise RLIMIT_NOFILE to what the kernel allows, as far as permitted.

    Returns the limit that holds now, and a warning ("" where all was granted).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with open(nr_open_path, "rb") as file:
            wanted = int(file.read(32))
    except (OSError, ValueError):
        wanted = hard
    unlimited = hard == resource.RLIM_INFINITY
    new_hard = hard if unlimited or hard >= wanted else wanted
    for pair in ((wanted, new_hard), (wanted, wanted), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, pair)
        except (OSError, ValueError):
            continue  # not permitted: as far as it goes without
        soft = pair[0]
        break
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return soft, ""
    return soft, f"file limit: {soft} descriptors; {wanted}, as {nr_open_path} says, not permitted"


def leave_some(to_leave: int = SUCCESSORS) -> None:
    """Lowers the soft RLIMIT_NOFILE of this process by so much, or by half where it is small: a
    process with the limit of before can open as many when this one has opened all that it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft - min(to_leave, soft // 2), hard))
        except (OSError, ValueError):
            pass  # a filter of system calls refuses it: nothing is left, and clients are served
