# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all tests share: the leak check, and servers that are closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.leaks import no_leaks
from tests.no_memory import no_memory
from tests.timelimit import pytest_addoption, pytest_configure

__all__ = ["no_leaks", "no_memory", "pytest_addoption", "pytest_configure"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Lets fixtures see how their test ended."""
    report = yield
    if report.when == "call":
        item.call_report = report  # type: ignore[attr-defined]
    return report


@pytest.fixture
def make_world(no_leaks: None) -> Iterator[Callable[..., Any]]:
    """Makes servers in this process: make_world(domids, log=..., **configuration)."""
    from pyxsd.system.configuration import Config
    from tests.world import World

    worlds = []

    def make(domids: tuple[int, ...] = (1, 2), log: Any = None, **config: Any) -> World:
        world = World(Config(**config), log)
        worlds.append(world)
        world.connection("s0")
        world.connection("s1")
        for domid in domids:
            world.introduce(domid)
            home = b"/local/domain/%d\0" % domid
            world.ask("s0", "MKDIR", home)
            world.ask("s0", "SET_PERMS", home + b"n%d\0" % domid)
        return world

    yield make
    for world in worlds:
        if world.server is not None:
            bugs = [
                text
                for level, _, text in world.host.messages
                if level == "error" and "request failed" in text
            ]
            world.close()
            assert not bugs, bugs[0]


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    """A server with sockets s0 and s1, domains 1 and 2 with their homes, and the defaults."""
    return make_world()
