# SPDX-License-Identifier: LGPL-2.1-or-later
"""The byte stream through the ring: wrap-around, large packets, pieces, notifications."""

from __future__ import annotations

import pytest

from tests.fakexen import ERROR_FIELD, FEATURES, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD
from tests.rings.kit import (
    ALL_FEATURES,
    MASK,
    RING,
    Make,
    Rings,
    indices,
    packet,
    packets,
    start_at,
)
from tests.unit.kit import events, ok, watch
from tests.world import EVENT, TYPES

VALUE = bytes(range(1, 256)) + b"." * 45


@pytest.mark.parametrize("first", range(0, RING, 64))
def test_every_offset(rings: Rings, first: int) -> None:
    """A request and a reply that begin at each offset of their rings."""
    guest = rings.guests[1]
    for at in range(first, first + 64):
        start_at(guest, at)
        value = b"%d" % at + VALUE
        assert ok(rings, "d1", "WRITE", b"x\0" + value) == b"OK\0"
        start_at(guest, at)
        assert ok(rings, "d1", "READ", b"x\0") == value
    rings.works(2)


@pytest.mark.parametrize("base", [MASK, 1 << 31, MASK - 500, MASK - 1100, 0xFFFFFC00])
def test_indices_overflow(rings: Rings, base: int) -> None:
    """The indices run through 2^32 (and 2^31) and go on."""
    guest = rings.guests[1]
    start_at(guest, base)
    for n in range(20):
        value = b"%d" % n + VALUE
        ok(rings, "d1", "WRITE", b"x\0" + value)
        assert ok(rings, "d1", "READ", b"x\0") == value
    moved = (guest.get(REQ_PROD) - base) & MASK
    assert 6000 < moved < 10000
    assert guest.get(REQ_CONS) == guest.get(REQ_PROD)
    assert guest.get(ERROR_FIELD) == 0


@pytest.mark.parametrize("base", [0, 1, 1008, 1023, MASK - 1000])
def test_large_packets(make_rings: Make, base: int) -> None:
    """4 KiB packets in both directions go through the 1 KiB ring."""
    rings = make_rings(quota_maxsize=4096)
    start_at(rings.guests[1], base)
    value = bytes(i % 251 for i in range(4094))
    assert ok(rings, "d1", "WRITE", b"x\0" + value) == b"OK\0"
    assert ok(rings, "d1", "READ", b"x\0") == value
    rings.works(2)


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 31, 100])
def test_pieces(rings: Rings, size: int) -> None:
    """A kick after every few bytes: headers and bodies come in pieces."""
    guest, stream = rings.guests[1], b""
    start_at(guest, 1000)
    for n in range(3):
        stream += packet("WRITE", b"p%d\0%s" % (n, VALUE[:40]), req_id=n)
    stream += packet("READ", b"p2\0", req_id=9)
    got = b""
    for at in range(0, len(stream), size):
        guest.feed(stream[at : at + size])
        rings.turn("d1")
        got += guest.take()
    found, rest = packets(got)
    assert rest == b""
    assert [(type_, req_id) for type_, req_id, _, _ in found] == [
        (TYPES["WRITE"], n) for n in range(3)
    ] + [(TYPES["READ"], 9)]
    assert found[-1][3] == VALUE[:40]


def test_reader_in_pieces(rings: Rings) -> None:
    """A guest that takes its replies byte by byte gets the same stream."""
    guest = rings.guests[1]
    ok(rings, "d1", "WRITE", b"x\0" + VALUE * 5)
    guest.feed(packet("READ", b"x\0", req_id=5))
    rings.turn("d1")
    got = b""
    for _ in range(16 + len(VALUE) * 5):
        cons, prod = guest.get(RSP_CONS), guest.get(RSP_PROD)
        assert cons != prod, "the daemon did not fill the room there was"
        got += guest.page[RING + cons % RING : RING + cons % RING + 1]
        guest.put(RSP_CONS, cons + 1)
        rings.turn("d1")
    assert packets(got) == ([(TYPES["READ"], 5, 0, VALUE * 5)], b"")


