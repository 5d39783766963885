# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest asks for a reconnect, whatever it was doing: nothing of before is left but its rights."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakexen import CONNECTION, ERROR_FIELD, FEATURES, REQ_CONS, REQ_PROD, RSP_CONS
from tests.rings.kit import (
    ALL_FEATURES,
    INDICES,
    RING,
    Guest,
    Make,
    Rings,
    indices,
    packet,
    packets,
    start_at,
)
from tests.unit.kit import begin, end, error, events, ok, watch
from tests.world import HEADER

LIMIT = 4


def fresh(rings: Rings, domid: int) -> None:
    """Page and connection are as after a reconnect."""
    guest, connection = rings.guests[domid], rings.server.domains[domid]
    assert guest.get(CONNECTION) == 0, "the daemon did not see it"
    assert indices(guest) == dict.fromkeys(INDICES, 0)
    assert bytes(guest.page[: 2 * RING]) == b"\xff" * (2 * RING)
    assert guest.get(ERROR_FIELD) == 0
    assert guest.get(FEATURES) == ALL_FEATURES
    assert connection.features == ALL_FEATURES
    assert connection.watch_list() == []
    assert connection.transactions == {}
    assert connection.partial_input == b""
    assert connection.pending_output == b""
    assert connection.queued == (0, 0)
    assert connection.waiting_events == 0
    assert connection.overflowing == 0


# What a guest may have been doing.  Each leaves it in that state.


def idle(rings: Rings, guest: Guest) -> None:
    """Nothing."""


def half_header(rings: Rings, guest: Guest) -> None:
    """Half a header is read."""
    guest.feed(packet("READ", b"x\0")[:11])
    rings.turn("d1")


def half_body(rings: Rings, guest: Guest) -> None:
    """Half a body is read."""
    guest.feed(packet("WRITE", b"x\0" + b"v" * 500)[:200])
    rings.turn("d1")


def unread_request(rings: Rings, guest: Guest) -> None:
    """A request lies in the ring that nobody has read."""
    guest.feed(packet("WRITE", b"never\0v"))


def unread_reply(rings: Rings, guest: Guest) -> None:
    """A reply lies in the ring."""
    guest.feed(packet("GET_DOMAIN_PATH", b"1\0"))
    rings.turn("d1")


def reply_half_sent(rings: Rings, guest: Guest) -> None:
    """A reply is half in the ring, and more wait."""
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 2000)
    guest.feed(packet("READ", b"x\0") * 3)
    rings.turn("d1")
    assert len(rings.server.domains[1].pending_output) > 4000


def blocked_by_replies(rings: Rings, guest: Guest) -> None:
    """It has not read more replies than it may leave unread."""
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 2000)
    guest.feed(packet("READ", b"x\0") * 12)
    rings.turn("d1")
    rings.turn("d1")
    assert rings.server.domains[1].blocked


def as_many_replies_as_may_be(rings: Rings, guest: Guest) -> None:
    """One request more, and it would have been found blocked by its replies."""
    ok(rings, "d1", "WRITE", b"x\0" + b"v" * 2000)
    connection = rings.server.domains[1]
    while connection.queued[0] < LIMIT:
        guest.feed(packet("READ", b"x\0"))
        rings.turn("d1")
    assert not connection.blocked


def transactions(rings: Rings, guest: Guest) -> None:
    """Transactions are open, with writes in them."""
    for _ in range(3):
        ok(rings, "d1", "WRITE", b"never\0v", begin(rings, "d1"))


def events_wait(rings: Rings, guest: Guest) -> None:
    """Events wait in the ring, in the queue, behind the watch, and with who caused them."""
    watch(rings, "d1", b"x", b"t")
    for n in range(60):
        rings.feed("s0", packet("WRITE", b"/local/domain/1/x/%d\0v" % n))
    assert rings.server.domains[1].waiting_events == LIMIT
    assert rings.connection("s0")[0].overflowing


def blocked_by_a_watcher(rings: Rings, guest: Guest) -> None:
    """It caused more events than a watcher, which does not read, can be left with."""
    ok(rings, "s0", "SET_PERMS", b"/local/domain/1\0n1\0r2\0")
    watch(rings, "d2", b"/local/domain/1", b"t")
    for n in range(60):
        guest.feed(packet("WRITE", b"x/%d\0v" % n))
        rings.turn("d1")
        guest.take()
    assert rings.server.domains[1].overflowing
    assert rings.server.domains[1].blocked


def as_many_events_as_may_be(rings: Rings, guest: Guest) -> None:
    """It has just caused the first event too many, and asked nothing since."""
    ok(rings, "s0", "SET_PERMS", b"/local/domain/1\0n1\0r2\0")
    watch(rings, "d2", b"/local/domain/1", b"t")
    connection = rings.server.domains[1]
    while not connection.overflowing:
        guest.feed(packet("WRITE", b"x/%d\0v" % connection.ops))
        rings.turn("d1")
        guest.take()
    assert not connection.blocked


