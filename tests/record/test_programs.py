# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server made of image and journal is the recorded one: after programs of random requests."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from pyxsd.system.configuration import Config
from tests.fuzz.machine import Machine
from tests.fuzz.program import RECORD, decode
from tests.fuzz.test_cases import corpus
from tests.record.kit import Tape
from tests.state.twins import without_clock
from tests.world import World

RANDOM = int(os.environ.get("PYXSD_RECORD_PROGRAMS", "60"))


def run(
    data: bytes,
    begin: int,
    every: int,
    whole_turns: bool,
    make: Callable[[World, Config], Tape] = Tape,
) -> int:
    """Runs a program; the recording begins at step `begin`, and after each `every` steps a second
    server is compared.  How many those were."""
    settings, steps = decode(data)
    config: Any = settings
    machine = Machine(config)
    if whole_turns:
        without_clock(machine.world.server)
    else:
        # Every look at the clock says that the time is over.
        machine.world.server.agenda.slice_ns = machine.world.server.agenda.turn_ns = 0
    tape: Tape | None = None
    compared = 0
    try:
        for number, step in enumerate(steps):
            if number == begin:
                tape = make(machine.world, Config(**config))
            machine.step(step)
            if tape is not None and number % every == 0:
                tape.check()
                compared += 1
        if tape is not None:
            tape.check()
            tape.close()
        return compared
    finally:
        machine.world.close()


def test_random_programs() -> None:
    compared = 0
    for seed in range(RANDOM):
        source = random.Random(seed)
        compared += run(
            source.randbytes(1 + RECORD * source.choice((5, 20, 60, 200))),
            seed % 5,
            9,
            seed % 2 == 0,
        )
    assert compared > RANDOM


def test_the_programs_that_reach_the_most() -> None:
    assert (
        sum(run(program, 3, 20, number % 2 == 0) for number, program in enumerate(corpus())) > 100
    )
