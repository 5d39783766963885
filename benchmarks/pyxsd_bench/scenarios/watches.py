# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches: fan-out, watches that have nothing to do with the request, watchers that come and go."""

from __future__ import annotations

from ..load import Load
from ..measure import Sample, timed
from ..program import PUBLISH, Program
from ..target import Target
from .base import ROOT, VALUE, Context, Scenario, endless, grown, kept, once

FAN = f"{ROOT}/fan"
FAR = f"{ROOT}/far"
BURST = 8
HOLDERS = 100  # connections that the unrelated watches are spread over


def _fan_prepare(target: Target, size: int, context: Context) -> None:
    before = grown(target, "fan", size)
    if not before:
        once(target, Program().mkdir(FAN))
    load = kept(target, "fan-load")
    number = load.program(Program().watch(FAN, 1).idle())
    for _ in range(size - before):
        load.connect(target.socket, number, loops=1)
    load.finish(target.alive)


def _fan(target: Target, size: int, context: Context) -> dict[str, Sample]:
    """One writer; the next write leaves when all watchers have seen the last one."""
    found = {}
    load = kept(target, "fan-load")
    for name, burst in (("one write", 1), (f"{BURST} writes", BURST)):
        program = Program()
        for i in range(burst):
            program.write(f"{FAN}/{i}", VALUE, flags=PUBLISH if i == 0 else 0)
        program.await_all_events(burst * size)
        _writer(target, load, program)
        found[name] = timed(target, load, context.seconds, unit="event", syscalls=context.syscalls)
    return found


def _writer(target: Target, load: Load, program: Program) -> None:
    if "fan-writer" in target.state:
        load.restart(target.state["fan-writer"], program, window=BURST, loops=0)
    else:
        target.state["fan-writer"] = load.connect(target.socket, program, window=BURST)


def _far_prepare(target: Target, size: int, context: Context) -> None:
    before = grown(target, "far", size)
    if not target.state.get("far-conns"):
        once(target, Program().write(f"{FAR}-not/a", VALUE).mkdir(FAR))
    load = kept(target, "far-load")
    conns = target.state.setdefault("far-conns", [])
    for holder in range(HOLDERS):
        program = Program()
        for i in range(before, size):
            if i % HOLDERS == holder:
                program.watch(f"{FAR}/{i // 100}/{i}", 2, settle=False)
        if not program.steps:
            continue
        program.await_events(2, len(program.steps)).idle()
        if holder < len(conns):
            load.restart(conns[holder], program, window=64)
        else:
            conns.append(load.connect(target.socket, program, window=64, loops=1))
    load.finish(target.alive)


def _far(target: Target, size: int, context: Context) -> dict[str, Sample]:
    writes, churn = Program(), Program()
    for _ in range(32):
        writes.write(f"{FAR}-not/a", VALUE)
    for _ in range(8):
        churn.connect().watch(f"{FAR}-not/a", 1).close()
    return {
        "write": endless(target, writes, context, window=32),
        "connect, watch, close": endless(target, churn, context),
    }


SCENARIOS = (
    Scenario(
        "fan-out",
        "A write seen by many watchers",
        "xenopsd, squeezed, rrdd, libvirt and every device model watch the same prefixes.",
        _fan,
        unit="event",
        axis="watchers",
        sizes=(1, 10, 100, 500, 1000),
        prepare=_fan_prepare,
        fds=1.1,
    ),
    Scenario(
        "unrelated-watches",
        "Beside watches on other nodes",
        "Watches add up with guests; only those on the path should cost anything.",
        _far,
        axis="watches",
        sizes=(0, 1000, 20000, 100000, 1000000),
        prepare=_far_prepare,
        memory=800,
    ),
)
