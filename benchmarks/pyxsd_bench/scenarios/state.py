# SPDX-License-Identifier: LGPL-2.1-or-later
"""The group `state`: what a client feels of another process that takes over a running host.

One client asks without pause, one thing at a time; a sample is one update or switch, from the
first word of its dialogue to its outcome, and what counts is the longest time that the client waits
for an answer meanwhile.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from typing import Callable

from .. import daemons, proc
from ..dialogue import Dialogue
from ..measure import NothingMeasured, Sample, latencies
from ..program import Program
from ..target import DaemonFailed, Target
from . import rings
from .base import VALUE, Context, Scenario, grown, once

NODES = 100  # of each domain: its home, store, store/ring-ref, data and what is below that
BEFORE_S, BEHIND_S, SLICE_S = 0.1, 0.05, 0.02
LIMIT_S = 60.0
ASKED = "/local/domain/1/data/0"


def prepare(target: Target, size: int, context: Context) -> None:
    """`size` nodes in all, in the homes of domains that are introduced and have a ring."""
    before = grown(target, "state", size) // NODES
    load = rings.open_rings(target)
    domids = range(before + 1, size // NODES + 1)
    program = Program()
    for domid in domids:
        home = f"/local/domain/{domid}"
        program.write(home, b"").set_perms(home, f"n{domid}")
        rings.introduce(program, domid, load.create_domain(domid))
        # Where a daemon that does not write the page down finds it.
        program.write(f"{home}/store/ring-ref", b"%d" % (domid + 1000))
        program.set_perms(f"{home}/store/ring-ref", "n0")
        for i in range(NODES - 4):
            program.write(f"{home}/data/{i}", VALUE)
    once(target, program)
    idle = load.program(Program().idle())
    conns = target.state.setdefault("ring-conns", [])
    for domid in domids:
        conns.append(load.ring(domid, 0, idle, loops=1))
    load.finish(target.alive)


def waits(target: Target, begin: Callable[[], Dialogue]) -> Sample:
    """A sample of one dialogue: how long the client waited for its answers during it.

    Its CPU is that of the daemon that was there and of the one that is, where that is another."""
    before = last = proc.cpu(target.pid).total_ns
    old = target.pid
    with target.load(stall_s=LIMIT_S) as load:
        load.connect(target.socket, Program().read(ASKED, VALUE))
        load.run(BEFORE_S, target.alive)
        load.reset()
        start = time.monotonic()
        with begin() as dialogue:
            while not dialogue.outcome:
                load.run(SLICE_S, dialogue.go_on)
                with suppress(OSError):
                    # Less where its child has gone already.
                    last = max(last, proc.cpu(old).total_ns)
                if time.monotonic() - start > LIMIT_S:
                    raise NothingMeasured(f"{target.name}: no outcome within {LIMIT_S:g} s")
        took = time.monotonic() - start
        load.run(BEHIND_S)
        if dialogue.outcome != "OK":
            raise NothingMeasured(f"{target.name}: {dialogue.outcome}")
        found = latencies(load.histogram(0))
        requests = load.counts().requests
        load.drain()
    target.moved()
    target.alive()
    now = proc.cpu(target.pid).total_ns
    cpu = now - before if target.pid == old else last - before + now
    return {
        "units": 1,
        "seconds": took,
        "rate": 1 / took,
        "requests": requests,
        "cpu_us": cpu / 1e3,
        "rss": proc.memory(target.pid),
        **found,
    }


def _update(target: Target, size: int, context: Context) -> dict[str, Sample]:
    if context.syscalls:
        return {}
    return {"live update": waits(target, lambda: Dialogue(target.socket, target.program))}


def _switch(target: Target, size: int, context: Context) -> dict[str, Sample]:
    """To pyxsd, and back."""
    if context.syscalls:
        return {}
    program = _pyxsd(target)
    found = {}
    for measure, path in (("to pyxsd", program), ("back from pyxsd", target.program)):
        found[measure] = waits(target, partial(Dialogue, target.socket, path))
    return found


def _pyxsd(target: Target) -> str:
    """A program in the run directory that is pyxsd, configured for this host."""
    about = daemons.built_in("pyxsd")
    path, config = os.path.join(target.run, "pyxsd"), os.path.join(target.run, "pyxsd.conf")
    places = daemons.places(target.run, target.host, config, {})
    if not os.access(places["pyxsd"], os.X_OK):
        raise DaemonFailed(f"{places['pyxsd']} is not installed")
    with open(config, "w", encoding="utf-8") as out:
        out.writelines(f"{key} = {daemons.fill(value, places)}\n" for key, value in about.config)
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"#!/bin/sh\nexec '{places['pyxsd']}' --config-file '{config}' \"$@\"\n")
    os.chmod(path, 0o755)
    return path


SCENARIOS = (
    Scenario(
        "state-update",
        "A live update to the same program, beside a client that asks without pause",
        "A host is not to be restarted for a new xenstored, and its guests are not to notice.",
        _update,
        unit="handover",
        axis="nodes, a hundredth of it domains",
        sizes=(1_000, 10_000, 100_000),
        prepare=prepare,
        main="max_us",
        needs="standin",
        kinds=("pyxsd", "oxenstored", "xenstored"),
    ),
    Scenario(
        "state-switch",
        "Another xenstored becomes pyxsd and itself again, beside such a client",
        "The way from and to what a distribution ships, while guests run.",
        _switch,
        unit="handover",
        axis="nodes, a hundredth of it domains",
        sizes=(1_000, 10_000, 100_000),
        prepare=prepare,
        main="max_us",
        needs="standin",
        kinds=("oxenstored", "xenstored"),
    ),
)
