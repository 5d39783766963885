# SPDX-License-Identifier: LGPL-2.1-or-later
"""Parts of trees that a file puts together in a way in which no server has them."""

from __future__ import annotations

import struct

import pytest

from pyxsd.state import image, records
from pyxsd.state.errors import StateError
from tests.state.test_image import load, put_together
from tests.world import World


def part(kind: int, a: int = 0, b: int = 0, c: int = 0, body: bytes = b"") -> bytes:
    return struct.pack("=BBHI", kind, a, b, c) + body


def node(name: bytes, has_page: bool = False) -> bytes:
    return part(3, has_page, len(name), 0, struct.pack("=I", 1) + name)


def with_value_of(number: int, what: int = 2) -> bytes:
    return part(3, what, 1, number, struct.pack("=I", 1) + b"y")


def page(slots: int, level: int = 0) -> bytes:
    return part(4, level, slots)


def again(number: int, is_page: bool = False) -> bytes:
    return part(5, is_page, 0, number)


def tree(nodes: int) -> bytes:
    return part(6, 0, 0, 1, struct.pack("=qqq", nodes, 0, 0))


PERMS = part(1, 0, 0, 1, struct.pack("=qB", 0, 0))
COUNTS = part(2)
HELD = part(7)


def doubling(levels: int) -> bytes:
    """Each level holds the page below it twice, in the node a and in the node b: 2^levels nodes."""
    made = node(b"x") + page(1)
    number = 2
    for _ in range(levels):
        made += node(b"a", True) + again(number, True) + node(b"b", True) + page(2)
        number += 3
    return made


def apart(levels: int) -> bytes:
    """The same, each level below a root of its own."""
    made = node(b"x") + page(1) + node(b"", True) + HELD
    number = 2
    for _ in range(levels):
        made += again(number, True) + node(b"a", True) + page(1) + node(b"", True) + HELD
        made += again(number, True) + node(b"b", True) + page(1) + node(b"", True) + HELD
        made += (
            again(number + 3, True) + again(number + 6, True) + page(2, 1) + node(b"", True) + HELD
        )
        number += 8
    return made


def chain(parts: int) -> bytes:
    return node(b"x") + b"".join(page(1) + node(b"x", True) for _ in range(parts - 1)) + page(1)


TWICE = [
    (node(b"x") + again(1) + page(2), "the node 1 stands twice below one root"),
    (doubling(200), "the page 2 stands twice below one root"),
    (node(b"x") + HELD + again(1) + again(1), "the node 1 stands twice below one root"),
    (apart(200), "some stand twice"),
    (chain(200_000), "nodes with paths of 4354 bytes, more than 4352"),
    (node(b"x") + node(b"") + HELD, "1 parts that nothing holds"),
    (page(0), "a page of level 0 with 0 slots"),
    (with_value_of(1), "there is no node 1"),
    (node(b"x") + page(1) + with_value_of(2), "there is no node 2"),
    (node(b"x") + with_value_of(0), "there is no node 0"),
    (node(b"x") + with_value_of(1), "the node 1 has no value"),
    (with_value_of(0, 4), "a node that is 4"),
    (part(3, 0, 8, 5, struct.pack("=I", 1) + b"x" * 8), "a node that is longer than its record"),
    (part(3, 4, 0, 0, b"\1"), "a node that is longer than its record"),
    (part(3, 4, 0, 0, struct.pack("=Q", 1) + b"\1"), "a node that is longer than its record"),
    (part(1, 2, 0, 1, struct.pack("=qB", 0, 0)), "permissions that are 2"),
    (part(1, 1, 0, 1, struct.pack("=qB", 0, 0)), "permissions of 1 entries"),
    (part(1, 1, 0, 1, struct.pack("=qBQ", -1, 0, 7)), "the end of domain -1 at the age 7"),
    (part(1, 1, 0, 1, struct.pack("=qBQ", 0x7FF0, 0, 7)), "the end of domain 32752 at the age 7"),
]


def with_parts(made: bytes) -> bytes:
    """An image whose trees are these parts."""
    world = World()
    found = records.read(image.save(world.server), image.TYPES)
    world.close()
    return put_together(
        [(record.type, made if record.type == b"GRPH" else record.body) for record in found]
    )


@pytest.mark.parametrize(("made", "words"), TWICE)
def test_parts_that_are_no_tree(made: bytes, words: str) -> None:
    with pytest.raises(StateError, match=r"\(GRPH\) at byte \d+: part at byte \d+ of") as error:
        load(with_parts(PERMS + COUNTS + made))
    assert words in str(error.value)


def test_the_deepest_chain() -> None:
    """As deep as the longest path; what is one level deeper is refused."""
    whole = chain(2175)
    load(with_parts(PERMS + COUNTS + whole + node(b"", True) + tree(2175))).close()
    with pytest.raises(StateError, match="nodes with paths of"):
        load(with_parts(PERMS + COUNTS + chain(2176) + node(b"", True) + tree(2176)))
