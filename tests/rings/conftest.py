# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers in this process whose domains have rings, checked when a test ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rings.kit import Make, Rings


@pytest.fixture
def make_rings(no_leaks: None) -> Iterator[Make]:
    """make_rings(domids, **configuration): a Rings with these domains introduced."""
    worlds = []

    def make(domids: tuple[int, ...] = (1, 2), **config: object) -> Rings:
        world = Rings(domids, **config)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.check()
        world.close()
        assert world.xen.mapped == []


@pytest.fixture
def rings(make_rings: Make) -> Rings:
    """Domains 1 and 2 with their homes, sockets s0 and s1."""
    return make_rings()
