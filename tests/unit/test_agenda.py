# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose turn it is: who used least time comes first, and nobody gets more than a slice."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kit import begin, ok, watch
from tests.world import World, packet

ROOT = Path(__file__).resolve().parents[2]
ASK = packet("GET_DOMAIN_PATH", b"1\0")
SLOW = 10**12  # a slice, where no request is to count as a dear one, on any build


@pytest.fixture
def crowd(world: World) -> World:
    """d1 to d9 are there."""
    for domid in range(1, 10):
        if domid not in world.server.domains:
            world.introduce(domid)
    return world


def queue(world: World, name: str, data: bytes) -> None:
    """Bytes from a client, which will be served in its turn."""
    connection, transport = world.connection(name)
    transport.feed(data)
    world.server.serve_later(connection)


def order_of_service(world: World, names: str) -> list[str]:
    """Who gets answers, turn by turn, until all of these have one; each turn serves one of them."""
    found: list[str] = []
    left = names.split()
    while left:
        assert world.server.agenda.count
        world.server.flush()
        answered = [name for name in left if world.drain(name)]
        assert len(answered) <= 1, "a turn ends behind the first one that it serves"
        found += answered
        left = [name for name in left if name not in answered]
    while world.server.flush():
        pass
    for name in names.split():
        world.drain(name)
    return found


def make_busy(world: World, name: str, count: int) -> None:
    """The client has asked so many things at once, and used the time for them."""
    last = min(count, 2)  # what the last slice of more than that has is chance
    for data in (packet("WRITE", b"k\0" + b"v" * 500) * (count - last), ASK * last):
        queue(world, name, data)
        while world.server.flush():
            pass
        world.drain(name)


@pytest.mark.parametrize("names", ["d1 d2", "s1 s2", "s1 d0"])
def test_who_used_least_comes_first(world: World, names: str) -> None:
    """However early the others came: among guests that ask many things at once, and in domain 0."""
    world.server.agenda.turn_ns = 0
    first, second = names.split()
    make_busy(world, first, 900)
    make_busy(world, second, 2)
    for _ in range(3):
        queue(world, first, ASK * 2)
        queue(world, second, ASK * 2)
        assert world.server.agenda.count == 2
        assert order_of_service(world, names) == [second, first]


def test_who_asks_one_thing_at_a_time_comes_in_order(crowd: World) -> None:
    """However much they have asked so far, where all of it was as cheap."""
    crowd.server.agenda.turn_ns = crowd.server.agenda.patience = 0
    crowd.server.agenda.slice_ns = SLOW
    for name, times in (("d1", 300), ("d2", 1), ("d3", 20)):
        for _ in range(times):
            queue(crowd, name, ASK)
            order_of_service(crowd, name)
    for names in ("d1 d2 d3", "d3 d2 d1", "d2 d3 d1"):
        for name in names.split():
            queue(crowd, name, ASK)
        assert order_of_service(crowd, names) == names.split()


@pytest.mark.parametrize(
    ("asked", "names", "served"),
    [
        pytest.param({"d1": 2, "d2": 2, "d3": 1}, "d1 d2 d3", "d3 d1 d2", id="one-before-many"),
        pytest.param({"d1": 2, "d3": 1, "s1": 1}, "d1 d3 s1", "s1 d3 d1", id="dom0-before-guests"),
        pytest.param({"d1": 1, "d2": 1, "s1": 9}, "d1 s1 d2", "s1 d1 d2", id="dom0-with-many"),
    ],
)
def test_the_queues(crowd: World, asked: dict[str, int], names: str, served: str) -> None:
    """By what was asked the last time, since nobody knows what lies in a ring before it is read."""
    agenda = crowd.server.agenda
    for name, count in asked.items():
        make_busy(crowd, name, count)
    make_busy(crowd, "d9", 2000)  # each queue but that of the others is behind
    agenda.turn_ns, agenda.slice_ns, agenda.patience = 0, SLOW, 0
    for name in names.split():
        queue(crowd, name, ASK)
    assert order_of_service(crowd, names) == served.split()


