# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which results a run must give, and what is said of those it gave.

A run is judged by names: a check that is missing is as bad as one that failed, and so is one
that nobody expected. Knows the scripts of dom0/ and guest/ and probe/suite.c; `plan` follows them.
"""

from __future__ import annotations

import re
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

SETUP = ["check", "select", "status"]
START = ["script", "answers", "alive", "oom-score"]
LEFTOVERS = ["nodes", "watches", "descriptors", "event-channels"]
END = ["alive", "answers", "stops"]

#: What other daemons are known to do otherwise: (daemon, pattern of names) -> must fail so.
#: Debian's oxenstored 4.17 has no DIRECTORY_PART and sends overlong replies over sockets. C
#: xenstored counts the names of the children against the size of a guest's node.
KNOWN_FAILURES = {
    "oxenstored": re.compile(r".*\.parts|socket\.wide"),
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
class Result:
    """One CHECK line."""

    name: str
    passed: bool
    detail: str


def plan(daemon: str, start: str, size: str, packaged: bool = False) -> set[str]:
    """Return the names that must appear.

    packaged: pyxsd comes from its Debian package, is chosen with pyxsd-setup, and started by its
    launcher, which succeeds where a daemon answers already.
    """

    def under(label: str, names: list[str]) -> set[str]:
        return {f"{label}.{name}" for name in names}

    names = under("start", START) | under("leftovers", LEFTOVERS) | under("end", END)
    names |= {"dom0.domid", "dom0.name"}
    names |= under("socket", SUITE) | under("ring", SUITE)
    if packaged:
        names |= under("setup", SETUP) | {"start.again", "start.same-daemon"}
    elif start == "debian":
        names |= {"start.again-refused" if daemon == "pyxsd" else "start.again"}
    if daemon == "pyxsd":
        names |= {"start.second-refused", "start.still-answers"}
        names |= {"start.ready"} if start == "launch" else set()
    names |= under("g1-create", BORN) | under("g1", DEVICES) | under("g1-first", RINGS)
    names |= {"g1-disk.written", "g1-net.ping"} | under("g1-shutdown", DIED)
    if daemon == "pyxsd":
        names |= {"dom0.update"} | under("g1-update", UPDATED) | under("g1-updated", RINGS)
    if size == "full":
        names |= under("g1-save", DIED) | under("g1-restore", RESTORED)
        names |= under("g1-restored", RINGS) | under("g1-again", RINGS)
        rebooted = [
            "command",
            "released",
            "path-gone",
            "new-domid",
            "vbd-gone",
            "vif-gone",
            "watches-gone",
        ]
        names |= under("g1-reboot", rebooted) | under("g1-reborn", ["ready", *ARRIVED])
        for guest in ("g2", "g3"):
            names |= under(f"{guest}-create", BORN) | under(guest, DEVICES)
            names |= under(f"{guest}-first", RINGS) | under(f"{guest}-destroy", DIED)
        names |= {"g2-destroy.busy", "g3-alone.echo"}
    left_out = NOT_ASKED.get(daemon)
    return {name for name in names if left_out is None or not left_out.fullmatch(name)}


def results(log: str) -> list[Result]:
    """Return the CHECK lines of a serial log, in order."""
    return [
        Result(match[1], match[2] == "ok", (match[3] or "").strip())
        for match in _LINE.finditer(log)
    ]


def verdict(log: str, daemon: str, start: str, size: str, packaged: bool = False) -> list[str]:
    """Return what is wrong with a run; nothing when it is good."""
    expected = plan(daemon, start, size, packaged)
    found = results(log)
    known = KNOWN_FAILURES.get(daemon)
    wrong = []
    for result in found:
        must_fail = known is not None and known.fullmatch(result.name) is not None
        if result.name not in expected and not CUT_SHORT.fullmatch(result.name):
            wrong.append(f"{result.name}: nobody expected this check")
        elif result.passed and must_fail:
            wrong.append(f"{result.name}: passed, but {daemon} is known to fail it")
        elif not result.passed and not must_fail:
            wrong.append(f"{result.name}: {result.detail}")
    missing = sorted(expected - {result.name for result in found})
    if missing:
        wrong.append(f"{len(missing)} missing: {', '.join(missing)}")
    if "SYSTEM END 0" not in log:
        wrong.append("dom0 did not come to its end")
    return wrong
