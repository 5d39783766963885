# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of domains: introduction, rings, release, shutdown and death (floor 3).

Knows the server and a Xen (xen.Xen, or a stand-in with its methods).  Rules:
Xen's docs/misc/xenstore.txt, INTRODUCE to SET_TARGET.
"""

from __future__ import annotations

from sortedcontainers import SortedDict

from pyxsd._ring import FEATURES, RingTransport
from pyxsd._wire import RequestError
from pyxsd.xen import DEAD, SHUTDOWN, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

DOMID_FIRST_RESERVED = 0x7FF0
INTRODUCED, RELEASED = b"@introduceDomain", b"@releaseDomain"


class Domain:
    """One introduced domain and what is held of it."""

    __slots__ = ("domid", "mfn", "remote_port", "port", "page", "transport", "connection",
                 "unique_id", "is_shutdown")

    def __init__(self, domid: int, mfn: int, remote_port: int) -> None:
        self.domid = domid
        self.mfn = mfn
        self.remote_port = remote_port
        self.port = 0
        self.page = 0
        self.transport: Any = None
        self.connection: Any = None
        self.unique_id = 0
        self.is_shutdown = False


class Domains:
    """All introduced domains of a host.

    xen is None where Xen is missing: every introduction fails then.
    """

    def __init__(self, server: Any, xen: Any, log: Callable[[str, str, str], None]) -> None:
        self.server = server
        self.xen = xen
        self.log = log
        self.table: Any = SortedDict()  # domid: Domain
        self.by_port: dict[int, Any] = {}  # local port: Connection
        self.virq_port = 0
        self.down: set[int] = set()  # domids that are shut down

    # -- beginning ------------------------------------------------------------

    def start(self) -> None:
        """Asks to be told of domains that change state; XenError."""
        self.virq_port = self.xen.bind_virq()

    def start_domain0(self, page_file: str, port_file: str) -> None:
        """Connects domain 0's own ring; OSError or ValueError where it cannot be."""
        with open(port_file, "rb") as file:
            text = file.read(64).strip()
        if not text.isdigit() or not 0 < int(text) < 1 << 32:
            raise ValueError(f"{port_file}: not a port number: {text[:32]!r}")
        domain = Domain(0, 0, int(text))
        domain.page = self.xen.map_file(page_file)
        self._attach(domain)
        self.log("debug", "domain", f"domain 0 bind (l {domain.port}, r {domain.remote_port})")
        # The kernel may have asked before anybody listened.
        self.xen.channels.kick(domain.port)
        self.server.serve_later(domain.connection)

    # -- requests -------------------------------------------------------------

    def introduce(self, connection: Any, domid: int, mfn: int, port: int) -> None:
        """INTRODUCE: maps the page, binds the port, connects; RequestError."""
        known = self.table.get(domid)
        if known is not None and self._is_another(known):
            # Its death was not told yet, and the domid is in use again.
            self._bury([domid], [domid])
            known = None
        if known is not None:
            self._introduce_again(known, connection, mfn, port)
            return
        if not 0 < domid < DOMID_FIRST_RESERVED or not 0 < port < 1 << 32:
            raise RequestError("EINVAL")
        domain = Domain(domid, mfn, port)
        if self.xen is None:
            self.log("error", "domain", f"domain {domid} cannot be introduced: Xen is missing")
            raise RequestError("EINVAL")
        try:
            domain.page = self.xen.map_page(domid)
            self._attach(domain)
        except OSError as error:
            self._refused(domid, error)
        self.log("debug", "domain", f"domain {domid} bind (l {domain.port}, r {port})")
        self.server.fire_special(INTRODUCED, [domid], connection)

    def _refused(self, domid: int, error: OSError) -> None:
        self.log("error", "domain", f"domain {domid} cannot be introduced: {error.strerror}")
        raise RequestError("EINVAL")

    def _attach(self, domain: Domain) -> None:
        """Binds, advertises the ring's features and connects; on failure the
        page is unmapped."""
        try:
            domain.port = self.xen.bind(domain.domid, domain.remote_port)
        except OSError:
            self.xen.unmap(domain.page)
            raise
        domain.unique_id = self._unique_id(domain.domid)
        domain.transport = RingTransport(domain.page, self.xen.channels, domain.port)
        domain.transport.advertise(FEATURES)
        domain.connection = self.server.connect(domain.transport, domain.domid)
        domain.connection.features = FEATURES
        self.table[domain.domid] = domain
        self.by_port[domain.port] = domain.connection

    def _unique_id(self, domid: int) -> int:
        if domid == 0:
            return 0
        try:
            return int(self.xen.state(domid)[2])
        except OSError as error:
            self.log("warn", "domain", f"state of domain {domid}: {error.strerror}")
            return 0

    def _introduce_again(self, domain: Domain, connection: Any, mfn: int, port: int) -> None:
        """A connected domain: by another connection its port is bound anew."""
        if mfn != domain.mfn:
            raise RequestError("EINVAL")
        if connection is domain.connection:
            if port != domain.remote_port:
                raise RequestError("EINVAL")
            return
        if not 0 < port < 1 << 32:
            raise RequestError("EINVAL")
        try:
            self._unbind(domain)
            domain.port = self.xen.bind(domain.domid, port)
        except OSError as error:
            self._refused(domain.domid, error)
        domain.remote_port = port
        domain.transport.port = domain.port
        self.by_port[domain.port] = domain.connection
        self.log("debug", "domain", f"domain {domain.domid} bind (l {domain.port}, r {port})")
        # Whatever it wrote while nobody listened, once this request is done.
        self.server.serve_later(domain.connection)

    def release(self, connection: Any, domid: int) -> None:
        """RELEASE: lets go of the domain and cleans the store of it."""
        if domid == 0:
            raise RequestError("EINVAL")
        known = domid in self.table
        self._forget([domid])
        if not known:
            raise RequestError("EINVAL")
        self.server.fire_special(RELEASED, [domid], connection)

    def resume(self, connection: Any, domid: int) -> None:
        """RESUME: its next shutdown is told again; here it always is."""
        if domid not in self.server.domains:
            raise RequestError("EINVAL")

    # -- shutdown and death ---------------------------------------------------

    def on_virq(self) -> None:
        """Some domain changed its state: finds out which, tells who watches."""
        dead: list[int] = []
        told: list[int] = []
        for domid in self._to_ask():
            domain = self.table[domid]
            try:
                state, _, unique_id = self.xen.state(domid)
            except OSError as error:
                self.log("error", "domain", f"state of domain {domid}: {error.strerror}")
                continue
            reused = domain.unique_id and unique_id and unique_id != domain.unique_id
            if state in (UNKNOWN, DEAD) or reused:
                dead.append(domid)
                told.append(domid)
                self.down.discard(domid)
            elif state == SHUTDOWN:
                # Told at every state change while it stays so, as oxenstored does.
                self.down.add(domid)
                told.append(domid)
            else:
                self.down.discard(domid)
        self._bury(dead, told)

    def _bury(self, dead: list[int], told: list[int]) -> None:
        """Forgets dead domains, and tells of them and of those that shut down."""
        if dead:
            self.log("info", "domain", "dead: " + " ".join(map(str, dead)))
            self._forget(dead)
        if told:
            self.server.fire_special(RELEASED, told)

    def _is_another(self, domain: Domain) -> bool:
        """Has the domid got a new domain since it was introduced?"""
        if not domain.unique_id:
            return False
        unique_id = self._unique_id(domain.domid)
        return unique_id not in (0, domain.unique_id)

    def _to_ask(self) -> list[int]:
        """The introduced domains that may have changed."""
        try:
            changed = self.xen.changed()
        except OSError as error:
            self.log("error", "domain", f"changed domains: {error.strerror}")
            changed = None
        if changed is None:
            return [domid for domid in self.table if domid]
        return sorted(domid for domid in {*changed, *self.down} if domid and domid in self.table)

    def _forget(self, domids: list[int]) -> None:
        """Disconnects domains and cleans the store of them."""
        for domid in domids:
            domain = self.table.pop(domid, None)
            if domain is not None:
                self._unbind(domain)
                self.server.disconnect(domain.connection)
                domain.transport.close()
                self._unmap(domain)
            self.down.discard(domid)
            self.server.forget_domain(domid)

    def _unbind(self, domain: Domain) -> None:
        # Xen gives the port to another domain at once: forget the number first.
        port, domain.port, domain.transport.port = domain.port, 0, 0
        if self.by_port.pop(port, None) is None:
            return
        try:
            self.xen.unbind(port)
        except OSError as error:
            self.log("error", "domain", f"domain {domain.domid}: {error.strerror}")

    def _unmap(self, domain: Domain) -> None:
        try:
            self.xen.unmap(domain.page)
        except OSError as error:
            self.log("error", "domain", f"domain {domain.domid}: {error.strerror}")

    # -- every turn -----------------------------------------------------------

    def on_events(self) -> None:
        """Serves the domains whose ports are pending."""
        channels = self.xen.channels
        try:
            others = self.server.on_ports(channels, self.by_port)
            if others is not None and self.virq_port in others:
                self.on_virq()
        finally:
            # Whatever happened: a port that stays masked is never heard of again.
            channels.release()

    def scan(self) -> int:
        """Looks at all rings for work that nobody was told of; how many had some."""
        found = 0
        for domain in list(self.table.values()):
            # Room for what is queued may have come without a kick, too.
            if domain.transport.has_work() or domain.connection.has_output:
                found += 1
                self.server.serve_later(domain.connection)
        return found

    def stop(self) -> None:
        """Lets go of all domains, without a word to the store or to watches."""
        for domain in list(self.table.values()):
            domain.transport.close()
            self._unmap(domain)
        self.table.clear()
        self.by_port.clear()
