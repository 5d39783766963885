# SPDX-License-Identifier: LGPL-2.1-or-later
"""XSA-512, "unbounded accumulation of watches": nothing that a guest does over and over leaves
a watch behind, or any part of one.

Each case is carried out many times; after every round the numbers of watches, of nodes of the
watch trie, of connections, transactions, store nodes and permission lists are those of before.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from pyxsd.system.configuration import Config
from tests.fakexen import CONNECTION, RingWorld
from tests.leaks import differences, live_counts
from tests.unit.kit import begin, end, error, ok, write
from tests.world import ERROR

ROUNDS = 5
SPECIALS = (b"@introduceDomain", b"@releaseDomain", b"@introduceDomain/5", b"@releaseDomain/5")


def some_watches(world: RingWorld, who: str = "d5", count: int = 40) -> None:
    """Watches on paths that share parts, on names, relative ones and ones with a depth."""
    for n in range(count):
        ok(world, who, "WATCH", b"/a/b%d/c/d\0t%d\0" % (n % 7, n))
    for n, name in enumerate(SPECIALS):
        ok(world, who, "WATCH", name + b"\0s%d\0" % n)
    if who[0] == "d":
        ok(world, who, "WATCH", b"device/vif\0r\0")
    ok(world, who, "WATCH", b"/a\0deep\x003\0")
    world.drain(who)


def release(world: RingWorld) -> None:
    """The domain goes."""
    ok(world, "s0", "RELEASE", b"5\0")


def _introduced_again(world: RingWorld) -> None:
    some_watches(world)
    for _ in range(3):
        world.introduce(5)
    release(world)


def _reconnected(world: RingWorld) -> None:
    connection = world.server.domains[5]
    some_watches(world)
    world.connection("d5")[1].put(CONNECTION, 1)
    world.rest.pop("d5", None)
    world.turn("d5")
    assert connection.watch_count == 0
    some_watches(world)
    release(world)


def _failed(world: RingWorld) -> None:
    some_watches(world)
    count = world.server.domains[5].watch_count
    assert error(world, "d5", "WATCH", b"/a\0deep\x003\0") == "EEXIST"
    assert error(world, "d5", "WATCH", b"device/vif\0r\0") == "EEXIST"
    for payload in (
        b"",
        b"/new/way",
        b"/new/way\0",
        b"/new/way\0t",
        b"//\0t\0",
        b"/new/way\0t\0x\0",
        b"@name\0t\x002\0",
    ):
        assert error(world, "d5", "WATCH", payload) == "EINVAL", payload[:20]
    while world.ask("d5", "WATCH", b"/q/%d\0t\0" % world.server.domains[5].watch_count)[0] != ERROR:
        pass
    full = world.server.domains[5].watch_count
    for n in range(10):
        assert error(world, "d5", "WATCH", b"/over/the/quota/%d\0t\0" % n) == "EQUOTA"
    assert count < full == world.server.domains[5].watch_count
    release(world)


def _unwatched(world: RingWorld) -> None:
    some_watches(world)
    for path, token, _ in world.server.domains[5].watch_list():
        ok(world, "d5", "UNWATCH", path + b"\0" + token + b"\0")
    assert world.server.domains[5].watch_count == 0
    some_watches(world)
    ok(world, "d5", "RESET_WATCHES", b"\0")
    assert world.server.domains[5].watch_count == 0
    release(world)


def _died_while_told(world: RingWorld) -> None:
    """It goes while a search for watches stands at one of its own."""
    for n in range(100):
        ok(world, "d5", "WATCH", b"/\0%d\0" % n)
    for n in range(200):
        ok(world, "s2", "WATCH", b"/\0%d\0" % n)
    world.drain("s2")
    connection, transport = world.connection("s0")
    transport.feed(write(b"/told"))
    world.server.begin(world.now, world.now)
    world.server.service(connection)
    for n in range(100):
        ok(world, "s2", "UNWATCH", b"/\0%d\0" % n)
    world.server.disconnect(world.sockets.pop("s2")[0])
    world.turn()
    world.drain("s0")
    release(world)
    ok(world, "s0", "RM", b"/told\0")


def _died_with_events_waiting(world: RingWorld) -> None:
    some_watches(world)
    for n in range(3000):
        world.feed("s1", write(b"/a/%d" % n))
        if world.server.connections and world.connection("s1")[0].blocked:
            break
    ok(world, "s0", "RELEASE", b"5\0")
    ok(world, "s0", "RM", b"/a\0")
    world.drain("s1")


def _aborted(world: RingWorld) -> None:
    some_watches(world)
    for letter in (b"F", b"T"):
        tx_id = begin(world, "d5")
        assert world.ask("d5", "WATCH", b"/in/one\0" + letter + b"\0", tx_id)[0] != ERROR
        ok(world, "d5", "WRITE", b"x\0v", tx_id)
        assert end(world, "d5", tx_id, letter) == "OK"
    tx_id = begin(world, "d5")
    ok(world, "d5", "WRITE", b"x\0w", tx_id)
    release(world)


@pytest.mark.parametrize(
    "round_",
    [
        _introduced_again,
        _reconnected,
        _failed,
        _unwatched,
        _died_while_told,
        _died_with_events_waiting,
        _aborted,
    ],
    ids=lambda round_: round_.__name__[1:],
)
def test_nothing_stays(round_: Callable[[RingWorld], None]) -> None:
    world = RingWorld(Config())
    world.connection("s0")
    world.connection("s1")
    before = {}
    for n in range(ROUNDS):
        world.guest(5)
        world.introduce(5)
        ok(world, "s0", "MKDIR", b"/local/domain/5\0")
        ok(world, "s0", "SET_PERMS", b"/local/domain/5\0n5\0")
        round_(world)
        ok(world, "s0", "RM", b"/local/domain/5\0")
        for name in ("s0", "s1"):
            world.drain(name)
        world.turn()
        gc.collect()
        assert world.server.watch_total == 0
        if n == 1:
            before = live_counts()
        elif n:
            assert differences(before, live_counts()) == {}, n
    world.close()
