# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running a recording again: a server that does once more what the recorded one did.

No Xen, no root, no clients: whatever was asked of them is answered by the journal.  The server,
the domains and the commands are those of the daemon; the turns are driven by the records
instead of by epoll.  What the daemon asks itself beside them (timers, logs, live update) is not
run again: where it reached the server there is a record.
"""

from __future__ import annotations

import struct
import traceback

from pyxsd import _journal
from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._ring import EventChannels, RingTransport
from pyxsd._wire import MemoryTransport
from pyxsd.control import Control
from pyxsd.domains import Domains
from pyxsd.host import Requests
from pyxsd.record import beginning
from pyxsd.record.host import PAGE_BYTES, Replayed, late_answer
from pyxsd.state import image
from pyxsd.system.configuration import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ReplayHost(Requests):
    """The server's and the commands' host (see host.Host), answered by the journal."""

    def __init__(self) -> None:
        super().__init__()
        self._log_is_on = False
        self.told: list[str] = []  # warnings and errors, as they stood in the daemon log

    def attach(self, server: Any, domains: Any, log_is_on: bool) -> None:
        """Whom requests go to."""
        self.server = server
        self.domains = domains
        self.commands = Control(server, Replayed(server.journal, server, self))
        self._log_is_on = log_is_on

    def log(self, level: str, facility: str, text: str) -> None:
        """Keeps what was worth a warning."""
        if level in ("warn", "error"):
            self.told.append(f"{level} {facility}: {text}")

    def complain(self, kind: str, text: str) -> None:
        """Keeps the text."""
        self.told.append(f"{kind}: {text}")

    def trim(self) -> None:
        """Nothing is freed."""

    def access_log(self, on: bool | None) -> bool:
        """Whether it was on; what is formatted here does not depend on it."""
        if on is not None:
            self._log_is_on = on
        return self._log_is_on


class Steps:
    """What comes of each record.  Whoever runs them has made the server, and the domains where
    there are any, and has given the journal to both."""

    server: Any
    domains: Any
    journal: Any

    def __init__(self) -> None:
        self.failures: list[str] = []  # exceptions in the daemon's own code
        self.clock = 0.0  # seconds since 1970 of the turn at hand

    def step(self) -> bool:
        """What came next from outside, and all that came of it; False at the end of the records,
        and where the journal has a fault."""
        kind = self.journal.next_kind
        if kind == 0:
            return False
        try:
            if kind == _journal.PORTS and self.domains is not None:
                # It takes the record itself.
                self.domains.on_events()
            elif kind == _journal.ANSWER:
                late_answer(self.journal, self.server)
            else:
                record = self.journal.expect(kind)
                if record is not None:
                    getattr(self, STEPS.get(kind, "_nonsense"))(*record)
        except Exception as error:
            self.failed(error)
        return self.journal.fault is None

    def failed(self, error: Exception) -> None:
        """An exception in the daemon's own code, which went on, too."""
        self.journal.met(error)
        if self.journal.fault is None:  # else that says what is wrong
            self.failures.append(
                "".join(traceback.format_exception(type(error), error, error.__traceback__))
            )

    # -- by kind of record ----------------------------------------------------

    def _nonsense(self, subject: int, _result: int, _payload: bytes) -> None:
        self.journal.differs("an answer that nobody has asked for")

    def _turn(self, subject: int, _result: int, payload: bytes) -> None:
        now = _journal.seconds(subject)
        wall = _journal.seconds(int.from_bytes(payload[:8], "little"))
        if self._is_time(now) and self._is_time(wall):
            self.clock = wall
            self.server.begin(wall, now)

    def _is_time(self, seconds: float) -> bool:
        if beginning.is_wall(seconds):
            return True
        self.journal.differs(f"a time of {seconds} seconds")
        return False

    def _connection(self, number: int) -> Any:
        found = self.server.connections.get(number)
        if found is None:
            self.journal.differs(f"there is no connection {number}")
        return found

    def _ready(self, subject: int, result: int, _payload: bytes) -> None:
        connection = self._connection(subject)
        if connection is not None:
            self.server.ready(connection, result != 0)

    def _serve(self, subject: int, result: int, _payload: bytes) -> None:
        connection = self._connection(subject)
        if connection is not None:
            (self.server.drain if result else self.server.service)(connection)

    def _work(self, subject: int, _result: int, _payload: bytes) -> None:
        self.server.work_again(subject)
        self._apply()

    def _apply(self) -> None:
        """As Loop does, without epoll."""
        for connection in self.server.take_changed():
            connection.registered = connection.interest

    def _connect(self, subject: int, result: int, _payload: bytes) -> None:
        number = self.server.connect(self._socket(result)).id
        if number != subject:
            self.journal.differs(f"connection {subject} has the number {number} now")

    def _socket(self, _descriptor: int) -> Any:
        """The transport of a socket that was accepted."""
        return MemoryTransport()

    def _disconnect(self, subject: int, _result: int, _payload: bytes) -> None:
        connection = self._connection(subject)
        if connection is not None:
            self.server.disconnect(connection)

    def _tick(self, subject: int, _result: int, _payload: bytes) -> None:
        now = _journal.seconds(subject)
        if self._is_time(now):
            self.server.tick(now)

    def _scan(self, _subject: int, _result: int, _payload: bytes) -> None:
        self.domains.scan()

    def _settle(self, _subject: int, _result: int, _payload: bytes) -> None:
        self.server.settle()

    def _hold(self, _subject: int, _result: int, _payload: bytes) -> None:
        self.server.hold_again()

    def _release(self, _subject: int, _result: int, _payload: bytes) -> None:
        self.server.release_again()

    def _hold_starts(self, _subject: int, result: int, _payload: bytes) -> None:
        self.server.hold_starts(result != 0)

    def _read_on(self, subject: int, result: int, _payload: bytes) -> None:
        connection = self._connection(subject)
        if connection is not None:
            self.server.read_on(connection, result)

    def _interrupt(self, _subject: int, result: int, _payload: bytes) -> None:
        try:
            if result:
                self.domains.start()
            else:
                self.domains.leave_interrupt()
        except OSError:
            pass  # it was told of then

    def _shut(self, subject: int, _result: int, _payload: bytes) -> None:
        domain = self.domains.table.get(subject)
        if domain is None:
            self.journal.differs(f"there is no domain {subject}")
        else:
            self.domains.shut(domain)

    def _look(self, subject: int, _result: int, payload: bytes) -> None:
        domids = [domid for (domid,) in struct.iter_unpack("=I", payload)]
        self.domains.look_again(domids, subject != 0)


