# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nodes of state files straight into a tree, and out of one, are those that the readers and
writers of single records see."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from pyxsd.state import carry, dump, node_writing, stream
from pyxsd.state.database import read_db, write_db
from pyxsd.state.host_state import HostState, Node, Permission, StateError
from pyxsd.state.node_reading import NodesOfFile
from pyxsd.state.stream_reader import read_stream
from pyxsd.state.stream_writer import entries_of, write_stream
from pyxsd.store.filling import Filling
from pyxsd.store.tree import Tree
from tests.state.recorded import DATA, FILES
from tests.state.test_random_files import damaged

Seen = dict[bytes, tuple[list[tuple[int, int]], bytes]]

ROUNDS = 400
SMALL = ("c417-special.bin", "c417-stale.bin", "chead-depth.bin", "ox417-domains.db")


def seen(tree: Tree) -> Seen:
    return {
        names[0] if len(names) == 1 and names[0][:1] == b"@" else b"/" + b"/".join(names): (
            perms,
            value,
        )
        for names, perms, value in tree.walk()
    }


def wanted(nodes: Iterable[Node]) -> Seen:
    """What a tree of these nodes has; entries of domains that are gone grant nothing in it."""
    found: Seen = {b"/": ([(0, 0)], b"")}
    for node in nodes:
        path = node.path
        path = path[1:] if path[:2] == b"/@" and path.count(b"/") == 1 else path
        entries = [e for e in node.permissions[1:] if not e.stale]
        perms = [(e.domid, e.access) for e in (node.permissions[0], *entries)]
        found[path] = (perms, node.value)
    return found


def recount(tree: Tree) -> dict[int, int]:
    """Nodes by owner, without the root."""
    found: dict[int, int] = {}
    for names, perms, _ in tree.walk():
        if names:
            found[perms[0][0]] = found.get(perms[0][0], 0) + 1
    return found


def compare(data: bytes, is_stream: bool) -> tuple[int, int]:
    """Reads it in both ways; (nodes, faults)."""
    into = NodesOfFile(Filling())
    try:
        one = read_stream(data, damaged=True) if is_stream else read_db(data)
    except StateError as error:
        with pytest.raises(StateError, match=".") as other:
            _ = read_stream(data, True, into) if is_stream else read_db(data, into)
        assert str(other.value) == str(error)
        return 0, 1
    two = read_stream(data, True, into) if is_stream else read_db(data, into)
    assert two.nodes == []
    nodes, one.nodes = one.nodes, []
    if not any(found.path == b"/" for found in nodes):
        # All others lack their parent then; whoever has nothing else to go on with takes them.
        assert len(two.faults) <= len(one.faults) and into.count >= len(nodes)
        return len(nodes), len(one.faults)
    assert two == one
    assert seen(into.tree) == wanted(nodes)
    assert into.count >= len(nodes)
    assert into.tree.size == len(seen(into.tree)) - 1
    assert into.tree.all_entries() == recount(into.tree)
    return len(nodes), len(one.faults)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_files(path: Path) -> None:
    nodes, _ = compare(path.read_bytes(), path.suffix == ".bin")
    assert nodes


@pytest.mark.parametrize("name", SMALL)
def test_damaged_files(name: str) -> None:
    source = random.Random(name)
    data = (DATA / name).read_bytes()
    faults = 0
    for _ in range(ROUNDS):
        faults += compare(damaged(data, source), name.endswith(".bin"))[1] > 0
    assert faults > ROUNDS // 4


def state_of(nodes: Iterable[Node], big_endian: bool = False) -> HostState:
    return HostState("stream", big_endian=big_endian, nodes=list(nodes))


def node(path: bytes, *entries: tuple[int, int], value: bytes = b"") -> Node:
    return Node(path, tuple(Permission(*entry) for entry in entries or ((0, 0),)), value)


def random_nodes(source: random.Random, count: int) -> list[Node]:
    """Parents first, in no other order; names that begin alike, and few lists."""
    paths = [b""]
    nodes = [node(b"/", (0, 1))]
    for number in range(count):
        path = source.choice(paths[-9:] if number % 3 else paths)
        name = source.choice((b"a", b"ab", b"b", b"data", b"9", bytes([source.randrange(1, 255)])))
        path += b"/" + name.replace(b"/", b"_") + b"%d" % (number % 50)
        entries = [
            (source.randrange(4), source.randrange(4)) for _ in range(source.randrange(1, 4))
        ]
        if path not in paths and path[1:2] != b"@":
            paths.append(path)
            nodes.append(node(path, *entries, value=source.randbytes(source.randrange(20))))
    return nodes


