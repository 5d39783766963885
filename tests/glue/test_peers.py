# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's oxenstored and C xenstored, unchanged, on the stand-in: rings, death, faults."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import guest
import peers
import pytest
from conftest import Wire, missing

READ, WATCH, INTRODUCE, RELEASE, WRITE, SET_PERMS, ERROR = 2, 4, 8, 9, 11, 14, 16
#: A request that any domain may make.
GET_DOMAIN_PATH, PATH_OF = 10, b"0\0"
OK = b"OK\0"
#: Their ports and pages before any guest: dom0's channel and the VIRQ, dom0's page.
IDLE_PORTS, IDLE_PAGES = 2, 1


@pytest.fixture(params=sorted(peers.STARTERS))
def peer(request: pytest.FixtureRequest, root: Path) -> Iterator[peers.Peer]:
    """Each peer in turn."""
    try:
        peers.find_program(request.param)
    except peers.PeerMissing as absent:
        missing(str(absent))
    with peers.STARTERS[request.param](root) as running:
        yield running


@pytest.fixture
def host(peer: peers.Peer) -> Iterator[guest.Host]:
    """The peer's host."""
    with guest.Host(peer.host) as host:
        yield host


def introduce(wire: Wire, domain: guest.Guest, port: int = 0) -> bytes:
    """INTRODUCE: the reply's payload."""
    return wire.request(INTRODUCE, b"%d\0%d\0%d\0" % (domain.domid, 1000, port or domain.port))[1]


def idle(peer: peers.Peer, host: guest.Host) -> bool:
    """Whether ports and pages are those of a daemon without guests."""
    found = host.ports_in_use(), guest.count_mappings(peer.pid, peer.host)
    return found == (IDLE_PORTS, IDLE_PAGES)


def test_life_of_a_domain(peer: peers.Peer, host: guest.Host) -> None:
    """Introduce, write and read over the ring, shut down, die; nothing stays behind."""
    wire = Wire(peer.socket)
    assert wire.request(WATCH, b"@releaseDomain\0t\0") == (WATCH, OK)
    assert wire.event() == b"@releaseDomain\0t\0"
    assert idle(peer, host)
    domain = host.create(5)
    assert introduce(wire, domain) == OK
    wire.request(WRITE, b"/local/domain/5\0")
    wire.request(SET_PERMS, b"/local/domain/5\0n5\0")
    assert domain.request(WRITE, b"name\0" + b"v" * 1500).payload == OK
    assert domain.request(READ, b"name\0").payload == b"v" * 1500
    assert wire.request(READ, b"/local/domain/5/name\0") == (READ, b"v" * 1500)
    host.set_state(5, guest.SHUTDOWN, 0)
    assert wire.event() == b"@releaseDomain\0t\0"
    assert host.ports_in_use() == IDLE_PORTS + 1
    host.set_state(5, guest.GONE)
    assert wire.event() == b"@releaseDomain\0t\0"
    assert idle(peer, host)


def test_dom0_ring(peer: peers.Peer, host: guest.Host) -> None:
    """dom0's kernel is served over the page xsd_kva and the port xsd_port."""
    dom0 = host.guest(0)
    assert dom0.request(WRITE, b"/kernel\0here").payload == OK
    assert Wire(peer.socket).request(READ, b"/kernel\0") == (READ, b"here")


def test_kicks_coalesce_and_none_is_lost(peer: peers.Peer, host: guest.Host) -> None:
    """Many requests, one kick; then many kicks, one request."""
    wire, domain = Wire(peer.socket), host.create(5)
    introduce(wire, domain)
    load = guest.Load(type=GET_DOMAIN_PATH, len=2, payload=PATH_OF, depth=16, requests=5000)
    host.run_load([domain], load)
    assert (load.replies, load.errors) == (5000, 0)
    for _ in range(1000):
        domain.kick()
    assert domain.request(GET_DOMAIN_PATH, PATH_OF).payload == b"/local/domain/0\0"


def test_many_domains(peer: peers.Peer, host: guest.Host) -> None:
    """A thousand introduced domains answer, each on its own ring, and all of them go."""
    wire = Wire(peer.socket)
    domains = [host.create(domid) for domid in range(1, 1001)]
    for domain in domains:
        assert introduce(wire, domain) == OK
    assert host.ports_in_use() == IDLE_PORTS + len(domains)
    load = guest.Load(type=GET_DOMAIN_PATH, len=2, payload=PATH_OF, depth=2, requests=4000)
    host.run_load(domains, load)
    assert (load.replies, load.errors) == (4000, 0)
    for domain in domains:
        host.set_state(domain.domid, guest.GONE)
    deadline = time.monotonic() + guest.DEADLINE
    while not idle(peer, host) and time.monotonic() < deadline:
        wire.request(GET_DOMAIN_PATH, PATH_OF)
    assert idle(peer, host)


#: Ports that a RELEASE of a living domain leaves bound: oxenstored unbinds at a death only.
LEFT_BY_RELEASE = {"oxenstored": 1, "xenstored": 0}


def test_release(peer: peers.Peer, host: guest.Host) -> None:
    """RELEASE of a living domain unmaps its page."""
    wire, domain = Wire(peer.socket), host.create(5)
    introduce(wire, domain)
    assert wire.request(RELEASE, b"5\0") == (RELEASE, OK)
    assert host.ports_in_use() == IDLE_PORTS + LEFT_BY_RELEASE[peer.name]
    assert guest.count_mappings(peer.pid, peer.host) == IDLE_PAGES


@pytest.mark.parametrize("fault", ["map 5 EPERM", "bind 5 ENOSPC"])
def test_faults(peer: peers.Peer, host: guest.Host, fault: str) -> None:
    """A domain whose page or port fails is refused; another is not disturbed."""
    wire, sick, sound = Wire(peer.socket), host.create(5), host.create(6)
    host.set_faults(fault)
    kind, _ = wire.request(INTRODUCE, b"5\0001000\0%d\0" % sick.port)
    assert kind == ERROR
    assert introduce(wire, sound) == OK
    host.set_faults()
    assert introduce(wire, sick) == OK
    assert sick.request(GET_DOMAIN_PATH, PATH_OF).payload == b"/local/domain/0\0"


def test_killed_and_started_again(peer: peers.Peer, host: guest.Host) -> None:
    """What a killed daemon held is free for the next one on the host."""
    domain = host.create(5)
    introduce(Wire(peer.socket), domain)
    peer.kill()
    os.unlink(peer.socket)
    with peers.STARTERS[peer.name](peer.root) as second:
        assert introduce(Wire(second.socket), domain) == OK
        assert host.ports_in_use() == IDLE_PORTS + 1
        assert domain.request(GET_DOMAIN_PATH, PATH_OF).payload == b"/local/domain/0\0"
