# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tracebacks for the log, made with code that is in memory already.

Python loads a part of its traceback printer when it is first needed.  A daemon runs for months,
and Python's files may be upgraded or removed meanwhile: then that loading fails in the very moment
when an error is to be told.

One module it does without: since 3.11 Python takes `ast` to mark the operator within the part of a
line that failed, where it can have it.  To load that takes 2 ms of each start.
"""

from __future__ import annotations

import sys
import traceback


def load() -> None:
    """Loads all that a traceback needs, by formatting one, and lets nobody load `ast` any more; to
    be called soon after the start."""
    sys.modules.setdefault("ast", None)  # type: ignore[arg-type]  # the import system's "no"
    empty: list[int] = []
    try:
        empty[0] = len(empty) // len(empty) + 1
    except ZeroDivisionError:
        traceback.format_exc()
