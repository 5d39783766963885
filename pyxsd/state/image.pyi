# SPDX-License-Identifier: LGPL-2.1-or-later
from collections.abc import Callable, Iterable
from typing import Any, Union, final

from pyxsd._conn import Connection
from pyxsd._core import Server
from pyxsd._wire import Transport
from pyxsd.state.records import Record

OWN: frozenset[bytes]
ALSO: frozenset[bytes]
TYPES: frozenset[bytes]

_Around = Callable[[], Iterable[tuple[bytes, bytes]]]

@final
class Saving:
    def __init__(
        self,
        server: Server,
        put: Callable[[bytes], Any],
        around: _Around | None = ...,
        blank: bool = ...,
    ) -> None: ...
    def step(self, seconds: float) -> bool: ...

def save(server: Server, around: _Around | None = ..., blank: bool = ...) -> bytes: ...
def read(data: Union[bytes, memoryview]) -> list[Record]: ...
def hash_key(found: list[Record]) -> bytes: ...
def load(
    found: list[Record],
    server: Server,
    now: float | None,
    transport_of: Callable[[int, int | None], Transport],
    any_key: bool = ...,
) -> None: ...
def waiting_events(c: Connection) -> list[tuple[bytes, bytes]]: ...
