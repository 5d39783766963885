# SPDX-License-Identifier: LGPL-2.1-or-later
"""A request for which memory runs out changes nothing, or all that it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.daemon import PROJECT
from tests.unit import events_without_memory
from tests.unit.without_memory import CASES


@pytest.mark.parametrize("case", CASES)
def test_wherever_memory_runs_out_the_counts_stay_right(no_memory: Path, case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.without_memory", case],
        cwd=PROJECT,
        env={**os.environ, "LD_PRELOAD": str(no_memory)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert int(done.stdout) >= 3


@pytest.mark.parametrize("case", events_without_memory.CASES)
def test_wherever_memory_runs_out_everybody_is_served_in_the_end(
    no_memory: Path, case: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.events_without_memory", case],
        cwd=PROJECT,
        env={**os.environ, "LD_PRELOAD": str(no_memory), "PYTHONMALLOC": "malloc"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert int(done.stdout) >= 5
