# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that serves: for the whole life of the daemon, or as one of a keeper's children."""

from __future__ import annotations

import gc
import os

from pyxsd.start import assembly
from pyxsd.system import listening, pid_file
from pyxsd.system.notify import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from pyxsd.daemon import Daemon
    from pyxsd.keeper.ward import Ward
    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog
    from pyxsd.system.options import Options
    from pyxsd.xen import Xen


def keep(
    config: Config,
    parsed: Options,
    told: list[str],
    serve: Callable[[Ward | None], int],
    listener: int = -1,
    begun: Callable[[], object] = lambda: None,
) -> int:
    """Serves: in this process, or where the configuration wants it in a child that is made anew
    when it dies.  The exit status.

    told: what is to be said in the log; serve() says it.  listener: made by this process, to be
    removed where the first child dies before it has served.  begun: called in a keeper when it has
    made its first child.
    """
    if not config.crash_recovery:
        return serve(None)
    # Here, since a daemon without it needs none of it.
    from pyxsd.keeper import keeping

    memory = keeping.memory(config, told)
    if memory is None:
        return serve(None)
    end = keeping.keep(serve, memory, config, begun)
    if keeping.is_over(end) and (keeping.has_served(end) or not parsed.take_over):
        for path in filter(None, (config.pid_file, parsed.pid_file)):
            pid_file.remove_own(path)
        if listener >= 0 and not keeping.has_served(end):
            listening.remove(listening.socket_path(os.environ))
    return keeping.status(end, config, parsed.daemonize, memory)


def go_on(config: Config, parsed: Options, ward: Ward, words: list[str] | None = None) -> int:
    """Serves on in the place of a process that has died.  words: see assembly.assemble()."""
    from pyxsd.recovery import again

    if ward.has_been_succeeded():
        return 0
    gc.disable()  # nothing that is made now becomes garbage

    def assemble(
        config: Config, parsed: Options, listener: int, log: DaemonLog, xen: Xen | None
    ) -> Daemon:
        return assembly.assemble(config, parsed, listener, log, xen, words=words)

    daemon: Daemon = again.build(config, parsed, ward.memory, assemble, ward.life.refused)
    daemon.install_signals()
    if ward.was_leaving():
        from pyxsd.switch import kept

        kept.go_on(daemon, ward)
    gc.freeze()
    ward.begin(daemon)
    daemon.load_rest()
    with Held(daemon.pid_files, ward):
        run(daemon, daemon.pid_files, notifier(ward))
    return 0


class Held:
    """The pid files of a process that serves, which go with it; not where it ends by an exception
    and another one goes on in its place."""

    def __init__(self, files: list[pid_file.PidFile], ward: Ward | None) -> None:
        self._files = files
        self._ward = ward

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._ward is None or not self._ward.is_made_up_for():
            for file in self._files:
                file.remove()


def notifier(ward: Ward | None) -> Notifier:
    """For messages of the process that the service manager knows."""
    return Notifier(os.environ, 0 if ward is None else ward.life.keeper)


def run(daemon: Daemon, held: list[pid_file.PidFile], told: Notifier) -> None:
    """Serves, and cleans up; after a live update all that there is belongs to the other process."""
    recorder = daemon.server.host.recorder
    if recorder is not None:
        recorder.start()
    daemon.run()
    if recorder is not None:
        recorder.stop()
    if daemon.successor:
        for file in held:
            file.leave()
        if daemon.ward is None:
            with daemon.reserve:  # clients may have taken all others
                told.moved(daemon.successor)
        return
    told.stopping()
    updates = daemon.server.host.updates
    if updates is not None:
        updates.close()
    # What can be sent is; the state is of the instant behind that.
    daemon.send_all()
    daemon.save()
    daemon.close()
    daemon.domains.stop()
    if daemon.domains.xen is not None:
        daemon.domains.xen.close()
    told.close()
    daemon.daemon_log.close()
