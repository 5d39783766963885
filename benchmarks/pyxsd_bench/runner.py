# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-bench run`: takes the samples.

For each scenario all daemons are started; for each size all are brought there; then the daemons
take turns, sample by sample, in an order that rotates, so that a noisy machine hurts all alike.
What fails is noted as missing for that daemon and the rest goes on.  The result file is written
after every size; Ctrl-C keeps what is done.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

from . import builds, daemons, limits, placement, proc, report, results, scenarios, versions
from .arguments import finite, told
from .load import LoadError
from .measure import NothingMeasured
from .program import EITHER, Program
from .progress import Progress
from .scenarios import Context, Scenario
from .scenarios.base import ROOT
from .summary import Summary
from .target import DaemonFailed, NotStarted, Target, running, start
from .wire import RM

OK, USAGE, MISSING, INTERRUPTED = 0, 2, 3, 130
FAILURES = (LoadError, DaemonFailed, NothingMeasured, OSError, MemoryError)
SYSCALL_SECONDS = 0.1
SLOW_S = 20.0  # after a sample that took longer: no more at this size, no larger size
Start = Callable[[], Target]


class Runner:
    """One run.  `starts`: name -> how to get a fresh target."""

    def __init__(
        self,
        options: argparse.Namespace,
        starts: dict[str, Start],
        descriptions: list[daemons.Description],
    ) -> None:
        self.options = options
        self.starts = starts
        self.echo = {d.name for d in descriptions if d.echo}
        self.kinds = {d.name: d.kind for d in descriptions}
        self.kept = {d.name for d in descriptions if d.keeper}
        # Daemons that run already: what creates domains is not for them.
        self.foreign = starts.keys() - {d.name for d in descriptions}
        self.chosen = choose(options.only)
        self.result = results.new(
            {
                "seconds": options.seconds,
                "repeat": options.repeat,
                "scale": options.scale,
                "only": options.only,
                "placement": options.placement,
            }
        )
        self.progress = Progress(sum(self._steps(s) for s in self.chosen), options.quiet)
        self.can_count = True
        self.slow: dict[tuple[str, str], str] = {}  # (scenario, daemon) -> what took so long
        self.unstartable: dict[str, str] = {}  # daemon -> why it does not start
        self.unsaved = ""  # why the result file could not be written the last time

    def _sizes(self, scenario: Scenario) -> list[int]:
        scale: float = self.options.scale
        return sizes(scenario, scale)

    def _steps(self, scenario: Scenario) -> int:
        repeat = self._repeat(scenario)
        return len(self._sizes(scenario)) * len(self._names(scenario)) * repeat

    def _repeat(self, scenario: Scenario) -> int:
        """How many samples each point of the scenario gets."""
        return 1 if scenario.attack else int(self.options.repeat)

    def _names(self, scenario: Scenario) -> list[str]:
        own = scenario.needs == "standin"
        return [
            name
            for name in self.starts
            if (scenario.floor or name not in self.echo)
            and not (own and name in self.foreign)
            and (not scenario.kinds or self.kinds.get(name) in scenario.kinds)
            and (not scenario.keeper or name in self.kept)
        ]

    def _without(self, scenario: Scenario) -> dict[str, str]:
        """The daemons that have not what the scenario measures: what they have not."""
        if not scenario.keeper:
            return {}
        reasons = {name: self._keeperless(name) for name in self.starts if name not in self.echo}
        return {name: reason for name, reason in reasons.items() if reason}

    def _keeperless(self, name: str) -> str:
        if name in self.kept:
            return ""
        if name in self.foreign:
            return "it runs already, and is not killed"
        if self.kinds[name] == "pyxsd":
            return "crash-recovery is not on"
        return "nothing takes its place where it is killed"

    def run(self) -> int:
        """The exit status: 0, 3 where something is missing, 130 after Ctrl-C or SIGTERM.

        2 where the result file could not be written in the end.
        """
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            for scenario in self.chosen:
                if self._names(scenario) or self._without(scenario):
                    self._scenario(scenario)
            self.result["complete"] = True
        except KeyboardInterrupt:
            self.progress.note("interrupted: what was measured is kept")
            self._save()
            return INTERRUPTED
        self._save()
        self.progress.finish()
        for text in summed_up(self.result["missing"], self.result["scenarios"]):
            print(f"missing: {text}", file=sys.stderr)
        if self.unsaved:
            print(f"pyxsd-bench: {self.unsaved}", file=sys.stderr)
            return USAGE
        return MISSING if self.result["missing"] else OK

    def _save(self) -> None:
        """Writes the result file; a full disk is said once, and tried again after the next size."""
        try:
            results.save(self.options.output, self.result)
            self.unsaved = ""
        except OSError as error:
            text = f"{self.options.output}: {error.strerror}"
            if text != self.unsaved:
                self.progress.note(text)
            self.unsaved = text

    def _missing(self, scenario: Scenario, size: int, name: str, reason: str) -> None:
        self.result["missing"].append(
            {"scenario": scenario.name, "size": size, "daemon": name, "reason": reason}
        )
        self.progress.note(f"{self._group(scenario, size)} {name}: {reason}")

    def _scenario(self, scenario: Scenario) -> None:
        self.result["scenarios"][scenario.name] = {
            "title": scenario.title,
            "why": scenario.why,
            "axis": scenario.axis,
            "unit": scenario.unit,
            "main": scenario.main,
            "attack": scenario.attack,
            "not_available": self._without(scenario),
        }
        for name, reason in self._without(scenario).items():
            self.progress.note(f"{scenario.name} {name}: not available: {reason}")
        with contextlib.ExitStack() as stack:
            targets: dict[str, Target] = {}
            for name in self._names(scenario):
                with self._noting(scenario, 0, name):
                    targets[name] = self._started(name)
                    stack.callback(self._close, targets[name])
                    stack.enter_context(self._placed(targets[name]))
            for size in self._sizes(scenario):
                self._size(scenario, size, targets)
                self._save()

    def _placed(self, target: Target) -> contextlib.AbstractContextManager[None]:
        """The run's placement; a daemon that runs on gets its CPUs back."""
        return placement.placed(target.pid, self.options.placement, self.options.cpus)

    def _started(self, name: str) -> Target:
        """A fresh target.  What did not start once is not waited for again."""
        if name in self.unstartable:
            raise NotStarted(self.unstartable[name])
        try:
            return self.starts[name]()
        except NotStarted as error:
            self.unstartable[name] = str(error)
            raise

    def _close(self, target: Target) -> None:
        """Stops a daemon of ours; cleans up behind us in one that runs on."""
        target.keep.close()
        if target.owned:
            target.close()
            return
        with contextlib.suppress(*FAILURES), target.load() as load:
            cleaning = Program().send(RM, ROOT.encode() + b"\0", EITHER)
            load.connect(target.socket, cleaning, loops=1)
            load.finish()

    @contextlib.contextmanager
    def _noting(
        self, scenario: Scenario, size: int, name: str, target: Target | None = None
    ) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            self._missing(scenario, size, name, failure(error, target))

    def _size(self, scenario: Scenario, size: int, targets: dict[str, Target]) -> None:
        ready: list[str] = []
        for name in list(targets):
            target = targets[name]
            self.progress.step(self._group(scenario, size), f"{name}: preparing")
            reason = self.slow.get((scenario.name, name), "") or limits.objection(
                scenario, size, len(targets), bool(target.host)
            )
            if reason:
                self._missing(scenario, size, name, reason)
                continue
            context = Context(self.options.seconds, cpus=self.options.cpus)
            with self._noting(scenario, size, name, target):
                if scenario.prepare:
                    target.deadline = time.monotonic() + self.options.prepare_limit
                    scenario.prepare(target, size, context)
                    target.deadline = 0.0
                ready.append(name)
            if name not in ready:
                targets.pop(name)
        for turn in range(self._repeat(scenario)):
            for name in ready[turn % max(len(ready), 1) :] + ready[: turn % max(len(ready), 1)]:
                worth = name in targets and (turn == 0 or (scenario.name, name) not in self.slow)
                if worth and not self._sample(scenario, size, targets[name], turn):
                    targets.pop(name)
                self.progress.advance()
        self.progress.advance(self._repeat(scenario) * (len(self._names(scenario)) - len(ready)))
        if self.can_count and not scenario.attack:
            for name in ready:
                worth = name in targets and (scenario.name, name) not in self.slow
                if worth and not self._sample(scenario, size, targets[name], -1):
                    targets.pop(name)

    @staticmethod
    def _group(scenario: Scenario, size: int) -> str:
        return f"{scenario.name} {size:,} {scenario.axis}" if scenario.axis else scenario.name

    def _sample(self, scenario: Scenario, size: int, target: Target, turn: int) -> bool:
        """Takes one sample of every measure; False where the daemon is of no use any more.

        Turn -1 counts system calls: a run of its own, as counting costs time.
        """
        counting = turn < 0
        seconds = min(SYSCALL_SECONDS, self.options.seconds) if counting else self.options.seconds
        context = Context(seconds, counting, self.options.cpus)
        detail = f"{target.name}: {'system calls' if counting else turn + 1}"
        self.progress.step(self._group(scenario, size), detail)
        if counting and not self._countable(target):
            return True
        begin = time.monotonic()
        try:
            found = scenario.run(target, size, context)
        except FAILURES as error:
            self._missing(scenario, size, target.name, failure(error, target))
            return False
        took = time.monotonic() - begin
        if took > SLOW_S:
            text = f"not tried: one sample took {took:.0f} s at size {size:,}"
            self.slow[scenario.name, target.name] = text
        for measure, figures in found.items():
            if counting and "syscalls" not in figures:
                continue
            row = {
                "scenario": scenario.name,
                "measure": measure,
                "size": size,
                "daemon": target.name,
                "round": turn,
            }
            self.result["samples"].append({**row, **rounded(figures)})
        return True

    def _countable(self, target: Target) -> bool:
        """Whether system calls can be counted here; says once where not."""
        if not self.can_count:
            return False
        try:
            with proc.Syscalls(target.pid):
                pass
        except OSError as error:
            self.can_count = False
            self.result["settings"]["syscalls"] = f"not available: {error}"
            self.progress.note(f"system calls are not counted: {error}")
        return self.can_count


