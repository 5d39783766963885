# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must not matter: idle connections, the size of the store, starting up."""

from __future__ import annotations

import select
import subprocess
import sys

from .. import proc
from ..measure import Sample
from ..program import Program
from ..target import DaemonFailed, Target
from .base import ROOT, VALUE, Context, Scenario, endless, grown, once

WIDTH = 100
HOLDER_LIMIT_S = 120.0
NEAR = f"{ROOT}/near"


def leaf(i: int) -> str:
    """Node i of the big store: directories of 100 nodes, 100 of these in each above."""
    return f"{ROOT}/s/{i // (WIDTH * WIDTH)}/{i // WIDTH % WIDTH}/{i % WIDTH}"


def fill(target: Target, begin: int, end: int) -> None:
    """Writes the leaves from `begin` to `end`."""
    for first in range(begin, end, 20000):
        program = Program()
        for i in range(first, min(first + 20000, end)):
            program.write(leaf(i), VALUE)
        once(target, program)


def _near(target: Target) -> None:
    if not grown(target, "near", 1) and not target.echo:
        program = Program()
        for i in range(16):
            program.write(f"{NEAR}/{i}", VALUE)
        once(target, program)


def _reads() -> Program:
    program = Program()
    for i in range(16):
        program.read(f"{NEAR}/{i}", VALUE)
    return program


def _idle_prepare(target: Target, size: int, context: Context) -> None:
    _near(target)
    more = size - grown(target, "idle", size)
    if more <= 0:
        return
    command = [sys.executable, "-m", "pyxsd_bench.holder", target.socket, str(more)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    target.keep.callback(_end, holder)
    assert holder.stdout is not None
    if not select.select([holder.stdout], [], [], HOLDER_LIMIT_S)[0]:
        raise DaemonFailed(f"{target.name} did not accept {more} connections in time")
    if not holder.stdout.readline().startswith(b"ready"):
        raise DaemonFailed(f"{target.name} refused {more} more connections")


def _end(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdin.close()
    holder.stdout.close()
    holder.wait()


def _idle(target: Target, size: int, context: Context) -> dict[str, Sample]:
    return {
        "one at a time": endless(target, _reads(), context),
        "32 in flight": endless(target, _reads(), context, window=32),
    }


def _store_prepare(target: Target, size: int, context: Context) -> None:
    fill(target, grown(target, "store", size), size)


def _store(target: Target, size: int, context: Context) -> dict[str, Sample]:
    # A stride that is no divisor of the sizes visits nodes all over the tree.
    picks = [i * 7919 % size for i in range(512)]
    reads, writes, transaction = Program(), Program(), Program()
    for i in picks:
        reads.read(leaf(i), VALUE)
        writes.write(leaf(i), VALUE)
    transaction.mark().start()
    for i in picks[:5]:
        transaction.read(leaf(i), VALUE).write(leaf(i), VALUE)
    transaction.commit().lap(1)
    return {
        "read": endless(target, reads, context, window=32),
        "write": endless(target, writes, context, window=32),
        "transaction of 12": endless(target, transaction, context, unit="loop", window=16, hist=1),
    }


def _idle_cpu(target: Target, size: int, context: Context) -> dict[str, Sample]:
    """The daemon at its first answer, what it does behind that on its own, and, connected to, while
    nobody asks anything."""
    with target.load() as load:
        load.connect(target.socket, _reads() if target.echo else Program().directory("/"), loops=1)
        load.finish(target.alive)
        load.settle(0.5)  # what the start and the request left to do is over
        before = proc.cpu(target.pid)
        begin = load.now()
        load.settle(max(context.seconds, 0.2))
        after = proc.cpu(target.pid)
        seconds = (load.now() - begin) / 1e9
    idle = (after.total_ns - before.total_ns) / 1e3 / seconds
    start_us = target.state.get("start_s", 0.0) * 1e6
    started = target.state.get("start_cpu_ns", before.total_ns)
    used: Sample = {"rss": proc.memory(target.pid), "units": 1, "seconds": seconds}
    return {
        "idle second": {**used, "rate": 1.0, "cpu_us": idle},
        "start to first answer": {
            **used,
            "rate": 1e6 / start_us if start_us else 0.0,
            "cpu_us": started / 1e3,
            "p50_us": start_us,
        },
        "behind the first answer": {
            **used,
            "rate": 1.0,
            "cpu_us": (before.total_ns - started) / 1e3,
        },
    }


SCENARIOS = (
    Scenario(
        "start",
        "Start, and an idle second",
        "What a host pays for a daemon that has nothing to do.",
        _idle_cpu,
        unit="start or second",
        floor=True,
    ),
    Scenario(
        "idle-connections",
        "Beside idle connections",
        "Dozens of tools and hundreds of device models stay connected and say nothing.",
        _idle,
        axis="idle connections",
        sizes=(0, 100, 1000, 2000, 10000),
        prepare=_idle_prepare,
        floor=True,
        fds=1.1,
    ),
    Scenario(
        "store-size",
        "In a store of many nodes",
        "A host with a thousand guests holds some hundred thousand nodes.",
        _store,
        axis="nodes",
        sizes=(1000, 10000, 100000, 1000000),
        prepare=_store_prepare,
        memory=600,
    ),
)
