# SPDX-License-Identifier: LGPL-2.1-or-later
"""The memory that outlives a process: every prefix of its journal, and what is damaged in it."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from pyxsd._journal import Journal
from pyxsd._memory import Memory, MemoryFault
from pyxsd._ring import EventChannels, RingTransport
from pyxsd.recovery.again import store_again
from pyxsd.state import image
from pyxsd.state.errors import StateError
from tests.recovery.kit import Kept, Recovered, without_clock
from tests.rings.kit import BAD_LENGTH, Rings
from tests.state.twins import timeless
from tests.world import TYPES, World, packet

PAGE = 4096
#: Offsets in the header, see _memory.pxd.
VERSION, SIZE, LIMIT, VALID, CURRENT, BEGINS, LENGTHS, AT = 8, 12, 16, 24, 32, 40, 56, 72
BEGUN, BEGUN_AT, SERVED = 80, 88, 96
WORD = struct.Struct("=Q")


def word(memory: Memory, at: int, value: int | None = None) -> int:
    """A word of the header, changed where there is a value."""
    raw = memory.raw()
    if value is not None:
        WORD.pack_into(raw, at, value)
    return int(WORD.unpack_from(raw, at)[0])


SCRIPT = (
    ("s0", packet("WATCH", b"/local\0t\0") + packet("WRITE", b"/local/a\0x")),
    ("s1", packet("TRANSACTION_START", b"\0")),
    ("s1", packet("WRITE", b"/local/b\0y", 1) + packet("READ", b"/local/a\0", 1)),
    ("s0", packet("WRITE", b"/local/b\0z")[:20]),
    ("s2", packet("DIRECTORY", b"/local\0") * 40),
    ("s0", packet("WRITE", b"/local/b\0z")[20:]),
    ("s1", packet("TRANSACTION_END", b"T\0", 1)),
    ("s3", packet("RM", b"/local/a\0") + b"\xff" * 16),
    ("s1", packet("SET_PERMS", b"/local/b\0n7\0r3\0") + packet("READ", b"/none\0")),
)


def script(kept: Kept, at: int = -1) -> Iterator[int]:
    """Runs the script; where the journal ends behind each turn.  An image is made before line
    `at`."""
    for number, (name, data) in enumerate(SCRIPT):
        if number == at:
            kept.make_image()
        kept.world.connection(name)
        kept.world.feed(name, data)
        yield word(kept.memory, AT)


@pytest.fixture(name="kept")
def a_world(no_leaks: None) -> Iterator[Kept]:
    world = World()
    without_clock(world.server)
    world.connection("s0")
    made = Kept(world)
    yield made
    made.close()
    world.close()


@pytest.mark.parametrize("at", [-1, 3, 6])
def test_every_prefix_of_the_journal(kept: Kept, at: int) -> None:
    """Whoever goes on from a turn's end is the server of then, byte by byte; whoever goes on from
    within a turn goes on."""
    images = {end: image.save(kept.world.server) for end in script(kept, at)}
    end, begin = word(kept.memory, AT), word(kept.memory, BEGINS + 8 * (kept.number & 1))
    compared = 0
    for length in ends(kept.memory, begin, end):
        copy = Memory.copy_of(kept.memory)
        word(copy, AT, length)
        again = Recovered(copy)
        assert again.resumed == 1 and again.failures == []
        if length in images:
            assert image.save(again.server) == images[length]
            compared += 1
        again.close()
        copy.close()
    assert compared >= len(SCRIPT) - max(at, 0)


def ends(memory: Memory, begin: int, end: int, number: int = 0) -> Iterator[int]:
    """Where each record of the segment ends that begins there, which is that of the image."""
    raw = memory.raw()
    limit, number = word(memory, LIMIT), number or word(memory, VALID)
    at = PAGE + limit * (number & 1)
    length = 0
    while begin + length < end:
        kind, _, _, result, _ = struct.unpack_from("<BBHiQ", raw, at + length)
        length += 16
        if kind in (1, 7, 9, 17, 20) and result > 0:
            length += (result + 7) // 8 * 8
        yield begin + length


#: Offsets of `doubt` in the header.
DOUBT_AT, SUBJECT, KIND, CHECK, MOVED, MSG_LEN = 176, 184, 192, 194, 200, 264
ALLOCATED = 144
READ, WRITE = 17, 18


def died_before(memory: Memory, at: int, head: tuple[int, int, int, int, int]) -> Memory:
    """A memory as it is when the record at this place of the journal was not written, and its bytes
    were moved."""
    kind, _, check, result, subject = head
    copy = Memory.copy_of(memory)
    raw = copy.raw()
    segment = word(copy, CURRENT) & 1
    place = PAGE + word(copy, LIMIT) * segment + at - word(copy, BEGINS + 8 * segment)
    raw[place : place + 16] = bytes(16)
    word(copy, AT, at)
    word(copy, DOUBT_AT, at)
    word(copy, SUBJECT, subject)
    struct.pack_into("<BBH", raw, KIND, kind, 0, check)
    word(copy, MOVED, result << 32 | 4711 if subject >> 63 else 0)
    struct.pack_into("=I", raw, MSG_LEN, 0 if subject >> 63 else result)
    return copy


def test_a_death_between_the_bytes_and_their_record(kept: Kept) -> None:
    """The record is completed: the state is that behind it."""
    for _ in script(kept):
        pass
    kept.world.feed("s0", packet("INTRODUCE", b"7\0001\0001\0"))
    kept.world.feed("d7", packet("WATCH", b"/local\0t\0") + packet("READ", b"/local\0"))
    raw = kept.memory.raw()
    at, checked = 0, set()
    for end in ends(kept.memory, 0, word(kept.memory, AT)):
        head = struct.unpack_from("<BBHiQ", raw, PAGE + word(kept.memory, LIMIT) + at)
        if head[0] in (READ, WRITE) and head[3] > 0:
            images: list[bytes] = []
            for copy in (died_before(kept.memory, at, head), Memory.copy_of(kept.memory)):
                if images == []:
                    assert word(copy, AT) == at
                else:
                    word(copy, AT, end)
                again = Recovered(copy)
                images.append(image.save(again.server))
                if not images[1:] and head[4] >> 63:
                    assert again.under_way == (head[0], head[4], 4711, head[3])
                assert word(copy, AT) >= end
                again.close()
                copy.close()
            assert timeless(images[0]) == timeless(images[1])
            checked.add((head[0], head[4] >> 63))
        at = end
    assert checked == {(READ, 0), (WRITE, 0), (READ, 1), (WRITE, 1)}


def test_a_death_between_the_bytes_and_their_record_while_an_image_is_made(kept: Kept) -> None:
    """They stand in the segment that grows."""
    for _ in script(kept):
        pass
    kept.world.server.settle()
    kept.journal.next_segment(kept.number + 1)
    begin = word(kept.memory, AT)
    kept.world.feed("s0", packet("WRITE", b"/behind\0" + b"it" * 100))
    raw, limit = kept.memory.raw(), word(kept.memory, LIMIT)
    at = begin
    for end in ends(kept.memory, begin, word(kept.memory, AT), kept.number + 1):
        head = struct.unpack_from("<BBHiQ", raw, PAGE + limit * (~kept.number & 1) + at - begin)
        if head[0] == READ and head[3] > 0:
            copy = died_before(kept.memory, at, head)
            again = Recovered(copy)
            found = [names for names, _, value in again.server.tree.walk() if value == b"it" * 100]
            assert found == [(b"behind",)] or found == [[b"behind"]]
            again.close()
            copy.close()
            return
        at = end
    pytest.fail("nothing was read")


@pytest.mark.parametrize(
    ("before", "index", "n", "behind"),
    [(100, 120, 20, 120), (110, 120, 20, 120), (120, 120, 20, 120), (99, 120, 20, 99),
     (130, 120, 20, 130), (0xFFFFFFF0, 4, 20, 4), (0, 4, 20, 4)],
)  # fmt: skip
@pytest.mark.parametrize("is_input", [True, False])
def test_an_index_is_stored_once_more(
    before: int, index: int, n: int, behind: int, is_input: bool
) -> None:
    """Where it may have been under way, and nowhere else."""
    page = bytearray(4096)
    offset = 2048 if is_input else 2060
    struct.pack_into("=I", page, offset, before)
    RingTransport(page, EventChannels()).redo(is_input, index, n)
    assert struct.unpack_from("=I", page, offset)[0] == behind


def test_the_ring_is_found_whose_index_was_under_way(no_leaks: None) -> None:
    world = Rings()
    kept = Kept(world)
    world.works(1)
    for kind, offset in ((READ, 2048), (WRITE, 2060)):
        page = world.guests[1].page
        index = struct.unpack_from("=I", page, offset)[0]
        struct.pack_into("=I", page, offset, index - 7)
        store_again(world.server, world.host.domains, kind, 1 << 63 | 2, index, 7)
        store_again(world.server, world.host.domains, kind, 1 << 63 | 9, index, 7)
        assert struct.unpack_from("=I", page, offset)[0] == index - 7
        store_again(world.server, world.host.domains, kind, 1 << 63 | 1, index, 7)
        assert struct.unpack_from("=I", page, offset)[0] == index
    kept.close()
    world.close()


@pytest.mark.parametrize("begins_anew", [False, True])
def test_a_broken_ring_is_told_again(no_leaks: None, begins_anew: bool) -> None:
    """The process before may have died on its way to the page.  Nobody is told of what is over."""
    world = Rings()
    without_clock(world.server)
    kept = Kept(world)
    world.feed("d1", struct.pack("=4I", TYPES["READ"], 1, 0, 5000))
    assert world.is_bad(1)
    if begins_anew:
        world.reconnect(1)
    again = Recovered(kept.memory)
    connection = again.server.domains[1]
    assert connection.bad is not begins_anew
    assert connection.transport.inner.failed == 0
    connection.transport.fail_again()
    assert connection.transport.inner.failed == (0 if begins_anew else BAD_LENGTH)
    again.close()
    kept.close()
    world.close()


@pytest.mark.parametrize("swaps", [False, True])
def test_a_death_while_an_image_is_made(kept: Kept, swaps: bool) -> None:
    """Before the swap both segments follow the old image; behind it there is the new one."""
    for _ in script(kept):
        pass
    server, memory = kept.world.server, kept.memory
    server.settle()
    parts: list[bytes] = []
    saving = image.Saving(
        server, parts.append, lambda: kept.journal.next_segment(kept.number + 1) or []
    )
    assert saving.step(1e9)
    if swaps:
        kept.make_image()
    kept.world.feed("s0", packet("WRITE", b"/behind\0it"))
    copy = Memory.copy_of(memory)
    again = Recovered(copy)
    assert image.save(again.server) == image.save(server)
    assert word(copy, CURRENT) == word(copy, VALID) == kept.number
    # And once more, now that the two segments are one.
    other = Memory.copy_of(copy)
    third = Recovered(other)
    assert image.save(third.server) == image.save(server)
    for made in (again, third):
        made.close()
    copy.close()
    other.close()


def test_a_death_while_the_memory_is_full(no_leaks: None) -> None:
    """The image that was being made gives its room to the journal."""
    world = World()
    without_clock(world.server)
    world.connection("s0")
    kept = Kept(world, 2 << 20)
    big = packet("WRITE", b"/big\0" + b"v" * 2000)
    for number in range(200):
        if number == 100:
            world.server.settle()
            kept.journal.next_segment(2)
        world.feed("s0", big)
    at = 0
    with pytest.raises(MemoryError):
        while True:
            kept.memory.put(2, at, b"x" * 65536)
            at += 65536
    copy = Memory.copy_of(kept.memory)
    again = Recovered(copy)
    assert image.save(again.server) == image.save(world.server)
    again.close()
    copy.close()
    kept.close()
    world.close()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0),
        (VERSION, 1 << 32 | 9),
        (LIMIT, 4096),
        (VALID, 0),
        (VALID, 7),
        (CURRENT, 9),
        (BEGINS + 8, 1 << 40),
        (LENGTHS + 8, 1 << 40),
        (AT, 1 << 40),
        (AT, 5),
    ],
)
def test_a_header_that_makes_no_sense(kept: Kept, at: int, value: int) -> None:
    for _ in script(kept):
        pass
    copy = Memory.copy_of(kept.memory)
    word(copy, at, value)
    with pytest.raises((MemoryFault, StateError)):
        Recovered(copy)
    copy.close()


def test_whatever_is_altered_is_an_error_or_another_state(kept: Kept) -> None:
    """No byte of it ends the process."""
    for _ in script(kept):
        pass
    rnd = random.Random(5)
    limit, at = word(kept.memory, LIMIT), word(kept.memory, AT)
    length = word(kept.memory, LENGTHS + 8)
    places = (
        [rnd.randrange(500) for _ in range(200)]
        + [PAGE + limit + rnd.randrange(at) for _ in range(300)]
        + [PAGE + 3 * limit + rnd.randrange(length) for _ in range(100)]
    )
    refused = 0
    for place in places:
        copy = Memory.copy_of(kept.memory)
        copy.raw()[place] ^= 1 << rnd.randrange(8)
        try:
            Recovered(copy).close()
        except (MemoryFault, StateError):
            refused += 1
        copy.close()
    assert refused > 100


def test_the_kernel_gives_no_more_than_the_limit() -> None:
    memory = Memory.create(1 << 20)
    for n in range(4):
        memory.put(1, n << 18, b"x" * (1 << 18))
    with pytest.raises(MemoryError):
        memory.put(1, 4 << 18, b"x")
    with pytest.raises(MemoryError):
        memory.put(2, 0, b"x")
    assert memory.used == PAGE + (1 << 20)
    memory.close()


def test_a_long_reply_without_a_record(kept: Kept) -> None:
    """What was sent is not in the journal: its length may be beyond the memory that is there."""
    for _ in script(kept):
        pass
    raw = kept.memory.raw()
    at = 0
    for end in ends(kept.memory, 0, word(kept.memory, AT)):
        head = struct.unpack_from("<BBHiQ", raw, PAGE + word(kept.memory, LIMIT) + at)
        if head[0] == WRITE and head[3] > 0:
            copy = died_before(kept.memory, at, head)
            allocated = word(copy, ALLOCATED + 8)
            word(copy, ALLOCATED + 8, at + 16)
            again = Recovered(copy)
            assert word(copy, AT) >= end and again.failures == []
            word(copy, ALLOCATED + 8, allocated)
            again.close()
            copy.close()
            return
        at = end
    raise AssertionError("there is no such record")


@pytest.mark.parametrize("writes", [300, 600, 900])
def test_whatever_is_recorded_can_be_put_together(writes: int) -> None:
    """However full the memory becomes while an image is made: whoever dies then is made up for, or
    the journal has ended before and said so.  writes: of 2 KB, into 4 MB, before that image."""
    world = World()
    without_clock(world.server)
    world.connection("s0")
    kept = Kept(world, 4 << 20)
    write = packet("WRITE", b"/local/a\0" + b"v" * 2000)
    for _ in range(writes):
        world.feed("s0", write)
    world.server.settle()
    length = 0

    def put(data: bytes) -> None:
        nonlocal length
        kept.memory.put(kept.number + 1, length, data)
        length += len(data)

    saving = image.Saving(world.server, put, lambda: kept.journal.next_segment(2) or [])
    saving.step(0.0)
    recovered = 0
    for number in range(2000):
        world.feed("s0", write)
        if not kept.journal.is_recording:
            break
        if number % 50:
            continue
        copy = Memory.copy_of(kept.memory)
        again = Recovered(copy)
        assert again.resumed == 1 and again.failures == []
        again.close()
        copy.close()
        recovered += 1
    assert recovered and kept.journal.fault == "there is no room for the journal"
    assert not kept.memory.is_begun()
    kept.close()
    world.close()


def test_what_a_process_has_left(kept: Kept) -> None:
    """Somebody else copies it while another server goes on, with an image in the making; what a
    request had asked that is refused is in the copy."""
    list(script(kept, 3))
    begun_at = word(kept.memory, AT)
    kept.world.feed("s0", packet("WRITE", b"/local/c\0v"))
    for at, value in ((BEGUN, 1000), (BEGUN_AT, begun_at), (SERVED, 999)):
        word(kept.memory, at, value)
    before = Journal().found_in(Memory.copy_of(kept.memory))
    left = kept.memory.leave()
    assert kept.memory.held
    # Whoever goes on overwrites from there.
    n = word(kept.memory, CURRENT) & 1
    start = PAGE + word(kept.memory, LIMIT) * n + begun_at - word(kept.memory, BEGINS + 8 * n)
    kept.memory.raw()[start : start + 32] = b"\xff" * 32
    word(kept.memory, AT, begun_at)
    copy = kept.memory.copy_left(*left)
    assert Journal().found_in(copy) == before
    assert bytes(copy.image()) == bytes(kept.memory.image())
    assert copy.begun == (1000, 999)
    kept.memory.release()
    assert not kept.memory.held
    with pytest.raises(MemoryFault, match="before that was copied"):
        kept.memory.copy_left(*left)


def test_nothing_is_left(kept: Kept) -> None:
    word(kept.memory, VALID, 0)
    with pytest.raises(MemoryFault):
        kept.memory.leave()
    assert not kept.memory.held