def test_replies_do_not_wait_for_the_events_of_others(crowd: World) -> None:
    """They go out with the slice of whoever has asked."""
    agenda = crowd.server.agenda
    for domid in range(1, 10):
        ok(crowd, f"d{domid}", "WATCH", b"/k\0t\0")
        crowd.drain(f"d{domid}")
    ok(crowd, "s1", "WRITE", b"/k\0v")
    ok(crowd, "s1", "SET_PERMS", b"/k\0r0\0")
    for domid in range(1, 10):
        crowd.drain(f"d{domid}")
    agenda.turn_ns = 0  # a turn serves one, and sends to four of those with events
    queue(crowd, "s1", packet("WRITE", b"/k\0w"))
    crowd.server.flush()
    assert crowd.drain("s1")
    told = [f"d{domid}" for domid in range(1, 10) if crowd.drain(f"d{domid}")]
    assert len(told) < 5, "the events of the others are to be sent yet"
    queue(crowd, "s2", ASK)
    crowd.server.flush()
    assert crowd.drain("s2")
    while crowd.server.flush():
        pass
    told += [f"d{domid}" for domid in range(1, 10) if crowd.drain(f"d{domid}")]
    assert sorted(told) == [f"d{domid}" for domid in range(1, 10)]


def test_who_was_served_does_not_wait_for_those_behind_the_first_slice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies of a turn's first slice go out together; one that takes longer ends the waiting."""
    agenda = world.server.agenda
    asked = []

    def run(connection: Any, payload: bytes) -> bytes:
        asked.append(len(world.drain("s1")))
        time.sleep(0.001)
        return b"OK"

    monkeypatch.setattr(world.host.commands, "run", run)
    agenda.turn_ns, agenda.slice_ns = SLOW, 500_000
    queue(world, "s1", ASK)
    for name in ("s2", "s3"):
        queue(world, name, packet("CONTROL", b"x\0"))
    world.server.flush()
    # Behind s2, which has taken longer than a slice, the first reply is out before s3 is served.
    assert sum(asked) == 1


def test_no_queue_starves_another(crowd: World) -> None:
    """All ask without end; each gets a third of the time."""
    agenda = crowd.server.agenda
    agenda.turn_ns = agenda.slice_ns = 20_000
    names = ("s1", "d1", "d2")
    ops = {name: crowd.connection(name)[0].ops for name in names}
    for _ in range(3000):
        for name in names:
            connection, transport = crowd.connection(name)
            if not transport.unread:
                transport.feed(ASK * (1 if name == "d2" else 40))
                crowd.server.serve_later(connection)
        crowd.server.flush()
        for name in names:
            crowd.drain(name)
    served = {name: crowd.connection(name)[0].ops - ops[name] for name in names}
    assert min(served.values()) > 300, served


def test_who_came_first_is_served_first(make_world: Callable[..., World]) -> None:
    """Of those that have used no time, however many they are."""
    world = make_world(())
    agenda = world.server.agenda
    agenda.turn_ns = 0
    names = [f"s{n}" for n in range(2, 12)]
    for name in names:
        queue(world, name, ASK)
    for name in names:
        world.server.flush()
        assert [n for n in names if world.drain(n)] == [name]


def test_who_comes_back_has_saved_up_nothing(world: World) -> None:
    """One that was idle for long goes before those who wait, and once it has used the little that
    it may have more than they, it waits."""
    agenda = world.server.agenda
    writes = b"".join(packet("WRITE", b"k%d\0" % n + b"v" * 1000) for n in range(200))
    agenda.turn_ns = 0
    for _ in range(30):
        queue(world, "d1", writes)
        while world.server.flush():
            pass
        world.drain("d1")
    served = {"d1": 0, "d2": 0}
    queue(world, "d1", writes)
    queue(world, "d2", writes)
    while world.server.flush() and min(served.values()) < 200:
        for name in served:
            served[name] += len(world.drain(name))
    for name in served:
        served[name] += len(world.drain(name))
    assert served["d1"] > 0 and served["d2"] > 0


def test_the_times_are_those_of_the_document(world: World) -> None:
    text = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    said = re.search(r"serves each for at most (\d+) µs, all together for (\d+) µs", text)
    assert said is not None
    agenda = world.server.agenda
    assert (agenda.slice_ns, agenda.turn_ns) == tuple(1000 * int(us) for us in said.groups())


def test_a_slice_ends(world: World) -> None:
    """A client that sends without end is put off as soon as its slice is over."""
    agenda = world.server.agenda
    agenda.slice_ns = agenda.turn_ns = 0
    queue(world, "d1", ASK * 200)
    assert world.server.flush()
    first = len(world.drain("d1"))
    assert 0 < first < 200
    while world.server.flush():
        pass
    assert len(world.drain("d1")) == 200 - first


