# SPDX-License-Identifier: LGPL-2.1-or-later
"""The access log: every kind of line, as oxenstored prints it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._accesslog import AccessLog
from tests.unit.kit import begin, end
from tests.world import World, packet

Make = Callable[..., Any]
STAMP = re.compile(rb"\[(\d{8}T\d{2}:\d{2}:\d{2}\.\d{3}Z)\]  (.*)\Z")


def lines(world: World) -> list[bytes]:
    """The lines since the last call, without their time."""
    data, count = world.server.log.take()
    found = data.splitlines()
    assert len(found) == count and (not data or data.endswith(b"\n"))
    stripped = []
    for line in found:
        match = STAMP.match(line)
        assert match, line
        stripped.append(match.group(2))
    return stripped


def logged(
    make_world: Make,
    nb_chars: int = -1,
    read: bool = True,
    txn: bool = True,
    special: bool = True,
    **config: Any,
) -> World:
    world: World = make_world(
        domids=(5,), log=AccessLog(True, nb_chars, read, txn, special), **config
    )
    lines(world)
    return world


ONE = b"DOM0 (ANON CONN #1)"
TWO = b"DOM0 (ANON CONN #2)"

# Who asks what, and the lines it makes.
CASES = [
    (
        "d5",
        "WRITE",
        b'name\0gu\1est\xff\n"quote\\',
        [b'DOM5         write     name gu\\001est\\255\\n\\"quote\\\\'],
    ),
    ("d5", "WRITE", b"name\0\t\r\b\0x", [b"DOM5         write     name \\t\\r\\b x"]),
    ("d5", "WRITE", b"name\0\x1f ~\x7f\x80", [b"DOM5         write     name \\031 ~\\127\\128"]),
    (
        "d5",
        "READ",
        b"/tool\0",
        [b"DOM5         read      /tool ", b"DOM5         error     EACCES "],
    ),
    ("d5", "READ", b"nope\0", [b"DOM5         read      nope ", b"DOM5         error     ENOENT "]),
    (
        "d5",
        "WATCH",
        b"device\0tok en\0",
        [b"DOM5         watch     device tok en ", b"DOM5         w event   device tok en "],
    ),
    (
        "d5",
        "UNWATCH",
        b"device\0t\0",
        [b"DOM5         unwatch   device t ", b"DOM5         error     ENOENT "],
    ),
    (
        "s0",
        "WATCH",
        b"/local/domain/5\0t\x002\0",
        [ONE + b" watch     /local/domain/5 t 2 ", ONE + b" w event   /local/domain/5 t "],
    ),
    ("s0", "MKDIR", b"/m\0", [ONE + b" mkdir     /m "]),
    ("s0", "RM", b"/m\0", [ONE + b" rm        /m "]),
    ("s0", "SET_PERMS", b"/tool\0n5\0r0\0", [ONE + b" setperms  /tool n5 r0 "]),
    ("s0", "GET_PERMS", b"/local/domain/5\0", [ONE + b" getperms  /local/domain/5 "]),
    ("s0", "DIRECTORY", b"/tool\0", [ONE + b" directory /tool "]),
    ("s0", "CONTROL", b"quota\x005\0", [ONE + b" debug     quota 5 "]),
    ("s0", "SET_TARGET", b"5\x000\0", [ONE + b" settarget 5 0 "]),
    (
        "s0",
        "INTRODUCE",
        b"6\x004660\x007\0",
        [b"DOM6         newconn   ", ONE + b" introduce 6 4660 7 "],
    ),
    ("s0", "RELEASE", b"5\0", [b"DOM5         endconn   ", ONE + b" release   5 "]),
    ("s0", "IS_DOMAIN_INTRODUCED", b"5\0", [ONE + b" is introduced 5 "]),
    ("s0", "GET_DOMAIN_PATH", b"5\0", [ONE + b" getdomain 5 "]),
    ("s0", "RESUME", b"5\0", [ONE + b" resume    5 "]),
    ("s0", "RESET_WATCHES", b"", [ONE + b" reset watches "]),
    ("s0", 99, b"x", [ONE + b" invalid   x", ONE + b" error     ENOSYS "]),
]


@pytest.mark.parametrize("who, type_, payload, want", CASES, ids=lambda x: repr(x)[:40])
def test_lines(make_world: Make, who: str, type_: Any, payload: bytes, want: list[bytes]) -> None:
    world = logged(make_world)
    world.ask(who, type_, payload)
    assert lines(world) == want


def test_connections(make_world: Make) -> None:
    world = logged(make_world)
    world.connection("s7")
    assert lines(world) == [b"DOM0 (ANON CONN #3) newconn   "]
    world.server.disconnect(world.connection("s7")[0])
    del world.sockets["s7"]
    assert lines(world) == [b"DOM0 (ANON CONN #3) endconn   "]


def test_a_refused_event(make_world: Make) -> None:
    world = logged(make_world)
    for path, perms in ((b"/a", b"n0\0r1\0"), (b"/a/b", b"n0\0")):
        world.ask("s0", "WRITE", path + b"\0")
        world.ask("s0", "SET_PERMS", path + b"\0" + perms)
    world.ask("d5", "WATCH", b"/a\0t\0")
    lines(world)
    world.ask("s0", "WRITE", b"/a/b\0v")
    assert lines(world) == [
        ONE + b" write     /a/b v",
        b"DOM5         w notfired EPERM perms=[n0 r1, n0] path=/a/b",
    ]


def test_transactions(make_world: Make) -> None:
    """A commit, a conflict with its replay, and a merge."""
    world = logged(make_world)
    one = begin(world, "s0")
    world.ask("s0", "WRITE", b"/a/b\0v", one)
    end(world, "s0", one)
    assert lines(world) == [
        ONE + b".1 t start   ",
        ONE + b".1 write     /a/b v",
        ONE + b".1 t end     ",
        ONE + b".1 commit    ",
    ]
    two = begin(world, "s0")
    world.ask("s0", "READ", b"/a/b\0", two)
    world.ask("s1", "WRITE", b"/a/b\0w")
    world.ask("s0", "WRITE", b"/a/b\0x", two)
    assert end(world, "s0", two) == "EAGAIN"
    assert lines(world) == [
        ONE + b".2 t start   ",
        ONE + b".2 read      /a/b ",
        TWO + b" write     /a/b w",
        ONE + b".2 write     /a/b x",
        ONE + b".2 t end     ",
        ONE + b".2 conflict  ",
        ONE + b".3 t start   ",
        b"r(2):" + ONE + b".3 t start   ",
        b"r(2):" + ONE + b".3 read      /a/b ",
        ONE + b".3 t end     ",
        ONE + b".2 error     EAGAIN ",
    ]
    four = begin(world, "s0")
    world.ask("s0", "READ", b"/a/b\0", four)
    world.ask("s1", "WRITE", b"/q\0w")
    world.ask("s0", "WRITE", b"/a/b\0x", four)
    assert end(world, "s0", four) == "OK"
    assert lines(world) == [
        ONE + b".4 t start   ",
        ONE + b".4 read      /a/b ",
        TWO + b" write     /q w",
        ONE + b".4 write     /a/b x",
        ONE + b".4 t end     ",
        ONE + b".4 coalesce  write /a/b",
        ONE + b".4 coalesce  read /a/b",
    ]


SWITCHES = [
    # read-ops, transactions-ops, special-ops; what is left of the lines below
    (False, False, False, [b"write", b"error EACCES", b"watch", b"w event"]),
    (
        True,
        False,
        False,
        [b"write", b"read", b"error EACCES", b"read", b"error ENOENT", b"watch", b"w event"],
    ),
    (False, True, False, [b"t start", b"t end", b"write", b"error EACCES", b"watch", b"w event"]),
    (False, False, True, [b"write", b"error EACCES", b"watch", b"w event", b"getdomain"]),
]


@pytest.mark.parametrize("read, txn, special, want", SWITCHES)
def test_switches(
    make_world: Make, read: bool, txn: bool, special: bool, want: list[bytes]
) -> None:
    """ENOENT counts as reading: it is what polling clients are answered all the time."""
    world = logged(make_world, -1, read, txn, special)
    end(world, "d5", begin(world, "d5"), b"F")
    for type_, payload in (
        ("WRITE", b"x\0v"),
        ("READ", b"/tool\0"),
        ("READ", b"y\0"),
        ("WATCH", b"x\0t\0"),
        ("GET_DOMAIN_PATH", b"5\0"),
    ):
        world.ask("d5", type_, payload)
    got = []
    for line in lines(world):
        label = line[len(b"DOM5         ") :].lstrip()
        for known in (b"t start", b"t end", b"w event", b"error EACCES", b"error ENOENT"):
            if re.sub(rb" +", b" ", label).startswith(known):
                got.append(known)
                break
        else:
            got.append(label.split()[0])
    assert got == want


@pytest.mark.parametrize("nb_chars", [80, 100, 180])
def test_long_lines_are_cut(make_world: Make, nb_chars: int) -> None:
    """nb_chars is the whole line with its time and its newline."""
    world = logged(make_world, nb_chars)
    world.ask("s0", "WRITE", b"/long\0" + b"L" * 500)
    data, _ = world.server.log.take()
    assert len(data) == nb_chars and data.endswith(b"LL..\n")
    world.ask("s0", "WRITE", b"/s\0" + b"L" * 500)
    world.ask("s0", "READ", b"/\0")
    cut, whole = world.server.log.take()[0].splitlines()
    assert len(cut) == nb_chars - 1
    assert (len(whole) == nb_chars - 1) == (len(whole) + 1 >= nb_chars)


@pytest.mark.parametrize(("nb_chars", "cut"), [(4, 4), (3, 3), (2, None), (0, None), (-1, None)])
def test_the_shortest_length_of_lines(make_world: Make, nb_chars: int, cut: int | None) -> None:
    """A length in which not even the two dots and the newline fit cuts nothing."""
    world: World = make_world(log=AccessLog(True, nb_chars))
    world.server.log.take()
    world.ask("s0", "MKDIR", b"/a\0")
    data, _ = world.server.log.take()
    if cut is None:
        assert data.endswith(ONE + b" mkdir     /a \n")
    else:
        assert len(data) == cut and data.endswith(b"..\n")


def shown(byte: int) -> bytes:
    """A byte as oxenstored prints it."""
    short = {0: " ", 34: '\\"', 92: "\\\\", 10: "\\n", 9: "\\t", 13: "\\r", 8: "\\b"}
    return (short.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03d}")).encode()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 47])
def test_each_byte_at_each_place(length: int) -> None:
    """Bytes are looked at in blocks, and each is printed as if it stood alone."""
    log = AccessLog(True)
    for byte in range(256):
        for place in range(length):
            data = bytearray(b"~ x!" * 12)[:length]
            data[place] = byte
            log.note(b"A1", b"write", bytes(data))
            want = b"".join(map(shown, data)) + b"\n"
            assert log.take()[0][-len(want) - 1 :] == b" " + want


def test_time(make_world: Make) -> None:
    world = logged(make_world)
    world.server.begin(1795348854.8709, 5.0)
    world.connection("s0")[1].feed(packet("MKDIR", b"/a\0"))
    world.server.service(world.connection("s0")[0])
    assert world.server.log.take()[0].startswith(b"[20261122T12:00:54.870Z]  ")


def test_an_inactive_log_collects_nothing(world: World) -> None:
    for n in range(10):
        world.ask("s0", "WRITE", b"/x\0%d" % n)
    assert world.server.log.take() == (b"", 0)


def test_take_empties(make_world: Make) -> None:
    world = logged(make_world)
    for n in range(1000):
        world.ask("s0", "WRITE", b"/x\0%d" % n)
    assert len(lines(world)) == 1000
    assert lines(world) == []
