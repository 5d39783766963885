# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the glue's tests: built libraries, private hosts, raw xenstore sockets."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "glue" / "standin"))

import guest
import peers


def missing(what: str) -> None:
    """A test cannot run: skip it with the reason, or fail where everything is required."""
    if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
        pytest.fail(what)
    pytest.skip(what)


class Wire:
    """A raw xenstore client on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(guest.DEADLINE)
        self.sock.connect(str(path))
        self.events: list[bytes] = []

    def packet(self) -> tuple[int, bytes]:
        """The next packet: type and payload."""
        header = self.sock.recv(16, socket.MSG_WAITALL)
        kind, _, _, length = struct.unpack("=4I", header)
        return kind, self.sock.recv(length, socket.MSG_WAITALL) if length else b""

    def request(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        """Send a request, give its reply; events on the way are kept."""
        self.sock.sendall(struct.pack("=4I", kind, 1, 0, len(payload)) + payload)
        while True:
            got, data = self.packet()
            if got != guest.WATCH_EVENT:
                return got, data
            self.events.append(data)

    def event(self) -> bytes:
        """The next watch event."""
        if self.events:
            return self.events.pop(0)
        kind, data = self.packet()
        assert kind == guest.WATCH_EVENT, (kind, data)
        return data


@pytest.fixture(scope="session")
def libs() -> Path:
    """The directory of the stand-in's libraries, built from the sources."""
    return peers.build_standin()


@pytest.fixture
def root() -> Iterator[Path]:
    """A private directory with host/ and run/."""
    import shutil

    path = peers.make_root(None)
    yield path
    shutil.rmtree(path)
