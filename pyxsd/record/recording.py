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


def begin(server: Any, domains: Any, host: Any, config: Config,
          take_away: Callable[[], object]) -> bytes:
    """Records from now on; the beginning of the recording.  Between two turns.

    domains: None where the host does without.  host: who has the `commands` (control.Control).
    take_away: see Journal.record.
    """
    data = beginning.write(server, domains, config)
    journal = server.journal
    journal.record(take_away)
    server.follow_journal()
    if domains is not None and domains.xen is not None:
        domains.xen = Recorded(domains.xen, journal)
    host.commands.host = Recorded(host.commands.host, journal)
    return data


def end(server: Any, domains: Any, host: Any) -> None:
    """Records no more.  Between two turns."""
    server.journal.stop()
    server.follow_journal()
    if domains is not None and isinstance(domains.xen, Recorded):
        domains.xen = domains.xen.inner
    if isinstance(host.commands.host, Recorded):
        host.commands.host = host.commands.host.inner
