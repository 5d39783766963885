# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an attack is: one row of the table, and the small things that rows are made of.

The attackers come in teams, of one guest in most attacks: what cannot be done alone (a node of one
guest, watched by another) takes a team of two.  Each member has a role.  A role is either two
programs, one to set up and one to repeat without an end, which the compiled generator runs; or a
generator function in Python, for what no well-formed program does, such as half a packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple

from .. import wire
from ..program import BARRIER, EITHER, Program

if TYPE_CHECKING:
    from .stage import Stage

PREFIX = "attacks-"  # of the scenarios that are attacks

# What a guest may have under the default quotas of the three daemons, with a little room left.
NODES = 900
WATCHES = 100
TRANSACTIONS = 10
LENGTHS = (4, 60, 1000)  # entries of a permission list: some daemons have quotas of their own
VALUE = 2000
PATH = 2000
WINDOW = 16  # requests in flight: as many small ones as the ring of 1 KB takes


class Team(NamedTuple):
    """The domids of the guests that attack together, in the order of the attack's roles."""

    domids: tuple[int, ...]

    def home(self, role: int = 0) -> str:
        """The path below which the guest of this role may write."""
        return f"/local/domain/{self.domids[role]}"


Build = Callable[[Team], Program]
# Everything before the first `yield` is the set-up; each further `yield` ends one step of the
# attack and gives the number of requests that it sent.
Act = Callable[["Stage", Team], Iterator[int]]


class Role(NamedTuple):
    """What one member of a team does.

    `setup` runs once, `step` again and again with up to `window` requests in flight.
    `deaf`: it reads neither replies nor events once it is set up.
    `via`: "ring", or "socket" for a hostile process in dom0, with `conns` connections.
    """

    step: Build | None = None
    setup: Build | None = None
    window: int = WINDOW
    deaf: bool = False
    via: str = "ring"
    conns: int = 1


class Attack(NamedTuple):
    """One row of the table.  `act` takes the place of all roles' programs where it is given.

    `most`: so many teams at most take part where a thousand guests attack at once.
    """

    name: str
    title: str
    why: str
    roles: tuple[Role, ...] = (Role(),)
    act: Act | None = None
    most: int = 1000

    @property
    def guests(self) -> int:
        """How many guests a team has."""
        return sum(role.via == "ring" for role in self.roles)


def text(*parts: str) -> bytes:
    """Payload of parts that each end with a NUL."""
    return b"".join(part.encode("ascii") + b"\0" for part in parts)


def try_(program: Program, kind: int, payload: bytes, flags: int = 0) -> Program:
    """A request whose reply may be anything: each daemon has limits of its own."""
    return program.send(kind, payload, EITHER, flags=flags)


def deep(name: str, components: int = NODES) -> str:
    """A relative path of so many components, each one letter below `name`."""
    return name + "/a" * (components - 1)


def longest_list(program: Program, path: str, owner: int, domids: Sequence[int]) -> Program:
    """Gives a new node the longest list that the daemon accepts: of four domids, of 60, of all."""
    write(program, path)
    for length in LENGTHS:
        entries = permissions(f"n{owner}", domids[:length])
        try_(program, wire.SET_PERMS, text(path) + entries)
    return program


def permissions(first: str, domids: Sequence[int]) -> bytes:
    """The entries of a permission list as a payload: `first`, then readers."""
    return text(first, *(f"r{domid}" for domid in domids))


def write(program: Program, path: str, value: bytes = b"v") -> Program:
    return try_(program, wire.WRITE, text(path) + value)


def rm(program: Program, path: str) -> Program:
    return try_(program, wire.RM, text(path))


def watch(program: Program, path: str, token: str) -> Program:
    return try_(program, wire.WATCH, text(path, token))


def unwatch(program: Program, path: str, token: str) -> Program:
    return try_(program, wire.UNWATCH, text(path, token))


def mkdir(program: Program, path: str) -> Program:
    return try_(program, wire.MKDIR, text(path))


def end(program: Program) -> Program:
    """Commits the program's transaction, and goes on whether or not that succeeds."""
    try_(program, wire.TRANSACTION_END, b"T\0", flags=BARRIER)
    return program.leave_open()
