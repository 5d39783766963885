# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a program (program.py) against a server in this process and checks everything that can be.

What must hold: no request fails inside the daemon; each is answered exactly once, whoever else
misbehaves; a connection ends only where its client closed it, broke the framing or its domain was
released; entry counts equal a recount; queues keep to their limits; once everybody reads and time
passes nothing is left waiting; and at the end nothing of the server is alive.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from pyxsd._accesslog import AccessLog
from pyxsd.system.configuration import Config
from tests.fuzz.ledger import Broken, Ledger, header
from tests.fuzz.program import Step, decode
from tests.leaks import differences, live_counts
from tests.world import TYPES, Host, World

SETTLE_TURNS = 2000
WANT_IN, WANT_OUT = 1, 4


class FuzzHost(Host):
    """The domains, and what CONTROL needs; nothing of it touches a file."""

    def control(self, connection: Any, payload: bytes) -> bytes | None:
        """Without the commands' file names."""
        name = payload.split(b"\0", 1)[0]
        return super().control(connection, name + b"\0" if name == b"memreport" else payload)

    def access_log(self, on: bool | None) -> bool:
        """It is always on."""
        return True

    def log_file(self, path: str) -> None:
        """Goes nowhere."""

    def memory(self) -> str:
        """No report."""
        return ""


