# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains on a Xen inside the process, and hosts with a real daemon on the stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.domains.standin import NAMES, Stand, peers, require
from tests.rings.conftest import make_rings, rings

__all__ = ["make_rings", "rings"]


@pytest.fixture
def stand() -> Iterator[Stand]:
    """pyxsd on a host of its own, started."""
    with Stand() as running:
        yield running.start()


@pytest.fixture(params=NAMES)
def any_stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """Each of the three daemons, not started."""
    if request.param != "pyxsd":
        try:
            peers.find_program(request.param)
        except peers.PeerMissing as absent:
            require(str(absent))
    with Stand(request.param) as made:
        yield made
