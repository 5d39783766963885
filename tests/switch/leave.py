# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leaves a recorded state behind for a program, as the xenstored did that wrote it: binds ports and
moves descriptors to the numbers that the file has, then becomes the program.

    leave.py PLAN, which is JSON:
        ports: [[domid, remote port, wanted local port], ...]   virq: its local port or 0
        evtchn: the wanted descriptor, -1: none   descriptors: [[ours, wanted], ...]
        command: [...]

Runs with the loader's path of the stand-in.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

HIGH = 200  # descriptors are moved out of the way first
NO_CLOEXEC = 1
VIRQ_DOM_EXC = 3


def bind(plan: Any) -> int:
    """All ports at their numbers; the descriptor of the device."""
    lib = ctypes.CDLL("libxenevtchn.so.1")
    lib.xenevtchn_open.restype = ctypes.c_void_p
    lib.xenevtchn_open.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    handle = ctypes.c_void_p(lib.xenevtchn_open(None, NO_CLOEXEC))
    wanted = {local: (domid, remote) for domid, remote, local in plan["ports"]}
    if plan["virq"]:
        wanted[plan["virq"]] = (-1, 0)
    spare = []
    while wanted:
        port = spare_port = lib.xenevtchn_bind_unbound_port(handle, 0)
        assert port > 0, port
        if port not in wanted:
            spare.append(spare_port)
            continue
        assert lib.xenevtchn_unbind(handle, port) == 0
        domid, remote = wanted.pop(port)
        got = (
            lib.xenevtchn_bind_virq(handle, VIRQ_DOM_EXC)
            if domid < 0
            else lib.xenevtchn_bind_interdomain(handle, domid, remote)
        )
        assert got == port, (domid, remote, got, port)
    for port in spare:
        assert lib.xenevtchn_unbind(handle, port) == 0
    return int(lib.xenevtchn_fd(handle))


def main() -> None:
    """See above."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    moves = list(plan["descriptors"])
    if plan["evtchn"] >= 0:
        moves.append([bind(plan), plan["evtchn"]])
    high = [(fcntl.fcntl(ours, fcntl.F_DUPFD, HIGH), wanted) for ours, wanted in moves]
    os.closerange(3, HIGH)
    for ours, wanted in high:
        os.dup2(ours, wanted, inheritable=True)
        os.close(ours)
    os.execv(plan["command"][0], plan["command"])


if __name__ == "__main__":
    main()
