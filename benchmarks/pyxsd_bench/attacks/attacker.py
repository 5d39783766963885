# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m pyxsd_bench.attacks.attacker JSON`: the hostile guests of one attack, in one process.

The argument: {"attack": name, "socket": path, "host": directory, "library": path, "guests": how
many domains are introduced, "teams": how many teams shall attack, "set_up_s": how long their set-up
may take, "pid": the daemon's process, "memory": the bytes after which no further team is set up,
"pin": CPU or -1}.  Lines of standard input say what comes next; each is answered with one
line of JSON, {"error": text} where something failed:

    (start)   {"guests": n}       the domains are introduced
    set-up    {"teams": n}        so many teams are ready
    run       {}                  the attack goes on
    stop      {"requests": n, "steps": n, "cpu_s": the attackers' own CPU time}
    leave     {}                  the domains are gone
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any, Callable

from ..load import LoadError
from ..proc import resident
from .stage import Stage
from .table import by_name


def say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def asked() -> bool:
    """Whether there is a line on standard input, or its end."""
    return bool(select.select([0], [], [], 0.0)[0])


class Attackers:
    """Carries out the lines of standard input."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.set_up_s = float(options["set_up_s"])
        self.pid = int(options["pid"])
        self.memory = int(options["memory"])
        self.stage = Stage(
            by_name(options["attack"]),
            options["socket"],
            options["host"],
            options["library"],
            options["guests"],
            options["teams"],
        )

    def set_up(self) -> dict[str, Any]:
        end = time.monotonic() + self.set_up_s

        def enough() -> bool:
            return time.monotonic() > end or resident(self.pid) > self.memory

        return {"teams": self.stage.set_up(enough)}

    def run(self) -> dict[str, Any]:
        self.stage.start()
        say({})
        before = time.process_time()
        score = self.stage.run(asked)
        spent = time.process_time() - before
        sys.stdin.readline()  # "stop"
        return {"requests": score.requests, "steps": score.steps, "cpu_s": spent}

    def leave(self) -> dict[str, Any]:
        self.stage.leave()
        return {}


def guarded(action: Callable[[], dict[str, Any]]) -> bool:
    """Answers with what the action found or how it failed; False where it failed."""
    try:
        say(action())
    except (LoadError, OSError, ValueError) as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return False
    return True


def main() -> int:
    options = json.loads(sys.argv[1])
    if options["pin"] >= 0:
        os.sched_setaffinity(0, [options["pin"]])
    made: list[Attackers] = []

    def begin() -> dict[str, Any]:
        made.append(Attackers(options))
        return {"guests": len(made[0].stage.domids)}

    if not guarded(begin):
        return 1
    actions = {"set-up": made[0].set_up, "run": made[0].run, "leave": made[0].leave}
    for line in iter(sys.stdin.readline, ""):
        if not guarded(actions[line.strip()]):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
