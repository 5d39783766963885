# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ended, killed and started again: what a --restart brings back, what a killed daemon held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.daemon import wait_for
from tests.domains.standin import (
    GONE,
    IDLE,
    RUNNING,
    WATCH_EVENT,
    Stand,
    guests,
    home,
    introduce,
    require,
    works,
)
from tests.world import packet

READ, WATCH, WRITE = 2, 4, 11
RING = 1024


class Restarted(Stand):
    """One that leaves both files, or the database alone, as an older daemon does."""

    leaves = "image"

    def terminate(self) -> None:
        super().terminate()
        if self.leaves == "db":
            (self.root / "run" / "db.image").unlink()


@pytest.fixture(params=["image", "db"])
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """A daemon on a pretended host; skips where the stand-in cannot be built."""
    try:
        made = Restarted()
    except RuntimeError as error:
        require(str(error))
    made.leaves = request.param
    with made:
        made.start()
        yield made


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


@pytest.mark.parametrize("fault", ["map 5 EPERM", "map 5 ENOMEM", "bind 5 EINVAL"])
@pytest.mark.parametrize("then", ["interrupt", "introduce"])
def test_restart_where_a_domain_fails(stand: Stand, fault: str, then: str) -> None:
    """A domain whose page or port cannot be had is not dead: its nodes and its watches stay, the
    log names it, the others are served, and so is it as soon as that can be."""
    domains = prepare(stand)
    stand.terminate()
    domains[1].write(packet("READ", b"alive\0", req_id=9))
    stand.host.set_faults(fault)
    stand.start("--restart")
    assert "domain 5 is not served for now" in stand.log()
    assert stand.held() == (IDLE[0] + 2, IDLE[1] + 2)
    with stand.client() as client:
        for domain in (domains[0], domains[2]):
            works(domain, client)
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"enif"
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"T\0"
        client.ask("WRITE", b"/local/domain/5/in/a\0v")
        stand.host.set_state(7, RUNNING)  # an interrupt, which does not help yet
        works(domains[2], client)
        # A port that is none changes nothing of that.
        assert introduce(client, domains[1], port=4095) == b"EINVAL\0"
        stand.host.set_faults()
        if then == "interrupt":
            stand.host.set_state(7, RUNNING)
        else:
            assert introduce(client, domains[1]) == b"OK\0"
        assert domains[1].packet().payload == b"in/a\0tok\0"
        answer = domains[1].packet()
        assert (answer.type, answer.req_id, answer.payload) == (READ, 9, b"enif")
        works(domains[1], client)
        assert stand.held() == (IDLE[0] + 3, IDLE[1] + 3)
        stand.host.set_state(5, GONE)
        stand.settles((IDLE[0] + 2, IDLE[1] + 2))


def test_a_domain_that_fails_and_dies(stand: Stand) -> None:
    """Its page could not be had, and now Xen says that it is dead: nothing of it stays."""
    prepare(stand)
    stand.terminate()
    stand.host.set_faults("map 5 ENOMEM")
    stand.start("--restart")
    with stand.client() as client:
        client.ask("WATCH", b"@releaseDomain/5\0t\0")
        client.event()
        stand.host.set_state(5, GONE)
        assert client.event() == b"@releaseDomain/5\0t\0"
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"ENOENT\0"
        stand.settles((IDLE[0] + 2, IDLE[1] + 2))


def test_watches_of_the_kernel(stand: Stand) -> None:
    """Those of domain 0's own ring come back, too."""
    kernel = stand.host.guest(0)
    assert kernel.request(WATCH, b"/kernel\0tok\0").payload == b"OK\0"
    assert kernel.packet().payload == b"/kernel\0tok\0"
    stand.terminate()
    stand.start("--restart")
    with stand.client() as client:
        client.ask("WRITE", b"/kernel/x\0v")
        event = kernel.packet()
        assert (event.type, event.payload) == (WATCH_EVENT, b"/kernel/x\0tok\0")
    assert kernel.request(READ, b"/kernel/x\0").payload == b"v"


@pytest.mark.parametrize("domid", [0, 5], ids=["kernel", "guest"])
@pytest.mark.parametrize("cut", [1, 15, 16, 30])
def test_half_a_request(stand: Stand, domid: int, cut: int) -> None:
    """What was taken out of the ring is not lost: the rest of it completes the request."""
    prepare(stand)
    domain = stand.host.guest(domid)
    request = packet("READ", b"/local/domain/5/alive\0", req_id=9)
    domain.write(request[:cut])
    domain.kick()
    wait_for(lambda: domain.get("req_cons") == domain.get("req_prod"), "it is not taken")
    stand.terminate()
    domain.write(request[cut:])
    stand.start("--restart")
    answer = domain.packet()
    assert (answer.type, answer.req_id, answer.payload) == (READ, 9, b"enif")
    assert domain.request(READ, b"/local/domain/5/alive\0").payload == b"enif"


