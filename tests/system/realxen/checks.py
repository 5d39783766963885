# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which results a run must give, and what is said of those it gave.

A run is judged by names: a check that is missing is as bad as one that failed, and so is one
that nobody expected. Knows the scripts of dom0/ and guest/ and probe/suite.c; `plan` follows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SUITE = [
    "identity",
    "values",
    "tree",
    "permissions",
    "watches",
    "transactions",
    "transaction-events",
    "rounds",
    "burst",
    "wide",
    "parts",
]
ARRIVED = [
    "name",
    "disk-back",
    "disk-front",
    "net-back",
    "net-front",
    "hotplug",
    "echo",
]
RESTORED = ["command", "introduced", "new-domid", *ARRIVED]
BORN = ["command", "introduced", "ready", *ARRIVED]
RINGS = [*SUITE, "suite", "put", "dom0-watch", "denied", "watch-listed"]
DIED = [
    "command",
    "released",
    "path-gone",
    "vm-gone",
    "libxl-gone",
    "vbd-gone",
    "vif-gone",
    "interface-gone",
    "loop-gone",
    "watches-gone",
]
UPDATED = ["command", "serves", "oom-score"]
DEVICES = ["disk-reads", "disk-writes", "network"]
KILLED = ["enough", "logged", "status"]
SWITCHED = ["command", "serves", "same-process", "oom-score"]

SETUP = ["check", "select", "status"]
START = ["script", "answers", "alive", "oom-score"]
LEFTOVERS = ["nodes", "watches", "descriptors", "event-channels", "domains"]
END = ["alive", "answers", "stops"]
REBOOTED = [
    "command",
    "released",
    "path-gone",
    "new-domid",
    "vbd-gone",
    "vif-gone",
    "watches-gone",
]

DAEMONS = ("pyxsd", "oxenstored", "cxenstored")
STARTS = ("debian", "launch")
SIZES = ("quick", "full")

#: What other daemons are known to do otherwise: (daemon, pattern of names) -> must fail so.
#: Debian's oxenstored 4.17 has no DIRECTORY_PART and sends overlong replies over sockets. C
#: xenstored counts the names of the children against the size of a guest's node.
KNOWN_FAILURES = {
    "oxenstored": re.compile(r".*\.parts|socket(-\w+)?\.wide"),
    "cxenstored": re.compile(r"g\d-\w+\.(wide|parts)"),
}
#: Checks that a daemon cannot be put to.
NOT_ASKED = {
    "cxenstored": re.compile(r".*\.watch-listed|.*\.watches-gone|end\.stops"),
}

#: Checks of a guest that is destroyed while it makes them: some come, and those must pass.
CUT_SHORT = re.compile(r"g2-cut\.\S+")

