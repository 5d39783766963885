# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is alive in the compiled modules, before and after each test.

Every module counts its own objects (nodes, pages, permission lists, watches,
transactions, connections ...).  A test that ends with more than it began with
has shown a leak, or has forgotten to close what it opened; one that ends with
less has shown something freed twice.
"""

from __future__ import annotations

import gc
import importlib
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


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves live objects behind.

    A test that failed already is let alone: its traceback holds objects.
    """
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
