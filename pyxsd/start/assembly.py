# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every daemon is made of, however it comes to serve."""

from __future__ import annotations

import functools
import os
import sys
import time

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd.daemon import Daemon
from pyxsd.domains import Domains
from pyxsd.host import Host
from pyxsd.system import configuration, listening
from pyxsd.system.destinations import open_access_log
from pyxsd.system.log import Log
from pyxsd.xen import Xen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog
    from pyxsd.system.options import Options
    from pyxsd.update.dialogue import Dialogue
    from pyxsd.update.program import Program


def assemble(
    config: Config,
    parsed: Options,
    listener: int,
    daemon_log: DaemonLog,
    xen: Xen | None,
    came_by_update: bool = False,
    words: list[str] | None = None,
) -> Daemon:
    """The parts of a daemon, brought together; its store is fresh, and nobody is connected.

    came_by_update: does a client wait to be told that this process has taken over?  words: the
    command line, where it is not this process's own.
    """
    host = Host(daemon_log)
    access = Log()
    daemon: Daemon | None = None

    def rotated() -> None:
        if daemon is not None:
            daemon.saver.start()

    if parsed.access_log:
        access = open_access_log(config, daemon_log.complain, rotated)
    to_syslog = config.access_log_file.startswith(configuration.SYSLOG_PREFIX)
    formatter = AccessLog(
        type(access) is not Log,
        -1 if to_syslog else config.access_log_nb_chars,
        config.access_log_read_ops,
        config.access_log_transactions_ops,
        config.access_log_special_ops,
    )
    server = Server(config, host, formatter, os.fsencode(_executable()))
    server.begin(time.time(), time.monotonic())
    domains = Domains(server, xen, daemon_log.log)
    host.attach(server, domains)
    run_directory = listening.run_directory(os.environ)
    daemon = Daemon(config, server, domains, daemon_log, access, run_directory, listener)
    daemon.reraise = parsed.reraise_top_level
    if config.record_directory:
        # Here, since a daemon that records nothing needs none of it.
        from pyxsd.record.recorder import Recorder

        host.recorder = Recorder(daemon)
    took_over = time.monotonic() if came_by_update else float("-inf")
    # Once: each image names it, and later no descriptor may be left to look for it.
    host.own_program = functools.cache(lambda: _own_program(words))
    host.begin_updates = lambda: _dialogue(daemon, took_over, host.program())
    return daemon


def _dialogue(daemon: Daemon, took_over: float, program: Program) -> Dialogue:
    """The dialogue about live updates, from its first command on."""
    from pyxsd.update.dialogue import Dialogue

    return Dialogue(daemon, program, os.environ, took_over)


def _own_program(words: list[str] | None) -> Program:
    """The program that this process runs."""
    # Here, since a start without crash recovery needs none of it.
    from pyxsd.update.program import own_program

    return own_program(words)


def _executable() -> str:
    """The value of /tool/xenstored."""
    return os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else "/usr/sbin/pyxsd"


def open_xen(daemon_log: DaemonLog) -> Xen | None:
    """Xen, or None (with one line in the log) where it is missing."""
    xen = Xen()
    domains = None
    try:
        xen.open()
        domains = xen
    except OSError as error:
        daemon_log.warn("xenstored", f"no Xen, serving sockets only: {error.strerror}")
        xen.close()
    return domains


def bind_virq(domains: Domains, daemon_log: DaemonLog) -> None:
    """From here on deaths of domains are seen; where that cannot be, the log says so."""
    try:
        domains.start()
    except OSError as error:
        daemon_log.error("xenstored", f"deaths of domains will not be seen: {error.strerror}")
