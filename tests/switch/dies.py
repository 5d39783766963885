# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd with crash recovery, in which somebody is killed at some step of a switch.

    python -m tests.switch.dies STEP WHOM MARKER [option]...

STEP: a key of STEPS; behind it WHOM dies, `itself` (the process that serves) or `keeper`.  One
process does it, which makes the file MARKER.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from pyxsd import cli
from pyxsd.daemon import Daemon
from pyxsd.domains import Domains
from pyxsd.keeper.report import Report
from pyxsd.keeper.ward import Ward
from pyxsd.switch import obstacles
from pyxsd.switch.leaving import Leaving

#: In their order: the method behind which it is.
STEPS: dict[str, tuple[Any, str]] = {
    "chosen": (Ward, "chosen"),
    "waits": (Ward, "leaving"),
    "drained": (obstacles, "serve_what_was_read"),
    "looked-c": (obstacles, "for_c"),
    "looked-ox": (obstacles, "for_ox"),
    "read-behind": (obstacles, "read_behind_what_is_held"),
    "file": (Leaving, "_write"),
    "descriptors": (Leaving, "_pass_on"),
    "interrupt": (Domains, "leave_interrupt"),
    "log": (Daemon, "before_exec"),
    "said": (Report, "becomes"),
}


def install(step: str, whom: str, marker: str) -> None:
    """Puts the kill in its place."""
    owner, name = STEPS[step]
    real = getattr(owner, name)

    def instead(*arguments: Any) -> Any:
        value = real(*arguments)
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return value
        keeper = os.getppid()
        os.kill(os.getpid() if whom == "itself" else keeper, signal.SIGKILL)
        while os.getppid() == keeper:
            pass
        return value

    setattr(owner, name, instead)


if __name__ == "__main__":
    given = sys.argv[1:4]
    del sys.argv[1:4]
    install(*given)
    sys.exit(cli.main())
