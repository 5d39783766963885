# SPDX-License-Identifier: LGPL-2.1-or-later
"""Before another xenstored takes over, what was read is served, and nothing more is read."""

from __future__ import annotations

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.switch import obstacles
from pyxsd.system.configuration import Config
from pyxsd.update.arrival import Quiet
from tests.world import packet


def test_what_was_read_is_served_and_nothing_more() -> None:
    server = Server(Config(), Quiet(), AccessLog(False))
    transport = MemoryTransport()
    client = server.connect(transport)
    half = packet("READ", b"/tool\0", 0, 3)[:9]
    requests = packet("READ", b"/tool\0", 0, 1) + packet("READ", b"/tool\0", 0, 2) + half
    server.restore_stream(client, requests, b"")
    transport.feed(packet("READ", b"/tool\0", 0, 3)[9:])
    assert obstacles.whole_requests(client) == 2
    obstacles.serve_what_was_read(server)
    assert obstacles.whole_requests(client) == 0
    assert client.partial_input == half
    assert client.pending_output == packet("READ", b"", 0, 1) + packet("READ", b"", 0, 2)
    server.service(client)
    assert client.partial_input == b""
    server.close()
