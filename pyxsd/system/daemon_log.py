# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's own log: its levels and the format of its lines."""

from __future__ import annotations

import errno
import os
import select
import time

from pyxsd.system.configuration import FACILITIES, LEVELS, SYSLOG_PREFIX, Config
from pyxsd.system.destinations import open_destination
from pyxsd.system.files import open_regular
from pyxsd.system.log import Log
from pyxsd.system.rate_limit import SECONDS, RateLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The daemon's first words, in its log and (with --no-fork) on stdout.
BANNER = "Xen Storage Daemon, version 1.0"

_CONTROL_CHARACTERS = {c: f"\\{c:03d}" for c in (*range(32), 127)}


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
        self.redirected = ""  # the file that `redirect` was given last
        self._threshold = LEVELS[level]
        self._nb_chars = nb_chars
        self._wall_clock = wall_clock
        self._stderr = stderr
        self._syslog = destination.startswith(SYSLOG_PREFIX)
        self._rotation = (max(nb_files, 1), nb_lines)
        self._clock = clock
        # kind -> level and facility of its lines, as far as there are any
        self._kinds: dict[str, tuple[str, str]] = {}
        self._limit = RateLimit()
        self._out = Log()
        # As in oxenstored: at level null a file is not even made.
        if self._syslog or (level != "null" and nb_files > 0):
            self._out = open_destination(
                destination, nb_files, nb_lines, "daemon log", self._complain_of_this, None, clock
            )
        self._write([BANNER], "info")

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

    def limited(
        self, kind: str, text: str, level: str = "warn", facility: str = "xenstored"
    ) -> None:
        """`log` for lines that a guest can cause: a few of each kind in a minute, then a count.

        `kind` is a fixed text that says what happened without saying to whom ("event too long").
        Of one kind rate_limit.LINES lines are written in rate_limit.SECONDS; how many more there
        were is told when that time is over: `event too long: 1234 more lines in 60 s`.
        """
        if not self.wants(level):
            return
        self.tell_left_out()
        self._kinds[kind] = (level, facility)
        if self._limit.admits(kind, self._clock()):
            self.log(level, facility, text)

    def tell_left_out(self) -> None:
        """Tell the counts of `limited` that are due.  To be called now and then (every 15 s)."""
        self._tell_left_out(self._clock())

    def _tell_left_out(self, now: float) -> None:
        for kind, lines in self._limit.ended(now):
            level, facility = self._kinds.pop(kind)
            self.log(level, facility, f"{kind}: {lines} more lines in {SECONDS:.0f} s")

    def complain(self, text: str) -> None:
        """What another log's `complain` is: a warning here, on stderr where that is impossible."""
        self.warn("xenstored", text)
        if not (self._out.working and self.wants("warn")):
            _tell(self._stderr, text)

    def reopen(self) -> None:
        """Open the file by name again (SIGHUP)."""
        self._out.reopen()

    def redirect(self, path: str) -> None:
        """Write to another regular file, or to `syslog:<facility>`, from now on.

        OSError, and all stays, where the file cannot be written or there is no such facility.
        """
        if not path.startswith(SYSLOG_PREFIX):
            os.close(open_regular(path))
        elif path[len(SYSLOG_PREFIX) :] not in FACILITIES:
            raise OSError(errno.EINVAL, "unknown syslog facility")
        self.go_on_in(path)

    def go_on_in(self, path: str) -> None:
        """Write from now on to where `redirect` has sent the process before this one.

        Where that cannot be opened at the moment it is tried again, as that process would have: a
        log that is lost keeps nobody from serving.
        """
        new = open_destination(
            path, *self._rotation, "daemon log", self._complain_of_this, None, self._clock
        )
        self._out.close()
        self._out = new
        self._syslog = path.startswith(SYSLOG_PREFIX)
        self.redirected = path

    def close(self) -> None:
        """Close the file, after telling what `limited` left out; what is logged later is lost."""
        self._tell_left_out(float("inf"))
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


def _tell(stderr: int, text: str) -> None:
    """One line on stderr, unless nobody can take it now: a pipe that is full must not block."""
    poller = select.poll()
    poller.register(stderr, select.POLLOUT)
    try:
        if any(event & select.POLLOUT for _fd, event in poller.poll(0)):
            os.write(stderr, f"pyxsd: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # stderr is closed or its disk is full too; the counts remain
