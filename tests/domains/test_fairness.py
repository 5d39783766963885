# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nobody starves anybody: bounded work per domain and turn, bounded memory, lazy rings."""

from __future__ import annotations

import pytest

from tests.domains.standin import Stand, home, introduce
from tests.fakexen import CONNECTION, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD
from tests.rings.kit import RING, Make, Rings, packet, packets
from tests.unit.kit import begin, end, ok, watch
from tests.world import EVENT, TYPES


def one_turn(rings: Rings, *names: str) -> bool:
    """One turn of the loop with the rounds that it grants itself; is more left to do at once?"""
    rings.server.begin(rings.now, rings.now)
    for name in names:
        rings.server.service(rings.connection(name)[0])
    more = bool(rings.server.flush())
    rings.server.take_changed()
    return more


def test_bounded_work_per_turn(rings: Rings) -> None:
    """A guest that fills its ring as fast as it is emptied gets one ring's worth per slice."""
    guest = rings.guests[1]
    rings.server.agenda.turn_ns = 0  # one slice in each turn
    request = packet("GET_DOMAIN_PATH", b"1\0")
    for _ in range(50):
        guest.feed(request * 56)
        guest.unsent = b""
        before = rings.server.domains[1].ops
        one_turn(rings, "d1")
        assert rings.server.domains[1].ops - before <= RING // len(request) + 1
        guest.put(RSP_CONS, guest.get(RSP_PROD))


def test_what_comes_behind_a_full_ring_needs_no_kick(rings: Rings) -> None:
    """A guest that adds to a ring which was not seen empty does not kick: the next turn looks."""
    guest = rings.guests[1]
    request = packet("GET_DOMAIN_PATH", b"1\0")
    connection = rings.server.domains[1]
    guest.feed(request * 57)  # two bytes more than the ring holds
    rings.server.begin(rings.now, rings.now)
    rings.server.service(connection)
    assert rings.server.agenda.count == 1, "the ring was full, so there may be more"
    assert connection.ops == 56
    guest.push()
    rings.server.flush()  # nobody is served for a kick
    guest.put(RSP_CONS, guest.get(RSP_PROD))
    assert connection.ops == 57
    assert not one_turn(rings)


def test_one_floods_and_another_asks(rings: Rings) -> None:
    """Of 30 who flood, none keeps the one who asks once per turn waiting for a second turn."""
    for domid in range(10, 40):
        rings.bear(domid)
    flooders = [f"d{domid}" for domid in range(10, 40)]
    for n in range(30):
        for name in flooders:
            guest = rings.guests[int(name[1:])]
            guest.put(RSP_CONS, guest.get(RSP_PROD))
            guest.unsent = b""
            guest.feed(packet("WRITE", b"x\0" + b"v" * 60) * 20)
        rings.guests[1].feed(packet("GET_DOMAIN_PATH", b"1\0", req_id=n))
        one_turn(rings, *flooders, "d1")
        assert packets(rings.guests[1].take())[0] == [
            (TYPES["GET_DOMAIN_PATH"], n, 0, b"/local/domain/1\0")
        ]


def test_a_ring_begins_anew_among_the_others(rings: Rings) -> None:
    """That drops as much as the guest has made the server remember, and others wait who ask one
    thing at a time."""
    agenda = rings.server.agenda
    rings.bear(3)
    for _ in range(30):  # those who ask for many things have had more time so far
        rings.guests[3].feed(packet("WRITE", b"x\0" + b"v" * 200) * 4)
        rings.server.serve_later(rings.server.domains[3])
        rings.turn()
        rings.guests[3].take()
    agenda.turn_ns, agenda.slice_ns = 0, 10**12
    rings.guests[1].put(CONNECTION, 1)
    rings.guests[2].feed(packet("GET_DOMAIN_PATH", b"1\0"))
    for domid in (1, 2):
        rings.server.serve_later(rings.server.domains[domid])
    while not rings.guests[2].take():
        assert rings.server.flush()
    assert rings.guests[1].get(CONNECTION) == 1
    rings.turn()
    assert rings.guests[1].get(CONNECTION) == 0


