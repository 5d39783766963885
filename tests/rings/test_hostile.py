# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile indices and lengths end the ring they are in, and nothing else (XSA-38, XSA-420)."""

from __future__ import annotations

import struct

import pytest

from tests.fakexen import CONNECTION, ERROR_FIELD, FEATURES, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD
from tests.rings.kit import (
    ALL_FEATURES,
    BAD_INDICES,
    BAD_LENGTH,
    INDICES,
    MASK,
    RING,
    Rings,
    indices,
    packet,
    packets,
    start_at,
)
from tests.unit.kit import begin, ok, watch
from tests.world import EVENT, HEADER

BASE = 5000
#: Distances from BASE that a hostile index is set to.
DISTANCES = [
    0,
    1,
    1023,
    1024,
    1025,
    4096,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
    MASK - 1025,
    MASK - 1024,
    MASK - 1023,
    MASK - 15,
    MASK,
]


def parked(rings: Rings, domid: int, reason: int) -> None:
    """The ring is bad, says why, and stays as it is; then it comes back by a reconnect."""
    guest = rings.guests[domid]
    assert rings.is_bad(domid)
    assert guest.get(ERROR_FIELD) == reason
    assert rings.notified(domid) >= 1, "nobody told the domain"
    page = bytes(guest.page)
    for _ in range(3):
        rings.turn(f"d{domid}")
        rings.host.domains.scan()
        rings.turn()
    start_at(guest, 9000)  # nobody looks at it any more
    page_now = bytes(guest.page)
    rings.turn(f"d{domid}")
    assert bytes(guest.page) == page_now
    assert page_now[:2048] + page_now[2064:] == page[:2048] + page[2064:]
    assert rings.server.domains[domid].watch_count == 0
    assert rings.notified(domid) == 0
    rings.reconnect(domid)
    assert guest.get(ERROR_FIELD) == 0
    assert guest.get(FEATURES) == ALL_FEATURES
    rings.works(domid)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("field", ["req_prod", "req_cons"])
def test_request_indices(rings: Rings, field: str, distance: int) -> None:
    """More than a ring between the request indices is an error; what is less is data."""
    guest = rings.guests[1]
    start_at(guest, BASE)
    guest.put(INDICES[field], BASE + distance)
    apart = (guest.get(REQ_PROD) - guest.get(REQ_CONS)) & MASK
    rings.notified(1)
    rings.turn("d1")
    if apart > RING:
        parked(rings, 1, BAD_INDICES)
    else:
        assert guest.get(ERROR_FIELD) in (0, BAD_LENGTH)  # whatever was in the buffer
        assert guest.get(REQ_CONS) == guest.get(REQ_PROD)
        rings.reconnect(1)
        rings.works(1)
    rings.works(2)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("field", ["rsp_prod", "rsp_cons"])
def test_reply_indices(rings: Rings, field: str, distance: int) -> None:
    """The reply indices are looked at where there is something to send."""
    guest = rings.guests[1]
    start_at(guest, BASE)
    guest.feed(packet("GET_DOMAIN_PATH", b"1\0"))
    guest.put(INDICES[field], BASE + distance)
    apart = (guest.get(RSP_PROD) - guest.get(RSP_CONS)) & MASK
    rings.notified(1)
    rings.turn("d1")
    if apart > RING:
        parked(rings, 1, BAD_INDICES)
    else:
        assert not rings.is_bad(1)
        assert guest.get(ERROR_FIELD) == 0
        sent = (guest.get(RSP_PROD) - guest.get(RSP_CONS)) & MASK
        assert sent == min(RING, apart + 16 + len(b"/local/domain/1\0"))
    rings.works(2)


@pytest.mark.parametrize(
    "field, value",
    [
        *((field, value) for field in INDICES for value in (1 << 31, 1 << 20, 2 * RING)),
        ("req_prod", -1),
        ("rsp_cons", -1),
        ("req_cons", 1),
        ("rsp_prod", 1),
    ],
)
def test_while_replies_wait(rings: Rings, field: str, value: int) -> None:
    """An index jumps while a reply is half sent, a request half read, a
    transaction open and watches set; the neighbour watches and asks on."""
    guest = rings.guests[1]
    for name in ("d1", "d2"):
        watch(rings, name, b"@releaseDomain", b"t")
        watch(rings, name, b"x", b"t")
    begin(rings, "d1")
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 2000)
    rings.drain("d1")
    guest.feed(packet("READ", b"x\0") + packet("READ", b"x\0") + packet("READ", b"x\0")[:9])
    rings.turn("d1")
    assert guest.get(RSP_PROD) - guest.get(RSP_CONS) == RING
    guest.put(INDICES[field], guest.get(INDICES[field]) + value)
    rings.notified(1)
    rings.turn("d1")
    parked(rings, 1, BAD_INDICES)
    assert rings.open_transactions(1) == 0
    rings.works(2)
    ok(rings, "s0", "WRITE", b"/local/domain/2/x\0v")
    assert [body for type_, _, _, body in rings.drain("d2") if type_ == EVENT] == [b"x\0t\0"]


