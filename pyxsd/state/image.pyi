# SPDX-License-Identifier: LGPL-2.1-or-later
from collections.abc import Callable

from pyxsd._conn import Connection
from pyxsd._core import Server
from pyxsd._wire import Transport

TYPES: frozenset[bytes]

def save(server: Server) -> bytes: ...
def hash_key(data: bytes) -> bytes: ...
def load(data: bytes, server: Server, now: float,
         transport_of: Callable[[int, int | None], Transport],
         any_key: bool = ...) -> None: ...
def waiting_events(c: Connection) -> list[tuple[bytes, bytes]]: ...
