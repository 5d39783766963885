# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of domains: introduction, rings, release, shutdown and death.

Knows the server and a Xen (xen.Xen, or a stand-in with its methods).  Rules:
Xen's docs/misc/xenstore.txt, INTRODUCE to SET_TARGET.

How a death is noticed.  Xen raises VIRQ_DOM_EXC when some domain has changed
its state, and does not say which.  on_virq() asks about the domains that Xen
lists as changed (about all where it has no such list), and about two kinds
that no list names:

- `down`: domains that are shut down.  oxenstored tells of them at every state
  change of anybody, for as long as they stay so.
- `unasked`: domains whose state was not read since they were introduced, or
  could not be read.  Xen may have told of their change before, when they were
  not known here, and tells of each change once.

A domain is dead when Xen says so, or when the domid has another unique id than
at the introduction.  Where Xen tells no unique ids, INTRODUCE of a domid that
is connected compares the two indices of the ring that only this daemon moves:
in the page of another domain they are different.

Requests come in here from within the serving of a connection.  So nobody is
served from here at once: Server.serve_later() does it when the request is done.
"""

from __future__ import annotations

import os
import struct
import time

from sortedcontainers import SortedDict

from pyxsd._journal import INTERRUPT, LOOK, SCAN, SHUT
from pyxsd._ring import FEATURES, RingTransport
from pyxsd._wire import RequestError
from pyxsd.xen import DEAD, SHUTDOWN, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any, Callable

    from pyxsd.state.dump import Ring
    from pyxsd.state.surroundings import Row
    from pyxsd.xen import DomainState

DOMID_FIRST_RESERVED = 0x7FF0
MFN_UNKNOWN = -1  # of a domain that another xenstored has introduced
PORT_MAX = 0xFFFFFFFF
INTRODUCED, RELEASED = b"@introduceDomain", b"@releaseDomain"
ASKED_AT_ONCE = 64  # domains whose state is asked for between two turns: some 3 us each
BURIED_AT_ONCE = 32  # of them, where they are dead: some 20 us each, and what they own
COMPLAINT_PAUSE = 60.0  # seconds between complaints about the event channel device


class Domain:
    """One introduced domain and what is held of it."""

    __slots__ = (
        "domid",
        "mfn",
        "remote_port",
        "port",
        "page",
        "transport",
        "connection",
        "unique_id",
        "expected",
        "unreadable",
        "owed",
    )

    def __init__(self, domid: int, mfn: int, remote_port: int) -> None:
        self.domid = domid
        self.mfn = mfn
        self.remote_port = remote_port
        self.port = 0  # the local one; 0: not bound
        self.page: Any = 0  # its address; 0: not mapped, only after a restart
        self.transport: Any = None
        self.connection: Any = None
        self.unique_id = 0  # 0: not known
        # Of a ring taken over at a restart and not mapped yet: its indices then.
        self.expected: tuple[int, int] | None = None
        self.unreadable = False  # it was said in the log that its state cannot be read
        # RingTransport.redo() with these is due when there is a page again.
        self.owed: tuple[bool, int, int] | None = None

    @property
    def indices(self) -> tuple[int, int] | None:
        """(req_cons, rsp_prod) of its ring; None where they are not known."""
        found: tuple[int, int] | None = self.transport.indices
        return self.expected if found is None else found


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
        self.unasked: set[int] = set()  # domids to ask about at the next interrupt
        self.closed: set[int] = set()  # domids whose page or port could not be had at a restart
        # Of the unasked, those for look_next(); an image does not say it.
        self.next: dict[int, None] = {}
        self.complained_at = -COMPLAINT_PAUSE

    # -- beginning ------------------------------------------------------------

    def start(self) -> None:
        """Asks to be told of domains that change state; XenError.

        To be called before the first domain is taken over: Xen tells whoever
        binds the interrupt of all domains that are there, not of the dead.
        """
        self.server.journal.note(INTERRUPT, 0, 1)
        self.virq_port = self.xen.bind_virq()

    def leave_interrupt(self) -> None:
        """Another program is to be told instead, which binds it; XenError."""
        self.server.journal.note(INTERRUPT, 0, 0)
        self.xen.unbind(self.virq_port)
        self.virq_port = 0

    def start_domain0(
        self,
        page_file: str,
        port_file: str,
        connection: Any = None,
        expected: tuple[int, int] | None = None,
    ) -> None:
        """Connects domain 0's own ring; OSError or ValueError where it cannot be.

        connection: the one that an image has of it, and expected the indices of then.
        """
        # Of a FIFO nothing is waited for: a host boots.
        fd = os.open(port_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(fd, 64).strip()
        finally:
            os.close(fd)
        if not text.isdigit() or not 0 < int(text) <= PORT_MAX:
            raise ValueError(f"{port_file}: not a port number: {text[:32]!r}")
        domain = Domain(0, 0, int(text))
        if connection is not None:
            domain.connection, domain.transport = connection, connection.transport
        self._open(domain, self.xen.map_file(page_file))
        if connection is None:
            self._connect(domain)
        else:
            domain.expected = expected
            self._enter(domain)
            self._compare(domain)
        # The kernel may have asked before anybody listened.
        self.xen.channels.kick(domain.port)
        self.server.serve_later(domain.connection)

    def restore(self, domid: int, mfn: int, remote_port: int, ring: Ring | None) -> bool:
        """Takes over a domain of a state file; False where it is dead, or where another domain
        has its domid: then nothing is kept of it.

        A page or a port that cannot be had is no sign of death: the domain is connected
        without them, and they are tried again with each ring_scan and each interrupt.
        """
        if domid in self.table:
            return True
        if self.xen is None:
            self.log("error", "domain", f"domain {domid} is not served: Xen is missing")
            return True
        domain = Domain(domid, mfn, remote_port)
        if not self._is_still(domain, 0 if ring is None else ring.unique_id):
            return False
        self._connect(domain)
        self.closed.add(domid)
        self.restore_ring(domid, ring)
        return True

    def restore_known(self, row: Row, connection: Any) -> bool:
        """The same for a domain of an image, whose connection the server has already."""
        domain = Domain(row.domid, row.mfn, row.remote_port)
        if not self._is_still(domain, row.unique_id):
            return False
        domain.connection, domain.transport = connection, connection.transport
        domain.expected = row.indices
        self._enter(domain)
        self.closed.add(row.domid)
        if row.down:
            self.down.add(row.domid)
        self._open_again(domain)
        return True

    def _is_still(self, domain: Domain, unique_id: int) -> bool:
        """Does the domain of a state file, which had that unique id (0: not known), still live?
        It gets the one that Xen tells."""
        state = self._state(domain)
        if state is None:
            domain.unique_id = unique_id
            return True
        domain.unique_id = state[2]
        return state[0] not in (UNKNOWN, DEAD) and (
            not unique_id or not state[2] or unique_id == state[2]
        )

    def keep(self, domid: int, mfn: int) -> None:
        """Connects a domain that cannot be served: its port is not known until it is introduced
        anew."""
        self._connect(Domain(domid, mfn, 0))
        self.closed.add(domid)

    def restore_ring(self, domid: int, ring: Ring | None) -> None:
        """Gives a connection what its predecessor held of the stream, where the ring's indices
        say that nobody has moved them since, and opens the ring."""
        domain = self.table.get(domid)
        if domain is None:
            return
        if ring is not None:
            domain.expected = (ring.req_cons, ring.rsp_prod)
            try:
                self.server.restore_stream(domain.connection, ring.input, ring.output, ring.torn)
            except (ValueError, OverflowError) as error:
                self.log("warn", "domain", f"domain {domid}: stream not restored: {error}")
        if domid in self.closed:
            self._open_again(domain)
        else:
            self._compare(domain)

    def _compare(self, domain: Domain) -> None:
        """Drops the stream of another life of the ring."""
        expected, domain.expected = domain.expected, None
        if expected is None or self.xen.indices(domain.transport) == expected:
            return
        self.log(
            "warn",
            "domain",
            f"domain {domain.domid}: its ring was used since the state was "
            "written; what was under way then is dropped",
        )
        self.server.drop_stream(domain.connection)

    # -- another process goes on ----------------------------------------------

    def take_over(self, domid: int, mfn: int, remote_port: int, port: int, unique_id: int) -> Any:
        """Connects a domain that another xenstored has served until now; its connection.

        port is bound already, on the event channel device that it has left.  The page is mapped
        later.
        """
        domain = Domain(domid, mfn, remote_port)
        domain.unique_id, domain.port = unique_id, port
        domain.transport = RingTransport(0, self.xen.channels, port)
        self._connect(domain)
        return domain.connection

    def transports(self, rows: list[Row]) -> dict[int, Any]:
        """The transports of the rings of an image, by domid; nothing is mapped yet."""
        return {row.domid: RingTransport(0, self.xen.channels, row.port) for row in rows}

    def adopt(self, rows: list[Row], connections: dict[int, Any]) -> None:
        """Takes the domains of an image over from a process that has served them until now.

        connections: the server's, by domid; ValueError where they are not those of the rows.
        Ports are bound already, on the event channel device that came from that process.  Pages are
        mapped later.
        """
        if {row.domid for row in rows} != set(connections):
            raise ValueError("the domains are not those of the rings")
        for row in rows:
            domain = Domain(row.domid, row.mfn, row.remote_port)
            domain.unique_id, domain.port = row.unique_id, row.port
            domain.expected = row.indices
            domain.connection = connections[row.domid]
            domain.transport = domain.connection.transport
            self._enter(domain)
            for member, group in (
                (row.closed, self.closed),
                (row.down, self.down),
                (row.unasked, self.unasked),
            ):
                (group.add if member else group.discard)(row.domid)

    def map_taken_over(self, page_file: str, alone: bool = False) -> None:
        """Maps the pages of all domains that were taken over, and changes nothing in them.

        OSError where domain 0's, which page_file has, cannot be mapped, unless nobody else can go
        on (`alone`).  A domain whose page cannot be had is tried again with each interrupt: it
        may have died a moment ago.
        """
        for domain in self.table.values():
            if domain.domid in self.closed:
                continue
            try:
                domain.page = (
                    self.xen.map_page(domain.domid)
                    if domain.domid
                    else self.xen.map_file(page_file)
                )
            except OSError as error:
                if domain.domid == 0 and not alone:
                    raise
                self.log(
                    "error",
                    "domain",
                    f"domain {domain.domid} is not served for now: {error.strerror}",
                )
                self.closed.add(domain.domid)
                continue
            domain.transport.attach(domain.page, domain.port)
            domain.expected = None

    def go_on(self) -> None:
        """From now on this process serves the domains that were taken over: looks at each ring,
        since who was told of its last kick is not known, and lets all ports fire."""
        self.xen.unmask([*self.by_port, self.virq_port] if self.virq_port else [*self.by_port])
        for domain in self.table.values():
            domain.transport.advertise(FEATURES)
            self.server.serve_later(domain.connection)

    def identify(self) -> None:
        """Asks for the unique ids of domains that were taken over without them: those that live
        now are meant."""
        for domain in self.table.values():
            if domain.domid and not domain.unique_id:
                state = self._state(domain)
                domain.unique_id = state[2] if state is not None else 0

    # -- requests -------------------------------------------------------------

    def introduce(self, connection: Any, domid: int, mfn: int, port: int) -> None:
        """INTRODUCE: maps the page, binds the port, connects; RequestError."""
        known = self.table.get(domid)
        if known is not None and connection is not known.connection and self._is_another(known):
            # Its death was not told yet, and the domid is in use again.
            self._bury([domid], [domid])
            known = None
        if known is not None:
            self._introduce_again(known, connection, mfn, port)
            return
        if not 0 < domid < DOMID_FIRST_RESERVED or not 0 < port <= PORT_MAX:
            raise RequestError("EINVAL")
        domain = Domain(domid, mfn, port)
        if self.xen is None:
            self.log("error", "domain", f"domain {domid} cannot be introduced: Xen is missing")
            raise RequestError("EINVAL")
        try:
            self._open(domain, self.xen.map_page(domid))
        except OSError as error:
            self._refused(domid, error)
        # Asked now that its page is held: a domain that dies later raises the interrupt.
        state = self._state(domain)
        if state is not None:
            if state[0] in (UNKNOWN, DEAD):
                self._close(domain)
                self.log("error", "domain", f"domain {domid} cannot be introduced: it is dead")
                raise RequestError("EINVAL")
            domain.unique_id = state[2]
        self._connect(domain)
        self.server.fire_special(INTRODUCED, [domid], connection)

    def _refused(self, domid: int, error: OSError) -> None:
        self.log("error", "domain", f"domain {domid} cannot be introduced: {error.strerror}")
        raise RequestError("EINVAL")

    def _open(self, domain: Domain, page: Any) -> None:
        """Binds the port of a domain whose page was just mapped, and gives both to its
        transport; on failure (OSError) the page is unmapped."""
        domain.page = page
        try:
            domain.port = self.xen.bind(domain.domid, domain.remote_port)
        except OSError:
            self._unmap(domain)
            raise
        if domain.transport is None:
            domain.transport = RingTransport(page, self.xen.channels, domain.port)
        else:
            domain.transport.attach(page, domain.port)
        domain.transport.advertise(FEATURES)
        self.log(
            "debug",
            "domain",
            f"domain {domain.domid} bind (l {domain.port}, r {domain.remote_port})",
        )

    def _connect(self, domain: Domain) -> None:
        """Lets a domain take part, with its ring or, after a restart, without."""
        if domain.transport is None:
            domain.transport = RingTransport(0, self.xen.channels)
        domain.connection = self.server.connect(domain.transport, domain.domid)
        domain.connection.features = FEATURES
        self._enter(domain)

    def _enter(self, domain: Domain) -> None:
        """Keeps a domain that is connected."""
        self.table[domain.domid] = domain
        if domain.port:
            self.by_port[domain.port] = domain.connection
        if domain.domid:
            self.unasked.add(domain.domid)

    def _introduce_again(self, domain: Domain, connection: Any, mfn: int, port: int) -> None:
        """A connected domain: by another connection its port is bound anew."""
        if mfn != domain.mfn and domain.mfn != MFN_UNKNOWN:
            raise RequestError("EINVAL")
        if connection is domain.connection:
            if port != domain.remote_port:
                raise RequestError("EINVAL")
            return
        if not 0 < port <= PORT_MAX:
            raise RequestError("EINVAL")
        try:
            if domain.domid in self.closed:
                self._reopen(domain, port)
            else:
                self._bind_anew(domain, port)
        except OSError as error:
            self._refused(domain.domid, error)
        domain.mfn = mfn
        domain.remote_port = port
        self.log("debug", "domain", f"domain {domain.domid} bind (l {domain.port}, r {port})")
        # Whatever it wrote while nobody listened, once this request is done.
        self.server.serve_later(domain.connection)

    def _bind_anew(self, domain: Domain, port: int) -> None:
        """Takes another port of a domain that is served; OSError, and it keeps the one it has."""
        if port == domain.remote_port:
            # It can be bound once, so the old end of it goes first.
            self._unbind(domain)
        bound = self.xen.bind(domain.domid, port)
        self._unbind(domain)
        domain.port = domain.transport.port = bound
        self.by_port[bound] = domain.connection

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

    # -- rings that could not be opened at a restart, or behind a death ---------

    def shut(self, domain: Domain) -> None:
        """A process that goes on for another one cannot have the page for now: nothing is read or
        written until it can be opened again."""
        self.server.journal.note(SHUT, domain.domid)
        domain.page = 0
        domain.transport.attach(0, domain.port)
        self.closed.add(domain.domid)

    def _reopen(self, domain: Domain, port: int) -> None:
        """Maps and binds what could not be had before; OSError, and the old port is tried again."""
        # One that was taken over without its page has a port, which can be bound once.
        self._unbind(domain)
        before, domain.remote_port = domain.remote_port, port
        try:
            self._open(domain, self.xen.map_page(domain.domid))
        except OSError:
            domain.remote_port = before
            raise
        owed, domain.owed = domain.owed, None
        if owed is not None:
            domain.transport.redo(*owed)
        self.closed.discard(domain.domid)
        self.by_port[domain.port] = domain.connection
        self._compare(domain)

    def _open_again(self, domain: Domain, complain: bool = True) -> None:
        """Tries once more, where its port is known."""
        if not domain.remote_port:
            return
        try:
            self._reopen(domain, domain.remote_port)
        except OSError as error:
            if complain:
                self.log(
                    "error",
                    "domain",
                    f"domain {domain.domid} is not served for now: {error.strerror}",
                )
            return
        self.server.serve_later(domain.connection)

    # -- shutdown and death ---------------------------------------------------

    def on_virq(self) -> None:
        """Some domain changed its state: finds out which, tells who watches."""
        for domid in sorted(self.closed):
            self._open_again(self.table[domid], complain=False)
        domids = self._to_ask()
        # Xen tells of a change once: whatever fails below, they are asked about again.
        self.unasked.update(domids)
        self.next.update(dict.fromkeys(domids[ASKED_AT_ONCE:]))
        self.unasked.difference_update(self._look(domids[:ASKED_AT_ONCE], True))

    def _to_ask(self) -> list[int]:
        """The introduced domains that may have changed, ascending."""
        try:
            changed = self.xen.changed()
        except OSError as error:
            self.log("error", "domain", f"changed domains: {error.strerror}")
            changed = None
        if changed is None:
            return [domid for domid in self.table if domid]
        return sorted(
            domid
            for domid in {*changed, *self.down, *self.unasked}
            if domid and domid in self.table
        )

    def _look(self, domids: Iterable[int], again: bool) -> list[int]:
        """Asks about domains, buries the dead and tells of them and of those that are shut down
        (of those that were so before only if `again`); the domids whose state was read."""
        dead: list[int] = []
        told: list[int] = []
        read: list[int] = []
        for domid in domids:
            domain = self.table[domid]
            state = self._state(domain)
            if state is None:
                continue
            read.append(domid)
            reused = domain.unique_id and state[2] not in (0, domain.unique_id)
            if state[0] in (UNKNOWN, DEAD) or reused:
                dead.append(domid)
                told.append(domid)
            elif state[0] == SHUTDOWN:
                if again or domid not in self.down:
                    told.append(domid)
                self.down.add(domid)
            else:
                self.down.discard(domid)
        if len(dead) > BURIED_AT_ONCE:
            late = set(dead[BURIED_AT_ONCE:])
            self.unasked |= late
            self.next.update(dict.fromkeys(sorted(late)))
            dead, told, read = ([d for d in found if d not in late] for found in (dead, told, read))
        self._bury(dead, told)
        return read

    def look_next(self) -> None:
        """Asks about some more of those for whom there was no time."""
        domids = list(self.next)[:ASKED_AT_ONCE]
        for domid in domids:
            del self.next[domid]
        self._look_now(domids, False)

    def look_for_dead(self, domids: list[int]) -> None:
        """Whoever was to bury some of these, which are unasked, has died.  They stay unasked: what
        Xen tells at the next interrupt may leave out one that is gone by then."""
        self._look_now(domids, True)

    def _look_now(self, domids: list[int], stay: bool) -> None:
        self.server.journal.note(LOOK, stay, 0, struct.pack(f"={len(domids)}I", *domids))
        self.look_again(domids, stay)

    def look_again(self, domids: Iterable[int], stay: bool) -> None:
        """Asks about domains, and buries the dead: now, or as a journal says."""
        read = self._look([domid for domid in domids if domid in self.table], not stay)
        if not stay:
            self.unasked.difference_update(read)

    def _state(self, domain: Domain) -> DomainState | None:
        """What Xen says of a domain; None (logged once) where it cannot be read."""
        try:
            state: DomainState = self.xen.state(domain.domid)
        except OSError as error:
            if not domain.unreadable:
                domain.unreadable = True
                self.log("error", "domain", f"state of domain {domain.domid}: {error.strerror}")
            return None
        domain.unreadable = False
        return state

    def _bury(self, dead: list[int], told: list[int]) -> None:
        """Forgets dead domains, and tells of them and of those that shut down."""
        if dead:
            self.log("info", "domain", "dead: " + " ".join(map(str, dead)))
            self._forget(dead)
        if told:
            self.server.fire_special(RELEASED, told)

    def _is_another(self, domain: Domain) -> bool:
        """Is the domain dead, or has its domid got a new domain since it was introduced?"""
        if domain.domid == 0 or self.xen is None:
            return False
        state = self._state(domain)
        if state is not None and state[0] in (UNKNOWN, DEAD):
            return True
        if state is not None and domain.unique_id and state[2]:
            return state[2] != domain.unique_id
        return self._has_another_page(domain)

    def _has_another_page(self, domain: Domain) -> bool:
        """Is the domid's page of now another one than the page that is mapped?"""
        if not domain.page:
            return False
        try:
            page = self.xen.map_page(domain.domid)
        except OSError:
            return False
        another = bool(
            self.xen.indices(RingTransport(page, self.xen.channels))
            != self.xen.indices(domain.transport)
        )
        self._unmap_page(domain.domid, page)
        return another

    def _forget(self, domids: Collection[int]) -> None:
        """Disconnects domains and cleans the store of them."""
        # First what may need much memory.  Where it runs out the domains are still known here, and
        # forgotten when somebody asks for them next; else the next ones of their domids would have
        # what is left of theirs.
        self.server.forget_domains(domids)
        for domid in domids:
            domain = self.table.pop(domid, None)
            if domain is not None:
                self.server.disconnect(domain.connection)
                self._close(domain)
            for group in (self.down, self.unasked, self.closed):
                group.discard(domid)

    # -- pages and ports ------------------------------------------------------

    def _close(self, domain: Domain) -> None:
        """Gives a domain's port and page back."""
        self._unbind(domain)
        domain.transport.close()
        self._unmap(domain)

    def _unbind(self, domain: Domain) -> None:
        # Xen gives the port to another domain at once: forget the number first.
        port, domain.port, domain.transport.port = domain.port, 0, 0
        if not port:
            return
        self.by_port.pop(port, None)
        try:
            self.xen.unbind(port)
        except OSError as error:
            self.log("error", "domain", f"domain {domain.domid}: {error.strerror}")

    def _unmap(self, domain: Domain) -> None:
        page, domain.page = domain.page, 0
        if page:
            self._unmap_page(domain.domid, page)

    def _unmap_page(self, domid: int, page: Any) -> None:
        try:
            self.xen.unmap(page)
        except OSError as error:
            self.log("error", "domain", f"domain {domid}: {error.strerror}")

    # -- every turn -----------------------------------------------------------

    def on_events(self) -> bool:
        """Serves the domains whose ports are pending; is there something for look_next()?"""
        channels = self.xen.channels
        try:
            others = self.server.on_ports(channels, self.by_port)
            if others is not None and self.virq_port in others:
                self.on_virq()
        except Exception as error:
            ports = channels.taken
            if ports or not isinstance(error, OSError):
                # Somebody's ring failed: those behind it must not be forgotten.
                self._serve_later(self.by_port[port] for port in ports if port in self.by_port)
                raise
            self._start_afresh(error)
        finally:
            # Whatever happened: a port that stays masked is never heard of again.
            channels.release()
        return bool(self.next)

    def _start_afresh(self, error: OSError) -> None:
        """The pending ports cannot be read: looks at all rings and asks about all domains.

        Linux refuses to be read (EFBIG), until it is told to empty its queue, once that has
        overflowed.  It has room for each bound port; a port that is unbound while it is
        pending leaves its entry behind, so a toolstack that introduces the same domains
        again and again within one turn can fill it.
        """
        now = time.monotonic()
        if now - self.complained_at >= COMPLAINT_PAUSE:
            self.complained_at = now
            self.log(
                "error", "domain", f"event channels: {error.strerror}; all rings are looked at"
            )
        ports = [*self.by_port, self.virq_port] if self.virq_port else list(self.by_port)
        try:
            self.xen.discard_events(ports)
        except OSError as failed:
            self.log("debug", "domain", f"event channels: {failed.strerror}")
        self._serve_later(self.by_port.values())
        self.on_virq()

    def _serve_later(self, connections: Iterable[Any]) -> None:
        for connection in connections:
            self.server.serve_later(connection)

    def scan(self) -> int:
        """Looks at all rings for work that nobody was told of; how many had some.

        Asks about domains whose state is not known, too, and tries to open the rings that
        could not be opened.
        """
        self.server.journal.note(SCAN)
        for domid in sorted(self.closed):
            self._open_again(self.table[domid], complain=False)
        self._look(sorted(self.unasked), False)
        found = 0
        for domain in list(self.table.values()):
            # Room for what is queued may have come without a kick, too.
            if self.xen.has_work(domain.transport) or domain.connection.has_output:
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
