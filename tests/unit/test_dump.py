# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state as text: what is written, what is read back, what is skipped with a warning."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.state import dump
from pyxsd.store.tree import Tree
from tests.unit.kit import ok, watch
from tests.world import World, packet

FIRST = "$xenstored-dump-format"


def hexed(*texts: bytes) -> list[str]:
    return [text.hex() for text in texts]


def store(path: bytes, value: bytes = b"", perms: bytes = b"n0") -> str:
    """A record of a node."""
    return ",".join(["store", *hexed(path, perms, value)])


def load(tmp_path: Path, *records: str, value_max: int = 2048) -> tuple[Any, list[str]]:
    """What a file of these records says, and the warnings without the file's name."""
    path = tmp_path / "db"
    path.write_text("\n".join([FIRST, *records]) + "\n")
    warnings: list[str] = []
    loaded = dump.read_file(str(path), value_max, warnings.append)
    assert all(warning.startswith(f"{path}: ") for warning in warnings)
    return loaded, [warning[len(f"{path}: ") :] for warning in warnings]


def nodes(tree: Tree) -> list[tuple[bytes, bytes, bytes]]:
    """(path, permissions, value) of each node."""
    return [
        (b"/" + b"/".join(names), dump.perms_text(perms, b" "), value)
        for names, perms, value in tree.walk(True)
    ]


# -- reading ------------------------------------------------------------------

# record, what it becomes
RECORDS = [
    ("global,7", {"listener": 7}),
    ("global,-1", {"listener": -1}),
    ("global,7,8", {"listener": 7}),
    ("evtchn-dev,3,4", {"evtchn": (3, 4)}),
    ("evtchn-dev,-1,0", {"evtchn": (-1, 0)}),
    ("evtchn-dev,2147483647,4294967295", {"evtchn": (2**31 - 1, 2**32 - 1)}),
    ("dom,5,4660,1", {"domains": [(5, 4660, 1, 0)]}),
    ("dom,5,4660,1,9", {"domains": [(5, 4660, 1, 9)]}),
    ("socket,12", {"sockets": [12]}),
    ("watch,5," + ",".join(hexed(b"/a", b"t")), {"watches": [(5, b"/a", b"t", None)]}),
    ("watch,-12," + ",".join(hexed(b"@x", b"t")), {"watches": [(-12, b"@x", b"t", None)]}),
    ("watch,5," + ",".join(hexed(b"/a", b"t")) + ",0", {"watches": [(5, b"/a", b"t", b"0")]}),
    ("watch,5," + ",".join(hexed(b"/a", b"t")) + ",2", {"watches": [(5, b"/a", b"t", b"2")]}),
    ("global,2147483647", {"listener": 2**31 - 1}),
    ("dom,32751,-1,4294967295,4294967295", {"domains": [(0x7FEF, -1, 2**32 - 1, 2**32 - 1)]}),
]


@pytest.mark.parametrize(("record", "want"), RECORDS, ids=[row[0] for row in RECORDS])
def test_records(tmp_path: Path, record: str, want: dict[str, Any]) -> None:
    loaded, warnings = load(tmp_path, record)
    fields: dict[str, Any] = {
        "listener": -1,
        "evtchn": None,
        "domains": [],
        "sockets": [],
        "watches": [],
    }
    assert {name: getattr(loaded, name) for name in fields} == {**fields, **want}
    assert warnings == []


BROKEN = [
    "nonsense,1",
    "",
    "global",
    "global,x",
    "global,",
    "global,--1",
    "global,1x",
    "global, 1",
    "global,99999999999999999999",
    "global,2147483648",
    "global,-2",
    "dom,32752,1,1",
    "dom,-1,1,1",
    "dom,1,1,4294967296",
    "dom,1,1,-1",
    "dom,1,1,1,4294967296",
    "evtchn-dev,3",
    "evtchn-dev,-2,4",
    "evtchn-dev,2147483648,4",
    "evtchn-dev,3,-1",
    "evtchn-dev,3,4294967296",
    "dom,5,4660",
    "dom,5,x,1",
    "dom,5,4660,1,x",
    "socket,",
    "watch,5,2f61",
    "watch,x,2f61,74",
    "watch,5,2f6,74",
    "watch,5,2f61,7g",
    "watch,5,2f61,74,x",
    "store,2f61,6e30",
    "store,2f61,6e30,7,",
    "store,61,6e30,",
    "store,,6e30,",
    "store,2f2f61,6e30,",
    "store,2f612f,6e30,",
    "store,2f61,7130,",
    store(b"/a/b"),
    store(b"/a", b"x" * 2049),
]


@pytest.mark.parametrize("field", ["2f6", "7g", "\xe9"])
def test_a_field_that_is_no_hexadecimal_is_named(tmp_path: Path, field: str) -> None:
    _, [warning] = load(tmp_path, f"watch,5,2f61,{field}")
    shown = repr(field.encode())
    assert warning.endswith(f"line 2 skipped: not pairs of hexadecimal digits: {shown}")


