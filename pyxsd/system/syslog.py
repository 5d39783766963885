# SPDX-License-Identifier: LGPL-2.1-or-later
"""A log that is syslog's local socket."""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import os
import select
import time

from pyxsd.system.configuration import FACILITIES, SYSLOG_PREFIX
from pyxsd.system.log import RETRY_SECONDS, Log, silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# How long the daemon may wait for a full syslog queue, in any second; then lines are lost.  The
# queue holds some ten datagrams, and a guest decides how many lines there are.
SYSLOG_WAIT_MS = 20

SYSLOG_SOCKET = "/dev/log"
_SEVERITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# A line of the access log begins with `[20261122T12:00:54.870Z] `; syslog has its own date.
_DATE_LENGTH = 25

# oxenstored's severities of access log lines; the operations that are not named are `info`.
_ACCESS_SEVERITIES = {b"error": "warn"}
_ACCESS_SEVERITIES.update(
    dict.fromkeys((b"coalesce", b"conflict", b"commit", b"newconn", b"endconn", b"t"), "debug")
)


class SyslogLog(Log):
    """syslog's local socket, one datagram a line.

    Waits for its queue at most SYSLOG_WAIT_MS in a second, for all lines together.  When that
    time is used up, and at any other failure, the lines of the next second are lost.
    """

    def __init__(
        self,
        facility: str,
        *,
        name: str = "log",
        ident: str = "pyxsd",
        path: str = "",
        complain: Callable[[str], None] = silence,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = f"{name} {SYSLOG_PREFIX}{facility}"
        self._facility = FACILITIES[facility] << 3
        self._ident = ident
        self._path = path or SYSLOG_SOCKET
        self._complain = complain
        self._clock = clock
        self._socket: _socket.socket | None = None
        self._retry_at = 0.0
        self._patience = 0.0  # seconds that may still be waited before `_patience_until`
        self._patience_until = 0.0
        self._lost_now = 0
        self.working = True

    def write(self, block: bytes, lines: int, severity: str = "") -> None:
        rows = block.split(b"\n")[:-1]
        if not self.working and self._clock() < self._retry_at:
            self._lose(len(rows))
            return
        for index, row in enumerate(rows):
            if severity:
                message = self._header(severity) + row
            else:
                undated = row[_DATE_LENGTH:]
                message = self._header(_access_severity(undated)) + undated
            failure = self._send(message)
            if failure is not None:
                self._lose(len(rows) - index)
                self._retry_at = self._clock() + RETRY_SECONDS
                if self.working:
                    self.working = False
                    self._complain(f"{self._label}: {failure.strerror}; lines are lost")
                return
        if not self.working:
            self.working = True
            lost, self._lost_now = self._lost_now, 0
            self._complain(f"{self._label}: written again, {lost} lines were lost")

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._lost_now += lines

    def _header(self, severity: str) -> bytes:
        now = time.localtime()
        date = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)}"
        code = self._facility | _SEVERITIES[severity]
        return f"<{code}>{date} {self._ident}[{os.getpid()}]: ".encode()

    def _send(self, message: bytes) -> OSError | None:
        failure: OSError | None = None
        for _attempt in range(2):  # the second is for a syslog daemon that was restarted
            try:
                if self._socket is None:
                    self._connect()
                return self._send_patiently(message)
            except OSError as error:
                failure = error
                self.close()
        return failure

    def _connect(self) -> None:
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        new = _socket.socket(_socket.AF_UNIX, kind)
        try:
            new.connect(self._path)
        except OSError:
            new.close()
            raise
        self._socket = new

    def _send_patiently(self, message: bytes) -> OSError | None:
        assert self._socket is not None
        try:
            self._socket.send(message)
        except BlockingIOError:
            self._wait(self._socket.fileno())
            try:
                self._socket.send(message)
            except BlockingIOError as full:
                return full
        return None

    def _wait(self, fd: int) -> None:
        """Until the queue has room, or what is left of SYSLOG_WAIT_MS in this second is over."""
        began = self._clock()
        if began >= self._patience_until:
            self._patience = SYSLOG_WAIT_MS / 1000
            self._patience_until = began + 1.0
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        poller.poll(self._patience * 1000)
        self._patience = max(self._patience - (self._clock() - began), 0.0)


def _access_severity(row: bytes) -> str:
    """The severity of an access log line without its date: ` <connection> <label> <data>`."""
    _first, _, rest = row.lstrip(b" ").partition(b" ")
    if rest.startswith(b"(ANON CONN #"):
        _first, _, rest = rest.partition(b")")
        _first, _, rest = rest.partition(b" ")
    words = rest.split(None, 1)
    return _ACCESS_SEVERITIES.get(words[0], "info") if words else "info"
