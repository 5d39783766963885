# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions: small and large, disjoint and in each other's way, and many left open."""

from __future__ import annotations

from typing import Callable

from ..measure import Sample, timed
from ..program import Program
from ..target import Target
from .base import ROOT, VALUE, Context, Scenario, grown, kept, once

HERE = f"{ROOT}/t"
CLIENTS = 16
PER_CONN = 100


def _prepare(target: Target, size: int, context: Context) -> None:
    if grown(target, "transactions", 1):
        return
    program = Program()
    for client in range(CLIENTS):
        for i in range(10):
            program.write(f"{HERE}/{client}/{i}", VALUE)
    program.write(f"{HERE}/counter", b"0")
    once(target, program)


def _disjoint(client: int) -> Program:
    program = Program().mark().start()
    for i in range(5):
        node = f"{HERE}/{client}/{i}"
        program.read(node, VALUE).write(node, VALUE)
    return program.commit().lap(1)


def _conflicting(client: int) -> Program:
    """What guests do with a shared counter: read, write, hope."""
    program = Program().mark().start().read(f"{HERE}/counter")
    return program.write(f"{HERE}/counter", b"%d" % client).commit().lap(1)


def _conflicts(target: Target, size: int, context: Context) -> dict[str, Sample]:
    rows: tuple[tuple[str, Callable[[int], Program]], ...] = (
        ("disjoint", _disjoint),
        ("one counter", _conflicting),
    )
    found = {}
    for name, build in rows:
        with target.load() as load:
            for client in range(size):
                load.connect(target.socket, build(client), window=16)
            found[name] = timed(
                target, load, context.seconds, unit="loop", hist=1, syscalls=context.syscalls
            )
    return found


def _length(target: Target, size: int, context: Context) -> dict[str, Sample]:
    program = Program().mark().start()
    for i in range(size):
        program.write(f"{HERE}/long/{i % 100}", VALUE)
    program.commit().lap(1)
    with target.load() as load:
        load.connect(target.socket, program, window=64)
        return {
            "write": timed(
                target,
                load,
                context.seconds,
                hist=1,
                syscalls=context.syscalls,
            )
        }


def _open_prepare(target: Target, size: int, context: Context) -> None:
    _prepare(target, size, context)
    before = grown(target, "open", size)
    load = kept(target, "open-load")
    for first in range(before, size, PER_CONN):
        program = Program()
        for i in range(first, min(first + PER_CONN, size)):
            program.start().write(f"{HERE}/open/{i}", VALUE)
            program.leave_open()
        load.connect(target.socket, program.idle(), window=1, loops=1)
    load.finish(target.alive)


def _open(target: Target, size: int, context: Context) -> dict[str, Sample]:
    with target.load() as load:
        load.connect(target.socket, _disjoint(0), window=16)
        return {
            "transaction": timed(
                target, load, context.seconds, unit="loop", hist=1, syscalls=context.syscalls
            )
        }


SCENARIOS = (
    Scenario(
        "transaction-clients",
        "Transactions of several clients at once",
        "Toolstacks start guests in parallel; disjoint work should not conflict.",
        _conflicts,
        unit="transaction",
        axis="clients",
        sizes=(1, 2, 4, 8, 16),
        prepare=_prepare,
    ),
    Scenario(
        "transaction-length",
        "Writes inside one transaction",
        "A write in a long transaction should cost what it costs outside.",
        _length,
        axis="writes in it",
        sizes=(1, 10, 100, 1000),
        prepare=_prepare,
    ),
    Scenario(
        "open-transactions",
        "Beside transactions that were left open",
        "Clients crash or forget; old Windows drivers leak transactions.",
        _open,
        unit="transaction",
        axis="open transactions",
        sizes=(0, 10, 100, 1000),
        prepare=_open_prepare,
        fds=0.02,
    ),
)
