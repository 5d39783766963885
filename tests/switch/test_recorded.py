# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd goes on from each state that a real daemon has left, and clients get what that daemon's own
successor gave them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.domains.standin import require
from tests.state.recorded import FILES
from tests.switch.left import Left
from tests.world import TYPES

NAMES = {number: name for name, number in TYPES.items()}


@pytest.fixture(name="host", params=FILES, ids=lambda path: path.stem)
def a_host(request: pytest.FixtureRequest) -> Iterator[Left]:
    try:
        host = Left(request.param)
    except RuntimeError as error:
        require(str(error))
    try:
        yield host
    finally:
        host.stop()


#: By recording: steps at which pyxsd does something else, and why.
DIFFERENT: dict[str, dict[int, str]] = {
    "c417-transactions": dict.fromkeys((6, 7, 9), "a transaction that is not known is EIO here"),
    "chead-transactions": dict.fromkeys((6, 7, 9), "a transaction that is not known is EIO here"),
    "c417-tree": {5: "names are sorted", 6: "what was stale is gone"},
    "chead-tree": {5: "names are sorted", 6: "what was stale is gone"},
    "chead-depth2": {5: "the real reader had lost a connection and its watch"},
    **dict.fromkeys(
        ("c417-domains", "chead-domains"),
        {16: "no event for the nodes of a domain that was released"},
    ),
    "c417-stale": dict.fromkeys((5, 6), "the entry is not marked: it holds for the domid"),
    **dict.fromkeys(
        ("c417-sockets", "chead-sockets"), {6: "two watches with one token are two events"}
    ),
}


#: A request that was held back changes the tree.
SERVED = {"c417-delayed"}


def step(host: Left, row: dict[str, Any]) -> Any:
    """Does one step of a recording; what differs from it, or None."""
    client = host.clients.get(row["conn"])
    if "raw" in row:
        assert client is not None
        client.write(bytes.fromhex(row["raw"]))
        type_, req_id, tx_id, body = client.packet()
        told = [NAMES[type_], req_id, tx_id, body.hex()]
        return None if told == row["received"] else [row["received"], told]
    payload = bytes.fromhex(row["payload"])
    if row["type"] == "INTRODUCE":
        payload = host.prepare(payload)
    type_, body = host.clients[row["conn"]].ask(row["type"], payload, row["tx"])
    if row["type"] == "RELEASE":
        host.clients.pop(f"d{payload[:-1].decode()}", None)
    told = [NAMES[type_], body.hex()]
    events = host.collect()
    # The order of the events of several watches on one node is each daemon's own.
    same = {name: sorted(each) for name, each in events.items()} == {
        name: sorted(each) for name, each in row["events"].items()
    }
    return (
        None
        if told == row["reply"] and same
        else [row["type"], payload, row["reply"], told, row["events"], events]
    )


def test_it_goes_on(host: Left) -> None:
    dead = host.stem.endswith("dead_domains")
    # Nobody tells here which frames the domains were introduced with.
    host.start(faults=("param * EINVAL", "map 4 EINVAL") if dead else ("param * EINVAL",))
    if dead:
        host.clients.pop("d4")
    wrong: list[Any] = host.under_way()
    if dead:
        # One domain had shut down and one was gone; an event that waits already is not doubled.
        events = host.collect()
        assert set(events) == {"s0"} and set(events["s0"]) == {b"@releaseDomain\0rel\0".hex()}
    elif host.stem not in SERVED:
        assert host.tree() == host.wanted_tree()
    assert host.outcome() == b"OK"
    differ = DIFFERENT.get(host.stem, {})
    for number, row in enumerate(host.want.get("then") or []):
        # C's texts of CONTROL are its own; `do`: see under_way(); nobody was there to time out.
        if "do" in row or row.get("type") == "CONTROL" or row.get("reply") == ["TIMEOUT", ""]:
            continue
        difference = step(host, row)
        if (difference is not None) != (number in differ):
            wrong.append([number, difference])
    assert not wrong, "\n".join(map(str, wrong)) + host.log()
    assert host.file.exists() == (host.state.kind == "db")
