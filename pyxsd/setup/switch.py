# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-setup take-over` and `give-back`: the xenstored of a running host changes.

Both hold the dialogue of the daemon that runs, which becomes the other program in its own process.
C xenstored holds it with one connection and answers when all is over; oxenstored, and pyxsd where
it becomes oxenstored, answer BUSY until then.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from typing import NamedTuple

from pyxsd.setup import boot, running
from pyxsd.setup.choose import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.setup.boot import NextBoot
    from pyxsd.setup.running import Running
    from pyxsd.setup.tree import Tree

BUSY = b"BUSY"
CONTROL = 0
EXTRA_SECONDS = 60  # beyond what the daemon was given, for the check and the change
PAUSE_SECONDS = 0.2
PROGRAM = "/usr/sbin/pyxsd"

_HEADER = struct.Struct("=IIII")

#: From and to: what does not go with it, in lines.
NOT_CARRIED = {
    ("C xenstored", "pyxsd"): (
        "Not carried: depths of watches (C xenstored 4.22 does not tell them).",
    ),
    ("oxenstored", "pyxsd"): (
        "Not carried: nothing.  oxenstored does not change while a domain acts for another one",
        "(a device model in a domain of its own); then this is called off.",
    ),
    ("pyxsd", "C xenstored"): (
        "Not carried: depths of watches, watches on paths that C xenstored refuses, limits that",
        "were set while pyxsd ran, nodes of domains that are gone (domain 0 gets them).",
    ),
    ("pyxsd", "oxenstored"): (
        "Not carried: depths of watches, limits that were set while pyxsd ran.  Where a domain",
        "acts for another one, or something is beyond oxenstored's limits, nothing changes.",
    ),
}


class Plan(NamedTuple):
    """What was found, and what can be done."""

    now: Running
    kind: str  # of the program
    program: str


def take_over(now: Running, program: str) -> Plan:
    """pyxsd instead of what runs; Refused."""
    _must_answer(now)
    if now.kind == "pyxsd":
        raise Refused(
            f"pyxsd runs already (process {now.pid}); `pyxsd-setup update` lets the "
            "installed version take over"
        )
    if now.kind not in ("oxenstored", "C xenstored"):
        raise Refused(f"{now.who} is no xenstored that can hand over")
    return Plan(now, "pyxsd", _checked(program))


def give_back(now: Running, program: str, tree: Tree, programs: tuple[str, ...]) -> Plan:
    """What the host is configured for instead of pyxsd, or `program` where it is given; Refused.

    programs: the paths of pyxsd that `select` may have put into the settings file.
    """
    _must_answer(now)
    if now.kind != "pyxsd":
        raise Refused(f"the xenstored that runs is {now.who}, and not pyxsd")
    if program and not os.path.isfile(program):
        raise Refused(f"there is no program {program}")
    if not program:
        before: NextBoot = boot.look(tree, without=programs)
        if before.fault:
            raise Refused(f"{before.fault}; --program FILE names the xenstored")
        program = before.program
    kind = boot.kind_of(program)
    if kind not in ("oxenstored", "C xenstored"):
        raise Refused(f"{program} is neither oxenstored nor C xenstored; --program FILE names one")
    return Plan(now, kind, _checked(program))


def own_program(tree: Tree) -> str:
    """The pyxsd that shall take over: the package's, or the one beside this program."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "pyxsd")
    return beside if not tree.is_program(PROGRAM) and os.access(beside, os.X_OK) else PROGRAM


def described(what: Plan, seconds: int) -> list[str]:
    """The plan in lines."""
    version = f" {what.now.version}" if what.now.version else ""
    return [
        f"{'running now:':<18}{what.now.kind}{version}, process {what.now.pid}, answers on "
        f"{what.now.socket}",
        f"{'will become:':<18}{what.kind} ({what.program}), in the same process",
        "Guests and clients stay connected.",
        *NOT_CARRIED[what.now.kind, what.kind],
        f"The daemon waits up to {seconds} seconds for what is under way, such as open "
        "transactions;",
        "where that does not end, nothing changes.",
    ]


def run(what: Plan, seconds: int) -> str:
    """Does it; what runs then, in a sentence.  Refused, with the reason, where the old one goes
    on."""
    limit = float(seconds + EXTRA_SECONDS)
    with Conversation(what.now.socket, limit) as daemon:
        told = daemon.ask("-f", what.program)
        if told != "OK":
            raise Refused(f"{what.program} was refused, and {what.now.kind} goes on: {told}")
        end = time.monotonic() + limit
        while (told := daemon.ask("-s", "-t", str(seconds))) == BUSY.decode():
            if time.monotonic() > end:
                daemon.ask("-a")
                raise Refused("the daemon did not come to an end with it; it was called off")
            time.sleep(PAUSE_SECONDS)
    if told != "OK":
        raise Refused(f"not changed, and {what.now.kind} goes on: {told}")
    now = running.look(what.now.socket)
    if now.kind != what.kind:
        raise Refused(
            f"{what.now.kind} said that all went well, but {now.who} runs now; look into its log"
        )
    version = f" {now.version}" if now.version else ""
    return f"Done: {now.kind}{version} serves now, process {now.pid}."


def _remedy(now: str, then: str) -> str:
    """The command that makes the next boot start what serves now, where there is one."""
    if now == "pyxsd":
        return "; `pyxsd-setup select` changes that"
    return "; `pyxsd-setup deselect` changes that" if then == "pyxsd" else ""


def left(what: Plan, then: NextBoot) -> list[str]:
    """What stays as it was, in lines."""
    lines = []
    if then.kind != what.kind and not then.fault:
        lines.append(f"The next boot starts {then.kind} still{_remedy(what.kind, then.kind)}.")
    if what.now.kind == "oxenstored":
        lines.append(f"{os.path.dirname(what.now.socket)}/db, oxenstored's state, stays.")
    return lines


class Conversation:
    """CONTROL live-update over one connection; use as a context manager."""

    def __init__(self, path: str, seconds: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._socket.connect(path)

    def ask(self, *words: str) -> str:
        """The answer without its NULs; Refused where there is none."""
        payload = b"".join(os.fsencode(word) + b"\0" for word in ("live-update", *words))
        try:
            self._socket.sendall(_HEADER.pack(CONTROL, 0, 0, len(payload)) + payload)
            kind, _, _, length = _HEADER.unpack(self._take(_HEADER.size))
            text = self._take(length).strip(b"\0").decode("utf-8", "replace")
        except (OSError, EOFError) as error:
            raise Refused(
                "the daemon has not answered: "
                f"{str(error) or 'it has closed the connection'}; look whether it runs, "
                "with `pyxsd-setup status`, and into its log"
            ) from error
        return text if kind == CONTROL else f"error {text}"

    def _take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._socket.recv(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _must_answer(now: Running) -> None:
    if now.state != running.LIVE:
        raise Refused(
            "nothing to do: "
            + (
                f"{now.who} does not answer on {now.socket}"
                if now.pid
                else f"no xenstored answers on {now.socket}"
            )
        )


def _checked(program: str) -> str:
    if not program.startswith("/") or not os.access(program, os.X_OK):
        raise Refused(f"{program} is missing or cannot be executed; --program FILE names another")
    return program
