# SPDX-License-Identifier: LGPL-2.1-or-later
"""A domid is used again and again: nothing of the dead domain may come to the next one."""

from __future__ import annotations

import pytest

from pyxsd.domains import MFN_UNKNOWN
from tests.domains.test_life import MFN, held, introduce
from tests.rings.kit import Make, Rings
from tests.unit.kit import error, events, ok, watch


def test_reserved_domids(rings: Rings) -> None:
    """DOMID_SELF and what lies above is refused here, whatever Xen would map for it."""
    for domid in (0x7FF0, 0x7FF4, 0x7FFF):
        rings.xen.guest(domid)
        assert introduce(rings, domid) == b"EINVAL\0"
        assert domid not in rings.server.domains
    assert held(rings) == (2, 2)
    rings.guest(0x7FEF)
    assert introduce(rings, 0x7FEF) == b"OK\0"


def test_introduce_of_a_dead_domain(rings: Rings) -> None:
    """Its page may still be mapped, and Xen has told of its death already: it is refused."""
    rings.guest(9)
    rings.xen.states[9] = "dead"
    assert introduce(rings, 9) == b"EINVAL\0"
    assert held(rings) == (2, 2)
    assert 9 not in rings.server.domains
    assert any("domain 9" in text and "dead" in text for _, _, text in rings.host.messages)


def test_introduce_again_of_a_dead_domain(rings: Rings) -> None:
    """Before the interrupt was seen: it is refused, and the death is told."""
    watch(rings, "s1", b"@releaseDomain")
    rings.xen.states[1] = "dead"
    assert introduce(rings, 1) == b"EINVAL\0"
    assert events(rings, "s1") == [(b"@releaseDomain", b"t")]
    assert held(rings) == (1, 1)
    assert error(rings, "s0", "READ", b"/local/domain/1\0") == "ENOENT"


@pytest.mark.parametrize("has_ids", [True, False], ids=["unique ids", "no unique ids"])
@pytest.mark.parametrize("mfn", [MFN, MFN + 1], ids=["same frame", "other frame"])
def test_reuse_without_the_interrupt(make_rings: Make, has_ids: bool, mfn: int) -> None:
    """The domid belongs to another domain, and INTRODUCE comes before the interrupt: the old
    domain is dead, and the new one is served on its own page."""
    rings = make_rings(())
    rings.xen.has_ids = has_ids
    rings.bear(1)
    rings.works(1)
    watch(rings, "s1", b"@releaseDomain")
    rings.guest(1)
    assert introduce(rings, 1, mfn=mfn) == b"OK\0"
    assert events(rings, "s1") == [(b"@releaseDomain", b"t")]
    assert error(rings, "s0", "READ", b"/local/domain/1/alive\0") == "ENOENT"
    assert ok(rings, "d1", "GET_DOMAIN_PATH", b"1\0") == b"/local/domain/1\0"
    assert held(rings) == (1, 1)


def test_introduce_again_without_unique_ids(make_rings: Make) -> None:
    """The page is the same one: the domain stays, and so does what it was told of its frame."""
    rings = make_rings(())
    rings.xen.has_ids = False
    rings.bear(1)
    rings.works(1)
    watch(rings, "s1", b"@releaseDomain")
    assert introduce(rings, 1, mfn=MFN + 1) == b"EINVAL\0"
    assert introduce(rings, 1, port=8) == b"OK\0"
    rings.xen.fail.add("map_page")
    assert introduce(rings, 1, port=9) == b"OK\0"  # in doubt it is the same
    assert events(rings, "s1") == []
    assert ok(rings, "s0", "READ", b"/local/domain/1/alive\0") == b"fine"
    rings.works(1)
    assert held(rings) == (1, 1)


@pytest.mark.parametrize("end", ["release", "death"])
def test_target_ends_with_its_domain(rings: Rings, end: str) -> None:
    """Who acted for a dead domain does not act for the next one under that domid."""
    rings.bear(3)
    ok(rings, "s0", "SET_TARGET", b"1\0002\0")
    ok(rings, "s0", "SET_TARGET", b"3\0001\0")
    assert ok(rings, "d1", "READ", b"/local/domain/2\0") == b""
    if end == "release":
        ok(rings, "s0", "RELEASE", b"2\0")
    else:
        rings.xen.set_state(2, "gone")
        rings.virq()
    rings.bear(2)
    assert error(rings, "d1", "READ", b"/local/domain/2\0") == "EACCES"
    assert rings.server.domains[1].target == -1
    assert rings.server.domains[3].target == 1


def test_quotas_end_with_the_domain(rings: Rings) -> None:
    """The next domain under the domid has the general ones."""
    names = ("nodes", "watches", "transactions")
    for name in names:
        rings.server.set_quota(name, 3, rings.server.domains[1])
    ok(rings, "s0", "RELEASE", b"1\0")
    rings.bear(1)
    for name in names:
        assert rings.server.quota(name, rings.server.domains[1]) == rings.server.quota(name)


def test_a_domain_that_another_xenstored_has_introduced(make_rings: Make) -> None:
    """Who it is, is asked for; its frame is what the next INTRODUCE says, and holds then."""
    rings = make_rings(())
    rings.bear(1)
    domains = rings.server.host.domains
    domain = domains.table[1]
    known, domain.unique_id, domain.mfn = domain.unique_id, 0, MFN_UNKNOWN
    domains.identify()
    assert domain.unique_id == known != 0
    assert introduce(rings, 1, mfn=MFN + 1, port=8) == b"OK\0"
    assert introduce(rings, 1, mfn=MFN, port=8) == b"EINVAL\0"
    rings.works(1)


def test_a_domain_whose_port_is_not_known(make_rings: Make) -> None:
    """It is there, with its watches, and is served once it is introduced anew."""
    rings = make_rings(())
    rings.guest(1)
    domains = rings.server.host.domains
    domains.keep(1, MFN_UNKNOWN)
    assert held(rings) == (0, 0) and 1 in rings.server.domains
    domains.on_virq()
    assert held(rings) == (0, 0)
    assert introduce(rings, 1) == b"OK\0"
    assert held(rings) == (1, 1)
