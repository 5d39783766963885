# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program: from the command line to the running loop and back."""

from __future__ import annotations

import gc
import os
import sys
import time

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd.daemon import Daemon, load_rest
from pyxsd.domains import Domains
from pyxsd.host import Host
from pyxsd.state import restore
from pyxsd.system import background, configuration, descriptors, listening, options, pid_file
from pyxsd.system.daemon_log import BANNER, DaemonLog, open_daemon_log
from pyxsd.system.destinations import open_access_log
from pyxsd.system.errors import ServiceError, in_words
from pyxsd.system.log import Log
from pyxsd.system.notify import Notifier
from pyxsd.system.printable import printable
from pyxsd.xen import Xen

STDOUT, STDERR = 1, 2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from pyxsd._wire import Transport
    from pyxsd.keeper.ward import Ward
    from pyxsd.state.disk import Found
    from pyxsd.switch import c_options, inherited
    from pyxsd.system.configuration import Config
    from pyxsd.system.options import Options
    from pyxsd.update import arrival
    from pyxsd.update.channel import Channel
    from pyxsd.update.dialogue import Dialogue


def main(argv: list[str] | None = None) -> int:
    """Runs the daemon; the exit status."""
    background.ensure_stdio()
    background.hear_signals()
    words = sys.argv[1:] if argv is None else argv
    parsed: Options | options.Exit | c_options.Line = (
        _c_line(words) if options.may_be_c_line(words) else options.parse(words)
    )
    line = None
    if not isinstance(parsed, (options.Options, options.Exit)):
        line, parsed = parsed, parsed.options
    if isinstance(parsed, options.Options) and parsed.config_test:
        parsed = options.check_config(parsed.config_file, parsed.live)
    if isinstance(parsed, options.Exit):
        _say(STDOUT, parsed.stdout)
        _say(STDERR, parsed.stderr)
        return parsed.status
    if parsed.show_state:
        return _show_state(parsed.show_state, parsed.as_format)
    if parsed.replay:
        return _replay(parsed.replay, parsed.until, parsed.as_format)
    config, faults = configuration.load(parsed.config_file)
    if parsed.take_over:
        descriptors.raise_file_limit()
        return _take_over(config, parsed, faults)
    if parsed.live and parsed.restart:
        return _switch(config, parsed, line, faults)
    for fault in faults:
        _say(STDERR, f"{fault}\n")
    if not parsed.daemonize:
        _say(STDOUT, f"{BANNER}\n")
    _, warning = descriptors.raise_file_limit()
    if warning:
        _tell(warning)
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
        _tell(str(error))
        return background.STATUS_FATAL
    if not parsed.daemonize or parsed.live:
        return _serve(config, parsed, listener, None, faults)
    try:
        launched = background.daemonize()
    except OSError as error:
        _tell(f"cannot go into the background: {in_words(error)}")
        if listener >= 0:
            listening.remove(listening.socket_path(os.environ))
        return background.STATUS_FATAL
    if isinstance(launched, background.Verdict):
        if launched.message:
            _tell(launched.message)
        return launched.status
    return _serve(config, parsed, listener, launched, faults)


def _c_line(words: list[str]) -> Options | options.Exit | c_options.Line:
    """What the command line says, by C xenstored's rules where it is C's."""
    from pyxsd.switch import c_options

    return c_options.read(words) if c_options.is_c_line(words) else options.parse(words)


def _show_state(path: str, as_format: str) -> int:
    """Prints a state file; 0 where all of it was understood and printed, else 1."""
    gc.enable()
    # Here, since a daemon that starts needs none of it: with its imports it takes 30 ms.
    from pyxsd.state import show
    from pyxsd.state.host_state import StateError

    try:
        shown = show.show_file(path, as_format)
        with open(STDOUT, "wb", closefd=False) as out:
            out.write(shown.output)
    except StateError as error:
        _tell(str(error))
        return 1
    except OSError as error:
        _tell(f"standard output: {error.strerror}")
        return 1
    for line in shown.told:
        _tell(line)
    return 0 if shown.whole else 1


def _replay(directory: str, until: str, as_format: str) -> int:
    """Runs a recording again; 0 where it did the same as then, else 1."""
    gc.enable()
    from pyxsd.record import again
    from pyxsd.state.host_state import StateError

    try:
        end = again.until(until)
        with open(STDOUT, "wb", closefd=False) as out:
            went_well = again.run(
                directory,
                end,
                as_format,
                out,
                lambda line: _tell(line.decode("utf-8", "surrogateescape")),
            )
    except (StateError, ValueError) as error:
        _tell(str(error))
        return 1
    except OSError as error:
        _tell(f"standard output: {error.strerror}")
        return 1
    return 0 if went_well else 1


def _say(fd: int, text: str) -> None:
    """Write to stdout or stderr, if they take it: a full disk there must not stop a host's boot."""
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody can be told


