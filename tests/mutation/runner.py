# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tries mutants in the copy: by the server process (server.py), or in a pytest of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from tests.mutation import processes
from tests.mutation.modules import deselected
from tests.mutation.pyxsd_mutant import SIZE
from tests.mutation.results import HUNG, NOTICED, SURVIVED
from tests.mutation.schema import Mutant
from tests.mutation.tree import TREE, WORK

EXAMPLES = "40"  # of the property tests
BUDGET = 30.0  # processor seconds of tests for a mutant
ALONE = 10.0  # seconds of tests that a mutant gets that needs an interpreter of its own


class Known:
    """What all runners know.  Seconds of tests are processor seconds.

    numbers: the mutants that are compiled in.  reach: test -> (seconds, mutants reached).
    noticed: how many mutants of a source a file of tests noticed, by (source, file).
    """

    def __init__(self, numbers: dict[int, Mutant]) -> None:
        self.numbers = numbers
        self.reach: dict[str, tuple[float, list[int]]] = {}
        self.noticed: Counter[tuple[str, str]] = Counter()


class Runner:
    """One server process with a file of its own that says which mutant runs."""

    def __init__(self, known: Known, number: int, tests: Sequence[str]) -> None:
        self.known = known
        self.numbers, self.reach, self.noticed = known.numbers, known.reach, known.noticed
        self.file = WORK / f"mutants-{number}.bin"
        self.file.write_bytes(bytes(SIZE))
        self.log = WORK / f"server-{number}.txt"
        self.env = {
            "PYXSD_MUTANTS": str(self.file),
            "PYTHONPATH": str(TREE),
            "PYXSD_HYPOTHESIS_EXAMPLES": EXAMPLES,
        }
        ours, theirs = socket.socketpair()
        with theirs, open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command("-p", "tests.mutation.server", *tests, *deselected()),
                cwd=TREE,
                env={**os.environ, **self.env, "PYXSD_MUTATION_SOCKET": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.stream = ours.makefile("rw")
        first = self.answer()
        self.tests: list[str] = first["tests"]
        self.imported = frozenset(first["imported"])

    def command(self, *arguments: str) -> list[str]:
        """A pytest with these arguments."""
        return [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:benchmark",
            "--time-limit=60",
            "--hypothesis-seed=0",
            *arguments,
        ]

    def answer(self, **order: Any) -> Any:
        """What the server answers to an order; without one, the line it begins with."""
        if order:
            self.stream.write(json.dumps(order) + "\n")
            self.stream.flush()
        text = self.stream.readline()
        if not text:
            raise SystemExit("pytest ended:\n" + self.log.read_text()[-4000:])
        return json.loads(text)

    def tests_for(self, number: int) -> list[tuple[str, float]]:
        """(test, seconds) of those that reach a mutant, file by file.

        Files that noticed mutants of the same source come first, then those with short tests, up
        to BUDGET seconds.
        """
        path = self.numbers[number].path
        files: dict[str, list[tuple[str, float]]] = {}
        for test, (seconds, reached) in self.reach.items():
            if number in reached:
                files.setdefault(test.partition("::")[0], []).append((test, seconds))

        def place(name: str) -> tuple[int, float]:
            rows = files[name]
            return -self.noticed[path, name], sum(seconds for _, seconds in rows) / len(rows)

        rows = [
            row
            for name in sorted(files, key=place)
            for row in sorted(files[name], key=lambda row: row[1])
        ]
        costs = list(accumulate(seconds for _, seconds in rows))
        return [row for row, cost in zip(rows, costs) if cost <= BUDGET]

    def attempt(self, number: int) -> tuple[str, str]:
        """What becomes of a mutant, and the test that noticed."""
        if number in self.imported:
            return self.attempt_alone(number)
        tests = self.tests_for(number)
        while tests:
            seconds = 120 + 10 * sum(seconds for _, seconds in tests)
            failed = self.answer(number=number, tests=tests, seconds=seconds)
            if failed == "hung":
                return HUNG, ""
            if failed is None:
                return NOTICED, "the test run crashed"
            if failed == "":
                break
            # A test that fails now and then says nothing: it must pass without the mutant, and fail
            # with it once more.
            last = [(test, seconds) for test, seconds in tests if test == failed]
            if (
                self.answer(number=0, tests=last, seconds=600) == ""
                and self.answer(number=number, tests=last, seconds=600) != ""
            ):
                self.noticed[self.numbers[number].path, failed.partition("::")[0]] += 1
                return NOTICED, failed
            tests = [row for row in tests if row not in last]
        return SURVIVED, ""

    def files_for(self, path: str) -> list[str]:
        """Test files for a source, ALONE seconds: first those that import it by name, and of these
        and of the others those that reach most of its mutants."""
        same = {number for number, mutant in self.numbers.items() if mutant.path == path}
        same = same - self.imported or same  # what any import reaches says nothing
        seconds: dict[str, float] = {}
        reached: dict[str, set[int]] = {}
        for test, (took, numbers) in self.reach.items():
            name = test.partition("::")[0]
            seconds[name] = seconds.get(name, 0.0) + took
            reached.setdefault(name, set()).update(same.intersection(numbers))
        named = {name for name in reached if imports((TREE / name).read_text(), path)}
        found: list[str] = []
        for name in sorted(
            reached, key=lambda name: (name not in named, -len(reached[name]), seconds[name])
        ):
            if (name in named or reached[name]) and (
                not found or sum(map(seconds.__getitem__, found)) < ALONE
            ):
                found.append(name)
        return found

    def attempt_alone(self, number: int) -> tuple[str, str]:
        """The same for what runs while a module is imported: in a new interpreter."""
        files = self.files_for(self.numbers[number].path)
        if not files:
            return SURVIVED, ""  # without a name, pytest would run all there is
        self.file.write_bytes(number.to_bytes(4, "little") + bytes(SIZE - 4))
        try:
            command = self.command("-x", "-rfE", *files, *deselected())
            done = processes.run(
                command, TREE, self.env, 120 + 10 * ALONE, self.log.with_suffix(".alone")
            )
        finally:
            self.file.write_bytes(bytes(SIZE))
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.output, re.MULTILINE)
        if done.status is None:
            return HUNG, ""
        return (NOTICED if done.status else SURVIVED), failed.group(1) if failed else ""

    def close(self) -> None:
        """Ends the server."""
        self.process.kill()
        self.process.wait()


