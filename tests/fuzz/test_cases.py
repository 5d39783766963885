# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the fuzzer once found, and the programs it reached the most with: all pass, without it.

cases/*.hex: comment lines, then the bytes.  corpus.hex: one program a line.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.machine import run
from tests.fuzz.program import RECORD

HERE = Path(__file__).parent
CASES = sorted((HERE / "cases").glob("*.hex"))
RANDOM = 300


def content(path: Path) -> bytes:
    """The bytes of a case."""
    return bytes.fromhex(
        " ".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    )


def corpus() -> list[bytes]:
    """The programs that are kept."""
    return [
        bytes.fromhex(line)
        for line in (HERE / "corpus.hex").read_text().splitlines()
        if line and not line.startswith("#")
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda path: str(path.stem))
def test_case(case: Path) -> None:
    run(content(case))


def test_corpus() -> None:
    programs = corpus()
    assert programs
    for program in programs:
        run(program)


def test_random_programs() -> None:
    """Seeds are fixed: this finds what broke, not what is new."""
    for seed in range(RANDOM):
        source = random.Random(seed)
        run(source.randbytes(1 + RECORD * source.choice((5, 20, 60, 200))))
