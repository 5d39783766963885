# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tracebacks for the log, made with code that is in memory already.

Python loads a part of its traceback printer when it is first needed; 3.11 loads `ast`, to mark the
part of a line that failed.  A daemon runs for months, and Python's files may be upgraded or
removed meanwhile: then that loading fails in the very moment when an error is to be told.
"""

from __future__ import annotations

import traceback


def load() -> None:
    """Loads all that a traceback needs, by formatting one; to be called soon after the start."""
    empty: list[int] = []
    try:
        empty[0] = len(empty) // len(empty) + 1
    except ZeroDivisionError:
        traceback.format_exc()
