# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image has in common with other daemons' state files, as a `HostState`."""

from __future__ import annotations

from pyxsd._limits import QUOTAS
from pyxsd.state import image, records, surroundings, trial
from pyxsd.state.host_state import Client, HostState, Node, Permission, Settings, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.state.surroundings import Row, Surroundings


def read_image(data: bytes) -> HostState:
    """The state that an image's bytes hold; StateError."""
    found = image.read(data)
    around, rows = surroundings.read(found)
    server = trial.loaded(found, any_key=True)
    try:
        return state_of(server, around, {row.domid: row for row in rows})
    finally:
        server.close()


def state_of(
    server: Any, around: Surroundings | None, rows: dict[int, Row], with_nodes: bool = True
) -> HostState:
    """What a server holds, and what an image says of its surroundings; without one (None) nothing
    is known of descriptors, rings and ports."""
    state = HostState("image", version=records.VERSION)
    sockets = {}
    if around is not None:
        state.listener, state.evtchn = around.listener, around.channels
        state.virq_port = around.virq_port or None
        sockets = dict(around.sockets)
    state.domain_quotas = {quota.name.encode(): server.quota(quota.name) for quota in QUOTAS}
    for connection in server.connections.values():
        client = _client(connection)
        client.fd = sockets.get(connection.id, -1)
        if not connection.is_socket and connection.domid in rows:
            row = rows[connection.domid]
            client.mfn, client.remote_port, client.local_port = row.mfn, row.remote_port, row.port
            client.unique_id, client.indices = row.unique_id, row.indices
        state.clients.append(client)
        if not connection.is_socket:
            own = {
                name.encode(): server.quota(name, connection)
                for name in ("nodes", "watches", "transactions")
            }
            state.settings[connection.domid] = Settings(
                connection.features,
                {name: value for name, value in own.items() if value != state.domain_quotas[name]},
            )
    if with_nodes:
        state.nodes = _nodes(server.tree)
    return state


def _nodes(tree: Any) -> list[Node]:
    found: list[Node] = []
    lists: dict[tuple[tuple[int, int], ...], tuple[Permission, ...]] = {}
    for names, permissions, value in tree.walk():
        special = len(names) == 1 and names[0].startswith(b"@")
        key = tuple(permissions)
        if key not in lists:
            lists[key] = tuple(Permission(domid, access) for domid, access in permissions)
        found.append(Node(names[0] if special else b"/" + b"/".join(names), lists[key], value))
    return found


def _client(connection: Any) -> Client:
    return Client(
        None if connection.is_socket else connection.domid,
        number=connection.id,
        target=None if connection.target < 0 else connection.target,
        torn=connection.torn_output,
        input=connection.partial_input,
        output=connection.pending_output,
        watches=[Watch(*watch) for watch in connection.watch_list()],
        waiting=image.waiting_events(connection),
        transactions={number: len(txn.requests) for number, txn in connection.transactions.items()},
    )
