# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state file, written and read: its mode, its numbers, its limits, what is under way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyxsd.state import dump
from pyxsd.store.tree import Tree
from tests.rings.kit import Rings, packet
from tests.unit.kit import ok, watch

HEAD = b"$xenstored-dump-format\n"
ROOT = b"store,2f,6e30,\n"


def read(path: Path, content: bytes, value_max: int = 2048) -> tuple[dump.Loaded, list[str]]:
    """What is read of a file with these lines, and the warnings."""
    path.write_bytes(HEAD + content)
    warnings: list[str] = []
    return dump.read_file(str(path), value_max, warnings.append), warnings


@pytest.mark.parametrize("left", ["nothing", "a readable file", "a link", "a name"])
def test_mode(tmp_path: Path, left: str) -> None:
    """Only its owner may read it, whatever an attempt before has left behind."""
    path, other = tmp_path / "db", tmp_path / "other"
    other.write_text("kept")
    temporary = tmp_path / "db#"
    if left == "a readable file":
        temporary.write_text("left")
        temporary.chmod(0o644)
    elif left == "a link":
        temporary.symlink_to(other)
    elif left == "a name":
        path.write_text("old")
        path.chmod(0o666)
    old = os.umask(0)
    try:
        dump.write_file(str(path), [b"one", b"two"])
    finally:
        os.umask(old)
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert other.read_text() == "kept"
    assert not temporary.exists()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """The rows fail half way: the old file is whole, and nothing else is left."""
    path = tmp_path / "db"
    path.write_text("old")

    def rows() -> object:
        yield b"one"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        dump.write_file(str(path), rows())  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["db"]


@pytest.mark.parametrize("size, kept", [(0, True), (15, True), (16, True), (17, False)])
def test_values_of_the_greatest_size(tmp_path: Path, size: int, kept: bool) -> None:
    """quota-maxsize bytes are read back, one more is skipped with a warning."""
    value = (b"v" * size).hex().encode()
    loaded, warnings = read(tmp_path / "db", ROOT + b"store,2f61,6e30,%s\n" % value, 16)
    names = [names for names, _, _ in loaded.tree.walk()]
    assert ([b"a"] in [list(name) for name in names]) is kept
    assert len(warnings) == (not kept)
    if not kept:
        assert "line 3" in warnings[0] and "17 bytes" in warnings[0]


def test_no_limit_of_values(tmp_path: Path) -> None:
    """A negative quota-maxsize is none."""
    value = (b"v" * 4000).hex().encode()
    loaded, warnings = read(tmp_path / "db", ROOT + b"store,2f61,6e30,%s\n" % value, -1)
    assert (loaded.tree.size, warnings) == (1, [])


@pytest.mark.parametrize(
    "line, watch",
    [
        (b"watch,5,2f61,746f", (5, b"/a", b"to", None)),
        (b"watch,5,2f61,746f,0", (5, b"/a", b"to", b"0")),
        (b"watch,5,2f61,746f,3", (5, b"/a", b"to", b"3")),
        (b"watch,5,2f61,746f,4294967295", (5, b"/a", b"to", b"4294967295")),
        (b"watch,-9,61,", (-9, b"a", b"", None)),
    ],
)
def test_watches(
    tmp_path: Path, line: bytes, watch: tuple[int, bytes, bytes, bytes | None]
) -> None:
    """With their depth, where there is one."""
    loaded, warnings = read(tmp_path / "db", line + b"\n")
    assert (loaded.watches, warnings) == ([watch], [])


HUGE = b"9999999999999999999"
BAD_LINES = [
    b"global," + HUGE,
    b"global,-2",
    b"global,",
    b"global,x",
    b"global",
    b"evtchn-dev," + HUGE + b",1",
    b"evtchn-dev,5," + HUGE,
    b"evtchn-dev,5",
    b"dom," + HUGE + b",1,1",
    b"dom,32752,1,1",
    b"dom,-1,1,1",
    b"dom,5," + HUGE + b",1",
    b"dom,5,1," + HUGE,
    b"dom,5,1,-1",
    b"dom,5,1,4294967296",
    b"dom,5,1,1," + HUGE,
    b"dom,5,1",
    b"dom,5,0x10,1",
    b"dom,5,1_0,1",
    b"dom,5,1,1 ",
    "dom,\u0661,1,1".encode(),
    b"socket," + HUGE,
    b"socket,-1",
    b"socket",
    b"watch," + HUGE + b",61,61",
    b"watch,32752,61,61",
    b"watch,-" + HUGE + b",61,61",
    b"watch,5,61,61," + HUGE,
    b"watch,5,61,61,-1",
    b"watch,5,61,61,4294967296",
    b"watch,5,6,61",
    b"watch,5,61",
    b"watch,5,zz,61",
    b"store,2f61,6e30",
    b"store,2f61,,",
    b"store,61,6e30,",
    b"store,2f2f61,6e30,",
    b"store,2f612f62,6e30,",
    b"store,2f61,7830,",
    "store,2f\u0661,6e30,".encode(),
    b"pyxsd-ring," + HUGE + b",1,0,0,0,,",
    b"pyxsd-ring,5,18446744073709551616,0,0,0,,",
    b"pyxsd-ring,5,1,4294967296,0,0,,",
    b"pyxsd-ring,5,1,0,-1,0,,",
    b"pyxsd-ring,5,1,0,0," + HUGE + b",,",
    b"pyxsd-ring,5,1,0,0,0,6,",
    b"pyxsd-ring,5,1,0,0,0,",
    b"",
    b",",
    b"unknown,1",
    b"9" * 10000,
    b"dom," + b"9" * 10000 + b",1,1",
    b"\xff\xfe\0",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[:40]))
