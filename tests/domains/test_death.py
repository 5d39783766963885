# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shutdown, death and reuse of domids, as VIRQ_DOM_EXC and the hypervisor tell of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakexen import CONNECTION, RSP_CONS, RSP_PROD
from tests.rings.kit import Make, Rings, packet
from tests.unit.kit import begin, end, error, events, ok, recount, watch

GENERIC = (b"@releaseDomain", b"generic")


@pytest.fixture(params=[False, True], ids=["asks each", "list of changes"])
def told(request: pytest.FixtureRequest, make_rings: Make) -> Rings:
    """Domains 1 to 4, without and with Xen's list of changed domains; s1 watches."""
    rings = make_rings((1, 2, 3, 4))
    rings.xen.tells = bool(request.param)
    watch(rings, "s1", b"@releaseDomain", b"generic")
    return rings


def set_states(rings: Rings, **states: str) -> None:
    """d1="gone" ..., and then the interrupt."""
    for name, state in states.items():
        rings.xen.set_state(int(name[1:]), state)
    rings.virq()


@pytest.mark.parametrize("state", ["gone", "dead"])
def test_death(told: Rings, state: str) -> None:
    """As RELEASE, whether Xen knows it no more or takes it apart still."""
    watch(told, "d1", b"x")
    begin(told, "d1")
    ok(told, "s0", "SET_PERMS", b"/local/domain/2\0n2\0b1\0")
    set_states(told, d1=state)
    assert events(told, "s1") == [GENERIC]
    assert sorted(told.server.domains) == [0, 2, 3, 4]
    assert sorted(told.xen.bound.values()) == [2, 3, 4]
    assert len(told.xen.mapped) == 3
    assert error(told, "s0", "READ", b"/local/domain/1\0") == "ENOENT"
    assert ok(told, "s0", "GET_PERMS", b"/local/domain/2\0") == b"n2\0"
    told.virq()
    assert events(told, "s1") == []
    told.works(2)


def test_being_destroyed_is_not_dead(told: Rings) -> None:
    """Nothing is told and nothing goes until the domain is dead; then it is told once."""
    set_states(told, d1="dying")
    told.virq()
    assert events(told, "s1") == []
    told.works(1)
    set_states(told, d1="dead")
    assert events(told, "s1") == [GENERIC]
    set_states(told, d1="gone")
    assert events(told, "s1") == []


def test_several_at_once(told: Rings) -> None:
    """The generic event once, one per domain for the others, in the order of domids."""
    watch(told, "s1", b"@releaseDomain", b"deep", b"1\0")
    watch(told, "s1", b"@releaseDomain/3", b"three")
    watch(told, "s1", b"@releaseDomain/4", b"four")
    set_states(told, d4="gone", d1="dead", d3="shutdown")
    found = events(told, "s1")
    assert found.count(GENERIC) == 1
    assert [path for path, token in found if token == b"deep"] == [
        b"@releaseDomain/%d" % n for n in (1, 3, 4)
    ]
    assert found.count((b"@releaseDomain/3", b"three")) == 1
    assert found.count((b"@releaseDomain/4", b"four")) == 1
    assert len(found) == 6
    assert sorted(told.server.domains) == [0, 2, 3]


def test_shutdown_is_told_at_every_interrupt(told: Rings) -> None:
    """It stays served; each change of anybody's state tells of it again, until it runs or goes."""
    watch(told, "s1", b"@releaseDomain/1", b"one")
    mine = [GENERIC, (b"@releaseDomain/1", b"one")]
    set_states(told, d1="shutdown")
    assert events(told, "s1") == mine
    told.works(1)
    set_states(told, d2="running")
    assert events(told, "s1") == mine
    told.virq()
    assert events(told, "s1") == mine
    ok(told, "s0", "RESUME", b"1\0")
    set_states(told, d1="running")
    assert events(told, "s1") == []
    told.virq()
    assert events(told, "s1") == []
    set_states(told, d1="shutdown")
    assert events(told, "s1") == mine
    set_states(told, d1="gone")
    assert events(told, "s1") == mine
    told.virq()
    assert events(told, "s1") == []


def test_released_while_shut_down(told: Rings) -> None:
    """RELEASE ends that, also for a new domain under the domid."""
    set_states(told, d1="shutdown")
    ok(told, "s0", "RELEASE", b"1\0")
    events(told, "s1")
    told.virq()
    assert events(told, "s1") == []
    told.bear(1)
    told.virq()
    assert events(told, "s1") == []
    told.works(1)


