# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-setup update`: the daemon that runs hands over to the installed version of its program."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

from pyxsd.setup import running
from pyxsd.setup.choose import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from pyxsd.setup.running import Running

BUSY = b"BUSY"
SECONDS = 60  # what an update may take
#: What the daemon may take beyond that to check the program and to hand over.
EXTRA_SECONDS = 60
PAUSE_SECONDS = 0.2
#: Until another process has to be seen.
SUCCESSOR_SECONDS = 5.0


class Plan(NamedTuple):
    """What was found, and what can be done."""

    now: Running
    installed: str  # the version, "" where none is known
    program: str  # the command line of the new process


def plan(now: Running, installed: str) -> Plan:
    """What an update would do; Refused where none can be made."""
    if now.state != running.LIVE:
        raise Refused(
            "nothing to update: "
            + (
                f"{now.who} does not answer on {now.socket}"
                if now.pid
                else f"no xenstored answers on {now.socket}"
            )
        )
    if now.kind != "pyxsd":
        raise Refused(f"nothing to update: the xenstored that runs is {now.who}, and not pyxsd")
    program = _told(now, "program")
    if not program:
        raise Refused(
            f"the pyxsd that runs ({now.version or 'of an older version'}) cannot be "
            "updated while it runs; the installed version starts at the next boot of "
            "the host"
        )
    return Plan(now, installed, program)


def crash_recovery(now: Running) -> str:
    """What the daemon that runs says of it: who its keeper is, how often it has died; "" where it
    says nothing."""
    is_pyxsd = now.state == running.LIVE and now.kind == "pyxsd"
    return _told(now, "crash recovery") if is_pyxsd else ""


def _told(now: Running, name: str) -> str:
    """A line of what the daemon says of live updates, without its name; "" where it is missing."""
    told = running.control(now.socket, b"live-update\0").decode("utf-8", "replace")
    lines = told.rstrip("\0").split("\n")
    return next((line.partition(": ")[2] for line in lines if line.startswith(f"{name}: ")), "")


def described(what: Plan) -> list[str]:
    """The plan in lines."""
    old = f"pyxsd {what.now.version}, process {what.now.pid}, answers on {what.now.socket}"
    return [
        f"{'running now:':<18}{old}",
        f"{'installed:':<18}pyxsd {what.installed or '(unknown version)'}",
        f"{'will start:':<18}{what.program}",
        "The new process checks that it understands the present state, then takes over the store,",
        "all guests and all clients, and the old one ends.  Clients stay connected, and their open",
        "transactions go on.  Where something fails, the old process goes on serving.",
    ]


def agreed(yes: bool, question: str = "Update now?") -> bool:
    """Asks whoever sits there, once; False without an answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Refused("nobody can be asked here; --yes does it without asking")
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def run(what: Plan, seconds: int) -> str:
    """Does it; the answer of the daemon that serves then.  Refused with the reason where it is
    the old one."""
    path = what.now.socket
    words = [b"live-update", b"-s", b"-t", b"%d" % seconds, b""]
    end = time.monotonic() + seconds + EXTRA_SECONDS
    while True:
        answer = running.control(path, b"\0".join(words))
        if answer != BUSY and answer:
            break
        if time.monotonic() > end:
            running.control(path, b"live-update\0-a\0")
            raise Refused("the daemon did not come to an end with it; it was called off")
        time.sleep(PAUSE_SECONDS)
    text = answer.rstrip(b"\0").decode("utf-8", "replace")
    if text != "OK":
        raise Refused(f"not updated, and the old daemon goes on: {text}")
    return running.control_version(path)


def successor(before: Running, look: Callable[[], Running]) -> Running:
    """What runs when the daemon has said that all went well; look(): what runs now.  Refused where
    that is the process that was to hand over."""
    end = time.monotonic() + SUCCESSOR_SECONDS
    while True:
        now = look()
        if now.pid == 0 or now.pid != before.pid:
            return now
        if time.monotonic() > end:
            raise Refused(f"pyxsd said that all went well, but process {now.pid} still serves")
        time.sleep(PAUSE_SECONDS)
