# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where log lines go: rotating files and syslog, for the access log and the daemon log.

What lives here: the destinations (`Log`, `LogFile`, `SyslogLog`), the daemon log's levels and
line format, and the factories that read a `Config`.  The access log's lines come from the core
as blocks of whole lines, formatted and cut already.

A log never ends the daemon and never makes it wait: files are opened non-blocking, a failed
destination is tried again at most once in RETRY_SECONDS, and what could not be written is
counted in `lost`.  A failure and its end are each told once through `complain`.
"""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import errno
import os
import select
import stat
import time

from pyxsd.system.configuration import FACILITIES, LEVELS, SYSLOG_PREFIX, Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_LINE = "Xen Storage Daemon, version 1.0"

RETRY_SECONDS = 1.0

# How long one write may wait for a full syslog queue before its lines count as lost.
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

_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CONTROL_CHARACTERS = {c: f"\\{c:03d}" for c in (*range(32), 127)}


def _silence(_text: str) -> None:
    """The `complain` of a log that nobody listens to."""


class Log:
    """A destination.  This one is no log at all: what is written to it is not wanted."""

    lost: int = 0  # lines that could not be written, since the start
    working: bool = False  # whether lines written now can be expected to arrive

    def write(self, block: bytes, lines: int, severity: str = "") -> None:
        """Write `block`, which is `lines` whole lines with their newlines.

        `severity` (debug, info, warn, error) is syslog's; without it the lines are the access
        log's and each tells its own.
        """

    def reopen(self) -> None:
        """Close and open by name again (SIGHUP): whoever moved the file gets a new one."""

    def close(self) -> None:
        """Close; what is written later is lost."""


class LogFile(Log):
    """A file that is rotated by its count of lines.

    `path` is renamed to `path.1`, that to `path.2` and so on, `nb_files` files in all (at least
    1), as soon as more than `nb_lines` lines were written since the start or the last rotation.
    With one file it is emptied instead.  `rotated` is called once at the end of a `write` that
    rotated.  What is no regular file (a device, a FIFO) is never renamed.
    """

    def __init__(
        self,
        path: str,
        nb_files: int,
        nb_lines: int,
        *,
        name: str = "log",
        complain: Callable[[str], None] = _silence,
        rotated: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._label = f"{name} {path}"
        self._nb_files = nb_files
        self._per_file = max(nb_lines, 0) + 1
        self._room = self._per_file  # lines until the next rotation
        self._complain = complain
        self._rotated = rotated
        self._clock = clock
        self._fd = -1
        self._look_at = 0.0  # when to look at the file again: is it deleted, can it be written
        self._lost_now = 0  # lines lost since the failure that was told last
        self._torn = b""  # rest of a line whose beginning stands at the file's end
        self._torn_in = (0, 0)  # device and inode of that file
        self.lost = 0
        self.working = True
        failure = self._open()
        if failure is not None:
            self._complain(self._fail(failure))

    def write(self, block: bytes, lines: int, severity: str = "") -> None:
        now = self._clock()
        if now >= self._look_at:
            notes = self._look(now)
        elif self.working:
            notes = []
        else:
            self._lose(lines)
            return
        rotations = 0
        if self._fd >= 0:
            if self._torn:
                block = self._torn + block
                lines += 1
            start = 0
            failure: OSError | None = None
            while failure is None and lines >= self._room:
                end = _end_of_line(block, start, self._room)
                lines -= self._room
                failure = self._put(block[start:end], self._room)
                start = end
                if failure is None:
                    rotations += 1
                    failure = self._rotate(notes)
            if failure is None and lines:
                failure = self._put(block[start:] if start else block, lines)
                lines = 0
            if failure is None:
                if not self.working:
                    notes.append(self._recover())
            else:
                self._lose(lines)
                lines = 0
                if self.working:
                    notes.append(self._fail(failure))
        else:
            self._lose(lines)
        # Last of all: a note may come back into this very log, and the callback take its time.
        for note in notes:
            self._complain(note)
        if rotations and self._rotated is not None:
            self._rotated()

    def reopen(self) -> None:
        self._close()
        failure = self._open()
        if failure is None:
            self._look_at = 0.0
        elif self.working:
            self._complain(self._fail(failure))

    def close(self) -> None:
        self._close()
        self._look_at = float("inf")
        self.working = False

    def fileno(self) -> int:
        """The descriptor, or -1 while there is none."""
        return self._fd

    def _look(self, now: float) -> list[str]:
        """Once in RETRY_SECONDS: open what is closed, leave what was deleted."""
        self._look_at = now + RETRY_SECONDS
        notes = []
        if self._fd >= 0 and _is_deleted(self._fd):
            self._close()
        if self._fd < 0:
            failure = self._open()
            if failure is not None and self.working:
                notes.append(self._fail(failure))
        return notes

    def _open(self, flags: int = 0) -> OSError | None:
        try:
            self._fd = os.open(self.path, _OPEN_FLAGS | flags, 0o644)
        except OSError as error:
            return error
        except ValueError:
            return OSError(errno.EINVAL, "NUL in the name")
        if self._torn and _identity(self._fd) != self._torn_in:
            self._torn = b""
            self._lose(1)
        return None

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError:
                pass  # EIO of earlier writes: nothing is left that could be done

    def _put(self, data: bytes, lines: int) -> OSError | None:
        """Write whole lines, the first of them the torn one if there is one.

        After a failure `_torn` is what is missing of the file's last line; that line is not lost.
        """
        done = 0
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            whole = data.count(b"\n", 0, done)
            self._room -= whole
            lines -= whole
            if done:
                end = data.find(b"\n", done) + 1
                self._torn = b"" if data[done - 1] == 10 else data[done : end or len(data)]
                self._torn_in = _identity(self._fd)
            self._lose(lines - 1 if self._torn else lines)
            return error
        self._torn = b""
        self._room -= lines
        return None

    def _rotate(self, notes: list[str]) -> OSError | None:
        self._room = self._per_file
        emptied = self._nb_files <= 1
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                return None
            if not emptied:
                self._shift()
        except FileNotFoundError:
            pass  # deleted or moved: a new one is opened
        except OSError as error:
            # Goes on in the same file rather than lose lines, for another nb_lines.
            notes.append(f"{self._label}: not rotated: {error.strerror}")
            return None
        # Closed before the new one is opened: that works without a free descriptor too.
        self._close()
        return self._open(os.O_TRUNC if emptied else 0)

    def _shift(self) -> None:
        """Rename path.(n-1) to path.n, the oldest first, up to the first gap."""
        names = [self.path]
        while len(names) < self._nb_files and os.path.lexists(names[-1]):
            names.append(f"{self.path}.{len(names)}")
        for older, newer in zip(reversed(names), reversed(names[:-1])):
            if os.path.lexists(newer):
                os.rename(newer, older)

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._lost_now += lines

    def _fail(self, failure: OSError) -> str:
        self.working = False
        self._look_at = self._clock() + RETRY_SECONDS
        return f"{self._label}: {failure.strerror}; lines are lost until it can be written again"

    def _recover(self) -> str:
        self.working = True
        lost, self._lost_now = self._lost_now, 0
        return f"{self._label}: written again, {lost} lines were lost"


class SyslogLog(Log):
    """syslog's local socket, one datagram a line; waits at most SYSLOG_WAIT_MS for its queue."""

    def __init__(
        self,
        facility: str,
        *,
        name: str = "log",
        ident: str = "pyxsd",
        path: str = "",
        complain: Callable[[str], None] = _silence,
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
        self._lost_now = 0
        self.lost = 0
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
            poller = select.poll()
            poller.register(self._socket.fileno(), select.POLLOUT)
            poller.poll(SYSLOG_WAIT_MS)
            try:
                self._socket.send(message)
            except BlockingIOError as full:
                return full
        return None


class DaemonLog:
    """The daemon's own log: levels, facilities (`xenstored`, `domain`, ...), oxenstored's lines.

    `[20261122T12:00:54.188Z| info|xenstored] text`; a text of several lines becomes as many
    lines of the log.  Nothing is buffered.  What befalls the log itself goes to stderr.
    """

    def __init__(
        self,
        destination: str,
        level: str,
        nb_files: int,
        nb_lines: int,
        nb_chars: int = -1,
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        stderr: int = 2,
    ) -> None:
        self._threshold = LEVELS[level]
        self._nb_chars = nb_chars
        self._wall_clock = wall_clock
        self._stderr = stderr
        self._syslog = destination.startswith(SYSLOG_PREFIX)
        self._rotation = (max(nb_files, 1), nb_lines)
        self._clock = clock
        self._out = Log()
        # As in oxenstored: at level null a file is not even made.
        if self._syslog or (level != "null" and nb_files > 0):
            self._out = _open(
                destination, nb_files, nb_lines, "daemon log", self._complain_of_this, None, clock
            )
        self._write([FIRST_LINE], "info")

    @property
    def lost(self) -> int:
        """Lines that could not be written, since the start."""
        return self._out.lost

    def wants(self, level: str) -> bool:
        """Whether lines of this level are written: spares making a costly text."""
        return LEVELS[level] >= self._threshold

    def log(self, level: str, facility: str, text: str) -> None:
        """Write `text` if the level is wanted."""
        if LEVELS[level] < self._threshold:
            return
        if self._syslog:
            prefix = f"[{facility}] "
        else:
            prefix = f"[{timestamp(self._wall_clock())}|{level:>5}|{facility}] "
        rows = text.rstrip("\n").split("\n")
        self._write([prefix + row.translate(_CONTROL_CHARACTERS) for row in rows], level)

    def debug(self, facility: str, text: str) -> None:
        """`log` at level debug."""
        self.log("debug", facility, text)

    def info(self, facility: str, text: str) -> None:
        """`log` at level info."""
        self.log("info", facility, text)

    def warn(self, facility: str, text: str) -> None:
        """`log` at level warn."""
        self.log("warn", facility, text)

    def error(self, facility: str, text: str) -> None:
        """`log` at level error."""
        self.log("error", facility, text)

    def complain(self, text: str) -> None:
        """What another log's `complain` is: a warning here, on stderr where that is impossible."""
        self.warn("xenstored", text)
        if not (self._out.working and self.wants("warn")):
            _tell(self._stderr, text)

    def reopen(self) -> None:
        """Open the file by name again (SIGHUP)."""
        self._out.reopen()

    def redirect(self, path: str) -> None:
        """Write to another file from now on; OSError, and all stays, where it cannot be opened."""
        os.close(os.open(path, _OPEN_FLAGS, 0o644))
        nb_files, nb_lines = self._rotation
        new = _open(
            path, nb_files, nb_lines, "daemon log", self._complain_of_this, None, self._clock
        )
        self._out.close()
        self._out = new
        self._syslog = False

    def close(self) -> None:
        """Close the file; what is logged later is lost."""
        self._out.close()

    def _complain_of_this(self, text: str) -> None:
        _tell(self._stderr, text)
        if self._out.working:
            self.warn("xenstored", text)

    def _write(self, rows: list[str], level: str) -> None:
        limit = -1 if self._syslog else self._nb_chars
        cut = [cut_line(row.encode("utf-8", "backslashreplace"), limit) for row in rows]
        self._out.write(b"\n".join(cut) + b"\n", len(cut), level)


def open_daemon_log(config: Config) -> DaemonLog:
    """The daemon log as it is configured; opening never fails."""
    return DaemonLog(
        config.xenstored_log_file,
        config.xenstored_log_level,
        config.xenstored_log_nb_files,
        config.xenstored_log_nb_lines,
        config.xenstored_log_nb_chars,
    )


def open_access_log(
    config: Config, complain: Callable[[str], None], rotated: Callable[[], None] | None = None
) -> Log:
    """The access log as it is configured: a plain `Log`, which drops all, where nb-files is 0.

    Its lines are cut (access-log-nb-chars) by whoever formats them.
    """
    destination = config.access_log_file
    if config.access_log_nb_files <= 0 and not destination.startswith(SYSLOG_PREFIX):
        return Log()
    return _open(
        destination,
        config.access_log_nb_files,
        config.access_log_nb_lines,
        "access log",
        complain,
        rotated,
        time.monotonic,
    )


def _open(
    destination: str,
    nb_files: int,
    nb_lines: int,
    name: str,
    complain: Callable[[str], None],
    rotated: Callable[[], None] | None,
    clock: Callable[[], float],
) -> Log:
    if destination.startswith(SYSLOG_PREFIX):
        facility = destination[len(SYSLOG_PREFIX) :]
        return SyslogLog(facility, name=name, complain=complain, clock=clock)
    return LogFile(
        destination,
        nb_files,
        nb_lines,
        name=name,
        complain=complain,
        rotated=rotated,
        clock=clock,
    )


def timestamp(now: float) -> str:
    """Seconds since the epoch as both logs write them: UTC, `20261122T12:00:54.188Z`."""
    second = int(now // 1)
    date = time.strftime("%Y%m%dT%H:%M:%S", time.gmtime(second))
    return f"{date}.{int((now - second) * 1000):03d}Z"


def cut_line(line: bytes, nb_chars: int) -> bytes:
    """A line (without its newline) cut to nb_chars with its newline; the cut ends in `..`.

    Nothing is cut where nb_chars is not positive; less than `..` never remains.
    """
    if nb_chars <= 0 or len(line) < nb_chars:
        return line
    return line[: max(nb_chars - 3, 0)] + b".."


def _end_of_line(block: bytes, start: int, lines: int) -> int:
    """The offset behind the next `lines` newlines."""
    end = start
    for _line in range(lines):
        end = block.find(b"\n", end) + 1
        if not end:
            return len(block)
    return end


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _is_deleted(fd: int) -> bool:
    try:
        return os.fstat(fd).st_nlink == 0
    except OSError:
        return True  # ESTALE, EIO: open it anew


def _access_severity(row: bytes) -> str:
    """The severity of an access log line without its date: ` <connection> <label> <data>`."""
    _first, _, rest = row.lstrip(b" ").partition(b" ")
    if rest.startswith(b"(ANON CONN #"):
        _first, _, rest = rest.partition(b")")
        _first, _, rest = rest.partition(b" ")
    words = rest.split(None, 1)
    return _ACCESS_SEVERITIES.get(words[0], "info") if words else "info"


def _tell(stderr: int, text: str) -> None:
    """One line on stderr, unless nobody can take it now: a pipe that is full must not block."""
    poller = select.poll()
    poller.register(stderr, select.POLLOUT)
    try:
        if any(event & select.POLLOUT for _fd, event in poller.poll(0)):
            os.write(stderr, f"pyxsd: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # stderr is closed or its disk is full too; the counts remain