def test_full_ring_of_small_requests(rings: Rings) -> None:
    """As many requests as fit, in one go, one kick each way, replies in order."""
    guest = rings.guests[1]
    one = packet("GET_DOMAIN_PATH", b"1\0")
    count = RING // len(one)
    rings.notified(1)
    for n in range(count):
        guest.feed(packet("GET_DOMAIN_PATH", b"1\0", req_id=n))
    rings.turn("d1")
    assert rings.notified(1) == 1
    assert guest.get(REQ_CONS) == guest.get(REQ_PROD)
    found, rest = packets(guest.take())
    while len(found) < count:
        rings.turn("d1")
        assert rings.notified(1) == 1
        more, rest = packets(rest + guest.take())
        found += more
    assert [req_id for _, req_id, _, _ in found] == list(range(count))
    assert {body for _, _, _, body in found} == {b"/local/domain/1\0"}


def test_nothing_to_do_notifies_nobody(rings: Rings) -> None:
    """A kick without work, or with half a header, is not answered; no index moves but req_cons."""
    guest = rings.guests[1]
    before = indices(guest)
    rings.notified(1)
    for _ in range(3):
        rings.turn("d1")
    assert rings.notified(1) == 0
    assert indices(guest) == before
    guest.feed(packet("READ", b"x\0")[:7])
    rings.turn("d1")
    assert rings.notified(1) == 1  # there is room again
    assert indices(guest) == {
        **before,
        "req_prod": before["req_prod"] + 7,
        "req_cons": before["req_cons"] + 7,
    }


def test_a_kick_that_makes_no_room_is_not_answered(rings: Rings) -> None:
    """While the reply ring is full nothing moves, and nobody is notified."""
    guest = rings.guests[1]
    ok(rings, "d1", "WRITE", b"x\0" + VALUE * 5)
    guest.feed(packet("READ", b"x\0"))
    rings.turn("d1")
    assert rings.notified(1) >= 1
    before = indices(guest)
    for _ in range(3):
        rings.turn("d1")
    assert rings.notified(1) == 0
    assert indices(guest) == before
    guest.put(RSP_CONS, guest.get(RSP_PROD))
    rings.turn("d1")
    assert rings.notified(1) == 1


def test_one_notify_for_many_events(rings: Rings) -> None:
    """What others do in one turn reaches a watcher with one notification."""
    watch(rings, "d1", b"/local/domain/1")
    rings.notified(1)
    rings.feed(
        "s0", b"".join(packet("WRITE", b"/local/domain/1/n%d\0v" % n, req_id=n) for n in range(20))
    )
    assert rings.notified(1) == 1
    assert rings.notified(2) == 0
    assert len(events(rings, "d1")) == 20


def test_reply_and_events_in_one_batch(rings: Rings) -> None:
    """The reply comes first, then the events it caused; one notification."""
    guest = rings.guests[1]
    watch(rings, "d1", b"a")
    rings.notified(1)
    guest.feed(packet("WRITE", b"a\0v", req_id=3))
    rings.turn("d1")
    assert rings.notified(1) == 1
    found, _ = packets(guest.take())
    assert [(type_, req_id) for type_, req_id, _, _ in found] == [(TYPES["WRITE"], 3), (EVENT, 0)]


def test_features_come_before_the_first_byte(rings: Rings) -> None:
    """A guest that has written already finds the features set and nothing consumed."""
    guest = rings.guest(3)
    guest.feed(packet("GET_DOMAIN_PATH", b"3\0"))
    assert guest.get(FEATURES) == 0
    rings.introduce(3)
    assert guest.get(FEATURES) == ALL_FEATURES
    assert guest.get(REQ_CONS) == 0
    rings.turn("d3")
    assert packets(guest.take())[0][0][3] == b"/local/domain/3\0"
    assert guest.get(FEATURES) == ALL_FEATURES


def test_unknown_fields_are_let_alone(rings: Rings) -> None:
    """evtchn_port is the toolstack's, server_features the daemon's at the beginning only."""
    guest = rings.guests[1]
    guest.put(2076, 77)
    rings.works(1)
    rings.reconnect(1)
    rings.works(1)
    assert guest.get(2076) == 77
    assert guest.get(FEATURES) == ALL_FEATURES
