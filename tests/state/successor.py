# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program that a real daemon is told to become in its live update.

It reads the state that the old daemon left, writes it anew, and becomes the same daemon again with
the arguments that it got, so that the daemon goes on with what this project has written.

    PROGRAM FILE copy of the old file: set in the environment, as SUCCESSOR_PROGRAM and so on
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyxsd.state import carry, show
from pyxsd.state.database import write_db
from pyxsd.state.stream_writer import write_stream


def main() -> None:
    """See above."""
    # oxenstored first asks whether it could start; the answer is the exit status 0.
    if "--help" not in sys.argv:
        path = Path(os.environ["SUCCESSOR_STATE"])
        data = path.read_bytes()
        Path(os.environ["SUCCESSOR_COPY"]).write_bytes(data)
        state = show.read_any(data)
        if state.faults:
            raise SystemExit(state.faults[0])
        if state.kind == "stream":
            fit, losses = carry.for_stream(state)
            written = write_stream(fit)
        else:
            fit, losses = carry.for_db(state)
            written = write_db(fit)
        if losses:
            raise SystemExit(losses[0])
        path.write_bytes(written)
        program = os.environ["SUCCESSOR_PROGRAM"]
        os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