def test_nobody_changed(told: Rings) -> None:
    """An interrupt about domains that were never introduced."""
    told.xen.guest(50)
    told.xen.set_state(50, "gone")
    told.virq()
    told.virq()
    assert events(told, "s1") == []
    for domid in (1, 2, 3, 4):
        told.works(domid)


@pytest.mark.parametrize("list_of_changes", [False, True])
def test_reuse_when_the_death_was_missed(make_rings: Make, list_of_changes: bool) -> None:
    """The domid runs again, with another unique id: the old domain is dead, and
    the new one can be introduced."""
    rings = make_rings()
    rings.xen.tells = list_of_changes
    watch(rings, "s1", b"@releaseDomain", b"generic")
    watch(rings, "d1", b"x")
    old = len(rings.xen.mapped)
    rings.guest(1)  # a new page, a new id
    rings.virq()
    assert events(rings, "s1") == [GENERIC]
    assert 1 not in rings.server.domains
    assert len(rings.xen.mapped) == old - 1
    rings.introduce(1, mfn=99)
    assert ok(rings, "d1", "GET_DOMAIN_PATH", b"1\0") == b"/local/domain/1\0"
    assert error(rings, "s0", "READ", b"/local/domain/1\0") == "ENOENT"
    rings.virq()
    assert 1 in rings.server.domains


def test_without_unique_ids_a_running_domain_is_the_same(rings: Rings) -> None:
    """An older Xen tells no ids: 0 is never another domain."""
    xen: Any = rings.xen
    state = xen.state
    xen.state = lambda domid: (*state(domid)[:2], 0)
    rings.virq()
    assert sorted(rings.server.domains) == [0, 1, 2]
    rings.bear(3)
    xen.state = state
    rings.virq()
    assert sorted(rings.server.domains) == [0, 1, 2, 3]


def test_a_state_that_cannot_be_asked(told: Rings) -> None:
    """It is logged, nobody is taken for dead, and the next interrupt asks again."""
    told.xen.fail.add("state")
    set_states(told, d1="gone")
    assert sorted(told.server.domains) == [0, 1, 2, 3, 4]
    assert any(
        level == "error" and "state of domain 1" in text for level, _, text in told.host.messages
    )
    told.xen.fail.clear()
    set_states(told, d1="gone")
    assert sorted(told.server.domains) == [0, 2, 3, 4]


def test_a_list_of_changes_that_fails(told: Rings) -> None:
    """Each domain is asked for instead."""
    xen: Any = told.xen

    def changed() -> list[int]:
        raise OSError(14, "Bad address")

    xen.changed = changed
    told.xen.states[1] = "gone"
    told.virq()
    assert sorted(told.server.domains) == [0, 2, 3, 4]
    assert any("changed domains" in text for _, _, text in told.host.messages)


@pytest.mark.parametrize(
    "state",
    [
        "bad ring",
        "half a packet",
        "unread replies",
        "wants reconnect",
        "blocked",
        "in a transaction",
    ],
)
def test_death_in_every_state(make_rings: Make, state: str) -> None:
    """Nothing of it is left, nobody is held up by it any longer."""
    rings = make_rings(quota_maxwatchevents=4, quota_maxoutstanding=4, quota_maxwatch=100)
    guest, watcher = rings.guests[1], rings.guests[2]
    ok(rings, "s0", "SET_PERMS", b"/local/domain/1\0n1\0r2\0")
    if state == "bad ring":
        guest.put(2052, 99999)
    elif state == "half a packet":
        guest.feed(packet("READ", b"x\0")[:17])
    elif state == "unread replies":
        guest.feed(packet("GET_DOMAIN_PATH", b"1\0") * 50)
    elif state == "wants reconnect":
        guest.put(CONNECTION, 1)
    elif state == "blocked":
        watch(rings, "d2", b"/local/domain/1")
        for n in range(60):
            guest.feed(packet("WRITE", b"x/%d\0v" % n))
            rings.turn("d1")
            guest.take()
        assert rings.server.domains[1].overflowing
    else:
        ok(rings, "d1", "WRITE", b"x\0v", begin(rings, "d1"))
    if state != "wants reconnect":
        rings.turn("d1")
    rings.xen.set_state(1, "gone")
    rings.virq()
    watcher.put(RSP_CONS, watcher.get(RSP_PROD))
    rings.reconnect(2)
    rings.works(2)
    assert 1 not in rings.server.domains
    assert len(rings.xen.mapped) == len(rings.xen.bound) == 1
    assert rings.server.open_transactions == 0