def bad_indices(rings: Rings, guest: Guest) -> None:
    """Its ring is parked for its indices."""
    guest.put(REQ_PROD, guest.get(REQ_CONS) + 4000)
    rings.turn("d1")
    assert rings.is_bad(1)


def bad_reply_indices(rings: Rings, guest: Guest) -> None:
    """Its ring is parked for the indices of its replies."""
    guest.put(RSP_CONS, 77777)
    guest.feed(packet("READ", b"x\0"))
    rings.turn("d1")
    assert rings.is_bad(1)


def bad_length(rings: Rings, guest: Guest) -> None:
    """Its ring is parked for a length."""
    guest.feed(HEADER.pack(2, 1, 0, 9999))
    rings.turn("d1")
    assert rings.is_bad(1)


def silent_break(rings: Rings, guest: Guest) -> None:
    """Its indices are broken and nobody has looked yet."""
    for n, offset in enumerate(INDICES.values()):
        guest.put(offset, 12345 * n)


STATES = [
    idle,
    half_header,
    half_body,
    unread_request,
    unread_reply,
    reply_half_sent,
    blocked_by_replies,
    as_many_replies_as_may_be,
    transactions,
    events_wait,
    blocked_by_a_watcher,
    as_many_events_as_may_be,
    bad_indices,
    bad_reply_indices,
    bad_length,
    silent_break,
]


