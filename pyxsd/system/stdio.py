# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the program says on stdout and stderr."""

from __future__ import annotations

import os

from pyxsd.system.printable import printable

STDOUT, STDERR = 1, 2


def say(fd: int, text: str) -> None:
    """Write to stdout or stderr, if they take it: a full disk there must not stop a host's boot."""
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody can be told


def tell(text: str) -> None:
    """One line on stderr, or several, for whoever has called the program."""
    say(STDERR, f"pyxsd: {printable(text)}\n")
