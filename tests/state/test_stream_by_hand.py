# SPDX-License-Identifier: LGPL-2.1-or-later
"""C xenstored's file byte by byte, in both orders, and what does not fit into it."""

from __future__ import annotations

import struct

import pytest

from pyxsd.state import stream
from pyxsd.state.host_state import Client, HostState, Node, Permission, Settings, StateError, Watch
from pyxsd.state.stream_reader import read_stream
from pyxsd.state.stream_writer import write_stream
from tests.world import packet


@pytest.mark.parametrize("order, flags", [("<", 0), (">", 1)], ids=["little", "big"])
def test_bytes(order: str, flags: int) -> None:
    """The header is big-endian always, and its lowest flag says whether the rest is."""
    state = HostState(
        "stream",
        1,
        big_endian=order == ">",
        listener=3,
        evtchn=4,
        nodes=[Node(b"/", (Permission(0, 0),), b"v")],
    )
    data = (
        b"xenstore"
        + struct.pack(">II", 1, flags)
        + struct.pack(order + "IIii", 1, 8, 3, 4)
        + struct.pack(order + "IIIIHHHHcBH", 5, 24, 0, 0, 2, 1, 0, 1, b"n", 0, 0)
        + b"/\0v\0"
        + struct.pack(order + "II", 0, 0)
    )
    assert write_stream(state, 1) == data
    assert read_stream(data) == state


def test_requests_are_cut_into_packets() -> None:
    """One with a payload, one without; then a part of one, or one that is too long."""
    first, second = packet("READ", b"/a\0"), packet("READ", b"")
    longest, longer = packet("READ", bytes(4096)), packet("READ", bytes(4097))
    for rest in (b"", first[:15], first[:16], first[:18], longer):
        assert stream.packets(first + second + longest + rest, False) == (
            [first, second, longest],
            rest,
        )


DOES_NOT_FIT = [
    (HostState("image", domain_quotas={b"nodes": 1 << 32}), "the quotas: a number that does not"),
    (
        HostState("image", settings={5: Settings(0, {b"nodes": 1 << 32})}),
        "the quotas of domain 5: a number that does not fit",
    ),
    (
        HostState("image", settings={5: Settings(0, {b"nodes": 1}), 6: Settings(1 << 32)}),
        "the quotas of domain 6: a number that does not fit",
    ),
    (
        HostState("image", clients=[Client(5), Client(70000)]),
        "the ring of domain 70000: a number that does not fit",
    ),
    (
        HostState("image", nodes=[Node(b"/", (Permission(0, 0),), bytes(65536))]),
        "the node b'/': a number that does not fit",
    ),
    (HostState("image", listener=1 << 31), "the header: a number that does not fit"),
    (
        HostState("image", clients=[Client(5, watches=[Watch(b"/a", b"t", 0)])]),
        "the ring of domain 5: the watch on b'/a' has a depth",
    ),
    (
        HostState("image", clients=[Client(5, watches=[Watch(b"/a", b"t\0")])]),
        "the ring of domain 5: a watch with a NUL in it",
    ),
]


@pytest.mark.parametrize("state, said", DOES_NOT_FIT, ids=[row[1] for row in DOES_NOT_FIT])
def test_what_does_not_fit_is_named(state: HostState, said: str) -> None:
    with pytest.raises(StateError, match=said):
        write_stream(state, 2)
