# SPDX-License-Identifier: LGPL-2.1-or-later
"""One request at a time, by where client and daemon run: the one figure that depends on it most."""

from __future__ import annotations

from typing import Callable

from .. import placement
from ..measure import Sample
from ..program import Program
from ..target import Target
from . import rings
from .base import ROOT, VALUE, Context, Scenario, endless, grown, once

HERE = f"{ROOT}/p"
NODES = 16
WHY = "Who has no CPU of its own must sleep before the other can answer; polling then costs time."
Measure = Callable[[Target, Context], Sample]


def _prepare(target: Target, size: int, context: Context) -> None:
    if grown(target, "placements", 1) or target.echo:
        return
    program = Program()
    for i in range(NODES):
        program.write(f"{HERE}/{i}", VALUE)
    once(target, program)


def _read(target: Target, context: Context) -> Sample:
    program = Program()
    for i in range(NODES):
        program.read(f"{HERE}/{i}", VALUE)
    return endless(target, program, context)


def _transaction(target: Target, context: Context) -> Sample:
    """Start, five reads, five writes, end; the sample's figures are those of one transaction."""
    program = Program().mark().start()
    for i in range(5):
        program.read(f"{HERE}/{i}", VALUE).write(f"{HERE}/{i}", VALUE)
    return endless(target, program.commit().lap(1), context, unit="loop", hist=1)


def _ring_read(target: Target, context: Context) -> Sample:
    return rings.busy(target, target.state["ring-conns"][:1], 1, rings.NODES, context)


def _everywhere(rows: dict[str, Measure], target: Target, context: Context) -> dict[str, Sample]:
    found = {}
    for name, measure in rows.items():
        for place in placement.ALL:
            if placement.possible(place, context.cpus):
                with placement.placed(target.pid, place, context.cpus):
                    found[f"{name}, {placement.TITLES[place]}"] = measure(target, context)
    return found


def _sockets(target: Target, size: int, context: Context) -> dict[str, Sample]:
    rows: dict[str, Measure] = {"read": _read}
    if not target.echo:  # an echo is no transaction's id
        rows["transaction of 12"] = _transaction
    return _everywhere(rows, target, context)


def _rings(target: Target, size: int, context: Context) -> dict[str, Sample]:
    return _everywhere({"read": _ring_read}, target, context)


SCENARIOS = (
    Scenario(
        "placement-socket",
        "One at a time over a socket, by where client and daemon run",
        WHY,
        _sockets,
        prepare=_prepare,
        main="rate",
        floor=True,
    ),
    Scenario(
        "placement-ring",
        "One at a time over a ring, by where guest and daemon run",
        WHY,
        _rings,
        prepare=rings.prepare,
        main="rate",
        needs="standin",
    ),
)
