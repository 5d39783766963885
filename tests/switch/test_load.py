# SPDX-License-Identifier: LGPL-2.1-or-later
"""There and back under load, with Debian's own daemons: no client sees an error, and no byte is
lost or comes twice.

Sockets that ask one thing at a time and some that pipeline, watches, transactions, connects and
closes, rings of guests that kick only where they must.  Every reply is checked by its id and its
content, every event by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.daemon import Client
from tests.domains.standin import GONE, IDLE, home, introduce, works
from tests.switch.kit import KeptStand, SwitchedStand, a_stand, must_switch, real
from tests.update.test_load import Load, come_and_go, frugal, one_at_a_time, pipelined, watched

ROUNDS = 5


KINDS = [
    pytest.param((kind, name), id=f"{name}-{kind.__name__}")
    for name in ("xenstored", "oxenstored")
    for kind in (SwitchedStand, KeptStand)
]


@pytest.fixture(name="stand", params=KINDS)
def started(request: pytest.FixtureRequest) -> Iterator[SwitchedStand]:
    with a_stand(*request.param) as stand:
        yield stand


def transactions(client: Client, path: bytes) -> Callable[[int], None]:
    """Writes a number in a transaction and reads it behind it.  No switch ends one that is open;
    where somebody has come between, it is begun anew."""

    def once(n: int) -> None:
        text = b"%d" % n
        type_, number = client.ask("TRANSACTION_START", b"\0")
        assert type_ == 6, number
        tx_id = int(number[:-1])
        assert client.ask("WRITE", path + b"\0" + text, tx_id) == (11, b"OK\0")
        ended = client.ask("TRANSACTION_END", b"T\0", tx_id)
        if ended != (16, b"EAGAIN\0"):
            assert ended == (7, b"OK\0")
            assert client.ask("READ", path + b"\0") == (2, text)

    return once


def test_there_and_back_under_load(stand: Any) -> None:
    stand.start()
    program = stand.pyxsd()
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in range(5, 9)]
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
            home(client, domain.domid)
            path = b"/local/domain/%d/store/ring-ref\0" % domain.domid
            assert client.ask("WRITE", path + b"4660")[1] == b"OK\0"
            assert client.ask("SET_PERMS", path + b"n0\0")[1] == b"OK\0"
            works(domain, client)
        load: Any = Load(stand)
        clients = [stand.client() for _ in range(6)]
        for i in range(2):
            load.run(f"one at a time {i}", one_at_a_time(clients[i], b"/tool/one%d" % i))
        load.run("pipelined", pipelined(clients[2], b"/tool/many"))
        load.run("watched", watched(clients[3], clients[4], b"/tool/seen"))
        load.run("transactions", transactions(clients[5], b"/tool/tx"))
        load.run("come and go", come_and_go(stand))
        load.run("frugal", frugal(stand, domains))
        load.goes_on()
        for _ in range(ROUNDS):
            must_switch(stand, client, program, "pyxsd")
            load.goes_on()
            must_switch(stand, client, real(stand.name), stand.name)
            load.goes_on()
        load.end()
        for each in clients:
            each.close()
        stand.settles((IDLE[0] + len(domains), IDLE[1] + len(domains)))
        # Deaths are still noticed, and nobody has two ports.
        client.ask("WATCH", b"@releaseDomain\0t\0")
        client.event()
        for domain in domains:
            works(domain, client)
            stand.host.set_state(domain.domid, GONE)
        assert client.event() == b"@releaseDomain\0t\0"
        stand.settles()