def test_death_of_a_watcher_lets_others_go_on(make_rings: Make) -> None:
    """Two writers, a socket and a domain, held up by one who never reads."""
    rings = make_rings((1, 2, 3), quota_maxwatchevents=4, quota_maxwatch=100)
    ok(rings, "s0", "WRITE", b"/w\0")
    ok(rings, "s0", "SET_PERMS", b"/w\0b0\0")
    watch(rings, "d1", b"/w")
    for n in range(100):
        rings.connection("s0")[1].feed(packet("WRITE", b"/w/s%d\0v" % n))
        rings.turn("s0")
        rings.guests[3].feed(packet("WRITE", b"/w/d%d\0v" % n))
        rings.turn("d3")
    assert rings.connection("s0")[0].blocked and rings.server.domains[3].blocked
    rings.works(2)
    rings.xen.set_state(1, "gone")
    rings.virq()
    assert not rings.connection("s0")[0].blocked and not rings.server.domains[3].blocked
    rings.drain("s0")
    rings.feed("d3", b"")
    rings.drain("d3")
    rings.works(3)
    assert ok(rings, "s0", "READ", b"/w/s99\0") == b"v"
    assert ok(rings, "s0", "READ", b"/w/d99\0") == b"v"


def test_transactions_open_over_a_death(told: Rings) -> None:
    """One that touches nothing of the dead is committed, one that read of it is not."""
    ok(told, "s0", "WRITE", b"/local/domain/1/x\0v")
    free, bound = begin(told, "s0"), begin(told, "s1")
    ok(told, "s0", "WRITE", b"/free\0v", free)
    ok(told, "s1", "READ", b"/local/domain/1/x\0", bound)
    ok(told, "s1", "WRITE", b"/bound\0v", bound)
    set_states(told, d1="gone")
    assert end(told, "s0", free) == "OK"
    told.drain("s1")
    assert end(told, "s1", bound) == "EAGAIN"
    recount(told)


@pytest.mark.parametrize("name", [b"@releaseDomain", b"@introduceDomain"])
def test_permission_on_special_watches(told: Rings, name: bytes) -> None:
    """A guest is told where it may read the special node; per domain only where
    a node of just that name allows it."""
    for token, payload in ((b"t", b""), (b"deep", b"1\0")):
        watch(told, "d2", name, token, payload)
    watch(told, "s1", name, b"deep", b"1\0")

    def go() -> list[tuple[bytes, bytes]]:
        if 3 in told.server.domains:
            if name == b"@releaseDomain":
                set_states(told, d3="gone")
                told.guest(3)
                told.host.introduce(None, 3, 1, 7)
            else:
                ok(told, "s0", "RELEASE", b"3\0")
                told.drain("d2")
                told.guest(3)
                told.host.introduce(None, 3, 1, 7)
                told.turn()
        return events(told, "d2")

    assert go() == []
    ok(told, "s0", "SET_PERMS", name + b"\0n0\0r2\0")
    assert go() == [(name, b"t")]
    ok(told, "s0", "WRITE", name + b"/3\0")
    ok(told, "s0", "SET_PERMS", name + b"/3\0n0\0r2\0")
    assert sorted(go()) == [(name, b"t"), (name + b"/3", b"deep")]
    ok(told, "s0", "SET_PERMS", name + b"\0n0\0")
    assert go() == [(name + b"/3", b"deep")]


@pytest.mark.parametrize(
    "depth, answer",
    [(b"1", "OK"), (b"0", "EINVAL"), (b"2", "EINVAL"), (b"-1", "EINVAL"), (b"x", "EINVAL")],
)
def test_depth_of_special_watches(rings: Rings, depth: bytes, answer: str) -> None:
    """Only 1; a watch on one domain takes none at all."""
    for name in (b"@releaseDomain", b"@introduceDomain"):
        _, body = rings.ask("s0", "WATCH", name + b"\0t\0" + depth + b"\0")
        assert body[:-1].decode() == answer
    assert error(rings, "s0", "WATCH", b"@releaseDomain/1\0t\0" + depth + b"\0") == "EINVAL"


