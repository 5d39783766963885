# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pytest plugin that collects all tests once and then runs them in children, as often as asked.

To start pytest and to collect takes longer than most tests.  So the process stays, and for each
order it forks a child that runs the tests of the order and ends.  Orders and answers are lines of
JSON on the socket $PYXSD_MUTATION_SOCKET:

    {"record": [test, ...]}                       no mutant; which mutants each test reaches
    {"number": 7, "tests": [[test, 0.2], ...], "seconds": 60}
                                                  mutant 7; up to the first test that fails

A test is named by its node id; in the second form with the processor seconds that it takes
without a mutant.  The first line that is sent holds all tests, and the mutants that
were reached while pytest imported them: a child cannot try those, for they have had their effect.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import pyxsd_mutant  # type: ignore[import-not-found,unused-ignore]

from tests.mutation import processes

#: Seconds of a test without a mutant: on a busy machine too, none shall be missing later.
RECORDED_SECONDS = 600.0


def run_items(session: pytest.Session, items: list[pytest.Item], seconds: list[float]) -> str:
    """Runs tests up to the first that fails; its node id, "" where all pass."""
    limit: Any = session.config.pluginmanager.get_plugin("time limit")
    for item, following, usual in zip(items, [*items[1:], None], seconds):
        before = session.testsfailed
        limit.limit = 20 + 10 * usual
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed != before:
            session._setupstate.teardown_exact(None)
            return item.nodeid
    return ""


def processor_seconds() -> float:
    """What this process and its ended children have used: a busy machine does not change it."""
    return sum(os.times()[:4])


def record_items(session: pytest.Session, items: list[pytest.Item]) -> list[Any]:
    """[node id, processor seconds, mutants reached] of each test that passes."""
    found = []
    limit: Any = session.config.pluginmanager.get_plugin("time limit")
    limit.limit = RECORDED_SECONDS
    pyxsd_mutant.take_reached()
    for item, following in zip(items, [*items[1:], None]):
        before = session.testsfailed
        begin = processor_seconds()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        reached = pyxsd_mutant.take_reached()
        if session.testsfailed == before:
            found.append([item.nodeid, processor_seconds() - begin, reached])
    return found


def in_child(what: Callable[[], Any], seconds: float) -> Any:
    """What a forked child makes of it; None where it crashed, "hung" where it took too long."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        asked = os.getpid()
        try:
            os.setsid()
            answer = what()
            # A process that a test has forked, and that a mutant lets come here, has none.
            if os.getpid() == asked:
                with open(writing, "w") as out:
                    json.dump(answer, out)
        finally:
            os._exit(0)
    os.close(writing)
    text = b""
    end = time.monotonic() + seconds
    with open(reading, "rb", buffering=0) as answer:
        while select.select([answer], [], [], max(0.0, end - time.monotonic()))[0]:
            data = answer.read(1 << 16)
            text += data
            if not data:
                break
        else:
            processes.kill_children()
            return "hung"
    processes.kill_children()
    return json.loads(text) if text else None


class Server:
    """The plugin."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Failures go to the log at once: no summary comes."""
        if report.failed:
            print(report.longreprtext, file=sys.__stderr__, flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Obeys orders until the socket is closed."""
        items = {item.nodeid: item for item in session.items}
        line = socket.socket(fileno=int(os.environ["PYXSD_MUTATION_SOCKET"]))
        line.set_inheritable(False)
        processes.adopt_orphans()
        with line, line.makefile("rw") as stream:
            answer: Any = {"tests": list(items), "imported": pyxsd_mutant.take_reached()}
            while True:
                stream.write(json.dumps(answer) + "\n")
                stream.flush()
                text = stream.readline()
                if not text:
                    return True
                answer = self.obey(session, items, json.loads(text))

    def obey(self, session: pytest.Session, items: dict[str, pytest.Item], order: Any) -> Any:
        """The answer to an order."""
        pyxsd_mutant.choose(order.get("number", 0))
        try:
            if "record" in order:
                chosen = [items[name] for name in order["record"] if name in items]
                return in_child(lambda: record_items(session, chosen), 1800)
            # The id of a test may hold a process id: another server does not know it.
            rows = [row for row in order["tests"] if row[0] in items]
            chosen = [items[name] for name, _ in rows]
            usual = [seconds for _, seconds in rows]
            return in_child(lambda: run_items(session, chosen, usual), order["seconds"])
        finally:
            pyxsd_mutant.choose(0)


def pytest_configure(config: pytest.Config) -> None:
    """Puts the plugin in."""
    config.pluginmanager.register(Server())