def test_two_who_unblock_each_other_do_not_hold_the_loop(make_rings: Make) -> None:
    """A turn's end is bounded, however often writers and watchers wake each other."""
    rings = make_rings(quota_maxwatchevents=1, quota_maxoutstanding=1, quota_maxwatch=100)
    ok(rings, "s0", "WRITE", b"/w\0")
    ok(rings, "s0", "SET_PERMS", b"/w\0b0\0")
    for name in ("d1", "d2"):
        watch(rings, name, b"/w")
    for n in range(200):
        for domid in (1, 2):
            guest = rings.guests[domid]
            guest.unsent = b""
            guest.feed(packet("WRITE", b"/w/%d\0%d" % (n % 7, n)) * 30)
        before = rings.server.ops
        one_turn(rings, "d1", "d2")
        assert rings.server.ops - before < 300
        for domid in (1, 2):
            guest = rings.guests[domid]
            guest.put(RSP_CONS, guest.get(RSP_PROD))
    for _ in range(200):
        for domid in (1, 2):
            rings.guests[domid].put(RSP_CONS, rings.guests[domid].get(RSP_PROD))
        one_turn(rings, "d1", "d2")
    for domid in (1, 2):
        rings.reconnect(domid)
        rings.works(domid)


def test_a_guest_that_never_reads_what_a_toolstack_writes(rings: Rings) -> None:
    """With the limits as they are by default, and a hundred watches on its home, a backend
    writes some forty nodes, 4,400 events; what is kept for the guest is bounded, and the toolstack
    is held up no longer than until the guest dies."""
    for n in range(100):
        watch(rings, "d1", b"/local/domain/1", b"%d" % n)
    sent = 0
    for n in range(1500):
        rings.connection("s0")[1].feed(packet("WRITE", b"/local/domain/1/a/%d\0v" % n, req_id=n))
        rings.turn("s0")
        sent += 1
        if rings.connection("s0")[0].blocked:
            break
    connection = rings.server.domains[1]
    assert sent > 40
    assert connection.queued[1] <= 1024
    assert connection.waiting_events <= 768 * 1024 // 224
    assert rings.connection("s0")[0].overflowing <= 100
    assert ok(rings, "s1", "READ", b"/local/domain/1/a/0\0") == b"v"
    rings.xen.set_state(1, "gone")
    rings.virq()
    rings.turn("s0")
    assert rings.connection("s0")[1].unread == 0
    assert len(rings.drain("s0")) == sent


def test_starts_transactions_and_vanishes(rings: Rings) -> None:
    """Over and over, with much written in each; nothing stays, and the store is the same."""
    size = rings.server.tree.size
    for domid in range(10, 60):
        rings.bear(domid)
        for _ in range(10):
            tx = begin(rings, f"d{domid}")
            for n in range(10):
                ok(rings, f"d{domid}", "WRITE", b"a/%d\0v" % n, tx)
        rings.xen.set_state(domid, "gone")
        rings.virq()
    assert rings.server.open_transactions == 0
    assert rings.server.tree.size == size


def test_two_who_fight(rings: Rings) -> None:
    """A guest whose writes make another's transactions fail is paused, and
    comes back when its credit does; what it asked meanwhile is answered."""
    ok(rings, "s0", "WRITE", b"/w\0v")
    ok(rings, "s0", "SET_PERMS", b"/w\0b0\0")
    paused = 0
    for n in range(30):
        tx = begin(rings, "d2")
        ok(rings, "d2", "READ", b"/w\0", tx)
        ok(rings, "d2", "WRITE", b"mine\0v", tx)
        rings.guests[1].feed(packet("WRITE", b"/w\0%d" % n, req_id=n))
        rings.turn("d1")
        end(rings, "d2", tx)
        if rings.server.domains[1].credit <= 0:
            paused += 1
            break
        rings.guests[1].take()
    assert paused == 1
    rings.guests[1].take()
    rings.guests[1].feed(packet("GET_DOMAIN_PATH", b"1\0", req_id=99))
    rings.turn("d1")
    assert rings.guests[1].take() == b""
    rings.works(2)
    for _ in range(20):
        rings.now += 0.1
        rings.server.begin(rings.now, rings.now)
        rings.server.tick(rings.now)
        rings.turn()
    assert packets(rings.guests[1].take())[0] == [
        (TYPES["GET_DOMAIN_PATH"], 99, 0, b"/local/domain/1\0")
    ]


