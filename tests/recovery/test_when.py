# SPDX-License-Identifier: LGPL-2.1-or-later
"""When the next image is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.recovery import begin

MIB = 1 << 20
LOOK = 65536


class Clock:
    """Processor time that the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5.0
        monkeypatch.setattr(time, "process_time", lambda: self.now)


@pytest.fixture(name="clock")
def a_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Timers:
    """A daemon's, which the test runs."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def soon(self, what: Callable[[], None]) -> None:
        """At once."""
        what()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """When next() is called."""
        self.waiting.append((seconds, what))

    def next(self) -> float:
        """Runs the oldest one; how long it has waited."""
        seconds, what = self.waiting.pop(0)
        what()
        return seconds


def protection(size: int, image_size: int = 0) -> tuple[begin.Protection, Any]:
    """One whose journal has so many bytes since the last image, and the journal."""
    journal = SimpleNamespace(size=size, is_recording=True, is_full_at=0, offset=size)
    agenda = SimpleNamespace(served_ns=7)
    server = SimpleNamespace(journal=journal, connections={}, is_holding=False, agenda=agenda)
    memory = SimpleNamespace(image_size=image_size, limit=256 * MIB, next_number=8, held=False)

    def release() -> None:
        memory.held = False

    memory.release = release
    timers = Timers()
    daemon = SimpleNamespace(server=server, soon=timers.soon, after=timers.after, timers=timers)
    return begin.Protection(daemon, memory), journal  # type: ignore[arg-type]


def begun_by(one: begin.Protection) -> list[int]:
    """The numbers of the images that it begins; nothing comes of them."""
    made: list[int] = []

    def make(number: int) -> None:
        made.append(number)
        raise MemoryError  # enough of it

    one._make = make  # type: ignore[method-assign]
    one._give_up = lambda why: None  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize(
    ("size", "image_size", "served", "worked", "image_seconds", "is_due"),
    [
        (2 * MIB, 0, 0.0, 0.0, 0.0, True),
        (2 * MIB - 1, 0, 0.0, 0.0, 0.0, False),
        (2 * MIB, 2 * MIB, 0.0, 0.0, 0.0, False),
        (4 * MIB, 2 * MIB, 0.0, 0.0, 0.0, True),
        # Requests that are dear.
        (LOOK, 0, 0.0201, 0.0, 0.0, True),
        (LOOK, 0, 0.0199, 0.0, 0.0, False),
        # Waiting without sleep is not run again, but what a guest's birth takes is.
        (LOOK, 0, 0.0, 0.0801, 0.0, True),
        (LOOK, 0, 0.0, 0.0799, 0.0, False),
        # Where an image takes long it pays off later.
        (LOOK, 0, 0.0201, 0.0201, 0.01, False),
        (LOOK, 0, 0.1001, 0.1001, 0.01, True),
        (LOOK, 0, 0.0, 0.4001, 0.01, True),
    ],
)
def test_when(
    clock: Clock,
    size: int,
    image_size: int,
    served: float,
    worked: float,
    image_seconds: float,
    is_due: bool,
) -> None:
    one, journal = protection(size, image_size)
    made = begun_by(one)
    one._image_seconds = image_seconds
    clock.now += worked
    one.daemon.server.agenda.served_ns += round(served * 1e9)
    one.is_full()
    assert made == ([8] if is_due else [])
    if not is_due:
        assert journal.is_full_at == min(size + LOOK, max(2 * MIB, 2 * image_size))


#: Bytes of the journal, seconds since this process has gone on; does the next image wait?
COPIES = (
    (2 * MIB, 0.0, True),
    (2 * MIB, 9.9, True),
    (2 * MIB, 10.0, False),
    (3 * MIB - 1, 0.0, True),
    (3 * MIB, 0.0, False),
)


@pytest.mark.parametrize(("size", "passed", "waits"), COPIES)
def test_while_somebody_copies_the_last_one(
    size: int, passed: float, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one waits; where it does not, who copies finds that."""
    one, journal = protection(size)
    one.memory.held = True  # type: ignore[misc]
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    one.go_on()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + passed)
    made = begun_by(one)
    before = journal.is_full_at
    one.is_full()
    assert (made, one.memory.held) == (([], True) if waits else ([8], False))
    assert journal.is_full_at == before + (begin.WAIT_BYTES if waits else 0)


#: For how long clients were served, and what the last image took; does the next one begin when
#: nobody asks for anything any more, or when the process before has died?
SOON = ((0.0041, 0.0, True), (0.0039, 0.0, False), (0.0041, 0.004, False), (0.0081, 0.004, True))


@pytest.mark.parametrize(("served", "image_seconds", "is_due"), SOON)
def test_when_nobody_asks_any_more(served: float, image_seconds: float, is_due: bool) -> None:
    one, journal = protection(LOOK)
    made = begun_by(one)
    timers = one.daemon.timers
    one._image_seconds = image_seconds
    one.daemon.server.agenda.served_ns += round(served * 1e9)
    one.is_full()
    if not is_due:
        assert timers.waiting == [] and made == []
        return
    # One look at a time, however often the journal is looked at.
    one.is_full()
    assert len(timers.waiting) == 1
    # As long as there is more in the journal each time somebody asks.
    journal.offset += begin.QUIET_BYTES + 1
    assert timers.next() == begin.QUIET_SECONDS and made == []
    journal.offset += begin.QUIET_BYTES
    assert timers.next() == begin.QUIET_SECONDS and made == []
    assert timers.next() == begin.IDLE_SECONDS and made == [8]
    assert timers.waiting == []


@pytest.mark.parametrize("why", ["an image", "the end"])
def test_nobody_asks_any_more_and_all_is_seen_to(why: str) -> None:
    """The next image is being made meanwhile; or the journal has ended."""
    one, journal = protection(LOOK)
    made = begun_by(one)
    one.daemon.server.agenda.served_ns += 10**7
    one.is_full()
    if why == "an image":
        one._saving = SimpleNamespace()  # type: ignore[assignment]
    else:
        journal.is_recording = False
    one.daemon.timers.next()
    assert one.daemon.timers.waiting == [] and made == []


@pytest.mark.parametrize(("served", "image_seconds", "is_due"), SOON)
def test_when_a_process_has_died(served: float, image_seconds: float, is_due: bool) -> None:
    """The next one would run the same journal again: an image begins at once, with the next turn or
    without one."""
    one, journal = protection(0)
    made = begun_by(one)
    one._image_seconds = image_seconds
    one.daemon.server.agenda.served_ns += round(served * 1e9)
    one.go_on()
    assert (journal.is_full_at == 0) == is_due
    if is_due:
        assert one.daemon.timers.next() == begin.IDLE_SECONDS
    assert one.daemon.timers.waiting == []
    assert made == ([8] if is_due else [])


@pytest.mark.parametrize(("replayed", "is_due"), [(0.0041, True), (0.0039, False)])
def test_what_it_took_to_run_it_again(replayed: float, is_due: bool) -> None:
    """Of guests that come and go, for whom no client was served."""
    one, journal = protection(0)
    one.go_on(replayed)
    assert (journal.is_full_at == 0) == is_due


def test_what_an_image_takes(clock: Clock) -> None:
    """The processor's time of all its slices."""

    class Slices:
        def step(self, _seconds: float) -> bool:
            clock.now += 0.25
            return False

    one, _ = protection(0)
    one._saving = Slices()  # type: ignore[assignment]
    assert not one._step(0.1) and not one._step(0.1)
    assert one._image_seconds == 0.5
