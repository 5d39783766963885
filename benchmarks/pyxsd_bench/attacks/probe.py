# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m pyxsd_bench.attacks.probe JSON`: a victim that reads one node, one READ at a time.

A process of its own with real-time priority, so that a sample is not longer because the attackers
keep the CPU.  It reads, waits for `PACE_S`, and reads again: with the wait, a second in which the
daemon hangs does not vanish behind a million quick reads of the seconds before.

The argument: {"socket": path} or {"host": directory, "library": path, "domid": n, "port": n},
"path", "value", "echo" (the peer only echoes), "pin" (CPU or -1).  Each line of standard input ends
a phase and is answered with one line of JSON: count, p50_us, p99_us, max_us, mean_us, waiting_us
(how long the READ that is still unanswered has been waiting; 0: there is none) and hist.
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys
from typing import Any

from ..load import Load
from ..measure import latencies
from ..program import Program

PACE_S = 0.0005
SLICE_S = 0.05
PRIORITY = 20


def real_time(cpu: int) -> bool:
    """Binds this process to one CPU (-1: to none) with real-time priority; False: not permitted."""
    if cpu >= 0:
        os.sched_setaffinity(0, [cpu])
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        return False
    return True


class Victim:
    """One connection and its READ."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.load = Load(stall_s=1e6, echo=options["echo"])
        reading = Program().read(options["path"], options["value"].encode())
        self.program = self.load.program(reading)
        if "socket" in options:
            self.conn = self.load.connect(options["socket"], self.program, loops=1)
        else:
            self.load.rings(options["library"], options["host"])
            self.conn = self.load.ring(options["domid"], options["port"], self.program, loops=1)
        self.sent = self.load.now()
        self.waiting = True

    def turn(self) -> None:
        """One READ, or one slice of waiting for its reply."""
        if not self.waiting:
            self.load.restart(self.conn, self.program)
            self.waiting, self.sent = True, self.load.now()
        self.waiting = self.load.run(SLICE_S)

    def phase(self) -> dict[str, Any]:
        """The figures since the last call."""
        found = self.load.histogram(0)
        self.load.reset()
        waited = (self.load.now() - self.sent) / 1e3 if self.waiting else 0.0
        figures = {"count": found.total, "waiting_us": waited, **latencies(found)}
        figures["mean_us"] = found.sum_ns / max(found.total, 1) / 1e3
        return figures


def main() -> int:
    options = json.loads(sys.argv[1])
    victim = Victim(options)
    real = real_time(options["pin"])
    while victim.waiting:
        victim.turn()
    victim.phase()
    gc.freeze()
    gc.disable()
    print(json.dumps({"real_time": real}), flush=True)
    while True:
        ready = select.select([0], [], [], 0.0 if victim.waiting else PACE_S)[0]
        if ready:
            if not os.read(0, 4096):
                return 0
            print(json.dumps(victim.phase()), flush=True)
        victim.turn()


if __name__ == "__main__":
    sys.exit(main())
