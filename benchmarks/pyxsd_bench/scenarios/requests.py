# SPDX-License-Identifier: LGPL-2.1-or-later
"""Single requests of each kind, one at a time and with 32 in flight, and connection churn."""

from __future__ import annotations

from typing import Callable

from .. import wire
from ..measure import Sample
from ..program import ANY, Program
from ..target import Target
from .base import ROOT, VALUE, Context, Scenario, endless, grown, once

NODES = 256
HERE = f"{ROOT}/r"
Add = Callable[[Program, int], object]


def _node(i: int) -> str:
    return f"{HERE}/{i % NODES}"


def _mixed(p: Program, i: int) -> None:
    """The shares of real hosts, roughly: reads, writes, listings, permissions."""
    if i % 8 < 4:
        p.read(_node(i), VALUE)
    elif i % 8 < 6:
        p.write(_node(i), VALUE)
    elif i % 8 == 6:
        p.get_perms(_node(i))
    else:
        p.directory(_node(i), b"")


# What each kind of request does to node number i; two-request rows leave things as they were.
KINDS: tuple[tuple[str, Add], ...] = (
    ("read", lambda p, i: p.read(_node(i), VALUE)),
    ("read-missing", lambda p, i: p.read_missing(f"{HERE}/none")),
    ("write", lambda p, i: p.write(_node(i), VALUE)),
    ("directory", lambda p, i: p.directory(_node(i), b"")),
    ("get-perms", lambda p, i: p.get_perms(_node(i))),
    ("set-perms", lambda p, i: p.set_perms(_node(i), "n0", "r1")),
    ("mkdir-rm", lambda p, i: p.mkdir(f"{HERE}/new").rm(f"{HERE}/new")),
    (
        "watch-unwatch",
        lambda p, i: p.watch(f"{HERE}/w", 1, settle=False).unwatch(f"{HERE}/w", 1),
    ),
    ("domain-path", lambda p, i: p.send(wire.GET_DOMAIN_PATH, b"1\0", want=0, expect=ANY)),
    ("mixed", _mixed),
)


def _prepare(target: Target, size: int, context: Context) -> None:
    if grown(target, "requests", 1) or target.echo:
        return
    program = Program()
    for i in range(NODES):
        program.write(_node(i), VALUE)
    once(target, program)


def _program(add: Add) -> Program:
    program = Program()
    for i in range(NODES):
        add(program, i)
    return program


def _run(window: int) -> Callable[[Target, int, Context], dict[str, Sample]]:
    def run(target: Target, size: int, context: Context) -> dict[str, Sample]:
        return {
            name: endless(target, _program(add), context, window=window)
            for name, add in KINDS
            if not (target.echo and name == "read-missing")
        }

    return run


def _clients(target: Target, size: int, context: Context) -> dict[str, Sample]:
    return {"mixed": endless(target, _program(_mixed), context, conns=size)}


def _churn(target: Target, size: int, context: Context) -> dict[str, Sample]:
    program = Program()
    for i in range(16):
        program.mark().connect().read(_node(i), VALUE).close().lap(1)
    return {"read": endless(target, program, context, unit="request", hist=1)}


SCENARIOS = (
    Scenario(
        "one-at-a-time",
        "One request at a time",
        "A toolstack asks, waits, and asks again: this is what it waits for.",
        _run(1),
        prepare=_prepare,
        main="p50_us",
        floor=True,
    ),
    Scenario(
        "in-flight-32",
        "32 requests in flight on one connection",
        "The CPU that a request needs when sleeping and waking do not count.",
        _run(32),
        prepare=_prepare,
        floor=True,
    ),
    Scenario(
        "clients",
        "Many clients, each with one request at a time",
        "A host's daemons and device models all talk at once.",
        _clients,
        axis="clients",
        sizes=(1, 4, 16, 64, 256),
        prepare=_prepare,
        floor=True,
        fds=1,
    ),
    Scenario(
        "churn",
        "Connect, one read, close",
        "Each xenstore-read in a script is a connection of its own.",
        _churn,
        prepare=_prepare,
        floor=True,
        unit="connection",
    ),
)
