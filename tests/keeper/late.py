# SPDX-License-Identifier: LGPL-2.1-or-later
"""A new program of a live update that kills somebody at some point, and goes on if it can.

    python -m tests.keeper.late POINT WHOM MARKER [option]...

POINT: `built` (before it says so), `go` (told to serve), `gone-on` (the host is its), `serving`
(its death would be made up for), `said` (it has said `taken`).
WHOM: `old` (the daemon that serves), `old-keeper`, `itself`, `keeper` (its own).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyxsd import cli
from pyxsd.daemon import Daemon
from pyxsd.keeper.ward import Ward
from pyxsd.update import arrival


def parent(pid: int) -> int:
    """Who has made it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


#: The process to be killed.
WHOM: dict[str, Callable[[], int]] = {
    "itself": os.getpid,
    "keeper": os.getppid,
    "old": lambda: parent(os.getppid()),
    "old-keeper": lambda: parent(parent(os.getppid())),
}
#: Where: the method, and is it before that?
POINTS: dict[str, tuple[Any, str, bool]] = {
    "built": (arrival, "agreed", True),
    "go": (arrival, "agreed", False),
    "gone-on": (Daemon, "go_on", False),
    "serving": (Ward, "begin", False),
    "said": (Ward, "say_taken", False),
}


def install(point: str, whom: str, marker: str) -> None:
    """Puts the kill in its place.  One process does it, which makes the file `marker`."""
    owner, name, is_before = POINTS[point]
    real = getattr(owner, name)

    def kill() -> None:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        pid = WHOM[whom]()
        os.kill(pid, signal.SIGKILL)
        while whom == "keeper" and os.getppid() == pid:
            pass

    def instead(*arguments: Any) -> Any:
        if is_before:
            kill()
        value = real(*arguments)
        if not is_before:
            kill()
        return value

    setattr(owner, name, instead)


if __name__ == "__main__":
    given = sys.argv[1:4]
    del sys.argv[1:4]
    if "--help" not in sys.argv:
        install(*given)
    sys.exit(cli.main())
