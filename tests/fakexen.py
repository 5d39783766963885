# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Xen inside this process, and guests whose rings a test holds the other end of."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from pyxsd._core import Server
from pyxsd._journal import PORTS
from pyxsd._ring import EventChannels
from pyxsd._sock import SocketTransport
from pyxsd.domains import Domains
from pyxsd.system.configuration import Config
from pyxsd.xen import DEAD, RUNNING, SHUTDOWN, UNKNOWN, XenError
from tests.world import Host, World

STATES = {"running": RUNNING, "shutdown": SHUTDOWN, "dying": RUNNING, "dead": DEAD, "gone": UNKNOWN}
SIZE = 1024
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, FEATURES, CONNECTION, ERROR_FIELD = range(2048, 2076, 4)


class Guest:
    """A domain's end of its ring."""

    def __init__(self, page: bytearray) -> None:
        self.page = page
        self.unsent = b""

    def get(self, offset: int) -> int:
        """A 32-bit field of the page."""
        return int(struct.unpack_from("=I", self.page, offset)[0])

    def put(self, offset: int, value: int) -> None:
        """Sets a 32-bit field of the page."""
        struct.pack_into("=I", self.page, offset, value & 0xFFFFFFFF)

    def feed(self, data: bytes) -> None:
        """Writes as much as the ring has room for; the rest when push() is called."""
        self.unsent += data
        self.push()

    def push(self) -> bool:
        """Writes what was left over; was there anything to write?"""
        prod = self.get(REQ_PROD)
        room = SIZE - ((prod - self.get(REQ_CONS)) & 0xFFFFFFFF)
        data, self.unsent = self.unsent[:room], self.unsent[room:]
        for i, byte in enumerate(data):
            self.page[(prod + i) % SIZE] = byte
        self.put(REQ_PROD, prod + len(data))
        return bool(data)

    def take(self) -> bytes:
        """Reads all there is."""
        cons, prod = self.get(RSP_CONS), self.get(RSP_PROD)
        n = (prod - cons) & 0xFFFFFFFF
        data = bytes(self.page[SIZE + (cons + i) % SIZE] for i in range(n))
        self.put(RSP_CONS, prod)
        return data


class FakeXen:
    """The methods of pyxsd.xen.Xen; every page and port in use is counted."""

    def __init__(self) -> None:
        self.channels: Any = EventChannels()
        self.pages: dict[int, bytearray] = {}
        self.states: dict[int, str] = {}
        self.ids: dict[int, int] = {}
        self.mapped: list[int] = []
        self.bound: dict[int, int] = {}
        self.next_port = 10
        self.next_id = 1
        self.fail: set[str] = set()
        self.tells = False  # has libxenmanage's list of changed domains
        self.news: list[int] = []
        self.has_ids = True  # tells unique ids, as libxenmanage does
        self.asked = 0  # how often a state was asked for
        self.discarded: list[list[int]] = []  # the ports unmasked by each discard_events()

    def guest(self, domid: int) -> Guest:
        """A running domain with a fresh page."""
        self.pages[domid] = bytearray(4096)
        self.states[domid] = "running"
        self.ids[domid] = self.next_id
        self.next_id += 1
        self.news.append(domid)
        return Guest(self.pages[domid])

    def set_state(self, domid: int, state: str) -> None:
        """The hypervisor's word on a domain changes."""
        self.states[domid] = state
        self.news.append(domid)

    def _refuse(self, call: str) -> None:
        if call in self.fail:
            raise XenError(errno.EPERM, f"{call}: Operation not permitted")

    def map_file(self, path: str) -> Any:
        """Domain 0's page; the file's content means nothing."""
        self._refuse("map_file")
        self.mapped.append(id(self.pages.setdefault(0, bytearray(4096))))
        return self.pages[0]

    def map_page(self, domid: int) -> Any:
        self._refuse("map_page")
        if domid not in self.pages:
            raise XenError(errno.EINVAL, f"map_page(domain {domid}): Invalid argument")
        if self.states[domid] in ("gone", "dead", "dying"):
            self.pages[domid][:] = bytes(4096)  # one that went away gets a fresh page
        self.mapped.append(id(self.pages[domid]))
        return self.pages[domid]

    def unmap(self, page: Any) -> None:
        self.mapped.remove(id(page))

    def bind(self, domid: int, remote_port: int) -> int:
        self._refuse("bind")
        self.next_port += 1
        self.bound[self.next_port] = domid
        return self.next_port

    def bind_virq(self) -> int:
        return 1

    def unbind(self, port: int) -> None:
        del self.bound[port]

    def state(self, domid: int) -> tuple[int, int, int]:
        self._refuse("state")
        self.asked += 1
        unique_id = self.ids.get(domid, 0) if self.has_ids else 0
        return STATES[self.states.get(domid, "gone")], 0, unique_id

    def indices(self, ring: Any) -> tuple[int, int] | None:
        found: tuple[int, int] | None = ring.indices
        return found

    def has_work(self, ring: Any) -> bool:
        return bool(ring.has_work())

    def discard_events(self, ports: list[int]) -> None:
        self._refuse("discard_events")
        self.discarded.append(sorted(ports))

    def changed(self) -> list[int] | None:
        news, self.news = self.news, []
        return news if self.tells else None


