# SPDX-License-Identifier: LGPL-2.1-or-later
"""On which CPUs the load generator and a daemon run.

    apart       the generator on one CPU, the daemon on the others
    together    both on the same CPU
    scheduler   both wherever the kernel puts them
    busy        the same, with one process on each CPU that never sleeps

One request at a time costs a multiple where client and daemon have a CPU of their own and must wake
each other up, and a daemon that polls gains or loses by it; so there is no figure without its
placement.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from . import proc

APART, TOGETHER, SCHEDULER, BUSY = "apart", "together", "scheduler", "busy"
ALL = (APART, TOGETHER, SCHEDULER, BUSY)
FIXED = (APART, TOGETHER, SCHEDULER)  # what a whole run can be placed by
TITLES = {
    APART: "pinned apart",
    TOGETHER: "pinned together",
    SCHEDULER: "left to the scheduler",
    BUSY: "left to the scheduler of a busy machine",
}
_SPIN = "while True: pass"


def possible(placement: str, cpus: Sequence[int]) -> bool:
    """Two CPUs are needed to be apart."""
    return placement != APART or len(cpus) > 1


def sides(placement: str, cpus: Sequence[int]) -> tuple[set[int], set[int]]:
    """The CPUs of the generator and those of the daemon, out of `cpus`."""
    first, others = {cpus[0]}, set(cpus[1:])
    if placement == APART:
        return first, others
    return (first, first) if placement == TOGETHER else (set(cpus), set(cpus))


@contextmanager
def placed(pid: int, placement: str, cpus: Sequence[int]) -> Iterator[None]:
    """Places the calling thread and all threads of the daemon `pid`; puts them back afterwards."""
    own, theirs = sides(placement, cpus)
    with ExitStack() as stack:
        for task, wanted in [(0, own), *((task, theirs) for task in tasks(pid))]:
            with suppress(OSError):  # a thread that has ended
                before = os.sched_getaffinity(task)
                os.sched_setaffinity(task, wanted)
                stack.callback(_move, task, before)
        if placement == BUSY:
            for _ in cpus:
                stack.enter_context(_spinner())
        yield


def tasks(pid: int) -> list[int]:
    """The threads of a daemon; none where it is gone."""
    found: list[int] = []
    for process in proc.family(pid):
        with suppress(OSError):
            found.extend(int(name) for name in os.listdir(f"/proc/{process}/task"))
    return found


def _move(task: int, cpus: set[int]) -> None:
    with suppress(OSError):
        os.sched_setaffinity(task, cpus)


@contextmanager
def _spinner() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-S", "-c", _SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()
