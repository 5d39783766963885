# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who pays for conflicts: a guest whose writes make others' transactions fail
loses credit, is not served without, and gets it back with time.

Time is what the test says: world.now and server.tick(now).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kit import begin, end, error, ok
from tests.world import EVENT, World, packet

Make = Callable[..., Any]
INTERVAL = 0.05  # conflict-max-history-seconds
BURST = 5.0  # conflict-burst-limit


@pytest.fixture
def shared(make_world: Make) -> World:
    return make(make_world)


def make(make_world: Make, **config: Any) -> World:
    """Domains 1 to 3, and /s that all may write."""
    world: World = make_world(domids=(1, 2, 3), **config)
    for path in (b"/s", b"/s/a", b"/s/b"):
        ok(world, "s0", "MKDIR", path + b"\0")
        ok(world, "s0", "SET_PERMS", path + b"\0b0\0")
    return world


def credit(world: World, domid: int) -> float:
    return float(world.server.domains[domid].credit)


def conflict(
    world: World, victim: str = "s0", culprits: tuple[str, ...] = ("d1",), way: bytes = b"/s/a"
) -> str:
    """A transaction that reads a node which the culprits write meanwhile."""
    tx_id = begin(world, victim)
    ok(world, victim, "READ", way + b"\0", tx_id)
    ok(world, victim, "WRITE", b"/s/b\0mine", tx_id)
    for culprit in culprits:
        # No value is written twice.
        ok(world, culprit, "WRITE", way + b"\0%d" % world.server.ops)
    return end(world, victim, tx_id)


def served(world: World, name: str) -> bool:
    """Is a request of it answered?  (It stays unanswered where not.)"""
    world.feed(name, packet("GET_DOMAIN_PATH", b"1\0"))
    return [got for got, _, _, _ in world.drain(name) if got != EVENT] != []


def test_the_guilty_pays_and_nobody_else(shared: World) -> None:
    ok(shared, "d2", "WRITE", b"/s/b\0x")
    assert conflict(shared) == "EAGAIN"
    assert [credit(shared, domid) for domid in (1, 2, 3)] == [BURST - 1, BURST, BURST]
    assert shared.server.transactions_failed == 1


def test_without_conflict_nobody_pays(shared: World) -> None:
    tx_id = begin(shared, "s0")
    ok(shared, "s0", "READ", b"/s/a\0", tx_id)
    ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
    ok(shared, "d1", "WRITE", b"other\0v")
    assert end(shared, "s0", tx_id) == "OK"
    assert credit(shared, 1) == BURST


def test_a_write_that_does_not_matter_is_not_guilty(shared: World) -> None:
    """Domain 2 writes too, but only after domain 1 has the transaction failed."""
    tx_id = begin(shared, "s0")
    ok(shared, "s0", "READ", b"/s/a\0", tx_id)
    ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
    ok(shared, "d3", "WRITE", b"own\0v")
    ok(shared, "d1", "WRITE", b"/s/a\0one")
    ok(shared, "d2", "WRITE", b"/s/a\0two")
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert [credit(shared, domid) for domid in (1, 2, 3)] == [BURST - 1, BURST, BURST]


def test_each_of_two_guilty_pays_once(shared: World) -> None:
    """Domain 2 puts the value back, so domain 1 is guilty a second time and pays once;
    domain 3 is guilty as well."""
    tx_id = begin(shared, "s0")
    ok(shared, "s0", "READ", b"/s/a\0", tx_id)
    ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
    ok(shared, "d1", "WRITE", b"/s/a\0one")
    ok(shared, "d2", "WRITE", b"/s/a\0")
    ok(shared, "d1", "WRITE", b"/s/a\0two")
    ok(shared, "d2", "WRITE", b"/s/a\0")
    ok(shared, "d3", "WRITE", b"/s/a\0three")
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert [credit(shared, domid) for domid in (1, 2, 3)] == [BURST - 1, BURST, BURST - 1]


def test_the_guilty_by_a_transaction_of_its_own(shared: World) -> None:
    tx_id = begin(shared, "s0")
    ok(shared, "s0", "READ", b"/s/a\0", tx_id)
    ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
    theirs = begin(shared, "d1")
    ok(shared, "d1", "WRITE", b"/s/a\0theirs", theirs)
    assert end(shared, "d1", theirs) == "OK"
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert credit(shared, 1) == BURST - 1


@pytest.mark.parametrize("culprit", ["s1", "d0"])
def test_domain_0_never_pays(shared: World, culprit: str) -> None:
    for _ in range(10):
        assert conflict(shared, culprits=(culprit,)) == "EAGAIN"
    assert served(shared, culprit)
    assert shared.server.transactions_no_culprit == 10
    assert shared.server.tick(shared.now) is None


