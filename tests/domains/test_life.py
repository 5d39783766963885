# SPDX-License-Identifier: LGPL-2.1-or-later
"""Introduction, release, resume, targets: on a Xen inside this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rings.kit import ALL_FEATURES, Make, Rings, packet, packets
from tests.unit.kit import begin, end, error, events, ok, recount, watch
from tests.world import EVENT, HEADER

MFN = 4660


def introduce(rings: Rings, domid: int, mfn: int = MFN, port: int = 7, who: str = "s0") -> bytes:
    """INTRODUCE; the body of the answer."""
    return rings.ask(who, "INTRODUCE", b"%d\0%d\0%d\0" % (domid, mfn, port))[1]


def held(rings: Rings) -> tuple[int, int]:
    """(pages mapped, ports bound)"""
    return len(rings.xen.mapped), len(rings.xen.bound)


def test_introduce(rings: Rings) -> None:
    """The page is mapped, the port bound, the ring served, and told to watchers."""
    watch(rings, "s1", b"@introduceDomain")
    watch(rings, "s1", b"@releaseDomain")
    watch(rings, "s1", b"@introduceDomain", b"deep", b"1\0")
    rings.guest(9)
    assert introduce(rings, 9) == b"OK\0"
    assert held(rings) == (3, 3)
    assert events(rings, "s1") == [(b"@introduceDomain", b"t"), (b"@introduceDomain/9", b"deep")]
    assert ok(rings, "d9", "GET_DOMAIN_PATH", b"9\0") == b"/local/domain/9\0"
    assert ok(rings, "s0", "IS_DOMAIN_INTRODUCED", b"9\0") == b"T\0"
    assert ok(rings, "s0", "IS_DOMAIN_INTRODUCED", b"10\0") == b"F\0"
    assert rings.server.domains[9].features == ALL_FEATURES


def test_introduce_is_told_once(rings: Rings) -> None:
    """INTRODUCE again is no introduction."""
    watch(rings, "s1", b"@introduceDomain")
    rings.guest(9)
    introduce(rings, 9)
    assert events(rings, "s1") == [(b"@introduceDomain", b"t")]
    assert introduce(rings, 9, port=8) == b"OK\0"
    assert introduce(rings, 9) == b"OK\0"
    assert events(rings, "s1") == []


@pytest.mark.parametrize(
    "left, reply",
    [
        (packet("WRITE", b"/secret\0v"), b"EACCES\0"),
        (packet("WATCH", b"/tool\0" + b"t\0") + HEADER.pack(11, 1, 0, 5000), None),
    ],
    ids=["write", "broken"],
)
def test_introduce_again_serves_nobody_inside(
    rings: Rings, left: bytes, reply: bytes | None
) -> None:
    """What a guest left in its ring is run with its own rights, after the request at hand
    and those behind it."""
    watch(rings, "s1", b"/secret")
    rings.guests[1].feed(left)  # without a kick
    rings.connection("s0")[1].feed(
        packet("INTRODUCE", b"1\0%d\0009\0" % MFN) + 2 * packet("READ", b"/tool/xenstored\0")
    )
    rings.turn("s0")
    assert [(got, body) for got, _, _, body in rings.drain("s0")] == [
        (8, b"OK\0"),
        (2, b"/usr/sbin/pyxsd"),
        (2, b"/usr/sbin/pyxsd"),
    ]
    assert events(rings, "s1") == []
    assert error(rings, "s0", "READ", b"/secret\0") == "ENOENT"
    if reply is None:
        assert rings.server.domains[1].bad
    else:
        assert [body for _, _, _, body in rings.drain("d1")] == [reply]


@pytest.mark.parametrize(
    "domid, mfn, port",
    [
        (0x7FF0, MFN, 7),
        (0x7FF4, MFN, 7),
        (1 << 31, MFN, 7),
        (1 << 40, MFN, 7),
        (-1, MFN, 7),
        (9, MFN, 0),
        (9, MFN, -1),
        (9, MFN, 1 << 32),
        (9, MFN, 1 << 62),
        (1, MFN, 0),
        (1, MFN, 1 << 32),
        (1, MFN + 1, 7),
        (2, -1, 7),
        (77, MFN, 7),
    ],
)
def test_introduce_refused(rings: Rings, domid: int, mfn: int, port: int) -> None:
    """Domids, ports and frames that cannot be; a domain that is not there (77)."""
    rings.guest(9)
    assert error(rings, "s0", "INTRODUCE", b"%d\0%d\0%d\0" % (domid, mfn, port)) == "EINVAL"
    assert held(rings) == (2, 2)
    assert sorted(rings.server.domains) == [0, 1, 2]
    rings.works(1)
    assert introduce(rings, 9) == b"OK\0"
    rings.drain("d9")


def test_introduce_again_keeps_everything(rings: Rings) -> None:
    """A new port; page, half a request, transactions, watches and replies stay."""
    watch(rings, "d1", b"x")
    tx = begin(rings, "d1")
    ok(rings, "d1", "WRITE", b"x\0v", tx)
    request = packet("GET_DOMAIN_PATH", b"1\0", req_id=5)
    rings.guests[1].feed(request[:10])
    rings.turn("d1")
    old = rings.host.domains.table[1].port
    assert introduce(rings, 1, port=8) == b"OK\0"
    new = rings.host.domains.table[1].port
    assert new != old
    assert sorted(rings.xen.bound.values()) == [1, 2]
    assert old not in rings.xen.bound
    rings.xen.channels.notified.clear()
    rings.guests[1].feed(request[10:])
    rings.turn("d1")
    assert packets(rings.guests[1].take())[0] == [(10, 5, 0, b"/local/domain/1\0")]
    assert rings.xen.channels.notified == [new]
    assert end(rings, "d1", tx) == "OK"
    ok(rings, "s0", "WRITE", b"/local/domain/1/x\0v")


def test_introduce_again_serves_what_was_written_meanwhile(rings: Rings) -> None:
    """A request that came between two ports needs no kick."""
    rings.guests[1].feed(packet("GET_DOMAIN_PATH", b"1\0"))
    assert introduce(rings, 1, port=8) == b"OK\0"
    assert packets(rings.guests[1].take())[0][0][3] == b"/local/domain/1\0"


def test_introduce_by_the_domain_itself(rings: Rings) -> None:
    """From its own connection: the same port changes nothing, another one is EINVAL."""
    ok(rings, "s0", "SET_TARGET", b"1\0000\0")
    port = rings.host.domains.table[1].port
    assert introduce(rings, 1, who="d1") == b"OK\0"
    assert introduce(rings, 1, port=8, who="d1") == b"EINVAL\0"
    assert introduce(rings, 1, mfn=1, who="d1") == b"EINVAL\0"
    assert rings.host.domains.table[1].port == port
    rings.works(1)


def test_release(rings: Rings) -> None:
    """Everything of the domain goes; who watches is told once, also by domid."""
    watch(rings, "s1", b"@releaseDomain", b"generic")
    watch(rings, "s1", b"@releaseDomain", b"deep", b"1\0")
    watch(rings, "s1", b"@releaseDomain/1", b"one")
    watch(rings, "s1", b"@releaseDomain/2", b"two")
    watch(rings, "d1", b"x")
    begin(rings, "d1")
    assert ok(rings, "s0", "RELEASE", b"1\0") == b"OK\0"
    assert held(rings) == (1, 1)
    assert sorted(events(rings, "s1")) == [
        (b"@releaseDomain", b"generic"),
        (b"@releaseDomain/1", b"deep"),
        (b"@releaseDomain/1", b"one"),
    ]
    assert ok(rings, "s0", "IS_DOMAIN_INTRODUCED", b"1\0") == b"F\0"
    assert error(rings, "s0", "READ", b"/local/domain/1\0") == "ENOENT"
    assert error(rings, "s0", "RELEASE", b"1\0") == "EINVAL"
    assert events(rings, "s1") == []
    rings.works(2)
    rings.bear(1)
    rings.works(1)


def test_release_of_nobody_cleans_the_store(rings: Rings) -> None:
    """EINVAL for a domain that was never introduced, whose nodes go all the same."""
    ok(rings, "s0", "WRITE", b"/left\0v")
    ok(rings, "s0", "SET_PERMS", b"/left\0n9\0")
    ok(rings, "s0", "WRITE", b"/kept\0v")
    ok(rings, "s0", "SET_PERMS", b"/kept\0n1\0r9\0r2\0")
    assert error(rings, "s0", "RELEASE", b"9\0") == "EINVAL"
    assert error(rings, "s0", "READ", b"/left\0") == "ENOENT"
    assert ok(rings, "s0", "GET_PERMS", b"/kept\0") == b"n1\0r2\0"
    recount(rings)


def test_release_of_domain_0(rings: Rings) -> None:
    """It is refused, and changes nothing."""
    ok(rings, "s0", "WRITE", b"/x\0v")
    assert error(rings, "s0", "RELEASE", b"0\0") == "EINVAL"
    assert ok(rings, "s0", "READ", b"/x\0") == b"v"
    assert 0 in rings.server.domains


@pytest.mark.parametrize("waiting", [False, True], ids=["alone", "in a batch"])
def test_a_domain_releases_itself(rings: Rings, waiting: bool) -> None:
    """Through a target on domain 0: it is just released, whatever it asked behind that."""
    ok(rings, "s0", "SET_TARGET", b"1\0000\0")
    watch(rings, "s1", b"@releaseDomain")
    watch(rings, "d1", b"@releaseDomain")
    behind = packet("WRITE", b"/never\0v") if waiting else b""
    rings.guests[1].feed(packet("RELEASE", b"1\0") + behind)
    rings.turn("d1")
    assert 1 not in rings.server.domains
    assert held(rings) == (1, 1)
    assert events(rings, "s1") == [(b"@releaseDomain", b"t")]
    assert error(rings, "s0", "READ", b"/never\0") == "ENOENT"
    rings.bear(1)
    rings.works(1)
    assert rings.server.domains[1].target == -1


def test_a_domain_releases_another(rings: Rings) -> None:
    """Through a target on domain 0, one that waits to be served in the same turn."""
    ok(rings, "s0", "SET_TARGET", b"1\0000\0")
    rings.guests[2].feed(packet("WRITE", b"/never\0v"))
    rings.guests[1].feed(packet("RELEASE", b"2\0"))
    gone = rings.server.domains[2]
    rings.server.begin(rings.now, rings.now)
    rings.server.service(rings.server.domains[1])
    rings.server.service(gone)
    rings.server.flush()
    assert packets(rings.guests[1].take())[0][0][3] == b"OK\0"
    assert error(rings, "s0", "READ", b"/never\0") == "ENOENT"
    assert held(rings) == (1, 1)


def test_resume(rings: Rings) -> None:
    """OK for who is introduced, running or not."""
    assert ok(rings, "s0", "RESUME", b"1\0") == b"OK\0"
    rings.xen.set_state(1, "shutdown")
    rings.virq()
    assert ok(rings, "s0", "RESUME", b"1\0") == b"OK\0"
    assert error(rings, "s0", "RESUME", b"9\0") == "EINVAL"
    rings.works(1)


def test_set_target(rings: Rings) -> None:
    """It acts for the other too, until it is replaced or goes."""
    for domid in (2, 3):
        if domid == 3:
            rings.bear(3)
        ok(rings, "s0", "WRITE", b"/local/domain/%d/s\0v" % domid)
        ok(rings, "s0", "SET_PERMS", b"/local/domain/%d/s\0n%d\0" % (domid, domid))
    assert error(rings, "d1", "READ", b"/local/domain/2/s\0") == "EACCES"
    ok(rings, "s0", "SET_TARGET", b"1\0002\0")
    assert ok(rings, "d1", "READ", b"/local/domain/2/s\0") == b"v"
    assert error(rings, "d1", "READ", b"s\0") == "ENOENT"  # paths stay its own
    ok(rings, "s0", "SET_TARGET", b"1\0003\0")
    assert error(rings, "d1", "READ", b"/local/domain/2/s\0") == "EACCES"
    assert ok(rings, "d1", "READ", b"/local/domain/3/s\0") == b"v"
    assert error(rings, "s0", "SET_TARGET", b"9\0001\0") == "ENOENT"
    ok(rings, "s0", "RELEASE", b"1\0")
    rings.bear(1)
    assert error(rings, "d1", "READ", b"/local/domain/3/s\0") == "EACCES"


# -- failures -----------------------------------------------------------------


def fail_map(rings: Rings) -> None:
    rings.xen.fail.add("map_page")


def fail_bind(rings: Rings) -> None:
    rings.xen.fail.add("bind")


@pytest.mark.parametrize("failure", [fail_map, fail_bind])
def test_introduce_that_fails_leaves_nothing(
    rings: Rings, failure: Callable[[Rings], None]
) -> None:
    """EINVAL, a line in the log with the cause, nothing held; later it works."""
    watch(rings, "s1", b"@introduceDomain")
    rings.guest(9)
    failure(rings)
    for _ in range(5):
        assert introduce(rings, 9) == b"EINVAL\0"
    assert held(rings) == (2, 2)
    assert events(rings, "s1") == []
    lines = [text for level, _, text in rings.host.messages if level == "error"]
    assert len(lines) == 5
    assert "domain 9" in lines[0] and "not permitted" in lines[0]
    rings.works(1)
    rings.xen.fail.clear()
    assert introduce(rings, 9) == b"OK\0"
    assert ok(rings, "d9", "GET_DOMAIN_PATH", b"9\0") == b"/local/domain/9\0"


def test_introduce_whose_state_cannot_be_asked(rings: Rings) -> None:
    """It is introduced all the same, which is logged; at its death it goes."""
    rings.guest(9)
    rings.xen.fail.add("state")
    assert introduce(rings, 9) == b"OK\0"
    assert any(level == "error" and "domain 9" in text for level, _, text in rings.host.messages)
    rings.virq()
    assert 9 in rings.server.domains
    rings.xen.fail.clear()
    rings.xen.set_state(9, "gone")
    rings.virq()
    assert 9 not in rings.server.domains
    assert held(rings) == (2, 2)


def test_introduce_without_xen(make_rings: Make) -> None:
    """EINVAL and the reason in the log."""
    rings = make_rings(())
    rings.host.domains.xen = None
    assert introduce(rings, 9) == b"EINVAL\0"
    assert any("Xen is missing" in text for _, _, text in rings.host.messages)
    assert error(rings, "s0", "RELEASE", b"9\0") == "EINVAL"


def test_a_second_port_that_cannot_be_bound(rings: Rings) -> None:
    """INTRODUCE again fails; the domain can be introduced with another port later,
    or released, and what it lost is nobody else's."""
    rings.xen.fail.add("bind")
    assert introduce(rings, 1, port=8) == b"EINVAL\0"
    rings.xen.fail.clear()
    assert sorted(rings.xen.bound.values()).count(2) == 1
    assert introduce(rings, 1, port=9) == b"OK\0"
    rings.works(1)
    ok(rings, "s0", "RELEASE", b"1\0")
    assert held(rings) == (1, 1)


