# SPDX-License-Identifier: LGPL-2.1-or-later
"""A source with all its mutants in it, each behind a number ("mutant schemata").

To compile every mutant by itself would take hours.  Here a module is compiled once, and

    if used > limit:

becomes

    if ((used >= limit) if pyxsd_is(7) else (used > limit)):

and a run of the tests in which 7 is chosen tries that mutant.  The function pyxsd_is also notes
that it was asked: a run in which no mutant is chosen shows which tests reach which mutants.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container
from typing import NamedTuple

from tests.mutation.operators import Change


class Mutant(NamedTuple):
    """One small change to a source.

    `key` names it by what stands there and not by its line number, so that a result stays valid
    while the code around it changes: file, operator, the statement before and after the change,
    and a number where the same statement stands in the file several times.
    """

    path: str
    line: int
    operator: str
    before: str
    after: str
    key: str


class Mutated(NamedTuple):
    """A source's text with mutants numbered from `first`, and the mutants in that order.

    `origin` gives for each line of the text the line of the original it comes from: compilers
    complain of the former.
    """

    text: str
    mutants: list[Mutant]
    origin: list[int]


class Numbers:
    """Hands out the numbers of the mutants of one source, or of those that are wanted."""

    def __init__(self, path: str, source: str, first: int, wanted: Container[str] | None) -> None:
        self.path = path
        self.source = source
        self.next = first
        self.wanted = wanted
        self.mutants: list[Mutant] = []
        self.seen: Counter[str] = Counter()

    def add(self, statement: tuple[int, int], change: Change) -> int:
        """The number of a change in the statement that lies there; 0: leave it out."""
        begin, end = statement
        before = " ".join(self.source[begin:end].split())
        after = " ".join(
            (
                self.source[begin : change.begin] + change.text + self.source[change.end : end]
            ).split()
        )
        if len(before) > 160:  # a table: the line alone
            before = around(
                self.source, change.begin, change.end, self.source[change.begin : change.end]
            )
            after = around(self.source, change.begin, change.end, change.text)
        name = f"{self.path}: {change.operator}: {before} -> {after}"
        self.seen[name] += 1
        key = name if self.seen[name] == 1 else f"{name} #{self.seen[name]}"
        if self.wanted is not None and key not in self.wanted:
            return 0
        line = self.source.count("\n", 0, begin) + 1
        self.mutants.append(Mutant(self.path, line, change.operator, before, after, key))
        self.next += 1
        return self.next - 1


def around(source: str, begin: int, end: int, text: str) -> str:
    """The line, or lines, of a change with `text` in the place of what lies there."""
    first = source.rfind("\n", 0, begin) + 1
    last = source.find("\n", end)
    return " ".join((source[first:begin] + text + source[end:last]).split())


def chosen(mutants: list[Mutant], count: int, seed: str) -> list[Mutant]:
    """So many of them.  The same code gives the same choice; new code changes little of it."""

    def place(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.key}".encode()).digest()

    return sorted(sorted(mutants, key=place)[:count], key=lambda m: (m.path, m.line))
