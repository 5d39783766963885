# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recorded states are read as what they mean, shown, and written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyxsd.state import carry, show
from pyxsd.state.database import write_db
from pyxsd.state.host_state import LETTERS, HostState, Node
from pyxsd.state.stream_writer import write_stream
from tests.state.recorded import DUMPS, FILES, STREAMS, WITHOUT_DEPTH, meaning

# Here a transaction was committed between the look at the tree and the writing of the file.
COMMITTED = {"c417-delayed", "ox417-transactions"}


def name(path: Path) -> str:
    return path.stem


@pytest.fixture(name="path", params=FILES, ids=name)
def any_path(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def read(path: Path) -> HostState:
    return show.read_any(path.read_bytes())


def test_all_are_there() -> None:
    assert (len(STREAMS), len(DUMPS)) == (32, 13)


def test_nothing_is_left_out(path: Path) -> None:
    assert read(path).faults == []


def as_recorded(node: Node) -> list[Any]:
    perms = [f"{LETTERS[entry.access]}{entry.domid}" for entry in node.permissions]
    return [node.path.decode("latin-1"), perms, node.value.hex()]


def test_the_tree(path: Path) -> None:
    want = meaning(path)
    if path.stem in COMMITTED:
        for changed, _, (permissions, value) in want["tree_after"]:
            want["tree"] = [
                [changed, permissions, value] if row[0] == changed else row for row in want["tree"]
            ]
    rows = [as_recorded(node) for node in read(path).nodes]
    assert sorted(row for row in rows if row[0][0] == "/") == sorted(want["tree"])
    special = {row[0]: row[1] for row in rows if row[0][0] == "@"}
    assert special == want["special"]


def test_the_connections(path: Path) -> None:
    state, want = read(path), meaning(path)
    sockets = {client.fd: client for client in state.clients if client.domid is None}
    rings = {client.domid: client for client in state.clients if client.domid is not None}
    assert sorted(sockets) == sorted(c["fd"] for c in want["connections"] if "fd" in c)
    assert sorted(rings) == sorted({0} | {c["domid"] for c in want["connections"] if "domid" in c})
    for recorded in want["connections"]:
        client = sockets[recorded["fd"]] if "fd" in recorded else rings[recorded["domid"]]
        watches = {
            (
                bytes(w[0], "latin-1"),
                bytes(w[1], "latin-1"),
                int(w[2]) if len(w) > 2 and path.stem not in WITHOUT_DEPTH else None,
            )
            for w in recorded["watches"]
        }
        assert set(client.watches) == watches
        if state.kind == "stream":
            assert client.target == recorded.get("target")
            if "sent" in recorded:
                assert client.input.hex() == recorded["sent"]
        elif client.domid is not None:
            assert client.remote_port == recorded["remote_port"]


def test_the_descriptors(path: Path) -> None:
    state, want = read(path), meaning(path)
    assert (state.listener, state.evtchn) == (want["listen_fd"], want["evtchn_fd"])
    if state.kind == "db":
        assert state.virq_port == want["virq_port"]


def test_held_requests_come_in_the_order_they_were_sent() -> None:
    """C xenstored writes the newest of them first."""
    state = read(next(path for path in STREAMS if path.stem == "c417-delayed"))
    held = [client for client in state.clients if len(client.input) > 40]
    assert held
    for client in held:
        ids = [
            int.from_bytes(client.input[at + 4 : at + 8], "little")
            for at in packet_starts(client.input)
        ]
        assert len(ids) > 1 and ids == sorted(ids)


def packet_starts(data: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        at += 16 + int.from_bytes(data[at + 12 : at + 16], "little")
    return starts


@pytest.mark.parametrize("path", DUMPS, ids=name)
def test_a_dump_written_back_is_the_same_file(path: Path) -> None:
    again = write_db(read(path))
    assert show.read_any(again) == read(path)
    assert sorted(again.splitlines()) == sorted(path.read_bytes().splitlines())


@pytest.mark.parametrize("path", STREAMS, ids=name)
def test_a_stream_written_back_means_the_same(path: Path) -> None:
    state = read(path)
    again = write_stream(state, 2 if path.stem.startswith("chead") else 1)
    written = show.read_any(again)
    written.version = state.version  # a daemon may write records of version 2 under a 1
    assert written == state
    if path.stem not in WITHOUT_DEPTH:
        assert again == path.read_bytes()


@pytest.mark.parametrize("path", STREAMS, ids=name)
def test_a_stream_in_the_other_byte_order(path: Path) -> None:
    """Requests under way are in the byte order of the machine, so they would read differently."""
    state = read(path)
    for client in state.clients:
        client.input = b""
    state.big_endian = True
    state.version = 2
    assert show.read_any(write_stream(state, 2)) == state


def test_each_is_shown(path: Path) -> None:
    shown = show.show_file(str(path))
    assert shown.told == [] and shown.whole
    lines = shown.output.decode("ascii").splitlines()
    want = meaning(path)
    assert sum(line.startswith("node ") for line in lines) == len(want["tree"]) + len(
        want["special"]
    )
    assert sum(line.startswith("  watch ") for line in lines) == sum(
        len(c["watches"]) for c in want["connections"]
    )
    for text, permissions, _ in want["tree"]:
        assert any(line.startswith(f'node "{text}" {permissions[0]}') for line in lines)


@pytest.mark.parametrize("as_format", show.WRITERS)
def test_each_is_converted(path: Path, as_format: str) -> None:
    """What is converted can be read, and what is lost is told."""
    converted = show.show_file(str(path), as_format)
    before, after = read(path), show.read_any(converted.output)
    assert after.faults == []
    assert [node.path for node in after.nodes] == [node.path for node in before.nodes]
    assert [node.value for node in after.nodes] == [node.value for node in before.nodes]
    if before.kind == "stream" and as_format == "db":
        assert any("remote port is not known" in line for line in converted.told)


LOSSES = [
    ("c417-targets", "db", "acts for domain"),
    ("c417-stale", "db", "entries of domains that are gone"),
    ("c417-partial_input", "db", "bytes of requests"),
    ("c417-unintroduced", "stream", "domain 0 owns it now"),
    ("chead-features", "stream", "quotas and features"),
]


@pytest.mark.parametrize(("stem", "as_format", "words"), LOSSES)
def test_what_is_lost_is_told(stem: str, as_format: str, words: str) -> None:
    for path in FILES:
        if path.stem == stem:
            told = show.show_file(str(path), as_format).told
            assert any(words in line for line in told), told


def test_a_stream_for_c_begins_with_domain_0(path: Path) -> None:
    fit, _ = carry.for_stream(read(path))
    assert fit.clients[0].domid == 0
    rings = {client.domid for client in fit.clients}
    for node in fit.nodes:
        assert node.permissions[0].domid in rings
