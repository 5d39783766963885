# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another xenstored has become this program: goes on from what it has left."""

from __future__ import annotations

import gc
import os

from pyxsd.start import assembly, serving
from pyxsd.system import background, descriptors, listening, pid_file
from pyxsd.system.daemon_log import open_daemon_log
from pyxsd.system.errors import ServiceError
from pyxsd.system.stdio import tell
from pyxsd.xen import Xen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.daemon import Daemon
    from pyxsd.keeper.ward import Ward
    from pyxsd.switch import c_options, inherited
    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog
    from pyxsd.system.options import Options


def switch(config: Config, parsed: Options, line: c_options.Line | None, faults: list[str]) -> int:
    """Serves from what it has left; the exit status.  Nothing that is wrong with that ends the
    process, for nobody else serves the host."""
    from pyxsd.switch import inherited

    os.umask(0o022)
    run_directory = listening.run_directory(os.environ)
    found = inherited.take("stream" if line else "db", run_directory, os.environ)
    if found.listener < 0 and not parsed.disable_socket and found.should_listen:
        # Nothing was left to this process: perhaps it was started by hand.
        try:
            found = found._replace(listener=listening.listen(listening.socket_path(os.environ)))
        except ServiceError as error:
            tell(str(error))
            return background.STATUS_FATAL
    descriptors.raise_file_limit()
    told = [*faults, *(line.faults if line else []), *found.faults]
    held = _claim_softly(config, parsed, told)
    left = [found]  # all that was read, with every node, until somebody has made a server of it
    del found

    def serve(ward: Ward | None) -> int:
        if ward is not None and ward.life.number:
            return serving.go_on(config, parsed, ward, line.words if line else None)
        return _serve_switched(config, parsed, line, left, told, held, ward)

    return serving.keep(config, parsed, told, serve, begun=left.clear)


def _serve_switched(
    config: Config,
    parsed: Options,
    line: c_options.Line | None,
    left: list[inherited.Inherited],
    told: list[str],
    held: list[pid_file.PidFile],
    ward: Ward | None,
) -> int:
    """Serves from what a foreign xenstored has left, in this process."""
    daemon_log = open_daemon_log(config)
    for text in told:
        daemon_log.warn("xenstored", text)
    gc.disable()  # nothing that is made now becomes garbage
    with serving.Held(held, ward):
        daemon = _build_switched(config, parsed, line, left.pop(), daemon_log)
        daemon.pid_files = [file for file in held if file.fileno() >= 0]
        gc.freeze()
        if ward is not None:
            ward.begin(daemon)
        daemon.load_rest()
        serving.run(daemon, held, serving.notifier(ward))
    return 0


def _build_switched(
    config: Config,
    parsed: Options,
    line: c_options.Line | None,
    found: inherited.Inherited,
    daemon_log: DaemonLog,
) -> Daemon:
    """A daemon that goes on from what a foreign xenstored has left."""
    from pyxsd.switch import arrival, inherited

    xen, bound = _xen_of(found, daemon_log)
    daemon = assembly.assemble(
        config,
        parsed,
        found.listener,
        daemon_log,
        xen,
        came_by_update=line is None,
        words=line.words if line else None,
    )
    daemon.install_signals()
    server, domains = daemon.server, daemon.domains
    if bound and arrival.says_device(found.state):
        domains.virq_port = found.state.virq_port
    elif xen is not None:
        assembly.bind_virq(domains, daemon_log)
    logs = bool(server.log.active)
    server.log.switch(False)  # nobody connects anew
    came = arrival.Arrival(
        found,
        config,
        server,
        domains,
        daemon.loop.adopt,
        lambda text: daemon_log.warn("xenstored", text),
    )
    came.build(line.limits if line else {}, bound)
    server.log.switch(logs)
    if xen is not None:
        daemon.watch_event_channels()
    came.go_on()
    if line is not None:
        inherited.remove(found.path)
    daemon_log.info(
        "xenstored",
        f"live switch: took over {server.tree.size} nodes, "
        f"{len(server.domains)} domains, {len(daemon.loop.connections)} sockets",
    )
    return daemon


def _claim_softly(config: Config, parsed: Options, told: list[str]) -> list[pid_file.PidFile]:
    """The pid files, as far as they can be had; told: why others cannot."""
    for given in (parsed.pid_file, ""):
        try:
            held, warnings = pid_file.claim_pid_files(config.pid_file, given)
        except ServiceError as error:
            told.append(str(error))
            continue
        told += warnings
        return held
    return []


def _xen_of(found: inherited.Inherited, daemon_log: DaemonLog) -> tuple[Xen | None, bool]:
    """Xen, with the event channels that came with this process where there are any; are they those,
    with their ports bound?"""
    if found.channels >= 0:
        xen = Xen()
        try:
            xen.open_pages_and_states()
            xen.adopt_channels(found.channels)
        except OSError as error:
            daemon_log.error("xenstored", f"the event channels of before are lost: {error}")
            xen.close()
        else:
            return xen, True
    return assembly.open_xen(daemon_log), False
