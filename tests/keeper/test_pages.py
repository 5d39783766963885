# SPDX-License-Identifier: LGPL-2.1-or-later
"""A page that cannot be mapped when another process goes on: its guest waits, loses nothing, and is
served as soon as there is the page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.daemon import wait_for
from tests.domains.standin import GONE, home, introduce, works
from tests.keeper.test_host import OK, kill_child
from tests.keeper.test_host import stand as stand  # noqa: F401  (a fixture)
from tests.world import TYPES, packet


def guests(stand: Any, client: Any) -> list[Any]:
    """Two that are served, the second one with a watch."""
    domains = [stand.host.create(domid) for domid in (3, 4)]
    for domain in domains:
        assert introduce(client, domain) == OK
        home(client, domain.domid)
        works(domain, client)
    assert domains[1].request(TYPES["WATCH"], b"in\0tok\0").payload == OK
    assert domains[1].packet().payload == b"in\0tok\0"
    return domains


def logged(stand: Any, text: str) -> int:
    """How many lines of the log have that text."""
    return sum(text in line for line in stand.log().splitlines())


@pytest.mark.parametrize("deaths", [1, 3])
def test_it_is_served_when_it_can_be(stand: Any, deaths: int) -> None:  # noqa: F811
    """What it had asked, and the events that it was owed, come then; others do not wait for it.
    Further deaths change nothing."""
    with stand.client() as client:
        other, domain = guests(stand, client)
        stand.host.set_faults("map 4 ENOMEM")
        for n in range(deaths):
            kill_child(stand)
            works(other, client)
            wait_for(lambda: logged(stand, "domain 4 is not served for now"), "the log is silent")
            assert client.ask("WRITE", b"/local/domain/4/in/%d\0" % n)[1] == OK
        assert logged(stand, "domain 4 is not served for now: its page cannot be mapped again") == 1
        domain.write(b"".join(packet("WRITE", b"out\0%02d" % n, 0, n) for n in range(5)))
        domain.kick()
        assert client.ask("READ", b"/local/domain/4/out\0")[0] == TYPES["ERROR"]
        stand.host.set_faults()
        told: list[Any] = []
        answers: list[Any] = []
        while len(told) < deaths or len(answers) < 5:
            got = domain.packet()
            (answers if got.type == TYPES["WRITE"] else told).append(got)
        assert [got.payload for got in told] == [b"in/%d\0tok\0" % n for n in range(deaths)]
        assert [got.req_id for got in answers] == list(range(5))
        assert client.ask("READ", b"/local/domain/4/out\0")[1] == b"04"
        wait_for(lambda: logged(stand, "domain 4 is served again") == 1, "the log is silent")
        works(domain, client)
        kill_child(stand)
        works(domain, client)
        assert logged(stand, "is not served for now") == 1
        wait_for(lambda: stand.host.ports_in_use() == 4, "ports are not as before")


def test_one_that_dies_meanwhile(stand: Any) -> None:  # noqa: F811
    """It is forgotten as any other."""
    with stand.client() as client:
        other, _ = guests(stand, client)
        client.ask("WATCH", b"@releaseDomain\0t\0")
        client.event()
        stand.host.set_faults("map 4 ENOMEM")
        kill_child(stand)
        wait_for(lambda: logged(stand, "domain 4 is not served for now"), "the log is silent")
        stand.host.set_state(4, GONE)
        assert client.event() == b"@releaseDomain\0t\0"
        assert client.ask("READ", b"/local/domain/4\0")[1] == b"ENOENT\0"
        works(other, client)
        stand.host.set_faults()
        kill_child(stand)
        works(other, client)
        wait_for(lambda: stand.host.ports_in_use() == 3, "a port stays")
