# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a command with a time limit, and leaves nothing of it behind.

A mutant may hang, and daemons that its tests started may hang with it or have left their process
group.  So this process becomes the one that orphans of its descendants are given to
(PR_SET_CHILD_SUBREAPER, see prctl(2)); after each run whatever is still a child is killed, until
there is none.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36
EXPIRED = 124  # exit status, as of timeout(1)


class Done(NamedTuple):
    """How a command ended: its exit status, or None where the time limit ended it; its output."""

    status: int | None
    output: str


def adopt_orphans() -> None:
    """Makes this process the new parent of orphans among its descendants; OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    """The process ids of this process's children, zombies included."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{thread}/children").read_text()
        except FileNotFoundError:
            continue
        found += [int(pid) for pid in text.split()]
    return found


def kill_children() -> None:
    """Kills and reaps until there is no child left."""
    while pids := children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float, log: Path
) -> Done:
    """Runs a command for so long at most; its output goes through the file `log`.

    A process of its own stands between, to which the orphans are given: this file as a program.
    """
    outer = [sys.executable, str(Path(__file__).resolve()), str(seconds), *command]
    with open(log, "wb") as out:
        done = subprocess.run(
            outer,
            cwd=cwd,
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    return Done(
        None if done.returncode == EXPIRED else done.returncode, log.read_text(errors="replace")
    )


def main(seconds: str, *command: str) -> int:
    """Runs a command for so long at most, kills what it left; its status, or EXPIRED."""
    adopt_orphans()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(float(seconds))
    except subprocess.TimeoutExpired:
        status = EXPIRED
        process.kill()
        process.wait()
    kill_children()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
