# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands in the documents, and what is done with each: run, or named with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

#: A code block's line, or code within a line, is a command if it begins with one of these.
PROGRAMS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:sudo )?(?:\S*/)?"
    r"(?:apt|apt-get|choom|cp|dnf|dpkg|echo|gdb|git|grep|journalctl|kill|less|ln|make|mkdir|mv|"
    r"pip|pytest|python3?|pyxsd(?= -)|pyxsd-bench|pyxsd-launch|pyxsd-setup|reboot|rm|rpm|service|"
    r"systemctl|tail|top|xenstore-[a-z]+|xl)(?: |$)"
)


class Command(NamedTuple):
    """A command and the document that has it."""

    document: str
    text: str


def documents() -> list[Path]:
    """README.md and the folder docs; generated tables of figures have no commands."""
    return [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md"))]


def codes(text: str) -> Iterator[str]:
    """Every line of the code blocks of a document, and every piece of code within its lines."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            yield from re.findall(r"`([^`]+)`", line)


def commands(name: str, text: str) -> list[Command]:
    """The commands of a document, each once, without the comments behind them."""
    found = [re.sub(r"\s+#.*| -->$", "", code) for code in codes(text)]
    # A word alone is the name of the program, unless the program is run by it.
    return [
        Command(name, code)
        for code in dict.fromkeys(found)
        if PROGRAMS.match(code) and (" " in code or code == "reboot")
    ]


def all_commands() -> list[Command]:
    """The commands of all documents."""
    return [
        command
        for path in documents()
        for command in commands(path.name, path.read_text(encoding="utf-8"))
    ]


#: Commands that a test runs in a copy of the project, with the daemon of `make run` serving there
#: and domain 5 introduced: pattern, the exit statuses that are right.
RUN = (
    ("python3 tools/ask.py *", (0,)),
    ("XENSTORED_RUNDIR=$PWD/run xenstore-*", (0,)),
    ("xenstore-control live-update*", (0, 1, 2)),
    ("xenstore-control *", (0,)),
    ("xenstore-ls *", (0,)),
    ("xenstore-read /tool/xenstored", (0,)),
    ("pyxsd --config-test --config-file /*", (0,)),
    ("pyxsd --version", (0,)),
    ("pyxsd --help", (0,)),
    ("pyxsd-bench list", (0,)),
    ("make build", (0,)),
    ("grep * /var/log/xen/*", (0, 1)),  # 1: the log has no such line
    ("kill -USR1 $(cat /run/xenstore.pid)", (0,)),
)

#: What the documents say of a host's files, and where the copy has them.
PLACES = {
    "/etc/xen/oxenstored.conf": "run/pyxsd.conf",
    "/var/log/xen/": "run/",
    "/run/xenstore.pid": "run/xenstored.pid",
    "/var/run/xenstored/": "run/",
}

#: Commands that no test here runs, and why.
NOT_RUN = (
    ("*[[]*", "a synopsis, not a command"),
    ("make run", "the tests of `make run` run it, and the commands above run beside it"),
    ("make test*", "it is what runs this test"),
    ("make system-test*", "boots a machine; it is a test of its own"),
    ("make bench*", "takes minutes; the harness has its own tests"),
    ("apt *", "changes the packages of the machine"),
    ("apt-get *", "changes the packages of the machine"),
    ("dnf *", "changes the packages of the machine"),
    ("rpm *", "changes the packages of the machine"),
    ("dpkg *", "changes the packages of the machine"),
    ("systemctl *", "needs systemd"),
    ("service *", "starts services of the machine"),
    ("journalctl *", "needs systemd's journal"),
    ("reboot", "restarts the machine"),
    ("xl *", "needs a dom0"),
    (
        "xenstore-control live-update*/usr/sbin/pyxsd",
        "needs another xenstored that runs; the live switch has its tests",
    ),
    (
        "xenstore-control live-update */oxenstored",
        "ends the daemon that the others are run on; the live switch has its tests",
    ),
    (
        "xenstore-control live-update*/opt/*",
        "needs a second pyxsd in /opt; live update has its own tests",
    ),
    ("pyxsd --replay *", "needs a recording; tests/record makes some"),
    ("pyxsd --show-state *", "needs a state file; its tests have recorded ones"),
    ("pyxsd-setup *", "tells of the host's boot or changes it; its tests have a pretended host"),
    ("pyxsd-launch *", "starts the host's xenstored; its tests have a pretended host"),
    ("*pyxsd-bench run *", "takes minutes; the harness has its own tests"),
    ("pyxsd-bench report*", "needs results; the harness has its own tests"),
    ("pyxsd-bench compare*", "needs results; the harness has its own tests"),
    ("pyxsd-bench load*", "needs a daemon under load; the harness has its own tests"),
    ("pytest benchmarks/*", "takes minutes"),
    ("git worktree add *", "needs a commit that the reader chooses"),
    ("python3 -m venv*", "the test of the distributions builds and installs in a venv"),
    ("*pip install*", "the test of the distributions builds and installs in a venv"),
    ("ln -sf *", "makes links in /usr"),
    ("rm -r /opt/pyxsd *", "removes what pip has installed on the host"),
    ("make deb*", "takes minutes in throwaway Debian systems; make package-test does it"),
    ("echo * >> /etc/*", "changes the configuration of the host"),
    ("less *", "waits for keys"),
    ("tail -f *", "never ends"),
    ("top *", "shows the machine's processes"),
    ("gdb *", "stops the daemon; gdb need not be installed"),
)


def how(command: str) -> tuple[tuple[int, ...], str]:
    """The statuses that are right where the command is run, or ((), why it is not).

    KeyError for a command that is in neither table.
    """
    for pattern, reason in NOT_RUN:
        if fnmatchcase(command, pattern):
            return (), reason
    for pattern, statuses in RUN:
        if fnmatchcase(command, pattern):
            return statuses, ""
    raise KeyError(command)
