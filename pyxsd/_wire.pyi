# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import final

class RequestError(Exception):
    status: int
    def __init__(self, name: str) -> None: ...

class Transport: ...

@final
class MemoryTransport(Transport):
    eof: bool
    room: int
    failed: int
    @property
    def unread(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    def feed(self, data: bytes) -> None: ...
    def take(self) -> bytes: ...
