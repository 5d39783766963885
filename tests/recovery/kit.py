# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server in this process whose journal is in memory, and others made of it."""

from __future__ import annotations

from typing import Any

from pyxsd._core import Server
from pyxsd._memory import Memory
from pyxsd._wire import MemoryTransport
from pyxsd.control import Control
from pyxsd.record.replay import Steps
from pyxsd.recovery import beside
from pyxsd.state import image
from pyxsd.state.errors import StateError
from pyxsd.system.configuration import Config
from tests.world import Host, World

LIMIT = 8 << 20


class NoDomains:
    """Of a daemon without Xen."""

    def __init__(self) -> None:
        self.table: dict[int, Any] = {}
        self.by_port: dict[int, Any] = {}


class Kept:
    """A world whose server records into memory from now on."""

    def __init__(self, world: World, limit: int = LIMIT) -> None:
        self.world = world
        self.memory = Memory.create(limit)
        self.number = 0
        self.journal: Any = world.server.journal
        self.make_image()

    def make_image(self) -> None:
        """An image of now, which takes the place of the one before."""
        server = self.world.server
        first = self.number == 0
        self.number += 1
        if first:
            self.journal.record_in(self.memory, self.number, lambda: None)
        else:
            server.settle()
        length = 0

        def put(data: bytes) -> None:
            nonlocal length
            self.memory.put(self.number, length, data)
            length += len(data)

        def around() -> list[tuple[bytes, bytes]]:
            self.journal.next_segment(self.number)
            return [beside.write(server, NoDomains())]

        image.Saving(server, put, around).step(1e9)
        self.memory.swap(self.number, length)
        if first:
            server.follow_journal()

    def close(self) -> None:
        """Records no more."""
        self.journal.stop()
        self.world.server.follow_journal()
        self.memory.close()


class Recovered(Steps):
    """A server made of a memory, whose clients say nothing."""

    def __init__(self, memory: Memory, cause: int = 0) -> None:
        super().__init__()
        self.host = Host()
        self.resumed = 0
        self.server = Server(Config(), self.host)
        self.host.server = self.server
        self.host.commands = Control(self.server, self.host)
        without_clock(self.server)
        self.journal = self.server.journal
        self.domains = None
        try:
            self._build(memory, cause)
        except BaseException:
            self.close()
            raise

    def _build(self, memory: Memory, cause: int) -> None:
        found = beside.read(memory.image())
        image.load(found, self.server, None, lambda _number, _domid: MemoryTransport())
        beside.restore(found, self.server, NoDomains())
        self.under_way = self.journal.again(memory, self._count, lambda: None, cause)
        self.server.follow_journal()
        while self.step():
            pass
        self.journal.go_on_from_here()
        if self.journal.fault is not None:
            raise StateError(self.journal.fault)

    def _count(self) -> None:
        self.resumed += 1

    def close(self) -> None:
        """Nothing of it stays alive."""
        self.journal.stop()
        self.server.follow_journal()
        self.server.close()
        self.host.commands = self.host.server = None


def without_clock(server: Any) -> None:
    """The longest slices: how much is done at once does not depend on time."""
    server.agenda.slice_ns = server.agenda.turn_ns = 10**15
