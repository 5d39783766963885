# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon for each test that asks for one, checked at the test's end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.daemon import Daemon

TOOLS = "/usr/lib/xen-*/bin"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A running daemon; at the end it must be alive, without complaints, and end well."""
    with Daemon() as running:
        yield running


@pytest.fixture
def program() -> Callable[[str], str]:
    """The path of a program that a test needs: program("xenstore-read")."""

    def find(name: str) -> str:
        inside = sorted(str(path) for path in Path("/").glob(f"usr/lib/xen-*/bin/{name}"))
        path = inside[-1] if inside else shutil.which(name)
        if path is None:
            require(f"{name} is not installed (Debian packages xenstore-utils, xen-utils-4.17)")
        assert path is not None
        return path

    return find


def require(reason: str) -> None:
    """Something is missing: fails where all must run, else skips."""
    if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
