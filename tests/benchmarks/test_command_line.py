# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd-bench's command line: wrong numbers and missing files are told by name, in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pyxsd_bench import cli

# words, the end of what is said
NUMBERS = [
    ("run --seconds nan", "argument --seconds: 'nan' is no number of at least 0"),
    ("run --seconds -1", "argument --seconds: '-1' is no number of at least 0"),
    ("run --scale inf", "argument --scale: 'inf' is no number of at least 0"),
    ("run --within x", "argument --within: 'x' is no number of at least 0"),
    ("load --socket /s --seconds nan", "argument --seconds: 'nan' is no number of at least 0"),
    ("load --socket /s --conns 0", "argument --conns: '0' is no whole number of at least 1"),
    ("load --socket /s --window 1.5", "argument --window: '1.5' is no whole number of at least 1"),
    ("compare a b --level nan", "argument --level: 'nan' is no number of at least 0"),
]


@pytest.mark.parametrize(("words", "said"), NUMBERS)
def test_numbers(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {said}\n")


MISSING = [
    "load --socket {}",
    "run --smoke --socket {}",
    "run --smoke -o {}/result.json floor",
    "report {}",
    "compare {}",
]


@pytest.mark.parametrize("words", MISSING)
def test_a_missing_file_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: object, words: str
) -> None:
    path = f"{tmp_path}/missing"
    assert cli.main(words.format(path).split()) != 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pyxsd-bench: {path}"), line
    assert line.endswith(": No such file or directory"), line


def test_nobody_reads_to_the_end() -> None:
    """As `pyxsd-bench list | head` does: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pyxsd_bench", "list"],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