def test_event_for_a_broken_ring(rings: Rings) -> None:
    """Indices that a reader has broken are found when an event is to be sent;
    the writer who caused it is answered."""
    guest = rings.guests[1]
    watch(rings, "d1", b"x", b"t")
    guest.put(RSP_CONS, guest.get(RSP_PROD) + 1)
    rings.notified(1)
    assert ok(rings, "s0", "WRITE", b"/local/domain/1/x\0v") == b"OK\0"
    parked(rings, 1, BAD_INDICES)
    assert rings.collect() == {}


@pytest.mark.parametrize(
    "length", [4097, 4112, 8192, 1 << 16, (1 << 31) - 1, 1 << 31, MASK - 16, MASK - 15, MASK]
)
@pytest.mark.parametrize("at", [0, RING - 7], ids=["whole", "wrapped"])
def test_lengths(rings: Rings, length: int, at: int) -> None:
    """A header that claims more than 4096 bytes, or a "negative" length."""
    guest = rings.guests[1]
    start_at(guest, at)
    rings.notified(1)
    guest.feed(HEADER.pack(2, 1, 0, length) + b"x\0")
    rings.turn("d1")
    parked(rings, 1, BAD_LENGTH)
    rings.works(2)


def test_longest_length_is_fine(rings: Rings) -> None:
    """4096 bytes are a request, though one that nobody likes."""
    type_, body = rings.ask("d1", "READ", b"x" * 4095 + b"\0")
    assert (type_, body) == (16, b"EINVAL\0")
    rings.works(1)


def test_length_behind_good_requests(rings: Rings) -> None:
    """What was asked before the bad header has happened."""
    guest = rings.guests[1]
    rings.notified(1)
    guest.feed(packet("WRITE", b"x\0before") + HEADER.pack(2, 1, 0, 5000))
    rings.turn("d1")
    assert ok(rings, "s0", "READ", b"/local/domain/1/x\0") == b"before"
    parked(rings, 1, BAD_LENGTH)


def test_a_header_in_pieces_is_bad_when_it_is_whole(rings: Rings) -> None:
    """15 bytes of a bad header are no reason yet."""
    guest, header = rings.guests[1], HEADER.pack(2, 1, 0, 1 << 24)
    for byte in header[:-1]:
        guest.feed(bytes([byte]))
        rings.turn("d1")
    assert not rings.is_bad(1)
    rings.notified(1)
    guest.feed(header[-1:])
    rings.turn("d1")
    parked(rings, 1, BAD_LENGTH)


@pytest.mark.parametrize("domains_fault", [1, 2], ids=["lower", "higher"])
def test_bad_domain_among_others(rings: Rings, domains_fault: int) -> None:
    """One breaks its ring in the same turn in which the other asks."""
    bad, good = domains_fault, 3 - domains_fault
    rings.guests[bad].put(REQ_PROD, 99999)
    rings.guests[good].feed(packet("GET_DOMAIN_PATH", b"7\0"))
    rings.turn("d1", "d2")
    assert packets(rings.guests[good].take())[0][0][3] == b"/local/domain/7\0"
    rings.notified(bad)
    assert rings.is_bad(bad)


def test_a_bad_ring_is_let_go_of(rings: Rings) -> None:
    """RELEASE, and INTRODUCE of a new domain under the domid."""
    rings.guests[1].put(REQ_PROD, 99999)
    rings.turn("d1")
    assert rings.is_bad(1)
    ok(rings, "s0", "RELEASE", b"1\0")
    rings.bear(1)
    assert not rings.is_bad(1)
    rings.works(1)


def test_introduced_again_a_bad_ring_stays_bad(rings: Rings) -> None:
    """INTRODUCE again binds a port; only the guest can mend its ring."""
    guest = rings.guests[1]
    guest.put(REQ_PROD, guest.get(REQ_CONS) + 1025)
    rings.turn("d1")
    ok(rings, "s0", "INTRODUCE", b"1\0004660\0008\0")
    assert rings.is_bad(1)
    rings.reconnect(1)
    rings.works(1)


def test_a_ring_that_is_bad_from_the_beginning(rings: Rings) -> None:
    """Introduced with nonsense in the page, and in each of its bytes."""
    guest = rings.guest(3)
    guest.page[:2064] = b"\xee" * 2064
    struct.pack_into("=IIII", guest.page, REQ_CONS, 5, 5000, 7, 70000)
    rings.introduce(3)
    rings.turn("d3")
    assert rings.is_bad(3)
    rings.works(1)
    guest.put(CONNECTION, 1)
    rings.turn("d3")
    assert indices(guest) == dict.fromkeys(INDICES, 0)
    assert ok(rings, "d3", "GET_DOMAIN_PATH", b"3\0") == b"/local/domain/3\0"
