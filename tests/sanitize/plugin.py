# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pytest plugin for runs under AddressSanitizer: looks for leaks at the end.

The check runs while the interpreter is still whole, so that what CPython never frees is still
reachable.  Then the process ends at once, with pytest's status; who started it reads the report.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator

import pytest

MARK = "looked for leaks:"

#: Modules whose own allocations are not ours; the interpreter loses a few blocks in every run.
#: Only who called malloc counts: all of our stacks have the interpreter further down.
FOREIGN = re.compile(r"/(?:lib)?python3[^/]*\+0x|/libffi\.|/libpython3")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[None]:
    """Ends the process with pytest's status after the check."""
    status = yield
    gc.collect()
    sys.stdout.flush()
    leaks = ctypes.CDLL(None).__lsan_do_recoverable_leak_check()
    print(MARK, leaks, flush=True)
    os._exit(int(status or 0))


def leaks(output: str) -> list[str]:
    """The leaks in a run's output that are not the interpreter's; each with its stack."""
    found = []
    for block in output.split("\n\n"):
        if "irect leak of" in block:
            frames = [line for line in block.splitlines() if re.match(r" +#\d", line)]
            if len(frames) < 2 or not FOREIGN.search(frames[1]):
                found.append(block)
    return found
