# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state of a foreign xenstored becomes that of a fresh server of ours.

The order: the store; connections with their rings and sockets; targets and watches, none of which
gets a first event; limits; what was under way on each connection.  Nobody is served meanwhile.
Then, by go_on(), rings are mapped and served, and Xen is asked about all domains: some may have
died when nobody listened.

C xenstored leaves its event channels bound, on a descriptor that came with them, and the interrupt
for dying domains unbound.  oxenstored leaves both bound and says where (`evtchn-dev` in its file);
older ones leave neither, so everything is bound anew.
"""

from __future__ import annotations

from pyxsd.domains import MFN_UNKNOWN
from pyxsd.xen import Lookups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pyxsd.state.host_state import Client, HostState
    from pyxsd.switch.inherited import Inherited
    from pyxsd.system.configuration import Config

#: Where domain 0's page and port are said to be, where the configuration does not say it: the
#: places that C xenstored has built in.
KVA_FILE, PORT_FILE = "/proc/xen/xsd_kva", "/proc/xen/xsd_port"


class Arrival:
    """One state on its way into a server.

    xen is None where Xen is missing.  adopt(fd) connects a socket.  warn(text) is told of all that
    is not as it was: nothing of it ends the process, since nobody else serves the host.
    """

    def __init__(
        self,
        found: Inherited,
        config: Config,
        server: Any,
        domains: Any,
        adopt: Callable[[int], Any],
        warn: Callable[[str], None],
    ) -> None:
        self.state: HostState = found.state
        self.tree: Any = found.nodes.tree
        self.sockets = found.sockets
        self.server = server
        self.domains = domains
        self.kva = config.xenstored_kva or KVA_FILE
        self.port_file = config.xenstored_port or PORT_FILE
        self._adopt = adopt
        self._warn = warn

    def build(self, limits: Mapping[str, int], bound: bool) -> None:
        """Puts everything into the server.  limits: those of the command line; bound: are the
        local ports of the state bound on our event channels?"""
        self.server.set_tree(self.tree)
        self._set_limits(limits)
        connected = []
        lookups = self._lookups() if bound else None
        try:
            for client in self.state.clients:
                connection = self._connect(client, bound, lookups)
                if connection is not None:
                    connected.append((client, connection))
        finally:
            if lookups is not None:
                lookups.close()
        most = self.server.quota("watches")
        self.server.set_quota("watches", 0)  # one that is lower takes no watches away
        for client, connection in connected:
            self._restore(client, connection)
        self.server.set_quota("watches", most)

    def go_on(self) -> None:
        """Maps the rings that came bound, serves all of them, and looks who has died."""
        domains = self.domains
        if domains.xen is None:
            return
        domains.map_taken_over(self.kva, alone=True)
        domains.identify()
        domains.go_on()
        domains.on_virq()

    # -- limits ---------------------------------------------------------------

    def _set_limits(self, limits: Mapping[str, int]) -> None:
        told = {
            name.decode("latin-1"): value
            for name, value in [
                *self.state.global_quotas.items(),
                *self.state.domain_quotas.items(),
            ]
        }
        for name, value in {**limits, **told}.items():
            try:
                self.server.set_quota(name, value)
            except KeyError:
                pass  # C has some that do not exist here, such as that of memory
            except ValueError as error:
                self._warn(str(error))

    # -- connections ----------------------------------------------------------

    def _lookups(self) -> Lookups | None:
        try:
            return Lookups()
        except OSError as error:
            self._warn(f"remote ports of domains cannot be found: {error.strerror}")
            return None

    def _connect(self, client: Client, bound: bool, lookups: Lookups | None) -> Any:
        """Its connection; None where it cannot be had."""
        if client.domid is None:
            try:
                return self._adopt(client.fd) if client.fd in self.sockets else None
            except OSError as error:
                self._warn(f"{client.name} is lost: {error.strerror}")
                return None
        domains = self.domains
        if domains.xen is None:
            self._warn(f"{client.name} is not served: Xen is missing")
            return None
        if not bound or not client.local_port:
            return self._bind(client, client.domid)
        remote = client.remote_port
        if remote is None or client.domid == 0:
            remote = self._remote_port(client, lookups)
        mfn = client.mfn
        if mfn is None:
            mfn = self._frame(client.domid, lookups)
        return domains.take_over(
            client.domid, mfn, remote, client.local_port, client.unique_id or 0
        )

    def _bind(self, client: Client, domid: int) -> Any:
        """A domain whose port has to be bound anew, by the port of its own end."""
        domains = self.domains
        try:
            if domid == 0:
                domains.start_domain0(self.kva, self.port_file)
            elif client.remote_port is None:
                self._warn(f"{client.name} is not served: its port is not known")
                domains.keep(domid, MFN_UNKNOWN if client.mfn is None else client.mfn)
            elif not domains.restore(
                domid, MFN_UNKNOWN if client.mfn is None else client.mfn, client.remote_port, None
            ):
                self._warn(f"domain {domid} is gone")
                self.server.forget_domain(domid)
        except (OSError, ValueError) as error:
            self._warn(f"{client.name} is not served: {error}")
        return self.server.domains.get(domid)

    def _remote_port(self, client: Client, lookups: Lookups | None) -> int:
        """The port of the domain's own end; 0 where it cannot be told."""
        if lookups is None or client.local_port is None or client.domid is None:
            return 0
        try:
            return lookups.remote_port(client.domid, client.local_port)
        except OSError as error:
            self._warn(f"{client.name}: its port is not known: {error.strerror}")
            return 0

    def _frame(self, domid: int, lookups: Lookups | None) -> int:
        """The number that a domain was introduced with, as far as anybody tells: the toolstack's
        node, where the guest could not change it, else Xen."""
        if domid == 0:
            return 0
        found = self.tree.get([b"local", b"domain", b"%d" % domid, b"store", b"ring-ref"])
        (owner, _), *others = found[0] if found is not None else [(-1, 0)]
        value = found[1] if found is not None else b""
        if (
            value.isdigit()
            and len(value) < 19
            and owner == 0
            and not any(access & 2 for _, access in others)
        ):
            return int(value)
        try:
            return lookups.store_frame(domid) if lookups is not None else MFN_UNKNOWN
        except OSError:
            return MFN_UNKNOWN  # a domain without such parameters

    # -- what belongs to a connection -----------------------------------------

    def _restore(self, client: Client, connection: Any) -> None:
        server = self.server
        settings = self.state.settings.get(-1 if client.domid is None else client.domid)
        for path, token, depth in client.watches:
            server.restore_watch(connection, path, token, None if depth is None else b"%d" % depth)
        if settings is not None:
            self._restore_settings(connection, settings.quotas)
        if client.target is not None:
            server.set_target(connection, client.target)
        if client.input or client.output:
            try:
                server.restore_stream(connection, client.input, client.output, client.torn)
            except (ValueError, OverflowError) as error:
                self._warn(f"{client.name}: what was under way is lost: {error}")

    def _restore_settings(self, connection: Any, quotas: Mapping[bytes, int]) -> None:
        for name, value in quotas.items():
            try:
                self.server.set_quota(name.decode("latin-1"), value, connection)
            except (KeyError, ValueError):
                pass  # it is not one that a domain has of its own here


def says_device(state: HostState) -> bool:
    """Does the file say that the interrupt for dying domains is bound still?"""
    return state.kind == "db" and state.virq_port is not None
