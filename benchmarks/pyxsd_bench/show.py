# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables on standard output: drawn for a terminal, as Markdown where it is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

WIDE = 10000  # columns of an output that is no terminal: nothing is wrapped or cut


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """The first `left` columns stand to the left, the others to the right."""
    console = Console(highlight=False)
    drawn = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN)
    for number, title in enumerate(head):
        justify = "left" if number < left else "right"
        drawn.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*map(_plain, row))
    if console.is_terminal:
        console.print(drawn)
        return
    console.width = WIDE
    with console.capture() as written:
        console.print(drawn)
    print("\n".join(line for line in written.get().splitlines() if line.strip()))


def _plain(text: str) -> str:
    """Square brackets are no markup here."""
    return text.replace("[", r"\[")