def test_a_slice_is_used_up(world: World) -> None:
    """However many small requests there are: all that was read is served while time is left."""
    agenda = world.server.agenda
    agenda.slice_ns = 1 << 60
    connection, transport = world.connection("s0")
    before = connection.ops
    transport.feed(ASK * 500)  # less than is read at once
    world.server.service(connection)
    assert connection.ops == before + 500 and agenda.count == 0


@pytest.mark.parametrize("type_", ["TRANSACTION_END", "RM", "DIRECTORY_PART", "RESET_WATCHES"])
def test_a_slice_ends_behind_one_dear_request(world: World, type_: str) -> None:
    """What a client did before decides how much work these are: the clock is read behind each."""
    agenda = world.server.agenda
    ok(world, "d1", "MKDIR", b"w\0")
    ids = [begin(world, "d1") if type_ == "TRANSACTION_END" else 0 for _ in range(8)]
    for n, tx_id in enumerate(ids):
        ok(world, "d1", "MKDIR", b"w%d\0" % n, tx_id)
    payloads = {"TRANSACTION_END": b"T\0", "DIRECTORY_PART": b"w\0000\0", "RESET_WATCHES": b"\0"}
    agenda.slice_ns = 0
    connection, transport = world.connection("d1")
    transport.feed(
        b"".join(
            packet(type_, payloads.get(type_, b"w%d\0" % n), tx_id) for n, tx_id in enumerate(ids)
        )
    )
    before = connection.ops
    world.server.service(connection)
    assert connection.ops == before + 1
    world.turn()
    assert connection.ops == before + 8


DEAR = {
    "TRANSACTION_END": b"T\0",
    "RM": b"k\0",
    "DIRECTORY_PART": b"\x2f\0000\0",
    "RESET_WATCHES": b"\0",
    "MKDIR": b"k" + b"/a" * 400 + b"\0",
    "WRITE": b"k\0" + b"v" * 1000,
}


@pytest.mark.parametrize("type_", DEAR)
def test_what_may_take_long_is_served_among_the_others(crowd: World, type_: str) -> None:
    """d1 to d7 have asked one cheap thing at a time so far, and are before d8; what they ask for
    now may take a millisecond each."""
    agenda = crowd.server.agenda
    names = [f"d{n}" for n in range(1, 8)]
    ids = dict.fromkeys(names, 0)
    if type_ == "TRANSACTION_END":
        ids = {name: begin(crowd, name) for name in names}
    make_busy(crowd, "d9", 2000)
    agenda.turn_ns, agenda.slice_ns = 0, SLOW
    for name in names:
        queue(crowd, name, packet(type_, DEAR[type_], ids[name]))
    queue(crowd, "d8", ASK)
    assert order_of_service(crowd, " ".join([*names, "d8"])) == ["d8", *names]


def test_few_are_told_at_once_by_who_asks_one_thing_at_a_time(crowd: World) -> None:
    """The others are told in its turns among those who ask for many things."""
    agenda = crowd.server.agenda
    ok(crowd, "d1", "MKDIR", b"x\0")
    for n in range(100):
        watch(crowd, "d1", b"x", b"%d" % n)
    make_busy(crowd, "d9", 2000)
    agenda.turn_ns, agenda.slice_ns = 0, SLOW
    before = crowd.server.events
    queue(crowd, "d1", packet("WRITE", b"x\0v"))
    queue(crowd, "d2", ASK)
    assert crowd.server.flush()
    assert 0 < crowd.server.events - before <= 32
    assert crowd.server.flush() and crowd.drain("d2")
    assert crowd.server.events - before <= 32
    while crowd.server.flush():
        pass
    assert crowd.server.events - before == 100


@pytest.mark.parametrize("what", ["answers", "events"])
def test_what_comes_of_requests_counts_in_a_slice(world: World, what: str) -> None:
    """The clock is read behind each of these small requests, which have an answer of 3,900 bytes
    or tell a hundred watches."""
    agenda = world.server.agenda
    for n in range(130 if what == "answers" else 0):
        ok(world, "d1", "MKDIR", b"w/%030d\0" % n)
    ok(world, "d1", "MKDIR", b"w\0")
    for n in range(100 if what == "events" else 0):
        watch(world, "d2", b"/local/domain/1/w", b"%d" % n)
    agenda.slice_ns = 0
    connection, transport = world.connection("d1")
    one = packet("DIRECTORY", b"w\0") if what == "answers" else packet("WRITE", b"w\0v")
    transport.feed(one * 8)
    before = connection.ops
    world.server.service(connection)
    assert connection.ops == before + 1
    world.turn()
    assert connection.ops == before + 8
