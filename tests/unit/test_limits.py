# SPDX-License-Identifier: LGPL-2.1-or-later
"""The quotas of a server: what the configuration's values mean, and a domain's own number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyxsd._limits import NAMES, QUOTA_MAX, Limits
from pyxsd.system.configuration import Config
from tests.unit.kit import ok
from tests.world import ERROR, World

Make = Callable[..., World]


def write(value: bytes = b"", path: bytes = b"x") -> tuple[str, bytes]:
    return "WRITE", path + b"\0" + value


def perms(count: int) -> tuple[str, bytes]:
    return "SET_PERMS", b"\0".join([b"/local/domain/1", b"n1", *[b"r2"] * (count - 1), b""])


# configuration, what domain 1 asks, whether the quota allows it
BORDERS: list[tuple[dict[str, int], tuple[str, bytes], bool]] = [
    ({"quota_maxsize": -2}, write(b"v" * 4000), True),
    ({"quota_maxsize": -1}, write(b"v" * 4000), True),
    ({"quota_maxsize": 0}, write(), True),
    ({"quota_maxsize": 0}, write(b"v"), False),
    ({"quota_maxsize": 1}, write(b"v"), True),
    ({"quota_maxsize": 1}, write(b"vv"), False),
    ({"quota_path_max": -1}, write(path=b"x" * 900), True),
    ({"quota_path_max": 0}, ("READ", b"/\0"), False),
    ({"quota_path_max": 1}, ("READ", b"/\0"), True),
    ({"quota_path_max": 1}, ("READ", b"/x\0"), False),
    ({"quota_maxperms": -1}, perms(40), True),
    ({"quota_maxperms": 0}, perms(40), True),
    ({"quota_maxperms": 1}, perms(1), True),
    ({"quota_maxperms": 1}, perms(2), False),
    ({"quota_maxperms": 2}, perms(2), True),
    ({"quota_maxperms": 2}, perms(3), False),
    ({"quota_maxentity": 1}, write(), False),
    ({"quota_maxentity": 2}, write(), True),
]
REFUSED = {b"E2BIG\0", b"EQUOTA\0", b"EINVAL\0", b"ENOSPC\0"}


@pytest.mark.parametrize(
    ("config", "request_", "allowed"),
    BORDERS,
    ids=[f"{config} {request[0]} {len(request[1])}" for config, request, _ in BORDERS],
)
def test_at_the_border(
    make_world: Make, config: dict[str, int], request_: tuple[str, bytes], allowed: bool
) -> None:
    world = make_world(**config)
    got, body = world.ask("d1", *request_)
    assert (got == ERROR and body in REFUSED) is not allowed, body


#: A path, and how many of its bytes quota-path-max looks at: behind "/local/domain/<number>/"
#: only the rest, so that a path stays legal when its domain gets a number with more digits.
COUNTED = [
    (b"/", 1),
    (b"/abc", 4),
    (b"@abc", 4),
    (b"abc", 3),
    (b"a/b/c", 5),
    (b"/local/domain/1/abc", 3),
    (b"/local/domain/32751/a/b", 3),
    (b"/local/domain/-1/abc", 3),
    (b"/local/domain/0/a", 1),
    (b"/local/domain/1", 15),
    (b"/local/domain/12345", 19),
    (b"/local/domain", 13),
    (b"/local/domain/a/b", 17),
    (b"/local/domain/1a/b", 18),
    (b"/local/domain/-/b", 17),
    (b"/local/domain/-", 15),
    (b"/local/domain/--1/b", 19),
    (b"/local/domaim/1/b", 17),
    (b"/tool/domain/1/b", 16),
]


@pytest.mark.parametrize(("path", "counted"), COUNTED, ids=[repr(row[0]) for row in COUNTED])
def test_what_counts_of_a_path(make_world: Make, path: bytes, counted: int) -> None:
    for most, fine in ((counted, True), (counted - 1, False)):
        world = make_world((1,), quota_path_max=most)
        answer = world.ask("s0", "READ", path + b"\0")[1]
        assert (answer != b"EINVAL\0") == fine


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_set_and_shown(name: str) -> None:
    """0 stands for no limit; what is out of range changes nothing."""
    limits = Limits(Config())
    for value in (1, 5, 0, QUOTA_MAX):
        limits.set(name, value)
        assert limits.get(name) == value
    for wrong in (-1, QUOTA_MAX + 1):
        with pytest.raises(ValueError, match=name):
            limits.set(name, wrong)
    assert limits.get(name) == QUOTA_MAX
    with pytest.raises(KeyError):
        limits.set(name + "x", 1)


def test_an_owner_s_own_number() -> None:
    """0 for no limit, -1 for that of all again; another owner has that of all."""
    limits = Limits(Config(quota_maxentity=9))
    for value, want in ((7, 7), (0, 0), (1, 1), (QUOTA_MAX, QUOTA_MAX), (-1, 9), (-1, 9)):
        limits.set_owner(5, value)
        assert (limits.of_owner(5), limits.of_owner(6)) == (want, 9)
    for wrong in (-2, QUOTA_MAX + 1):
        with pytest.raises(ValueError, match="domain 5"):
            limits.set_owner(5, wrong)
    limits.set("nodes", 3)
    assert limits.of_owner(5) == 3


def test_the_error_of_a_quota(make_world: Make) -> None:
    """quota-errno, in a transaction and in its replay as well."""
    for name in ("EQUOTA", "ENOSPC"):
        world = make_world(quota_errno=name, quota_maxentity=1)
        answer: Any = (ERROR, name.encode() + b"\0")
        assert world.ask("d1", "MKDIR", b"x\0") == answer
        tx_id = int(world.ask("d1", "TRANSACTION_START", b"\0")[1][:-1])
        ok(world, "d1", "WRITE", b"/local/domain/1\0mine", tx_id)
        assert world.ask("d1", "MKDIR", b"x\0", tx_id) == answer
        ok(world, "s0", "WRITE", b"/local/domain/1\0changed")
        assert world.ask("d1", "TRANSACTION_END", b"T\0", tx_id)[1] == b"OK\0"
        assert world.server.transactions_merged == 0
        assert ok(world, "s0", "READ", b"/local/domain/1\0") == b"mine"
        assert world.ask("d1", "MKDIR", b"x\0") == answer
