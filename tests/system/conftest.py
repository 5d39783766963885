# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the package realxen importable and names the marker of the tests that boot Xen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "system: boots a real Xen under QEMU; minutes, not seconds")
