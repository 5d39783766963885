# SPDX-License-Identifier: LGPL-2.1-or-later
"""A time limit for each test: 120 seconds, or as LIMITS says, or as --time-limit says for all.

Each of the three phases of a test (setup, call, teardown) has the limit for itself.  A phase that
takes longer is failed by a signal, so that the fixtures still end the daemons they started.  Code
that hangs in C never lets Python handle the signal.  For that case a second process watches: GRACE
seconds later it kills the processes that the test run started and ends the run, which prints
where each thread was.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import struct
from collections.abc import Generator
from os import write  # bound here: tests put failing functions into the module os
from pathlib import Path
from typing import Any

import pytest

LIMIT = 120.0  # seconds
GRACE = 15.0  # seconds
AGAIN = 5.0  # seconds until the signal comes again, for code that swallowed the failure

#: Folders of tests that build and run whole systems: seconds.
LIMITS = {
    "benchmarks": 600.0,
    "differential": 1800.0,
    "fuzz": 1800.0,
    "documents": 900.0,
    "mutation": 900.0,
    "packages": 3600.0,
    "packaging": 1800.0,
    "pythons": 1200.0,
    "setup": 600.0,
    "sanitize": 3600.0,
    "system": 3600.0,
}

ORDER = struct.Struct("=d")  # to the watcher: seconds until it acts, 0: it need not


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and what those started, as /proc has them."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = []
    left = [pid]
    while left:
        for child in parents.get(left.pop(), []):
            found.append(child)
            left.append(child)
    return found


def watch(pid: int, orders: int) -> None:
    """Obeys the orders that come through a pipe until the pipe is closed."""
    wait: float | None = None
    while True:
        if select.select([orders], [], [], wait)[0]:
            order = os.read(orders, ORDER.size)
            if not order:
                return
            wait = ORDER.unpack(order)[0] or None
            continue
        for child in descendants(pid):
            if child != os.getpid():
                os.kill(child, signal.SIGKILL)
        os.kill(pid, signal.SIGABRT)
        return


class Watcher:
    """The second process, and the pipe to it."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.of = pid = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()  # what is sent to the test run's process group does not reach it
            os.close(self.writing)
            try:
                watch(pid, reading)
            finally:
                os._exit(0)
        os.close(reading)

    def order(self, seconds: float) -> None:
        """Acts in so many seconds unless another order comes; 0: does nothing until then."""
        write(self.writing, ORDER.pack(seconds))

    def end(self) -> None:
        """Ends the second process."""
        os.close(self.writing)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # it was ended already, by a run that ends all of its children


class TimeLimit:
    """The pytest plugin."""

    def __init__(self, limit: float | None, stderr: int) -> None:
        self.limit = limit
        self.stderr = stderr
        self.watcher = Watcher()

    def order(self, seconds: float) -> None:
        """An order to the watcher; a test run that was forked gets a watcher of its own."""
        if self.watcher.of != os.getpid():
            self.watcher = Watcher()
        self.watcher.order(seconds)

    def seconds(self, item: pytest.Item) -> float:
        """The limit of a test."""
        if self.limit is not None:
            return self.limit
        folder = Path(str(item.fspath)).parent.name
        return LIMITS.get(folder, LIMIT)

    def _limited(self, item: pytest.Item) -> Generator[None, Any, Any]:
        seconds = self.seconds(item)

        def expired(_number: int, _frame: Any) -> None:
            pytest.fail(f"took longer than {seconds:g} seconds")

        before = signal.signal(signal.SIGALRM, expired)
        faulthandler.enable(self.stderr)
        self.order(seconds + GRACE)
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.order(0)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._limited(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._limited(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._limited(item))

    def pytest_unconfigure(self) -> None:
        """The second process ends with the run."""
        self.watcher.end()
        os.close(self.stderr)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--time-limit."""
    parser.addoption(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="for each phase of every test; without it 120, and more for some folders",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Starts the limit; the output that tests write is not caught yet."""
    plugin = TimeLimit(config.getoption("time_limit"), os.dup(2))
    config.pluginmanager.register(plugin, "time limit")
