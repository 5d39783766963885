# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image in memory has beside that of a live update, and records of it that are wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.recovery import beside
from pyxsd.state import image, records, values
from pyxsd.state.errors import StateError
from tests.unit.kit import ok
from tests.world import World


def host() -> tuple[Any, Any]:
    """A server with a client, and domains 3, 4 and 7, which have the ports 13, 14 and 17."""
    table = {
        domid: SimpleNamespace(
            domid=domid,
            port=10 + domid,
            unreadable=False,
            expected=None,
            connection=SimpleNamespace(domid=domid),
        )
        for domid in (3, 4, 7)
    }
    by_port = {domain.port: domain.connection for domain in table.values()}
    client = SimpleNamespace(id=2, refused=0)
    domains = SimpleNamespace(table=table, by_port=by_port)
    return SimpleNamespace(connections={2: client}), domains


def shown(server: Any, domains: Any) -> Any:
    return (
        [(port, connection.domid) for port, connection in domains.by_port.items()],
        [(d.domid, d.unreadable, d.expected) for d in domains.table.values()],
        [(c.id, c.refused) for c in server.connections.values()],
    )


def record(body: bytes) -> Any:
    return SimpleNamespace(type=beside.TYPE, body=body, place="record 9 (keep) at byte 40")


def test_all_of_it_comes_back() -> None:
    """The order of the ports, pages that cannot be read, indices that are expected, and how many
    requests of a client were refused; of what is not in it nothing is left."""
    server, domains = host()
    domains.by_port = dict(reversed(domains.by_port.items()))
    domains.table[4].unreadable = True
    domains.table[7].expected = (5, 6)
    server.connections[2].refused = 2
    type_, body = beside.write(server, domains)
    other = host()
    other[1].table[3].expected = (1, 1)
    beside.restore([record(body)], *other)
    assert type_ == beside.TYPE
    assert shown(*other) == shown(server, domains)
    assert other[1].by_port[17] is other[1].table[7].connection


ROW: dict[str, Any] = {"ports": [3, 4, 7], "unreadable": [], "expected": [], "refused": []}
#: What a record says instead; what the error says.
WRONG = [
    ({"ports": [3, 4]}, "the ports are not those of the domains"),
    ({"ports": [3, 4, 7, 9]}, "9"),
    ({"ports": 3}, "int"),
    ({"unreadable": [5]}, "5"),
    ({"expected": [[3, 1], 7]}, "int"),
    ({"refused": [[8, 1]]}, "8"),
]


@pytest.mark.parametrize(("row", "said"), WRONG)
def test_what_makes_no_sense(row: dict[str, Any], said: str) -> None:
    """The error names the record."""
    with pytest.raises(StateError, match=said) as caught:
        beside.restore([record(values.encode({**ROW, **row}))], *host())
    assert str(caught.value).startswith("record 9 (keep) at byte 40: ")


@pytest.mark.parametrize("body", [b"", b"\xff\xff", values.encode({**ROW})[:-1]])
def test_a_record_that_is_none(body: bytes) -> None:
    with pytest.raises(StateError, match="^record 9"):
        beside.restore([record(body)], *host())


def test_an_image_without_it(world: World) -> None:
    """As one that was written for a live update."""
    ok(world, "s0", "WRITE", b"/a\0v")
    written = bytearray()
    saving = image.Saving(world.server, written.extend)
    while not saving.step(1.0):
        pass
    assert any(
        found.type != beside.TYPE for found in records.read(memoryview(written), image.TYPES)
    )
    with pytest.raises(StateError, match="there is no record keep"):
        beside.read(memoryview(written))
