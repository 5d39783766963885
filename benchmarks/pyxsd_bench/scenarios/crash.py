# SPDX-License-Identifier: LGPL-2.1-or-later
"""Also of the group `state`: SIGKILL of the process that serves, to the next reply.

A thread kills it at random instants and asks at once, over a connection of its own: what counts is
the time from the kill until that reply, which another process gives.  `idle`: nobody else asks
anything.  `under load`: sockets and rings ask without pause, and each of their replies is checked,
too.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time

from .. import proc, wire
from ..load import Histogram
from ..measure import NothingMeasured, Sample, latencies
from ..program import Program
from ..target import DaemonFailed, Target
from . import rings, scale, state
from .base import VALUE, Context, Scenario, grown, kept

DOMAINS_MAX = 1000
IDLE_MAX, IDLE_SHARE = 300, 0.003  # connections that say nothing: at most, and for each node
CLIENTS, GUESTS = 8, 4  # who asks under load
VARIETY = 16  # nodes that each of them works on
KILLS_A_SECOND = 350  # of a sample's --seconds
LIMIT_S, SLICE_S = 8.0, 0.02
PAUSE_S = 0.05  # at most, from a reply to the next kill
ANSWER_S = 30.0


def prepare(target: Target, size: int, context: Context) -> None:
    """`size` nodes, a hundredth of it domains with rings (1,000 at most), and idle connections."""
    inside = min(size, state.NODES * DOMAINS_MAX)
    state.prepare(target, inside, context)
    outside = size - inside
    scale.fill(target, grown(target, "outside", outside), outside)
    load = rings.open_rings(target)
    idle = load.program(Program().idle())
    connections = min(IDLE_MAX, int(size * IDLE_SHARE))
    for _ in range(grown(target, "idle", connections), connections):
        load.connect(target.socket, idle, loops=1)
    if "asking" not in target.state:
        asking = [(conn, "data") for conn in target.state["ring-conns"][:GUESTS]]
        for _ in range(CLIENTS):
            asking.append((load.connect(target.socket, idle, loops=1), "/local/domain/1/data"))
        target.state["asking"] = [
            (conn, load.program(_asked(f"{home}/load-{number}")))
            for number, (conn, home) in enumerate(asking)
        ]
    load.finish(target.alive)


class Killer(threading.Thread):
    """Kills who serves `kills` times, as long as LIMIT_S allows, and keeps how long replies took.

    `fault`: why it has ended before.
    """

    def __init__(self, target: Target, kills: int) -> None:
        super().__init__(daemon=True)
        self.waited_ns: list[int] = []
        self.fault = ""
        self.over = threading.Event()
        self._target = target
        self._kills = kills

    def run(self) -> None:
        end = time.monotonic() + LIMIT_S
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(ANSWER_S)
                client.connect(self._target.socket)
                while len(self.waited_ns) < self._kills and time.monotonic() < end:
                    if self.over.wait(random.uniform(0, PAUSE_S)):
                        return
                    self.waited_ns.append(self._one(client))
        except (OSError, DaemonFailed) as error:
            self.fault = f"after {len(self.waited_ns)} kills: {error}"

    def _one(self, client: socket.socket) -> int:
        """One kill; nanoseconds until the reply."""
        keeper = self._target.pid
        child = proc.serving(keeper)
        if child == keeper:
            raise DaemonFailed(
                "no process serves but the keeper, if it is one; see the daemon's log"
            )
        request = wire.packet(wire.READ, len(self.waited_ns), state.ASKED.encode() + b"\0")
        begin = time.monotonic_ns()
        os.kill(child, signal.SIGKILL)
        client.sendall(request)
        reply = client.recv(4096)
        took = time.monotonic_ns() - begin
        if reply != wire.packet(wire.READ, len(self.waited_ns), VALUE):
            raise DaemonFailed(f"the reply to a READ of {state.ASKED} was {reply[:100]!r}")
        if proc.serving(keeper) == child:
            raise DaemonFailed("the process that was killed has answered")
        return took


def _asked(home: str) -> Program:
    """What one of those does that ask under load: all kinds of requests in a place of its own."""
    program = Program()
    for i in range(VARIETY):
        path = f"{home}/{i}"
        program.write(path, VALUE).read(path, VALUE).get_perms(path)
        if i % 4 == 0:
            program.start().write(path, VALUE).read(path, VALUE).commit()
        program.rm(path)
    return program


def _under_load(target: Target, killer: Killer) -> int:
    """Asks until the killer is done; how many requests were answered."""
    load = kept(target, "rings")
    for conn, program in target.state["asking"]:
        load.restart(conn, program, loops=0)
    load.reset()
    killer.start()
    try:
        while killer.is_alive():
            load.run(SLICE_S, target.alive)
    finally:
        killer.over.set()
        killer.join()
    requests = load.counts().requests
    load.drain()
    return requests


def _idle(_target: Target, killer: Killer) -> int:
    killer.run()
    return len(killer.waited_ns)


def _run(target: Target, size: int, context: Context) -> dict[str, Sample]:
    if context.syscalls:
        return {}
    found = {}
    for measure, during in (("idle", _idle), ("under load", _under_load)):
        killer = Killer(target, max(2, round(context.seconds * KILLS_A_SECOND)))
        before, begin = proc.cpu(target.pid).total_ns, time.monotonic()
        requests = during(target, killer)
        took = time.monotonic() - begin
        if killer.fault:
            raise NothingMeasured(f"{target.name}: {measure}: {killer.fault}")
        count = len(killer.waited_ns)
        found[measure] = {
            "units": count,
            "seconds": took,
            "rate": count / took,
            "requests": requests,
            "cpu_us": (proc.cpu(target.pid).total_ns - before) / count / 1e3,
            "rss": proc.memory(target.pid),
            **latencies(_histogram(killer.waited_ns)),
        }
    return found


def _histogram(times: list[int]) -> Histogram:
    """Each time in a bucket of its own."""
    return Histogram([(time, 1) for time in sorted(times)], len(times), max(times), sum(times))


SCENARIOS = (
    Scenario(
        "state-crash",
        "SIGKILL of the process that serves, to the next reply",
        "A daemon that dies is to be back before its clients notice.",
        _run,
        unit="kill",
        axis="nodes, a hundredth of it domains",
        sizes=(10_000, 100_000, 1_000_000),
        prepare=prepare,
        main="p99_us",
        needs="standin",
        fds=IDLE_SHARE,
        memory=2_000,
        keeper=True,
    ),
)
