# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ended, killed and started again: what a --restart brings back, what a killed daemon held."""

from __future__ import annotations

from typing import Any

import pytest

from tests.domains.standin import GONE, IDLE, WATCH_EVENT, Stand, guests, home, introduce, works
from tests.world import packet

READ, WATCH = 2, 4


def prepare(stand: Stand) -> list[Any]:
    """Three domains with homes, one of which watches."""
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in (3, 5, 7)]
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
            home(client, domain.domid)
            works(domain, client)
        watcher = domains[1]
        assert watcher.request(WATCH, b"in\0tok\0").payload == b"OK\0"
        assert watcher.packet().payload == b"in\0tok\0"
        client.ask("WRITE", b"/tool/x\0kept")
    return domains


def test_restart(stand: Stand) -> None:
    """SIGTERM writes the store and the domains; --restart brings back both and the watches."""
    domains = prepare(stand)
    stand.terminate()
    assert (stand.root / "run" / "db").stat().st_size > 100
    for domain in domains:
        assert domain.get("connection") == 0
    stand.start("--restart")
    assert stand.held() == (IDLE[0] + 3, IDLE[1] + 3), stand.log()
    with stand.client() as client:
        assert client.ask("READ", b"/tool/x\0")[1] == b"kept"
        for domain in domains:
            assert client.ask("IS_DOMAIN_INTRODUCED", b"%d\0" % domain.domid)[1] == b"T\0"
            works(domain, client)
        client.ask("WRITE", b"/local/domain/5/in/a\0v")
        event = domains[1].packet()
        assert (event.type, event.payload) == (WATCH_EVENT, b"in/a\0tok\0")
        for domain in domains:
            stand.host.set_state(domain.domid, GONE)
        stand.settles()


def test_a_request_written_while_nobody_listened(stand: Stand) -> None:
    """It is answered by the restarted daemon, without a kick."""
    domain = prepare(stand)[0]
    stand.terminate()
    domain.write(packet("READ", b"alive\0", req_id=9))
    stand.start("--restart")
    answer = domain.packet()
    assert (answer.type, answer.req_id, answer.payload) == (READ, 9, b"enif")


def test_restart_after_deaths(stand: Stand) -> None:
    """Who died meanwhile is gone, with its nodes; the others are served."""
    domains = prepare(stand)
    stand.terminate()
    stand.host.set_state(5, GONE)
    stand.start("--restart")
    with stand.client() as client:
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"ENOENT\0"
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"F\0"
        for domain in (domains[0], domains[2]):
            works(domain, client)
        assert stand.held() == (IDLE[0] + 2, IDLE[1] + 2)


def test_killed(stand: Stand) -> None:
    """What a killed daemon held is free: its successor, with an empty store,
    is introduced to all domains again."""
    domains = prepare(stand)
    stand.peer.kill()
    assert stand.host.ports_in_use() == 0
    stand.start()
    assert stand.held() == IDLE
    with stand.client() as client:
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
            home(client, domain.domid)
            works(domain, client)


def test_killed_and_restarted_from_an_older_state(stand: Stand) -> None:
    """SIGKILL writes nothing: --restart takes what the last orderly end has written."""
    domains = prepare(stand)
    stand.terminate()
    stand.start("--restart")
    with stand.client() as client:
        assert client.ask("WRITE", b"/tool/x\0lost")[1] == b"OK\0"
    stand.peer.kill()
    stand.start("--restart")
    with stand.client() as client:
        assert client.ask("READ", b"/tool/x\0")[1] == b"kept"
        for domain in domains:
            works(domain, client)
        assert stand.held() == (IDLE[0] + 3, IDLE[1] + 3)


def test_many_domains_come_back(stand: Stand) -> None:
    """Three hundred of them."""
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in range(1, 301)]
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
    stand.terminate()
    stand.start("--restart")
    assert stand.held() == (IDLE[0] + 300, IDLE[1] + 300)
    load = guests.Load(type=10, len=2, payload=b"5\0", depth=2, requests=3000)
    stand.host.run_load(domains, load)
    assert (load.replies, load.errors) == (3000, 0)


@pytest.mark.parametrize("fault", ["map 5 EPERM", "bind 5 EINVAL"])
def test_restart_where_a_domain_fails(stand: Stand, fault: str) -> None:
    """That domain is left out and said so; the rest is served."""
    domains = prepare(stand)
    stand.terminate()
    stand.host.set_faults(fault)
    stand.start("--restart")
    stand.host.set_faults()
    assert "domain 5" in stand.log()
    with stand.client() as client:
        for domain in (domains[0], domains[2]):
            works(domain, client)
    assert stand.held() == (IDLE[0] + 2, IDLE[1] + 2)


@pytest.mark.parametrize("damage", [b"", b"rubbish\n", b"\0" * 1000, b"cut"])
def test_restart_from_a_damaged_file(stand: Stand, damage: bytes) -> None:
    """It starts, serves, and domains can be introduced."""
    prepare(stand)
    stand.terminate()
    path = stand.root / "run" / "db"
    path.write_bytes(path.read_bytes()[:-37] if damage == b"cut" else damage)
    stand.start("--restart")
    with stand.client() as client:
        domain = stand.host.create(9)
        assert introduce(client, domain) == b"OK\0"
        home(client, 9)
        works(domain, client)
