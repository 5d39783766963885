# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of scenarios, in the order in which they are run and reported."""

from __future__ import annotations

from . import (
    attacks,
    crash,
    directories,
    images,
    placements,
    requests,
    rings,
    scale,
    state,
    stories,
    transactions,
    watches,
)
from .base import Context, Scenario

ALL: tuple[Scenario, ...] = (
    *requests.SCENARIOS,
    *placements.SCENARIOS,
    *scale.SCENARIOS,
    *watches.SCENARIOS,
    *directories.SCENARIOS,
    *transactions.SCENARIOS,
    *rings.SCENARIOS,
    *stories.SCENARIOS,
    *state.SCENARIOS,
    *crash.SCENARIOS,
    *images.SCENARIOS,
)

# Not part of a run of everything: only where `--only` names them.
ATTACKS: tuple[Scenario, ...] = attacks.SCENARIOS

__all__ = ["ALL", "ATTACKS", "Context", "Scenario"]
