# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whole stories: a boot storm, guests with device models, shutting all down, a hostile guest."""

from __future__ import annotations

from typing import Callable

from ..load import Load
from ..measure import Sample, timed, whole
from ..program import Program
from ..target import Target
from . import guests, rings
from .base import VALUE, Context, Scenario, once
from .guests import BOOTED, Guest

HOST_WATCHERS = 4
QUIET_S = 0.05  # a story is over when nothing came for so long
AWAKE_US = 1e6
STORM_WATCHES = 50
Build = Callable[[Guest], Program]


class Cast:
    """The connections of all parties of a story: toolstack, backend and guest for each guest."""

    def __init__(self, target: Target, load: Load, count: int, device_models: bool) -> None:
        self.target = target
        self.load = load
        rings.open_rings(target, load=load)
        self.guests = [Guest(domid, load.create_domain(domid)) for domid in range(1, count + 1)]
        self._conns: dict[tuple[str, int], int] = {}
        watcher = load.program(guests.host_watcher())
        for _ in range(HOST_WATCHERS):
            load.connect(target.socket, watcher, loops=1)
        if device_models:
            for guest in self.guests:
                load.connect(target.socket, guests.device_model(guest))
        load.settle(QUIET_S, target.alive)

    def act(self, role: str, build: Build) -> None:
        """Gives the role's connection of each guest its next program."""
        for guest in self.guests:
            key = (role, guest.domid)
            if key in self._conns:
                self.load.restart(self._conns[key], build(guest))
            elif role == "guest":
                self._conns[key] = self.load.ring(guest.domid, guest.port, build(guest), 1, 1)
            else:
                self._conns[key] = self.load.connect(self.target.socket, build(guest), 1, 1)

    def play(self, context: Context) -> Sample:
        """Runs what was given to the end; one sample with the guests as units."""
        self.load.reset()
        return whole(
            self.target,
            self.load,
            len(self.guests),
            hist=BOOTED,
            settle_s=QUIET_S,
            syscalls=context.syscalls,
        )

    def leave(self) -> None:
        """The domains are gone from the host."""
        for guest in self.guests:
            self.load.set_domain(guest.domid, 0)


def _lives(device_models: bool) -> Callable[[Target, int, Context], dict[str, Sample]]:
    def run(target: Target, size: int, context: Context) -> dict[str, Sample]:
        found = {}
        with target.load(stall_s=30.0) as load:
            cast = Cast(target, load, size, device_models)
            for name, parts in (
                (
                    "boot",
                    (
                        ("backend", guests.backend_boots),
                        ("toolstack", guests.toolstack_boots),
                        ("guest", guests.guest_boots),
                    ),
                ),
                ("a minute's reports", (("guest", guests.guest_reports),)),
                (
                    "shutdown",
                    (
                        ("backend", guests.backend_stops),
                        ("guest", guests.guest_stops),
                        ("toolstack", guests.toolstack_stops),
                    ),
                ),
            ):
                for role, build in parts:
                    cast.act(role, build)
                found[name] = cast.play(context)
            cast.leave()
        return found

    return run


def _reading(domid: int, hist: int = 0) -> Program:
    program = Program()
    for _ in range(16):
        program.read(f"/local/domain/{domid}/data/0", VALUE, hist=hist)
    return program


def _flood(load: Load, domid: int, port: int) -> None:
    """Reads as fast as the ring takes them."""
    load.ring(domid, port, _reading(domid), window=16)


def _deaf(load: Load, domid: int, port: int) -> None:
    """The same, and never looks at a reply."""
    load.deaf(load.ring(domid, port, _reading(domid)))


def _storm(load: Load, domid: int, port: int) -> None:
    """Watches its own nodes many times over, writes them, and reads neither replies nor events."""
    program = Program()
    for i in range(STORM_WATCHES):
        program.watch(f"/local/domain/{domid}/data", i % 10, settle=False)
        program.write(f"/local/domain/{domid}/data/0", VALUE)
    load.deaf(load.ring(domid, port, program))


BEHAVIOURS: tuple[tuple[str, Callable[[Load, int, int], None] | None], ...] = (
    ("alone", None),
    ("beside a guest that floods", _flood),
    ("beside a guest that never reads", _deaf),
    ("beside a guest with a watch storm", _storm),
)


def _hostile(target: Target, size: int, context: Context) -> dict[str, Sample]:
    """The generator never sleeps: else a busy neighbour that keeps it awake would look like a
    faster daemon."""
    found = {}
    for name, behaviour in BEHAVIOURS:
        with target.load(spin_us=AWAKE_US) as load:
            rings.open_rings(target, load=load)
            ports = {domid: load.create_domain(domid) for domid in (1, 2)}
            setting = Program()
            for domid, port in ports.items():
                rings.introduce(setting, domid, port)
                setting.write(f"/local/domain/{domid}/data/0", VALUE)
                setting.set_perms(f"/local/domain/{domid}/data", f"n{domid}")
                setting.set_perms(f"/local/domain/{domid}/data/0", f"n{domid}")
            once(target, setting)
            load.ring(1, ports[1], _reading(1, hist=1))
            if behaviour:
                behaviour(load, 2, ports[2])
            found[name] = timed(
                target, load, context.seconds, unit="class", hist=1, syscalls=context.syscalls
            )
            leaving = Program()
            for domid in ports:
                rings.release(leaving, domid)
                leaving.rm(f"/local/domain/{domid}")
            once(target, leaving)
            for domid in ports:
                load.set_domain(domid, 0)
    return found


SCENARIOS = (
    Scenario(
        "boot-storm",
        "N guests boot, report and shut down, all at once",
        "After a power cut or an evacuation: transactions, permissions and handshakes by watches.",
        _lives(False),
        unit="guest",
        axis="guests",
        sizes=(1, 10, 30, 100, 300),
        needs="standin",
        fds=2.1,
    ),
    Scenario(
        "device-models",
        "The same with a device model for each guest",
        "Each QEMU watches the whole backend tree, so every device of one guest wakes all.",
        _lives(True),
        unit="guest",
        axis="guests",
        sizes=(1, 5, 10, 30, 60),
        needs="standin",
        fds=3.1,
    ),
    Scenario(
        "hostile-guest",
        "A working guest beside a hostile one",
        "No guest may make another one wait.",
        _hostile,
        main="p99_us",
        needs="standin",
    ),
)
