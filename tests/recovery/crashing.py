# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd that can be made to crash, in every build: `python -m tests.recovery.crashing` with its
arguments.  CONTROL has the command of tests.recovery.keep.  Of the environment:

    PYXSD_FULL_BYTES   how much journal there is between two images
    PYXSD_SLOW_COPY    seconds that whoever writes the recording of a crash sleeps first
    PYXSD_STARVES      if there: whoever goes on for another process has no memory for the rest of
                       what was under way
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from pyxsd import cli, control
from pyxsd.recovery import again, begin, crash
from tests.recovery import keep


def slowly(*arguments: Any) -> Any:
    """In the place of recovery.crash.record."""
    time.sleep(float(os.environ["PYXSD_SLOW_COPY"]))
    return RECORD(*arguments)


def resumed(making: Any) -> None:
    """In the place of recovery.again.Again._resumed."""
    RESUMED(making)
    making.journal.expendable = False
    making.journal.met(MemoryError())


RECORD = crash.record
RESUMED = again.Again._resumed

if __name__ == "__main__":
    control.COMMANDS[b"crash"] = control.Command(keep.crash, "", True)
    begin.FULL_BYTES = int(os.environ.get("PYXSD_FULL_BYTES", str(begin.FULL_BYTES)))
    if "PYXSD_SLOW_COPY" in os.environ:
        vars(crash)["record"] = slowly
    if "PYXSD_STARVES" in os.environ:
        setattr(again.Again, "_resumed", resumed)  # noqa: B010
    sys.exit(cli.main())
