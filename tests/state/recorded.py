# SPDX-License-Identifier: LGPL-2.1-or-later
"""States that real daemons left for their successors at a live update.

`data/NAME.bin` was written by C xenstored (c417: 4.17.7 of Debian 12; chead: built from xen.git
c447b7308b, after 4.22.0), `data/NAME.db` by oxenstored (ox417: 4.17.7 of Debian 12).
`data/NAME.json` is what was asked of the daemon before the update and of its successor after it.
The daemons ran on the stand-in for Xen's libraries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
FILES = sorted([*DATA.glob("*.bin"), *DATA.glob("*.db")])
STREAMS = [path for path in FILES if path.suffix == ".bin"]
DUMPS = [path for path in FILES if path.suffix == ".db"]

# C xenstored after 4.22 leaves the depth of a watch out.
WITHOUT_DEPTH = {"chead-depth", "chead-depth2", "chead-v1"}


def meaning(path: Path) -> dict[str, Any]:
    """What a recorded file should mean."""
    loaded: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return loaded
