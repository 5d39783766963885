# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever one guest does at once, the daemon keeps 4 MB of it at most, beside its nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.clients.daemon import PROJECT
from tests.unit.test_memory import mallinfo2

#: Of 4 MB; the rest is for the events of one commit that find no room, see test_odd_use.py.
MOST = 3_600_000


@pytest.mark.skipif(
    mallinfo2 is None or "LD_PRELOAD" in os.environ,
    reason="memory in use is known only with glibc 2.33 or later and its own malloc",
)
@pytest.mark.parametrize(
    ("watches", "replaced", "changes", "request_", "others", "shape"),
    [
        ("tokens", 450, 150, "long-value", 1, "wide"),
        ("tokens", 450, 150, "long-path", 1, "wide"),
        ("tokens", 600, 0, "short", 1, "wide"),
        ("tokens", 450, 150, "perms", 1, "wide"),
        ("tokens", 100, 350, "long-value", 1, "wide"),
        ("tokens", 450, 150, "long-value", 1000, "wide"),
        ("short", 0, 600, "short", 1000, "wide"),
        ("paths", 450, 150, "long-value", 1, "wide"),
        ("joined", 450, 150, "long-value", 1, "wide"),
        ("tokens", 250, 120, "long-value", 1, "deep"),
        ("tokens", 0, 60, "short", 1, "sparse"),
        ("tokens", 900, 0, "long-value", 1, "perms"),
    ],
)
def test_all_at_once(
    watches: str, replaced: int, changes: int, request_: str, others: int, shape: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.everything", watches]
        + [str(replaced), str(changes), request_, str(others), shape],
        cwd=PROJECT,
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        stdout=subprocess.PIPE,
        check=True,
    )
    parts = json.loads(done.stdout)
    # It has got as far as each of the bounds lets it.
    assert parts["open"] == 11 and parts["requests"] > 100, parts
    assert parts["replies"] > 256_000 and parts["events"] > 230_000, parts
    assert 2_000_000 < parts["sum"] < MOST, parts