def test_half_a_reply(stand: Stand) -> None:
    """A reply of which the ring held a part, replies and an event behind it, requests that had to
    wait for them and half of one more: all comes, in order, and no request is served twice."""
    domain = prepare(stand)[1]
    with stand.client() as client:
        client.ask("WRITE", b"/local/domain/5/long\0" + b"v" * 1800)
        batch = b"".join(packet("READ", b"long\0", req_id=n) for n in range(12))
        batch += packet("WRITE", b"in/a\0v", req_id=50)
        batch += b"".join(packet("READ", b"alive\0", req_id=n) for n in range(51, 76))
        last = packet("READ", b"alive\0", req_id=99)
        domain.write(batch + last[:20])
        assert len(batch) + 20 <= RING
        domain.kick()
        wait_for(lambda: (domain.get("rsp_prod") - domain.get("rsp_cons")) == RING, "not full")
        wait_for(lambda: domain.get("req_cons") == domain.get("req_prod"), "it is not taken")
    stand.terminate()
    domain.write(last[20:])
    stand.start("--restart")
    got = [domain.packet() for _ in range(12 + 2 + 25 + 1)]
    events = [each for each in got if each.type == WATCH_EVENT]
    answers = [each for each in got if each.type != WATCH_EVENT]
    assert [each.payload for each in events] == [b"in/a\0tok\0"]
    assert [each.req_id for each in answers] == [*range(12), 50, *range(51, 76), 99]
    assert [each.payload for each in answers] == [b"v" * 1800] * 12 + [b"OK\0"] + [b"enif"] * 26
    with stand.client() as client:
        works(domain, client)


def test_a_ring_that_was_used_meanwhile(stand: Stand) -> None:
    """Its indices are not those of the state file: what was under way then is dropped, and the
    log says so."""
    domain = prepare(stand)[1]
    domain.write(packet("READ", b"alive\0")[:20])
    domain.kick()
    wait_for(lambda: domain.get("req_cons") == domain.get("req_prod"), "it is not taken")
    stand.terminate()
    for name in ("req_cons", "req_prod"):
        domain.set(name, 0)
    stand.start("--restart")
    assert "domain 5: its ring was used since" in stand.log()
    with stand.client() as client:
        works(domain, client)


@pytest.mark.parametrize(
    "stream",
    [b"99,,00", b"0,," + b"00" * 15, b"0,,%s" % (b"ff" * 16), b"4,,%s" % (b"00" * 19)],
    ids=["torn", "cut", "too long a packet", "cut behind a torn one"],
)
def test_a_stream_that_cannot_be(stand: Stand, stream: bytes) -> None:
    """Rubbish in a state file: it is said, and the domain is served as if there were none."""
    domain = prepare(stand)[1]
    stand.terminate()
    path = stand.root / "run" / "db"
    lines = path.read_bytes().split(b"\n")
    at = next(n for n, line in enumerate(lines) if line.startswith(b"pyxsd-ring,5"))
    lines[at] = b",".join([*lines[at].split(b",")[:5], stream])
    path.write_bytes(b"\n".join(lines))
    stand.start("--restart")
    assert "domain 5: stream not restored" in stand.log()
    with stand.client() as client:
        works(domain, client)


@pytest.mark.parametrize("manage", ["manage", "manage0"])
def test_a_domid_used_again_while_the_daemon_was_down(manage: str) -> None:
    """Another unique id: the old domain is gone with its nodes, the new one is not introduced."""
    with Stand(manage=manage).start() as stand:
        prepare(stand)
        stand.terminate()
        stand.host.set_state(5, GONE)
        new = stand.host.create(5)
        stand.start("--restart")
        with stand.client() as client:
            assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"ENOENT\0"
            assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"F\0"
            assert stand.held() == (IDLE[0] + 2, IDLE[1] + 2)
            assert introduce(client, new) == b"OK\0"
            home(client, 5)
            works(new, client)


def test_numbers_that_are_too_great(stand: Stand) -> None:
    """Lines with such are skipped with a warning; what else the file says is taken."""
    domains = prepare(stand)
    stand.terminate()
    path = stand.root / "run" / "db"
    bad = [
        b"dom,9999999999999999999,1,1",
        b"watch,9999999999999999999,2f,2f",
        b"watch,5,2f,2f,9999999999999999999",
        b"global,9999999999999999999",
    ]
    path.write_bytes(path.read_bytes() + b"\n".join([*bad, b""]))
    stand.start("--restart")
    assert stand.log().count("is not from") == len(bad)
    with stand.client() as client:
        for domain in domains:
            works(domain, client)


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
