# SPDX-License-Identifier: LGPL-2.1-or-later
"""The records of an image taken apart and put together again, by a description of their own.

Each field is a name and what it is: a letter of `struct`, "blob" (bytes behind their length in 4
bytes, None), "bytes of NAME" (as many as that field says), a list of fields for a list of rows
behind their number in 4 bytes, {"optional": fields} behind a flag, or {"if NAME": fields} where
that field is not 0.
"""

from __future__ import annotations

import struct
from typing import Any

Fields = list[tuple[str, Any]]

EVENTS: Fields = [("path", "blob"), ("k", "Q")]

JOB: Fields = [
    ("text", "blob"),
    ("name", "blob"),
    ("deep", "?"),
    ("below", "?"),
    ("begun", "?"),
    ("newest", "Q"),
    ("before", "I"),
    ("after", "I"),
    (
        "search",
        {"if begun": [("newest", "Q"), ("done", "?"), ("own", "?"), ("parts", "Q"), ("next", "Q")]},
    ),
]

CHANGES: Fields = [("event", "i"), ("path", "blob")]

JOBS: Fields = [
    ("commit", "?"),
    (
        "changes",
        {"if commit": [("newest", "Q"), ("before", "I"), ("after", "I"), ("rows", CHANGES)]},
    ),
    ("job", {"unless commit": JOB}),
]

TRANSACTION: Fields = [
    ("id", "I"),
    ("start", "Q"),
    ("epoch", "Q"),
    ("since", "d"),
    ("base", "I"),
    ("tree", "I"),
    ("churn", "Q"),
    ("replaced", "q"),
    ("given_up", "?"),
    ("recorded_bytes", "q"),
    ("count", "I"),
    ("quota_reached", "?"),
    ("read", {"optional": [("path", "blob")]}),
    ("written", {"optional": [("path", "blob")]}),
    ("requests", [("type", "I"), ("payload", "blob"), ("status", "i"), ("digest", "Q")]),
    ("changes", CHANGES),
]

CONNECTION: Fields = [
    ("id", "Q"),
    ("domid", "q"),
    ("closed", "?"),
    ("label", "blob"),
    (
        "rest",
        {
            "unless closed": [
                (
                    "watches",
                    [
                        ("serial", "Q"),
                        ("depth", "I"),
                        ("path_len", "I"),
                        ("token_len", "I"),
                        ("path", "bytes of path_len"),
                        ("token", "bytes of token_len"),
                    ],
                ),
                ("target", "q"),
                ("features", "I"),
                ("ops", "Q"),
                ("bad", "?"),
                ("ended", "?"),
                ("deaf", "?"),
                ("hung_up", "?"),
                ("stalled", "?"),
                ("awaits", "?"),
                ("asked", "16s"),
                ("used", "Q"),
                ("asks_many", "?"),
                ("pace", "I"),
                ("interest", "i"),
                ("credit", "d"),
                ("last_tx", "I"),
                ("replaced", "q"),
                ("most_watches", "q"),
                ("most_transactions", "q"),
                ("generation", "Q"),
                ("input", "blob"),
                ("sent", "Q"),
                ("reply_end", "Q"),
                ("part_left", "Q"),
                ("part_event", "?"),
                ("output", "blob"),
                ("events", [("offset", "Q"), ("serial", "Q")]),
                ("transactions", TRANSACTION),
                (
                    "listings",
                    {
                        "optional": [
                            (
                                "rows",
                                [
                                    ("node", "I"),
                                    ("epoch", "Q"),
                                    ("generation", "Q"),
                                    ("names", "blob"),
                                ],
                            )
                        ]
                    },
                ),
                (
                    "pending",
                    [
                        ("serial", "Q"),
                        ("waiting", EVENTS),
                        ("overflow", [("number", "Q"), *EVENTS, ("cause", "Q")]),
                    ],
                ),
                ("overfull", [("serial", "Q")]),
                (
                    "jobs",
                    {
                        "optional": [
                            ("rows", JOBS),
                            ("hurried", "?"),
                            ("waits", {"optional": [("churn", "Q"), ("since", "d")]}),
                        ]
                    },
                ),
            ]
        },
    ),
]

