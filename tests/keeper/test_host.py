# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kept daemon on a pretended host: rings, event channels, and what another xenstored has left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.daemon import wait_for
from tests.domains.standin import GONE, home, introduce, require, works
from tests.switch.kit import SwitchedStand, must_switch
from tests.update.kit import UpdatedStand, update
from tests.world import TYPES

OK = b"OK\0"


def child_of(pid: int) -> int:
    """The first child of a process; 0 where it has none."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(words[0]) if words else 0


def kill_child(stand: Any, number: int = signal.SIGKILL) -> None:
    """The daemon proper dies, and there is another one."""
    pid = int(wait_for(lambda: child_of(stand.pid), "no child"))
    os.kill(pid, number)
    wait_for(lambda: child_of(stand.pid) not in (0, pid), "no other child")


@pytest.fixture
def stand() -> Iterator[UpdatedStand]:
    """pyxsd, which may be killed."""
    running = UpdatedStand(settings={"crash-recovery": "true"})
    with running:
        running.start()
        yield running


def test_rings(stand: UpdatedStand) -> None:
    """Guests and the kernel of domain 0 go on over deaths, updates and the keeper's death; what
    dies meanwhile is forgotten."""
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in (1, 2, 3)]
        kernel = stand.host.guest(0)
        for domain in domains:
            assert introduce(client, domain) == OK
            home(client, domain.domid)
            assert domain.request(TYPES["WATCH"], b"in\0tok\0").payload == OK
            assert domain.packet().payload == b"in\0tok\0"
        assert kernel.request(TYPES["WATCH"], b"/k\0kernel\0").payload == OK
        assert kernel.packet().payload == b"/k\0kernel\0"
        before = stand.host.ports_in_use()
        for n, is_update in enumerate((False, False, True, False)):
            if is_update:
                update(client)
            else:
                kill_child(stand)
            for domain in domains:
                assert domain.request(TYPES["WRITE"], b"in\0%d" % n).payload == OK
                assert domain.packet().payload == b"in\0tok\0"
                works(domain, client)
            assert client.ask("WRITE", b"/k\0%d" % n)[1] == OK
            assert kernel.packet().payload == b"/k\0kernel\0"
            assert stand.host.ports_in_use() == before
        assert client.ask("WATCH", b"@releaseDomain\0t\0")[1] == OK
        client.event()
        keeper = stand.pid
        os.kill(keeper, signal.SIGKILL)
        stand.host.set_state(3, GONE)
        assert client.event() == b"@releaseDomain\0t\0"
        wait_for(lambda: stand.pid != keeper and child_of(stand.pid), "no other keeper")
        kill_child(stand)
        for domain in domains[:2]:
            works(domain, client)
    stand.terminate()


@pytest.mark.parametrize("name", ["xenstored", "oxenstored"])
def test_another_xenstored_becomes_a_kept_one(name: str) -> None:
    """Its process becomes the keeper."""
    try:
        # oxenstored hands its own configuration on.
        switched = SwitchedStand(name, settings={"crash-recovery": "true"})
    except RuntimeError as error:
        require(str(error))
        raise
    with switched:
        switched.start()
        with switched.client() as client:
            domain = switched.host.create(1)
            assert introduce(client, domain) == OK
            home(client, 1)
            works(domain, client)
            assert client.ask("WATCH", b"/a\0token\0")[1] == OK
            client.event()
            pid = switched.pid
            must_switch(switched, client, switched.pyxsd(crash_recovery="true"), "pyxsd")
            assert switched.pid == pid and child_of(pid)
            for n in range(3):
                kill_child(switched)
                assert client.ask("WRITE", b"/a\0%d" % n)[1] == OK
                assert client.event() == b"/a\0token\0"
                works(domain, client)
