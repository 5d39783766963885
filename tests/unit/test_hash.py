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


def reference(key: bytes, data: bytes, with_length: bool = True) -> int:
    """SipHash with one round for each word and three at the end, in plain Python; without the
    length, which is the last word's, the data must be whole words."""
    low, high = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [
        low ^ 0x736F6D6570736575,
        high ^ 0x646F72616E646F6D,
        low ^ 0x6C7967656E657261,
        high ^ 0x7465646279746573,
    ]

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

    padded = data
    if with_length:
        padded += bytes(7 - len(data) % 8) + bytes([len(data) & 255])
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


@pytest.mark.parametrize(
    "key, fine",
    [("00" * 16, True), ("00" * 15, False), ("", False), ("x" * 32, False), ("00" * 17, False)],
)
def test_the_key_of_a_run_can_be_given(key: str, fine: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import pyxsd._siphash"],
        check=False,
        env=dict(os.environ, PYXSD_HASH_KEY=key),
        stderr=subprocess.PIPE,
    )
    assert (done.returncode == 0) == fine
    assert fine or b"ValueError" in done.stderr


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_key_of_another_length(length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        siphash(bytes(length), b"")


OWNERS = """
from pyxsd.store.tree import Tree
tree = Tree()
for owner in {owners}:
    tree.load([b"%d" % owner], b"n%d\\0" % owner, b"")
print(tree.count_table()[2])
"""


def longest_search(owners: list[int], key: str | None) -> int:
    """How many slots a search looks at, at most, in a table of these owners, in a process with
    that key, or with one of its own."""
    env = {name: value for name, value in os.environ.items() if name != "PYXSD_HASH_KEY"}
    if key is not None:
        env["PYXSD_HASH_KEY"] = key
    done = subprocess.run(
        [sys.executable, "-c", OWNERS.format(owners=owners)],
        check=True,
        env=env,
        stdout=subprocess.PIPE,
    )
    return int(done.stdout)


def test_tables_use_the_key() -> None:
    """Owners that share a slot under one key are spread under another.  A process that is given
    no key has neither that one nor zeros."""

    def slot(key: bytes, owner: int) -> int:
        return reference(key, owner.to_bytes(8, "little"), with_length=False) & 63

    for key in (KEY, bytes(16)):
        owners = [owner for owner in range(1, 3000) if slot(key, owner) == 0][:24]
        assert longest_search(owners, key.hex()) == 24
        assert longest_search(owners, KEY[::-1].hex()) < 24
        assert longest_search(owners, None) < 24
