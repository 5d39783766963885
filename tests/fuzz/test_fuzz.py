# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bounded run of the coverage-guided fuzzer; PYXSD_FUZZ_SECONDS (60) of it.

For more than 1,500 the time limit of a test has to be longer, too: pytest --time-limit 4000.

What it finds goes into cases/ (see test_cases.py); python -m tests.fuzz.build tells how to run it
without an end.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.fuzz import build
from tests.fuzz.test_cases import CASES, content, corpus

SECONDS = int(os.environ.get("PYXSD_FUZZ_SECONDS", "60"))


@pytest.fixture(scope="module")
def target() -> Path:
    """The fuzzer's program."""
    reason = build.needs()
    if reason:
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return build.build()


def start(target: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the fuzzer to its end."""
    return subprocess.run(
        [str(target), *arguments],
        env={**build.environment(target), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def test_fuzz(target: Path, tmp_path: Path) -> None:
    """Nothing is found."""
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, program in enumerate([*corpus(), *map(content, CASES)]):
        (seeds / f"{number}").write_bytes(program)
    done = start(
        target,
        f"-max_total_time={SECONDS}",
        f"-max_len={build.MAX_LEN}",
        "-timeout=60",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={tmp_path}/",
        "-print_final_stats=1",
        str(seeds),
    )
    lines = [line for line in done.stdout.splitlines() if "python3" not in line]
    found = [
        f"{path.name}: {path.read_bytes().hex(' ')}"
        for path in tmp_path.iterdir()
        if path.is_file()
    ]
    assert done.returncode == 0 and not found, "\n".join([*found, *lines[-60:]])
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    edges = re.findall(r"cov: (\d+)", done.stdout)
    assert runs and int(runs[1]) > len(corpus()), done.stdout[-2000:]
    # Far more than the harness alone: the modules are instrumented.
    assert edges and int(edges[-1]) > 2000, edges[-1:]


def test_a_find_stops_it(target: Path, tmp_path: Path) -> None:
    """An exception of run() ends the fuzzer with its input kept."""
    fake = tmp_path / "tests" / "fuzz"
    fake.mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    (fake / "__init__.py").touch()
    (fake / "machine.py").write_text("def run(data):\n    assert data[:2] != b'no', 'planted'\n")
    (tmp_path / "seed").write_bytes(b"no such")
    done = start(
        target, f"-artifact_prefix={tmp_path}/", str(tmp_path / "seed"), PYTHONPATH=str(tmp_path)
    )
    assert done.returncode != 0
    assert "planted" in done.stdout and "FOUND" in done.stdout, done.stdout[-2000:]
