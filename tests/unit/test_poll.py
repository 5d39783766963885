# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting: when the loop polls instead of sleeping, and when it stops doing so."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyxsd._loop import Loop

SCORE_MAX = 16
SECOND = 1_000_000  # microseconds
SHORT = 1_000


class Waiting:
    """A loop with one descriptor, the reading end of a pipe, which nobody empties."""

    def __init__(self, server: Any, poll_time_us: int) -> None:
        self.epoll = select.epoll()
        self.reading, self.writing = os.pipe()
        self.loop = Loop(
            server,
            self.epoll.fileno(),
            poll_time_us,
            lambda: None,
            lambda fd, error: pytest.fail(repr(error)),
        )
        self.loop.add_handler(self.reading, lambda: None)
        self.poller = self.loop.poller

    def ready(self, times: int = 1) -> None:
        """Turns in which the pipe can be read."""
        os.write(self.writing, b"x")
        for _ in range(times):
            self.loop.run(time.monotonic() + 60, True)
            assert self.poller.count == 1
        os.read(self.reading, 1)

    def idle(self) -> None:
        """A turn in which nothing is ready, and for which there is no time to wait."""
        self.loop.run(0.0, True)
        assert self.poller.count == 0

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)
        self.epoll.close()
        del self.loop, self.poller


def online(monkeypatch: pytest.MonkeyPatch, processors: int) -> None:
    """The machine has so many CPUs, of which the daemon may use the first one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "sysconf", {"SC_NPROCESSORS_ONLN": processors}.__getitem__)


@pytest.fixture
def waiting(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Waiting]]:
    """waiting(poll_time_us, processors)."""
    made = []

    def make(poll_time_us: int = SECOND, processors: int = 2) -> Waiting:
        online(monkeypatch, processors)
        made.append(Waiting(world.server, poll_time_us))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Waiting]


def test_a_short_sleep_makes_the_loop_poll(waiting: Make) -> None:
    """The first turn sleeps; those behind it find what is ready without."""
    expected = [(0, 0), (2, 0), (3, 1), (SCORE_MAX, 31)]
    found = []
    for _ in range(100):  # on a busy machine even a sleep with an event there may be long
        one = waiting()
        found = [(one.poller.score, one.poller.spun)]
        for turns in (1, 1, 30):
            one.ready(turns)
            found.append((one.poller.score, one.poller.spun))
        if found == expected:
            break
    assert found == expected


def test_an_idle_loop_stops_polling(waiting: Make) -> None:
    """Each turn that polled for nothing takes one from the score; at 0 it sleeps at once."""
    one = waiting(SHORT)
    # A machine that is busy may take longer than the polling time now and then.
    while one.poller.score < 3:
        one.ready()
    left, spun = one.poller.score, one.poller.spun
    for score in range(left - 1, -1, -1):
        one.idle()
        assert one.poller.score == score
    for _ in range(3):
        one.idle()
        assert one.poller.score == 0
    assert one.poller.spun == spun


@pytest.mark.parametrize(("poll_time_us", "processors"), [(0, 2), (-1, 2), (SECOND, 1)])
def test_without_polling(waiting: Make, poll_time_us: int, processors: int) -> None:
    """Where it is switched off, or where nobody else could work meanwhile."""
    one = waiting(poll_time_us, processors)
    one.ready(5)
    assert (one.poller.score, one.poller.spun) == (0, 0)


def test_processors_are_counted_again(waiting: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator takes a CPU away from domain 0, and gives it back."""
    one = waiting()
    one.ready(2)
    assert one.poller.spun == 1
    for processors, spun in ((1, 1), (2, 3)):
        online(monkeypatch, processors)
        one.poller.count_processors()
        one.ready(2)
        assert one.poller.spun == spun


# -- the rules, with times that the test says ---------------------------------

AT_ONCE, LATER, STOPPED, SLICE, NOTHING, SHORTLY, LONG_AFTER = range(7)
REST_MIN, REST_MAX, HITS, DOUBT, CREDIT_MAX = 64, 1024, 32, 16, 64
INTERRUPTED, A_SLICE, BUDGET = 12_000, 500_000, 40_000  # nanoseconds


def after(poller: Any, *happened: int) -> Any:
    """The poller of a loop to which all that happened, in this order."""
    steps: dict[int, Callable[[], None]] = {
        AT_ONCE: lambda: poller.found(False, INTERRUPTED),
        LATER: lambda: poller.found(True, INTERRUPTED),
        STOPPED: lambda: poller.found(True, INTERRUPTED + 1),
        SLICE: lambda: poller.found(True, A_SLICE + 1),
        NOTHING: poller.found_nothing,
        SHORTLY: lambda: poller.slept(BUDGET - 1),
        LONG_AFTER: lambda: poller.slept(BUDGET),
    }
    for what in happened:
        steps[what]()
    return poller


