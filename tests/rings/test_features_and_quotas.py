# SPDX-License-Identifier: LGPL-2.1-or-later
"""GET_FEATURE, SET_FEATURE, GET_QUOTA and SET_QUOTA, by Xen's docs/misc/xenstore.txt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakexen import FEATURES
from tests.rings.kit import ALL_FEATURES, Rings
from tests.unit.kit import begin, error, ok

LARGEST = 2**30 - 1


@pytest.fixture
def newer(no_leaks: None) -> Iterator[Rings]:
    """Domains 1 and 2, and small general quotas."""
    world = Rings(quota_maxwatch=3, quota_transaction=2, quota_maxentity=5)
    yield world
    world.check()
    world.close()


# What dom0 asks, and the answer: a reply's body, or the name of an error.
ANSWERS = [
    ("GET_FEATURE", b"", b"%d\0" % ALL_FEATURES),
    ("GET_FEATURE", b"1\0", b"%d\0" % ALL_FEATURES),
    ("GET_FEATURE", b"1", b"%d\0" % ALL_FEATURES),
    ("GET_FEATURE", b"3\0", "ENOENT"),
    ("GET_FEATURE", b"x\0", "EINVAL"),
    ("GET_FEATURE", b"1\0002\0", "EINVAL"),
    ("SET_FEATURE", b"1\0000\0", b"OK\0"),
    ("SET_FEATURE", b"1\0007\0", b"OK\0"),
    ("SET_FEATURE", b"1\00016\0", "EINVAL"),
    ("SET_FEATURE", b"1\000-1\0", "EINVAL"),
    ("SET_FEATURE", b"3\0001\0", "ENOENT"),
    ("SET_FEATURE", b"1\0", "EINVAL"),
    ("SET_FEATURE", b"1\0001\0001\0", "EINVAL"),
    ("GET_QUOTA", b"watches\0", b"3\0"),
    ("GET_QUOTA", b"transactions\0", b"2\0"),
    ("GET_QUOTA", b"nodes\0", b"5\0"),
    ("GET_QUOTA", b"1\0watches\0", b"3\0"),
    ("GET_QUOTA", b"1\0transactions\0", b"2\0"),
    ("GET_QUOTA", b"1\0nodes\0", b"5\0"),
    ("GET_QUOTA", b"nonsense\0", "EINVAL"),
    ("GET_QUOTA", b"3\0watches\0", "ENOENT"),
    ("GET_QUOTA", b"1\0nonsense\0", "EINVAL"),
    ("GET_QUOTA", b"1\0outstanding\0", "EINVAL"),
    ("GET_QUOTA", b"1\0watches\0x\0", "EINVAL"),
    ("SET_QUOTA", b"watches\0%d\0" % LARGEST, b"OK\0"),
    ("SET_QUOTA", b"1\0watches\0%d\0" % LARGEST, b"OK\0"),
    ("SET_QUOTA", b"1\0nodes\0000\0", b"OK\0"),
    ("SET_QUOTA", b"watches\0-1\0", "EINVAL"),
    ("SET_QUOTA", b"watches\0x\0", "EINVAL"),
    ("SET_QUOTA", b"nonsense\0001\0", "EINVAL"),
    ("SET_QUOTA", b"1\0nonsense\0001\0", "EINVAL"),
    ("SET_QUOTA", b"3\0watches\0001\0", "ENOENT"),
    ("SET_QUOTA", b"1\0watches\0-1\0", "EINVAL"),
    ("SET_QUOTA", b"watches\0", "EINVAL"),
    ("SET_QUOTA", b"1\0watches\0001\0001\0", "EINVAL"),
]


@pytest.mark.parametrize(
    ("request_", "payload", "want"),
    ANSWERS,
    ids=[f"{name} {payload!r}" for name, payload, _ in ANSWERS],
)
def test_answers(newer: Rings, request_: str, payload: bytes, want: Any) -> None:
    if isinstance(want, str):
        assert error(newer, "s0", request_, payload) == want
    else:
        assert ok(newer, "s0", request_, payload) == want


def test_names_of_the_quotas(newer: Rings) -> None:
    """Each that is named can be asked for."""
    names = ok(newer, "s0", "GET_QUOTA", b"").rstrip(b"\0").split(b" ")
    assert {b"nodes", b"watches", b"transactions"} <= set(names)
    for name in names:
        assert int(ok(newer, "s0", "GET_QUOTA", name + b"\0").rstrip(b"\0")) >= 0


@pytest.mark.parametrize("value", [0, 1, ALL_FEATURES])
def test_features_are_told_to_the_domain(newer: Rings, value: int) -> None:
    """In the page, to dom0, and to nobody else."""
    ok(newer, "s0", "SET_FEATURE", b"1\0%d\0" % value)
    assert newer.guests[1].get(FEATURES) == value
    assert ok(newer, "s0", "GET_FEATURE", b"1\0") == b"%d\0" % value
    assert newer.guests[2].get(FEATURES) == ALL_FEATURES
    assert ok(newer, "s0", "GET_FEATURE", b"2\0") == b"%d\0" % ALL_FEATURES


# What a guest asks for, and the error.
GUEST = [(b"\0\0", "EACCES"), (b"\x01", "EACCES"), (b"1\0", "EACCES"), (b"2\0", "EACCES")]


@pytest.mark.parametrize(("payload", "want"), GUEST)
def test_a_guest_asks_for_its_own_features_only(newer: Rings, payload: bytes, want: str) -> None:
    assert error(newer, "d1", "GET_FEATURE", payload) == want
    ok(newer, "s0", "SET_FEATURE", b"1\0002\0")
    for nothing in (b"", b"\0"):
        assert ok(newer, "d1", "GET_FEATURE", nothing) == b"2\0"


def watches_of(world: Rings, who: str) -> int:
    """How many watches the domain may have."""
    count = 0
    while world.ask(who, "WATCH", b"@x%d\0t\0" % count)[1] == b"OK\0":
        count += 1
    return count


def transactions_of(world: Rings, who: str) -> int:
    count = 0
    while world.ask(who, "TRANSACTION_START", b"\0")[1] != b"EQUOTA\0":
        count += 1
    return count


def nodes_of(world: Rings, who: str) -> int:
    """Nodes beside the home."""
    count = 0
    while world.ask(who, "WRITE", b"n%d\0" % count)[1] == b"OK\0":
        count += 1
    return count


# quota, what counts what is allowed, and the difference: oxenstored refuses a watch and a
# transaction only to who has more than the quota already; the home is a node.
QUOTAS = [("watches", watches_of, 1), ("transactions", transactions_of, 1), ("nodes", nodes_of, -1)]


@pytest.mark.parametrize(("quota", "count", "more"), QUOTAS, ids=[row[0] for row in QUOTAS])
def test_a_quota_of_its_own(newer: Rings, quota: str, count: Any, more: int) -> None:
    """It holds for that domain, even where the general one comes later; a new domain has that."""
    name = quota.encode()
    ok(newer, "s0", "SET_QUOTA", b"1\0%s\0007\0" % name)
    ok(newer, "s0", "SET_QUOTA", b"%s\0004\0" % name)
    assert ok(newer, "s0", "GET_QUOTA", b"%s\0" % name) == b"4\0"
    assert ok(newer, "s0", "GET_QUOTA", b"1\0%s\0" % name) == b"7\0"
    assert count(newer, "d1") == 7 + more
    newer.bear(3)
    assert count(newer, "d3") == 4 + more


def test_a_transaction_keeps_the_quota(newer: Rings) -> None:
    """A domain's own quota of nodes holds inside its transactions as well."""
    ok(newer, "s0", "SET_QUOTA", b"1\0nodes\0003\0")
    tx_id = begin(newer, "d1")
    assert ok(newer, "d1", "WRITE", b"a\0", tx_id) == b"OK\0"
    assert ok(newer, "d1", "WRITE", b"b\0", tx_id) == b"OK\0"
    assert error(newer, "d1", "WRITE", b"c\0", tx_id) == "EQUOTA"
