# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which destination a log has by its configuration, and the access log.

The lines of the access log come from the core as blocks of whole lines, formatted and cut
already.
"""

from __future__ import annotations

import time

from pyxsd.system.configuration import SYSLOG_PREFIX, Config
from pyxsd.system.log import Log
from pyxsd.system.log_file import LogFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def open_access_log(
    config: Config, complain: Callable[[str], None], rotated: Callable[[], None] | None = None
) -> Log:
    """The access log as it is configured: a plain `Log`, which drops all, where nb-files is 0.

    Its lines are cut (access-log-nb-chars) by whoever formats them.
    """
    destination = config.access_log_file
    if config.access_log_nb_files <= 0 and not destination.startswith(SYSLOG_PREFIX):
        return Log()
    return open_destination(
        destination,
        config.access_log_nb_files,
        config.access_log_nb_lines,
        "access log",
        complain,
        rotated,
        time.monotonic,
    )


def open_destination(
    destination: str,
    nb_files: int,
    nb_lines: int,
    name: str,
    complain: Callable[[str], None],
    rotated: Callable[[], None] | None,
    clock: Callable[[], float],
) -> Log:
    if destination.startswith(SYSLOG_PREFIX):
        from pyxsd.system.syslog import SyslogLog  # spares most hosts the time to load it

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
