# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the attackers act: their domains, their connections, and dom0's part of the set-up.

Lives in the attackers' process.  Well-formed attacks run in the compiled engine, all teams in one;
attacks in Python reach a guest's page through the stand-in's module `guest`.
"""

from __future__ import annotations

import importlib
import os
import socket as sockets
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from .. import standin, wire
from ..load import Load
from ..program import EITHER, Program
from .model import Attack, Role, Team

FIRST = 10  # the domid of the first attacker
GATE = 32767  # a gate that nobody opens
GONE, DYING = 0, 3
SLICE_S = 0.02
WINDOW = 8  # requests in flight while setting up
SETTLE_S = 15.0


class Score(NamedTuple):
    """What the attackers did: requests answered (or, by the deaf, taken), programs or steps."""

    requests: int
    steps: int


class Client:
    """A socket of dom0 in Python, one request at a time."""

    def __init__(self, path: str) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.connect(path)
        self._stream = self.sock.makefile("rb")

    def request(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        """Type and payload of the reply.  ConnectionError where the daemon closed."""
        self.sock.sendall(wire.packet(kind, 0, payload))
        while True:
            head = self._stream.read(16)
            if len(head) < 16:
                raise ConnectionError("the daemon closed the connection")
            reply, _, _, length = wire.HEADER.unpack(head)
            data = self._stream.read(length)
            if reply != wire.WATCH_EVENT:
                return reply, data


class Stage:
    """All attackers of one attack.  `guests` domains are introduced, `teams` of them attack."""

    def __init__(
        self, attack: Attack, socket: str, host: str, library: str, guests: int, teams: int
    ) -> None:
        self.attack = attack
        self.socket = socket
        self.host = host
        self.load = Load(stall_s=1e6)
        self.load.rings(library, host)
        self._stay()
        members = attack.guests
        self.teams = [
            Team(tuple(range(FIRST + i * members, FIRST + (i + 1) * members)))
            for i in range(min(teams, attack.most))
        ]
        count = max(guests, len(self.teams) * members)
        self.domids = range(FIRST, FIRST + count)
        self.ports = {domid: self.load.create_domain(domid) for domid in self.domids}
        self.dom0 = Client(socket)
        self._python: Any = None
        self._acts: list[Iterator[int]] = []
        self._placed: list[tuple[Role, int, Program]] = []
        self._packet = 0.0  # mean bytes of a request of those who are deaf
        self._introduce()

    def _stay(self) -> None:
        """A connection that waits for ever keeps the engine going beside deaf attackers."""
        mine, self._other = sockets.socketpair()
        self.load.adopt(mine.detach(), Program().gate(GATE), loops=1)

    def _introduce(self) -> None:
        program = Program()
        for domid, port in self.ports.items():
            program.send(wire.INTRODUCE, b"%d\0%d\0%d\0" % (domid, domid + 1000, port))
            program.write(f"/local/domain/{domid}", b"")
            program.set_perms(f"/local/domain/{domid}", f"n{domid}")
        self.once(program)

    def once(self, program: Program, window: int = 32) -> None:
        """Runs a program of dom0 to its end, over a socket of its own."""
        with Load(stall_s=SETTLE_S) as load:
            load.connect(self.socket, program, window=window, loops=1)
            load.finish()

    def guest(self, domid: int) -> Any:
        """A guest's page for an attack in Python: a `Guest` of the stand-in's module `guest`."""
        if self._python is None:
            sys.path.insert(0, os.path.dirname(str(standin.load().__file__)))
            self._python = importlib.import_module("guest").Host(self.host)
        return self._python.guest(domid, self.ports[domid])

    def come_and_go(self, domid: int) -> None:
        """A domain is made, introduced, dies and is released."""
        port = self.load.create_domain(domid)
        self.dom0.request(wire.INTRODUCE, b"%d\0%d\0%d\0" % (domid, domid + 1000, port))
        self.load.set_domain(domid, DYING)
        self.load.set_domain(domid, GONE)
        self.dom0.request(wire.RELEASE, b"%d\0" % domid)

    def set_up(self, enough: Callable[[], bool]) -> int:
        """Sets up team after team until that is `enough`; how many will attack."""
        ready = 0
        for team in self.teams:
            if ready and enough():
                break
            if self.attack.act:
                self._acts.append(self.attack.act(self, team))
                next(self._acts[-1])
            else:
                self._set_up(team)
            ready += 1
        self.teams = self.teams[:ready]
        return ready

    def _set_up(self, team: Team) -> None:
        domids = iter(team.domids)
        for role in self.attack.roles:
            number = self.load.program(role.setup(team) if role.setup else Program())
            step = role.step(team) if role.step else Program()
            domid = next(domids) if role.via == "ring" else 0
            for _ in range(role.conns):
                if domid:
                    conn = self.load.ring(domid, self.ports[domid], number, WINDOW, 1)
                else:
                    conn = self.load.connect(self.socket, number, WINDOW, 1)
                self._settle()
                self._placed.append((role, conn, step))

    def _settle(self) -> None:
        """Until the set-up of the newest connection ended."""
        wanted = self.load.counts().loops + 1
        end = time.monotonic() + SETTLE_S
        while self.load.counts().loops < wanted:
            self.load.run(0.001)
            if time.monotonic() > end:
                raise TimeoutError(f"the set-up did not end within {SETTLE_S:g} s")

    def start(self) -> None:
        """From now on everybody steps, as soon as `run` is called."""
        for role, conn, step in self._placed:
            if not len(step) and not role.deaf:
                continue  # it goes on reading, and that is all
            self.load.restart(conn, step, window=role.window, loops=0)
            if role.deaf:
                self.load.deaf(conn)
                self._packet = len(step.blob) / len(step) if len(step) else self._packet
        self.load.reset()

    def run(self, stopped: Callable[[], bool]) -> Score:
        """Attacks until `stopped`."""
        requests = steps = 0
        while not stopped():
            if not self._acts:
                self.load.run(SLICE_S)
                continue
            end = time.monotonic() + SLICE_S
            for act in self._acts:
                requests += next(act)
                steps += 1
                if time.monotonic() > end and stopped():
                    break
        counts = self.load.counts()
        if self._acts:
            return Score(requests, steps)
        if self._packet:
            return Score(int(counts.bytes_out / self._packet), counts.loops)
        return Score(counts.requests, counts.loops)

    def leave(self) -> None:
        """The attackers' domains die, and dom0 clears up after them."""
        program = Program()
        for domid in self.domids:
            self.load.set_domain(domid, DYING)
            self.load.set_domain(domid, GONE)
            program.send(wire.RELEASE, b"%d\0" % domid, EITHER)
            program.send(wire.RM, b"/local/domain/%d\0" % domid, EITHER)
        self.once(program, window=1)