_LINE = re.compile(r"CHECK (\S+) (ok|fail)(?: (.*))?$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What a machine does.

    daemon: the xenstored that dom0 begins with, one of DAEMONS.  start: how, one of STARTS.  size:
    one of SIZES.  story: one of STORIES.  packaged: pyxsd comes from its Debian package, is chosen
    with pyxsd-setup, and started by its launcher, which succeeds where a daemon answers already.
    """

    daemon: str
    start: str
    size: str
    story: str = "lives"
    packaged: bool = False

    @property
    def has_pyxsd(self) -> bool:
        """Is pyxsd needed?"""
        return self.daemon == "pyxsd" or self.story == "switches"


@dataclass(frozen=True)
class Result:
    """One CHECK line."""

    name: str
    passed: bool
    detail: str


class _Plan:
    """The checks of a run, in groups, each under the daemon that serves meanwhile."""

    def __init__(self, daemon: str) -> None:
        self.serves = daemon
        self.outcomes: dict[str, bool] = {}  # name: must it pass?

    def add(self, label: str, *names: str) -> None:
        """Expects label.name of each name."""
        left_out, known = NOT_ASKED.get(self.serves), KNOWN_FAILURES.get(self.serves)
        for name in (f"{label}.{name}" for name in names):
            if left_out is None or not left_out.fullmatch(name):
                self.outcomes[name] = known is None or not known.fullmatch(name)

    def add_guest(self, guest: str) -> None:
        """Expects what is seen of a guest from its creation to its first requests."""
        self.add(f"{guest}-create", *BORN)
        self.add(guest, *DEVICES)
        self.add(f"{guest}-first", *RINGS)


def plan(run: Run) -> dict[str, bool]:
    """Return the names that must appear, and whether each must pass; the others must fail."""
    planned = _Plan(run.daemon)
    _begin(planned, run)
    STORIES[run.story](planned, run.size == "full")
    planned.add("leftovers", *LEFTOVERS)
    planned.add("end", *END)
    return planned.outcomes


def _begin(planned: _Plan, run: Run) -> None:
    """start.sh, and dom0_checks of scenario.sh."""
    planned.add("start", *START)
    planned.add("dom0", "domid", "name")
    planned.add("socket", *SUITE)
    planned.add("ring", *SUITE)
    if run.packaged:
        planned.add("setup", *SETUP)
        planned.add("start", "again", "same-daemon")
    elif run.start == "debian":
        planned.add("start", "again-refused" if run.daemon == "pyxsd" else "again")
    if run.daemon == "pyxsd":
        planned.add("start", "second-refused", "still-answers")
        planned.add("start", *(["ready"] if run.start == "launch" else []))
        planned.add("dom0", "update")


def _lives(planned: _Plan, full: bool) -> None:
    """life.sh"""
    planned.add_guest("g1")
    planned.add("g1-disk", "written")
    planned.add("g1-net", "ping")
    if planned.serves == "pyxsd":
        planned.add("g1-update", *UPDATED)
        planned.add("g1-updated", *RINGS)
    planned.add("g1-shutdown", *DIED)
    if not full:
        return
    planned.add("g1-save", *DIED)
    planned.add("g1-restore", *RESTORED)
    planned.add("g1-restored", *RINGS)
    planned.add("g1-again", *RINGS)
    planned.add("g1-reboot", *REBOOTED)
    planned.add("g1-reborn", "ready", *ARRIVED)
    for guest in ("g2", "g3"):
        planned.add_guest(guest)
        planned.add(f"{guest}-destroy", *DIED)
    planned.add("g2-destroy", "busy")
    planned.add("g3-alone", "echo")


def _deaths(planned: _Plan, full: bool) -> None:
    """deaths.sh"""
    planned.add("deaths", "configured")
    planned.add("g1-create", *BORN)
    planned.add("g1", *DEVICES)
    planned.add("boot-kills", *KILLED)
    planned.add("g1-first", *RINGS)
    planned.add("g1-disk", "written")
    planned.add("g1-net", "ping")
    if full:
        planned.add("g2-create", *BORN)
        planned.add("g2", *DEVICES)
        planned.add("g1-save", *DIED)
        planned.add("g1-restore", *RESTORED)
        planned.add("g2-destroy", *DIED)
        planned.add("life-kills", "enough", "status")
        planned.add("g1-restored", *RINGS)
    planned.add("socket-after", *SUITE)
    planned.add("ring-after", *SUITE)
    planned.add("g3-create", *BORN)
    planned.add("g3", *DEVICES)
    planned.add("g1-update", *UPDATED, "kept")
    planned.add("g1-updated", *RINGS)
    planned.add("keeper", "killed", "another", "told", "oom-score")
    planned.add("g1-rekept", *RINGS)
    planned.add("updated-kills", *KILLED)
    planned.add("g3-updated", *RINGS)
    planned.add("g3-destroy", *DIED)
    planned.add("g1-shutdown", *DIED)


def _switches(planned: _Plan, full: bool) -> None:
    """switches.sh"""
    before = planned.serves
    planned.add_guest("g1")
    planned.serves = "pyxsd"
    planned.add("take-over", *SWITCHED)
    planned.add("socket-taken", *SUITE)
    planned.add("ring-taken", *SUITE)
    planned.add("g1-taken", *RINGS)
    planned.add_guest("g2")
    planned.add("g2-destroy", *DIED)
    planned.serves = before
    planned.add("give-back", *SWITCHED)
    planned.add("socket-given", *SUITE)
    planned.add("ring-given", *SUITE)
    planned.add("g1-given", *RINGS)
    planned.add_guest("g3")
    planned.add("g3-destroy", *DIED)
    if full:
        planned.serves = "pyxsd"
        planned.add("kept-take-over", *SWITCHED)
        planned.add("kept", "configured")
        planned.add("g1-kept", *RINGS)
        planned.add("g3-kept", *RINGS)
        planned.add("kept-kills", *KILLED)
        planned.serves = before
        planned.add("kept-give-back", *SWITCHED)
        planned.add("g1-unkept", *RINGS)
        planned.add("g3-unkept", *RINGS)
    planned.add("g1-shutdown", *DIED)


#: What happens between start and end, by name.
STORIES: dict[str, Callable[[_Plan, bool], None]] = {
    "lives": _lives,
    "deaths": _deaths,
    "switches": _switches,
}


def results(log: str) -> list[Result]:
    """Return the CHECK lines of a serial log, in order."""
    return [
        Result(match[1], match[2] == "ok", (match[3] or "").strip())
        for match in _LINE.finditer(log)
    ]


def verdict(log: str, run: Run) -> list[str]:
    """Return what is wrong with a run; nothing when it is good."""
    expected = plan(run)
    found = results(log)
    wrong = []
    for result in found:
        if result.name not in expected and not CUT_SHORT.fullmatch(result.name):
            wrong.append(f"{result.name}: nobody expected this check")
            continue
        must_pass = expected.get(result.name, True)
        if result.passed and not must_pass:
            wrong.append(f"{result.name}: passed, but who serves then is known to fail it")
        elif not result.passed and must_pass:
            wrong.append(f"{result.name}: {result.detail}")
    missing = sorted(set(expected) - {result.name for result in found})
    if missing:
        wrong.append(f"{len(missing)} missing: {', '.join(missing)}")
    if "SYSTEM END 0" not in log:
        wrong.append("dom0 did not come to its end")
    return wrong
