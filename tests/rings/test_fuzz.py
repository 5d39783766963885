# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that does anything to its page, while its neighbours are served undisturbed.

PYXSD_HYPOTHESIS_EXAMPLES sets how many pages are tried (200).
"""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakexen import CONNECTION, ERROR_FIELD
from tests.rings.kit import BAD_INDICES, BAD_LENGTH, FIELDS, MASK, PAGE_END, Rings, packet
from tests.unit.kit import ok, watch
from tests.world import EVENT, HEADER, TYPES

EXAMPLES = int(os.environ.get("PYXSD_HYPOTHESIS_EXAMPLES", "200"))

numbers = st.one_of(
    st.integers(0, MASK),
    st.integers(-1100, 1100).map(lambda n: n & MASK),
    st.sampled_from([0, 1, 16, 1023, 1024, 1025, 2048, 4096, 1 << 31, MASK - 1024]),
)
lengths = st.one_of(st.integers(0, 64), st.sampled_from([4095, 4096, 4097, 1 << 31, MASK]))
types = st.one_of(st.integers(0, 27), numbers)
payloads = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(
        [
            b"x\0",
            b"x\0v",
            b"x\0t\0",
            b"\0",
            b"T\0",
            b"F\0",
            b"/\0",
            b"/local/domain/2/alive\0v",
            b"/local/domain/2\0n1\0",
            b"1\0004660\0007\0",
            b"2\0",
            b"1\0000\0",
            b"x\0n1\0b2\0",
            b"/local/domain/2\0t\0",
            b"@releaseDomain\0t\0",
        ]
    ),
)
valid = st.tuples(st.sampled_from(sorted(TYPES.values())), payloads, st.integers(0, 3)).map(
    lambda r: packet(r[0], r[1], r[2])
)
headers = st.tuples(types, numbers, numbers, lengths).map(lambda h: HEADER.pack(*h))

#: One thing that a guest does: (what, ...).
actions = st.one_of(
    st.tuples(st.just("send"), valid),
    st.tuples(st.just("send"), headers),
    st.tuples(st.just("send"), st.binary(min_size=1, max_size=1100)),
    st.tuples(st.just("set"), st.sampled_from(sorted(FIELDS)), numbers),
    st.tuples(st.just("move"), st.sampled_from(sorted(FIELDS)), st.integers(-1100, 1100)),
    st.tuples(st.just("scribble"), st.integers(0, PAGE_END - 1), st.binary(max_size=64)),
    st.tuples(st.just("take")),
    st.tuples(st.just("kick")),
    st.tuples(st.just("scan")),
    st.tuples(st.just("reconnect")),
)


def act(rings: Rings, action: tuple[Any, ...]) -> None:
    """The guest of domain 1 does one thing."""
    guest, what = rings.guests[1], action[0]
    if what == "send":
        guest.unsent = b""
        guest.feed(action[1][:1024])
        guest.unsent = b""
    elif what == "set":
        guest.put(FIELDS[action[1]], action[2])
    elif what == "move":
        guest.put(FIELDS[action[1]], guest.get(FIELDS[action[1]]) + action[2])
    elif what == "scribble":
        guest.page[action[1] : min(PAGE_END, action[1] + len(action[2]))] = action[2][
            : max(0, PAGE_END - action[1])
        ]
    elif what == "take":
        guest.put(2056, guest.get(2060))
    elif what == "scan":
        rings.host.domains.scan()
    elif what == "reconnect":
        guest.put(CONNECTION, 1)
    if what != "set" or action[2] % 3:
        rings.turn("d1")


def neighbour(rings: Rings, n: int) -> None:
    """Domain 2 and a socket ask, and domain 2's watch fires, as if nothing were."""
    value = b"%d" % n
    rings.feed("d2", packet("WRITE", b"mine\0" + value, req_id=n))
    assert rings.drain("d2") == [(TYPES["WRITE"], n, 0, b"OK\0"), (EVENT, 0, 0, b"mine\0t\0")]
    assert ok(rings, "s0", "READ", b"/local/domain/2/mine\0") == value


def run(script: list[tuple[Any, ...]]) -> None:
    """All of it; at the end the guest reconnects and is served."""
    rings = Rings()
    try:
        watch(rings, "d2", b"mine")
        for n, action in enumerate(script):
            act(rings, action)
            neighbour(rings, n)
        connection, guest = rings.server.domains[1], rings.guests[1]
        if connection.bad:
            assert connection.watch_list() == [] and connection.transactions == {}
        assert len(connection.partial_input) <= 1024 + 4112
        rings.reconnect(1)
        assert guest.get(ERROR_FIELD) == 0
        assert connection.transactions == {}
        rings.ask("s0", "RM", b"/local/domain/1/alive\0")
        rings.works(1)
        rings.check()
    finally:
        rings.close()


@given(st.lists(actions, max_size=25))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 200,
    suppress_health_check=list(HealthCheck),
)
def test_a_guest_that_does_anything(script: list[tuple[Any, ...]]) -> None:
    """Bytes, indices, fields, reconnects, in any order and between any turns."""
    run(script)


@given(st.binary(min_size=PAGE_END, max_size=PAGE_END), st.booleans())
@settings(
    max_examples=EXAMPLES // 4,
    deadline=None,
    derandomize=EXAMPLES == 200,
    suppress_health_check=list(HealthCheck),
)
def test_a_page_of_random_bytes(page: bytes, keep_connection: bool) -> None:
    """A domain is introduced with rubbish in its page; RELEASE gives all back."""
    rings = Rings()
    try:
        guest = rings.guest(3)
        guest.page[:PAGE_END] = page
        if not keep_connection:
            guest.put(CONNECTION, 0)
        rings.introduce(3)
        for n in range(3):
            rings.turn("d3")
            rings.works(2, b"%d" % n)
        prod, cons = struct.unpack_from("=II", page, 2052)[0], struct.unpack_from("=I", page, 2048)
        if not keep_connection and (prod - cons[0]) & MASK > 1024:
            assert rings.is_bad(3)
            assert guest.get(ERROR_FIELD) in (BAD_INDICES, BAD_LENGTH)
        rings.ask("s0", "RELEASE", b"3\0")
        assert len(rings.xen.mapped) == len(rings.xen.bound) == 2
        rings.check()
    finally:
        rings.close()
