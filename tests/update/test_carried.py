# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bytes that travel in a live update: written, read, built and written again; and damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.domains import Domains
from pyxsd.store import packed
from pyxsd.store.tree import Tree
from pyxsd.system.configuration import Config
from pyxsd.update import arrival, carried
from tests.world import packet

AROUND = carried.Surroundings(True, True, 3, False, "/log,file\udcff", ("/run/pid", "/x"))


def server_and_domains() -> tuple[Any, Any]:
    """Fresh ones that touch nothing."""
    host = arrival.Quiet()
    server = Server(Config(), host, AccessLog(False))
    return server, Domains(server, arrival.NoXen(), host.log)


def example() -> tuple[Any, Any]:
    """With something of everything that is carried."""
    server, domains = server_and_domains()
    domains.take_over(0, 0, 7, 8, 0, None)
    guest = domains.take_over(5, 99, 1, 2, 77, (12, 2**32 - 1))
    other = domains.take_over(6, -1, 1, 4, 78, None)
    domains.closed.add(5)
    domains.down.add(6)
    domains.unasked.discard(6)
    sock = server.connect(MemoryTransport())
    for connection, path, depth in ((guest, b"data", None), (guest, b"/local", b"3"),
                                    (other, b"@releaseDomain", None), (sock, b"/a", None),
                                    (sock, b"/", b"0")):
        server.restore_watch(connection, path, b"tok,en\n", depth)
    server.set_target(other, 5)
    server.restore_stream(guest, packet("READ", b"data\0")[:9], b"rest", 4)
    server.restore_stream(sock, packet("READ", b"/\0") + b"\1", packet("READ", b"reply\n"), 0)
    guest.restore_counters(3, 4, 5, -1)
    guest.features = 1
    server.restore_state(other, True)
    server.set_quota("watches", 17)
    server.set_quota("nodes", 0)
    server.set_owner_quota(5, 4)
    server.tree.load([b"tool", b"a,b\n"], b"n5\0r6\0", b"va\0lue\n")
    return server, domains


def test_written_again_it_is_the_same() -> None:
    server, domains = example()
    data = carried.write(server, domains, AROUND)
    state = carried.read(data)
    assert state.surroundings == AROUND
    assert arrival.number_of_descriptors(state) == 2 + 2 + 1
    assert arrival.rehearse(data, Config()) == data


#: What can be changed of a server, its domains and a socket of it.
CHANGES: tuple[Callable[[Any, Any, Any], object], ...] = (
    lambda s, d, sock: None,
    lambda s, d, sock: s.domains[5].restore_counters(9, 4, 5, -1),
    lambda s, d, sock: s.set_target(s.domains[6], -1),
    lambda s, d, sock: d.down.clear(),
    lambda s, d, sock: d.closed.clear(),
    lambda s, d, sock: s.restore_stream(sock, b"", b""),
    lambda s, d, sock: s.set_quota("nodes", 9),
    lambda s, d, sock: s.restore_watch(sock, b"/z", b"t", None),
    lambda s, d, sock: s.set_owner_quota(5, -1),
    lambda s, d, sock: s.tree.load([b"tool"], b"n0\0", b"v"),
)


def test_what_is_in_it_counts() -> None:
    """Each of these changes changes the bytes: none of them is left out."""
    seen = set()
    for change in CHANGES:
        server, domains = example()
        change(server, domains, carried.sockets(server)[0])
        seen.add(carried.write(server, domains, AROUND))
    assert len(seen) == len(CHANGES)


def test_watches_beyond_a_quota_that_was_lowered_stay() -> None:
    server, domains = server_and_domains()
    guest = domains.take_over(5, 99, 1, 2, 77, None)
    for n in range(20):
        server.restore_watch(guest, b"w%d" % n, b"t", None)
    server.set_quota("watches", 3)
    data = carried.write(server, domains, AROUND)
    assert arrival.rehearse(data, Config()) == data


def test_cut_at_every_length() -> None:
    data = carried.write(*example(), AROUND)
    for length in range(len(data)):
        with pytest.raises(carried.StateError, match="offset [0-9]+: "):
            carried.read(data[:length])


def test_every_byte_flipped() -> None:
    """It is refused with a clear text, or it is another state; never half of one."""
    data = carried.write(*example(), AROUND)
    for at in range(len(data)):
        for bits in (1, 0x80):
            damaged = data[:at] + bytes([data[at] ^ bits]) + data[at + 1:]
            try:
                assert arrival.rehearse(damaged, Config()) != data
            except (ValueError, LookupError, OverflowError) as error:
                assert str(error)


@pytest.mark.parametrize("line", [
    b"news,1", b"socket,1", b"watch,2f,2f", b"watch,2g,2f,1", b"host,a,1,1,1,", b"domain,1",
    b"tree,99", b"tree,-1"])
def test_a_line_that_cannot_be(line: bytes) -> None:
    """Also one that only a newer program knows."""
    data = carried.write(*example(), AROUND)
    at = data.index(b"socket")
    with pytest.raises(carried.StateError, match=f"offset {at}: "):
        carried.read(data[:at] + line + b"\n" + data[at:])


def test_another_version() -> None:
    with pytest.raises(carried.StateError, match="does not begin with pyxsd-update,1"):
        carried.read(b"pyxsd-update,2\n")


def test_obstacles() -> None:
    server, domains = server_and_domains()
    guest = domains.take_over(5, 99, 1, 2, 77, None)
    assert carried.obstacles(server) == []
    server.restore_stream(guest, packet("TRANSACTION_START", b"\0"), b"")
    server.service(guest)
    assert carried.obstacles(server) == ['D5: 1 tx, out: false, perm: 5"rw"']
    sock, writer = server.connect(MemoryTransport()), server.connect(MemoryTransport())
    server.restore_watch(sock, b"/", b"t", None)
    for n in range(server.quota("watch-events") + 1):
        server.restore_stream(writer, packet("WRITE", b"/x%d\0v" % n), b"")
        server.service(writer)
    assert carried.obstacles(server)[1:] == [f'A{sock.id}: 0 tx, out: true, perm: 0"rw"']
    server.close()


def test_a_packed_tree_with_every_byte_flipped() -> None:
    tree = Tree()
    for names, value in (([b"a"], b""), ([b"a", b"b"], b"v"), ([b"a", b"c"], b""), ([b"d"], b"w")):
        tree.load(names, b"n1\0r2\0", value)
    data = packed.pack(tree)
    again, taken = packed.unpack(data)
    assert taken == len(data) and packed.pack(again) == data
    assert list(again.walk()) == list(tree.walk())
    assert (again.size, again.all_entries()) == (tree.size, tree.all_entries())
    for at in range(len(data)):
        with pytest.raises(ValueError):
            packed.unpack(data[:at])
        for bits in (1, 0x80):
            damaged = data[:at] + bytes([data[at] ^ bits]) + data[at + 1:]
            try:
                again, taken = packed.unpack(damaged)
            except ValueError as error:
                assert str(error)
            else:
                assert again.size == len(list(again.walk())) - 1
