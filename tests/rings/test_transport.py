# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ring's transport and the event channels by themselves: the glue is a table of functions
that the test fills in."""

from __future__ import annotations

import ctypes
import errno

import pytest

from pyxsd._core import Server
from pyxsd._ring import EventChannels, RingTransport
from pyxsd.system.configuration import Config
from tests.fakexen import CONNECTION, REQ_CONS, RSP_PROD, Guest
from tests.rings.kit import ALL_FEATURES, Rings
from tests.world import Host, packet

GLUE = 0x1234  # what the glue's functions are called with; nothing looks into it
PORTS = [7, 300, 12]

NOTIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
TAKE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32
)
#: The functions of struct xsd_glue_api (glue/xsd_glue.h) in their order, up to those used here.
NAMES = (
    "create destroy last_call last_text open_evtchn fdopen_evtchn open_gnttab open_domains "
    "close_evtchn close_gnttab close_domains domains_source keep_over_exec map_page "
    "unmap_page map_file unmap_file evtchn_fd bind_interdomain bind_virq unbind"
).split()


class Table(ctypes.Structure):
    """struct xsd_glue_api."""

    _fields_ = [
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in NAMES),
        ("notify", NOTIFY),
        ("pending", TAKE),
        ("unmask", TAKE),
    ]


class Glue:
    """Event channels whose calls are noted."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.pending = PORTS
        self.fails = 0

        def notify(glue: int, port: int) -> int:
            self.calls.append(("notify", glue, port))
            return 0

        def pending(glue: int, ports: object, most: int) -> int:
            self.calls.append(("pending", glue, most))
            for i, port in enumerate(self.pending):
                ports[i] = port  # type: ignore[index]
            return self.fails or len(self.pending)

        def unmask(glue: int, ports: object, count: int) -> int:
            self.calls.append(("unmask", glue, ports[:count]))  # type: ignore[index]
            return 0

        self.table = Table(notify=NOTIFY(notify), pending=TAKE(pending), unmask=TAKE(unmask))
        self.channels = EventChannels(ctypes.addressof(self.table), GLUE)


def test_ports_are_taken_and_let_go_of_again() -> None:
    """Those without a connection are the caller's; all stay taken until they are released, and
    nothing is asked for meanwhile."""
    glue, server = Glue(), Server(Config(), Host())
    page = bytearray(4096)
    connection = server.connect(RingTransport(page, glue.channels, 300), 1)
    assert glue.channels.taken == []
    assert server.on_ports(glue.channels, {300: connection}) == [7, 12]
    assert glue.channels.taken == PORTS and server.agenda.count == 1
    assert server.on_ports(glue.channels, {7: connection, 12: connection, 300: connection}) is None
    assert [call[0] for call in glue.calls] == ["pending"]
    glue.channels.release()
    assert glue.channels.taken == []
    glue.channels.release()
    assert glue.calls == [("pending", GLUE, 1024), ("unmask", GLUE, PORTS)]
    glue.pending = []
    assert server.on_ports(glue.channels, {}) is None and glue.channels.taken == []
    glue.fails = -errno.EFBIG
    with pytest.raises(OSError, match="pending event channels") as raised:
        server.on_ports(glue.channels, {})
    assert raised.value.errno == errno.EFBIG and glue.channels.taken == []
    server.close()


def test_notifying() -> None:
    """Port 0 is none: nobody is notified."""
    glue = Glue()
    for port in (0, 9):
        glue.channels.kick(port)
    assert glue.calls == [("notify", GLUE, 9)]
    without = EventChannels()
    without.kick(9)
    assert without.notified == [9]
    without.release()


def test_a_ring_without_a_page_yet(rings: Rings) -> None:
    """Nothing is read or written, and nothing lost; later it is served as any other."""
    server = rings.server
    transport = RingTransport(0, rings.xen.channels, 5)
    assert (transport.features, transport.indices, transport.has_work()) == (0, None, False)
    connection = server.connect(transport, 9)
    transport.advertise(ALL_FEATURES)
    server.service(connection)
    server.flush()
    assert not connection.closed and not connection.bad
    guest = Guest(bytearray(4096))
    transport.attach(guest.page, 6)
    transport.advertise(ALL_FEATURES)
    assert transport.features == ALL_FEATURES and transport.indices == (0, 0)
    assert not transport.has_work()
    guest.feed(packet("READ", b"/tool\0"))
    assert transport.has_work()
    server.service(connection)
    server.flush()
    assert transport.indices == (guest.get(REQ_CONS), guest.get(RSP_PROD)) == (22, 16 + 7)
    assert not transport.has_work()
    guest.put(CONNECTION, 1)
    assert transport.has_work()
    server.disconnect(connection)
    transport.close()


@pytest.mark.parametrize("size", [0, 2079])
def test_a_page_that_is_too_small(size: int) -> None:
    with pytest.raises(ValueError, match="too small"):
        RingTransport(bytearray(size), EventChannels(), 5)


@pytest.mark.parametrize("with_output", [False, True])
def test_a_transport_that_was_closed(rings: Rings, with_output: bool) -> None:
    """Its connection ends where it is served or written to next, and the page is not touched."""
    guest, connection = rings.guests[1], rings.server.domains[1]
    transport = connection.transport
    if with_output:
        guest.put(RSP_PROD, 1024)  # the ring of replies is full
        guest.feed(packet("READ", b"/tool\0"))
        rings.server.service(connection)
        rings.server.flush()
        assert connection.has_output
    before = bytes(guest.page)
    transport.close()
    assert (transport.features, transport.indices, transport.has_work()) == (0, None, False)
    rings.server.service(connection)
    rings.server.flush()
    assert connection.closed and bytes(guest.page) == before
    rings.host.release(None, 1)