# -- lazy rings ---------------------------------------------------------------


def test_credit_comes_back_in_time() -> None:
    """A guest without credit is served again as soon as the daemon's clock says so, though
    nobody else asks for anything."""
    settings = {
        "conflict-burst-limit": "1.0",
        "conflict-max-history-seconds": "0.5",
        "xenstored-log-level": "debug",
    }
    with Stand(settings=settings).start() as stand, stand.client() as client:
        guest = stand.host.create(5)
        assert introduce(client, guest) == b"OK\0"
        home(client, 5)
        shared = b"/local/domain/5/x\0"
        client.ask("WRITE", shared)
        for n in range(100):  # on a busy machine the transaction may be too old by then
            tx_id = int(client.ask("TRANSACTION_START", b"\0")[1][:-1])
            client.ask("READ", shared, tx_id)
            client.ask("WRITE", b"/y\0", tx_id)
            assert guest.request(TYPES["WRITE"], b"x\0%d" % n).payload == b"OK\0"
            assert client.ask("TRANSACTION_END", b"T\0", tx_id)[1] == b"EAGAIN\0"
            if "Blaming domain DOM5" in stand.log():
                break
        assert "Blaming domain DOM5" in stand.log()
        # Sooner than the daemon wakes for what it does every 15 seconds.
        assert guest.request(TYPES["WRITE"], b"x\0", seconds=10).payload == b"OK\0"


def test_scan_finds_requests_without_a_kick(rings: Rings) -> None:
    """All lazy rings are served by one look, the others left alone."""
    for domid in range(10, 20):
        rings.bear(domid)
    for domid in range(10, 20, 2):
        rings.guests[domid].feed(packet("GET_DOMAIN_PATH", b"1\0"))
    assert rings.host.domains.scan() == 5
    rings.turn()
    for domid in range(10, 20):
        found = packets(rings.guests[domid].take())[0]
        assert [body for _, _, _, body in found] == [b"/local/domain/1\0"] * (domid % 2 == 0)
    assert rings.host.domains.scan() == 0


def test_scan_finds_room_without_a_kick(rings: Rings) -> None:
    """A lazy guest took what was there of a long reply: the rest comes with the next look."""
    guest = rings.guests[1]
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 2000)
    guest.feed(packet("READ", b"x\0"))
    rings.turn("d1")
    got = guest.take()
    for _ in range(3):
        rings.host.domains.scan()
        rings.turn()
        got += guest.take()
    assert packets(got) == ([(TYPES["READ"], 1, 0, b"v" * 2000)], b"")


def test_scan_passes_by_the_bad(rings: Rings) -> None:
    """A ring that is parked is not read, however much lies in it."""
    guest = rings.guests[1]
    guest.put(REQ_PROD, guest.get(REQ_CONS) + 2000)
    rings.host.domains.scan()
    rings.turn()
    assert rings.is_bad(1)
    rings.guests[2].feed(packet("GET_DOMAIN_PATH", b"1\0"))
    page = bytes(guest.page)
    rings.host.domains.scan()
    rings.turn()
    assert bytes(guest.page) == page
    assert packets(rings.guests[2].take())[0][0][3] == b"/local/domain/1\0"


@pytest.mark.parametrize("idle", [1, 500])
def test_an_event_goes_to_who_watches_only(rings: Rings, idle: int) -> None:
    """Of many idle domains none is looked at or notified."""
    for domid in range(1000, 1000 + idle):
        rings.guest(domid)
        rings.host.introduce(None, domid, 1, 7)
    rings.turn()
    watch(rings, "d1", b"x")
    rings.xen.channels.notified.clear()
    pages = {domid: bytes(rings.guests[domid].page) for domid in range(1000, 1000 + idle)}
    rings.feed("s0", packet("WRITE", b"/local/domain/1/x\0v"))
    assert rings.xen.channels.notified == [rings.host.domains.table[1].port]
    assert pages == {domid: bytes(rings.guests[domid].page) for domid in pages}
    assert [type_ for type_, _, _, _ in rings.drain("d1")] == [EVENT]
