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
ASKED = 1  # the class of the READs that count


def _changes(writer: int) -> Program:
    """Nodes all over the store, each of which an image has to keep as it was."""
    program = Program()
    for i in range(1, state.NODES - 4):
        program.write(f"/local/domain/{1 + writer}/data/{i}", VALUE)
    return program


def _run(target: Target, size: int, context: Context) -> dict[str, Sample]:
    load = kept(target, "rings")
    if "changing" not in target.state:
        idle = load.program(Program().idle())
        target.state["changing"] = [
            (load.connect(target.socket, idle, loops=1), load.program(program), window)
            for program, window in (
                (Program().read(state.ASKED, VALUE, hist=ASKED), 1),
                *((_changes(n), WINDOW) for n in range(WRITERS)),
            )
        ]
        load.finish(target.alive)
    for conn, program, window in target.state["changing"]:
        load.restart(conn, program, window=window, loops=0)
    found = timed(target, load, context.seconds, hist=ASKED, syscalls=context.syscalls)
    load.drain()
    return {"read": found}


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
