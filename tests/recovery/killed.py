# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon under tests.recovery.keep, which makes it anew where it is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.clients.daemon import Daemon, wait_for

PROGRAM = ("-m", "tests.recovery.keep")


@contextmanager
def killed(
    root: Path,
    env: dict[str, str] | None = None,
    settings: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Daemon]:
    """One that answers, and ends well.  env: more of what tests.recovery.keep wants to know; the
    process that serves stands in the file `serving`.  prefix: of the command line."""
    daemon = Daemon(
        settings,
        root=root,
        prefix=prefix,
        program=(sys.executable, *PROGRAM),
        wait=False,
        env={"PYXSD_KEEP_PID": str(root / "serving"), **(env or {})},
    )
    try:
        wait_for(daemon.answers, "nobody answers")
        yield daemon
    finally:
        daemon.process.terminate()
        status = daemon.process.wait(30)
    assert status == 0, daemon.output()
