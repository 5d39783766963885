# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is alive in the compiled modules, before and after each test.

Every module counts its own objects (nodes, pages, permission lists, watches,
transactions, connections ...).  A test that ends with more than it began with
has shown a leak, or has forgotten to close what it opened; one that ends with
less has shown something freed twice.

A test that did not pass cannot be checked: its traceback holds the frames of the test, and with
them what stood in its variables.  Python and pytest let go of a traceback only in the next test,
so it is taken away before that one is counted.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator

import pytest

MODULES = ("store.tree", "events.trie", "store.transaction", "_conn")


def live_counts() -> dict[str, int]:
    """Objects alive in the process by kind; empty where the core is not built."""
    counts: dict[str, int] = {}
    for name in MODULES:
        try:
            module = importlib.import_module(f"pyxsd.{name}")
        except ImportError:
            return {}
        counts.update(module.live_counts())
    return counts


def differences(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """How many more of each kind there are, without the zeros."""
    return {kind: after[kind] - n for kind, n in before.items() if after[kind] != n}


#: Of a session: has the last test been checked, and left nothing?
CLEAN = pytest.StashKey[bool]()


def let_go_of_tracebacks() -> None:
    """Ends what only the tracebacks of tests before keep alive."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    gc.collect()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves live objects behind.

    A test that failed already, or was skipped, is let alone.
    """
    stash = request.session.stash
    if not stash.get(CLEAN, True):
        let_go_of_tracebacks()
    stash[CLEAN] = False
    before = live_counts()
    yield
    report = getattr(request.node, "call_report", None)
    if report is None or not report.passed:
        return
    if differences(before, live_counts()):
        # A test may have dropped a whole server without closing it.
        gc.collect()
    left = differences(before, live_counts())
    assert not left, f"left alive by the test: {left}"
    stash[CLEAN] = True
