# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replies and listings at the border of what a packet holds: 4,096 bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kit import error, ok
from tests.world import World

PAYLOAD_MAX = 4096
NAME = 100  # bytes of a child's name, without its NUL


def fill(world: World, folder: bytes, size: int) -> list[bytes]:
    """Gives a directory children whose names take so many bytes, NULs included."""
    names: list[bytes] = []
    while size:
        length = min(size, NAME + 1) - 1
        if 0 < size - length - 1 < 2:
            length -= 1  # no room for another name would be left
        names.append((b"%03d" % len(names)).ljust(length, b"x")[:length])
        size -= length + 1
    for name in names:
        ok(world, "s0", "MKDIR", folder + b"/" + name + b"\0")
    return sorted(names)


@pytest.mark.parametrize("size", [PAYLOAD_MAX - 1, PAYLOAD_MAX, PAYLOAD_MAX + 1])
def test_a_listing_of_a_packet_s_size(world: World, size: int) -> None:
    names = fill(world, b"/wide", size)
    if size > PAYLOAD_MAX:
        assert error(world, "s0", "DIRECTORY", b"/wide\0") == "E2BIG"
    else:
        got = ok(world, "s0", "DIRECTORY", b"/wide\0")
        assert len(got) == size
        assert sorted(got[:-1].split(b"\0")) == names


@pytest.mark.parametrize("size", [PAYLOAD_MAX - 1, PAYLOAD_MAX, PAYLOAD_MAX + 1])
def test_an_event_of_a_packet_s_size(make_world: Callable[..., Any], size: int) -> None:
    """One that is too long is not sent, and is logged (XSA-324)."""
    world = make_world(quota_path_max=4096)
    folder = b"/" + b"d" * 2000
    token = b"t" * (PAYLOAD_MAX - len(folder) - 10)
    ok(world, "s0", "WATCH", folder + b"\0" + token + b"\0")
    world.drain("s0")
    path = folder + b"/"
    path += b"e" * (size - len(path) - len(token) - 2)
    ok(world, "s1", "WRITE", path + b"\0")
    fits = size <= PAYLOAD_MAX
    event = (15, 0, 0, path + b"\0" + token + b"\0")
    assert world.drain("s0") == ([event] if fits else [])
    assert any("too long" in text for _, _, text in world.host.messages) == (not fits)


def test_one_event_that_is_too_long_is_told_for_each_request(
    make_world: Callable[..., Any],
) -> None:
    """A guest can have a hundred of them with each request, and to tell of one takes as long as ten
    events."""
    world = make_world(domids=(1,))
    ok(world, "s0", "WRITE", b"/local/domain/1\0")
    ok(world, "s0", "SET_PERMS", b"/local/domain/1\0n1\0")
    for number in range(100):
        ok(world, "d1", "WATCH", b"a\0" + b"%04d" % number * 1000 + b"\0")
    for name in (b"b", b"c"):
        ok(world, "d1", "WRITE", b"a/" + name * 200 + b"\0")
    assert sum("too long" in text for _, _, text in world.host.messages) == 2


# Of a part 2 bytes are the generation count and its NUL, and 2 are kept free.
ROOM = PAYLOAD_MAX - 4


@pytest.mark.parametrize(
    ("size", "parts"),
    [(ROOM - 1, 1), (ROOM, 1), (ROOM + 1, 2), (2 * ROOM - NAME, 2), (3 * ROOM, 4)],
)
def test_a_listing_in_parts(world: World, size: int, parts: int) -> None:
    """Each part ends with a whole name; an empty name behind the last says that it is the end."""
    names = fill(world, b"/wide", size)
    whole, counts, count = b"", set(), 0
    while not whole.endswith(b"\0\0"):
        body = ok(world, "s0", "DIRECTORY_PART", b"/wide\0%d\0" % len(whole))
        assert len(body) < PAYLOAD_MAX
        generation, part = body.split(b"\0", 1)
        assert part.endswith(b"\0")
        whole += part
        counts.add(generation)
        count += 1
    assert sorted(whole[:-2].split(b"\0")) == names
    assert (count, counts) == (parts, {b"1"})


def part(world: World, path: bytes, offset: int = 0) -> tuple[bytes, bytes]:
    """(generation count, names) of a part."""
    generation, names = ok(world, "s0", "DIRECTORY_PART", path + b"\0%d\0" % offset).split(b"\0", 1)
    return generation, names


def test_a_listing_from_behind_its_end(world: World) -> None:
    fill(world, b"/few", 20)
    assert len(part(world, b"/few")[1]) == 21
    for offset in (20, 21, 5000):
        assert part(world, b"/few", offset) == (b"1", b"\0")
    assert part(world, b"/few/%s" % part(world, b"/few")[1].split(b"\0")[0])[1] == b"\0"