RECORDS: dict[bytes, Fields] = {
    b"SERV": [
        ("hash_key", "16s"),
        ("now", "d"),
        ("tree", "I"),
        ("epoch", "Q"),
        ("last_id", "Q"),
        ("last_anonymous", "Q"),
        ("ops", "Q"),
        ("failures", "Q"),
        ("last_event", "Q"),
        ("last_debt", "Q"),
        ("queued", "Q"),
        ("merged_events", "Q"),
        ("refused", "Q"),
        ("failed", "Q"),
        ("no_culprit", "Q"),
        ("merged", "Q"),
        ("done", "Q"),
        ("quotas", [("most", "q")]),
        ("owners", [("owner", "q"), ("most", "q")]),
        ("last_serial", "Q"),
    ],
    b"CONN": CONNECTION,
    b"LATE": [
        ("commits", "Q"),
        ("churn", "Q"),
        ("owed", "?"),
        ("next_credit", {"if owed": [("time", "d")]}),
        ("transactions", [("id", "Q"), ("tx_id", "I"), ("start", "Q"), ("since", "d")]),
        ("paused", [("id", "Q")]),
        ("penalised", [("id", "Q")]),
        ("lost", [("id", "Q"), ("marks", [("mark", "Q"), ("commit", "Q")])]),
        (
            "changes",
            [
                ("commit", "Q"),
                ("id", "Q"),
                ("before", "I"),
                ("after", "I"),
                ("weight", "q"),
                ("mark", "Q"),
            ],
        ),
    ],
    b"TURN": [
        ("least", "Q"),
        ("arrivals", "Q"),
        *(
            field
            for queue in ("dom0", "single", "others")
            for field in (
                (f"{queue}_least", "Q"),
                (f"{queue}_used", "Q"),
                (f"{queue}_waiting", [("used", "Q"), ("order", "Q"), ("id", "Q")]),
            )
        ),
        ("flushing", [("id", "Q")]),
    ],
}


class _Bytes:
    """What is left of a record."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        assert n <= len(self.data) - self.at
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, letter: str) -> Any:
        return struct.unpack("=" + letter, self.take(struct.calcsize("=" + letter)))[0]

    def fields(self, fields: Fields) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, kind in fields:
            row[name] = self.field(kind, row)
        return row

    def field(self, kind: Any, row: dict[str, Any]) -> Any:
        if isinstance(kind, list):
            return [self.fields(kind) for _ in range(self.number("I"))]
        if isinstance(kind, dict):
            ((when, fields),) = kind.items()
            there = self.number("?") if when == "optional" else _holds(when, row)
            return self.fields(fields) if there else None
        if kind == "blob":
            n = self.number("I")
            return None if n == 0xFFFFFFFF else self.take(n)
        if kind.startswith("bytes of "):
            return self.take(row[kind[9:]])
        return self.number(kind)


def _holds(when: str, row: dict[str, Any]) -> bool:
    word, name = when.split()
    return bool(row[name]) == (word == "if")


def _put(fields: Fields, row: dict[str, Any]) -> bytes:
    return b"".join(_put_field(kind, row[name], row) for name, kind in fields)


def _put_field(kind: Any, value: Any, row: dict[str, Any]) -> bytes:
    if isinstance(kind, list):
        return struct.pack("=I", len(value)) + b"".join(_put(kind, each) for each in value)
    if isinstance(kind, dict):
        ((when, fields),) = kind.items()
        flag = struct.pack("=?", value is not None) if when == "optional" else b""
        return flag + (_put(fields, value) if value is not None else b"")
    if kind == "blob":
        return (
            struct.pack("=I", 0xFFFFFFFF)
            if value is None
            else struct.pack("=I", len(value)) + value
        )
    if kind.startswith("bytes of "):
        return bytes(value)
    return struct.pack("=" + kind, value)


def decode(type_: bytes, body: bytes) -> list[dict[str, Any]]:
    """The rows of a record: one, or of CONN one for each connection."""
    left = _Bytes(bytes(body))
    if type_ != b"CONN":
        rows = [left.fields(RECORDS[type_])]
    else:
        rows = []
        while left.at < len(left.data):
            part = _Bytes(left.take(left.number("I")))
            row = part.fields(CONNECTION)
            assert part.at == len(part.data)
            rest = row.pop("rest")
            rows.append({**row, **(rest or {})})
    assert left.at == len(left.data)
    return rows


def encode(type_: bytes, rows: list[dict[str, Any]]) -> bytes:
    """The record of such rows."""
    if type_ != b"CONN":
        return _put(RECORDS[type_], rows[0])
    parts = []
    for row in rows:
        part = _put(CONNECTION, {**row, "rest": None if row["closed"] else row})
        parts.append(struct.pack("=I", len(part)) + part)
    return b"".join(parts)
