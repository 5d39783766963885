# SPDX-License-Identifier: LGPL-2.1-or-later
"""Security advisories, seen from a guest's ring; each test is named after one.

XSA-38 and XSA-420 (indices, lengths): test_hostile.py.
"""

from __future__ import annotations

import pytest

from tests.fakexen import RSP_CONS, RSP_PROD
from tests.rings.kit import Make, Rings, packet, packets
from tests.unit.kit import begin, end, error, events, ok, recount, watch
from tests.world import ERROR, EVENT, TYPES


def taken(rings: Rings, name: str) -> list[tuple[bytes, bytes]]:
    """The events that a domain gets, however large."""
    rings.feed(name, b"")
    return events(rings, name)


def wide(rings: Rings) -> None:
    """Children of a home whose names need more than a packet."""
    for n in range(60):
        ok(rings, "d1", "MKDIR", b"wide/" + b"n" * 80 + b"%d\0" % n)


def test_xsa_72_reply_over_4096_bytes(rings: Rings) -> None:
    """A listing that is too long is E2BIG, and the stream goes on."""
    wide(rings)
    assert error(rings, "d1", "DIRECTORY", b"wide\0") == "E2BIG"
    rings.works(1)


def test_xsa_115_events_need_permission(rings: Rings) -> None:
    """A guest is told neither of others' nodes nor of domains; it may not ask for them either."""
    for path in (
        b"/",
        b"/local/domain/2",
        b"@introduceDomain",
        b"@releaseDomain",
        b"@releaseDomain/2",
    ):
        watch(rings, "d1", path)
    rings.drain("d1")
    rings.works(2)
    rings.bear(3)
    ok(rings, "s0", "RELEASE", b"3\0")
    rings.xen.set_state(2, "gone")
    rings.virq()
    assert rings.drain("d1") == []
    assert error(rings, "d1", "IS_DOMAIN_INTRODUCED", b"2\0") == "EACCES"


@pytest.mark.parametrize(
    "type_, payload",
    [
        ("INTRODUCE", b"3\0001\0007\0"),
        ("RELEASE", b"2\0"),
        ("RESUME", b"2\0"),
        ("SET_TARGET", b"1\0000\0"),
        ("IS_DOMAIN_INTRODUCED", b"1\0"),
        ("INTRODUCE", b"1\0004660\0007\0"),
        ("RELEASE", b"1\0"),
    ],
)
def test_xsa_115_requests_of_domain_0(rings: Rings, type_: str, payload: bytes) -> None:
    """Nor may it introduce, release, resume, or give itself a target."""
    rings.guest(3)
    assert error(rings, "d1", type_, payload) == "EACCES"
    assert sorted(rings.host.domains.table) == [1, 2]


@pytest.mark.parametrize(
    "steps",
    [
        ("release", "death"),
        ("death", "release"),
        ("release", "release"),
        ("death", "death"),
        ("release", "introduce", "death"),
        ("death", "introduce", "release"),
        ("bad", "release", "death"),
        ("bad", "death", "introduce", "release"),
        ("shutdown", "release", "introduce", "death"),
        ("reconnect", "release", "introduce", "release"),
    ],
    ids="-".join,
)
def test_xsa_233_425_release_death_introduction_in_any_order(
    rings: Rings, steps: tuple[str, ...]
) -> None:
    """Nothing is freed twice and nothing stays, watches and transactions included."""
    watch(rings, "s0", b"@releaseDomain")
    for step in steps:
        if 1 in rings.server.domains and not rings.is_bad(1):
            watch(rings, "d1", b"x", step.encode())
            ok(rings, "d1", "WRITE", b"x\0v", begin(rings, "d1"))
            if step in ("release", "death"):
                rings.guests[1].feed(packet("READ", b"x\0")[:13])
        if step == "release":
            rings.ask("s0", "RELEASE", b"1\0")
        elif step == "death":
            rings.xen.set_state(1, "gone")
            rings.virq()
        elif step == "shutdown":
            rings.xen.set_state(1, "shutdown")
            rings.virq()
        elif step == "introduce":
            rings.bear(1)
            rings.works(1)
        elif step == "bad":
            rings.guests[1].put(RSP_CONS, rings.guests[1].get(RSP_PROD) + 9)
            rings.guests[1].feed(packet("READ", b"x\0"))
            rings.turn("d1")
            assert rings.is_bad(1)
        elif step == "reconnect":
            rings.reconnect(1)
        recount(rings)
        rings.works(2)
    assert 1 not in rings.server.domains
    assert len(rings.xen.mapped) == len(rings.xen.bound) == 1


