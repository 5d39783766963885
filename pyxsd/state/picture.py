# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image has in common with other daemons' state files, as a `HostState`.

The image is loaded into a server of its own, which nobody connects to.
"""

from __future__ import annotations

from pyxsd._core import Server
from pyxsd._limits import QUOTAS
from pyxsd._wire import Transport
from pyxsd.state import image, records
from pyxsd.state.host_state import Client, HostState, Node, Permission, Settings, Watch
from pyxsd.system.configuration import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Nobody:
    """The host of a server that serves nobody."""

    def log(self, level: str, facility: str, text: str) -> None:
        """Goes nowhere."""

    def complain(self, kind: str, text: str) -> None:
        """Goes nowhere."""


def read_image(data: bytes) -> HostState:
    """The state that an image's bytes hold; StateError."""
    server = Server(Config(), _Nobody())
    try:
        image.load(image.read(data), server, 0.0, lambda _number, _domid: Transport(),
                   any_key=True)
        return _state(server)
    finally:
        server.close()


def _state(server: Any) -> HostState:
    state = HostState("image", version=records.VERSION)
    state.domain_quotas = {quota.name.encode(): server.quota(quota.name) for quota in QUOTAS}
    for connection in server.connections.values():
        state.clients.append(_client(connection))
        if not connection.is_socket:
            own = {name.encode(): server.quota(name, connection)
                   for name in ("nodes", "watches", "transactions")}
            state.settings[connection.domid] = Settings(connection.features, {
                name: value for name, value in own.items() if value != state.domain_quotas[name]})
    for names, permissions, value in server.tree.walk():
        special = len(names) == 1 and names[0].startswith(b"@")
        state.nodes.append(Node(
            names[0] if special else b"/" + b"/".join(names),
            tuple(Permission(domid, access) for domid, access in permissions), value))
    return state


def _client(connection: Any) -> Client:
    return Client(
        None if connection.is_socket else connection.domid, number=connection.id,
        target=None if connection.target < 0 else connection.target,
        torn=connection.torn_output, input=connection.partial_input,
        output=connection.pending_output,
        watches=[Watch(*watch) for watch in connection.watch_list()],
        waiting=image.waiting_events(connection),
        transactions={number: len(txn.requests)
                      for number, txn in connection.transactions.items()})
