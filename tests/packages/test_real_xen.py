# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package in the dom0 of a real Xen under QEMU, by both ways of starting a xenstored."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.packages.conftest import TOP, Built, require

#: What tests/system/run.py ends with where something that it needs is missing.
MISSING = 2


@pytest.mark.full
@pytest.mark.parametrize("start", ["debian", "launch"])
def test_dom0_and_a_guest(start: str, built: Callable[[str], Built]) -> None:
    package = built("bookworm").package("pyxsd")
    done = subprocess.run(
        [
            sys.executable,
            str(TOP / "tests" / "system" / "run.py"),
            "--quick",
            "--start",
            start,
            "--deb",
            str(package),
        ],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode == MISSING:
        require(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-6000:]
    for name in ("setup.select", "start.again", "start.same-daemon", "g1-create.ready"):
        assert f"CHECK {name} ok" in done.stdout
