# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a format cannot hold is taken out of a state, and told.

Each function returns another state that the format's writer takes and that the daemon of that
format can go on with, and one line for each thing that is lost on the way.
"""

from __future__ import annotations

from pyxsd.state.host_state import Client, HostState, Node, Permission

UINT16_MAX = 0xFFFF
DOMID_MAX = 0x7FEF


def for_stream(state: HostState, version: int = 1) -> tuple[HostState, list[str]]:
    """For C xenstored.

    Its reader needs a ring of domain 0, first of all connections, and a connection of each
    domain that owns a node; a file without them ends it.
    """
    losses: list[str] = []
    rings = {client.domid for client in state.clients if client.domid is not None}
    if 0 not in rings:
        losses.append("domain 0 has no ring: C xenstored does not start from such a file")
    clients = [
        _for_stream(_common(client, losses), losses)
        for client in sorted(state.clients, key=lambda client: client.domid != 0)
    ]
    known = {
        permissions
        for permissions in {node.permissions for node in state.nodes}
        if all(entry.domid in rings for entry in permissions)
    }
    nodes = [
        fit
        for node in state.nodes
        if (fit := node_for_stream(node, rings, known, losses)) is not None
    ]
    if version < 2 and (state.domain_quotas or state.global_quotas or state.settings):
        losses.append("quotas and features are not in a stream of version 1")
    return state.replaced(
        kind="stream",
        version=version,
        clients=clients,
        nodes=nodes,
        virq_port=None,
        faults=[],
    ), losses


def _for_stream(client: Client, losses: list[str]) -> Client:
    if client.domid is not None and client.local_port is None:
        losses.append(f"{client.name}: its local port is not known, 0 is written")
    watches = []
    for watch in client.watches:
        if watch.depth is not None:
            losses.append(f"{client.name}: the watch on {watch.path!r} loses its depth")
        watches.append(watch._replace(depth=None))
    given, output, torn = client.input, client.output, client.torn
    if len(given) > UINT16_MAX or torn > UINT16_MAX:
        losses.append(f"{client.name}: {len(given)} bytes of requests are too many")
        given = b""
    return client.replaced(
        watches=watches,
        input=given,
        output=output,
        mfn=None,
        remote_port=None,
        indices=None,
        local_port=client.local_port or 0 if client.domid is not None else None,
    )


def node_for_stream(
    node: Node, rings: set[int], known: set[tuple[Permission, ...]], losses: list[str]
) -> Node | None:
    """A node for C xenstored, None where it is too large; losses: gets what is lost.

    rings: the domids with a connection; known: permission lists that only name those."""
    path = node.path
    if (
        len(path) >= UINT16_MAX
        or len(node.value) > UINT16_MAX
        or len(node.permissions) > UINT16_MAX
    ):
        losses.append(f"the node {path[:64]!r} is too large")
        return None
    if node.permissions in known:
        return node
    owner, *others = node.permissions
    if owner.domid not in rings and owner.domid != 0:
        losses.append(
            f"the node {path[:64]!r}: its owner, domain {owner.domid}, has no "
            "connection; domain 0 owns it now"
        )
        owner = Permission(0, owner.access, owner.stale)
    kept = [owner]
    for entry in others:
        if not 0 <= entry.domid <= UINT16_MAX:
            losses.append(f"the node {path[:64]!r}: the entry of domain {entry.domid} is dropped")
        elif entry.domid not in rings and entry.domid <= DOMID_MAX:
            kept.append(entry._replace(stale=True))
        else:
            kept.append(entry)
    return node._replace(permissions=tuple(kept))


def _common(client: Client, losses: list[str]) -> Client:
    """Neither format has open transactions and waiting events."""
    if client.transactions:
        losses.append(f"{client.name}: {len(client.transactions)} open transactions")
    if client.waiting:
        losses.append(f"{client.name}: {len(client.waiting)} events that wait")
    return client.replaced(transactions={}, waiting=[])


def for_db(state: HostState) -> tuple[HostState, list[str]]:
    """For oxenstored.  A ring's page and remote port are written as 0 where they are not known:
    the domain has to be introduced again then."""
    losses: list[str] = []
    clients = [_for_db(_common(client, losses), losses) for client in state.clients]
    nodes = [node._replace(permissions=_without_stale(node, losses)) for node in state.nodes]
    if state.domain_quotas or state.global_quotas or state.settings:
        losses.append("quotas and features are not in a dump")
    return state.replaced(
        kind="db",
        version=1,
        big_endian=False,
        clients=clients,
        nodes=nodes,
        domain_quotas={},
        global_quotas={},
        settings={},
        faults=[],
    ), losses


def _for_db(client: Client, losses: list[str]) -> Client:
    if client.target is not None:
        losses.append(f"{client.name} acts for domain {client.target}")
    given, output, torn = client.input, client.output, client.torn
    if client.indices is None and (given or output):
        losses.append(
            f"{client.name}: {len(given)} bytes of requests and {len(output)} bytes "
            "of replies are under way"
        )
        given, output, torn = b"", b"", 0
    mfn, remote = client.mfn, client.remote_port
    if client.domid is not None:
        if mfn is None or remote is None:
            losses.append(f"{client.name}: its page or its remote port is not known, 0 is written")
        mfn, remote = mfn or 0, remote or 0
    return client.replaced(
        number=0,
        target=None,
        mfn=mfn,
        remote_port=remote,
        input=given,
        output=output,
        torn=torn,
        unique_id=client.unique_id if client.indices is not None else None,
    )


def _without_stale(node: Node, losses: list[str]) -> tuple[Permission, ...]:
    owner, *others = node.permissions
    kept = tuple(entry for entry in others if not entry.stale)
    if owner.stale or len(kept) < len(others):
        losses.append(f"the node {node.path[:64]!r}: entries of domains that are gone")
    return (owner._replace(stale=False), *kept)