class SocketEnd:
    """A client's end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def feed(self, data: bytes) -> None:
        """Sends all; the tests' requests fit into the socket's buffer."""
        self.end.sendall(data)

    def take(self) -> bytes:
        """Reads all there is."""
        data = b""
        while True:
            try:
                more = self.end.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return data
            if not more:
                return data
            data += more


class RingHost(Host):
    """A host whose domains are the real ones, on a FakeXen."""

    domains: Domains

    def introduce(self, connection: Any, domid: int, mfn: int, port: int) -> None:
        self.domains.introduce(connection, domid, mfn, port)

    def release(self, connection: Any, domid: int) -> None:
        self.domains.release(connection, domid)

    def resume(self, connection: Any, domid: int) -> None:
        self.domains.resume(connection, domid)

    def mfn(self, domid: int) -> int:
        return self.domains.table[domid].mfn


class RingWorld(World):
    """A world whose domains have rings; d0 is domain 0's own ring, and silent.

    With `sockets` s0 ... are socket pairs, so that all transports are the real ones; what
    is fed to them must fit into a socket's buffer.
    """

    host: RingHost

    def __init__(
        self, config: Config | None = None, log: Any = None, sockets: bool = False
    ) -> None:
        super().__init__(config, log)
        self.sockets_are_real = sockets
        self.xen = FakeXen()
        self.guests: dict[int, Guest] = {}
        self.ends: dict[str, tuple[Any, SocketEnd]] = {}
        self.host.domains = Domains(self.server, self.xen, self.host.log)
        self.host.domains.start()

    def make_host(self) -> Host:
        return RingHost()

    def guest(self, domid: int) -> Guest:
        """A running domain, not introduced yet."""
        self.guests[domid] = self.xen.guest(domid)
        self.rest.pop(f"d{domid}", None)
        return self.guests[domid]

    def connection(self, name: str) -> tuple[Any, Any]:
        if name[0] == "d" and name != "d0":
            return self.server.domains.get(int(name[1:])), self.guests[int(name[1:])]
        if name[0] != "s" or not self.sockets_are_real:
            return super().connection(name)
        if name not in self.ends:
            ours, theirs = socket.socketpair()
            connection = self.server.connect(SocketTransport(theirs.detach()))
            self.ends[name] = (connection, SocketEnd(ours))
        return self.ends[name]

    def feed(self, name: str, data: bytes) -> None:
        """Bytes from a client, and turns until they are served.  A guest reads
        meanwhile, so that large packets get through."""
        connection, end = self.connection(name)
        end.feed(data)
        while True:
            self.turn(*([name] if connection is not None else []))
            if name[0] != "d" or name == "d0" or connection is None:
                return
            self.rest[name] = self.rest.get(name, b"") + (got := end.take())
            if not end.push() and not got:
                return

    def turn(self, *names: str) -> None:
        super().turn(*names)

    def virq(self) -> None:
        """VIRQ_DOM_EXC."""
        self.server.begin(self.now, self.now)
        # As on_events() would, had this Xen event channels.
        domains = self.host.domains
        self.server.journal.note(PORTS, 0, 0, struct.pack("=I", domains.virq_port))
        domains.on_virq()
        while self.server.flush():
            pass
        self.server.take_changed()

    def close(self) -> None:
        self.host.domains.stop()
        super().close()
        for connection, end in self.ends.values():
            end.end.close()
            connection.transport.close()
        self.ends.clear()
        del self.host.domains


__all__ = ["FakeXen", "Guest", "RingWorld", "Server"]
