# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random requests that are worth comparing: few paths, many meetings, some nonsense."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.differential.sides import NAMES, Request
from tests.world import TYPES

PATHS = (
    b"/",
    b"/a",
    b"/a/b",
    b"/a/b/c",
    b"/a/bb",
    b"/a/b0",
    b"/b",
    b"/b/x",
    b"data",
    b"data/x",
    b"k",
    b"/local/domain/1/data",
    b"/local/domain/1/k",
    b"/local/domain/2/data",
    b"/local/domain/2/k",
    b"/local/domain/3/k",
    b"/local/domain/1",
    b"/local/domain/2",
    b"/local/domain",
    b"/tool/t",
    b"/w/0",
    b"/w/1",
    b"/w/2",
    b"/w/3/y",
    b"/a/b/c/d/e",
    b"@releaseDomain",
    b"@introduceDomain",
    b"@other",
)
ODD_PATHS = (
    b"",
    b"//",
    b"/a/",
    b"/a//b",
    b"/\xff",
    b"a b",
    b"/local/domain/",
    b"/local/domain/1/",
    b"/" + b"p" * 1023,
    b"/" + b"p" * 1024,
    b"/local/domain/1/" + b"q" * 1024,
    b"/local/domain/1/" + b"q" * 1025,
    b"/deep" + b"/d" * 200,
    b"@",
    b"/@x",
    b"/a\0b",
    b"-",
    b"_@-",
)
VALUES = (b"", b"1", b"2", b"value", b"a\0b\0", b"\xff\0", b"x" * 100, b"x" * 2048, b"x" * 2049)
PERMS = (
    b"n0\0",
    b"n1\0",
    b"n2\0",
    b"n3\0",
    b"r1\0",
    b"b1\0",
    b"w2\0",
    b"n1\0r2\0",
    b"n1\0b2\0w3\0",
    b"b0\0",
    b"r0\0",
    b"n0\0r1\0r2\0r3\0",
    b"r2\0b1\0n3\0",
    b"b3\0n1\0n1\0",
)
ODD_PERMS = (b"", b"n1", b"q1\0", b"n\0", b"\0", b"nx\0", b"n1\0\0", b"n1\0x")
TOKENS = (b"t", b"u", b"token", b"", b"a b", b"T" * 300)
ENDS = (b"T\0",) * 6 + (b"F\0",) * 2 + (b"T", b"X\0", b"T\0x")
NUMBERS = (b"0", b"1", b"2", b"3", b"4", b"32752", b"-1", b"x", b"", b"1x", b"99999")

#: Weights of the requests.
KINDS = {
    "WRITE": 20,
    "MKDIR": 8,
    "RM": 8,
    "READ": 8,
    "DIRECTORY": 8,
    "GET_PERMS": 5,
    "SET_PERMS": 9,
    "WATCH": 6,
    "UNWATCH": 3,
    "TRANSACTION_START": 8,
    "TRANSACTION_END": 12,
    "RESET_WATCHES": 1,
    "GET_DOMAIN_PATH": 1,
    "IS_DOMAIN_INTRODUCED": 1,
    "SET_TARGET": 0.5,
    "INTRODUCE": 0.5,
    "RESUME": 0.3,
    "unknown": 0.3,
}


class Change(NamedTuple):
    """Something other than a request: "disconnect", "connect" or "die" of a client."""

    what: str
    who: str


Batch = list[Request]


class Generator:
    """The batches and changes of one sequence, from its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.there = set(NAMES)
        # Some sequences keep to few paths, so that transactions conflict.
        self.paths = PATHS if self.random.random() < 0.5 else self.random.sample(PATHS, 8)
        self.inside = self.random.choice((0.2, 0.5, 0.8))

    def sequence(self, batches: int) -> Iterator[Batch | Change]:
        """So many batches or changes."""
        for _ in range(batches):
            dice = self.random.random()
            if dice < 0.02:
                yield self._change()
                continue
            who = self.random.choice(sorted(self.there))
            yield [self._request(who) for _ in range(self.random.choice((1, 1, 1, 2, 3, 6)))]

    def _change(self) -> Change:
        gone = sorted(set(NAMES) - self.there)
        if gone and self.random.random() < 0.7:
            who = self.random.choice(gone)
            self.there.add(who)
            return Change("connect", who)
        # s0 stays: it introduces and releases.
        who = self.random.choice(sorted(self.there - {"s0"}) or gone)
        if who in gone:
            self.there.add(who)
            return Change("connect", who)
        self.there.discard(who)
        return Change("die" if who[0] == "d" and self.random.random() < 0.5 else "disconnect", who)

    def _path(self) -> bytes:
        return self.random.choice(ODD_PATHS if self.random.random() < 0.04 else self.paths)

    def _request(self, who: str) -> Request:
        pick = self.random.choice
        kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
        tx = self.random.choice((1, 1, 2, 3)) if self.random.random() < self.inside else 0
        if kind == "TRANSACTION_END":
            tx = tx or (0 if self.random.random() < 0.1 else 1)
        elif kind == "TRANSACTION_START":
            tx = 1 if self.random.random() < 0.02 else 0
        if self.random.random() < 0.01:
            tx = 9999
        payload = self._payload(kind)
        if kind == "SET_PERMS" and payload.startswith(b"/\0"):
            # known.py: root-ownership, root-without-owner.
            payload = (
                b"/a" + payload[1:]
                if who[0] == "d"
                else b"/\0" + pick((b"n0\0", b"b0\0", b"r0\0", b"n0\0r1\0w2\0"))
            )
        if self.random.random() < 0.02:
            payload = pick(
                (
                    payload[:-1],
                    payload + b"\0",
                    payload + b"x",
                    b"\0" + payload,
                    payload[: len(payload) // 2],
                )
            )
        return Request(who, TYPES.get(kind, pick((15, 16, 20, 99, 65536))), payload[:4096], tx)

    def _payload(self, kind: str) -> bytes:
        pick = self.random.choice
        path = self._path() + b"\0"
        odd = self.random.random() < 0.05
        if kind == "WRITE":
            return path + pick(VALUES)
        if kind == "SET_PERMS":
            return path + pick(ODD_PERMS if odd else PERMS)
        if kind in ("WATCH", "UNWATCH"):
            return path + pick(TOKENS) + b"\0"
        if kind == "TRANSACTION_END":
            return pick(ENDS)
        if kind == "CONTROL":
            return b"quota\0" + pick(NUMBERS[:5]) + b"\0"
        if kind == "SET_TARGET":
            # Never domain 0: all would be open to the guest from then on.  Nor one that is gone:
            # known.py, rights-of-the-dead.
            targets = [who[1:].encode() for who in sorted(self.there) if who[0] == "d"] or [b"9"]
            return pick(NUMBERS) + b"\0" + pick(targets) + b"\0"
        if kind == "INTRODUCE":
            return b"99\0" + pick(NUMBERS) + b"\0" + pick(NUMBERS) + b"\0"
        if kind == "RESUME":
            return pick((b"99", b"x", b"", b"77")) + b"\0"
        if kind in ("GET_DOMAIN_PATH", "IS_DOMAIN_INTRODUCED"):
            return pick(NUMBERS) + b"\0"
        if kind in ("TRANSACTION_START", "RESET_WATCHES"):
            return b"\0"
        return path