@pytest.mark.parametrize("seed", range(20))
def test_random_trees(seed: int) -> None:
    """There and back, in each form and byte order."""
    source = random.Random(seed)
    nodes = random_nodes(source, 300)
    if seed % 2:
        nodes.insert(1, node(b"@releaseDomain", (0, 0), (5, 1)))
    for big in (False, True):
        assert compare(write_stream(state_of(nodes, big)), True)[0] == len(nodes)
    assert compare(write_db(state_of(nodes)), False)[0] == len(nodes)
    tree = Tree()
    for path, (perms, value) in wanted(nodes).items():
        names = [path] if path[:1] == b"@" else path[1:].split(b"/") if path != b"/" else []
        tree.load(names, dump.perms_text(perms, b"\0") + b"\0", value)
    ordered = state_of(
        Node(path, tuple(Permission(*entry) for entry in perms), value)
        for path, (perms, value) in seen(tree).items()
    )
    written = node_writing.lines(tree, lambda e: dump.perms_text(e, b"\0").hex().encode())
    assert write_db(ordered.replaced(nodes=[]), written) == write_db(ordered)
    rings = {0, 1, 2}
    losses: list[str] = []
    known: set[tuple[Permission, ...]] = set()

    def fit(entries: list[tuple[int, int]], path: bytes, lost: list[str]) -> bytes:
        permissions = tuple(Permission(*entry) for entry in entries)
        found = carry.node_for_stream(Node(path, permissions, b""), rings, known, lost)
        assert found is not None
        return entries_of(found.permissions, stream.Layout(False))

    def encode(entries: list[tuple[int, int]]) -> tuple[bytes, bool]:
        lost: list[str] = []
        return fit(entries, b"/", lost), bool(lost)

    records, left_out = node_writing.records(tree, encode, lambda e, path: fit(e, path, losses))
    assert left_out == []
    expected: list[str] = []
    fits = [carry.node_for_stream(one, rings, known, expected) for one in ordered.nodes]
    assert losses == expected
    fit_state = ordered.replaced(nodes=[fit for fit in fits if fit is not None])
    assert write_stream(ordered.replaced(nodes=[]), nodes=records) == write_stream(fit_state)
    longest = max(len(one.value) for one in nodes)
    assert [path for path, _ in node_writing.longer(tree, longest - 1)] == [
        one.path for one in ordered.nodes if len(one.value) == longest
    ]
    assert node_writing.longer(tree, longest) == []


DEEP = b"/a" * 1500
ODD: list[tuple[list[Node], int]] = [
    # nodes of a stream, and how many of them are refused
    ([node(b"/"), node(b"/a"), node(b"/a")], 1),
    ([node(b"/"), node(b"/"), node(b"/a")], 1),
    ([node(b"/"), node(b"@x"), node(b"@x", (5, 0))], 1),
    ([node(b"/"), node(b"/a/b"), node(b"/a"), node(b"/a/b")], 1),
    ([node(b"/"), node(b"/a/"), node(b"//a"), node(b"/a//b"), node(b"a"), node(b"")], 5),
    ([node(b"/"), node(b"/a"), node(b"/ab"), node(b"/ab/c"), node(b"/a/c"), node(b"/ab/d")], 0),
    ([node(b"/"), node(b"/@a"), node(b"/@a/b"), node(b"@b/c")], 0),
    ([node(b"/"), node(b"/a", *[(5, 1)] * 200), node(b"/a/b", *[(5, 1)] * 64)], 0),
    ([node(b"/"), Node(b"/a", (), b""), node(b"/b")], 1),
    ([node(b"/"), node(b"/a", value=b"v" * 65535), node(b"/b")], 0),
]


@pytest.mark.parametrize("case", range(len(ODD)))
def test_what_is_not_ordinary(case: int) -> None:
    nodes, refused = ODD[case]
    _, faults = compare(write_stream(state_of(nodes)), True)
    assert faults == refused


def test_a_deep_tree_and_a_path_that_is_too_long() -> None:
    """Where a tree cannot have it, it is a fault, and so is what is below."""
    paths = [DEEP[: 2 * n] for n in range(1, len(DEEP) // 2 + 1)]
    data = write_stream(state_of([node(b"/"), *(node(path) for path in paths)]))
    assert compare(data, True) == (len(paths) + 1, 0)
    long = [b"/" + b"n" * 3000, b"/" + b"n" * 3000 + b"/" + b"m" * 3000]
    into = NodesOfFile(Filling())
    state = read_stream(write_stream(state_of([node(b"/"), *map(node, long)])), into=into)
    assert into.tree.size == 1
    assert [fault.split(": ", 1)[1] for fault in state.faults] == ["path too long"]


@pytest.mark.parametrize("letter", [b"x", b"N", b"\0"])
def test_a_permission_that_is_none(letter: bytes) -> None:
    data = write_stream(state_of([node(b"/"), node(b"/a"), node(b"/b")]))
    entry = struct.pack("<cBH", b"n", 0, 0)
    at = data.rindex(entry, 0, data.index(b"/a\0"))
    assert compare(data[:at] + letter + data[at + 1 :], True)[1] == 1


@pytest.mark.parametrize(("more", "less"), [(-8, 0), (8, 0), (0x10000, 0), (0, 1), (0, 2), (0, 8)])
def test_a_record_that_is_longer_than_the_file(more: int, less: int) -> None:
    """Or shorter than its node; or the file ends within it."""
    data = write_stream(state_of([node(b"/"), node(b"/a")]))
    at = data.index(b"/a\0") - 4 - 16 - 8  # a permission, the fields before it, the head
    type_, length = struct.unpack_from("<II", data, at)
    body = data[at + 8 : at + 8 + length - less]
    assert compare(data[:at] + struct.pack("<II", type_, length + more) + body, True) == (1, 1)
