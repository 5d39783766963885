# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server and a second one made of its image: what comes after must be the same for both.

The requests are those of the fuzzer's programs (tests/fuzz/program.py): many clients, well and
badly formed requests, transactions, watches, clients that do not read, cut packets, connections
that come and go, time that passes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from pyxsd._core import Server
from pyxsd._wire import MemoryTransport
from pyxsd.control import Control
from pyxsd.state import image, records
from pyxsd.system.configuration import Config
from tests.fuzz import machine as machine_module
from tests.fuzz.ledger import Ledger
from tests.fuzz.machine import FuzzHost, Machine
from tests.fuzz.program import Step, decode
from tests.state import layout
from tests.world import World

# How long something took differs between two servers.
QUEUES = ("dom0", "single", "others")
TIMES = {
    b"TURN": (
        "least",
        *(f"{queue}_{what}" for queue in QUEUES for what in ("least", "waiting", "used")),
    ),
    b"CONN": ("used", "pace"),
}


class Recorded(Ledger):
    """A ledger that keeps what its client has received since it was last asked."""

    heard = b""

    def received(self, data: bytes) -> None:
        self.heard += data
        super().received(data)


def again(transport: MemoryTransport) -> MemoryTransport:
    """Another transport in the same state, as the process that comes next finds a socket."""
    other = MemoryTransport()
    other.feed(transport.content)
    other.eof, other.room, other.failed = transport.eof, transport.room, transport.failed
    return other


def without_clock(server: Any) -> None:
    """The longest slices: how much is done at once must not depend on time."""
    server.agenda.slice_ns = server.agenda.turn_ns = 10**15


def seen(server: Any) -> list[tuple[object, ...]]:
    """What can be seen of each connection from outside."""
    return [
        (
            c.id,
            c.label,
            c.domid,
            c.target,
            c.credit,
            c.blocked,
            c.bad,
            c.ended,
            c.deaf,
            c.hung_up,
            c.interest,
            c.features,
            c.ops,
            c.queued,
            c.waiting_events,
            c.overflowing,
            c.partial_input,
            c.pending_output,
            c.torn_output,
            c.watch_list(),
            c.watch_count,
            [
                (
                    t.id,
                    t.start,
                    t.since,
                    t.count,
                    t.requests,
                    t.changes,
                    list(t.base.walk()),
                    list(t.tree.walk()),
                )
                for t in c.transactions.values()
            ],
        )
        for c in server.connections.values()
    ]


def twin(first: Machine, config: dict[str, object]) -> Machine:
    """A second machine whose server was loaded from an image of the first one's."""
    for name in first.world.names():
        first.ledger(name)  # so that each connection is listened to
    first.collect()
    data = image.save(first.world.server)
    second: Machine = Machine.__new__(Machine)
    second.log = type(first.log)(True, 180, True, True, True)
    made = World.__new__(World)
    second.world = made
    made.host = FuzzHost()
    made.server = Server(Config(**config), made.host, second.log)  # type: ignore[arg-type]
    without_clock(made.server)
    made.host.server = made.server
    made.host.commands = Control(made.server, made.host)
    made.host.mfns = dict(first.world.host.mfns)
    made.now = first.world.now
    made.rest = dict(first.world.rest)
    made.sockets = {}
    made.server.begin(made.now, made.now)
    transports: dict[int, MemoryTransport] = {}

    def transport_of(number: int, domid: int | None) -> MemoryTransport:
        known: Any = first.world.server.connections[number].transport
        transports[number] = again(known)
        if domid is not None:
            made.host.transports[domid] = transports[number]
        return transports[number]

    image.load(image.read(data), made.server, made.now, transport_of)
    assert image.save(made.server) == data, "the image of the second is another one"
    assert seen(made.server) == seen(first.world.server)
    for name, (connection, _) in first.world.sockets.items():
        if not connection.closed:
            made.sockets[name] = (made.server.connections[connection.id], transports[connection.id])
    second.ledgers = {
        name: _ledger(second, ledger, transports) for name, ledger in first.ledgers.items()
    }
    second.closed = []
    second.released, second.quota_changed = first.released, first.quota_changed
    second.cut, second.serial = dict(first.cut), first.serial
    return second


def _ledger(second: Machine, ledger: Ledger, transports: dict[int, MemoryTransport]) -> Ledger:
    other = copy.copy(ledger)
    other.owed, other.tokens = copy.copy(ledger.owed), set(ledger.tokens)
    other.tx_ids = list(ledger.tx_ids)
    if not ledger.connection.closed:
        other.transport = transports[ledger.connection.id]
        other.connection = second.world.server.connections[ledger.connection.id]
    return other


def timeless(data: bytes) -> list[tuple[bytes, Any]]:
    """The records of an image without what depends on time."""
    found: list[tuple[bytes, Any]] = []
    for record in records.read(data, image.TYPES):
        if record.type in layout.RECORDS:
            for row in layout.decode(record.type, bytes(record.body)):
                for key in TIMES.get(record.type, ()):
                    row.pop(key, None)
                found.append((record.type, row))
        else:
            found.append((record.type, bytes(record.body)))
    return found


def received(one: Machine) -> dict[str, bytes]:
    """What each client has received since the last call."""
    found = {}
    for name, ledger in one.ledgers.items():
        found[name] = ledger.heard  # type: ignore[attr-defined]
        ledger.heard = b""  # type: ignore[attr-defined]
    return found


def run(data: bytes, forks: Callable[[int], bool], ahead: int = 40) -> int:
    """Runs a program; at each step that `forks` names a second server is made, and both do the next
    `ahead` steps, with equal output after each.  How many second servers there were."""
    setattr(machine_module, "Ledger", Recorded)  # noqa: B010
    config, steps = decode(data)
    program = list(steps)
    made = 0
    first = Machine(config)
    without_clock(first.world.server)
    second: Machine | None = None
    left = 0
    try:
        for number, step in enumerate(program):
            if second is not None and left == 0:
                _same(first, second, f"before step {number}")
                second.world.close()
                second = None
            if second is None and forks(number):
                received(first)
                second = twin(first, config)
                left = ahead
                made += 1
            _do(first, second, [step], number)
            left -= 1
        if second is not None:
            _same(first, second, "at the end")
    finally:
        setattr(machine_module, "Ledger", Ledger)  # noqa: B010
        if second is not None:
            second.world.close()
        first.world.close()
    return made


def _do(first: Machine, second: Machine | None, steps: Iterable[Step], number: int) -> None:
    for step in steps:
        first.step(step)
        if second is not None:
            second.step(step)
            one, other = received(first), received(second)
            assert one == other, f"step {number}: {step}"
            lines = [
                [text for level, _, text in m.world.host.messages if level == "error"]
                for m in (first, second)
            ]
            assert lines == [[], []], lines


def _same(first: Machine, second: Machine, when: str) -> None:
    one, other = (timeless(image.save(m.world.server)) for m in (first, second))
    assert len(one) == len(other), when
    for a, b in zip(one, other):
        assert a == b, when