class Replay(Steps):
    """One recording that is run again.

    data: its beginning; StateError where it makes no sense.  log: how requests are formatted.
    host: for tests that have no domains.
    """

    def __init__(self, data: bytes, log: AccessLog | None = None, host: Any = None) -> None:
        super().__init__()
        row = beginning.read(data)
        self.host = host or ReplayHost()
        self.server: Any = Server(Config(**row["config"]), self.host, log or AccessLog())
        self.journal = self.server.journal
        self.journal.without_values = not row["config"]["record_values"]
        self.domains: Any = None
        self.server.log.switch(False)  # nobody connects anew
        image.load(image.read(row["image"]), self.server, None, self._transport)
        for number, count in row["refused"]:
            self.server.connections[number].refused = count
        if host is None:
            self._add_domains(row)
        self.server.log.switch(True)
        self._apply()

    def _transport(self, _number: int, domid: int | None) -> Any:
        if domid is None:
            return MemoryTransport()
        return RingTransport(0, EventChannels())

    def _add_domains(self, row: dict[str, Any]) -> None:
        xen = Replayed(self.journal, self.server) if row["xen"] else None
        self.domains = Domains(self.server, xen, self.host.log)
        self.host.attach(self.server, self.domains, row["log"])
        beginning.restore_domains(row, self.domains, bytearray(PAGE_BYTES))

    def feed(self, data: bytes, before: int = 0) -> None:
        """The next records, behind `before` bytes of the journal; ValueError where the last one
        is cut."""
        self.journal.replay(data, before)
        self.server.follow_journal()

    @property
    def fault(self) -> str | None:
        """Where the journal had another record than was asked for, or None."""
        found: str | None = self.journal.fault
        return found

    @property
    def is_short(self) -> bool:
        """Is that all that is wrong, that the records have ended within a turn?"""
        return bool(self.journal.is_short)

    def end_behind(self, request: int) -> None:
        """Behind that request, counted from the daemon's start, none is served."""
        self.journal.last = request

    @property
    def next_request(self) -> str:
        """The first one that was not served for that; empty where there was none."""
        return self.journal.stopped or ""

    @property
    def requests(self) -> int:
        """Requests that were served since the daemon's start."""
        return int(self.server.ops)


#: By the kind of a record: the method that does what comes of it.
STEPS = {
    _journal.TURN: "_turn",
    _journal.READY: "_ready",
    _journal.SERVE: "_serve",
    _journal.WORK: "_work",
    _journal.CONNECT: "_connect",
    _journal.DISCONNECT: "_disconnect",
    _journal.TICK: "_tick",
    _journal.SCAN: "_scan",
    _journal.SETTLE: "_settle",
    _journal.HOLD: "_hold",
    _journal.RELEASE: "_release",
    _journal.HOLD_STARTS: "_hold_starts",
    _journal.READ_ON: "_read_on",
    _journal.INTERRUPT: "_interrupt",
    _journal.SHUT: "_shut",
    _journal.LOOK: "_look",
}
