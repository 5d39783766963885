# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories of many children: /local/domain, /vm and the backends on a host with many guests."""

from __future__ import annotations

from .. import wire
from ..load import LoadError
from ..measure import Sample
from ..program import ANY, Program
from ..target import Target
from .base import ROOT, VALUE, Context, Scenario, endless, grown, once

WIDE = f"{ROOT}/wide"
LISTABLE = 500  # so many names of seven digits fit into one reply


def name(i: int) -> str:
    """Child i, spread over the order of the names."""
    return f"{i * 7919 % 10000000:07d}"


def _prepare(target: Target, size: int, context: Context) -> None:
    before = grown(target, "wide", size)
    for first in range(before, size, 10000):
        program = Program()
        for i in range(first, min(first + 10000, size)):
            program.write(f"{WIDE}/{name(i)}", VALUE)
        once(target, program)


def _run(target: Target, size: int, context: Context) -> dict[str, Sample]:
    create, transaction = Program(), Program()
    for i in range(16):
        path = f"{WIDE}/new{i}"
        create.write(path, VALUE).rm(path)
    transaction.mark().start()
    for i in range(5):
        transaction.write(f"{WIDE}/{name(i * (size // 5))}", VALUE)
    transaction.commit().lap(1)
    found = {
        "create and remove": endless(target, create, context, window=2, per=2),
        "transaction of 5 writes": endless(
            target, transaction, context, unit="loop", window=8, hist=1
        ),
    }
    if size <= LISTABLE:
        listing = Program().directory(WIDE)
        found["list"] = endless(target, listing, context)
    elif _lists_parts(target):
        found["list"] = endless(target, _part(), context)
    return found


def _part() -> Program:
    return Program().send(wire.DIRECTORY_PART, f"{WIDE}\0".encode() + b"0\0", expect=ANY)


def _lists_parts(target: Target) -> bool:
    """Whether the daemon knows DIRECTORY_PART; oxenstored 4.17 does not."""
    if "lists-parts" not in target.state:
        try:
            once(target, _part())
            target.state["lists-parts"] = True
        except LoadError as error:
            if "ENOSYS" not in str(error):
                raise
            target.state["lists-parts"] = False
    known: bool = target.state["lists-parts"]
    return known


SCENARIOS = (
    Scenario(
        "directory-width",
        "In a directory of many children",
        "A change beside n siblings should not cost n; listing costs what it returns.",
        _run,
        unit="operation",
        axis="children",
        sizes=(10, 100, 1000, 10000, 100000),
        prepare=_prepare,
        memory=1500,
    ),
)