def failure(error: BaseException, target: Target | None) -> str:
    """What failed in one line; of a daemon that ended, how, before what that broke."""
    text = str(error) or type(error).__name__
    fate = target.fate() if target and not isinstance(error, NotStarted) else ""
    return f"{fate} ({text})" if fate and fate != text else text


def summed_up(rows: list[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """What is missing, one line for each daemon and reason."""
    where: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        axis = about[row["scenario"]]["axis"]
        place = f"{row['scenario']} {row['size']:,} {axis}" if axis else row["scenario"]
        where.setdefault((row["daemon"], row["reason"]), []).append(place)
    return [
        f"{', '.join(places)}: {reason if reason.startswith(daemon) else f'{daemon}: {reason}'}"
        for (daemon, reason), places in where.items()
    ]


def rounded(figures: dict[str, object]) -> dict[str, object]:
    """Figures with five digits: a result file is read by people too."""
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in figures.items()}


def sizes(scenario: Scenario, scale: float) -> list[int]:
    """The sizes up to `scale` of the largest, or of 300 (small axes); always at least the first."""
    most = max(scenario.sizes[-1], 300) * scale
    return [s for i, s in enumerate(scenario.sizes) if i == 0 or s <= most]


def choose(only: list[str]) -> list[Scenario]:
    """The scenarios whose name contains one of `only`; ValueError where a word fits none.

    Attacks are chosen by words that begin with "attacks" alone.
    """
    if not only:
        return list(scenarios.ALL)

    def fits(word: str, scenario: Scenario) -> bool:
        return word in scenario.name and scenario.attack == word.startswith("attacks")

    everything = (*scenarios.ALL, *scenarios.ATTACKS)
    for word in only:
        if not any(fits(word, s) for s in everything):
            names = ", ".join(s.name for s in scenarios.ALL)
            raise ValueError(f"no scenario is named {word}: there are {names}, and attacks")
    return [s for s in everything if any(fits(word, s) for word in only)]


def _starter(description: daemons.Description) -> Start:
    return lambda: start(description)


def arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(description.name for description in daemons.BUILT_IN)
    parser.add_argument(
        "daemon",
        nargs="*",
        help=f"daemons to measure: description files, NAME=PROGRAM for a build of your own, "
        f"or of {names} (default: {' '.join(daemons.DEFAULT)})",
    )
    parser.add_argument("-o", "--output", default="result.json", help="result file (result.json)")
    parser.add_argument("--html", metavar="FILE", help="make the page of the results, too")
    parser.add_argument(
        "--socket",
        action="append",
        default=[],
        help="also measure a daemon that runs already, "
        "which gets the whole load: the host's own only if no guest needs it",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="scenarios with WORD in the name",
    )
    parser.add_argument("--repeat", type=int, default=5, help="samples of a point, 1 or more (5)")
    parser.add_argument("--seconds", type=finite, default=0.3, help="seconds for each sample (0.3)")
    parser.add_argument(
        "--scale",
        type=finite,
        default=0.1,
        help="largest size as a share of the full one, from 0 to 1 (0.1)",
    )
    parser.add_argument(
        "--prepare-limit",
        type=finite,
        default=60.0,
        metavar="S",
        help="give a size up for a daemon that needs longer to be brought there (60)",
    )
    parser.add_argument("--smoke", action="store_true", help="everything small: for CI, no figures")
    parser.add_argument(
        "--placement",
        choices=placement.FIXED,
        default=placement.APART,
        help="where generator and daemons run: apart (each on CPUs of its own, the default), "
        "together (on one CPU), or where the scheduler puts them",
    )
    parser.add_argument(
        "--within",
        type=finite,
        metavar="PERCENT",
        help="judge two builds in the end: is the second as fast as the first, within PERCENT?",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Carries out the command; the exit status."""
    if options.smoke:
        options.repeat, options.seconds, options.scale = 1, 0.02, 0.001
    names = options.daemon or ([] if options.socket else list(daemons.DEFAULT))
    limits.raise_descriptors()
    options.cpus = tuple(sorted(os.sched_getaffinity(0)))
    if not placement.possible(options.placement, options.cpus):
        options.placement = placement.SCHEDULER
    starts: dict[str, Start] = {}
    described = {}
    descriptions = []
    try:
        if options.repeat < 1 or options.seconds <= 0 or not 0 <= options.scale <= 1:
            raise ValueError("--repeat must be at least 1, --seconds above 0, --scale from 0 to 1")
        for name in names:
            description = daemons.find(name)
            if description.name in starts:
                raise ValueError(f"two daemons are named {description.name}")
            starts[description.name] = _starter(description)
            descriptions.append(description)
            described[description.name] = {
                "version": versions.version(description),
                "command": " ".join(description.command),
                "config": dict(description.config),
            }
        for path in options.socket:
            target = running(path)
            starts[target.name] = _runner_for(path)
            described[target.name] = {"version": "", "command": f"socket {path}", "config": {}}
        if options.within is not None:
            builds.check(options.within, options.repeat, list(starts))
        runner = Runner(options, starts, descriptions)
        runner.result["daemons"] = described
        results.save(options.output, runner.result)
    except (daemons.BadDescription, ValueError, OSError) as error:
        print(f"pyxsd-bench: {told(error)}", file=sys.stderr)
        return USAGE
    status = runner.run()
    if not runner.unsaved:
        print(options.output)
    summary = Summary([(options.output, runner.result)])
    if options.html:
        try:
            with open(options.html, "w", encoding="utf-8") as out:
                out.write(report.render(summary, report.PAGE))
        except OSError as error:
            print(f"pyxsd-bench: {options.html}: {error.strerror}", file=sys.stderr)
            return USAGE
        print(options.html)
    if options.within is not None and status in (OK, MISSING):
        return max(status, builds.conclude(summary, options.within))
    return status


def _runner_for(path: str) -> Start:
    return lambda: running(path)
