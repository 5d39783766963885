# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which paths C xenstored lets a client watch.

A C xenstored after 4.20 that finds another one in a state file ends.  Source: the rules of paths
in Xen's docs/misc/xenstore.txt, and xenstored's limits of 2,048 bytes for a relative path and 3,072
for a whole one.
"""

from __future__ import annotations

import re

RELATIVE_MAX, ABSOLUTE_MAX = 2048, 3072

_NAMES = re.compile(rb"[-/_@A-Za-z0-9]+")


def is_watchable(path: bytes) -> bool:
    """Would C xenstored take a watch on it?  path: as the client gave it."""
    if path[:1] == b"@":
        return len(path) <= RELATIVE_MAX
    most = ABSOLUTE_MAX if path[:1] == b"/" else RELATIVE_MAX
    if len(path) > most or not _NAMES.fullmatch(path):
        return False
    return path == b"/" or not (path.endswith(b"/") or b"//" in path)
