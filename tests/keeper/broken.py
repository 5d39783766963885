# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd with a fault: python -m tests.keeper.broken FAULT ARGUMENT...

does-not-come-back   no process can go on where another one has died
dies-at-start        the daemon is killed before it serves
dies-before-ready    the first one is killed when it serves, and before anybody knows
dies-when-ready      the first one is killed when whoever has called knows
dies-handing-over    the first one is killed in front of the word by which another one may serve
has-one-child        no process can be made but the first one
raises               SIGUSR1 is an exception that ends the process
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

from pyxsd import cli
from pyxsd.daemon import Daemon
from pyxsd.keeper import clone
from pyxsd.keeper.report import Report
from pyxsd.keeper.ward import Ward
from pyxsd.recovery import again
from pyxsd.start import fresh


def fail(*_: Any) -> Any:
    """In the place of recovery.again.build."""
    raise RuntimeError("it cannot be built again")


def die(*_: Any) -> Any:
    """In the place of open_daemon_log."""
    os.kill(os.getpid(), signal.SIGSEGV)


def die_once(owner: Any, name: str, marker: str) -> None:
    """The first one dies behind this method."""
    real = getattr(owner, name)

    def instead(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, instead)


def spawn_once() -> int:
    """In the place of clone.spawn."""
    vars(clone)["spawn"] = refuse
    return int(SPAWN())


def refuse() -> int:
    """The same later."""
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def interrupt(daemon: Any, name: str, rows: Any) -> Any:
    """In the place of Daemon._write."""
    if name == "db.debug":
        raise KeyboardInterrupt
    return WRITE(daemon, name, rows)


SPAWN = clone.spawn
WRITE = Daemon._write

if __name__ == "__main__":
    fault = sys.argv.pop(1)
    marker = os.path.abspath("died")
    if fault == "does-not-come-back":
        vars(again)["build"] = fail
    elif fault == "dies-at-start":
        vars(fresh)["open_daemon_log"] = die
    elif fault == "has-one-child":
        vars(clone)["spawn"] = spawn_once
    elif fault == "raises":
        setattr(Daemon, "_write", interrupt)  # noqa: B010
    elif fault == "dies-before-ready":
        die_once(Ward, "begin", marker)
    elif fault == "dies-when-ready":
        die_once(Report, "ready", marker)
    else:
        die_once(Ward, "handing", marker)
    sys.exit(cli.main())