def test_a_guest_does_not_pay_for_its_own_conflicts(shared: World) -> None:
    for n in range(10):
        tx_id = begin(shared, "d1")
        ok(shared, "d1", "READ", b"/s/a\0", tx_id)
        ok(shared, "d1", "WRITE", b"/s/b\0mine", tx_id)
        ok(shared, "d1", "WRITE", b"/s/a\0%d" % n)
        assert end(shared, "d1", tx_id) == "EAGAIN"
    assert credit(shared, 1) == BURST


@pytest.mark.parametrize("victim", ["s0", "d2"])
def test_out_of_credit_is_not_served(shared: World, victim: str) -> None:
    for _ in range(int(BURST)):
        assert served(shared, "d1")
        assert conflict(shared, victim) == "EAGAIN"
    assert credit(shared, 1) == 0.0
    connection, transport = shared.connection("d1")
    for _ in range(3):
        assert not served(shared, "d1")
    assert connection.blocked and connection.interest == 0
    assert served(shared, "d2") and served(shared, "s1")
    # Events still go to it.
    ok(shared, "s1", "WRITE", b"/local/domain/1/x\0v")


def test_credit_never_falls_below_minus_one(shared: World) -> None:
    """One transaction after another that were open before it ran out."""
    open_ = []
    for _ in range(12):
        tx_id = begin(shared, "s0")
        ok(shared, "s0", "READ", b"/s/a\0", tx_id)
        ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
        open_.append(tx_id)
    ok(shared, "d1", "WRITE", b"/s/a\0one")
    assert [end(shared, "s0", tx_id) for tx_id in open_] == ["EAGAIN"] * 12
    assert credit(shared, 1) == -1.0


def pass_time(world: World, intervals: int) -> None:
    """The loop's timer, as often as it asks for it."""
    for _ in range(intervals):
        deadline = world.server.tick(world.now)
        assert deadline is not None and deadline <= world.now + INTERVAL + 1e-9
        world.now = max(deadline, world.now)
    world.server.tick(world.now)
    world.turn()


def test_comes_back_with_time_and_what_waited_is_served(shared: World) -> None:
    for _ in range(int(BURST)):
        conflict(shared)
    shared.feed(
        "d1",
        packet("GET_DOMAIN_PATH", b"1\0", req_id=5) + packet("GET_DOMAIN_PATH", b"1\0", req_id=6),
    )
    assert shared.drain("d1") == []
    shared.server.tick(shared.now)
    shared.turn()
    assert shared.drain("d1") == [], "not before the interval is over"
    pass_time(shared, 1)
    assert [req_id for _, req_id, _, _ in shared.drain("d1")] == [5, 6]
    assert credit(shared, 1) == 1.0
    pass_time(shared, 10 if shared.server.tick(shared.now) is None else 4)
    assert credit(shared, 1) == BURST
    shared.now += 10 * INTERVAL
    assert shared.server.tick(shared.now) is None, "nothing is due any more"
    assert credit(shared, 1) == BURST


def exhaust(world: World, *names: str) -> None:
    """Takes all credit of some domains, the first one first."""
    for name in names:
        while credit(world, int(name[1:])) > 0:
            assert conflict(world, culprits=(name,)) == "EAGAIN"


@pytest.mark.parametrize("aggregate", [True, False])
def test_one_point_for_all_or_for_each(make_world: Make, aggregate: bool) -> None:
    """Together: first those that wait for it, the longest first; then the rest.
    Each: every domain gets one."""
    world = make(make_world, conflict_rate_limit_is_aggregate=aggregate)
    exhaust(world, "d2", "d1")
    assert conflict(world, culprits=("d3",)) == "EAGAIN"
    assert [credit(world, n) for n in (1, 2, 3)] == [0, 0, 4]
    seen = []
    for _ in range(3):
        pass_time(world, 1)
        seen.append([credit(world, n) for n in (1, 2, 3)])
    if aggregate:
        assert seen[:2] == [[0, 1, 4], [1, 1, 4]]
        assert sum(seen[2]) == 7
    else:
        assert seen == [[1, 1, 5], [2, 2, 5], [3, 3, 5]]


def test_a_domain_that_goes_gets_nothing_and_holds_nobody_up(shared: World) -> None:
    exhaust(shared, "d1", "d2")
    ok(shared, "s0", "RELEASE", b"1\0")
    for _ in range(2):
        shared.now += 2 * INTERVAL
        shared.server.tick(shared.now)
    for _ in range(2):
        shared.now += 2 * INTERVAL
        shared.server.tick(shared.now)
    assert served(shared, "d2")
    shared.introduce(1)
    assert credit(shared, 1) == BURST and served(shared, "d1")


