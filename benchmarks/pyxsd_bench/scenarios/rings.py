# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains over their rings, on the stand-in Xen: busy ones, and many that are idle."""

from __future__ import annotations

import os

from .. import standin, wire
from ..load import Load
from ..measure import Sample, timed, whole
from ..program import Program
from ..target import Target
from .base import VALUE, Context, Scenario, endless, grown, kept, once

LIBRARY = "libxsdguest.so"
NODES = 16
SPARE = 20000  # domids from here on are for introducing and releasing
BATCH = 50


def open_rings(target: Target, load: Load | None = None) -> Load:
    """Gives `load`, or the engine that this target keeps, access to the target's domains."""
    load = load or kept(target, "rings")
    libs = standin.load().build_standin()
    load.rings(os.path.join(str(libs), "lib", LIBRARY), target.host)
    return load


def introduce(program: Program, domid: int, port: int) -> None:
    payload = b"%d\0%d\0%d\0" % (domid, domid + 1000, port)
    program.send(wire.INTRODUCE, payload)


def release(program: Program, domid: int) -> None:
    program.send(wire.RELEASE, b"%d\0" % domid)


def prepare(target: Target, size: int, context: Context) -> None:
    before = grown(target, "domains", size)
    load = open_rings(target)
    program = Program()
    for domid in range(before + 1, size + 1):
        home = f"/local/domain/{domid}"
        introduce(program, domid, load.create_domain(domid))
        program.write(home, b"").set_perms(home, f"n{domid}")
        for i in range(NODES if domid <= 10 else 1):
            program.write(f"{home}/data/{i}", VALUE)
            program.set_perms(f"{home}/data/{i}", f"n{domid}")
    once(target, program)
    idle = load.program(Program().idle())
    conns = target.state.setdefault("ring-conns", [])
    for domid in range(before + 1, size + 1):
        conns.append(load.ring(domid, 0, idle, loops=1))
    load.finish(target.alive)


def reads(count: int = NODES) -> Program:
    program = Program()
    for i in range(NODES):
        program.read(f"data/{i % count}", VALUE)
    return program


def busy(target: Target, conns: list[int], window: int, count: int, context: Context) -> Sample:
    """A sample of domains that read `count` nodes each, with `window` requests in flight."""
    load = open_rings(target)
    number = load.program(reads(count))
    for conn in conns:
        load.restart(conn, number, window=window, loops=0)
    return timed(target, load, context.seconds, syscalls=context.syscalls)


def _run(target: Target, size: int, context: Context) -> dict[str, Sample]:
    conns: list[int] = target.state["ring-conns"]
    found = {
        "one domain, one at a time": busy(target, conns[:1], 1, NODES, context),
        "one domain, 16 in flight": busy(target, conns[:1], 16, NODES, context),
    }
    if size >= 10:
        found["10 domains, 16 in flight"] = busy(target, conns[:10], 16, NODES, context)
    if size > 10:
        found["all domains, one each"] = busy(target, conns, 1, 1, context)
    beside = Program().read("/local/domain/1/data/0", VALUE)
    found["a socket beside them"] = endless(target, beside, context)
    found.update(_introduce(target, context))
    return found


def _introduce(target: Target, context: Context) -> dict[str, Sample]:
    """New domains each time: a released one cannot be introduced again with every daemon."""
    load = open_rings(target)
    spare = range(SPARE, SPARE + BATCH)
    begin, end = Program(), Program()
    for domid in spare:
        introduce(begin, domid, load.create_domain(domid))
        release(end, domid)
    found = {}
    for name, program in (("introduce", begin), ("release", end)):
        with target.load() as socket_load:
            socket_load.connect(target.socket, program, loops=1)
            found[name] = whole(target, socket_load, BATCH, syscalls=context.syscalls)
    for domid in spare:
        load.set_domain(domid, 0)
    return found


SCENARIOS = (
    Scenario(
        "rings",
        "Domains over their rings",
        "Guests talk through shared pages; what idle domains cost, every host pays always.",
        _run,
        axis="introduced domains",
        sizes=(1, 10, 100, 1000),
        prepare=prepare,
        needs="standin",
    ),
)
