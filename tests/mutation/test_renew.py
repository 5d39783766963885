# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keys of mutants follow sources that were laid out anew."""

from __future__ import annotations

from tests.mutation import python_source
from tests.mutation.renew import renewed

BEFORE = """
def f(a, b):
    if a < b and \\
            b > 7:
        g("x", a,
          b)
    return a + 1
"""
AFTER = """
def f(a, b):
    if (
        a < b
        and b > 7
    ):
        g(
            "x",
            a,
            b,
        )
    return a + 1
"""


def test_another_layout() -> None:
    """Each mutant is found again, whatever brackets and commas were added."""
    old = python_source.mutate("a.py", BEFORE, 1).mutants
    new = python_source.mutate("a.py", AFTER, 1).mutants
    pairs = renewed(old, new)
    assert len(pairs) == len(old) == len(new) > 5
    assert [pairs[mutant.key] for mutant in old] == [mutant.key for mutant in new]
    assert any(key != pairs[key] for key in pairs)


def test_another_line() -> None:
    """What was changed otherwise is not taken for the same; what follows is found."""
    old = python_source.mutate("a.py", BEFORE, 1).mutants
    new = python_source.mutate("a.py", BEFORE.replace("> 7", "> 8"), 1).mutants
    pairs = renewed(old, new)
    assert 0 < len(pairs) < len(old)
    assert all(key == found for key, found in pairs.items())