class Machine:
    """One server and the clients of one program."""

    def __init__(self, config: dict[str, Any]) -> None:
        log = AccessLog(True, 180, True, True, True)
        self.world = World(Config(**config), log)
        self.world.host.__class__ = FuzzHost
        self.log = log
        self.ledgers: dict[str, Ledger] = {}
        self.closed: list[Ledger] = []
        self.released = False
        self.quota_changed = False
        self.cut: dict[str, int] = {}
        self.serial = 0
        for name in ("s0", "s1"):
            self.ledger(name)
        for domid in (1, 2):
            home = b"/local/domain/%d\0" % domid
            self.request("s0", TYPES["INTRODUCE"], b"%d\x004660\x007\0" % domid)
            self.request("s0", TYPES["MKDIR"], home)
            self.request("s0", TYPES["SET_PERMS"], home + b"n%d\0" % domid)

    # -- clients --------------------------------------------------------------

    def alive(self, name: str) -> bool:
        """Is there such a connection, or can one be made?"""
        return name[0] == "s" or int(name[1:]) in self.world.server.domains

    def ledger(self, name: str) -> Ledger:
        """The ledger of a connection, a new one where the connection is new."""
        connection, transport = self.world.connection(name)
        found = self.ledgers.get(name)
        if found is None or found.transport is not transport:
            if found is not None:
                self.closed.append(found)
            found = self.ledgers[name] = Ledger(name)
            found.transport, found.connection = transport, connection
            self.cut.pop(name, None)
        return found

    def send(self, name: str, data: bytes, hold: bool = False) -> None:
        """Bytes to a connection, cut where a "cut" step asked for it."""
        ledger = self.ledger(name)
        data = ledger.unsent + data
        n = self.cut.pop(name, len(data))
        ledger.unsent = data[n:]
        if data[:n]:
            ledger.transport.feed(data[:n])
            ledger.fed(data[:n])
        if not hold:
            self.turn()

    def request(
        self, name: str, type_: int, payload: bytes, tx: int = 0, hold: bool = False
    ) -> None:
        """One request; tx counts the transactions that the connection has begun."""
        ids = self.ledger(name).tx_ids
        tx_id = 0
        if tx:
            tx_id = ids[-1 - (tx - 1) % 4] if len(ids) > (tx - 1) % 4 else tx
        self.serial += 1
        if type_ == TYPES["RELEASE"]:
            self.released = True
        if type_ == TYPES["CONTROL"] and payload.startswith(b"quota\0set"):
            self.quota_changed = True
        self.send(name, header(type_, self.serial, tx_id, len(payload)) + payload, hold)

    # -- the server -----------------------------------------------------------

    def turn(self) -> None:
        """One turn of the loop, then the clients take what they got."""
        world = self.world
        ready = [ledger.connection for ledger in self.ledgers.values() if self.is_ready(ledger)]
        world.server.begin(world.now, world.now)
        for connection in ready:
            # One may have ended another in this turn.
            world.server.service(connection)
        while world.server.flush():
            pass
        world.server.take_changed()
        self.collect()

    @staticmethod
    def is_ready(ledger: Ledger) -> bool:
        """Would epoll report it?  Only what the connection waits for, and who is gone always."""
        connection, transport = ledger.connection, ledger.transport
        if connection.closed:
            return False
        return bool(
            transport.eof
            or (connection.interest & WANT_IN and transport.unread)
            or (connection.interest & WANT_OUT and transport.room)
        )

    def collect(self) -> None:
        """Every client reads; the log is whole lines; nobody ended without a reason."""
        data, lines = self.log.take()
        if data.count(b"\n") != lines or (data and data[-1:] != b"\n"):
            raise Broken(f"access log: {lines} lines, {data!r}")
        for ledger in [*self.ledgers.values(), *self.closed]:
            ledger.received(ledger.transport.take())
            if ledger.connection.closed and not (
                ledger.doomed or ledger.over or (ledger.name[0] == "d" and self.released)
            ):
                raise Broken(f"{ledger.name}: closed without a reason")
        for ledger in self.ledgers.values():
            if ledger.name[0] == "s" and ledger.connection.closed:
                self.world.sockets.pop(ledger.name, None)
        self.bounds()

    def bounds(self) -> None:
        """No queue is over its limit."""
        if self.quota_changed:
            return
        server = self.world.server
        for connection in server.connections.values():
            replies, events = connection.queued
            if replies > server.quota("outstanding") or events > server.quota("watch-events"):
                raise Broken(f"{connection.label!r}: {replies} replies, {events} events queued")
            limit = max(1, connection.watch_count) * server.quota("watch-events")
            if connection.waiting_events > limit:
                raise Broken(f"{connection.label!r}: {connection.waiting_events} events wait")

    def step(self, step: Step) -> None:
        """Does one step of a program."""
        if not self.alive(step.who):
            return
        if step.op == "request":
            self.request(step.who, step.type, step.payload, step.extra, step.hold)
        elif step.op == "raw":
            if step.payload:
                # It may hold any request.
                self.released = self.quota_changed = True
                self.send(step.who, step.payload, step.hold)
        elif step.op == "turn":
            self.turn()
        elif step.op == "room":
            self.ledger(step.who).transport.room = step.extra
            if not step.hold:
                self.turn()
        elif step.op == "close":
            ledger = self.ledger(step.who)
            if step.who[0] == "s":
                ledger.over = True
                ledger.transport.eof = True
                if not step.hold:
                    self.turn()
        elif step.op == "tick":
            self.world.now += step.extra / 1000.0
            self.world.server.tick(self.world.now)
            self.turn()
        elif step.op == "cut":
            self.cut[step.who] = step.extra

    # -- the end --------------------------------------------------------------

    def settle(self) -> None:
        """Everybody reads, time passes: all answers must come."""
        for name, ledger in list(self.ledgers.items()):
            if not ledger.connection.closed:
                ledger.transport.room = -1
                self.cut.pop(name, None)
                if ledger.unsent:
                    self.send(name, b"", hold=True)
        for _ in range(SETTLE_TURNS):
            before = self.progress()
            self.world.now += 1.0
            self.world.server.tick(self.world.now)
            self.turn()
            if self.progress() == before and not self.paused():
                break
        else:
            raise Broken("it never comes to rest")
        if self.quota_changed:
            # "quota set outstanding 0" stops everybody, as asked.
            return
        for ledger in [*self.ledgers.values(), *self.closed]:
            if not ledger.connection.closed:
                ledger.settle()
        for connection in self.world.server.connections.values():
            left = (
                connection.queued,
                connection.waiting_events,
                connection.overflowing,
                connection.blocked,
            )
            if left != ((0, 0), 0, 0, False):
                raise Broken(f"{connection.label!r}: left at rest: {left}")

    def paused(self) -> bool:
        """Does a domain wait for conflict credit?"""
        return any(c.credit <= 0 for c in self.world.server.connections.values())

    def progress(self) -> tuple[int, int]:
        """Grows with whatever the server does."""
        server = self.world.server
        return server.ops, server.events

    def bystander(self) -> None:
        """A client that comes last is served as if nothing had happened."""
        self.world.sockets.pop("s9", None)
        kind, body = self.world.ask("s9", "DIRECTORY", b"/\0")
        if kind not in (TYPES["DIRECTORY"], TYPES["ERROR"]) or (kind == 16 and body != b"E2BIG\0"):
            raise Broken(f"bystander: {kind} {body!r}")

    def recount(self) -> None:
        """The entry counts of the store against the store."""
        tree = self.world.server.tree
        entries: dict[int, int] = {}
        nodes = 0
        for names, perms, _ in tree.walk():
            if names:
                nodes += 1
                entries[perms[0][0]] = entries.get(perms[0][0], 0) + 1
        if nodes != tree.size or entries != tree.all_entries():
            raise Broken(f"{nodes} nodes of {tree.size}, {entries} counted {tree.all_entries()}")

    def messages(self) -> None:
        """The daemon log has no error."""
        for level, facility, text in self.world.host.messages:
            if level == "error":
                raise Broken(f"{facility}: {text}")


def run(data: bytes) -> None:
    """Runs the program that some bytes stand for; Broken where the server is."""
    config, steps = decode(data)
    ignored: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, ignored.append
    before = live_counts()
    machine = Machine(config)
    try:
        for step in steps:
            machine.step(step)
        machine.recount()
        machine.settle()
        machine.recount()
        machine.bystander()
        machine.messages()
        if ignored:
            raise Broken(f"an exception was ignored: {ignored[0]}")
    finally:
        sys.unraisablehook = hook
        machine.world.close()
        machine.ledgers.clear()
        machine.closed.clear()
    del machine
    left = differences(before, live_counts())
    if left:
        gc.collect()
        left = differences(before, live_counts())
    if left:
        raise Broken(f"left alive: {left}")
