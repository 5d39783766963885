# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest's requests take decides in which queue it waits.  Looks at time."""

from __future__ import annotations

from tests.unit.kit import ok
from tests.unit.test_agenda import ASK, SLOW, crowd, make_busy, order_of_service, queue
from tests.world import World, packet

__all__ = ["crowd"]


def ask_dear_things(crowd: World) -> None:
    """d1 asks for one after the other."""
    ok(crowd, "d1", "MKDIR", b"a\0")
    for _ in range(6):  # each of them makes, and removes, 900 nodes
        for type_, path in (("MKDIR", b"a" + b"/b" * 900), ("RM", b"a/b")):
            queue(crowd, "d1", packet(type_, path + b"\0"))
            while crowd.server.flush():
                pass
            assert crowd.drain("d1")


def test_who_asks_one_dear_thing_at_a_time_is_one_of_the_others(crowd: World) -> None:
    """Until it has asked for cheap things for a while."""
    agenda = crowd.server.agenda
    agenda.slice_ns = 25_000  # 10 us on average are the limit
    ask_dear_things(crowd)
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


def test_one_cheap_thing_goes_before_a_dear_one_that_came_earlier(crowd: World) -> None:
    """But one that asks for dear things waits for so long only."""
    agenda = crowd.server.agenda
    agenda.slice_ns = SLOW
    ask_dear_things(crowd)
    agenda.turn_ns = 0
    for name in ("d3", "d4", "d1", "d2"):
        queue(crowd, name, ASK)
    assert order_of_service(crowd, "d3 d4 d1 d2") == ["d3", "d4", "d2", "d1"]
    ask_dear_things(crowd)
    agenda.turn_ns = 0
    for name in ("d3", "d4", "d1"):
        queue(crowd, name, ASK)
    others = 0
    while not crowd.drain("d1"):
        crowd.server.flush()
        for name in ("d2", "d3", "d4"):
            if crowd.drain(name):
                others += 1
                queue(crowd, name, ASK)
    assert 2 < others < 2000
