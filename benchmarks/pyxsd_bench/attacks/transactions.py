# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks with transactions: repeated work, blame, and what an open transaction keeps alive."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import wire
from ..program import BARRIER, IN_TX, Program
from .blind import Blind
from .model import (
    NODES,
    TRANSACTIONS,
    VALUE,
    Attack,
    Role,
    Team,
    deep,
    end,
    longest_list,
    rm,
    text,
    try_,
    write,
)

if TYPE_CHECKING:
    from .stage import Stage

PAIRS = 50  # WRITE and RM in a transaction; more of them take some daemons minutes
READS = 900
WRITES = 8
PATIENCE_S = 5.0


def _shared(team: Team) -> Program:
    """A node of the first guest that its accomplice may write."""
    other = team.domids[1]
    entries = text("shared", f"n{team.domids[0]}", f"b{other}")
    return try_(write(Program(), "shared"), wire.SET_PERMS, entries)


def _make_deep(team: Team) -> Program:
    return write(Program(), deep("d"))


def _write_deep(team: Team) -> Program:
    return write(write(Program(), deep("d"), b"one"), deep("d"), b"two")


def _keep_open(team: Team) -> Program:
    """A transaction makes the daemon keep the changes of others for some seconds."""
    program = Program()
    program.start()
    return try_(program, wire.READ, text(team.home())).leave_open()


def _long_transaction(program: Program) -> Program:
    """What is dear comes first, what conflicts comes last."""
    program.start()
    for _ in range(PAIRS):
        rm(write(program, deep("d")), "d")
    try_(program, wire.READ, text("shared"))
    return write(program, "shared", b"mine").leave_open()


def _open_one(team: Team) -> Program:
    return _long_transaction(_shared(team))


def _commit_it(team: Team) -> Program:
    """Ends the transaction that is open, and makes the next one."""
    program = try_(Program(), wire.TRANSACTION_END, b"T\0", flags=BARRIER | IN_TX)
    return _long_transaction(program)


def _interfere(team: Team) -> Program:
    """Eight other values, written while the transaction is open."""
    program = Program()
    for i in range(WRITES):
        write(program, f"{team.home()}/shared", b"%d" % i)
    return program


