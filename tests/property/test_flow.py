# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random clients that read late, little or never: nothing is lost, reordered or unbounded.

The access log says in which order requests were served; from it follows which
events each watch is owed.  In the end everybody reads, and then

- every request was answered once, in the order of its connection,
- every watch got its events in order, all of them (of a path written again
  and again at least one, as identical ones that wait are merged), and of a
  watch that was taken back a first part of them,
- nothing is queued and nobody is blocked.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyxsd._accesslog import AccessLog
from pyxsd.system.configuration import Config
from tests.world import ERROR, EVENT, World, packet

EXAMPLES = os.environ.get("PYXSD_HYPOTHESIS_EXAMPLES")
LIMIT = 3  # replies
EVENTS = 1  # and events
NAMES = ("s0", "s1", "d1", "d2")
names = st.sampled_from(NAMES)
PLACES = (b"/w", b"/w/a", b"/w/b")
places = st.sampled_from(PLACES)


class Flow(RuleBasedStateMachine):
    """Four clients around one directory that all may read and write."""

    world: World

    @initialize()
    def start(self) -> None:
        log = AccessLog(True)
        self.world = World(
            Config(
                quota_maxoutstanding=LIMIT,
                quota_maxwatchevents=EVENTS,
                quota_maxwatch=1000,
                quota_maxentity=1 << 30,
            ),
            log,
        )
        self.log = log
        self.labels: dict[bytes, str] = {}
        self.sent: dict[str, list[int]] = {}
        self.answered: dict[str, list[int]] = {}
        self.watches: dict[bytes, tuple[str, bytes]] = {}  # token: (who, path), all ever
        self.standing: set[bytes] = set()
        self.owed: dict[bytes, list[bytes]] = {}
        self.got: dict[bytes, list[bytes]] = {}
        self.number = 0
        for domid in (1, 2):
            self.world.introduce(domid)
        for name in NAMES:
            self.opened(name)
        for path in (b"/w", b"/w/a", b"/w/b"):
            self.world.ask("s0", "MKDIR", path + b"\0")
            self.world.ask("s0", "SET_PERMS", path + b"\0b0\0")
        log.take()

    def opened(self, name: str) -> None:
        connection = self.world.connection(name)[0]
        self.labels[connection.label] = name
        self.sent[name] = []
        self.answered[name] = []

    def send(self, name: str, *requests: tuple[str, bytes]) -> None:
        """Some requests in one piece, each with the next number."""
        data = b""
        for type_, payload in requests:
            self.number += 1
            self.sent[name].append(self.number)
            data += packet(type_, payload, req_id=self.number)
        self.world.feed(name, data)
        self.took_place()

    def took_place(self) -> None:
        """Reads the log: what was served, in order, and so what is owed."""
        for line in self.log.take()[0].splitlines():
            line = line.split(b"]  ", 1)[1]
            label = next((k for k in self.labels if line.startswith(k + b" ")), None)
            if label is None:
                continue
            name = self.labels[label]
            what, *rest = line[len(label) :].split()
            if what == b"watch":
                path, token = rest
                self.watches[token] = (name, path)
                self.standing.add(token)
                self.owed[token] = [path]
                self.got[token] = []
            elif what == b"unwatch":
                self.standing.discard(rest[1])
            elif what == b"reset":
                self.standing -= {t for t in self.standing if self.watches[t][0] == name}
            elif what == b"write":
                for token in self.standing:
                    at = self.watches[token][1]
                    if rest[0] == at or rest[0].startswith(at + b"/"):
                        self.owed[token].append(rest[0])
        for name in NAMES:
            for got, req_id, _, body in self.world.drain(name):
                if got == EVENT:
                    path, token, _ = body.split(b"\0")
                    assert self.watches[token][0] == name
                    self.got[token].append(path)
                else:
                    assert got != ERROR, body
                    self.answered[name].append(req_id)

    # -- what clients do ------------------------------------------------------

    @rule(name=names, place=places, count=st.integers(1, 6))
    def writes(self, name: str, place: bytes, count: int) -> None:
        """Each to a path that is never written again."""
        self.send(name, *[("WRITE", place + b"/%d\0" % (self.number + n)) for n in range(count)])

    @rule(name=names, place=places, count=st.integers(1, 12))
    def writes_the_same(self, name: str, place: bytes, count: int) -> None:
        self.send(name, *[("WRITE", place + b"/same\0%d" % n) for n in range(count)])

    @rule(name=names, count=st.integers(1, 9))
    def asks(self, name: str, count: int) -> None:
        self.send(name, *[("GET_DOMAIN_PATH", b"1\0")] * count)

    @rule(name=names, place=places)
    def watch(self, name: str, place: bytes) -> None:
        self.send(name, ("WATCH", place + b"\0t%d\0" % self.number))

    @precondition(lambda self: bool(getattr(self, "standing", None)))
    @rule(which=st.integers(0, 20))
    def unwatch(self, which: int) -> None:
        """Of a client that is served at once: the watch still stands when it is asked."""
        token = sorted(self.standing)[which % len(self.standing)]
        name, path = self.watches[token]
        if not self.world.connection(name)[0].blocked:
            self.send(name, ("GET_DOMAIN_PATH", b"1\0"))
        if not self.world.connection(name)[0].blocked and token in self.standing:
            self.send(name, ("UNWATCH", path + b"\0" + token + b"\0"))

    @rule(name=names)
    def resets(self, name: str) -> None:
        self.send(name, ("RESET_WATCHES", b""))

    @rule(name=names)
    def stops_reading(self, name: str) -> None:
        self.world.connection(name)[1].room = 0

    @rule(name=names, room=st.sampled_from([1, 7, 16, 30, 100, -1]))
    def reads(self, name: str, room: int) -> None:
        self.world.connection(name)[1].room = room
        self.world.turn(name)
        self.took_place()

    @rule(name=st.sampled_from(("s0", "s1")))
    def closes_and_comes_again(self, name: str) -> None:
        """Only where it owes nothing: events that it caused and that found no
        room are lost with it."""
        connection = self.world.connection(name)[0]
        if connection.overflowing:
            return
        self.world.server.disconnect(connection)
        del self.world.sockets[name]
        self.world.rest.pop(name, None)
        self.world.turn()
        mine = {token for token, (who, _) in self.watches.items() if who == name}
        self.standing -= mine
        del self.labels[connection.label]
        self.opened(name)
        self.took_place()

    # -- what must hold -------------------------------------------------------

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def bounded(self) -> None:
        for name in NAMES:
            connection = self.world.connection(name)[0]
            replies, events = connection.queued
            assert replies <= LIMIT and events <= EVENTS
            assert connection.waiting_events <= EVENTS * connection.watch_count
            # What one request causes: an event for each watch.
            assert connection.overflowing <= len(self.watches)
            if connection.blocked:
                assert replies == LIMIT or connection.overflowing
            assert self.answered[name] == self.sent[name][: len(self.answered[name])]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for name in NAMES:
            self.world.connection(name)[1].room = -1
        for _ in range(200):
            self.world.turn(*NAMES)
        self.took_place()
        for name in NAMES:
            connection = self.world.connection(name)[0]
            assert self.answered[name] == self.sent[name]
            assert connection.queued == (0, 0) and not connection.blocked
            assert connection.waiting_events == connection.overflowing == 0
        for token in self.watches:
            self.check_events(token)
        self.world.close()

    def check_events(self, token: bytes) -> None:
        """The events of one watch, as promised above."""
        owed = [path for path in self.owed[token] if not path.endswith(b"/same")]
        got = [path for path in self.got[token] if not path.endswith(b"/same")]
        if token not in self.standing:
            assert got == owed[: len(got)], token
            return
        assert got == owed, token
        for path in {path for path in self.owed[token] if path.endswith(b"/same")}:
            assert 1 <= self.got[token].count(path) <= self.owed[token].count(path)
            # The last one came after everything that was owed before it.
            last = len(self.owed[token]) - 1 - self.owed[token][::-1].index(path)
            before = [p for p in self.owed[token][:last] if not p.endswith(b"/same")]
            assert len(self.got[token]) >= len(before)


checked: Any = settings(
    max_examples=int(EXAMPLES or 300),
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
Flow.TestCase.settings = checked
TestFlow = Flow.TestCase
