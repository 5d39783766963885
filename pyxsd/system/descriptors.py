# SPDX-License-Identifier: LGPL-2.1-or-later
"""The limit on open file descriptors."""

from __future__ import annotations

import resource


def raise_file_limit(nr_open_path: str = "/proc/sys/fs/nr_open") -> tuple[int, str]:
    """Raise RLIMIT_NOFILE to what the kernel allows, as far as permitted.

    Returns the limit that holds now, and a warning ("" where all was granted).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with open(nr_open_path, "rb") as file:
            wanted = int(file.read(32))
    except (OSError, ValueError):
        wanted = hard
    unlimited = hard == resource.RLIM_INFINITY
    new_hard = hard if unlimited or hard >= wanted else wanted
    for pair in ((wanted, new_hard), (wanted, wanted), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, pair)
        except (OSError, ValueError):
            continue  # not permitted: as far as it goes without
        soft = pair[0]
        break
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return soft, ""
    return soft, f"file limit: {soft} descriptors; {wanted}, as {nr_open_path} says, not permitted"
