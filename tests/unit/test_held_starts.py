# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions that are held back while another xenstored is about to take over."""

from __future__ import annotations

import pytest

from tests.world import World, packet

START = packet("TRANSACTION_START", b"\0", 0, 1)
BEHIND = packet("READ", b"/\0", 0, 2)


@pytest.mark.parametrize("most", [0, len(START), len(START) + 7, 1000])
def test_what_is_sent_behind_it_is_read(world: World, most: int) -> None:
    """As far as there is room; nothing of it is served before it may be."""
    client, transport = world.connection("s0")
    world.server.hold_starts(True)
    for sent in (START, BEHIND):
        transport.feed(sent)
        world.server.service(client)
    assert client.partial_input == START
    world.server.read_on(client, most)
    assert client.partial_input == (START + BEHIND)[: max(most, len(START))]
    world.server.flush()
    assert world.drain("s0") == [] and world.server.is_held(client)
    world.server.hold_starts(False)
    world.turn()
    world.turn()
    assert [answer[1] for answer in world.drain("s0")] == [1, 2]


def test_a_client_that_has_gone_is_left_to_whoever_reads_next(world: World) -> None:
    client, transport = world.connection("s0")
    world.server.hold_starts(True)
    transport.feed(START)
    world.server.service(client)
    transport.eof = True
    world.server.read_on(client, 1000)
    assert client.partial_input == START and not client.closed
