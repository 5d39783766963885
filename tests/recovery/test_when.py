# SPDX-License-Identifier: LGPL-2.1-or-later
"""When the next image is made."""

from __future__ import annotations

import time
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


def protection(size: int, image_size: int = 0) -> tuple[begin.Protection, Any]:
    """One whose journal has so many bytes since the last image, and the journal."""
    journal = SimpleNamespace(size=size, is_recording=True, is_full_at=0)
    server = SimpleNamespace(journal=journal, connections={}, is_holding=False)
    memory = SimpleNamespace(image_size=image_size, limit=256 * MIB, next_number=8, held=False)

    def release() -> None:
        memory.held = False

    memory.release = release
    daemon = SimpleNamespace(server=server)
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
    ("size", "image_size", "worked", "image_seconds", "is_due"),
    [
        (2 * MIB, 0, 0.0, 0.0, True),
        (2 * MIB - 1, 0, 0.0, 0.0, False),
        (2 * MIB, 2 * MIB, 0.0, 0.0, False),
        (4 * MIB, 2 * MIB, 0.0, 0.0, True),
        # Requests that are dear.
        (LOOK, 0, 0.0501, 0.0, True),
        (LOOK, 0, 0.0499, 0.0, False),
        # Where an image takes long it pays off later.
        (LOOK, 0, 0.0501, 0.01, False),
        (LOOK, 0, 0.1001, 0.01, True),
    ],
)
def test_when(
    clock: Clock, size: int, image_size: int, worked: float, image_seconds: float, is_due: bool
) -> None:
    one, journal = protection(size, image_size)
    made = begun_by(one)
    one._image_seconds = image_seconds
    clock.now += worked
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