def reuse_ports(rings: Rings) -> None:
    """The lowest free port is given, as Xen does."""
    xen: Any = rings.xen

    def bind(domid: int, remote_port: int) -> int:
        xen._refuse("bind")
        port = next(n for n in range(11, 1000) if n not in xen.bound)
        xen.bound[port] = domid
        return port

    xen.bind = bind


@pytest.mark.parametrize("then", ["release", "death", "introduce"])
def test_a_port_that_was_lost_is_not_taken_from_its_next_owner(rings: Rings, then: str) -> None:
    """INTRODUCE again failed; its old port is now that of a new domain, which
    neither the release nor another introduction of the first may touch."""
    reuse_ports(rings)
    rings.xen.fail.add("bind")
    assert introduce(rings, 1, port=8) == b"EINVAL\0"
    rings.xen.fail.clear()
    rings.bear(3)
    if then == "release":
        ok(rings, "s0", "RELEASE", b"1\0")
    elif then == "death":
        rings.xen.set_state(1, "gone")
        rings.virq()
    else:
        assert introduce(rings, 1, port=8) == b"OK\0"
    domain = rings.host.domains.table[3]
    assert rings.xen.bound.get(domain.port) == 3
    assert rings.host.domains.by_port.get(domain.port) is domain.connection
    rings.xen.channels.notified.clear()
    rings.works(3)
    assert set(rings.xen.channels.notified) == {domain.port}