def bury_all(rings: Rings) -> int:
    """As the daemon does behind each turn; how many turns that took."""
    turns = 0
    while rings.host.domains.next:
        rings.host.domains.look_next()
        rings.turn()
        turns += 1
    return turns


def crowd(rings: Rings, domids: range) -> None:
    """Domains that Xen says are gone, of which nobody was told yet."""
    for domid in domids:
        rings.guest(domid)
        rings.host.introduce(None, domid, 1, 7)
    rings.turn()
    for domid in domids:
        rings.xen.set_state(domid, "gone")


@pytest.mark.parametrize("count", [32, 33, 300])
def test_hundreds_die_at_once(told: Rings, count: int) -> None:
    """All are gone after one interrupt; two watchers of all of them are told of each.  So many at
    a time that others are served in between."""
    domids = range(100, 100 + count)
    crowd(told, domids)
    watch(told, "s0", b"@releaseDomain", b"deep", b"1\0")
    told.drain("s1")
    told.virq()
    assert events(told, "s1") == [GENERIC]
    assert len(events(told, "s0")) == 32
    assert sorted(told.server.domains) == [0, 1, 2, 3, 4, *domids[32:]]
    turns = (count - 1) // 32
    assert bury_all(told) == turns
    assert events(told, "s1") == [GENERIC] * turns
    assert sorted(path for path, _ in events(told, "s0")) == [
        b"@releaseDomain/%d" % domid for domid in domids[32:]
    ]
    assert sorted(told.server.domains) == [0, 1, 2, 3, 4]
    assert len(told.xen.mapped) == len(told.xen.bound) == 4
    assert not told.host.domains.unasked


def crowd_of_dead(rings: Rings) -> range:
    """Eighty that Xen says are gone, of which the first 32 are buried."""
    domids = range(100, 180)
    crowd(rings, domids)
    rings.virq()
    assert sorted(rings.server.domains)[-1] == 179
    return domids


def test_what_happens_to_the_dead_that_wait(told: Rings) -> None:
    """One is released, one comes again as another domain, and another interrupt finds all of them
    dead once more."""
    crowd_of_dead(told)
    ok(told, "s0", "RELEASE", b"150\0")
    told.bear(160)
    assert 150 not in told.server.domains and 160 in told.server.domains
    told.virq()
    bury_all(told)
    assert sorted(told.server.domains) == [0, 1, 2, 3, 4, 160]
    told.works(160)


def test_the_dead_that_wait_are_known_to_whoever_goes_on(told: Rings) -> None:
    """They are among those to be asked about, which an image says."""
    domids = crowd_of_dead(told)
    assert set(domids[32:]) <= told.host.domains.unasked


class Forgetful:
    """A server that has no memory for forgetting, for a while."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.lacks_memory = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def forget_domains(self, domids: Any) -> None:
        if self.lacks_memory:
            raise MemoryError
        self.server.forget_domains(domids)


@pytest.mark.parametrize("released", [False, True], ids=["dies", "is released"])
def test_no_memory_for_forgetting(told: Rings, released: bool) -> None:
    """Who is not forgotten is known until it is: the next domain gets nothing of it."""
    ok(told, "s0", "SET_PERMS", b"/local/domain/2\0n2\0b1\0")
    domains = told.server.host.domains
    domains.server = server = Forgetful(told.server)
    if released:
        assert error(told, "s0", "RELEASE", b"1\0") == "EIO"
        told.host.messages.clear()
        told.works(1)
    else:
        with pytest.raises(MemoryError):
            set_states(told, d1="gone")
    assert events(told, "s1") == []
    assert [0, *domains.table] == sorted(told.server.domains) == [0, 1, 2, 3, 4]
    server.lacks_memory = False
    if released:
        ok(told, "s0", "RELEASE", b"1\0")
    else:
        told.virq()
    assert events(told, "s1") == [GENERIC]
    assert sorted(told.server.domains) == [0, 2, 3, 4]
    assert error(told, "s0", "READ", b"/local/domain/1\0") == "ENOENT"
    assert ok(told, "s0", "GET_PERMS", b"/local/domain/2\0") == b"n2\0"
