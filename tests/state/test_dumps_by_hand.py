# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lines of an oxenstored dump, one by one: what they mean, and what is left out and told."""

from __future__ import annotations

import pytest

from pyxsd.state import carry, show
from pyxsd.state.database import read_db
from pyxsd.state.host_state import Client, HostState, Node, Permission, Watch

FIRST = b"$xenstored-dump-format\n"


def store(path: bytes, perms: bytes) -> bytes:
    return b"store,%s,%s,\n" % (path.hex().encode(), perms.hex().encode())


ROOT = store(b"/", b"n0")

#: The permissions of a node, and their entries; None: malformed.
PERMISSIONS: list[tuple[bytes, list[tuple[int, int]] | None]] = [
    (b"n5", [(5, 0)]),
    (b"n5\0r0\0w1\0b2", [(5, 0), (0, 1), (1, 2), (2, 3)]),
    (b"n-5", [(-5, 0)]),
    (b"n-5\0r-12", [(-5, 0), (-12, 1)]),
    (b"n" + b"1" * 18, [(int("1" * 18), 0)]),
    (b"n-" + b"1" * 18, [(-int("1" * 18), 0)]),
    (b"", None),
    (b"n", None),
    (b"5", None),
    (b"x5", None),
    (b"n5x", None),
    (b"n--5", None),
    (b"n-", None),
    (b"n+5", None),
    (b"n5\0\0r0", None),
    (b"n" + b"1" * 19, None),
    (b"nr5", None),
    (b"n 5", None),
]


@pytest.mark.parametrize("text, entries", PERMISSIONS)
def test_permissions(text: bytes, entries: list[tuple[int, int]] | None) -> None:
    state = read_db(FIRST + ROOT + store(b"/a", text))
    if entries is None:
        assert len(state.faults) == 1 and "malformed permissions" in state.faults[0]
        assert [node.path for node in state.nodes] == [b"/"]
    else:
        assert state.faults == []
        assert state.nodes[1].permissions == tuple(Permission(*entry) for entry in entries)


#: Lines of which the second one cannot count, what is said, and the clients.
TWICE = [
    (
        b"dom,5,1,2,3\ndom,5,9,9,9\n",
        "domain 5 stands there twice",
        [Client(5, mfn=1, remote_port=2, local_port=3)],
    ),
    (b"socket,7\nsocket,7\n", "the descriptor 7 stands there twice", [Client(None, fd=7)]),
    (
        b"dom,5,1,2,3\npyxsd-ring,6,1,2,3,0,,\n",
        "a ring of domain 6, which is not there",
        [Client(5, mfn=1, remote_port=2, local_port=3)],
    ),
    (
        b"dom,5,1,2,3\nwatch,6,2f61,74\n",
        "a watch of domain 6, which is not there",
        [Client(5, mfn=1, remote_port=2, local_port=3)],
    ),
    (
        b"dom,5,1,2,3\nwatch,0,2f61,74\n",
        "a watch of domain 0, which is not there",
        [Client(5, mfn=1, remote_port=2, local_port=3)],
    ),
    (
        b"dom,5,1,2,3\nwatch,-5,2f61,74\nwatch,5,2f62,74,0\n",
        "a watch of socket 5, which is not",
        [Client(5, mfn=1, remote_port=2, local_port=3, watches=[Watch(b"/b", b"t", 0)])],
    ),
]


@pytest.mark.parametrize("lines, said, clients", TWICE, ids=[row[1] for row in TWICE])
def test_clients(lines: bytes, said: str, clients: list[Client]) -> None:
    state = read_db(FIRST + lines + ROOT)
    assert len(state.faults) == 1 and said in state.faults[0]
    assert state.clients == clients


# -- to a stream ----------------------------------------------------------------

LONGEST = 65535


@pytest.mark.parametrize(
    "given, torn, kept",
    [(LONGEST, 0, True), (LONGEST + 1, 0, False), (1, LONGEST, True), (1, LONGEST + 1, False)],
)
def test_requests_under_way(given: int, torn: int, kept: bool) -> None:
    """A stream has 16 bits for their length."""
    state = HostState(
        "image",
        clients=[Client(5, local_port=3, input=b"x" * given, torn=torn, output=b"y" * torn)],
    )
    client = carry.for_stream(state)[0].clients[-1]
    losses = [text for text in carry.for_stream(state)[1] if "too many" in text]
    assert (client.input == state.clients[0].input) == kept
    assert losses == (
        [] if kept else [f"the ring of domain 5: {given} bytes of requests are too many"]
    )


# -- shown ----------------------------------------------------------------------


def test_a_value_as_text() -> None:
    """Printable ASCII stands for itself."""
    state = HostState("db", nodes=[Node(b"/", (Permission(0, 0),), bytes(range(256)))])
    line = next(line for line in show.text(state) if line.startswith(b"node "))
    shown = line.partition(b'n0 "')[2][:-1]
    assert shown == b"".join(
        b"\\" + bytes([c]) if c in b'"\\' else bytes([c]) if chr(c) in PRINTABLE else b"\\x%02x" % c
        for c in range(256)
    )


#: A client, and its line.
LINES = [
    (Client(None, fd=7), b"socket 7"),
    (Client(5), b"ring 5"),
    (
        Client(5, 3, target=0, mfn=0, remote_port=0, local_port=0, unique_id=0, indices=(0, 0)),
        b"ring 5 connection=3 target=0 mfn=0 remote-port=0 local-port=0 unique-id=0 "
        b"req-cons=0 rsp-prod=0",
    ),
    (
        Client(5, target=1, mfn=2, remote_port=3, local_port=4, unique_id=6, indices=(7, 8)),
        b"ring 5 target=1 mfn=2 remote-port=3 local-port=4 unique-id=6 req-cons=7 rsp-prod=8",
    ),
]


@pytest.mark.parametrize("client, line", LINES)
def test_a_client_as_text(client: Client, line: bytes) -> None:
    """What is not known is left out, and 0 is known."""
    assert line in [*show.text(HostState("db", clients=[client]))]


PRINTABLE = (
    " !#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"
)