def imports(test: str, path: str) -> bool:
    """Does the text of a test import a source by its name?"""
    package, _, name = path.rpartition(".")[0].replace("/", ".").rpartition(".")
    if name == "__init__":
        below = rf"|from {package} import " if "." in package else ""  # all import the top
        return re.search(rf"^\s*(import {package}${below})", test, re.MULTILINE) is not None
    return (
        re.search(rf"^\s*from {package}(\.{name} import| import .*\b{name}\b)", test, re.MULTILINE)
        is not None
    )


def share(runners: list[Runner], work: Callable[[Runner, Any], None], items: Iterable[Any]) -> None:
    """Each runner takes one item after another, until there is none; SystemExit where one fails."""
    left = deque(items)
    failed: list[BaseException] = []

    def go(runner: Runner) -> None:
        try:
            while left and not failed:
                work(runner, left.popleft())
        except IndexError:
            pass  # another was quicker
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=go, args=(runner,), daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"the run was given up: {failed[0]!r}")


def record(runners: list[Runner]) -> None:
    """Finds out what each test reaches, file by file; what is known from an earlier run is kept."""
    known = runners[0].known
    path = WORK / "reach.json"
    build = hashlib.sha256(repr([m.key for m in known.numbers.values()]).encode())
    for source in sorted({mutant.path for mutant in known.numbers.values()}):
        build.update((TREE / source).read_bytes())
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("build") != build.hexdigest():
        kept = {"build": build.hexdigest()}
    by_file: dict[str, list[str]] = {}
    for test in runners[0].tests:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    lock = threading.Lock()

    def one(runner: Runner, name: str) -> None:
        content = hashlib.sha256((TREE / name).read_bytes()).hexdigest()
        if kept.get(name, [""])[0] != content:
            tests = by_file[name]
            found = runner.answer(record=tests) or []
            left = len(tests) - len(found)
            print(f"{name}: {len(found)} tests" + (f", {left} FAIL" if left else ""), flush=True)
            with lock:
                kept[name] = [content, found]
                path.write_text(json.dumps(kept))
        for test, seconds, reached in kept[name][1]:
            known.reach[test] = (seconds, reached)

    share(runners, one, by_file)