@pytest.mark.parametrize("record", BROKEN, ids=[record[:30] for record in BROKEN])
def test_a_broken_record_is_skipped(tmp_path: Path, record: str) -> None:
    """It is named by the number of its line; those before and behind it are read."""
    loaded, warnings = load(tmp_path, store(b"/x", b"1"), record, store(b"/y", b"2"))
    assert [warning.partition(" skipped: ")[0] for warning in warnings] == ["line 3"]
    assert {path for path, _, _ in nodes(loaded.tree)} == {b"/", b"/x", b"/y"}
    assert (loaded.listener, loaded.evtchn, loaded.domains, loaded.watches) == (-1, None, [], [])


# the limit of values, the length of a value, whether it is read
SIZES = [
    (2048, 2047, True),
    (2048, 2048, True),
    (2048, 2049, False),
    (0, 0, True),
    (0, 1, False),
    (-1, 5000, True),
]


@pytest.mark.parametrize(("value_max", "size", "read"), SIZES)
def test_a_value_as_long_as_the_quota_allows(
    tmp_path: Path, value_max: int, size: int, read: bool
) -> None:
    loaded, warnings = load(tmp_path, store(b"/a", b"v" * size), value_max=value_max)
    assert (nodes(loaded.tree)[1:] == [(b"/a", b"n0", b"v" * size)]) == read
    assert len(warnings) == (not read)


def test_nodes(tmp_path: Path) -> None:
    """The root's own record, permissions, a special node, and a name with a slash behind an @."""
    loaded, warnings = load(
        tmp_path,
        store(b"/", b"top", b"n0\0r5"),
        store(b"/a", b"1", b"n5\0b7\0w8"),
        store(b"/a/b", b"\0\xff"),
        store(b"/@releaseDomain", b"", b"n0\0r3"),
        store(b"/@a/b"),
    )
    assert warnings == []
    assert sorted(nodes(loaded.tree)) == [
        (b"/", b"n0 r5", b"top"),
        (b"/@a/b", b"n0", b""),
        (b"/@releaseDomain", b"n0 r3", b""),
        (b"/a", b"n5 b7 w8", b"1"),
        (b"/a/b", b"n0", b"\0\xff"),
    ]


@pytest.mark.parametrize("text", ["", "x\n", FIRST[:-1] + "\n", " " + FIRST + "\n", FIRST + "x\n"])
def test_what_is_no_dump(tmp_path: Path, text: str) -> None:
    path = tmp_path / "db"
    path.write_text(text)
    with pytest.raises(dump.DumpError, match="not a dump"):
        dump.read_file(str(path), 2048, pytest.fail)


def test_a_dump_without_records_or_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_text(FIRST)
    assert nodes(dump.read_file(str(path), 2048, pytest.fail).tree) == [(b"/", b"n0", b"")]
    path.write_text(FIRST + "\nglobal,5")
    assert dump.read_file(str(path), 2048, pytest.fail).listener == 5


# -- writing ------------------------------------------------------------------


def domain(world: World, domid: int, indices: tuple[int, int] | None = None) -> Any:
    """A domain as the dump wants it."""
    return SimpleNamespace(
        domid=domid,
        mfn=4660,
        remote_port=7,
        port=20 + domid,
        unique_id=9,
        indices=indices,
        connection=world.server.domains[domid],
    )


def test_all_records_are_read_back(world: World, tmp_path: Path) -> None:
    """Domains, their watches with and without depth, nodes."""
    watch(world, "d1", b"in", b"tok")
    watch(world, "d1", b"@releaseDomain", b"dead")
    watch(world, "d2", b"/deep", b"t", b"3\0")
    ok(world, "s0", "WRITE", b"/deep\0\0\xff,\n")
    ok(world, "s0", "SET_PERMS", b"/deep\0r0\0w1\0")
    path = tmp_path / "db"
    dump.write_file(
        str(path),
        dump.lines(world.server, [domain(world, 1), domain(world, 2)], 11, (12, 13), False),
    )
    loaded = dump.read_file(str(path), 2048, pytest.fail)
    assert (loaded.listener, loaded.evtchn, loaded.sockets) == (11, (12, 13), [])
    assert loaded.domains == [(1, 4660, 7, 21), (2, 4660, 7, 22)]
    assert sorted(loaded.watches, key=repr) == sorted(
        [
            (1, b"in", b"tok", None),
            (1, b"@releaseDomain", b"dead", None),
            (2, b"/deep", b"t", b"3"),
        ],
        key=repr,
    )
    assert nodes(loaded.tree) == nodes(world.server.tree)
    assert (b"/deep", b"r0 w1", b"\0\xff,\n") in nodes(loaded.tree)


def test_order_of_records(world: World) -> None:
    """What is needed first stands first; no event channels, no line of them."""
    watch(world, "d1", b"in", b"tok")
    rows = list(dump.lines(world.server, [domain(world, 1)], -1, None, False))
    kinds = [row.split(b",")[0] for row in rows]
    assert kinds[:4] == [FIRST.encode(), b"global", b"dom", b"watch"]
    assert set(kinds[4:]) == {b"store"}
    assert rows[1:3] == [b"global,-1", b"dom,1,4660,7,21"]