def _own_conflict(stage: Stage, team: Team) -> Iterator[int]:
    guest = stage.guest(team.domids[0])
    for i in range(NODES // 2):
        guest.request(wire.WRITE, text(f"l/{i:04d}"))
    yield 0
    for kind in itertools.cycle((wire.WRITE, wire.RM)):
        tx_id = number(guest.request(wire.TRANSACTION_START, b"\0").payload)
        for _ in range(READS):
            guest.request(wire.DIRECTORY, text("l"), tx_id=tx_id)
        guest.request(wire.WRITE, text("inside"), tx_id=tx_id)
        guest.request(kind, text("l/outside"))
        guest.request(wire.TRANSACTION_END, b"T\0", tx_id=tx_id)
        yield READS + 4


def number(payload: bytes) -> int:
    """A transaction's id; 0 where the daemon gave none."""
    digits = payload.rstrip(b"\0")
    return int(digits) if digits.isdigit() else 0


def _edges(stage: Stage, team: Team) -> Iterator[int]:
    """Each transaction alone keeps the quota of nodes; all of them together do not."""
    guest = stage.guest(team.domids[0])
    yield 0
    while True:
        ids = [
            number(guest.request(wire.TRANSACTION_START, b"\0").payload)
            for _ in range(TRANSACTIONS)
        ]
        for i, tx_id in enumerate(ids):
            guest.request(wire.WRITE, text(deep(f"q{i}")), tx_id=tx_id)
        for tx_id in ids:
            guest.request(wire.TRANSACTION_END, b"T\0", tx_id=tx_id)
        for i in range(TRANSACTIONS):
            guest.request(wire.RM, text(f"q{i}"))
        yield 4 * TRANSACTIONS


def _lists(team: Team) -> Program:
    """A node whose permissions do not fit into a reply where the daemon accepts so many."""
    return longest_list(Program(), "p0", team.domids[0], [-1] * 1000)


def _pinned(program: Program, kind: int, path: str) -> Program:
    for _ in range(TRANSACTIONS):
        program.start()
        for _ in range(READS):
            try_(program, kind, text(path))
        program.leave_open()
    return program


def _pinned_lists(team: Team) -> Program:
    return _pinned(_lists(team), wire.GET_PERMS, "p0")


def _pinned_reads(team: Team) -> Program:
    return _pinned(write(Program(), "v", b"v" * VALUE), wire.READ, "v")


def _pinned_writes(team: Team) -> Program:
    program = Program()
    for _ in range(TRANSACTIONS):
        program.start()
        for i in range(READS):
            write(program, f"v{i}", b"v" * VALUE)
        program.leave_open()
    return program


def _states(stage: Stage, team: Team) -> Iterator[int]:
    """Open transactions, each begun in another state of all the guest's nodes.

    Fewer of them where the daemon takes too long: C xenstored needs 2 ms for each of the writes.
    """
    guest = stage.guest(team.domids[0])
    end_of_patience = time.monotonic() + PATIENCE_S
    for i in range(TRANSACTIONS):
        if time.monotonic() > end_of_patience:
            break
        for k in range(NODES):
            guest.request(wire.WRITE, text(f"v{k}") + b"%d" % i + b"v" * VALUE)
        tx_id = number(guest.request(wire.TRANSACTION_START, b"\0").payload)
        if tx_id:
            guest.request(wire.READ, text("v0"), tx_id=tx_id)
    value = b"w" * VALUE
    packets = [wire.packet(wire.WRITE, 1, text(f"v{k}") + value) for k in range(NODES)]
    writing = Blind(guest, packets)
    yield 0
    while True:
        yield writing.push()


def _reading(team: Team) -> Program:
    return try_(Program(), wire.READ, text(team.home()))


def _writing(team: Team) -> Program:
    return write(Program(), "v", b"w" * VALUE)


def _counter(team: Team) -> Program:
    program = try_(Program().start(), wire.READ, text(f"{team.home()}/shared"))
    return end(write(program, f"{team.home()}/shared"))


ATTACKS = (
    Attack(
        "replay-and-blame",
        f"{PAIRS} deep WRITEs and RMs in a transaction, and an accomplice that makes it conflict",
        "A commit that repeats the transaction, or asks who is to blame, costs all of it again.",
        (Role(_commit_it, _open_one), Role(_interfere, _interfere)),
        most=50,
    ),
    Attack(
        "own-conflict",
        f"{READS} DIRECTORYs in a transaction that conflicts with the guest's own write",
        "Looking for who is to blame costs what the transaction read.",
        act=_own_conflict,
        most=100,
    ),
    Attack(
        "conflict-storm",
        "Two guests with transactions on one node",
        "Half of all commits fail and are repeated.",
        (Role(_counter, _shared), Role(_counter)),
    ),
    Attack(
        "quota-edges",
        f"{TRANSACTIONS} transactions of {NODES} nodes each, committed together",
        "Each keeps the quota alone; a merge that does not count again exceeds it tenfold.",
        act=_edges,
        most=100,
    ),
    Attack(
        "pinned-lists",
        f"{TRANSACTIONS} open transactions with {READS} GET_PERMS of long lists each",
        "A transaction that remembers replies keeps 4 to 20 KB for a request of 20 bytes.",
        (Role(_reading, _pinned_lists),),
        most=100,
    ),
    Attack(
        "pinned-reads",
        f"{TRANSACTIONS} open transactions with {READS} READs of {VALUE} bytes, and writes beside",
        "The same with READ; and whoever writes may be asked what he does to all of them.",
        (Role(_writing, _pinned_reads),),
        most=100,
    ),
    Attack(
        "pinned-writes",
        f"{TRANSACTIONS} open transactions with {READS} nodes of {VALUE} bytes each",
        "What is written and not committed is counted by no quota of nodes outside.",
        (Role(_reading, _pinned_writes),),
        most=100,
    ),
    Attack(
        "pinned-states",
        f"{TRANSACTIONS} open transactions, each begun before all nodes were written again",
        "Each keeps a state of the store alive that nobody else sees any more.",
        act=_states,
        most=100,
    ),
    Attack(
        "deep-history",
        "WRITEs at the end of a deep path while a transaction is open",
        "Whoever keeps the store of before each change, to find the guilty, copies the whole path.",
        (Role(_write_deep, _make_deep), Role(_reading, _keep_open)),
        most=100,
    ),
)
