# SPDX-License-Identifier: LGPL-2.1-or-later
"""The copy of the project that the mutants are compiled into: build/mutation/tree/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.mutation import c_source, python_source
from tests.mutation.modules import modules
from tests.mutation.pyxsd_mutant import HEAD, SIZE
from tests.mutation.schema import Mutant, Mutated
from tests.sanitize import copies

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
WORK = PROJECT / "build" / "mutation"
TREE = WORK / "tree"
#: Numbers of mutants for each module: another choice in one does not change the others' text.
BLOCK = 1000
#: What Cython and gcc say of a line that does not compile.
COMPLAINT = re.compile(r"^((?:pyxsd|glue)/[\w/]+\.(?:pyx|c)):(\d+):\d+: (?!note)", re.MULTILINE)


def mutate(path: str, first: int, wanted: Iterable[str] | None = None) -> Mutated:
    """A source of the project with its mutants, or with those wanted; path is from the top."""
    source = (PROJECT / path).read_text(encoding="utf-8")
    keys = None if wanted is None else frozenset(wanted)
    language = c_source if path.endswith(".c") else python_source
    return language.mutate(path, source, first, keys)


def complaints(output: str, mutated: dict[str, Mutated]) -> set[tuple[str, int]]:
    """(path, line of the original) of what does not compile."""
    found = set()
    for path, number in COMPLAINT.findall(output):
        if path in mutated:
            origin = mutated[path].origin
            found.add((path, origin[min(int(number), len(origin)) - 1]))
    return found


def build(mutants: Iterable[Mutant]) -> tuple[dict[int, Mutant], list[Mutant]]:
    """Compiles a copy with these mutants: their numbers, and those that do not compile."""
    wanted = {mutant.key: mutant for mutant in mutants}
    broken: list[Mutant] = []
    if len(modules()) * BLOCK > SIZE - HEAD:
        raise ValueError("there are more modules than blocks of numbers: see mutant.h")
    if (TREE / "glue" / "mutant.h").exists() and (TREE / "glue" / "mutant.h").read_bytes() != (
        HERE / "mutant.h"
    ).read_bytes():
        shutil.rmtree(TREE)  # no build notices that it is included
    while True:
        mutated: dict[str, Mutated] = {}
        for i, path in enumerate(modules()):
            if any(mutant.path == path for mutant in wanted.values()):
                mutated[path] = mutate(path, i * BLOCK + 1, wanted)
        TREE.mkdir(parents=True, exist_ok=True)
        texts = {path: result.text for path, result in mutated.items()}
        # To optimise many mutants takes longer than the tests lose without it.
        texts["setup.py"] = (PROJECT / "setup.py").read_text().replace('"-O2"', '"-O0"')
        copies.update(TREE, texts)
        for name, folder in (("mutant.h", "glue"), ("pyxsd_mutant.py", ".")):
            target, content = TREE / folder / name, (HERE / name).read_bytes()
            if not target.exists() or target.read_bytes() != content:
                target.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace", f"-j{os.cpu_count()}"],
            cwd=TREE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "PYXSD_BUILD": "separate"},
        )
        if done.returncode == 0:
            numbers = {
                i * BLOCK + 1 + k: mutant
                for i, path in enumerate(modules())
                if path in mutated
                for k, mutant in enumerate(mutated[path].mutants)
            }
            return numbers, broken
        lines = complaints(done.stdout, mutated)
        bad = [mutant for mutant in wanted.values() if (mutant.path, mutant.line) in lines]
        if not bad:
            raise copies.BuildFailed(f"{TREE}\n{done.stdout[-8000:]}")
        for mutant in bad:
            del wanted[mutant.key]
        broken += bad
