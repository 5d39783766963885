# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the benchmark harness share: a scripted server in a thread."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyxsd_bench import daemons, wire

Answer = Callable[[int, int, int, bytes], bytes]


def missing(what: str) -> None:
    """Skips, or fails where everything must run."""
    if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


def need_pyxsd() -> str:
    """pyxsd's program; skips, or fails, where it is not installed."""
    program = shutil.which(daemons.places("", "", "", {})["pyxsd"])
    if program is None:
        missing("pyxsd")
    return str(program)


def packet(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
    return wire.HEADER.pack(kind, req_id, tx_id, len(payload)) + payload


def ok(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
    """A daemon that likes everything; transactions get the id 7."""
    return packet(kind, req_id, tx_id, b"7\0" if kind == wire.TRANSACTION_START else b"OK\0")


class Server:
    """Answers each request with what `answer` makes of it; None closes the connection.

    `piece`: sends so many bytes at a time.
    """

    def __init__(self, path: Path, answer: Answer, piece: int = 1 << 20) -> None:
        self.path = str(path)
        self.answer = answer
        self.piece = piece
        self.requests: list[tuple[int, int, bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        with client:
            while True:
                try:
                    head = stream.read(wire.HEADER.size)
                    if len(head) < wire.HEADER.size:
                        return
                    kind, req_id, tx_id, length = wire.HEADER.unpack(head)
                    payload = stream.read(length)
                except ConnectionResetError:
                    return  # the client has gone with a reply unread
                self.requests.append((kind, tx_id, payload))
                reply = self.answer(kind, req_id, tx_id, payload)
                if reply is None:
                    return
                try:
                    for at in range(0, len(reply), self.piece):
                        client.sendall(reply[at : at + self.piece])
                except OSError:
                    return  # the client has gone


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """serve(answer, piece=...): a running server."""
    servers: list[Server] = []

    def make(answer: Answer = ok, piece: int = 1 << 20) -> Server:
        servers.append(Server(tmp_path / f"socket{len(servers)}", answer, piece))
        return servers[-1]

    yield make
    for server in servers:
        server.close()
