# SPDX-License-Identifier: LGPL-2.1-or-later
"""The new program of a live update: does what the old daemon orders, and serves."""

from __future__ import annotations

import gc

from pyxsd.daemon import load_rest
from pyxsd.start import assembly, serving
from pyxsd.system import background, descriptors, options, pid_file
from pyxsd.system.daemon_log import open_daemon_log
from pyxsd.system.stdio import tell
from pyxsd.xen import Xen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd._wire import Transport
    from pyxsd.daemon import Daemon
    from pyxsd.keeper.ward import Ward
    from pyxsd.system.configuration import Config
    from pyxsd.system.options import Options
    from pyxsd.update import arrival
    from pyxsd.update.channel import Channel


def take_over(config: Config, parsed: Options, faults: list[str]) -> int:
    """Serves where the old daemon wants that; the exit status.

    faults: of the configuration.
    """
    from pyxsd.update.channel import Channel

    descriptors.raise_file_limit()
    reserve = descriptors.Reserve()
    for _ in load_rest(reserve, tell):
        pass
    reserve.close()
    try:
        old = Channel(int(parsed.take_over))
    except (ValueError, OverflowError, OSError) as error:
        tell(f"cannot take over by {parsed.take_over}: {error}")
        return options.STATUS_USAGE
    told = [*faults]  # the file may have changed since the check

    def serve(ward: Ward | None) -> int:
        if ward is not None and ward.life.number:
            # Perhaps the one that has died had no time for it.
            if not ward.say_taken(old):
                return background.STATUS_FATAL
            return serving.go_on(config, parsed, ward)
        return _obey(config, parsed, old, told, ward)

    return serving.keep(config, parsed, told, serve)


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
    with serving.Held(held, ward):
        serving.run(daemon, held, serving.notifier(ward))
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
    daemon = assembly.assemble(
        config, parsed, listener, daemon_log, xen, came_by_update=order.asked
    )
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
