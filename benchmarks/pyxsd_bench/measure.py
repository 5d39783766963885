# SPDX-License-Identifier: LGPL-2.1-or-later
"""One sample: what a load cost a daemon.

Figures of a sample (a dict, as it goes into the result file):
    units, seconds, rate      how many units of work in how long, and units per second
    requests                  requests answered in that time
    cpu_us, user_share        the daemon's CPU time per unit in microseconds; how much was user
    gen_us                    the generator's own CPU time per unit
    p50_us ... max_us         latency of the measured class; hist: [[us, count], ...]
    conflicts, retries        commits that gave EAGAIN; those and reads sent again
    rss                       resident bytes of the daemon after it
    syscalls                  system calls of the daemon per unit (only where counted)
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable

from . import proc
from .load import Counts, Histogram, Load
from .program import EVENT_CLASS
from .target import Target

Sample = dict[str, Any]
UNITS: dict[str, Callable[[Counts], int]] = {
    "request": lambda c: c.requests,
    "event": lambda c: c.events,
    "loop": lambda c: c.loops,
}
QUANTILES = (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999))
WARM_SHARE = 0.25
PATIENCE = 40  # so many times the time of a sample, until one unit is done


class NothingMeasured(Exception):
    """A run in which nothing of what is counted happened."""


def timed(
    target: Target,
    load: Load,
    seconds: float,
    *,
    unit: str = "request",
    per: int = 1,
    hist: int = 0,
    syscalls: bool = False,
) -> Sample:
    """Warms up, measures `seconds` of a load that goes on by itself, lets it end.

    `unit`: what is counted (request, event, loop; class: what the class `hist` timed).
    `per`: so many of these make one unit.  `syscalls`: count system calls instead
    of trusting the times (counting slows the daemon a little).
    """
    load.run(seconds * WARM_SHARE, target.alive)
    load.reset()
    with _counting(target, syscalls) as counter:
        before = proc.cpu(target.pid)
        for _ in range(PATIENCE):
            load.run(seconds, target.alive)
            after = proc.cpu(target.pid)
            counts = load.counts()
            histogram = load.histogram(EVENT_CLASS if unit == "event" else hist)
            units = histogram.total if unit == "class" else UNITS[unit](counts)
            if units:
                break  # slow units, or a machine that did something else, need more time
        found = sample(target, counts, before, after, counts.wall_ns, units / per)
        found.update(latencies(histogram))
        if counter:
            found["syscalls"] = counter.count() / found["units"]
    load.drain()
    return found


def _counting(target: Target, wanted: bool) -> AbstractContextManager[proc.Syscalls | None]:
    return proc.Syscalls(target.pid) if wanted else nullcontext()


def whole(
    target: Target,
    load: Load,
    units: int,
    *,
    hist: int = 0,
    settle_s: float = 0.0,
    syscalls: bool = False,
) -> Sample:
    """Measures a load that ends by itself, as `units` units of work.

    `settle_s`: the end is when nothing was sent or came for so long (that time not counted).
    """
    with _counting(target, syscalls) as counter:
        before = proc.cpu(target.pid)
        begin = load.now()
        load.finish(target.alive)
        if settle_s:
            load.settle(settle_s, target.alive)
        after = proc.cpu(target.pid)
        counts = load.counts()
        wall = load.last_ns() - begin if settle_s else counts.wall_ns
        found = sample(target, counts, before, after, wall, units)
        found.update(latencies(load.histogram(hist)))
        if counter:
            found["syscalls"] = counter.count() / units
    return found


def sample(
    target: Target,
    counts: Counts,
    before: proc.Cpu,
    after: proc.Cpu,
    wall_ns: int,
    units: float,
) -> Sample:
    """The figures that do not need a histogram.  NothingMeasured where no unit was done."""
    if not units or wall_ns <= 0:
        raise NothingMeasured(f"{target.name}: nothing was done in {wall_ns / 1e9:.2f} s")
    ticks = after.user_ticks - before.user_ticks + after.system_ticks - before.system_ticks
    return {
        "units": units,
        "seconds": wall_ns / 1e9,
        "rate": units / (wall_ns / 1e9),
        "requests": counts.requests,
        "events": counts.events,
        "cpu_us": (after.total_ns - before.total_ns) / units / 1e3,
        "user_share": (after.user_ticks - before.user_ticks) / ticks if ticks else None,
        "gen_us": counts.cpu_ns / units / 1e3,
        "conflicts": counts.conflicts,
        "retries": counts.retries,
        "rss": proc.memory(target.pid),
    }


def latencies(histogram: Histogram) -> Sample:
    """Quantiles and the coarse distribution, in microseconds; empty where nothing was timed."""
    if not histogram.total:
        return {}
    found: Sample = {name: histogram.quantile(q) / 1e3 for name, q in QUANTILES}
    found["max_us"] = histogram.max_ns / 1e3
    coarse: dict[float, int] = {}
    for value, count in histogram.buckets:
        shift = max(0, value.bit_length() - 4)  # eight steps for each power of two
        key = (value >> shift << shift) / 1e3
        coarse[key] = coarse.get(key, 0) + count
    found["hist"] = [[key, count] for key, count in coarse.items()]
    return found
