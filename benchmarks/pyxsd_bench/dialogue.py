# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL live-update as xenstore-control holds it, piece by piece beside a load."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import TYPE_CHECKING

from . import wire

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 30  # that a daemon may wait for clients


class Dialogue:
    """Lets a daemon become `program`.  Over when it has an `outcome`, "OK" where all went well."""

    def __init__(self, path: str, program: str) -> None:
        self.outcome = ""
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._begun = False
        self._ask("-f", program)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _ask(self, *words: str) -> None:
        payload = b"".join(word.encode() + b"\0" for word in ("live-update", *words))
        self._socket.sendall(wire.packet(wire.CONTROL, 1, payload))

    def go_on(self) -> None:
        """Looks for an answer, without waiting for it, and says what follows."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            data = b""
            self.outcome = f"live-update: {error.strerror}"
        if not data:
            self.outcome = self.outcome or "live-update: the daemon has closed the connection"
            return
        self._rest += data
        head = wire.HEADER.size
        if len(self._rest) < head:
            return
        kind, _, _, length = wire.HEADER.unpack_from(self._rest)
        if len(self._rest) < head + length:
            return
        text = self._rest[head : head + length].rstrip(b"\0").decode("utf-8", "replace")
        self._rest = self._rest[head + length :]
        self._told(kind, text)

    def _told(self, kind: int, text: str) -> None:
        if kind == wire.CONTROL and text == "OK" and not self._begun:
            self._begun = True
            self._ask("-s", "-t", str(SECONDS))
        elif kind == wire.CONTROL and text == "BUSY" and self._begun:
            self._ask("-s", "-t", str(SECONDS))
        else:
            self.outcome = "OK" if kind == wire.CONTROL and text == "OK" else f"live-update: {text}"
