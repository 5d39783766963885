# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the server counts "since the start" goes on behind a live update: it is in the image."""

from __future__ import annotations

import re
from pathlib import Path

PYXSD = Path(__file__).resolve().parents[2] / "pyxsd"
#: Name, text and last attribute of a property of Server.
PROPERTY = re.compile(
    r'    def (\w+)\(self\):\n        """([^"]*)"""\n        return \S.*\.(\w+)\n'
)


def test_counters_are_in_the_image() -> None:
    """Each that a property of Server shows, by its name in the part that counts."""
    counters = {
        name: attribute
        for name, text, attribute in PROPERTY.findall((PYXSD / "_core.pyx").read_text())
        if "since the start" in text
    }
    assert {"events", "transactions_failed"} <= counters.keys()
    passage = (PYXSD / "state" / "passage.pyx").read_text()
    saved = set(re.findall(r"codec\.u64\(&[\w.]+\.(\w+)\)", passage))
    lost = {name for name, attribute in counters.items() if attribute not in saved}
    assert not lost, "CONTRIBUTING.md, A counter"
