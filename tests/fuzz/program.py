# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any bytes as a program for a server: many requests on many connections, well and badly formed.

The first byte chooses the configuration, then come records of eight bytes, so that every input is a
program and inserting, removing or changing a record leaves the others what they are.  See `Step`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.fuzz.ledger import header
from tests.world import TYPES

RECORD = 8
STEPS_MAX = 400

#: Small limits reach what takes thousands of requests with the defaults.
CONFIGS: tuple[dict[str, object], ...] = (
    {},
    {
        "quota_maxentity": 6,
        "quota_maxwatch": 2,
        "quota_transaction": 1,
        "quota_maxrequests": 5,
        "quota_maxsize": 8,
        "quota_path_max": 40,
    },
    {"quota_maxoutstanding": 2, "quota_maxwatchevents": 2},
    {
        "quota_maxoutstanding": 1,
        "quota_maxwatchevents": 1,
        "merge_activate": False,
        "conflict_rate_limit_is_aggregate": False,
    },
    {"perms_activate": False, "quota_activate": False, "quota_maxrequests": -1},
    {
        "perms_watch_activate": False,
        "conflict_burst_limit": 1.0,
        "merge_activate": False,
        "conflict_max_history_seconds": 10.0,
    },
    {"quota_maxrequests": 0, "quota_maxentity": 0, "quota_maxwatch": 0, "quota_transaction": 0},
    {"allow_debug": True, "quota_maxentity": 20, "quota_maxwatchevents": 4},
)

NAMES = ("s0", "s1", "s2", "d0", "d1", "d2", "d3", "d1", "d2", "s0", "d1", "d4")

PATHS = (
    b"/",
    b"/a",
    b"/a/b",
    b"/a/b/c",
    b"/a/bb",
    b"/a/b0",
    b"/b",
    b"a",
    b"a/b",
    b"data",
    b"",
    b"/local",
    b"/local/domain",
    b"/local/domain/1",
    b"/local/domain/1/a",
    b"/local/domain/1/a/b",
    b"/local/domain/2",
    b"/local/domain/2/x",
    b"/local/domain/0/a",
    b"/local/domain/",
    b"/local/domain/1/",
    b"@introduceDomain",
    b"@releaseDomain",
    b"@releaseDomain/1",
    b"/@releaseDomain",
    b"@introduceDomain/2",
    b"@other",
    b"@a/b",
    b"@",
    b"/@",
    b"//",
    b"/a//b",
    b"/a/",
    b"/tool/xenstored",
    b"/\xff",
    b"/a\0b",
    b"/c/" + b"d/" * 30 + b"e",
    b"/" + b"p" * 1023,
    b"/" + b"p" * 2047,
    b"/" + b"p" * 2048,
    b"/deep" + b"/d" * 1000,
    b"/w/%d",
    b"/w/%d",
    b"w/%d",
    b"/w/%d/y",
    b"/local/domain/%d",
    b"/local/domain/%d/k",
    b"%d",
)
VALUES = (
    b"",
    b"v",
    b"value",
    b"\0",
    b"a\0b\0",
    b"8 bytes!",
    b"x" * 9,
    b"x" * 100,
    b"x" * 2048,
    b"x" * 2049,
    b"x" * 3900,
    b"y" * 4000,
)
PERMS = (
    b"n0\0",
    b"n1\0",
    b"n2\0",
    b"r1\0",
    b"b1\0",
    b"w1\0",
    b"n1\0r2\0",
    b"n1\0b2\0w3\0",
    b"n0\0r1\0r2\0",
    b"n2\0b1\0",
    b"r0\0",
    b"",
    b"n1",
    b"q1\0",
    b"n\0",
    b"n-1\0",
    b"\0",
    b"n99999999999\0",
    b"n1\0" * 200,
    b"n1\0" * 1000,
    b"b2\0r1\0n1",
)
NUMBERS = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"32752",
    b"32751",
    b"65536",
    b"-1",
    b"",
    b"x",
    b"1x",
    b" 1",
    b"01",
    b"4294967297",
    b"99999999999999999999999",
    b"0x10",
    b"+2",
)
TOKENS = (b"t", b"token", b"u", b"", b"a b", b"T" * 300, b"T" * 4000)
COMMANDS = (
    b"print\0hello",
    b"quota\0%d",
    b"watches",
    b"txn\0%d",
    b"xenbus\0%d",
    b"mfn\0%d",
    b"compact",
    b"trim",
    b"check",
    b"quota",
    b"quota\0max",
    b"quota\0max\0-r",
    b"quota\0set\0nodes\0%d",
    b"help",
    b"log",
    b"log\0off",
    b"log\0on",
    b"live-update\0-a",
    b"live-update\0-s",
    b"nonsense",
    b"",
    b"quota\0set",
    b"print",
    b"memreport",
    b"logfile",
    b"quota\0-1",
    b"quota\0x",
    b"quota\0set\0watches\0%d",
    b"quota\0set\0nothing\0%d",
    b"quota\099999999999999999999999",
)

