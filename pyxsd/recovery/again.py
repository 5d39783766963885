# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon that goes on where another process has died.

It is made of the image in memory, and of the descriptors, which are open under their own numbers.
Then the journal since the image is run again: the server does once more what it did, and whatever
came from outside comes from the records.  Where they end, be it within a request, it comes from
outside and is recorded (Journal.resume), so the daemon goes on within the very call in which the
other process died.  Until then nothing is asked of the host, but for pages, which are mapped, and
nothing is told to anybody.

What the process before may have done and not written down:

    bytes moved          the record is completed, see _journal.pyx
    an index of a ring   stored again
    a kick               every port is kicked once
    ports taken          all ports are unmasked, every ring is looked at once; all domains, where
                         ports had been asked for
    a call of the host   made again, see host.py
    a socket accepted    found among the descriptors: connected, at our address, and named by no
                         record
    a socket closed      closed; nothing is accepted between a connection's end and that
    everything else      what nobody names is closed

A page that cannot be mapped although the domain lives is tried again a few times at once.  Where
that is in vain, its guest waits: nothing is read or written, until one of the later attempts
succeeds, which are farther and farther apart, and at last as far as scans of all rings.
"""

from __future__ import annotations

import time

from pyxsd import _journal
from pyxsd._memory import MemoryFault
from pyxsd._siphash import use_key
from pyxsd._sock import SocketTransport
from pyxsd.domains import ASKED_AT_ONCE
from pyxsd.record.host import FIRST_OF_COMMANDS
from pyxsd.record.replay import Steps
from pyxsd.recovery import beside, found
from pyxsd.recovery.begin import Protection
from pyxsd.recovery.host import NoPage, page_or_none
from pyxsd.state import image, surroundings
from pyxsd.state.errors import StateError
from pyxsd.system.daemon_log import open_daemon_log
from pyxsd.system.pid_file import PidFile
from pyxsd.update import arrival
from pyxsd.xen import DEAD, UNKNOWN, Xen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd._memory import Memory
    from pyxsd.system.configuration import Config
    from pyxsd.system.options import Options

PORTS_AT_ONCE = 1024
#: Seconds, in all, in which nobody is served for want of a page.
MAP_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016)
#: Seconds between attempts to open rings whose page could not be had; then come the scans.
OPEN_SECONDS = (0.05, 0.2, 1.0, 3.0, 10.0)
#: Between two pieces of the domains that may have died meanwhile.
LOOK_SECONDS = 0.001
ANSWER_MAX = 4096  # bytes, of a payload


class Again(Steps):
    """A daemon in the making; see build()."""

    def __init__(
        self, config: Config, parsed: Options, memory: Memory, assemble: Any, refused: str
    ) -> None:
        super().__init__()
        self._refused = refused
        self._began = time.monotonic()
        self._config = config
        self._memory = memory
        # First of all: what is opened from now on is this process's own.
        self._found = found.opened()
        memory.lock()
        self._cause = memory.watch_causes()
        self._records = self._read()
        around, self._rows = surroundings.read(self._records)
        self._around: Any = around
        self._close_what_was_left()
        self._log = open_daemon_log(config)
        if around.log_file:
            self._log.go_on_in(around.log_file)
        xen = None
        if around.channels >= 0:
            xen = Xen()
            xen.open_pages_and_states()
            xen.adopt_channels(around.channels)
        self._xen = xen
        self.daemon = assemble(config, parsed, around.listener, self._log, xen)
        self.daemon.pid_files = [PidFile.adopt(path, fd) for path, fd in around.pid_files]
        self.server, self.domains = self.daemon.server, self.daemon.domains
        self.journal = self.server.journal
        self.journal.without_values = not config.record_values
        self.journal.expendable = True
        self.protection = Protection(self.daemon, memory)
        self._lines = b""  # of the access log, that are still to be written
        self._formatted = 0  # bytes of it since the image
        self._newcomers: list[int] = []
        self._under_way: Any = None
        self._replayed = 0.0  # processor time that the records took

    def _read(self) -> list[Any]:
        records = beside.read(self._memory.image())
        use_key(image.hash_key(records))
        return records

    # -- building -------------------------------------------------------------------

    def build(self) -> Any:
        """The daemon; StateError or OSError."""
        self._load()
        self.protection.install()
        self._make_quiet()
        self._under_way = self.journal.again(
            self._memory, self._resumed, self.protection.is_full, self._cause
        )
        self.server.follow_journal()
        begun = time.process_time()
        while self.step():
            pass
        self._replayed = time.process_time() - begun
        self.journal.go_on_from_here()
        # One that has ended for want of memory or room, when all was run again, is no reason not to
        # serve.
        if self.journal.fault is not None and (
            self.journal.is_replaying or self.journal.is_recording
        ):
            raise StateError(f"the journal cannot be run again: {self.journal.fault}")
        self._go_on()
        return self.daemon

    def _load(self) -> None:
        server, domains, around = self.server, self.domains, self._around
        domains.virq_port = around.virq_port
        rings = domains.transports(self._rows)
        sockets = dict(around.sockets)

        def transport_of(number: int, domid: int | None) -> Any:
            if domid is not None:
                return arrival.ring_of(rings, domid)
            return self._socket(sockets.get(number, -1))

        server.log.switch(False)  # nobody connects anew
        image.load(self._records, server, None, transport_of)
        arrival.adopt(domains, self._rows, around)
        beside.restore(self._records, server, domains)
        del self._records
        pauses = list(MAP_PAUSES)
        for domain in domains.table.values():
            if domain.domid in domains.closed:
                continue
            while True:
                domain.page = (
                    page_or_none(self._xen, "map_page", domain.domid)
                    if domain.domid
                    else page_or_none(self._xen, "map_file", self._config.xenstored_kva)
                )
                if not (pauses and is_missing(domain) and self._lives(domain.domid)):
                    break
                time.sleep(pauses.pop(0))
            domain.transport.attach(domain.page, domain.port)
        server.log.switch(around.access_log)

    def _lives(self, domid: int) -> bool:
        try:
            return self._xen is not None and self._xen.state(domid)[0] not in (UNKNOWN, DEAD)
        except OSError:
            return True  # nobody knows

    def _socket(self, descriptor: int) -> Any:
        # One that has gone reads as closed.
        return SocketTransport(descriptor if descriptor in self._found else -1, True)

    def _make_quiet(self) -> None:
        """What is done once more was told in the log."""
        host, domains, journal, log = self.server.host, self.domains, self.journal, self._log

        def quietly(tell: Callable[..., None]) -> Callable[..., None]:
            def told(*arguments: Any) -> None:
                if not journal.is_replaying:
                    tell(*arguments)

            return told

        host.log, host.complain = quietly(log.log), quietly(log.limited)
        domains.log = quietly(log.log)

    def step(self) -> bool:
        """As in a replay, many turns at once."""
        try:
            self.server.run_again()
        except Exception as error:
            self.failed(error)
        return super().step()

    # -- by kind of record, where this differs from a replay --------------------------

    def _turn(self, subject: int, result: int, payload: bytes) -> None:
        # The other process had closed whoever was to be closed in the turn before.
        for connection in self.server.take_changed():
            close_ended(connection)
            connection.registered = connection.interest
        self._take_lines()
        super()._turn(subject, result, payload)

    def _apply(self) -> None:
        """Nothing: see _turn()."""

    def _take_lines(self) -> None:
        data, _ = self.server.log.take()
        written = self._memory.logged - self._formatted
        self._formatted += len(data)
        if written < len(data):
            self._lines += data[max(written, 0) :]

    # -- where the records end -----------------------------------------------------------

    def _resumed(self) -> None:
        """Called within whatever was under way; from now on all is real."""
        self._take_lines()
        for domain in self.domains.table.values():
            if is_missing(domain):
                # What is moved there would be lost.
                domain.transport.attach(0, domain.port)
        kept = self.domains.xen
        if self._under_way is not None:
            kind, subject, index, count = self._under_way
            if kind == _journal.HOST:
                seam = kept if subject < FIRST_OF_COMMANDS else self.server.host.commands.host
                if seam is not None:
                    seam.doubt(subject)
            elif count:
                store_again(self.server, self.domains, kind, subject, index, count)
        if self.journal.has_refused and self._xen is not None:
            # What the request had bound is bound to nothing.
            self._xen.unbind_unknown(set(self.protection.ports()), 0)
        self._close_others()
        for connection in self.server.domains.values():
            if connection.bad:
                connection.transport.fail_again()

    def _named(self) -> set[int]:
        """The descriptors that go on, but for those of clients."""
        around = self._around
        named = set(self._memory.kept) | {around.listener, around.channels}
        return named | {fd for _, fd in around.pid_files}

    def _close_what_was_left(self) -> None:
        """All that nobody names and that is not a client's: each process that is killed while it
        comes back would take as many descriptors again."""
        unnamed = self._found - self._named() - {fd for _, fd in self._around.sockets}
        left = {fd for fd in unnamed if not found.is_socket(fd)}
        found.close(left)
        self._found -= left

    def _close_others(self) -> None:
        """All descriptors that nobody names; those of clients that nobody knows are noted."""
        named = self._named()
        for connection in self.server.connections.values():
            if connection.is_socket:
                connection.transport.inner.own()
                named.add(connection.transport.fileno())
        mine = {close_ended(connection) for connection in self.server.take_changed()}
        address = found.address_of(self._around.listener)
        others = self._found - named
        self._newcomers = [fd for fd in sorted(others - mine) if found.is_accepted(fd, address)]
        found.close(others - set(self._newcomers))

    def _go_on(self) -> None:
        """Between two turns, behind what was under way."""
        daemon, server = self.daemon, self.server
        for connection in server.take_changed():
            close_ended(connection)
        for connection in server.connections.values():
            connection.registered = connection.interest
            if connection.is_socket:
                daemon.loop.attach(connection)
        # The process before a live update may still have its copies of them.
        daemon.share()
        for fd in self._newcomers:
            daemon.loop.adopt(fd)
        if self._lines:
            daemon.access_log.write(self._lines, self._lines.count(b"\n"))
            self._memory.note_logged(len(self._lines))
        daemon.protection = self.protection
        for connection in list(server.connections.values()):
            if connection.awaits:
                # Who was to find the answer is not there any more.
                server.answer(
                    connection,
                    self._refused.encode("utf-8", "surrogateescape")[:ANSWER_MAX]
                    or b"the process that was asked has died\0",
                )
        self._look_at_rings()
        if self._xen is not None and self.domains.unasked:
            self._look_for_dead(sorted(self.domains.unasked))
        self._shut_missing()
        self.protection.go_on(self._replayed)
        if self._xen is not None:
            daemon.watch_event_channels()
        for text in self.failures:
            server.host.complain("loop", "unexpected:\n" + text)
        daemon.log(
            "info",
            f"{_end_in_words(self._refused, self._cause)}; another one has gone on "
            f"after {(time.monotonic() - self._began) * 1000:.1f} ms, with "
            f"{self.journal.offset} bytes of journal",
        )

    def _look_for_dead(self, domids: list[int]) -> None:
        """In pieces, between later turns: nobody waits until all of them are asked about."""

        def look() -> None:
            # The next piece first: whatever fails here, those are asked about.
            if len(domids) > ASKED_AT_ONCE:
                self._look_for_dead(domids[ASKED_AT_ONCE:])
            self.domains.look_for_dead(domids[:ASKED_AT_ONCE])

        self.daemon.after(LOOK_SECONDS, look)

    def _shut_missing(self) -> None:
        missing = [domain for domain in self.domains.table.values() if is_missing(domain)]
        for domain in missing:
            if not self._lives(domain.domid):
                continue  # it is buried in a moment
            if domain.domid:
                self.domains.shut(domain)
            self._log.error(
                "domain",
                f"domain {domain.domid} is not served for now: its page cannot be mapped again",
            )
        if self.domains.closed:
            self._open_later(0)

    def _open_later(self, tries: int) -> None:
        domains = self.domains

        def attempt() -> None:
            before = set(domains.closed)
            domains.scan()
            for domid in sorted(before - domains.closed):
                self._log.info("domain", f"domain {domid} is served again")
            if domains.closed and tries + 1 < len(OPEN_SECONDS):
                self._open_later(tries + 1)

        self.daemon.after(OPEN_SECONDS[tries], attempt)

    def _look_at_rings(self) -> None:
        domains = self.domains
        if self._xen is None:
            return
        ports = list(domains.by_port)
        for port in ports:
            self._xen.channels.kick(port)
        if self._under_way is not None and self._under_way[0] == _journal.PORTS:
            # Nobody knows which were taken.
            ports.append(domains.virq_port)
        bound = self.protection.ports()
        self._xen.unmask([port for port in bound if port])
        for at in range(0, len(ports), PORTS_AT_ONCE):
            self._xen.channels.suppose(self.journal, ports[at : at + PORTS_AT_ONCE])
            try:
                domains.on_events()
            except Exception as error:
                self.failed(error)


def close_ended(connection: Any) -> int:
    """Closes the socket of a connection that has ended: the descriptor it had; -1 for others."""
    if not (connection.closed and connection.is_socket):
        return -1
    descriptor = int(connection.transport.fileno())
    connection.transport.close()
    return descriptor


def is_missing(domain: Any) -> bool:
    """Has it a page of this process in place of its own?"""
    return isinstance(domain.page, NoPage)


def store_again(server: Any, domains: Any, kind: int, subject: int, index: int, count: int) -> None:
    """Makes sure that the index of a ring is stored which says that `count` bytes have moved."""
    domid = subject & 0xFFFF
    ring, domain = server.domains.get(domid), domains.table.get(domid)
    owed = (kind == _journal.READ, index, count)
    if domain is not None and is_missing(domain):
        domain.owed = owed
    elif ring is not None:
        ring.transport.inner.redo(*owed)


def cause_text(cause: int) -> str:
    """What a process died of."""
    return f"signal {cause}" if cause > 0 else "an exit" if cause < 0 else "it was killed"


def _end_in_words(refused: str, cause: int) -> str:
    if refused:
        return "a process of this daemon has ended for a program that was not executed"
    return f"a process of this daemon has died ({cause_text(cause)})"


def build(config: Config, parsed: Options, memory: Memory, assemble: Any, refused: str = "") -> Any:
    """The daemon that goes on from the memory; StateError or OSError where that cannot be, and
    nothing is changed then.

    To be called in a process that shares its descriptors with the one that has died.  assemble:
    makes the parts of a daemon (start.assembly).  refused: the process has not died, it had ended
    for another program, and this is why that was not executed.
    """
    try:
        return Again(config, parsed, memory, assemble, refused).build()
    except MemoryFault as error:
        raise StateError(str(error)) from None
