# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is told how a live update went, and for how long."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.update import arrival, channel, dialogue
from pyxsd.update.dialogue import BUSY, OUTCOME_SECONDS, Dialogue
from pyxsd.update.program import Program

ASKED = ["-s"]


class Held:
    """A dialogue that is held with a daemon that never comes to its next step, on a clock that
    stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took_over: float = float("-inf")) -> None:
        self.now = 100.0
        self.begun = 0
        monkeypatch.setattr(dialogue, "time", SimpleNamespace(monotonic=lambda: self.now))
        daemon: Any = SimpleNamespace(
            server=SimpleNamespace(hold_starts=lambda _: None),
            ward=None,
            log=lambda *_: None,
            soon=self._soon,
        )
        self.dialogue = Dialogue(daemon, Program("/bin/pyxsd"), {}, took_over)

    def _soon(self, _: object) -> None:
        self.begun += 1

    def ask(self) -> bytes | None:
        """-s, by any client."""
        return self.dialogue.command(None, ASKED)


@pytest.mark.parametrize("late", [0.0, OUTCOME_SECONDS - 0.1])
def test_the_new_daemon_says_it_once(monkeypatch: pytest.MonkeyPatch, late: float) -> None:
    held = Held(monkeypatch, 100.0)
    held.now += late
    assert held.ask() == b"OK" and held.begun == 0
    assert held.ask() == BUSY and held.begun == 1


@pytest.mark.parametrize("took_over", [float("-inf"), 100.0 - OUTCOME_SECONDS])
def test_what_nobody_waits_for_is_not_said(
    monkeypatch: pytest.MonkeyPatch, took_over: float
) -> None:
    """The next who asks wants an update."""
    held = Held(monkeypatch, took_over)
    assert held.ask() == BUSY and held.begun == 1


@pytest.mark.parametrize("late, told", [(OUTCOME_SECONDS - 0.1, True), (OUTCOME_SECONDS, False)])
def test_a_failure_that_nobody_fetches(
    monkeypatch: pytest.MonkeyPatch, late: float, told: bool
) -> None:
    held = Held(monkeypatch)
    assert held.ask() == BUSY
    held.dialogue._over("it failed")
    held.now += late
    assert held.ask() == (b"it failed" if told else BUSY)
    assert held.begun == (1 if told else 2)


def test_what_is_called_off_has_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    assert held.ask() == BUSY and held.dialogue.command(None, ["-a"]) == b"OK\0"
    assert held.ask() == BUSY and held.begun == 2


@pytest.mark.parametrize("text, asked", [("", True), (channel.UNASKED, False)])
def test_whether_somebody_has_asked(text: str, asked: bool) -> None:
    """An older daemon says nothing of it."""
    ours, theirs = channel.Channel.pair()
    other = channel.Channel(theirs)
    file = channel.MemoryFile()
    file.put(b"state")
    ours.send("take", text, [fd := file.detach()])
    os.close(fd)
    ours.send("end")
    order = arrival.wait_for_order(other)
    assert order is not None and order.asked is asked and order.word == "take"
    ours.close()
    other.close()


def test_a_state_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no descriptor for a second look: the first one is closed."""
    held = Held(monkeypatch)
    given = os.open(os.devnull, os.O_RDONLY)

    def refused(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def steps(value: object) -> Generator[float, None, Any]:
        yield 0.0
        return value

    monkeypatch.setattr(held.dialogue, "_ready", lambda _: steps(None))
    monkeypatch.setattr(held.dialogue, "_written", lambda: steps(given))
    monkeypatch.setattr(os, "dup", refused)
    with pytest.raises(OSError, match="Too many open files"):
        for _ in held.dialogue._trying(held.dialogue.program):
            pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(given)


def test_very_many_descriptors_that_are_taken_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is served meanwhile, so there is one end for all of them."""
    held = Held(monkeypatch)
    sent: list[str] = []

    def send(word: str, _text: str, _descriptors: object, seconds: float) -> None:
        sent.append(word)
        if seconds < 1.0:
            raise TimeoutError(word)
        held.now += 1.0

    daemon: Any = held.dialogue._daemon
    daemon.server.tree = SimpleNamespace(size=0)
    daemon.saving = lambda _: SimpleNamespace(step=lambda _: True)
    daemon.descriptors = lambda: list(range(5000))
    process: Any = SimpleNamespace(channel=SimpleNamespace(send=send))
    with pytest.raises(TimeoutError, match="descriptors"):
        held.dialogue._hand_over(process)
    assert sent == ["take", *["descriptors"] * (int(dialogue.WRITTEN_SECONDS) + 1)]