def _tell(text: str) -> None:
    _say(STDERR, f"pyxsd: {printable(text)}\n")


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
            _tell(str(error))
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
                notifier = _notifier(ward)
                _say_ready(launch, notifier, ward)
                notifier.close()
            return _go_on(config, parsed, ward)
        return _begin(config, parsed, listener, launch, told, held, ward)

    return _keep(config, parsed, told, serve, listener)


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
    serving = False
    try:
        with _Held(held, ward):
            daemon_log = open_daemon_log(config)
            for warning in told:
                daemon_log.warn("xenstored", warning)
            daemon = _build(config, parsed, listener, daemon_log)
            daemon.pid_files = [file for file in held if file.fileno() >= 0]
            notifier = _notifier(ward)
            daemon.install_signals()
            # Nothing that is alive now ever becomes garbage, and nothing later is a cycle.  What
            # the imports left behind is 10 KB, not worth the 2 ms of looking for it.
            gc.freeze()
            gc.disable()
            if ward is not None:
                ward.begin(daemon)
            serving = True
            _say_ready(launch, notifier, ward)
            daemon.load_rest()
            _run(daemon, held, notifier)
    finally:
        if not serving and listener >= 0:
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


def _go_on(config: Config, parsed: Options, ward: Ward, words: list[str] | None = None) -> int:
    """Serves on in the place of a process that has died.  words: see _assemble()."""
    from pyxsd.recovery import again

    if ward.has_been_succeeded():
        return 0
    gc.disable()  # nothing that is made now becomes garbage

    def assemble(
        config: Config, parsed: Options, listener: int, log: DaemonLog, xen: Xen | None
    ) -> Daemon:
        return _assemble(config, parsed, listener, log, xen, words=words)

    daemon: Daemon = again.build(config, parsed, ward.memory, assemble, ward.life.refused)
    daemon.install_signals()
    if ward.was_leaving():
        from pyxsd.switch import kept

        kept.go_on(daemon, ward)
    gc.freeze()
    ward.begin(daemon)
    daemon.load_rest()
    with _Held(daemon.pid_files, ward):
        _run(daemon, daemon.pid_files, _notifier(ward))
    return 0


class _Held:
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


def _notifier(ward: Ward | None) -> Notifier:
    """For messages of the process that the service manager knows."""
    return Notifier(os.environ, 0 if ward is None else ward.life.keeper)


def _run(daemon: Daemon, held: list[pid_file.PidFile], notifier: Notifier) -> None:
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
                notifier.moved(daemon.successor)
        return
    notifier.stopping()
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
    notifier.close()
    daemon.daemon_log.close()


def _take_over(config: Config, parsed: Options, faults: list[str]) -> int:
    """This is the new program of a live update: does what the old daemon orders, and serves."""
    from pyxsd.update.channel import Channel

    reserve = descriptors.Reserve()
    for _ in load_rest(reserve, _tell):
        pass
    reserve.close()
    try:
        old = Channel(int(parsed.take_over))
    except (ValueError, OverflowError, OSError) as error:
        _tell(f"cannot take over by {parsed.take_over}: {error}")
        return options.STATUS_USAGE
    told = [*faults]  # the file may have changed since the check

    def serve(ward: Ward | None) -> int:
        if ward is not None and ward.life.number:
            # Perhaps the one that has died had no time for it.
            return _go_on(config, parsed, ward) if ward.say_taken(old) else background.STATUS_FATAL
        return _obey(config, parsed, old, told, ward)

    return _keep(config, parsed, told, serve)


def _obey(config: Config, parsed: Options, old: Channel, told: list[str], ward: Ward | None) -> int:
    """Does what the old daemon orders: tries its state, or takes over from it and serves."""
    from pyxsd.update import arrival
    from pyxsd.update.channel import MemoryFile

    if ward is not None and not ward.is_tied():
        return background.STATUS_FATAL
    order = arrival.wait_for_order(old)
    if order is None:
        return background.STATUS_FATAL
    held: list[pid_file.PidFile] = []
    try:
        if order.word == "try":
            file = MemoryFile()
            arrival.rehearse(order.data, config, file.put)
            old.send("written", descriptors=[file.detach()])
            return 0
        # Nothing that is made now becomes garbage.
        gc.disable()
        daemon = _build_again(config, parsed, order, held)
    except Exception as error:
        arrival.refuse(old, error)
        return background.STATUS_FATAL
    del order  # and with it the state, which takes as much memory as the store
    for text in told:
        daemon.log("warn", text)
    daemon.install_signals()
    gc.freeze()
    if not arrival.agreed(old):
        return background.STATUS_FATAL
    if ward is not None:
        for claimed in held:
            claimed.pid = ward.life.keeper
    daemon.go_on()
    if ward is None:
        arrival.say_taken(old)
        old.close()
    else:
        ward.begin(daemon)
        if not ward.say_taken(old):
            return background.STATUS_FATAL
    with _Held(held, ward):
        _run(daemon, held, _notifier(ward))
    return 0


