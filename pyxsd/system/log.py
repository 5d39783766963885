# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every log destination has in common: the class `Log`, and how often a failed one is tried.

A log never ends the daemon and never makes it wait for long.  A destination that failed is
tried again at most once in RETRY_SECONDS, and lines that could not be written are counted in
`lost`.  A failure is told once through the log's `complain` function, and so is its end.
"""

from __future__ import annotations

RETRY_SECONDS = 1.0


def silence(_text: str) -> None:
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
