# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server made of image and journal is the recorded one: over sockets and rings, with INTRODUCE,
RELEASE, shutdowns and deaths, as a real oxenstored's clients asked for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyxsd.system.configuration import Config
from tests.conformance.replay import configuration, load, play, transcripts
from tests.record.kit import Tape
from tests.world import World

EVERY = 97  # steps between two comparisons


def record(name: str, every: int, make: Callable[[World, Config], Tape]) -> None:
    """Plays a transcript whose recording begins at once, and compares after each `every` steps."""
    tape: list[Tape] = []

    def after(world: World, number: int) -> None:
        if not tape:
            tape.append(make(world, configuration(load(name)[0])))
        elif number % every == 0:
            tape[0].check()

    world = play(name, rings=True, after=after)
    tape[0].check()
    tape[0].close()
    world.close()


@pytest.mark.parametrize("name", transcripts())
def test_every_transcript(name: str) -> None:
    record(name, EVERY, Tape)
