# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replays a transcript of a real oxenstored and compares every answer.

The transcripts in data/ are JSON lines; the first names the configuration, each
other one is a step: a request with its reply and what events every connection
had received by then, or a change of a domain's state (see data/README).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyxsd.system.configuration import Config, parse
from tests.fakexen import RingWorld
from tests.world import ERROR, EVENT, TYPES, World, packet

DATA = Path(__file__).parent / "data"
NAMES = {number: name for name, number in TYPES.items()}

#: Events that are missing on purpose: transcript: (from this step on, whose, below this path).
#: The right over domain 4 that SET_TARGET gave domain 3 has ended with the first domain 4.
NOT_SENT = {"lifecycle-2": (441, "d3", b"/local/domain/4")}


def transcripts(*without: str) -> list[str]:
    """The names of all transcripts but those of some profiles."""
    return sorted(p.stem for p in DATA.glob("*.jsonl") if p.stem.split("-")[0] not in without)


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(head, steps) of a transcript."""
    with (DATA / f"{name}.jsonl").open() as lines:
        head, *steps = (json.loads(line) for line in lines)
    return head, steps


def configuration(head: dict[str, Any]) -> Config:
    """The configuration a transcript was made with."""
    config, warnings = parse("\n".join(head["config"]).encode())
    assert not warnings, warnings
    return config


def same_events(expected: list[bytes], got: list[bytes]) -> bool:
    """Equal but for order; of identical ones pyxsd may have merged some.

    That is the deviation "merging of identical queued events".
    """
    want, have = Counter(expected), Counter(got)
    return set(want) == set(have) and all(have[event] <= want[event] for event in have)


class Player:
    """Feeds the steps of one transcript to a world."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.slots: dict[tuple[str, int], int] = {}

    def prepare(self) -> None:
        """What every profile but lifecycle starts with."""
        self.world.connection("s0")
        self.world.connection("s1")
        for domid in (1, 2):
            home = b"/local/domain/%d\0" % domid
            self.world.ask("s0", "INTRODUCE", b"%d\x004660\x007\0" % domid)
            self.world.ask("s0", "MKDIR", home)
            self.world.ask("s0", "SET_PERMS", home + b"n%d\0" % domid)

    def tx_id(self, step: dict[str, Any]) -> int:
        slot = step["tx"]
        if step["type"] == "TRANSACTION_START" or slot in (0, 9999):
            return 0 if step["type"] == "TRANSACTION_START" and slot != 9999 else slot
        return self.slots.get((step["conn"], slot), slot)

    def request(self, step: dict[str, Any]) -> bytes:
        """The packet of a step."""
        return packet(step["type"], bytes.fromhex(step["payload"]), self.tx_id(step))

    def check(
        self,
        number: int,
        step: dict[str, Any],
        reply: tuple[int, bytes],
        events: dict[str, list[bytes]],
    ) -> None:
        """Compares what came with what oxenstored answered."""
        where = (
            f"{self.name} step {number} {step.get('conn')} {step.get('type')} "
            f"tx {step.get('tx')} {bytes.fromhex(step.get('payload', ''))!r}"
        )
        if "reply" in step:
            want_type, want_body = step["reply"][0], bytes.fromhex(step["reply"][1])
            want_number = TYPES[want_type] if isinstance(want_type, str) else want_type
            got_type, got_body = reply
            if want_body == b"<tid>":
                assert got_type == want_number, where
                self.slots[step["conn"], step["tx"]] = int(got_body.rstrip(b"\0"))
            elif (
                want_number in (TYPES["DIRECTORY_PART"], TYPES["CONTROL"])
                and got_type == want_number == TYPES["DIRECTORY_PART"]
            ):
                # The generation count is the daemon's own.
                assert got_body.split(b"\0", 1)[1] == want_body.split(b"\0", 1)[1], where
            elif step["type"] == "DIRECTORY_PART" and step["conn"][0] == "d":
                pass  # guests may ask for it, too
            else:
                assert (NAMES.get(got_type, got_type), got_body) == (
                    NAMES.get(want_number, want_number),
                    want_body,
                ), where
        since, whose, below = NOT_SENT.get(self.name, (1 << 30, "", b""))
        for name in set(step["events"]) | set(events):
            want = [bytes.fromhex(event) for event in step["events"].get(name, [])]
            if number >= since and name == whose:
                want = [event for event in want if not event.startswith(below)]
            got = events.get(name, [])
            assert same_events(want, got), f"{where}\nevents of {name}: {got}\nexpected {want}"


def play(
    name: str,
    pieces: bool = False,
    rings: bool = False,
    after: Callable[[World, int], None] | None = None,
) -> World:
    """Replays a transcript packet by packet, or byte by byte with `pieces`.

    With `rings` over the real transports: socket pairs, and pages for domains.
    Else all are byte queues.  after(world, number) is called behind each step.
    """
    head, steps = load(name)
    world = RingWorld(configuration(head), sockets=True) if rings else World(configuration(head))
    player = Player(name, world)
    if head["profile"] != "lifecycle":
        if isinstance(world, RingWorld):
            world.guest(1)
            world.guest(2)
        player.prepare()
    else:
        world.connection("s0")
        world.connection("s1")
    for number, step in enumerate(steps, 2):
        conn = step.get("conn", "")
        if not conn:
            assert isinstance(world, RingWorld)
            if step["do"] == "guest":
                world.guest(step["dom"])
            else:
                # The library of that daemon had one flag for domains that are dying and dead.
                state = "dead" if step["state"] == "dying" else step["state"]
                world.xen.set_state(step["dom"], state)
                world.virq()
        else:
            if step["type"] == "INTRODUCE" and isinstance(world, RingWorld):
                # The recorded daemon did not ask whether a domain that it introduces is alive.
                world.xen.fail.add("state")
            data = player.request(step)
            if pieces:
                for i in range(len(data)):
                    world.feed(conn, data[i : i + 1])
            else:
                world.feed(conn, data)
            if isinstance(world, RingWorld):
                world.xen.fail.discard("state")
        reply: tuple[int, bytes] | None = None
        events: dict[str, list[bytes]] = {}
        for who in ["s0", "s1", *(f"d{domid}" for domid in list(world.server.domains))]:
            if who[0] == "d":
                world.feed(who, b"")  # lets it read all there is
            for got, _, _, body in world.drain(who):
                if got == EVENT:
                    events.setdefault(who, []).append(body)
                else:
                    assert who == conn and reply is None, (number, step, who, got, body)
                    reply = (got, body)
        if conn and reply is None:
            raise AssertionError(f"{name} step {number}: no reply: {step}")
        player.check(number, step, reply or (-1, b""), events)
        if after is not None:
            after(world, number)
    return world


__all__ = ["ERROR", "Player", "load", "play", "transcripts"]
