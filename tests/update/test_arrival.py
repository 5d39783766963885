# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state that travels in a live update: loaded by the new program and written out again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.domains import Domains
from pyxsd.state import image, surroundings, values
from pyxsd.state.errors import StateError
from pyxsd.system.configuration import Config
from pyxsd.update import arrival
from tests.state.test_image import put_together
from tests.world import packet

AROUND = surroundings.Surroundings(
    3,
    4,
    17,
    False,
    "/log,file\udcff",
    (("/run/pid", 5), ("/x", 6)),
    ("/bin/x", "-m", "\udcfe"),
    "1.0",
    "boot",
)
ROWS = [
    surroundings.Row(0, 0, 7, 8, 0, 0, 0, 0),
    surroundings.Row(5, 99, 1, 2, 77, 1 | 4 | 8, 12, 2**32 - 1),
    surroundings.Row(6, -1, 1, 4, 78, 2, 0, 0),
]


def server_and_domains() -> tuple[Any, Any]:
    """Fresh ones that touch nothing."""
    host = arrival.Quiet()
    server = Server(Config(), host, AccessLog(False))
    return server, Domains(server, arrival.NoXen(), host.log)


def example() -> tuple[Any, Any]:
    """A host with three domains and a socket."""
    server, domains = server_and_domains()
    rings = domains.transports(ROWS)
    for row in ROWS:
        server.connect(rings[row.domid], row.domid)
    domains.adopt(ROWS, server.domains)
    sock = server.connect(MemoryTransport())
    for connection, path, depth in (
        (server.domains[5], b"data", None),
        (sock, b"/a", b"3"),
        (server.domains[6], b"@releaseDomain", None),
    ):
        server.restore_watch(connection, path, b"tok,en\n", depth)
    server.restore_stream(server.domains[5], packet("READ", b"data\0")[:9], b"rest", 4)
    server.tree.load([b"tool", b"a,b\n"], b"n5\0r6\0", b"va\0lue\n")
    return server, domains


def written(server: Any, domains: Any, around: surroundings.Surroundings = AROUND) -> bytes:
    """The whole state."""
    sockets = tuple((c.id, 20 + c.id) for c in server.connections.values() if c.is_socket)
    return image.save(server, lambda: surroundings.write(around._replace(sockets=sockets), domains))


def rehearsed(data: bytes) -> bytes:
    """What comes of a trial."""
    parts: list[bytes] = []
    arrival.rehearse(data, Config(), parts.append)
    return b"".join(parts)


def test_written_again_it_is_the_same() -> None:
    server, domains = example()
    data = written(server, domains)
    around, rows = surroundings.read(image.read(data))
    assert around._replace(sockets=()) == AROUND
    assert rows == ROWS
    assert around.descriptors() == [3, 4, 5, 6, around.sockets[0][1]]
    assert rehearsed(data) == data


#: What can be changed of a host.
CHANGES: tuple[Callable[[Any, Any], object], ...] = (
    lambda s, d: None,
    lambda s, d: d.down.clear(),
    lambda s, d: d.closed.clear(),
    lambda s, d: d.unasked.clear(),
    lambda s, d: setattr(d.table[5], "expected", None),
    lambda s, d: setattr(d.table[5], "expected", (12, 0)),
    lambda s, d: setattr(d.table[5], "unique_id", 78),
    lambda s, d: setattr(d.table[5], "mfn", 98),
    lambda s, d: setattr(d.table[5], "port", 3),
    lambda s, d: setattr(d.table[5], "remote_port", 3),
    lambda s, d: s.set_quota("nodes", 9),
)


def test_what_is_in_it_counts() -> None:
    """Each of these changes changes the bytes, and what is read from them."""
    seen = []
    for change in CHANGES:
        server, domains = example()
        change(server, domains)
        data = written(server, domains)
        assert data not in seen
        assert rehearsed(data) == data
        seen.append(data)
    assert len(seen) == len(CHANGES)


FIELDS = {
    "listener": -1,
    "channels": 9,
    "virq_port": 0,
    "access_log": True,
    "log_file": "",
    "pid_files": (),
    "program": (),
    "version": "2",
    "boot": "",
}