@pytest.mark.parametrize("value", [1, 0xFFFFFFFF], ids=["1", "any value"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_reconnect(make_rings: Make, state: Callable[[Rings, Guest], None], value: int) -> None:
    """In each state: done in one turn, told with a notification, all of before
    forgotten, and the guest goes on."""
    rings = make_rings(quota_maxwatchevents=LIMIT, quota_maxoutstanding=LIMIT, quota_maxwatch=100)
    guest = rings.guests[1]
    start_at(guest, 1000)
    state(rings, guest)
    guest.unsent = b""
    rings.notified(1)
    guest.put(CONNECTION, value)
    rings.turn("d1")
    assert rings.notified(1) >= 1
    fresh(rings, 1)
    rings.rest.pop("d1", None)
    while rings.drain("d2"):
        rings.turn("d2")
    rings.works(1)
    assert error(rings, "d1", "READ", b"never\0") == "ENOENT"
    rings.works(2)
    # Who was held up by what it had not read goes on.
    ok(rings, "s0", "WRITE", b"/local/domain/1/x/after\0v")
    assert rings.drain("d1") == []


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_reconnect_found_by_the_scan(
    make_rings: Make, state: Callable[[Rings, Guest], None]
) -> None:
    """A kick that was lost: the next look at all rings finds the wish."""
    rings = make_rings(quota_maxwatchevents=LIMIT, quota_maxoutstanding=LIMIT, quota_maxwatch=100)
    state(rings, rings.guests[1])
    rings.guests[1].put(CONNECTION, 1)
    assert rings.host.domains.scan() >= 1
    rings.turn()
    fresh(rings, 1)


def test_rights_stay(rings: Rings) -> None:
    """SET_TARGET, node permissions and quotas are not a matter of the connection."""
    ok(rings, "s0", "WRITE", b"/local/domain/2/secret\0v")
    ok(rings, "s0", "SET_PERMS", b"/local/domain/2/secret\0n2\0")
    ok(rings, "s0", "SET_TARGET", b"1\0002\0")
    ok(rings, "d1", "WRITE", b"mine\0v")
    rings.server.set_quota("watches", 3, rings.server.domains[1])
    rings.reconnect(1)
    assert rings.server.domains[1].target == 2
    assert ok(rings, "d1", "READ", b"/local/domain/2/secret\0") == b"v"
    assert ok(rings, "d1", "READ", b"mine\0") == b"v"
    assert error(rings, "d2", "READ", b"/local/domain/1/mine\0") == "EACCES"
    assert rings.server.quota("watches", rings.server.domains[1]) == 3
    assert ok(rings, "s0", "IS_DOMAIN_INTRODUCED", b"1\0") == b"T\0"


def test_nobody_is_told_of_a_reconnect(rings: Rings) -> None:
    """It is neither a release nor an introduction."""
    watch(rings, "s0", b"@releaseDomain")
    watch(rings, "s0", b"@introduceDomain")
    rings.reconnect(1)
    assert rings.collect() == {}


def test_transaction_ids_begin_anew_or_not_but_the_old_are_gone(rings: Rings) -> None:
    """An id of before is EIO."""
    old = begin(rings, "d1")
    rings.reconnect(1)
    assert error(rings, "d1", "READ", b"x\0", old) == "EIO"
    assert end(rings, "d1", begin(rings, "d1")) == "OK"


def test_again_and_again(rings: Rings) -> None:
    """Each reconnect is one; a guest that only reconnects disturbs nobody."""
    guest = rings.guests[1]
    for n in range(200):
        rings.notified(1)
        guest.feed(packet("WATCH", b"x\0%d\0" % n) + packet("WRITE", b"x\0v"))
        if n % 3:
            rings.turn("d1")
        guest.unsent = b""
        guest.put(CONNECTION, 1)
        rings.turn("d1")
        fresh(rings, 1)
        assert rings.notified(1) >= 1
    rings.works(2)
    rings.works(1)


def test_requests_written_too_early_are_gone(rings: Rings) -> None:
    """What a guest writes before connection is 0 again is not a request."""
    guest = rings.guests[1]
    guest.put(CONNECTION, 1)
    guest.feed(packet("WRITE", b"early\0v"))
    rings.turn("d1")
    assert error(rings, "d1", "READ", b"early\0") == "ENOENT"


def test_introduced_while_it_wants_a_reconnect(rings: Rings) -> None:
    """A toolstack leaves connection at 1 for the guest to wait for: the first
    turn answers it."""
    guest = rings.guest(3)
    guest.put(CONNECTION, 1)
    rings.introduce(3)
    rings.turn("d3")
    assert guest.get(CONNECTION) == 0
    assert rings.notified(3) >= 1
    assert guest.get(FEATURES) == ALL_FEATURES
    assert ok(rings, "d3", "GET_DOMAIN_PATH", b"3\0") == b"/local/domain/3\0"


def test_neighbours_in_the_same_turn(rings: Rings) -> None:
    """One reconnects while the other is answered."""
    rings.guests[1].put(CONNECTION, 1)
    rings.guests[2].feed(packet("GET_DOMAIN_PATH", b"2\0"))
    rings.turn("d1", "d2")
    fresh(rings, 1)
    assert packets(rings.guests[2].take())[0][0][3] == b"/local/domain/2\0"


def test_its_events_overflow(make_rings: Make) -> None:
    """So many events are due to it that they wait with who caused them: those go on at its
    reconnect, and nothing of its former life comes to its next watches."""
    rings = make_rings((1, 2, 3), quota_maxwatchevents=LIMIT, quota_maxwatch=100)
    ok(rings, "s0", "WRITE", b"/w\0")
    ok(rings, "s0", "SET_PERMS", b"/w\0b0\0")
    watch(rings, "d1", b"/w")
    for n in range(100):
        for name in ("s0", "d3"):
            rings.connection(name)[1].feed(packet("WRITE", b"/w/%s%d\0v" % (name.encode(), n)))
            rings.turn(name)
    writers = [rings.connection("s0")[0], rings.server.domains[3]]
    assert all(writer.blocked and writer.overflowing for writer in writers)
    rings.reconnect(1)
    assert not any(writer.blocked or writer.overflowing for writer in writers)
    assert rings.server.domains[1].waiting_events == 0
    assert rings.drain("d1") == []
    watch(rings, "d1", b"/w", b"new")
    rings.feed("d3", b"")
    for name in ("s0", "d3"):
        rings.drain(name)
        assert ok(rings, name, "READ", b"/w/%s99\0" % name.encode()) == b"v"
    rings.drain("d1")
    ok(rings, "s0", "WRITE", b"/w/last\0v")
    assert events(rings, "d1") == [(b"/w/last", b"new")]


def test_its_changes_wait_for_a_watcher(rings: Rings) -> None:
    """A commit made more events than a watcher that does not read can be left with, and the rest
    of them is still to be made: the fresh start is granted all the same."""
    ok(rings, "s0", "SET_PERMS", b"/local/domain/1\0n1\0r2\0")
    for n in range(100):
        watch(rings, "d2", b"/local/domain/1", b"%d" % n)
    connection = rings.server.domains[1]
    guest = rings.guests[1]
    rings.server.set_quota("watch-events", 1)
    tx_id = begin(rings, "d1")
    for n in range(60):
        ok(rings, "d1", "WRITE", b"k%d\0" % n, tx_id)
    guest.feed(packet("TRANSACTION_END", b"T\0", tx_id) + packet("READ", b"k0\0"))
    rings.turn("d1")
    guest.take()
    assert connection.overflowing >= 1024 and connection.ops == 1 + 60 + 1
    rings.reconnect(1)
    fresh(rings, 1)
    assert ok(rings, "d1", "READ", b"k59\0") == b""