def test_a_domain_without_a_port_notifies_nobody(rings: Rings) -> None:
    """After such a failure an event for the first does not kick the new owner of its port."""
    reuse_ports(rings)
    watch(rings, "d1", b"x")
    rings.xen.fail.add("bind")
    assert introduce(rings, 1, port=8) == b"EINVAL\0"
    rings.xen.fail.clear()
    rings.bear(3)
    rings.xen.channels.notified.clear()
    ok(rings, "s0", "WRITE", b"/local/domain/1/x\0v")
    assert rings.host.domains.table[3].port not in rings.xen.channels.notified
    assert [type_ for type_, _, _, _ in rings.drain("d1")] == [EVENT]


def test_unbind_and_unmap_that_fail(rings: Rings) -> None:
    """Logged; the domain is gone all the same."""
    xen: Any = rings.xen
    unbind, unmap = xen.unbind, xen.unmap

    def broken(real: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(what: Any) -> None:
            real(what)
            raise OSError(22, "Invalid argument")

        return call

    xen.unbind, xen.unmap = broken(unbind), broken(unmap)
    assert ok(rings, "s0", "RELEASE", b"1\0") == b"OK\0"
    assert (
        sum(level == "error" and "domain 1" in text for level, _, text in rings.host.messages) == 2
    )
    xen.unbind, xen.unmap = unbind, unmap
    assert 1 not in rings.server.domains
    rings.bear(1)
    rings.works(1)


# -- many ---------------------------------------------------------------------


def test_introduced_and_released_a_thousand_times(rings: Rings) -> None:
    """Nothing is left of any round."""
    for n in range(1000):
        rings.guest(5)
        assert introduce(rings, 5, mfn=n) == b"OK\0"
        rings.server.service(rings.server.domains[5])
        assert rings.ask("s0", "RELEASE", b"5\0")[1] == b"OK\0"
    assert held(rings) == (2, 2)
    assert sorted(rings.host.domains.by_port.values(), key=lambda c: int(c.domid)) == [
        rings.server.domains[1],
        rings.server.domains[2],
    ]
