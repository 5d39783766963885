# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recording of a world's server, and second servers made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyxsd.control import Control
from pyxsd.record import beginning, recording
from pyxsd.record.blanked import Blanked
from pyxsd.record.host import Replayed
from pyxsd.record.replay import Replay
from pyxsd.system.configuration import Config
from tests.state.twins import seen
from tests.world import World


class Recording:
    """What a Recorder needs of the daemon; the test calls its timers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server: Any = None
        self.domains: Any = None
        self.protection: Any = None
        self.timers: list[Callable[[], None]] = []
        self.said: list[str] = []

    def after(self, _seconds: float, what: Callable[[], None]) -> None:
        self.timers.append(what)

    def soon(self, what: Callable[[], None]) -> None:
        what()

    def log(self, level: str, text: str) -> None:
        self.said.append(f"{level}: {text}")


class Tape:
    """A recording that begins now; config: what the world was made with, and values: whether the
    recording has values (record-values)."""

    def __init__(self, world: World, config: Config | None = None, values: bool = True) -> None:
        self.world = world
        self.config = (config or Config())._replace(record_values=values)
        self.domains = getattr(world.host, "domains", None)
        self.mfns = dict(world.host.mfns)
        self.data = self.raw = b""
        self.beginning = recording.begin(
            world.server, self.domains, world.host, self.config, lambda: None
        )
        self.blanked = None if values else Blanked(world.server)

    def taken(self) -> bytes:
        """All records so far, as a file has them; `raw`: as they were in memory."""
        new = self.world.server.journal.take()
        self.raw += new
        self.data += new if self.blanked is None else self.blanked.records(new)
        return self.data

    def again(self, last: int = -1) -> Replay:
        """A second server that has done all that the first has done until now; last: up to that
        request."""
        first = self.world.server.agenda
        host: Any = type(self.world.host)() if self.domains is None else None
        replay = Replay(self.beginning, host=host)
        if host is not None:
            host.server = replay.server
            host.commands = Control(replay.server, Replayed(replay.journal, replay.server, host))
            host.mfns = dict(self.mfns)
        second = replay.server.agenda
        second.slice_ns, second.turn_ns = first.slice_ns, first.turn_ns
        replay.feed(self.taken())
        if last >= 0:
            replay.end_behind(last)
        while replay.step():
            pass
        if last >= 0:
            return replay
        assert replay.fault is None, replay.fault
        assert replay.failures == [], replay.failures[0]
        assert replay.journal.offset == len(self.data)
        return replay

    def check(self) -> None:
        """Is the second server the first one?"""
        replay = self.again()
        try:
            if self.config.record_values:
                assert seen(replay.server) == seen(self.world.server)
            one, two = (
                beginning.read(beginning.write(server, domains, self.config))
                for server, domains in (
                    (self.world.server, self.domains),
                    (replay.server, replay.domains),
                )
            )
            # Whether the access log is on is kept elsewhere in a replay.
            for row in (one, two):
                del row["log"], row["wall"]
            assert one == two
        finally:
            close(replay)

    def close(self) -> None:
        """Records no more."""
        recording.end(self.world.server, self.domains, self.world.host)


def close(replay: Replay) -> None:
    """Nothing of it stays alive."""
    if replay.domains is not None:
        replay.domains.table.clear()
        replay.domains.by_port.clear()
    replay.server.close()
    replay.host.commands = replay.host.domains = replay.domains = None
