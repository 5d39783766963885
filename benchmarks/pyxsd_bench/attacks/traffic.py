# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks by sheer traffic: floods, rings and sockets that are used badly, domains that die."""

from __future__ import annotations

import socket as sockets
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .. import wire
from ..program import Program
from .model import LENGTHS, NODES, VALUE, Attack, Role, Team, end, permissions, text, try_, write

if TYPE_CHECKING:
    from .stage import Stage

LISTED = 500
TURN = 64  # requests of one step of an attack in Python
RING = 1024


class Flood(NamedTuple):
    """A request that is sent again and again, 16 in flight."""

    name: str
    kind: int
    payload: bytes
    why: str


FLOODS = (
    Flood("read", wire.READ, text("x"), "The cheapest request: what a guest may always do."),
    Flood("write", wire.WRITE, text("x") + b"v", "The cheapest change."),
    Flood("write-2k", wire.WRITE, text("x") + b"v" * VALUE, "The largest value."),
    Flood("get-perms", wire.GET_PERMS, text("x"), "The cheapest look at rights."),
    Flood("set-perms", wire.SET_PERMS, text("x", "n0"), "Refused: the owner is not the guest's."),
    Flood("missing", wire.READ, text("no/such/node"), "An error for each request."),
    Flood("refused", wire.READ, text("/tool"), "A look where the guest has no right."),
    Flood("unknown", 99, b"", "A type that nobody knows."),
    Flood("empty", wire.WRITE, b"", "A payload without its parts."),
    Flood("domain-path", wire.GET_DOMAIN_PATH, text("1"), "No node is looked at."),
    Flood("introduced", wire.IS_DOMAIN_INTRODUCED, text("1"), "For dom0 only."),
    Flood("unwatch", wire.UNWATCH, text("x", "none"), "A watch that is not there."),
    Flood("end", wire.TRANSACTION_END, text("T"), "The end of no transaction."),
    Flood("reset-watches", wire.RESET_WATCHES, text(""), "Nothing to take away."),
    Flood("control", wire.CONTROL, text("memreport"), "For dom0 only, and dear there."),
)


def _make_x(team: Team) -> Program:
    return write(Program(), "x")


def _read_x(team: Team) -> Program:
    return try_(Program(), wire.READ, text("x"))


def _flood(flood: Flood) -> Attack:
    return Attack(
        f"flood-{flood.name}",
        f"A flood: {flood.name}",
        flood.why,
        (
            Role(
                lambda team: try_(Program(), flood.kind, flood.payload),
                _make_x,
            ),
        ),
    )


def _transaction(team: Team) -> Program:
    return end(write(Program().start(), "x"))


def _empty_transaction(team: Team) -> Program:
    return end(Program().start())


def _kicks(stage: Stage, team: Team) -> Iterator[int]:
    guest = stage.guest(team.domids[0])
    yield 0
    while True:
        for _ in range(TURN):
            guest.kick()
        yield TURN


def _half_packets(stage: Stage, team: Team) -> Iterator[int]:
    """A WRITE of 4096 bytes that comes one byte at a time, each with a kick."""
    guest = stage.guest(team.domids[0])
    packet = wire.packet(wire.WRITE, 1, text("x") + b"v" * VALUE)
    yield 0
    while True:
        for at in range(0, len(packet), TURN):
            sent = 0
            for byte in packet[at : at + TURN]:
                while not guest.write(bytes([byte])):
                    guest.kick()
                    guest.read()
                    yield sent
                    sent = 0
                guest.kick()
                sent += 1
            guest.read()
            yield sent


def _reconnects(stage: Stage, team: Team) -> Iterator[int]:
    """A guest that asks for a new connection as soon as it has one, with watches to take down."""
    guest = stage.guest(team.domids[0])
    yield 0
    while True:
        guest.write(wire.packet(wire.WATCH, 1, text("x" + "/a" * 100, "token")))
        guest.write(wire.packet(wire.TRANSACTION_START, 2, b"\0"))
        guest.host.lib.xsd_guest_reconnect(guest.handle)
        for _ in range(20):
            if not guest.get("connection"):
                break
            guest.host.wait(0.001)
        yield 1


def _broken_rings(stage: Stage, team: Team) -> Iterator[int]:
    """Indices that cannot be, and a new connection, again and again."""
    guest = stage.guest(team.domids[0])
    yield 0
    while True:
        guest.set("req_prod", guest.get("req_cons") + 5 * RING)
        guest.kick()
        guest.host.wait(0.0005)
        guest.set("req_prod", guest.get("req_cons"))
        guest.host.lib.xsd_guest_reconnect(guest.handle)
        guest.host.wait(0.0005)
        yield 1


def _bad_lengths(stage: Stage, team: Team) -> Iterator[int]:
    """A header that announces more than a packet can hold, and a new connection."""
    guest = stage.guest(team.domids[0])
    yield 0
    while True:
        guest.write(wire.HEADER.pack(wire.READ, 1, 0, 5000))
        guest.kick()
        guest.host.wait(0.0005)
        guest.host.lib.xsd_guest_reconnect(guest.handle)
        guest.host.wait(0.0005)
        yield 1