@pytest.mark.parametrize("age, pays", [(0.04, True), (0.06, False), (10.0, False)])
def test_history_is_kept_as_long_as_said(shared: World, age: float, pays: bool) -> None:
    """The transaction is young at the change, or old: then nobody is found."""
    tx_id = begin(shared, "s0")
    ok(shared, "s0", "READ", b"/s/a\0", tx_id)
    ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
    shared.now += age
    shared.server.tick(shared.now)
    ok(shared, "d1", "WRITE", b"/s/a\0x")
    assert end(shared, "s0", tx_id) == "EAGAIN"
    assert credit(shared, 1) == (BURST - 1 if pays else BURST)


def test_history_holds_no_memory_for_long(shared: World) -> None:
    """Snapshots of the store are let go when no young transaction needs them."""
    from pyxsd.store.tree import live_counts

    begin(shared, "s0")
    before = live_counts()["nodes"]
    for n in range(200):
        ok(shared, "d1", "WRITE", b"/s/a\0%d" % n)
    assert live_counts()["nodes"] > before + 200
    shared.now += 2 * INTERVAL
    shared.server.tick(shared.now)
    shared.turn()
    assert live_counts()["nodes"] < before + 20


def test_marks_of_forgotten_changes_are_not_kept_for_long(make_world: Make) -> None:
    """Nor are the connections that made them, where these have gone."""
    from pyxsd._conn import live_counts

    guests = range(1, 9)
    world: World = make_world(domids=(*guests, 9))
    begin(world, "d9")
    for domid in guests:
        home = b"/local/domain/%d" % domid
        ok(world, "s0", "WRITE", home + b"\0")
        ok(world, "s0", "SET_PERMS", home + b"\0n%d\0" % domid)
        for number in range(240):
            ok(world, f"d{domid}", "WRITE", home + b"/%d\0" % number + b"v" * 2000)
    for domid in guests:
        ok(world, "s0", "RELEASE", b"%d\0" % domid)
    ok(world, "d9", "RESET_WATCHES", b"\0")
    ticks = 0
    while world.server.wants_time and ticks < 100:
        ticks += 1
        world.now += INTERVAL
        world.server.tick(world.now)
    assert ticks < 100
    # The one more stands for domain 0's kernel.
    assert live_counts()["connections"] == len(world.server.connections) + 1


def test_the_burst_limit_is_configurable(make_world: Make) -> None:
    world = make(make_world, conflict_burst_limit=2.0)
    assert credit(world, 1) == 2.0
    exhaust(world, "d1")
    assert world.server.transactions_failed == 2
    assert not served(world, "d1")


def test_the_log_says_who(shared: World) -> None:
    conflict(shared)
    text = "\n".join(text for _, _, text in shared.host.messages)
    assert "DOM1" in text and "conflict" in text


def test_paused_domains_are_still_told_and_can_be_released(shared: World) -> None:
    ok(shared, "d1", "WATCH", b"/s\0t\0")
    exhaust(shared, "d1")
    shared.drain("d1")
    ok(shared, "s0", "WRITE", b"/s/b\0v")
    assert [got for got, _, _, _ in shared.drain("d1")] == [EVENT]
    ok(shared, "s0", "RELEASE", b"1\0")
    assert error(shared, "s0", "RELEASE", b"1\0") == "EINVAL"


def test_a_victim_goes_through_once_the_culprit_is_out_of_credit(shared: World) -> None:
    """What the credit is for: transactions do not starve (XSA-206)."""
    answers = []
    n = 0
    for _ in range(int(BURST) + 2):
        tx_id = begin(shared, "s0")
        ok(shared, "s0", "READ", b"/s/a\0", tx_id)
        ok(shared, "s0", "WRITE", b"/s/b\0mine", tx_id)
        n += 1
        shared.feed("d1", packet("WRITE", b"/s/a\0%d" % n))
        answers.append(end(shared, "s0", tx_id))
    assert answers == ["EAGAIN"] * int(BURST) + ["OK", "OK"]


def test_a_second_punishment_waits_as_long_as_the_first(shared: World) -> None:
    """When all credit has come back, the time until the next point begins anew."""
    for _ in range(2):
        exhaust(shared, "d1")
        before = credit(shared, 1)
        shared.server.tick(shared.now)
        assert credit(shared, 1) == before
        pass_time(shared, int(BURST))
        assert credit(shared, 1) == BURST
        assert shared.server.tick(shared.now) is None


def test_nothing_is_due_where_nothing_happened(shared: World) -> None:
    assert shared.server.tick(shared.now) is None
