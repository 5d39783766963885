# SPDX-License-Identifier: LGPL-2.1-or-later
"""The model's clients: what a connection has, its watches and transactions, and the limits
it is held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from tests.property.model_tree import Node, Parts

Answer = tuple[str, bytes]  # ("OK", data) or (error name, b"")


@dataclass
class Path:
    """A path as a request gave it."""

    parts: Parts
    special: bool = False
    relative: bool = False

    @property
    def text(self) -> bytes:
        """Its absolute form."""
        return b"/" + b"/".join(self.parts)


@dataclass(eq=False)
class Watch:
    """One watch; depth None matches at any depth."""

    path: Path
    given: bytes
    token: bytes
    depth: Optional[int]


@dataclass(eq=False)
class Transaction:
    """An open transaction: the store at its start, its own, and what it asked."""

    base: Node
    root: Node
    epoch: int
    requests: list[tuple[str, bytes, Answer]] = field(default_factory=list)
    changes: list[tuple[str, Path]] = field(default_factory=list)
    count: int = 0
    read_low: Optional[Parts] = None
    write_low: Optional[Parts] = None


class Client:
    """A connection: its rights, watches and transactions."""

    def __init__(self, name: str, domid: int) -> None:
        self.name = name
        self.domid = domid
        self.target = -1
        self.base = b"/local/domain/%d/" % domid
        self.watches: list[Watch] = []
        self.transactions: dict[int, Transaction] = {}
        self.last_tx = 0
        self.listings: list[tuple[Node, int]] = []
        self.generations = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """The domains whose rights it has."""
        return (self.domid,) if self.target < 0 else (self.domid, self.target)

    @property
    def privileged(self) -> bool:
        """Has it the rights of domain 0?"""
        return 0 in self.ids

    def next_tx(self) -> int:
        """The id of its next transaction: counting up, without those in use."""
        self.last_tx += 1
        while self.last_tx in self.transactions:
            self.last_tx += 1
        return self.last_tx


@dataclass
class Limits:
    """The configuration, by oxenstored's names."""

    quota_activate: bool = True
    quota_maxentity: int = 1000
    quota_maxsize: int = 2048
    quota_maxwatch: int = 100
    quota_transaction: int = 10
    quota_maxrequests: int = 1024
    quota_path_max: int = 2048
    merge_activate: bool = True
    perms_activate: bool = True
    perms_watch_activate: bool = True
