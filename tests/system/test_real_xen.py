# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real Xen with dom0 and guests, under QEMU, with the xenstored of choice.

Environment: SYSTEM_DAEMON (pyxsd, oxenstored, cxenstored; default pyxsd), SYSTEM_SIZE (quick, full:
see README.md; default quick), SYSTEM_WHEEL (a wheel of pyxsd) or SYSTEM_DEB (its package for
Debian 12; default: the pyxsd that can be imported), SYSTEM_LOGS (where the logs go; default:
pytest's temporary directory).
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
RUNS = session.runs(DAEMON, SIZE)


@pytest.mark.system
@pytest.mark.parametrize("run", RUNS, ids=[f"{r.story}-{r.daemon}-{r.start}" for r in RUNS])
def test_dom0_and_guests(
    run: session.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every check of dom0 and of the guests gives what the plan says."""
    assert DAEMON in session.DAEMONS and SIZE in session.SIZES, (DAEMON, SIZE)
    logs = os.environ.get("SYSTEM_LOGS")
    prefix = f"{run.story}-{run.daemon}-{run.start}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=logs)) if logs else tmp_path
    try:
        done = session.hold(folder, run, session.package_given())
    except MissingError as error:
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(f"the system test cannot run: {error}")
        pytest.skip(f"the system test cannot run: {error}")
    with capsys.disabled():
        print(f"\n{done.summary}")
    if done.wrong:
        wrong = "\n".join(done.wrong)
        pytest.fail(f"{done.summary}\n{wrong}\nlogs: {folder}\n{done.tail()}", pytrace=False)
