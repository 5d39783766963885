# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients whose every reply and event is known before: one at a time, pipelined, in transactions,
with watches, and short ones that come and go."""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque
from pathlib import Path
from typing import Any

from tests.world import EVENT, TYPES, packet, packets

DEADLINE = 30.0
ERROR = TYPES["ERROR"]
OK = b"OK\0"
NODES = 6


class Wrong(AssertionError):
    """A reply or an event that is not the one that was due."""


class Line:
    """One connection: requests with the replies that are due."""

    def __init__(self, traffic: Traffic, name: str) -> None:
        self.traffic = traffic
        self.name = name
        self.open()
        self.rest = b""
        self.unsent = b""
        self.serial = 0
        self.due: deque[tuple[int, int, bytes, str]] = deque()
        self.last: bytes = b""
        self.since = time.monotonic()

    def open(self) -> None:
        """Connects."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.traffic.path))
        self.sock.setblocking(False)

    def put(self, data: bytes) -> int:
        """Sends as much as goes; how much that was."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def get(self) -> bytes | None:
        """What has come; None for nothing, b"" where it was closed."""
        try:
            return self.sock.recv(1 << 16)
        except BlockingIOError:
            return None

    def ask(self, type_: str, payload: bytes, due: bytes | None, tx: int = 0) -> None:
        """One more request; due: b"!ENOENT" for an error, None where it is kept in `last`."""
        self.serial += 1
        if due is not None and due[:1] == b"!":
            kind, content = ERROR, due[1:] + b"\0"
        else:
            kind, content = TYPES[type_], b"*" if due is None else due
        self.due.append((self.serial, kind, content, f"{type_} {payload!r} tx {tx}"))
        self.unsent += packet(type_, payload, tx, self.serial)

    def push(self) -> None:
        if not self.due:
            self.since = time.monotonic()
        if self.unsent:
            try:
                n = self.put(self.unsent)
            except OSError as error:
                raise Wrong(f"{self.name}: {error}, with {self.due}") from None
            self.unsent = self.unsent[n:]

    def pull(self) -> None:
        try:
            data = self.get()
        except OSError as error:
            raise Wrong(f"{self.name}: {error}, with {list(self.due)[:3]}") from None
        if data is None:
            return
        if not data:
            raise Wrong(f"{self.name} was closed, with {list(self.due)[:3]}")
        found, self.rest = packets(self.rest + data)
        self.since = time.monotonic()
        for type_, req_id, _, payload in found:
            if type_ == EVENT:
                self.event(payload)
                continue
            if not self.due:
                raise Wrong(f"{self.name}: a reply too many: {type_} {req_id} {payload!r}")
            serial, kind, content, text = self.due.popleft()
            if (req_id, type_) != (serial, kind) or content not in (b"*", payload):
                raise Wrong(
                    f"{self.name}: {text} ({serial}) was answered {type_} {req_id} {payload!r}, "
                    f"and not {kind} {content!r}"
                )
            self.last = payload
            self.traffic.replies += 1

    def event(self, payload: bytes) -> None:
        raise Wrong(f"{self.name}: an event {payload!r}")

    def close(self) -> None:
        self.sock.close()


class Session(Line):
    """A client with nodes of its own, and a watch on a place that others write to."""

    is_trusted = True  # may it write everywhere?

    def __init__(self, traffic: Traffic, number: int, most: int) -> None:
        self.number, self.most = number, most
        self.home = b"/k/%d" % number
        self.place = b"/e/%d" % number  # what it watches
        self.perms = b"n0\0"
        super().__init__(traffic, f"session {number}")
        self.model: dict[bytes, bytes] = {}
        self.inside: dict[bytes, bytes] | None = None
        self.tx = 0
        self.stage = "begin"
        self.told: dict[int, deque[bytes]] = {}  # by writer: events that are due
        self.is_watching = False
        self.seen: deque[bytes] = deque()  # what was told of, and is there still
        self.removed: deque[bytes] = deque()  # what was removed, which is told of, too
        self.events = 0

    def event(self, payload: bytes) -> None:
        path, token, rest = payload.split(b"\0", 2)
        if token != b"t%d" % self.number or rest:
            raise Wrong(f"{self.name}: an event {payload!r}")
        if path == self.place and not self.is_watching:
            self.is_watching = True
            return
        if self.removed and self.removed[0] == path:
            self.removed.popleft()
            return
        writer = int(path.split(b"/")[-1].split(b"-")[0])
        due = self.told.get(writer)
        if not due or due[0] != path:
            raise Wrong(f"{self.name}: an event {payload!r}, due is {list(due or ())[:2]}")
        due.popleft()
        self.seen.append(path)
        self.events += 1

    def step(self, rnd: random.Random, may_begin: bool) -> None:
        """The next requests where none is under way."""
        if self.due:
            return
        if self.stage == "begin":
            self.ask("MKDIR", self.home + b"\0", OK)
            self.ask("WATCH", self.place + b"\0t%d\0" % self.number, OK)
            self.stage = "free"
        elif self.stage == "starts":
            self.tx, self.inside = int(self.last[:-1]), dict(self.model)
            for _ in range(rnd.randint(1, self.most)):
                self._one(rnd, self.inside, self.tx)
            self.stage = "ends"
        elif self.stage == "ends":
            assert self.inside is not None
            commits = rnd.random() < 0.8
            self.ask("TRANSACTION_END", b"T\0" if commits else b"F\0", OK, self.tx)
            if commits:
                self.model = self.inside
            self.tx, self.inside, self.stage = 0, None, "free"
        elif may_begin and rnd.random() < 0.2:
            self.ask("TRANSACTION_START", b"\0", None)
            self.stage = "starts"
        elif may_begin:
            for _ in range(min(self.most, len(self.seen))):
                self.removed.append(self.seen.popleft())
                self.ask("RM", self.removed[-1] + b"\0", OK)
            for _ in range(rnd.randint(1, self.most)):
                if rnd.random() < 0.25:
                    self._tell(rnd)
                else:
                    self._one(rnd, self.model, 0)

    def _tell(self, rnd: random.Random) -> None:
        other = rnd.choice(self.traffic.sessions) if self.is_trusted else self
        # A guest that is slower than those who tell it something would have more nodes than it may.
        there = sum(map(len, other.told.values())) + len(other.seen) + len(other.removed)
        if not other.is_watching or there > 200:
            return
        self.traffic.serial += 1
        path = other.place + b"/%d-%d" % (self.number, self.traffic.serial)
        other.told.setdefault(self.number, deque()).append(path)
        self.ask("WRITE", path + b"\0v", OK)

    def _one(self, rnd: random.Random, model: dict[bytes, bytes], tx: int) -> None:
        parent = b"a%d" % rnd.randrange(NODES)
        child = parent + b"/b%d" % rnd.randrange(NODES)
        path = self.home + b"/" + child + b"\0"
        kind = rnd.randrange(5)
        if kind <= 1:
            value = bytes(rnd.choices(b"abcdef", k=rnd.choice((1, 5, 40, 400))))
            model.setdefault(parent, b"")
            model[child] = value
            self.ask("WRITE", path + value, OK, tx)
        elif kind == 2:
            self.ask("READ", path, model.get(child, b"!ENOENT"), tx)
        elif kind == 3:
            self.ask("GET_PERMS", path, self.perms if child in model else b"!ENOENT", tx)
        elif rnd.random() < 0.3:
            for key in [k for k in model if k.split(b"/")[0] == parent]:
                del model[key]
            self.ask("RM", self.home + b"/" + parent + b"\0", OK, tx)
        else:
            self.ask("READ", self.home + b"/" + parent + b"\0", model.get(parent, b"!ENOENT"), tx)

    def check(self) -> None:
        """Asks for all nodes."""
        for key in sorted(self.model):
            self.ask("READ", self.home + b"/" + key + b"\0", self.model[key])


class Ring(Session):
    """The same over the ring of a domain, which is introduced and has a home."""

    is_trusted = False

    def __init__(self, traffic: Traffic, number: int, most: int, domain: Any) -> None:
        self.domain = domain
        super().__init__(traffic, number, most)
        self.name = f"domain {domain.domid}"
        self.home = b"/local/domain/%d/k" % domain.domid
        self.place = b"/local/domain/%d/e" % domain.domid
        self.perms = b"n%d\0" % domain.domid

    def open(self) -> None:
        pass

    def put(self, data: bytes) -> int:
        count = int(self.domain.write(data))
        if count:
            self.domain.kick()
        return count

    def get(self) -> bytes | None:
        data: bytes = self.domain.read()
        if data:
            self.domain.kick()
        return data or None

    def close(self) -> None:
        pass


class Toolstack(Line):
    """Introduces domains and releases them again."""

    def __init__(self, traffic: Traffic, domains: list[Any]) -> None:
        super().__init__(traffic, "toolstack")
        self.domains = domains

    def step(self, rnd: random.Random) -> None:
        """One domain more, from its beginning to its end."""
        if self.due:
            return
        domain = rnd.choice(self.domains)
        name = b"%d\0" % domain.domid
        home = b"/local/domain/%d" % domain.domid
        self.ask("INTRODUCE", name + b"4660\0%d\0" % domain.port, OK)
        self.ask("WRITE", home + b"/name\0x", OK)
        self.ask("IS_DOMAIN_INTRODUCED", name, b"T\0")
        if rnd.random() < 0.3:
            self.ask("INTRODUCE", name + b"4660\0%d\0" % domain.port, OK)
        self.ask("RELEASE", name, OK)
        self.ask("IS_DOMAIN_INTRODUCED", name, b"F\0")
        self.ask("RM", home + b"\0", OK)


class Guest(Line):
    """A client that comes, asks a little, and goes: when it has all, or before."""

    def __init__(self, traffic: Traffic, rnd: random.Random) -> None:
        super().__init__(traffic, "a short one")
        path = b"/s/%d" % rnd.randrange(1000000)
        for n in range(rnd.randint(1, 5)):
            self.ask("WRITE", path + b"/%d\0x%d" % (n, n), OK)
        self.ask("READ", path + b"/0\0", b"x0")
        self.ask("RM", path + b"\0", OK)
        self.is_patient = rnd.random() < 0.7
        if not self.is_patient:
            self.unsent = self.unsent[: rnd.randrange(1, len(self.unsent))]

    @property
    def is_done(self) -> bool:
        return not self.due if self.is_patient else not self.unsent


class Traffic:
    """Sessions and short clients at one daemon's socket."""

    def __init__(self, path: Path, seed: int, singles: int = 2, pipelined: int = 2) -> None:
        self.path = path
        self.rnd = random.Random(seed)
        self.replies = self.serial = self.short = 0
        self.sessions: list[Session] = []
        for number in range(singles + pipelined):
            self.sessions.append(Session(self, number, 1 if number < singles else 24))
        self.guests: list[Guest] = []
        self.toolstacks: list[Toolstack] = []

    def add_ring(self, domain: Any, most: int) -> None:
        """One more session, over the ring of a domain."""
        self.sessions.append(Ring(self, len(self.sessions), most, domain))

    def add_toolstack(self, domains: list[Any]) -> None:
        """One that works with these domains, which are there and not introduced."""
        self.toolstacks.append(Toolstack(self, domains))

    def turn(self, may_begin: bool = True) -> None:
        """Sends and receives what can be."""
        for session in self.sessions:
            session.step(self.rnd, may_begin)
        for toolstack in self.toolstacks if may_begin else ():
            toolstack.step(self.rnd)
        if may_begin and len(self.guests) < 2 and self.rnd.random() < 0.05:
            self.guests.append(Guest(self, self.rnd))
            self.short += 1
        lines: list[Line] = [*self.sessions, *self.guests, *self.toolstacks]
        for line in lines:
            line.push()
        rings = [line for line in lines if isinstance(line, Ring)]
        socks = {line.sock: line for line in lines if not isinstance(line, Ring)}
        for sock in select.select(list(socks), [], [], 0.0002 if rings else 0.002)[0]:
            socks[sock].pull()
        for ring in rings:
            ring.pull()
        for line in lines:
            if line.due and time.monotonic() - line.since > DEADLINE:
                raise Wrong(f"{line.name}: no answer to {line.due[0]}")
        for guest in [guest for guest in self.guests if guest.is_done]:
            guest.close()
            self.guests.remove(guest)

    def finish(self) -> None:
        """Asks for all nodes, and waits for all that is due."""
        while (
            any(s.due or s.stage != "free" for s in self.sessions)
            or any(toolstack.due for toolstack in self.toolstacks)
            or self.guests
        ):
            self.turn(False)
        for session in self.sessions:
            session.check()
        deadline = time.monotonic() + DEADLINE
        while any(s.due or s.removed or any(s.told.values()) for s in self.sessions):
            self.turn(False)
            if time.monotonic() > deadline:
                raise Wrong("events that have not come")
        for line in (*self.sessions, *self.toolstacks):
            line.close()
