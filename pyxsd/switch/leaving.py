# SPDX-License-Identifier: LGPL-2.1-or-later
"""This process becomes another xenstored, which goes on from a file and the descriptors that it
finds open.

to_c() and to_ox() write the file and prepare; become() executes the program.  Nobody is served from
the beginning of the one to the end of the other, and until the program is executed everything can
be undone: undo() makes this process the daemon that it was.  Where the process dies meanwhile, and
another one goes on in its place, take_back() does so.

C xenstored finds the event channels bound, but for the interrupt for dying domains, which it binds.
oxenstored finds nothing bound: its versions differ in what they can take over, and Xen lets a port
that is bound anew fire once, so that no kick is lost.
"""

from __future__ import annotations

import os
import struct

from pyxsd.domains import MFN_UNKNOWN
from pyxsd.state import carry, node_writing
from pyxsd.state.database import write_db
from pyxsd.state.dump import perms_text
from pyxsd.state.host_state import Client, HostState, Node, Permission
from pyxsd.state.picture import state_of
from pyxsd.state.stream import Layout
from pyxsd.state.stream_writer import entries_of, write_stream
from pyxsd.switch.c_paths import is_watchable
from pyxsd.switch.inherited import DB_NAME, stream_paths
from pyxsd.switch.target import C
from pyxsd.system.configuration import load
from pyxsd.system.files import write_whole
from pyxsd.update.program import ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pyxsd.keeper.ward import Ward

_HEADER = struct.Struct("=IIII")  # of a packet: type, request id, transaction, length
WATCH_EVENT = 15
OK = b"OK\0"
UNPROTECTED = (
    "crash recovery is on and has no room: nobody could take the switch back.  Set "
    "crash-recovery = false in the configuration, and update pyxsd first"
)


class Leaving:
    """One daemon on its way into another program."""

    def __init__(self, daemon: Any) -> None:
        self._daemon = daemon
        self._files: list[str] = []
        self._changed: list[tuple[int, bool]] = []  # descriptors; did each one block?
        self._has_left_interrupt = False
        self.losses: list[str] = []  # what the file does not say, for the log

    # -- C xenstored ----------------------------------------------------------

    def to_c(self, asked: Any, environ: Mapping[str, str]) -> None:
        """Writes the stream and prepares all descriptors; OSError, ProgramError.

        asked: the connection that waits for the outcome; it gets its OK from the other program.
        """
        state = self._picture("stream")
        for client in state.clients:
            client.output += b"".join(_event(*event) for event in client.waiting)
            client.waiting = []
            if client.number == asked.id:
                type_, req_id, tx_id = asked.asked_for
                client.output += _HEADER.pack(type_, req_id, tx_id, len(OK)) + OK
            fit = [watch for watch in client.watches if is_watchable(watch.path)]
            if len(fit) < len(client.watches):
                self.losses.append(
                    f"{client.name}: {len(client.watches) - len(fit)} watches on "
                    "paths that C xenstored refuses"
                )
            client.watches = fit
        fit_state, losses = carry.for_stream(state.replaced(settings={}, domain_quotas={}))
        self.losses += losses
        if fit_state.clients[:1] == [] or fit_state.clients[0].domid != 0:
            raise ProgramError("domain 0 has no ring: C xenstored would end")
        data = write_stream(fit_state, nodes=self._records(fit_state))
        paths = stream_paths(self._daemon.run_directory, environ)
        for path in paths:
            if path == paths[0] or os.path.isdir(os.path.dirname(path)):
                self._write(path, data)
        self._pass_on(_sockets(self._daemon))
        xen, domains = self._daemon.domains.xen, self._daemon.domains
        self._pass_on([xen.fileno()])
        if domains.virq_port:
            domains.leave_interrupt()
            self._has_left_interrupt = True

    # -- oxenstored -----------------------------------------------------------

    def to_ox(self, config_file: str) -> None:
        """Writes the dump and prepares the descriptors; OSError, ProgramError.

        config_file: that of the other program, whose limits hold when it reads.
        """
        state = self._picture("db")
        refusals = _beyond_limits(state, self._daemon.server.tree, config_file)
        for client in state.clients:
            if client.domid is None:
                continue
            if client.mfn == MFN_UNKNOWN or not client.remote_port:
                refusals.append(
                    f"{client.name}: the page or the port that it was introduced with is not known"
                )
            # It binds its end anew.
            client.local_port = None
        if refusals:
            raise ProgramError("\n".join(refusals))
        for client in state.clients:
            for watch in client.watches:
                if watch.depth is not None:
                    self.losses.append(
                        f"{client.name}: the watch on {watch.path!r} loses its depth"
                    )
            client.watches = [watch._replace(depth=None) for watch in client.watches]
        fit_state, losses = carry.for_db(state.replaced(settings={}, domain_quotas={}))
        self.losses += losses
        self._write(
            os.path.join(self._daemon.run_directory, DB_NAME),
            write_db(
                fit_state.replaced(evtchn=-1, virq_port=None),
                node_writing.lines(
                    self._daemon.server.tree,
                    lambda entries: perms_text(entries, b"\0").hex().encode(),
                ),
            ),
        )
        self._pass_on(_sockets(self._daemon))

    def _records(self, state: HostState) -> bytes:
        """The nodes, with what C xenstored cannot have of them among the losses."""
        rings = {client.domid for client in state.clients if client.domid is not None}
        layout = Layout(False)

        def fit(entries: list[tuple[int, int]], path: bytes, losses: list[str]) -> bytes:
            node = Node(path, tuple(Permission(*entry) for entry in entries), b"")
            found = carry.node_for_stream(node, rings, set(), losses)
            assert found is not None
            return entries_of(found.permissions, layout)

        def encode(entries: list[tuple[int, int]]) -> tuple[bytes, bool]:
            losses: list[str] = []
            return fit(entries, b"/", losses), bool(losses)

        written, too_large = node_writing.records(
            self._daemon.server.tree,
            encode,
            lambda entries, path: fit(entries, path, self.losses),
        )
        self.losses += [f"the node {path[:64]!r} is too large" for path in too_large]
        return written

    # -- both -----------------------------------------------------------------

    def undo(self) -> None:
        """Nothing came of it: this process is the daemon again.  Never fails but for the interrupt,
        which is told in the log."""
        for path in self._files:
            try:
                os.unlink(path)
            except OSError:
                pass  # somebody removed it
        for fd, blocked in self._changed:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, blocked)
        self._files, self._changed = [], []
        if self._has_left_interrupt:
            self._has_left_interrupt = False
            _bind_interrupt(self._daemon)

    def _picture(self, kind: str) -> HostState:
        """The whole state but the nodes, with the descriptors, rings and ports of this process."""
        daemon, domains = self._daemon, self._daemon.domains
        state = state_of(daemon.server, None, {}, with_nodes=False)
        state.kind, state.version = kind, 1
        state.listener = daemon.listener
        state.evtchn = domains.xen.fileno() if domains.xen is not None else -1
        by_id = daemon.server.connections
        for client in state.clients:
            _fill(client, by_id[client.number], domains)
        return state

    def _pass_on(self, descriptors: Sequence[int]) -> None:
        """They survive, and block: C xenstored drops a client whose header and payload come apart
        where its socket does not."""
        for fd in descriptors:
            self._changed.append((fd, os.get_blocking(fd)))
            os.set_inheritable(fd, True)
            os.set_blocking(fd, True)

    def _write(self, path: str, data: bytes) -> None:
        write_whole(path, lambda out: out.write(data))
        self._files.append(path)


