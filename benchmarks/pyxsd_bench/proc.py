# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel tells about a daemon: CPU time, memory, system calls.

Everything is read from outside, so it works for any daemon.  A daemon is named by one process; its
children that run the same command line (under a keeper the one that serves) are the daemon, too.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from typing import NamedTuple

from ._load import lib

TICK = os.sysconf("SC_CLK_TCK")
TRACEPOINTS = (
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
)
#: The flag of a listening socket in /proc/net/unix.
LISTENING = "00010000"


class Cpu(NamedTuple):
    """CPU time of a process.  User and system are ticks of 10 ms.

    `total_ns` is in nanoseconds, but the kernel brings it up to date only when the process sleeps,
    is preempted, or at the timer's tick: up to one tick (1 to 10 ms) may be missing.
    """

    total_ns: int
    user_ticks: int
    system_ticks: int


def family(pid: int) -> list[int]:
    """A daemon's processes: `pid`, and its children that run the same command line."""
    found = [pid]
    with suppress(OSError):
        command = _command(pid)
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            pids = [int(word) for word in children.read().split()]
        for child in pids:
            with suppress(OSError):  # one that has gone meanwhile
                if command and _command(child) == command:
                    found.append(child)
    return found


def _command(pid: int) -> bytes:
    """Empty for one that has died and is not waited for yet."""
    with open(f"/proc/{pid}/cmdline", "rb") as words:
        return words.read()


def serving(pid: int) -> int:
    """The process of a daemon that serves: its keeper's child, or the daemon itself."""
    return family(pid)[-1]


def cpu(pid: int) -> Cpu:
    """Of all processes of a daemon; of a keeper's children that have died, too, those in ticks.

    OSError where the daemon is gone.  Between a child's death and the next one's birth the time of
    the dead one may be missing.
    """
    while True:
        processes = family(pid)
        own = _stat(pid)
        with suppress(OSError):  # a child that has died just now
            fields = [_stat(one) for one in processes]
            # The clock id of another process's CPU time, as clock_getcpuclockid(3) makes it.
            total = sum(time.clock_gettime_ns((~one << 3) | 2) for one in processes)
            if family(pid) == processes:
                break
    user, system = (sum(int(one[field]) for one in fields) for field in (11, 12))
    if len(processes) > 1:
        dead = int(own[13]), int(own[14])
        user, system = user + dead[0], system + dead[1]
        total += sum(dead) * (1_000_000_000 // TICK)
    return Cpu(total, user, system)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state (field 3) on."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """False for a process that is gone or a zombie."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def listener(path: str) -> int:
    """The process that listens on a Unix socket; 0 where it is not visible from here.

    OSError where nobody listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("=iII", data)[0]
    # The kernel names who called listen(): of a daemon that went into the background behind that,
    # or has had a live update, a process that is gone.
    return pid if alive(pid) else _holder(os.path.realpath(path))


def _holder(path: str) -> int:
    """The process that has the socket which listens on this path among its descriptors, and the
    parent where a parent and its child have it; 0 where none is seen."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.rstrip("\n").split(None, 7) for line in table]
    listening = {
        f"socket:[{row[6]}]"
        for row in rows[1:]
        if len(row) == 8 and row[3] == LISTENING and os.path.realpath(row[7]) == path
    }
    found: list[int] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is somebody else's
            if any(os.readlink(fd.path) in listening for fd in os.scandir(f"/proc/{name}/fd")):
                found.append(int(name))
    parents = {}
    for pid in found:
        with suppress(OSError):
            parents[pid] = int(_stat(pid)[1])
    return next((pid for pid, parent in parents.items() if parent not in parents), 0)


def memory(pid: int) -> int:
    """Resident memory of a daemon in bytes; what a keeper shares with its child counts once."""
    keeper, *kept = family(pid)
    try:
        if not kept:
            return _rollup(keeper)["Rss"]
        own = _rollup(keeper)
        alone = own["Private_Clean"] + own["Private_Dirty"]
        return alone + sum(_rollup(one)["Rss"] for one in kept)
    except PermissionError:
        return resident(pid)  # another user's process: statm is open to all


def _rollup(pid: int) -> dict[str, int]:
    """The fields of /proc/PID/smaps_rollup in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as rollup:
        rows = [line.split() for line in rollup if line.endswith(" kB\n")]
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def resident(pid: int) -> int:
    """Of the process that serves, read in microseconds also where it is gigabytes; it may lag by
    some pages."""
    with open(f"/proc/{serving(pid)}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available_memory() -> int:
    """Bytes that can be used without swapping."""
    with open("/proc/meminfo", encoding="ascii") as info:
        for line in info:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


class Syscalls:
    """Counts the system calls of the process that serves while it is open.  OSError where that is
    not permitted."""

    def __init__(self, pid: int) -> None:
        self._fd = lib.xb_syscalls_open(serving(pid), _tracepoint())
        if self._fd < 0:
            raise OSError(-self._fd, "perf_event_open: " + os.strerror(-self._fd))

    def count(self) -> int:
        return int(lib.xb_syscalls_read(self._fd))

    def __enter__(self) -> Syscalls:  # noqa: PYI034
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)


def _tracepoint() -> int:
    for path in TRACEPOINTS:
        try:
            with open(path, encoding="ascii") as number:
                return int(number.read())
        except FileNotFoundError:
            continue
    raise OSError("tracefs is not mounted")
