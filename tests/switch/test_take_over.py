# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's own daemons become pyxsd by their own live update, with guests and clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.domains.standin import GONE, guests, home, introduce, works
from tests.switch.kit import (
    SwitchedStand,
    a_stand,
    all_goes_on,
    control,
    must_switch,
    state_file,
    switch,
)
from tests.world import TYPES


@pytest.fixture(name="stand", params=["xenstored", "oxenstored"])
def started(request: pytest.FixtureRequest) -> Iterator[SwitchedStand]:
    with a_stand(SwitchedStand, request.param) as stand:
        yield stand


def guest(stand: SwitchedStand, client: Any, domid: int) -> Any:
    """A running domain with a home, as a toolstack makes it."""
    domain = stand.host.create(domid)
    path = b"/local/domain/%d" % domid
    assert introduce(client, domain) == b"OK\0"
    home(client, domid)
    for name, value in ((b"ring-ref", b"4660"), (b"port", b"%d" % domain.port)):
        assert client.ask("WRITE", path + b"/store/" + name + b"\0" + value)[1] == b"OK\0"
        assert (
            client.ask("SET_PERMS", path + b"/store/" + name + b"\0n0\0r%d\0" % domid)[1] == b"OK\0"
        )
    works(domain, client)
    return domain


def test_it_becomes_pyxsd(stand: SwitchedStand) -> None:
    """Same process; nodes, permissions, watches, rings, ports and the interrupt go on."""
    stand.start()
    kernel = stand.host.guest(0)
    with stand.client() as client, stand.client() as watcher:
        domains = [guest(stand, client, domid) for domid in (1, 3)]
        has_target = stand.name == "xenstored"  # with one of oxenstored's the update never ends
        if has_target:
            assert client.ask("SET_TARGET", b"3\0001\0")[1] == b"OK\0"
        client.ask("WRITE", b"/a\0\x00binary\xff")
        client.ask("SET_PERMS", b"/a\0b0\0r3\0")
        for path in (b"/a", b"rel/ative", b"@releaseDomain"):
            watcher.ask("WATCH", path + b"\0token\0")
            assert watcher.event() == path + b"\0token\0"
        assert domains[1].request(TYPES["WATCH"], b"in\0tok\0").payload == b"OK\0"
        assert domains[1].packet().payload == b"in\0tok\0"
        assert kernel.request(TYPES["WATCH"], b"/k\0kernel\0").payload == b"OK\0"
        assert kernel.packet().payload == b"/k\0kernel\0"
        before = stand.host.ports_in_use()

        must_switch(stand, client, stand.pyxsd(), "pyxsd")

        assert watcher.events == [] and client.events == []
        assert stand.host.ports_in_use() == before
        assert guests.count_mappings(stand.pid, stand.host.directory) == 3
        all_goes_on(client, watcher, kernel, domains)
        # 3 acts for 1; what it was introduced with is known; its death is noticed.
        assert domains[1].request(TYPES["WRITE"], b"/local/domain/1/in\0x").payload == (
            b"OK\0" if has_target else b"EACCES\0"
        )
        assert introduce(client, domains[1], mfn=1) == b"EINVAL\0"
        assert introduce(client, domains[1], port=stand.host.reset_port(3)) == b"OK\0"
        works(domains[1], client)
        stand.host.set_state(3, GONE)
        assert watcher.event() == b"@releaseDomain\0token\0"
        assert not state_file(stand).exists()


def test_the_next_domain(stand: SwitchedStand) -> None:
    """A domain that is introduced afterwards, and one that is released."""
    stand.start()
    with stand.client() as client:
        first = guest(stand, client, 1)
        must_switch(stand, client, stand.pyxsd(), "pyxsd")
        works(first, client)
        second = guest(stand, client, 2)
        assert client.ask("RELEASE", b"1\0")[1] == b"OK\0"
        works(second, client)
        stand.settles((3, 2))


def test_c_xenstored_s_options() -> None:
    """Its limits and its pid file; and they are kept for the way back."""
    stand = SwitchedStand("xenstored")
    with stand.start("-E", "77", "--watch-nb=33"), stand.client() as client:
        must_switch(stand, client, stand.pyxsd(), "pyxsd")
        told = client.ask("CONTROL", b"quota\0")[1].decode()
        assert f"{'nodes':<18}: 77\n" in told and f"{'watches':<18}: 33\n" in told
        assert (stand.root / "run/xenstored.pid").read_text() == f"{stand.pid}\n"
        # To itself, without losing them.
        pid = stand.pid
        assert switch(client, stand.pyxsd()) == b"OK"
        assert "--c-arguments=" in control(client).decode()
        assert int((stand.root / "run/pyxsd.pid").read_text()) != pid


def test_oxenstored_asks_and_is_refused() -> None:
    """A configuration that is wrong ends the check, and oxenstored goes on."""
    stand = SwitchedStand("oxenstored")
    with stand.start(), stand.client() as client:
        program = stand.pyxsd()
        (stand.root / "oxenstored.conf").write_text("quota-maxentity = many\n")
        assert b"exited with code 2" in switch(client, program)
        assert client.ask("READ", b"/\0")[0] == 2
        assert stand.what_runs() == "oxenstored"