def _slow_sockets(stage: Stage, team: Team) -> Iterator[int]:
    """100 sockets with a large packet each, of which one byte comes at a time."""
    clients = [_connected(stage) for _ in range(100)]
    packet = wire.packet(wire.READ, 1, b"x" * wire.PAYLOAD_MAX)
    yield 0
    at = 0
    while True:
        for client in clients:
            with suppress(OSError):
                client.send(packet[at : at + 1], sockets.MSG_DONTWAIT)
        if at == 0:
            for client in clients:
                with suppress(OSError):
                    client.recv(1 << 16, sockets.MSG_DONTWAIT)
        at = (at + 1) % len(packet)
        yield len(clients)


def _connected(stage: Stage) -> sockets.socket:
    client = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    client.connect(stage.socket)
    return client


def _closing(stage: Stage, team: Team) -> Iterator[int]:
    """A socket that asks for a lot and closes before it is answered."""
    data = wire.packet(wire.DIRECTORY, 1, text("/")) * TURN
    yield 0
    while True:
        client = _connected(stage)
        with suppress(OSError):
            client.send(data, sockets.MSG_DONTWAIT)
        client.close()
        yield TURN


def _churning_sockets(team: Team) -> Program:
    return Program().connect().read("/bench").close()


def _pipelining(team: Team) -> Program:
    program = Program()
    for i in range(64):
        write(program, f"/bench/p{i}", b"v" * 64)
        try_(program, wire.READ, text(f"/bench/p{i}"))
    return program


def _never_read(team: Team) -> Program:
    return try_(Program(), wire.DIRECTORY, text("/"))


def _deaths(stage: Stage, team: Team) -> Iterator[int]:
    """Domains die that stand in the permission lists of all the guest's nodes."""
    guest = stage.guest(team.domids[0])
    dying = range(20000, 20000 + LISTED)
    for i in range(NODES):
        guest.request(wire.WRITE, text(f"d{i}"))
        for length in LENGTHS:
            entries = permissions(f"n{team.domids[0]}", dying[:length])
            guest.request(wire.SET_PERMS, text(f"d{i}") + entries)
    yield 0
    number = 0
    while True:
        stage.come_and_go(20000 + number % LISTED)
        number += 1
        yield 2


ATTACKS = (
    *map(_flood, FLOODS),
    Attack(
        "flood-transaction",
        "A flood: transactions of one WRITE",
        "Three requests that make a tree and merge it.",
        (Role(_transaction),),
    ),
    Attack(
        "flood-empty-transaction",
        "A flood: transactions of nothing",
        "Two requests that make a tree for nothing.",
        (Role(_empty_transaction),),
    ),
    Attack(
        "flood-deaf",
        "A flood whose replies nobody reads",
        "Replies that wait; the daemon must stop to take requests.",
        (Role(_read_x, _make_x, deaf=True),),
    ),
    Attack(
        "kicks",
        "Event channel notifications with nothing in the ring",
        "Each may wake the daemon for nothing.",
        act=_kicks,
    ),
    Attack(
        "half-packets",
        "A large request in pieces of one byte, each with a notification",
        "Each byte is a turn of the daemon.",
        act=_half_packets,
    ),
    Attack(
        "ring-reconnects",
        "A guest that asks for a new connection all the time",
        "Watches and transactions of the old one have to go each time.",
        act=_reconnects,
    ),
    Attack(
        "broken-rings",
        "Rings with impossible indices",
        "A guest may write anything into its page, and each time there may be a warning.",
        act=_broken_rings,
    ),
    Attack(
        "bad-lengths",
        "Headers that announce more than a packet can hold",
        "The connection ends, and a new one begins; each time there may be a warning.",
        act=_bad_lengths,
    ),
    Attack(
        "domain-deaths",
        f"Domains die that stand in {NODES} permission lists",
        "Their entries have to go from every list, or a successor inherits rights.",
        act=_deaths,
        most=20,
    ),
    Attack(
        "socket-slow",
        "100 sockets that send a packet one byte at a time",
        "A hostile or stopped process in dom0.",
        act=_slow_sockets,
        most=5,
    ),
    Attack(
        "socket-churn",
        "16 sockets that connect, read and close",
        "Scripts that call xenstore-read do so all day.",
        (Role(_churning_sockets, via="socket", window=1, conns=16), Role()),
        most=20,
    ),
    Attack(
        "socket-close",
        "Sockets that ask 64 times and close at once",
        "Requests are served, or thrown away, for somebody who has gone.",
        act=_closing,
        most=20,
    ),
    Attack(
        "socket-pipelines",
        "8 sockets with 256 WRITEs and READs in flight each",
        "A turn that takes all that has come makes everybody else wait.",
        (Role(_pipelining, via="socket", conns=8, window=256), Role()),
        most=20,
    ),
    Attack(
        "socket-deaf",
        "8 sockets that ask and never read",
        "Replies that wait in the daemon.",
        (Role(_never_read, via="socket", conns=8, deaf=True), Role()),
        most=20,
    ),
)
