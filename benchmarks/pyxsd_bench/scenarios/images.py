# SPDX-License-Identifier: LGPL-2.1-or-later
"""Also of the group `state`: what clients feel of the images that crash recovery writes.

One client reads a node without pause, one READ at a time, while others change nodes in bulk, so
that one image follows the other.  What counts is the longest time that it waits for an answer.
Without crash recovery the same shows what the others alone make it wait.
"""

from __future__ import annotations

from ..measure import Sample, timed
from ..program import Program
from ..target import Target
from . import crash, state
from .base import VALUE, Context, Scenario, kept

WRITERS, WINDOW = 2, 8
APART = 32  # of the nodes of a domain, those that are changed
ASKED = 1  # the class of the READs that count


def _changes(writer: int, size: int) -> Program:
    """Nodes in the homes of all domains, so that an image finds many to keep as they were."""
    program = Program()
    domains = min(size // state.NODES, crash.DOMAINS_MAX)
    for i in range(1, state.NODES - 4, APART):
        for domid in range(1 + writer, domains + 1, WRITERS):
            program.write(f"/local/domain/{domid}/data/{i}", VALUE)
    return program


def _run(target: Target, size: int, context: Context) -> dict[str, Sample]:
    load = kept(target, "rings")
    if "changing" not in target.state:
        idle = load.program(Program().idle())
        target.state["changing"] = [
            load.connect(target.socket, idle, loops=1) for _ in range(1 + WRITERS)
        ]
        load.finish(target.alive)
    reader, *writers = target.state["changing"]
    load.restart(reader, Program().read(state.ASKED, VALUE, hist=ASKED), loops=0)
    for number, conn in enumerate(writers):
        load.restart(conn, _changes(number, size), window=WINDOW, loops=0)
    return {"read": timed(target, load, context.seconds, hist=ASKED, syscalls=context.syscalls)}


SCENARIOS = (
    Scenario(
        "state-images",
        "A READ at a time, while images of a store that others change are written",
        "An image is written while the daemon serves, and nobody is to wait for it.",
        _run,
        axis="nodes, a hundredth of it domains",
        sizes=(10_000, 100_000, 1_000_000),
        prepare=crash.prepare,
        main="max_us",
        needs="standin",
        fds=crash.IDLE_SHARE,
        memory=2_000,
        kinds=("pyxsd",),
    ),
)