def test_xsa_272_419_421_483_entry_counts(rings: Rings) -> None:
    """Counts equal a recount after deletions, in transactions, after an owner's
    death and after a reconnect that drops a transaction."""
    ok(rings, "s0", "MKDIR", b"/shared\0")
    ok(rings, "s0", "SET_PERMS", b"/shared\0b0\0")
    for name in ("d1", "d2"):
        for n in range(5):
            ok(rings, name, "WRITE", b"own/%d\0v" % n)
    ok(rings, "s0", "SET_PERMS", b"/local/domain/2/own\0n1\0b2\0")
    recount(rings)
    tx = begin(rings, "d2")
    ok(rings, "d2", "RM", b"own/0\0", tx)
    ok(rings, "d2", "WRITE", b"new/1\0v", tx)
    recount(rings)
    ok(rings, "d1", "RM", b"own\0")
    recount(rings)
    assert end(rings, "d2", tx) == "OK"
    recount(rings)
    ok(rings, "d2", "WRITE", b"dropped\0v", begin(rings, "d2"))
    rings.reconnect(2)
    recount(rings)
    tx = begin(rings, "d2")
    ok(rings, "d2", "WRITE", b"own/7\0v", tx)
    rings.xen.set_state(1, "gone")
    rings.virq()  # with its node below domain 2's home
    recount(rings)
    end(rings, "d2", tx)
    recount(rings)
    assert rings.server.tree.entries(1) == 0


def test_xsa_322_417_a_reused_domid_inherits_nothing(rings: Rings) -> None:
    """No node, no entry in a list, no watch, no target of the one before."""
    ok(rings, "s0", "WRITE", b"/for1\0secret")
    ok(rings, "s0", "SET_PERMS", b"/for1\0n0\0b1\0r2\0")
    ok(rings, "s0", "SET_PERMS", b"/local/domain/2\0n2\0b1\0")
    ok(rings, "s0", "SET_TARGET", b"1\0002\0")
    watch(rings, "d1", b"/for1")
    ok(rings, "d1", "WRITE", b"/local/domain/2/in2\0mine")
    ok(rings, "d1", "WRITE", b"left\0behind")
    rings.xen.set_state(1, "gone")
    rings.virq()
    guest = rings.guest(1)
    rings.introduce(1)
    assert guest.get(RSP_PROD) == 0
    assert error(rings, "d1", "READ", b"left\0") == "ENOENT"
    assert error(rings, "d1", "READ", b"/for1\0") == "EACCES"
    assert error(rings, "d1", "WRITE", b"/local/domain/2/x\0v") == "EACCES"
    assert rings.server.domains[1].target == -1
    ok(rings, "s0", "WRITE", b"/for1\0again")
    assert rings.drain("d1") == []
    assert ok(rings, "s0", "GET_PERMS", b"/for1\0") == b"n0\0r2\0"


def test_xsa_324_an_event_never_exceeds_4096_bytes(rings: Rings) -> None:
    """A token that fits the request with a short path and not the event with a long one."""
    token = b"t" * 4080
    watch(rings, "d1", b"a", token)
    ok(rings, "s0", "WRITE", b"/local/domain/1/a\0v")
    assert [(path, len(name)) for path, name in taken(rings, "d1")] == [(b"a", 4080)]
    ok(rings, "d1", "WRITE", b"a/" + b"long" * 20 + b"\0v")
    assert rings.drain("d1") == []
    rings.works(1)


@pytest.mark.parametrize("limit", [1, 4, 1024])
def test_xsa_325_326_416_unread_replies(make_rings: Make, limit: int) -> None:
    """A guest that floods and never reads: the daemon stops to read it."""
    rings = make_rings(quota_maxoutstanding=limit)
    guest = rings.guests[1]
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 2000)
    for _ in range(200):
        guest.feed(packet("READ", b"x\0") * 56)
        guest.unsent = b""
        rings.turn("d1")
        rings.works(2)
    connection = rings.server.domains[1]
    replies, _ = connection.queued
    assert replies <= limit
    assert len(connection.partial_input) <= 1024 + 4112
    # It reads after all: every request that was in the ring is answered.
    guest.put(RSP_CONS, guest.get(RSP_PROD))
    rings.reconnect(1)
    rings.works(1)