@pytest.mark.parametrize("name", sorted(surroundings.Surroundings._fields))
def test_every_field_travels(name: str) -> None:
    server, domains = example()
    if name == "sockets":
        server.connect(MemoryTransport())
    change: Any = {name: FIELDS[name]} if name in FIELDS else {}
    around = AROUND._replace(**change)
    data = written(server, domains, around)
    assert len(image.read(data)) and rehearsed(data) == data
    found, _ = surroundings.read(image.read(data))
    assert found == around._replace(sockets=found.sockets)
    assert len(found.sockets) == 1 + (name == "sockets")


def altered(type_: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The state of the example with one of its records changed."""
    data = written(*example())
    return put_together(
        (record.type, change(bytes(record.body)) if record.type == type_ else record.body)
        for record in image.read(data)
    )


def with_field(name: str, value: object) -> Callable[[bytes], bytes]:
    """Another value in HOST."""
    return lambda body: values.encode({**values.decode(body), name: value})


#: A record, how it is changed, and what is said.
WRONG: tuple[tuple[bytes, Callable[[bytes], bytes], str], ...] = (
    (b"HOST", with_field("listener", "3"), r"record \d+ \(HOST\) at byte \d+: listener is '3'"),
    (b"HOST", with_field("virq_port", -1), "the number -1"),
    (b"HOST", with_field("pid_files", [[b"/x", b"4"]]), "the number b'4'"),
    (b"HOST", with_field("listener", 4), "a descriptor stands there twice, or is none"),
    (b"HOST", with_field("more", 4), "more"),
    (b"HOST", lambda body: body[:-1], r"\(HOST\).* bytes are missing"),
    (b"DOMS", lambda body: body[:-1], r"\(DOMS\)"),
    (b"DOMS", lambda body: body * 2, "a domain stands there twice"),
    (b"DOMS", lambda body: body[:40], "the ring of domain [56] is missing"),
    (b"DOMS", lambda body: b"\xff\xff\xff\x7f" + body[4:], "domain 2147483647 with flags 0x0"),
    (b"DOMS", lambda body: body[:-4] + b"\1" * 4, "domain 6 with indices that are not known"),
    (b"SOCK", lambda body: body[:-1], r"\(SOCK\)"),
    (b"SOCK", lambda body: b"", "the descriptors are not those of the sockets"),
)


@pytest.mark.parametrize(("type_", "change", "words"), WRONG)
def test_surroundings_that_make_no_sense(
    type_: bytes, change: Callable[[bytes], bytes], words: str
) -> None:
    with pytest.raises(StateError, match=words):
        rehearsed(altered(type_, change))


def test_a_domain_without_a_ring() -> None:
    """Its row is there and its connection is not."""
    server, domains = example()
    server.disconnect(server.domains[6])
    with pytest.raises(StateError, match="the domains are not those of the rings"):
        rehearsed(written(server, domains))


def test_cut_and_flipped() -> None:
    data = written(*example())
    for at in range(len(data)):
        with pytest.raises(StateError):
            rehearsed(data[:at])
        with pytest.raises(StateError):
            rehearsed(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_every_byte_of_the_surroundings() -> None:
    """With the right checksum: refused with a clear text, or another state; never half of one."""
    data = written(*example())
    found = image.read(data)
    for number, record in enumerate(found):
        if record.type not in image.ALSO:
            continue
        for at in range(len(record.body)):
            body = bytearray(record.body)
            body[at] ^= 0x81
            damaged = put_together(
                (other.type, bytes(body) if n == number else other.body)
                for n, other in enumerate(found)
            )
            try:
                assert rehearsed(damaged) == damaged
            except StateError as error:
                assert str(error)


def test_descriptors_are_taken_by_number() -> None:
    pipes = [os.pipe() for _ in range(3)]
    ends = [fd for pipe in pipes for fd in pipe]
    around = surroundings.Surroundings(30, -1, pid_files=(("/a", 40),), sockets=((2, 50),))
    try:
        with pytest.raises(StateError, match="2 descriptors came, where 3 are named"):
            arrival.Descriptors(ends[:2], around)
        given = arrival.Descriptors(ends[:3], around)
        assert [given.take(number) for number in (50, 30, 40)] == [ends[2], ends[0], ends[1]]
        with pytest.raises(StateError, match="the descriptor 40 is missing"):
            given.take(40)
    finally:
        for fd in ends:
            os.close(fd)


def test_an_image_of_a_bare_server() -> None:
    """It says nothing of a daemon around it."""
    server, _ = server_and_domains()
    assert surroundings.read(image.read(image.save(server))) == (surroundings.Surroundings(), [])