def test_what_is_under_way_on_a_ring(world: World, tmp_path: Path) -> None:
    """Half a request and a reply that has not gone yet come back byte for byte."""
    request = packet("READ", b"/local/domain/1\0", req_id=5)
    world.connection("d1")[1].room = 0
    world.feed("d1", request + request[:7])
    path = tmp_path / "db"
    dump.write_file(
        str(path),
        dump.lines(world.server, [domain(world, 1, (5, 6)), domain(world, 2)], -1, None, False),
    )
    rings = dump.read_file(str(path), 2048, pytest.fail).rings
    reply = packet("READ", b"", req_id=5)
    assert rings == {1: dump.Ring(9, 5, 6, 0, request[:7], reply)}


class WithDescriptor:
    """A transport of a client that a successor process inherits."""

    @staticmethod
    def fileno() -> int:
        return 33


@pytest.mark.parametrize("sockets", [False, True])
def test_sockets(sockets: bool) -> None:
    """Only where their descriptors are inherited; their watches have the descriptor as owner."""
    client = SimpleNamespace(
        is_socket=True, transport=WithDescriptor(), watch_list=lambda: [(b"/a", b"t", None)]
    )
    guest = SimpleNamespace(is_socket=False)
    connections = {1: client, 2: guest}
    server = SimpleNamespace(connections=connections, tree=Tree(), hold=lambda: None)
    rows = list(dump.lines(server, [], -1, None, sockets))
    want = [b"socket,33", b"watch,-33,2f61,74"] if sockets else []
    assert rows[2:-1] == want


# value, as people read it
SHOWN = [
    (b"a~ z", b"a~ z"),
    (b"\x1f\x7f\x80\xff", rb"\031\127\128\255"),
    (b"\0", rb"\000"),
    (b'"\\', rb"\"\\"),
    (b"\t\n\r\b", rb"\t\n\r\b"),
]


@pytest.mark.parametrize(("value", "shown"), SHOWN)
def test_readable_values(world: World, value: bytes, shown: bytes) -> None:
    ok(world, "s0", "WRITE", b"/a/b\0" + value)
    ok(world, "s0", "SET_PERMS", b"/a/b\0n0\0r1\0w2\0b3\0")
    rows = list(dump.readable(world.server.tree))
    assert rows[0] == b"/{n0}"
    assert rb"/a{n0}" in rows
    assert rb"a/b{n0\000r1\000w2\000b3} = " + shown in rows


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        dump.write_file(str(tmp_path / "db"), [b"a", b"b"])
    finally:
        os.umask(before)
    assert (tmp_path / "db").read_bytes() == b"a\nb\n"
    assert (tmp_path / "db").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["db"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing beside it; a file left by an earlier failure is written over."""

    def rows() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "db"
    path.write_bytes(b"old\n")
    with pytest.raises(OSError, match="No space"):
        dump.write_file(str(path), rows())
    assert path.read_bytes() == b"old\n"
    assert os.listdir(tmp_path) == ["db"]
    (tmp_path / "db#").write_bytes(b"a longer text than the new one\n")
    dump.write_file(str(path), [b"new"])
    assert path.read_bytes() == b"new\n"
    assert os.listdir(tmp_path) == ["db"]


def test_very_many_broken_lines(tmp_path: Path) -> None:
    """The host boots, and its log is not full of them."""
    path = tmp_path / "db"
    path.write_text(f"{FIRST}\n" + "y\n" * 1000 + "global,5\n")
    told: list[str] = []
    assert dump.read_file(str(path), 2048, told.append).listener == 5
    assert len(told) == 101
    assert told[0] == f"{path}: line 2 skipped: unknown record {b'y'!r}"
    assert told[-1] == f"{path}: 900 more lines skipped"


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning is read and no more: a damaged file may have one of gigabytes."""
    monkeypatch.setattr(dump, "LINE_MAX", 100)
    path = tmp_path / "db"
    long = "store," + "61" * 200
    path.write_text(f"{FIRST}\nglobal,5\n{long}\nsocket,7\n{'x' * 100}\nsocket,8\n{long}")
    told: list[str] = []
    loaded = dump.read_file(str(path), 2048, told.append)
    assert (loaded.listener, loaded.sockets) == (5, [7, 8])
    assert [text.partition(": ")[2] for text in told] == [
        "line 3 skipped: it has more than 100 bytes",
        f"line 5 skipped: unknown record {b'x' * 32!r}",
        "line 7 skipped: it has more than 100 bytes",
    ]
    path.write_bytes(b"\0" * 5000)
    sizes: list[int] = []

    class Measured(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            sizes.append(-1 if size is None else size)
            return super().readline(size)

    monkeypatch.setattr(dump, "open_to_read", lambda _: Measured(path.read_bytes()))
    with pytest.raises(dump.DumpError, match="not a dump"):
        dump.read_file(str(path), 2048, pytest.fail)
    assert sizes == [len(FIRST) + 1]
