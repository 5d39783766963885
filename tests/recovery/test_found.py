# SPDX-License-Identifier: LGPL-2.1-or-later
"""The descriptors that are found by who goes on."""

from __future__ import annotations

import os
import subprocess
import sys

from pyxsd.recovery import found


def test_those_that_are_open() -> None:
    """Also the folder of a process that has died while it listed its own; not that of the listing
    which finds them."""
    before = found.opened()
    assert before == found.opened() >= {0, 1, 2}
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    reading, writing = os.pipe()
    folder = os.open(f"/proc/{process.pid}/fd", os.O_RDONLY)
    process.communicate(b"\n")
    try:
        assert found.opened() - before == {reading, writing, folder}
    finally:
        found.close({reading, writing, folder})
    assert found.opened() == before