@pytest.mark.parametrize(
    ("happened", "score", "credit", "gave_way"),
    [
        # Sleeps that a spin would have spared make it poll.
        ([SHORTLY], 2, 0, 0),
        ([LONG_AFTER], 0, 0, 0),
        ([SHORTLY] * 9, SCORE_MAX, 0, 0),
        # What is there at once says nothing of where the client runs; what comes later does.
        ([SHORTLY, AT_ONCE], 3, 0, 0),
        ([SHORTLY, LATER], 3, 1, 0),
        ([LATER] * 100, SCORE_MAX, CREDIT_MAX, 0),
        # A spin for nothing, and a sleep that was none the less long.
        ([SHORTLY, NOTHING, LONG_AFTER], 1, 0, 0),
        # The client needed this CPU.
        ([SHORTLY, STOPPED], 0, 0, 1),
        ([SHORTLY, NOTHING, SHORTLY], 0, 0, 1),
        ([SHORTLY] + [AT_ONCE] * 100 + [STOPPED], 0, 0, 1),
        ([LATER] * (DOUBT - 1) + [STOPPED], 0, 0, 1),
        # Or so it seems: it was shown to have one of its own.
        ([LATER] * DOUBT + [STOPPED], SCORE_MAX, 0, 0),
        ([LATER] * DOUBT + [NOTHING, SHORTLY], SCORE_MAX - 1, 0, 0),
        ([LATER] * 100 + [STOPPED] * 4, SCORE_MAX, 0, 0),
        ([LATER] * 100 + [STOPPED] * 5, 0, 0, 1),
        ([LATER] * (2 * DOUBT - 1) + [STOPPED] * 2, 0, 0, 1),
        # Another process ran.
        ([LATER] * 100 + [SLICE], 0, 0, 1),
        ([SHORTLY, SLICE], 0, 0, 1),
    ],
)
def test_rules(waiting: Make, happened: list[int], score: int, credit: int, gave_way: int) -> None:
    poller = after(waiting(BUDGET // 1000).poller, *happened)
    assert (poller.score, poller.credit, poller.gave_way) == (score, credit, gave_way)


def rests(poller: Any) -> int:
    """How many short sleeps pass until one of them makes it poll again."""
    slept = 0
    while poller.score == 0:
        after(poller, SHORTLY)
        slept += 1
    return slept - 1


def test_it_rests_twice_as_long_each_time(waiting: Make) -> None:
    """Where it never pays off, to try again costs next to nothing."""
    poller = waiting(BUDGET // 1000).poller
    expected = [REST_MIN << i for i in range(4)] + [REST_MAX, REST_MAX]
    assert [rests(after(poller, SHORTLY, STOPPED)) for _ in expected] == expected


@pytest.mark.parametrize(
    ("between", "rest"),
    [
        ([AT_ONCE] * HITS, REST_MIN),
        ([AT_ONCE] * (HITS - 1), 2 * REST_MIN),
        ([AT_ONCE] * (HITS - 1) + [NOTHING] + [AT_ONCE] * (HITS - 1), 2 * REST_MIN),
        ([LATER] * (HITS - 1) + [STOPPED, LATER], REST_MIN),
    ],
)
def test_what_makes_its_rest_short_again(waiting: Make, between: list[int], rest: int) -> None:
    poller = after(waiting(BUDGET // 1000).poller, SHORTLY, STOPPED)
    rests(poller)
    after(poller, *between)
    while poller.score:  # as long as there is credit
        after(poller, STOPPED)
    assert rests(poller) == rest


def test_where_another_process_runs_it_rests_as_long_as_it_can(waiting: Make) -> None:
    poller = waiting(BUDGET // 1000).poller
    for _ in range(3):
        assert rests(after(poller, *[LATER] * 2 * HITS, SLICE)) == REST_MAX


def test_a_sleep_without_an_event_is_no_reason_to_poll(waiting: Make) -> None:
    one = waiting()
    one.loop.run(one.poller.now + 0.002, True)
    one.idle()
    assert one.poller.score == 0


def test_it_sleeps_until_something_is_due(waiting: Make) -> None:
    one = waiting(0)
    due = time.monotonic() + 0.02
    one.loop.run(due, False)
    assert one.poller.now >= due


def test_clocks(waiting: Make) -> None:
    """now is monotonic, wall counts from 1970; both are read when the wait ends."""
    one = waiting(0)
    one.ready()
    before = time.monotonic(), time.time()
    one.ready()
    after = time.monotonic(), time.time()
    assert before[0] <= one.poller.now <= after[0]
    assert before[1] - 0.001 <= one.poller.wall <= after[1] + 0.001


def test_an_epoll_descriptor_that_is_none(waiting: Make) -> None:
    one = waiting(0)
    one.epoll.close()
    with pytest.raises(OSError, match="epoll_wait: "):
        one.loop.run(0.0, True)
    assert one.poller.count == 0


def test_it_polls_for_as_long_as_said(waiting: Make) -> None:
    one = waiting(20_000)
    while one.poller.score == 0:
        one.ready()
    before = time.monotonic()
    one.idle()
    assert one.poller.now - before >= 0.02


def test_a_signal_ends_a_sleep_and_is_no_event(waiting: Make) -> None:
    one = waiting()
    came = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        with subprocess.Popen(["sh", "-c", f"while kill -USR1 {os.getpid()}; do :; done"]) as child:
            while not came:
                one.loop.run(time.monotonic() + 60, True)
                assert (one.poller.count, one.poller.score) == (0, 0)
            child.kill()
    finally:
        signal.signal(signal.SIGUSR1, before)
