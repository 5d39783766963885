# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which paths of a state file can be those of nodes."""

from __future__ import annotations

import pytest

from pyxsd.state.host_state import is_node_path

PATHS = [
    (b"/", True),
    (b"/a", True),
    (b"/a/b", True),
    (b"@releaseDomain", True),
    (b"@", False),
    (b"", False),
    (b"a", False),
    (b"/a\0b", False),
    (b"@a\0", False),
    (b"/a/", False),
    (b"//a", False),
]


@pytest.mark.parametrize(("path", "can"), PATHS)
def test_node_paths(path: bytes, can: bool) -> None:
    assert is_node_path(path) is can
