# SPDX-License-Identifier: LGPL-2.1-or-later
"""Putting the seams in, and taking them out again."""

from __future__ import annotations

from pyxsd.record import beginning
from pyxsd.record.host import Recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd.system.configuration import Config


# Small enough for the CPU's caches.
SEGMENT_BYTES = 65536


def is_possible(server: Any) -> bool:
    """Can a recording begin now?  An image does not say who waits for a late answer."""
    return not any(c.awaits for c in server.connections.values())


def begin(
    server: Any, domains: Any, host: Any, config: Config, take_away: Callable[[], object]
) -> bytes:
    """Records from now on; the beginning of the recording.  Between two turns.

    domains: None where the host does without.  host: who has the `commands` (control.Control).
    take_away: see Journal.record.
    """
    data = beginning.write(server, domains, config)
    journal = server.journal
    journal.record(take_away, SEGMENT_BYTES, not config.record_values)
    server.follow_journal()
    server.hold()
    if domains is not None and domains.xen is not None:
        domains.xen = Recorded(domains.xen, journal)
    host.commands.host = Recorded(host.commands.host, journal)
    return data


def begin_beside(server: Any, domains: Any, config: Config) -> tuple[bytes, int]:
    """The beginning of a recording of what the journal records from now on, which is recorded for
    somebody else's sake; and behind which byte of the journal that is.  Between two turns."""
    server.settle()
    data = beginning.write(server, domains, config)
    offset: int = server.journal.offset
    server.hold()
    return data, offset


def begin_anew(server: Any, domains: Any, config: Config, take_away: Callable[[], object]) -> bytes:
    """Ends the recording and begins the next one, whose beginning is returned; what was not taken
    of the former journal is gone."""
    data = beginning.write(server, domains, config)
    server.journal.stop()
    server.journal.record(take_away, SEGMENT_BYTES, not config.record_values)
    server.hold()
    return data


def end(server: Any, domains: Any, host: Any) -> None:
    """Records no more, if anything was recorded.  Between two turns."""
    server.journal.stop()
    server.follow_journal()
    if domains is not None and isinstance(domains.xen, Recorded):
        domains.xen = domains.xen.inner
    if isinstance(host.commands.host, Recorded):
        host.commands.host = host.commands.host.inner
