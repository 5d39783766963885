# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real Xen with dom0 and guests, under QEMU, with the xenstored of choice.

Environment: SYSTEM_DAEMON (pyxsd, oxenstored, cxenstored; default pyxsd), SYSTEM_SIZE (quick:
one machine with one guest; full: two machines, started in both ways, with all the lives of
guests; default quick), SYSTEM_WHEEL (a wheel of pyxsd) or SYSTEM_DEB (its package for Debian 12;
default: the pyxsd that can be imported), SYSTEM_LOGS (where the logs go; default: pytest's
temporary directory).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from realxen import session
from realxen.packages import MissingError

DAEMON = os.environ.get("SYSTEM_DAEMON", "pyxsd")
SIZE = os.environ.get("SYSTEM_SIZE", "quick")
RUNS = session.STARTS if SIZE == "full" else session.STARTS[:1]


@pytest.mark.system
@pytest.mark.parametrize("start", RUNS)
def test_dom0_and_guests(start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every check of dom0 and of the guests gives what the plan says."""
    assert DAEMON in session.DAEMONS and SIZE in session.SIZES, (DAEMON, SIZE)
    logs = os.environ.get("SYSTEM_LOGS")
    folder = Path(tempfile.mkdtemp(prefix=f"{DAEMON}-{start}-", dir=logs)) if logs else tmp_path
    try:
        done = session.hold(folder, DAEMON, start, SIZE, session.package_given())
    except MissingError as error:
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(f"the system test cannot run: {error}")
        pytest.skip(f"the system test cannot run: {error}")
    with capsys.disabled():
        print(f"\n{done.summary}")
    if done.wrong:
        wrong = "\n".join(done.wrong)
        pytest.fail(f"{done.summary}\n{wrong}\nlogs: {folder}\n{done.tail()}", pytrace=False)
