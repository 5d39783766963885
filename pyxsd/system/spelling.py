# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which known name a misspelt one was meant to be."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Comparing takes time that grows with the square of the length; no known name is longer.
MAX_LENGTH = 64


def meant(word: str, known: Iterable[str]) -> str:
    """The name most like `word`, or "" where none is like it.

    Capitals, and underscores in place of dashes, count as no difference: for `Quota_MaxWatch`
    it is `quota-maxwatch`.
    """
    if len(word) > MAX_LENGTH:
        return ""
    import difflib  # takes 3 ms, and is not needed where everything is spelt right

    plain = word.lower().replace("_", "-")
    return next(iter(difflib.get_close_matches(plain, known, n=1, cutoff=0.7)), "")


def hint(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `, did you mean NAME?` or nothing."""
    name = meant(word, known)
    return f", did you mean {name}?" if name else ""