def test_xsa_326_unread_replies_are_not_lost(make_rings: Make) -> None:
    """When it reads on, all answers come, in order, and it is served again."""
    rings = make_rings(quota_maxoutstanding=4)
    guest = rings.guests[1]
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 900)
    guest.feed(b"".join(packet("READ", b"x\0", req_id=n) for n in range(100)))
    got, turns = b"", 0
    while turns < 3:  # without progress
        rings.turn("d1")
        data = guest.take()
        got += data
        turns = 0 if guest.push() or data else turns + 1
    found, rest = packets(got)
    assert rest == b""
    assert [(type_, req_id) for type_, req_id, _, _ in found] == [
        (TYPES["READ"], n) for n in range(100)
    ]


def test_xsa_326_unread_events(make_rings: Make) -> None:
    """A guest that watches and never reads blocks who causes the events, never
    makes the daemon grow, and when it dies they go on."""
    rings = make_rings(quota_maxwatchevents=8, quota_maxwatch=100)
    for token in (b"a", b"b", b"c"):
        watch(rings, "d1", b"/local/domain/1", token)
    blocked_at = 0
    for n in range(400):
        rings.connection("s0")[1].feed(packet("WRITE", b"/local/domain/1/%d\0v" % n, req_id=n))
        rings.turn("s0")
        blocked_at = blocked_at or (n if rings.connection("s0")[0].blocked else 0)
    connection = rings.server.domains[1]
    assert 0 < blocked_at < 60
    assert connection.queued[1] <= 8
    assert connection.waiting_events <= 3 * 8
    assert rings.connection("s0")[0].overflowing <= 3
    assert rings.connection("s0")[1].unread <= 400 * 64
    rings.works(2)
    rings.xen.set_state(1, "gone")
    rings.virq()
    rings.turn("s0")
    answers = [req_id for type_, req_id, _, _ in rings.drain("s0") if type_ not in (EVENT,)]
    assert answers == list(range(400))


def test_xsa_325_transactions_of_one_who_vanishes(rings: Rings) -> None:
    """Its transactions are as many as it may have, and end with it."""
    for _ in range(11):
        begin(rings, "d1")
    assert error(rings, "d1", "TRANSACTION_START", b"\0") == "EQUOTA"
    for tx in range(1, 12):
        ok(rings, "d1", "WRITE", b"t%d\0v" % tx, tx)
    rings.xen.set_state(1, "gone")
    rings.virq()
    rings.now += 10
    rings.turn("s0")
    rings.server.tick(rings.now)
    assert rings.server.open_transactions == 0
    rings.works(2)


def test_xsa_330_484_reset_watches(rings: Rings) -> None:
    """Nothing is left, also where events wait, also inside a transaction."""
    for n in range(100):
        watch(rings, "d1", b"x", b"%d" % n)
    tx = begin(rings, "d1")
    ok(rings, "d1", "WRITE", b"x\0v", tx)
    rings.feed("s0", packet("WRITE", b"/local/domain/1/x\0v"))
    assert ok(rings, "d1", "RESET_WATCHES", b"\0", tx) == b"OK\0"
    connection = rings.server.domains[1]
    assert (connection.watch_count, connection.transactions) == (0, {})
    rings.drain("d1")
    ok(rings, "s0", "WRITE", b"/local/domain/1/x\0v")
    assert rings.drain("d1") == []
    watch(rings, "d1", b"x", b"1")


def test_xsa_418_deep_paths(rings: Rings) -> None:
    """A path of a thousand components, made and removed, with its owner's death."""
    path = b"/".join([b"d"] * 1000)
    ok(rings, "d1", "SET_PERMS", b"/local/domain/1\0n1\0")
    rings.server.limits.set_owner(1, 5000)
    assert ok(rings, "d1", "MKDIR", path + b"\0") == b"OK\0"
    rings.xen.set_state(1, "gone")
    rings.virq()
    assert rings.server.tree.entries(1) == 0


def test_no_error_reaches_a_neighbour(rings: Rings) -> None:
    """Unknown types, replies and events from a guest are refused on its own ring."""
    for type_ in (15, 16, 20, 27, 1 << 31):
        assert error(rings, "d1", type_, b"x\0") == "ENOSYS"
    assert rings.collect() == {}
    assert rings.ask("d1", 16, b"EINVAL\0")[0] == ERROR
    rings.works(1)
