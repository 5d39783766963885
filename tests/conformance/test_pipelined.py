# SPDX-License-Identifier: LGPL-2.1-or-later
"""The transcripts again, with the bytes cut in other places.

Pipelined: consecutive requests of one connection go in as one piece, as far as
no reply is needed for the next (TRANSACTION_START gives an id that later ones
carry).  Random pieces: the same bytes cut anywhere, from a fixed seed.  Replies
are compared one by one; events as what the whole run of requests caused, of
identical ones possibly fewer (those still queued are merged).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.replay import Player, configuration, load, same_events, transcripts
from tests.world import EVENT, TYPES, World

IN_PROCESS = transcripts("lifecycle")
Step = dict[str, Any]


def runs(steps: list[Step]) -> Iterator[list[Step]]:
    """Consecutive steps of one connection that need no reply in between."""
    run: list[Step] = []
    for step in steps:
        if run and step["conn"] != run[0]["conn"]:
            yield run
            run = []
        run.append(step)
        if step["type"] == "TRANSACTION_START":
            yield run
            run = []
    if run:
        yield run


def pieces(data: bytes, cuts: random.Random) -> Iterator[bytes]:
    """The bytes in random pieces, many of them small."""
    while data:
        n = cuts.choice((1, 3, 15, 16, 17, 100, 1000))
        yield data[:n]
        data = data[n:]


def drained(world: World, conn: str) -> tuple[list[tuple[int, bytes]], dict[str, list[bytes]]]:
    """(replies of conn, events of all)."""
    replies: list[tuple[int, bytes]] = []
    events: dict[str, list[bytes]] = {}
    for name in world.names():
        for got, _, _, body in world.drain(name):
            if got == EVENT:
                events.setdefault(name, []).append(body)
            else:
                assert name == conn, (name, got, body)
                replies.append((got, body))
    return replies, events


def play_runs(name: str, cuts: random.Random | None = None) -> None:
    """Replays a transcript run by run."""
    head, steps = load(name)
    world = World(configuration(head))
    player = Player(name, world)
    player.prepare()
    joined = 0
    number = 2
    for run in runs(steps):
        conn = run[0]["conn"]
        data = b"".join(player.request(step) for step in run)
        joined = max(joined, len(run))
        if cuts is None:
            world.feed(conn, data)
        else:
            for piece in pieces(data, cuts):
                world.feed(conn, piece)
        replies, events = drained(world, conn)
        assert len(replies) == len(run), (name, number, len(replies), len(run))
        for step, reply in zip(run, replies):
            quiet = dict(step, events={})
            player.check(number, quiet, reply, {})
            number += 1
        want: dict[str, list[bytes]] = {}
        for step in run:
            for who, bodies in step["events"].items():
                want.setdefault(who, []).extend(bytes.fromhex(body) for body in bodies)
        for who in set(want) | set(events):
            assert same_events(want.get(who, []), events.get(who, [])), (
                name,
                number,
                who,
                want.get(who),
                events.get(who),
            )
    assert joined > 1, "nothing was pipelined"
    world.close()


@pytest.mark.parametrize("name", IN_PROCESS)
def test_pipelined(name: str) -> None:
    play_runs(name)


@pytest.mark.parametrize("name", IN_PROCESS)
def test_random_pieces(name: str) -> None:
    play_runs(name, random.Random(name))


@pytest.mark.parametrize("name", transcripts("lifecycle", "quota", "conflict"))
def test_all_of_a_connection_in_one_piece(name: str) -> None:
    """Reading requests only change nothing: in one piece they are answered as one by one."""
    head, steps = load(name)
    reads = {"READ", "DIRECTORY", "GET_PERMS", "GET_DOMAIN_PATH", "IS_DOMAIN_INTRODUCED"}
    world = World(configuration(head))
    player = Player(name, world)
    player.prepare()
    for conn in ("s0", "s1", "d1", "d2"):
        mine = [
            step
            for step in steps
            if step["conn"] == conn and step["type"] in reads and step["tx"] == 0
        ]
        singly = [world.ask(conn, step["type"], bytes.fromhex(step["payload"])) for step in mine]
        world.feed(conn, b"".join(player.request(step) for step in mine))
        replies, events = drained(world, conn)
        assert replies == singly
        assert not events
    world.close()


def test_types_are_known() -> None:
    """A transcript whose requests the replayer does not know would prove nothing."""
    for name in IN_PROCESS:
        for step in load(name)[1]:
            assert isinstance(step["type"], int) or step["type"] in TYPES
