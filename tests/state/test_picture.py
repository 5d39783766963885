# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image as the plain value that other daemons' files are read into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyxsd.state import image, picture
from pyxsd.state.host_state import HostState, Permission, Settings
from pyxsd.system.configuration import Config
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World(Config(quota_maxwatch=9))
    made.introduce(1)
    made.introduce(2)
    yield made
    made.close()


def picture_of(world: World) -> HostState:
    return picture.read_image(image.save(world.server))


def test_settings(world: World) -> None:
    """Of a domain only the quotas that differ from those of all."""
    world.server.domains[1].features = 5
    world.server.set_quota("watches", 3, world.server.domains[1])
    world.server.set_quota("nodes", 0, world.server.domains[1])
    world.server.set_quota("watches", 9, world.server.domains[2])
    state = picture_of(world)
    assert state.domain_quotas[b"watches"] == 9 and state.kind == "image"
    assert state.settings[1] == Settings(5, {b"watches": 3, b"nodes": 0})
    assert state.settings[2] == Settings(0, {})


@pytest.mark.parametrize("target", [None, 0, 1, 7])
def test_target(world: World, target: int | None) -> None:
    """Domain 0 is a domain like any other here, and no sign of none."""
    if target is not None:
        world.server.set_target(world.server.domains[2], target)
    clients = {client.domid: client for client in picture_of(world).clients}
    assert clients[2].target == target and clients[1].target is None


def test_nodes(world: World) -> None:
    """A name that begins with "@" is a node of its own only below the root."""
    for path in (b"/a/@b", b"/a/@b/c"):
        assert world.ask("s0", "WRITE", path + b"\0v")[1] == b"OK\0"
    nodes = {node.path: node for node in picture_of(world).nodes}
    assert {
        b"/",
        b"/a",
        b"/a/@b",
        b"/a/@b/c",
        b"@releaseDomain",
        b"@introduceDomain",
        b"/tool/xenstored",
    } <= set(nodes)
    assert nodes[b"/a/@b"].permissions == (Permission(0, 0),)
    assert nodes[b"/a/@b"].value == b"v"
