# SPDX-License-Identifier: LGPL-2.1-or-later
"""A library that refuses memory, for programs of tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.clients.daemon import PROJECT


@pytest.fixture(scope="session")
def no_memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of no_memory.c, to be loaded before all others."""
    if "LD_PRELOAD" in os.environ:
        pytest.skip("another malloc is loaded already")
    path = tmp_path_factory.mktemp("no_memory") / "no_memory.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    source = str(Path(__file__).parent / "unit" / "no_memory.c")
    try:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), source], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return path


def places(library: Path, module: str, case: str, **env: str) -> list[int]:
    """Runs a program of tests without memory; the numbers that it writes."""
    done = subprocess.run(
        [sys.executable, "-m", module, case],
        cwd=PROJECT,
        env={**os.environ, "LD_PRELOAD": str(library), **env},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]
