# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon that starts by itself, in the foreground or the background."""

from __future__ import annotations

import gc
import os

from pyxsd.start import assembly, serving
from pyxsd.state import restore
from pyxsd.system import background, descriptors, listening, pid_file
from pyxsd.system.daemon_log import BANNER, open_daemon_log
from pyxsd.system.errors import ServiceError, in_words
from pyxsd.system.stdio import STDERR, STDOUT, say, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.daemon import Daemon
    from pyxsd.domains import Domains
    from pyxsd.keeper.ward import Ward
    from pyxsd.state.disk import Found
    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog
    from pyxsd.system.notify import Notifier
    from pyxsd.system.options import Options


def start(config: Config, parsed: Options, faults: list[str]) -> int:
    """Starts the daemon, in the background where that is wanted, and serves; the exit status.

    faults: of the configuration.
    """
    for fault in faults:
        say(STDERR, f"{fault}\n")
    if not parsed.daemonize:
        say(STDOUT, f"{BANNER}\n")
    limit, warning = descriptors.raise_file_limit()
    if warning:
        tell(warning)
    if 0 <= limit < descriptors.NEEDED:
        tell(f"{limit} descriptors are not enough to start: {descriptors.NEEDED} are needed")
        return background.STATUS_FATAL
    try:
        for path in (config.pid_file, parsed.pid_file):
            if path:
                pid_file.check_pid_file(path)
        listener = -1
        if not parsed.disable_socket and not parsed.live:
            listener = listening.listen(listening.socket_path(os.environ))
        else:
            listening.make_directory(listening.run_directory(os.environ))
    except ServiceError as error:
        tell(str(error))
        return background.STATUS_FATAL
    if not parsed.daemonize or parsed.live:
        return _serve(config, parsed, listener, None, faults)
    try:
        launched = background.daemonize()
    except OSError as error:
        tell(f"cannot go into the background: {in_words(error)}")
        if listener >= 0:
            listening.remove(listening.socket_path(os.environ))
        return background.STATUS_FATAL
    if isinstance(launched, background.Verdict):
        if launched.message:
            tell(launched.message)
        return launched.status
    return _serve(config, parsed, listener, launched, faults)


def _serve(
    config: Config,
    parsed: Options,
    listener: int,
    launch: background.Launch | None,
    faults: list[str],
) -> int:
    """Sets up, tells whoever started it, serves, and cleans up.

    The faults of the configuration, which stderr was told already, go into the log as well:
    at boot nobody reads stderr.
    """
    try:
        held, warnings = pid_file.claim_pid_files(config.pid_file, parsed.pid_file)
    except ServiceError as error:
        if launch is None:
            tell(str(error))
        else:
            launch.failed(background.STATUS_FATAL, str(error))
        if listener >= 0:
            listening.remove(listening.socket_path(os.environ))
        return background.STATUS_FATAL
    told = [*faults, *warnings]

    def serve(ward: Ward | None) -> int:
        if ward is not None and ward.life.number:
            if not ward.life.report.is_ready():
                # Who was to say so has died before it could.
                notifier = serving.notifier(ward)
                _say_ready(launch, notifier, ward)
                notifier.close()
            return serving.go_on(config, parsed, ward)
        return _begin(config, parsed, listener, launch, told, held, ward)

    return serving.keep(config, parsed, told, serve, listener)


def _begin(
    config: Config,
    parsed: Options,
    listener: int,
    launch: background.Launch | None,
    told: list[str],
    held: list[pid_file.PidFile],
    ward: Ward | None,
) -> int:
    """Serves from the beginning, in this process."""
    is_served = False
    try:
        with serving.Held(held, ward):
            daemon_log = open_daemon_log(config)
            for warning in told:
                daemon_log.warn("xenstored", warning)
            daemon = build(config, parsed, listener, daemon_log)
            daemon.pid_files = [file for file in held if file.fileno() >= 0]
            notifier = serving.notifier(ward)
            daemon.install_signals()
            # Nothing that is alive now ever becomes garbage, and nothing later is a cycle.  What
            # the imports left behind is 10 KB, not worth the 2 ms of looking for it.
            gc.freeze()
            gc.disable()
            if ward is not None:
                ward.begin(daemon)
            is_served = True
            _say_ready(launch, notifier, ward)
            daemon.load_rest()
            serving.run(daemon, held, notifier)
    finally:
        if not is_served and listener >= 0:
            listening.remove(listening.socket_path(os.environ))
    return 0


def _say_ready(launch: background.Launch | None, notifier: Notifier, ward: Ward | None) -> None:
    """To whoever has started the daemon."""
    if ward is None:
        if launch is not None:
            launch.ready()
        notifier.ready(os.getpid() if launch is not None else 0)
        return
    # A keeper may die and leave its child: to a service manager that knows no main process that is
    # not the end.
    notifier.ready()
    if launch is not None:
        launch.ready(ward.life.report.ready)
    ward.life.report.ready()


def build(config: Config, parsed: Options, listener: int, daemon_log: DaemonLog) -> Daemon:
    """A daemon with the state that is on disk, where that is wanted, else with none."""
    xen = assembly.open_xen(daemon_log)
    found = _image(daemon_log) if parsed.restart or config.persistent else None
    daemon = assembly.assemble(config, parsed, listener, daemon_log, xen)
    domains = daemon.domains
    if xen is not None:
        assembly.bind_virq(domains, daemon_log)
    if found is not None:
        restore.from_image(found, daemon.server, domains, config, daemon_log, parsed.domain_init)
    if xen is not None and parsed.domain_init:
        _start_domain0(domains, config, daemon_log)
    if found is None and (parsed.restart or config.persistent):
        restore.from_file(
            os.path.join(daemon.run_directory, "db"),
            daemon.server,
            domains,
            config,
            daemon_log,
            required=parsed.restart,
        )
    elif found is None:
        daemon_log.info("xenstored", "No live reload: regular startup")
    if xen is not None:
        daemon.watch_event_channels()
    return daemon


def _image(daemon_log: DaemonLog) -> Found | None:
    """The image in the run directory, where there is one to begin with; the key of this process's
    hashes is the image's from now on."""
    # Here, since most daemons start without one.
    from pyxsd.state import disk

    found, told = disk.find(listening.run_directory(os.environ))
    for text in told:
        daemon_log.warn("xenstored", text)
    if found is not None:
        from pyxsd._siphash import use_key
        from pyxsd.state import image

        use_key(image.hash_key(found.records))
    return found


def _start_domain0(domains: Domains, config: Config, daemon_log: DaemonLog) -> None:
    if not config.xenstored_kva or not config.xenstored_port:
        daemon_log.warn(
            "xenstored", "domain 0 has no ring: xenstored-kva and xenstored-port are not configured"
        )
        return
    if 0 in domains.table:
        return
    try:
        domains.start_domain0(config.xenstored_kva, config.xenstored_port)
    except (OSError, ValueError) as error:
        daemon_log.error("xenstored", f"domain 0 has no ring: {in_words(error)}")
