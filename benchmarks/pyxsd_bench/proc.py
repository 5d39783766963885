# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel tells about a process: CPU time, memory, system calls.

Everything is read from outside, so it works for any daemon.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import NamedTuple

from ._load import lib

TICK = os.sysconf("SC_CLK_TCK")
TRACEPOINTS = (
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
)


class Cpu(NamedTuple):
    """CPU time of a process.  User and system are ticks of 10 ms.

    `total_ns` is in nanoseconds, but the kernel brings it up to date only when the process sleeps,
    is preempted, or at the timer's tick: up to one tick (1 to 10 ms) may be missing.
    """

    total_ns: int
    user_ticks: int
    system_ticks: int


def cpu(pid: int) -> Cpu:
    """OSError where the process is gone."""
    # The clock id of another process's CPU time, as clock_getcpuclockid(3) makes it.
    total = time.clock_gettime_ns((~pid << 3) | 2)
    fields = _stat(pid)
    return Cpu(total, int(fields[11]), int(fields[12]))


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
    return pid


def memory(pid: int) -> int:
    """Resident memory in bytes."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as rollup:
            for line in rollup:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
    except PermissionError:
        pass  # another user's process: statm is open to all
    return resident(pid)


def resident(pid: int) -> int:
    """The same, read in microseconds also where it is gigabytes; it may lag by some pages."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available_memory() -> int:
    """Bytes that can be used without swapping."""
    with open("/proc/meminfo", encoding="ascii") as info:
        for line in info:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


class Syscalls:
    """Counts a process's system calls while it is open.  OSError where that is not permitted."""

    def __init__(self, pid: int) -> None:
        self._fd = lib.xb_syscalls_open(pid, _tracepoint())
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