def test_bad_lines(tmp_path: Path, line: bytes) -> None:
    """Each is skipped with a warning that has its number, and what follows is read."""
    loaded, warnings = read(tmp_path / "db", ROOT + line + b"\ndom,7,1,1\n")
    assert loaded.domains == [(7, 1, 1, 0)]
    assert (loaded.watches, loaded.sockets, loaded.rings, loaded.evtchn) == ([], [], {}, None)
    assert (loaded.listener, loaded.tree.size) == (-1, 0)
    assert len(warnings) == 1 and "line 3 skipped" in warnings[0]


def test_greatest_numbers(tmp_path: Path) -> None:
    """The ends of each range are taken."""
    loaded, warnings = read(
        tmp_path / "db",
        b"global,2147483647\nevtchn-dev,2147483647,4294967295\n"
        b"dom,32751,-9223372036854775808,4294967295,4294967295\n"
        b"pyxsd-ring,32751,18446744073709551615,4294967295,4294967295,0,,\n"
        b"socket,0\nwatch,-2147483647,61,61\nwatch,32751,61,61\n",
    )
    assert warnings == []
    assert loaded.evtchn == (2147483647, 4294967295)
    assert loaded.domains == [(32751, -(1 << 63), 0xFFFFFFFF, 0xFFFFFFFF)]
    assert loaded.rings == {32751: dump.Ring((1 << 64) - 1, 0xFFFFFFFF, 0xFFFFFFFF, 0, b"", b"")}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "folder"])
def test_not_a_file(tmp_path: Path, make: object) -> None:
    """Said, and nobody waits."""
    make(tmp_path / "db")  # type: ignore[operator]
    with pytest.raises((dump.DumpError, OSError)):
        dump.read_file(str(tmp_path / "db"), -1, print)


def test_tree_is_empty_without_lines(tmp_path: Path) -> None:
    """Not even the root's permissions are taken from anywhere else."""
    loaded, warnings = read(tmp_path / "db", b"")
    assert (loaded.tree.size, warnings) == (Tree().size, [])


def test_what_is_written_is_read(rings: Rings, tmp_path: Path) -> None:
    """Domains, watches with and without depth, values, and what is under way on a ring."""
    watch(rings, "d1", b"x", b"flat")
    watch(rings, "d1", b"/y", b"deep", b"2\0")
    ok(rings, "d1", "WRITE", b"long\0" + b"v" * 1800)
    request = packet("READ", b"long\0")
    rings.guests[1].feed(2 * request + request[:17])
    rings.turn("d1")
    domain = rings.host.domains.table[1]
    dump.write_file(
        str(tmp_path / "db"),
        dump.lines(rings.server, rings.host.domains.table.values(), -1, None, sockets=False),
    )
    loaded = dump.read_file(str(tmp_path / "db"), 2048, pytest.fail)
    assert [row[:3] for row in loaded.domains] == [(1, 4660, 7), (2, 4660, 7)]
    assert sorted(loaded.watches) == [(1, b"/y", b"deep", b"2"), (1, b"x", b"flat", None)]
    assert list(loaded.tree.walk(True)) == list(rings.server.tree.walk(True))
    ring = loaded.rings[1]
    assert ring.unique_id == domain.unique_id != 0
    assert (ring.req_cons, ring.rsp_prod) == domain.transport.indices
    assert ring.input == request[:17]
    assert ring.torn == 16 + 1800 - 1024
    assert ring.output == b"v" * ring.torn + packet("READ", b"v" * 1800)
    assert loaded.rings[2][3:] == (0, b"", b"")
