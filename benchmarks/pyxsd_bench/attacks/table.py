# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of attacks."""

from __future__ import annotations

from . import traffic, transactions, trees, watching
from .model import Attack

ALL: tuple[Attack, ...] = (
    *trees.ATTACKS,
    *watching.ATTACKS,
    *transactions.ATTACKS,
    *traffic.ATTACKS,
)


def by_name(name: str) -> Attack:
    """ValueError for a name that is not in the table."""
    for attack in ALL:
        if attack.name == name:
            return attack
    raise ValueError(f"no attack is named {name}")
