# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks with watches: many of one node, deep ones, refused ones, events that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import wire
from ..program import Program
from .blind import Blind
from .model import (
    PATH,
    WATCHES,
    Attack,
    Role,
    Team,
    longest_list,
    rm,
    text,
    try_,
    unwatch,
    watch,
    write,
)

if TYPE_CHECKING:
    from .stage import Stage

REFUSED = 1000  # entries of the list that the watcher is not in
TOKEN = "t" * 1000
CHANGED = 800  # nodes that are written in turn
TURN = 64  # bytes that a slow reader takes in one step
QUEUED = 1500  # writes whose events wait before the reader begins


def _owned(team: Team) -> Program:
    return longest_list(Program(), "x", team.domids[0], [-1] * REFUSED)


def _watch_owned(team: Team) -> Program:
    program = Program()
    for i in range(WATCHES):
        watch(program, f"{team.home()}/x", f"{i}")
    return program


def _write_x(team: Team) -> Program:
    return write(Program(), "x")


def _deep_watches(team: Team) -> Program:
    program = Program()
    for i in range(WATCHES):
        name = f"w/{i}"
        watch(program, name + "/a" * ((PATH - len(name)) // 2), f"{i}")
    return program


def _wide_watches(team: Team) -> Program:
    program = Program()
    for i in range(WATCHES):
        watch(program, f"w/{i}", f"{i}")
    return program


def _root(team: Team) -> Program:
    return rm(write(Program(), "w"), "w")


def _root_rights(team: Team) -> Program:
    """Changes at the root that keep it."""
    program, own = write(Program(), "w"), f"n{team.domids[0]}"
    for other in ("r2", "r3"):
        try_(program, wire.SET_PERMS, text("w", own, other))
    return program


def _same_watches(team: Team) -> Program:
    program = Program()
    for i in range(WATCHES):
        watch(program, "x", f"{i}")
    return program


def _everything(team: Team) -> Program:
    program = Program()
    for i in range(WATCHES):
        watch(program, "/", f"{i}")
    return program


def _long_path(number: int) -> str:
    return "e/" + "/".join("p" * 200 for _ in range(9)) + f"/{number}"


def _readable(team: Team, path: str) -> Program:
    """A node that the second guest may read; what is made below it, too."""
    owner, watcher = team.domids
    entries = text(path, f"n{owner}", f"r{watcher}")
    return try_(write(Program(), path), wire.SET_PERMS, entries)


def _long_node(team: Team) -> Program:
    return _readable(team, "e")


def _long_watches(team: Team) -> Program:
    program = Program()
    for i in range(WATCHES):
        watch(program, f"{team.home()}/e", f"{TOKEN}{i}")
    return program


def _write_long(team: Team) -> Program:
    """Each at another path, so that no two events are alike."""
    program = Program()
    for i in range(CHANGED):
        write(program, _long_path(i))
    return program


def _own_events(team: Team) -> Program:
    program = Program()
    for i in range(CHANGED):
        write(program, f"x/{i}")
    return program


def _one_byte(stage: Stage, team: Team) -> Iterator[int]:
    """The watcher takes its events a byte at a time, while the writer makes more of them."""
    writer, watcher = (stage.guest(domid) for domid in team.domids)
    writer.request(wire.WRITE, text("x") + b"v")
    writer.request(wire.SET_PERMS, text("x", f"n{team.domids[0]}", f"r{team.domids[1]}"))
    for i in range(WATCHES):
        watcher.request(wire.WATCH, text(f"{team.home()}/x", f"{i}"))
    packets = [wire.packet(wire.WRITE, 1, text(f"x/{i}") + b"v") for i in range(CHANGED)]
    writing = Blind(writer, packets)
    patience = 0
    while writing.sent < QUEUED and patience < 50:
        # The writer has to wait as soon as too many events of its wait.
        patience = 0 if writing.push() else patience + 1
        writer.host.wait(0.0 if not patience else 0.001)
    yield 0
    while True:
        for _ in range(TURN):
            watcher.read(1)
            watcher.kick()
        writing.push()
        yield TURN


def _events_too_long(stage: Stage, team: Team) -> Iterator[int]:
    """Blind: there are daemons that send such an event, and the rest of it is no packet."""
    guest = stage.guest(team.domids[0])
    # The event would hold this token and a path: more than a packet can.
    guest.request(wire.WATCH, text("y", "t" * (wire.PAYLOAD_MAX - 10)))
    path = "y/" + "/".join("p" * 200 for _ in range(9))
    writing = Blind(
        guest,
        [wire.packet(wire.WRITE, 1, text(path) + b"v"), wire.packet(wire.RM, 1, text("y"))],
    )
    yield 0
    while True:
        yield writing.push()


def _on_and_off(team: Team) -> Program:
    program = Program()
    path = "w" + "/a" * 1000
    for i in range(8):
        watch(program, path, f"{i}")
    for i in range(8):
        unwatch(program, path, f"{i}")
    return program


def _reset(team: Team) -> Program:
    program = Program()
    for i in range(20):
        watch(program, f"w/{i}" + "/a" * 900, f"{i}")
    return try_(program, wire.RESET_WATCHES, b"\0")


def _special(stage: Stage, team: Team) -> Iterator[int]:
    """The guest watches what only dom0 may see; then domains come and go."""
    guest = stage.guest(team.domids[0])
    for i in range(WATCHES // 2):
        guest.request(wire.WATCH, text("@introduceDomain", f"{i}"))
        guest.request(wire.WATCH, text("@releaseDomain", f"{i}"))
    yield 0
    number = 0
    while True:
        stage.come_and_go(20000 + number % 1000)
        guest.read()
        number += 1
        yield 2


ATTACKS = (
    Attack(
        "refused-watchers",
        "A node with a long permission list, and watchers that may not see it",
        "Each change asks for 100 watches whether they may see the node, and says no 100 times.",
        (Role(_write_x, _owned), Role(None, _watch_owned)),
    ),
    Attack(
        "deep-watches",
        f"{WATCHES} watches 1,000 levels deep, and changes at their root",
        "An RM fires all that is below, and what is below has 100,000 components.",
        (Role(_root, _deep_watches),),
        most=100,
    ),
    Attack(
        "wide-watches",
        f"{WATCHES} watches below one node, and changes at it",
        "An RM fires each of them; the creation of the node none.",
        (Role(_root, _wide_watches),),
    ),
    Attack(
        "root-rights",
        "WRITE and SET_PERMS of a node with deep watches below",
        "A change of rights at the root concerns no watch below it, if the daemon knows that.",
        (Role(_root_rights, _deep_watches),),
        most=100,
    ),
    Attack(
        "many-watches",
        f"{WATCHES} watches on one node, and writes of it",
        "A request of 20 bytes that makes 100 events.",
        (Role(_own_events, _same_watches),),
    ),
    Attack(
        "watches-of-everything",
        f"{WATCHES} watches on /, and writes",
        "Each change anywhere, by anybody, asks whether the guest may see it, 100 times.",
        (Role(_write_x, _everything),),
    ),
    Attack(
        "events-wait",
        "A watcher that never reads, and a neighbour that makes events for it",
        "Events of 3 KB wait for each of 100 watches; beyond the limit the cause of them waits.",
        (Role(_write_long, _long_node), Role(None, _long_watches, deaf=True)),
    ),
    Attack(
        "own-events-wait",
        "A guest that makes its own events and never reads",
        "The same alone: replies and events share one ring of 1 KB.",
        (Role(_own_events, _same_watches, deaf=True),),
    ),
    Attack(
        "one-byte-reader",
        "A reader that takes one byte at a time of a full queue",
        "Each byte that leaves is an occasion to look at all that waits.",
        (Role(), Role()),
        act=_one_byte,
        most=100,
    ),
    Attack(
        "events-too-long",
        "Events that do not fit into a packet",
        "They are dropped with a warning; a guest that can make warnings can fill logs.",
        act=_events_too_long,
    ),
    Attack(
        "watch-unwatch",
        "WATCH and UNWATCH of deep paths",
        "Each comes and goes with the 1,000 components of its path.",
        (Role(_on_and_off),),
    ),
    Attack(
        "reset-watches",
        "Watches, and RESET_WATCHES",
        "One request of 17 bytes that takes down many watches.",
        (Role(_reset),),
    ),
    Attack(
        "special-watches",
        "Watches of @introduceDomain and @releaseDomain while domains come and go",
        "Guests may watch these names and must not be told; asking costs.",
        act=_special,
    ),
)