def take_back(daemon: Any, kind: str) -> None:
    """What undo() does, for a process that has died on its way to a program of that kind, C or
    OX.  Some of it may not have come about."""
    directory = daemon.run_directory
    for path in (
        stream_paths(directory, os.environ) if kind == C else [os.path.join(directory, DB_NAME)]
    ):
        try:
            os.unlink(path)
        except OSError:
            pass  # it was not written
    xen = daemon.domains.xen
    for fd in [*_sockets(daemon), *([] if xen is None else [xen.fileno()])]:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
    if xen is not None and not daemon.domains.virq_port:
        _bind_interrupt(daemon)


def become(command: Sequence[str], ward: Ward | None) -> None:
    """Executes the program in the place of this one, or of its keeper where it has one, with the
    process id that everybody knows; OSError where that cannot be.  Not every failure comes back:
    another process goes on from one of the keeper's."""
    if ward is None or not ward.has_keeper():
        os.execv(command[0], list(command))
    elif not ward.is_made_up_for():
        raise ProgramError(UNPROTECTED)
    else:
        ward.becomes(list(command))


def _sockets(daemon: Any) -> list[int]:
    """The listening one, and all clients'."""
    found = [daemon.listener] if daemon.listener >= 0 else []
    return found + [c.transport.fileno() for c in daemon.server.connections.values() if c.is_socket]


def _bind_interrupt(daemon: Any) -> None:
    try:
        daemon.domains.start()
    except OSError as error:
        daemon.log("error", f"deaths of domains will not be seen: {error.strerror}")


def _fill(client: Client, connection: Any, domains: Any) -> None:
    """What only this process knows of a connection."""
    if client.domid is None:
        client.fd = connection.transport.fileno()
        return
    domain = domains.table.get(client.domid)
    if domain is not None:
        client.mfn, client.remote_port = domain.mfn, domain.remote_port
        client.local_port, client.unique_id = domain.port, domain.unique_id


def _event(path: bytes, token: bytes) -> bytes:
    """A watch event as a packet."""
    body = path + b"\0" + token + b"\0"
    return _HEADER.pack(WATCH_EVENT, 0, 0, len(body)) + body


def _beyond_limits(state: HostState, tree: Any, config_file: str) -> list[str]:
    """What a reader with this configuration would drop without a word, a line each."""
    config = load(config_file)[0]
    found = []
    if config.quota_activate and config.quota_maxsize >= 0:
        found += [
            f"the value of {path[:64]!r} has {size} bytes, quota-maxsize "
            f"allows {config.quota_maxsize}"
            for path, size in node_writing.longer(tree, config.quota_maxsize)
        ]
    if config.quota_activate and config.quota_maxwatch > 0:
        found += [
            f"{client.name} has {len(client.watches)} watches, quota-maxwatch allows "
            f"{config.quota_maxwatch}"
            for client in state.clients
            if client.domid and len(client.watches) > config.quota_maxwatch
        ]
    return found
