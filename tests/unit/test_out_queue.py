# SPDX-License-Identifier: LGPL-2.1-or-later
"""The output queue: which events are merged, in what order all comes, and what is remembered."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._outq import OutQueue
from tests.unit.kit import ok, watch
from tests.world import EVENT, World, packet, packets

Make = Callable[..., Any]


def texts(stream: bytes) -> list[bytes]:
    """The packets of a stream: the payload of a reply, the path of an event."""
    found, rest = packets(stream)
    assert rest == b""
    return [body.split(b"\0")[0] if type_ == EVENT else body for type_, _, _, body in found]


#: What is queued (a capital letter is a reply, a small one an event of that path), and what
#: the client gets.
STREAMS = [
    ("aa", "a"),
    ("aba", "ab"),
    ("abab", "ab"),
    ("aAa", "aAa"),
    ("Aaa", "Aa"),
    ("aAaa", "aAa"),
    ("aAaBa", "aAaBa"),
    ("abAba", "abAba"),
    ("aAbBab", "aAbBab"),
    ("aABa", "aABa"),
    ("aAabab", "aAab"),
]


@pytest.mark.parametrize("queued, got", STREAMS)
@pytest.mark.parametrize("taken", [0, 5, 18])
def test_an_event_is_not_moved_before_a_reply(queued: str, got: str, taken: int) -> None:
    """`taken` bytes of an event of another path are sent before: they shift the stream."""
    queue = OutQueue()
    assert queue.event(9, b"/", b"t")
    out = queue.take(taken)
    for letter in queued:
        if letter.isupper():
            queue.reply(letter.encode())
        else:
            queue.event(1, letter.encode(), b"t")
    assert texts(out + queue.take(1 << 20)) == [b"/", *(letter.encode() for letter in got)]


def test_watches_and_tokens_are_told_apart() -> None:
    queue = OutQueue()
    assert queue.event(1, b"/a", b"t") and queue.event(2, b"/a", b"t")
    assert not queue.event(1, b"/a", b"t") and not queue.event(2, b"/a", b"t")
    assert queue.event(1, b"/b", b"t") and not queue.event(1, b"/a", b"t")
    queue.take(1)
    assert queue.event(1, b"/a", b"t")  # the first one is partly sent
    assert not queue.event(2, b"/a", b"t")


def test_a_value_read_behind_an_event_is_never_older_than_a_later_change(make_world: Make) -> None:
    """A client that does not read: event, READ, then another change: it is told again."""
    world: World = make_world()
    ok(world, "s0", "WRITE", b"/p\x000")
    watch(world, "s1", b"/p")
    transport = world.connection("s1")[1]
    transport.room = 0
    for value in (b"1", b"2", b"3"):
        for _ in range(3):
            ok(world, "s0", "WRITE", b"/p\0" + value)
        world.feed("s1", packet("READ", b"/p\0"))
    transport.room = -1
    world.turn("s1")
    assert [body for _, _, _, body in world.drain("s1")] == [
        b"/p\0t\0",
        b"1",
        b"/p\0t\0",
        b"2",
        b"/p\0t\0",
        b"3",
    ]


def test_one_event_of_many_that_are_equal_is_remembered() -> None:
    """With replies between them they are all queued; the search for one stays short."""
    queue = OutQueue()
    for _ in range(1000):
        assert queue.event(1, b"/a", b"t")
        queue.reply(b"r")
        assert queue.table[1] == 1
    assert len(texts(queue.take(1 << 20))) == 2000


def test_the_table_shrinks_again() -> None:
    queue = OutQueue()
    for n in range(3000):
        assert queue.event(1, b"/%d" % n, b"t")
        slots, used = queue.table
        assert 2 * used <= slots + 2 and used == n + 1
    assert queue.table[0] <= 8 * 3000
    queue.take(1 << 20)
    assert queue.event(1, b"/a", b"t")
    assert queue.table == (16, 1)
    for n in range(3000):
        queue.reply(b"r")
        queue.event(1, b"/%d" % n, b"t")
    assert queue.table[0] <= 64  # those before a reply are forgotten


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_is_that_of_a_plain_list(seed: int) -> None:
    """Random replies, events and pieces that are sent."""
    pick = random.Random(seed)
    queue = OutQueue()
    want: list[bytes] = []
    ends: list[int] = []  # stream offset behind each packet
    events: dict[tuple[int, bytes], int] = {}
    sent = behind_reply = 0
    out = b""
    for round_ in range(4000):
        what = pick.random()
        end = ends[-1] if ends else 0
        if what < 0.15:
            queue.reply(b"%d" % round_)
            want.append(b"%d" % round_)
            behind_reply = end + 16 + len(want[-1])
            ends.append(behind_reply)
        elif what < 0.75:
            serial, path = pick.randrange(1, 4), b"/%d" % pick.randrange(40)
            merged = events.get((serial, path), -1) >= max(sent, behind_reply)
            assert queue.event(serial, path, b"token") == (not merged)
            if not merged:
                events[serial, path] = end
                want.append(path)
                ends.append(end + 16 + len(path) + 7)
        else:
            piece = queue.take(pick.choice([1, 17, 100, 300]))
            out += piece
            sent += len(piece)
    assert texts(out + queue.take(1 << 20)) == want


@pytest.mark.parametrize("size", [1, 3, 7, 15, 16, 17, 40])
def test_packets_are_counted_until_they_are_sent_whole(make_world: Make, size: int) -> None:
    """A reply of 20 bytes, an event of 21 and a reply of 20, taken in pieces of `size` bytes."""
    world: World = make_world(domids=(1,))
    watch(world, "d1", b"/a")
    connection, transport = world.connection("d1")
    transport.room = 0
    world.feed("d1", packet("READ", b"/x\0"))
    world.ask("s0", "WRITE", b"/a\0")
    world.ask("s0", "SET_PERMS", b"/a\0r0\0")
    world.feed("d1", packet("GET_DOMAIN_PATH", b"1\0"))
    ends, at = [], 0
    for type_, _, _, body in packets(connection.pending_output)[0]:
        at += 16 + len(body)
        ends.append((at, type_ == EVENT))
    assert len(ends) >= 3 and any(event for _, event in ends)
    sent = 0
    while sent < at:
        transport.room = size
        world.turn("d1")
        sent = min(sent + size, at)
        left = [event for end, event in ends if end > sent]
        assert connection.queued == (left.count(False), left.count(True))