#: Requests by how often they are of use; a name that is no type stands for odd numbers.
KINDS = (
    "WRITE",
    "WRITE",
    "WRITE",
    "WRITE",
    "READ",
    "READ",
    "DIRECTORY",
    "MKDIR",
    "MKDIR",
    "RM",
    "RM",
    "SET_PERMS",
    "SET_PERMS",
    "GET_PERMS",
    "WATCH",
    "WATCH",
    "WATCH",
    "UNWATCH",
    "TRANSACTION_START",
    "TRANSACTION_START",
    "TRANSACTION_END",
    "TRANSACTION_END",
    "TRANSACTION_END",
    "DIRECTORY_PART",
    "RESET_WATCHES",
    "SET_TARGET",
    "INTRODUCE",
    "RELEASE",
    "RESUME",
    "IS_DOMAIN_INTRODUCED",
    "GET_DOMAIN_PATH",
    "CONTROL",
    "GET_FEATURE",
    "SET_FEATURE",
    "GET_QUOTA",
    "SET_QUOTA",
    "odd",
)
ODD = (15, 16, 20, 27, 28, 127, 255, 65536, 0x7FFFFFFF, 0xFFFFFFFF)

#: What a record does, by its first byte.
OPS = ("request",) * 20 + ("raw", "turn", "room", "room", "close", "tick", "giant", "cut")


class Step(NamedTuple):
    """One thing that happens.

    request: `data` is a packet whose tx_id is the connection's (extra-1)-th transaction, extra 0
    none.  raw: `data` goes out as it is.  turn: all connections with something waiting are served
    in one turn.  room: the client takes only `extra` more bytes (-1: no limit).  close: the client
    goes.  tick: `extra` ms pass.  cut: only `extra` bytes of the next data go out for now.
    hold: the bytes are fed without a turn.
    """

    op: str
    who: str
    type: int
    payload: bytes
    extra: int
    hold: bool


def _pick(table: tuple[bytes, ...], choice: int, number: int) -> bytes:
    item = table[choice % len(table)]
    return item.replace(b"%d", b"%d" % (number % 12)) if b"%d" in item else item


def _payload(kind: str, a: int, b: int, more: int) -> bytes:
    """A payload of the right form for the type."""
    path = _pick(PATHS, a, more)
    if kind in ("READ", "DIRECTORY", "MKDIR", "RM", "GET_PERMS"):
        return path + b"\0"
    if kind == "WRITE":
        return path + b"\0" + _pick(VALUES, b, more)
    if kind == "SET_PERMS":
        return path + b"\0" + _pick(PERMS, b, more)
    if kind in ("WATCH", "UNWATCH"):
        payload = path + b"\0" + _pick(TOKENS, b, more) + b"\0"
        if kind == "WATCH" and more & 1:
            payload += _pick(NUMBERS, more >> 1, 0) + b"\0"
        return payload
    if kind == "TRANSACTION_END":
        return (b"T\0", b"F\0", b"T\0", b"T", b"X\0", b"", b"T\0x", b"TT\0")[a % 8]
    if kind == "DIRECTORY_PART":
        return path + b"\0" + _pick(NUMBERS, b, 0) + b"\0"
    if kind == "CONTROL":
        return _pick(COMMANDS, a, b) + (b"" if more & 1 else b"\0")
    if kind == "INTRODUCE":
        numbers = (_pick(NUMBERS, a, 0), _pick(NUMBERS, b, 0), _pick(NUMBERS, more, 0))
        return b"\0".join((*numbers, b""))
    if kind == "SET_TARGET":
        return _pick(NUMBERS, a, 0) + b"\0" + _pick(NUMBERS, b, 0) + b"\0"
    return _pick(NUMBERS, a, 0) + b"\0"


def _odd(payload: bytes, how: int, junk: int) -> bytes:
    """The payload, or in a few cases of `how` a spoiled one."""
    if how < 232:
        return payload
    return (
        payload[:-1],
        payload + b"\0",
        payload + b"x",
        payload[: junk % (len(payload) + 1)],
        b"",
        b"\0" + payload,
        payload.replace(b"\0", b"\0\0"),
        payload * 3,
    )[how % 8]


def decode(data: bytes) -> tuple[dict[str, object], Iterator[Step]]:
    """The configuration and the steps that some bytes stand for."""
    if not data:
        return CONFIGS[0], iter(())
    return CONFIGS[data[0] % len(CONFIGS)], _steps(data[1:])


def _steps(data: bytes) -> Iterator[Step]:
    at = count = 0
    while at + RECORD <= len(data) and count < STEPS_MAX:
        op_byte, who_byte, kind_byte, a, b, more, how, tx = data[at : at + RECORD]
        at += RECORD
        count += 1
        op = OPS[op_byte % len(OPS)]
        who = NAMES[who_byte % len(NAMES)]
        hold = bool(who_byte & 0x40)
        if op == "raw":
            # The next records are bytes for the wire.
            n = (kind_byte % 8 + 1) * RECORD
            yield Step(op, who, 0, data[at : at + n - a % RECORD], 0, hold)
            at += n
        elif op == "giant":
            yield Step("raw", who, 0, header(kind_byte, 1, 0, 4097 + a * 16843009), 0, hold)
        elif op == "room":
            yield Step(op, who, 0, b"", -1 if a & 1 else a * b, hold)
        elif op == "tick":
            yield Step(op, who, 0, b"", a * 4, hold)
        elif op == "cut":
            yield Step(op, who, 0, b"", a, hold)
        elif op == "request":
            kind = KINDS[kind_byte % len(KINDS)]
            type_ = TYPES.get(kind, ODD[kind_byte % len(ODD)])
            payload = _odd(_payload(kind, a, b, more), how, more)[:4096]
            yield Step(op, who, type_, payload, 0 if tx < 110 else tx - 109, hold)
        else:
            yield Step(op, who, 0, b"", a, hold)
