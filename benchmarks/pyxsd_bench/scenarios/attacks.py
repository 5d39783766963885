# SPDX-License-Identifier: LGPL-2.1-or-later
"""The attacks as scenarios: one for each, with the number of guests in the host as its size.

They run only where they are asked for by name (`--only attacks`).
"""

from __future__ import annotations

from typing import Callable

from ..attacks.bout import bout
from ..attacks.model import PREFIX, Attack
from ..attacks.table import ALL
from ..measure import Sample
from ..target import Target
from .base import Context, Scenario

MANY = 1000


def _run(attack: Attack) -> Callable[[Target, int, Context], dict[str, Sample]]:
    def run(target: Target, size: int, context: Context) -> dict[str, Sample]:
        teams = max(size // attack.guests, 1)
        return bout(target, attack, teams, size, context.seconds)

    return run


SCENARIOS: tuple[Scenario, ...] = tuple(
    Scenario(
        PREFIX + attack.name,
        attack.title,
        attack.why,
        _run(attack),
        axis="guests",
        sizes=(1, MANY),
        main="p99_us",
        needs="standin",
        attack=True,
    )
    for attack in ALL
)
