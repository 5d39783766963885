# SPDX-License-Identifier: LGPL-2.1-or-later
"""A request for which memory runs out changes nothing, or all that it should."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.clients.daemon import PROJECT
from tests.unit import events_without_memory
from tests.unit.without_memory import CASES


@pytest.fixture(scope="session")
def no_memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of no_memory.c, to be loaded before all others."""
    if "LD_PRELOAD" in os.environ:
        pytest.skip("another malloc is loaded already")
    path = tmp_path_factory.mktemp("no_memory") / "no_memory.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    source = str(Path(__file__).with_name("no_memory.c"))
    try:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), source], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return path


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
