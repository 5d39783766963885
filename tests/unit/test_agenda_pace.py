# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest's requests take decides in which queue it waits.  Looks at time."""

from __future__ import annotations

from tests.unit.kit import ok
from tests.unit.test_agenda import ASK, crowd, make_busy, order_of_service, queue
from tests.world import World, packet

__all__ = ["crowd"]


def test_who_asks_one_dear_thing_at_a_time_is_one_of_the_others(crowd: World) -> None:
    """Until it has asked for cheap things for a while."""
    agenda = crowd.server.agenda
    agenda.slice_ns = 25_000  # 10 us on average are the limit
    ok(crowd, "d1", "MKDIR", b"a\0")
    for _ in range(6):  # each of them makes, and removes, 900 nodes
        for type_, path in (("MKDIR", b"a" + b"/b" * 900), ("RM", b"a/b")):
            queue(crowd, "d1", packet(type_, path + b"\0"))
            while crowd.server.flush():
                pass
            assert crowd.drain("d1")
    assert crowd.server.domains[1].pace > 10_000
    make_busy(crowd, "d9", 2)
    make_busy(crowd, "d9", 2000)
    agenda.turn_ns = 0
    queue(crowd, "d1", ASK)
    queue(crowd, "d2", ASK)
    assert order_of_service(crowd, "d1 d2") == ["d2", "d1"]
    for _ in range(30):
        queue(crowd, "d1", ASK)
        order_of_service(crowd, "d1")
    assert crowd.server.domains[1].pace < 10_000
    queue(crowd, "d1", ASK)
    queue(crowd, "d2", ASK)
    assert order_of_service(crowd, "d1 d2") == ["d1", "d2"]


def test_who_takes_longer_lets_others_go_first(crowd: World) -> None:
    """Both ask one thing at a time, and neither takes so long that it is one of the others."""
    agenda = crowd.server.agenda
    guest = crowd.server.domains[1]
    for _ in range(6):
        for type_, path in (("MKDIR", b"a" + b"/b" * 480), ("RM", b"a")):
            queue(crowd, "d1", packet(type_, path + b"\0"))
            order_of_service(crowd, "d1")
    for _ in range(6):
        queue(crowd, "d2", ASK)
        order_of_service(crowd, "d2")
    assert guest.pace > 4 * crowd.server.domains[2].pace
    make_busy(crowd, "d9", 2000)
    agenda.turn_ns, agenda.slice_ns = 0, 3 * guest.pace
    queue(crowd, "d1", ASK)
    queue(crowd, "d2", ASK)
    assert order_of_service(crowd, "d1 d2") == ["d2", "d1"]
