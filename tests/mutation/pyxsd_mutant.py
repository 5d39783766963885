# SPDX-License-Identifier: LGPL-2.1-or-later
"""What mutant.h is for C, for mutated Python modules; it lies beside pyxsd in their copy."""

from __future__ import annotations

import mmap
import os

SIZE = 1 << 18  # as in mutant.h
HEAD = 4  # bytes of the chosen mutant's number

_path = os.environ.get("PYXSD_MUTANTS")
if _path:
    with open(_path, "r+b") as _file:
        page = mmap.mmap(_file.fileno(), SIZE)
else:
    page = mmap.mmap(-1, SIZE)


def pyxsd_is(number: int) -> bool:
    """Notes that the mutant was reached; is it the chosen one?"""
    page[HEAD + number] = 1
    return int.from_bytes(page[:HEAD], "little") == number


def choose(number: int) -> None:
    """Which mutant runs from now on, in all processes; 0: none."""
    page[:HEAD] = number.to_bytes(HEAD, "little")


def take_reached() -> list[int]:
    """The mutants that were reached since the last call."""
    found = []
    at = page.find(b"\1", HEAD)
    while at >= 0:
        found.append(at - HEAD)
        at = page.find(b"\1", at + 1)
    page[HEAD:] = bytes(SIZE - HEAD)
    return found