def _build_again(
    config: Config, parsed: Options, order: arrival.Order, held: list[pid_file.PidFile]
) -> Daemon:
    """A daemon with the state and the descriptors of another one; ValueError, LookupError and
    OSError where that cannot be.  The host sees nothing of it yet."""
    from pyxsd._sock import SocketTransport
    from pyxsd.state import image, surroundings
    from pyxsd.update import arrival

    found = arrival.opened(order.data)
    around, rows = surroundings.read(found)
    given = arrival.Descriptors(order.descriptors, around)
    listener = given.take(around.listener) if around.listener >= 0 else -1
    daemon_log = open_daemon_log(config)
    xen = None
    if around.channels >= 0:
        xen = Xen()
        xen.open_pages_and_states()
        xen.adopt_channels(given.take(around.channels))
    held += [pid_file.PidFile.adopt(path, given.take(fd)) for path, fd in around.pid_files]
    if around.log_file:
        daemon_log.go_on_in(around.log_file)
    daemon = _assemble(config, parsed, listener, daemon_log, xen, came_by_update=order.asked)
    daemon.pid_files = held
    server, domains = daemon.server, daemon.domains
    domains.virq_port = around.virq_port
    rings = domains.transports(rows)
    sockets = dict(around.sockets)

    def transport_of(number: int, domid: int | None) -> Transport:
        if domid is not None:
            transport: Transport = arrival.ring_of(rings, domid)
            return transport
        return SocketTransport(given.take(sockets.get(number, -1)))

    image.load(found, server, None, transport_of)
    for connection in server.connections.values():
        if connection.is_socket:
            daemon.loop.attach(connection)
    arrival.adopt(domains, rows, around)
    daemon.share()
    server.log.switch(around.access_log)
    if xen is not None:
        domains.map_taken_over(config.xenstored_kva)
        daemon.watch_event_channels()
    return daemon


def _keep(
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


def _switch(config: Config, parsed: Options, line: c_options.Line | None, faults: list[str]) -> int:
    """A foreign xenstored has become this program: goes on from what it has left.  Nothing that is
    wrong with that ends the process, for nobody else serves the host."""
    from pyxsd.switch import inherited

    os.umask(0o022)
    run_directory = listening.run_directory(os.environ)
    found = inherited.take("stream" if line else "db", run_directory, os.environ)
    if found.listener < 0 and not parsed.disable_socket and found.should_listen:
        # Nothing was left to this process: perhaps it was started by hand.
        try:
            found = found._replace(listener=listening.listen(listening.socket_path(os.environ)))
        except ServiceError as error:
            _tell(str(error))
            return background.STATUS_FATAL
    descriptors.raise_file_limit()
    told = [*faults, *(line.faults if line else []), *found.faults]
    held = _claim_softly(config, parsed, told)
    left = [found]  # all that was read, with every node, until somebody has made a server of it
    del found

    def serve(ward: Ward | None) -> int:
        if ward is not None and ward.life.number:
            return _go_on(config, parsed, ward, line.words if line else None)
        return _serve_switched(config, parsed, line, left, told, held, ward)

    return _keep(config, parsed, told, serve, begun=left.clear)


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
    with _Held(held, ward):
        daemon = _build_switched(config, parsed, line, left.pop(), daemon_log)
        daemon.pid_files = [file for file in held if file.fileno() >= 0]
        gc.freeze()
        if ward is not None:
            ward.begin(daemon)
        daemon.load_rest()
        _run(daemon, held, _notifier(ward))
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
    daemon = _assemble(
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
        _bind_virq(domains, daemon_log)
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
    return _open_xen(daemon_log), False


def _build(config: Config, parsed: Options, listener: int, daemon_log: DaemonLog) -> Daemon:
    xen = _open_xen(daemon_log)
    found = _image(daemon_log) if parsed.restart or config.persistent else None
    daemon = _assemble(config, parsed, listener, daemon_log, xen)
    domains = daemon.domains
    if xen is not None:
        _bind_virq(domains, daemon_log)
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


def _bind_virq(domains: Domains, daemon_log: DaemonLog) -> None:
    try:
        domains.start()
    except OSError as error:
        daemon_log.error("xenstored", f"deaths of domains will not be seen: {error.strerror}")


def _assemble(
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
    host.begin_updates = lambda: _dialogue(daemon, took_over, words)
    return daemon


def _dialogue(daemon: Daemon, took_over: float, words: list[str] | None) -> Dialogue:
    """The dialogue about live updates, from its first command on."""
    from pyxsd.update.dialogue import Dialogue
    from pyxsd.update.program import own_program

    return Dialogue(daemon, own_program(words), os.environ, took_over)


def _executable() -> str:
    """The value of /tool/xenstored."""
    return os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else "/usr/sbin/pyxsd"


def _open_xen(daemon_log: DaemonLog) -> Xen | None:
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
