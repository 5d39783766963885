# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hash of the tables whose keys guests choose."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyxsd._siphash import siphash

KEY = bytes(range(16))
MASK = (1 << 64) - 1


def reference(key: bytes, data: bytes) -> int:
    """SipHash with one round for each word and three at the end, in plain Python."""
    low, high = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D,
         low ^ 0x6C7967656E657261, high ^ 0x7465646279746573]

    def mix(a: int, b: int, turn: int, half: int) -> None:
        v[a] = (v[a] + v[b]) & MASK
        v[b] = ((v[b] << turn | v[b] >> (64 - turn)) & MASK) ^ v[a]
        if half:
            v[a] = (v[a] << half | v[a] >> (64 - half)) & MASK

    def round_() -> None:
        mix(0, 1, 13, 32)
        mix(2, 3, 16, 0)
        mix(2, 1, 17, 32)
        mix(0, 3, 21, 0)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        round_()
        v[0] ^= word
    v[2] ^= 255
    for _ in range(3):
        round_()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@pytest.mark.parametrize("data, want", [(b"", "dcc40f055801acab"), (b"\0", "93ca577df39bf4c9")])
def test_published_values(data: bytes, want: str) -> None:
    assert siphash(KEY, data) == int.from_bytes(bytes.fromhex(want), "little")


@pytest.mark.parametrize("length", [*range(34), 255, 256, 4096])
def test_every_length(length: int) -> None:
    data = bytes((7 * n + length) % 256 for n in range(length))
    assert siphash(KEY, data) == reference(KEY, data)
    assert siphash(KEY[::-1], data) == reference(KEY[::-1], data)


@pytest.mark.parametrize("key, fine", [("00" * 16, True), ("00" * 15, False), ("", False),
                                       ("x" * 32, False), ("00" * 17, False)])
def test_the_key_of_a_run_can_be_given(key: str, fine: bool) -> None:
    done = subprocess.run([sys.executable, "-c", "import pyxsd._siphash"], check=False,
                          env=dict(os.environ, PYXSD_HASH_KEY=key), stderr=subprocess.PIPE)
    assert (done.returncode == 0) == fine
    assert fine or b"ValueError" in done.stderr
