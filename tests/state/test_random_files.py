# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fuzzer's reader of state files (tests/fuzz/readers.py) on recorded files that were damaged
at random; the seed is fixed."""

from __future__ import annotations

import random

import pytest

from pyxsd.state import image
from tests.fuzz.readers import run
from tests.state.recorded import DATA
from tests.state.test_image import example

ROUNDS = 1500
SMALL = ("c417-special.bin", "chead-depth.bin", "chead-features.bin", "ox417-domains.db")


def damaged(data: bytes, source: random.Random) -> bytes:
    """Some bytes changed, left out, put in or moved."""
    out = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 5))):
        at = source.randrange(len(out))
        how = source.randrange(4)
        if how == 0:
            out[at] = source.randrange(256)
        elif how == 1:
            del out[at : at + source.randrange(1, 17)]
        elif how == 2:
            out[at:at] = source.randbytes(source.randrange(1, 9))
        else:
            out[at:at] = out[source.randrange(len(out)) :][: source.randrange(1, 65)]
    return bytes(out)


@pytest.mark.parametrize("name", SMALL)
def test_recorded_files(name: str) -> None:
    source = random.Random(name)
    data = (DATA / name).read_bytes()
    run(data)
    for _ in range(ROUNDS):
        run(damaged(data, source))


def test_images() -> None:
    world = example()
    data = image.save(world.server)
    world.close()
    source = random.Random(1)
    run(data)
    for _ in range(ROUNDS):
        run(damaged(data, source))
