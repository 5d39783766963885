# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program: from the command line to the running loop and back (floor 4)."""

from __future__ import annotations

import gc
import os
import sys

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd.daemon import Daemon
from pyxsd.domains import Domains
from pyxsd.host import Host
from pyxsd.state import restore
from pyxsd.system import configuration, logs, options, service
from pyxsd.xen import Xen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.system.configuration import Config
    from pyxsd.system.options import Options

BANNER = "Xen Storage Daemon, version 1.0"


def main(argv: list[str] | None = None) -> int:
    """Runs the daemon; the exit status."""
    service.ensure_stdio()
    parsed = options.parse(sys.argv[1:] if argv is None else argv)
    if isinstance(parsed, options.Options) and parsed.config_test:
        parsed = options.check_config(parsed.config_file)
    if isinstance(parsed, options.Exit):
        sys.stdout.write(parsed.stdout)
        sys.stderr.write(parsed.stderr)
        return parsed.status
    config = _load(parsed.config_file)
    if not parsed.daemonize:
        print(BANNER, flush=True)
    _, warning = service.raise_file_limit()
    if warning:
        _tell(warning)
    try:
        for path in (config.pid_file, parsed.pid_file):
            if path:
                service.check_pid_file(path)
        listener = -1
        if not parsed.disable_socket and not parsed.live:
            listener = service.listen(service.socket_path(os.environ))
        else:
            service.make_directory(service.run_directory(os.environ))
    except service.ServiceError as error:
        _tell(str(error))
        return service.STATUS_FATAL
    if not parsed.daemonize or parsed.live:
        return _serve(config, parsed, listener, None)
    launched = service.daemonize()
    if isinstance(launched, service.Verdict):
        if launched.message:
            _tell(launched.message)
        return launched.status
    return _serve(config, parsed, listener, launched)


def _tell(text: str) -> None:
    print(f"pyxsd: {text}", file=sys.stderr, flush=True)


def _load(path: str) -> Config:
    config, warnings = configuration.load(path)
    for warning in warnings:
        print(warning, file=sys.stderr, flush=True)
    return config


def _serve(config: Config, parsed: Options, listener: int,
           launch: service.Launch | None) -> int:
    """Sets up, tells whoever started it, serves, and cleans up."""
    held: list[service.PidFile] = []
    try:
        try:
            held, warnings = service.claim_pid_files(config.pid_file, parsed.pid_file)
        except service.ServiceError as error:
            if launch is None:
                _tell(str(error))
            else:
                launch.failed(service.STATUS_FATAL, str(error))
            return service.STATUS_FATAL
        daemon_log = logs.open_daemon_log(config)
        for warning in warnings:
            daemon_log.warn("xenstored", warning)
        daemon = _build(config, parsed, listener, daemon_log)
        notifier = service.Notifier(os.environ)
        # Nothing that is alive now ever becomes garbage, and nothing later is a cycle.
        gc.collect()
        gc.freeze()
        gc.disable()
        if launch is not None:
            launch.ready()
        notifier.ready(os.getpid() if launch is not None else 0)
        daemon.run()
        notifier.stopping()
        daemon.save()
        daemon.close()
        daemon.domains.stop()
        if daemon.domains.xen is not None:
            daemon.domains.xen.close()
        daemon_log.close()
    finally:
        for file in held:
            file.remove()
    return 0


def _build(config: Config, parsed: Options, listener: int,
           daemon_log: logs.DaemonLog) -> Daemon:
    host = Host(daemon_log)
    access = logs.Log()
    daemon: Daemon | None = None

    def rotated() -> None:
        if daemon is not None:
            daemon.save()

    if parsed.access_log:
        access = logs.open_access_log(config, daemon_log.complain, rotated)
    to_syslog = config.access_log_file.startswith(configuration.SYSLOG_PREFIX)
    formatter = AccessLog(type(access) is not logs.Log,
                          -1 if to_syslog else config.access_log_nb_chars,
                          config.access_log_read_ops, config.access_log_transactions_ops,
                          config.access_log_special_ops)
    server = Server(config, host, formatter, os.fsencode(_executable()))
    xen = _open_xen(daemon_log)
    domains = Domains(server, xen, daemon_log.log)
    host.attach(server, domains)
    run_directory = service.run_directory(os.environ)
    daemon = Daemon(config, server, domains, daemon_log, access, run_directory, listener)
    daemon.reraise = parsed.reraise_top_level
    if xen is not None:
        try:
            domains.start()
        except OSError as error:
            daemon_log.error("xenstored", f"deaths of domains will not be seen: {error.strerror}")
        if parsed.domain_init:
            _start_domain0(domains, config, daemon_log)
    if parsed.restart or config.persistent:
        restore.from_file(os.path.join(run_directory, "db"), server, domains, config, daemon_log,
                          required=parsed.restart)
    else:
        daemon_log.info("xenstored", "No live reload: regular startup")
    if xen is not None:
        daemon.watch_event_channels()
    return daemon


def _executable() -> str:
    """The value of /tool/xenstored."""
    return os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else "/usr/sbin/pyxsd"


def _open_xen(daemon_log: logs.DaemonLog) -> Xen | None:
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


def _start_domain0(domains: Domains, config: Config, daemon_log: logs.DaemonLog) -> None:
    if not config.xenstored_kva or not config.xenstored_port:
        daemon_log.warn("xenstored", "domain 0 has no ring: xenstored-kva and xenstored-port "
                        "are not configured")
        return
    if 0 in domains.table:
        return
    try:
        domains.start_domain0(config.xenstored_kva, config.xenstored_port)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        daemon_log.error("xenstored", f"domain 0 has no ring: {text}")
