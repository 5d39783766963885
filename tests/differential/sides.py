# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two daemons of a comparison, each on a pretended host of its own, and their clients.

A client is a socket ("s0") or a guest with its ring ("d1").  After requests every client asks a
question whose answer is known: whatever came before that answer is all there was.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.clients.daemon import Client, wait_for
from tests.world import EVENT, TYPES, packet

PROJECT = Path(__file__).resolve().parents[2]
STANDIN = PROJECT / "glue" / "standin"
if str(STANDIN) not in sys.path:
    sys.path.insert(0, str(STANDIN))

import guest  # noqa: E402
import peers  # noqa: E402

BARRIER = TYPES["GET_DOMAIN_PATH"]
BARRIER_ID = 0xB0000000
SOCKETS = ("s0", "s1", "s2")
DOMIDS = (1, 2, 3)
NAMES = (*SOCKETS, *(f"d{domid}" for domid in DOMIDS))

Answer = tuple[int, int, bytes]  # type, tx_id, payload


class Request(NamedTuple):
    """One request of one client; tx: 0 none, else its tx-th open transaction or a made-up id."""

    who: str
    type: int
    payload: bytes
    tx: int = 0


class Seen(NamedTuple):
    """What came of some requests: their answers in order, and everybody's events."""

    answers: list[Answer]
    events: dict[str, list[bytes]]


class Ring:
    """A guest with the face of a Client."""

    def __init__(self, domain: Any) -> None:
        self.domain = domain

    def sendall(self, data: bytes) -> None:
        """Bytes into the ring."""
        self.domain.send(data)

    def packet(self) -> tuple[int, int, int, bytes]:
        """The next packet."""
        got = self.domain.packet()
        return got.type, got.req_id, got.tx_id, got.payload

    def close(self) -> None:
        """Its domain decides; nothing to do."""


class Socket(Client):
    """A Client that takes bytes."""

    def sendall(self, data: bytes) -> None:
        """Bytes into the socket."""
        self.sock.sendall(data)


class Side:
    """One daemon and its clients.  start() begins a sequence, from an empty store."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.name: str = peer.name
        self.host = guest.Host(peer.host)
        self.clients: dict[str, Any] = {}
        self.open: dict[str, list[int]] = {}
        #: domid: the domain for which it acts too (SET_TARGET).
        self.targets: dict[int, int] = {}
        self.serial = 0

    def stop(self) -> None:
        """Ends the daemon and removes its files."""
        for client in self.clients.values():
            client.close()
        self.host.close()
        if self.name != "pyxsd":
            # oxenstored may wait for ever at SIGTERM.
            self.peer.kill()
        self.peer.stop()
        shutil.rmtree(self.peer.root, ignore_errors=True)

    # -- clients that come and go ----------------------------------------------

    def connect(self, name: str) -> None:
        """A new socket, or a new domain that is introduced by s0."""
        self.open[name] = []
        if name[0] == "s":
            self.clients[name] = Socket(self.peer.socket)
            return
        domid = int(name[1:])
        domain = self.host.create(domid)
        self.clients[name] = Ring(domain)
        introduced = self.one(
            "s0", "INTRODUCE", b"%d\x00%d\x00%d\0" % (domid, 4660 + domid, domain.port)
        )
        assert introduced[2] == b"OK\0", (self.name, name, introduced)

    def _leave_something(self, name: str) -> None:
        """A node of the domain, so that its end changes the store."""
        path = b"/left/" + name.encode() + b"\0"
        self.one("s0", "WRITE", path)
        self.one("s0", "SET_PERMS", path + b"n%s\0" % name[1:].encode())

    def end_transactions_of_guests(self) -> None:
        """Before a domain comes: a guest may act for it from then on, and read in its transactions
        of before what belonged to the last one of that domid: in oxenstored alone (known.py)."""
        for name in self.clients:
            while name[0] == "d" and self.open[name]:
                ending = Request(name, TYPES["TRANSACTION_END"], b"F\0", 1)
                if self.run([ending], False).answers[0][2] != b"OK\0":
                    # quota-maxrequests: it can only be given up with all the others.
                    self.run([Request(name, TYPES["RESET_WATCHES"], b"\0")], False)

    def _end_targets(self, domid: int) -> None:
        """Nobody acts for a domain that ends now.

        pyxsd takes the right away by itself, oxenstored keeps it (a documented deviation): with the
        domain itself as its target, a domain has the same rights on both sides.
        """
        for holder, target in list(self.targets.items()):
            if target == domid and f"d{holder}" in self.clients:
                self.one("s0", "SET_TARGET", b"%d\0%d\0" % (holder, holder))

    def disconnect(self, name: str) -> None:
        """A socket closes; a domain is released by s0."""
        if name[0] == "d":
            self._end_targets(int(name[1:]))
            self._leave_something(name)
        client = self.clients.pop(name)
        if name[0] == "d":
            self.one("s0", "RELEASE", name[1:].encode() + b"\0")
            client.domain.close()
            self.host.guests.remove(client.domain)
            self.host.set_state(int(name[1:]), guest.GONE)
        client.close()

    def die(self, name: str) -> None:
        """The domain dies; the daemon is told by the virtual interrupt."""
        self._end_targets(int(name[1:]))
        self._leave_something(name)
        client = self.clients.pop(name)
        self.host.set_state(int(name[1:]), guest.DEAD)
        question = name[1:].encode() + b"\0"
        wait_for(
            lambda: self.one("s0", "IS_DOMAIN_INTRODUCED", question)[2] == b"F\0",
            f"{self.name} does not notice that {name} died",
        )
        client.domain.close()
        self.host.guests.remove(client.domain)
        self.host.set_state(int(name[1:]), guest.GONE)

    def start(self) -> None:
        """Ends all that a sequence left behind, and connects everybody anew."""
        if "s0" not in self.clients:
            self.connect("s0")
        for name in [name for name in self.clients if name[0] == "d"]:
            self.disconnect(name)
        for domid in DOMIDS:
            self.one("s0", "RELEASE", b"%d\0" % domid)
        for name in SOCKETS:
            if name in self.clients:
                self.clients.pop(name).close()
            self.connect(name)
        self.one("s0", "RM", b"/\0")
        self.one("s0", "SET_PERMS", b"/\0n0\0")
        self.one("s0", "WRITE", b"/\0")
        for path in (b"/local/domain", b"/tool", b"@introduceDomain", b"@releaseDomain"):
            self.one("s0", "MKDIR", path + b"\0")
        for domid in DOMIDS:
            self.connect(f"d{domid}")
            home = b"/local/domain/%d\0" % domid
            self.one("s0", "MKDIR", home)
            self.one("s0", "SET_PERMS", home + b"n%d\0" % domid)

    # -- requests ---------------------------------------------------------------

    def one(self, who: str, type_: str, payload: bytes) -> Answer:
        """One request outside the comparison; events are dropped."""
        return self.run([Request(who, TYPES[type_], payload)], False).answers[0]

    def run(self, requests: list[Request], others: bool = True) -> Seen:
        """Some requests of one client in one piece, then all that came of them."""
        seen = Seen([], {})
        if requests:
            who = requests[0].who
            data, asked = b"", []
            for request in requests:
                self.serial += 1
                ids = self.open[who]
                tx_id = ids[-1 - (request.tx - 1) % len(ids)] if request.tx and ids else request.tx
                data += packet(request.type, request.payload, tx_id, self.serial)
                asked.append((self.serial, request.type, tx_id))
            self._collect(who, data, asked, seen)
            for request, answer in zip(requests, seen.answers):
                if answer[0] == request.type == TYPES["SET_TARGET"]:
                    holder, target = (
                        int((re.findall(rb"\d+", number) or [b"0"])[0])
                        for number in request.payload.split(b"\0")[:2]
                    )
                    self.targets[holder] = target
        if others:
            for name in sorted(self.clients):
                if not requests or name != requests[0].who:
                    self._collect(name, b"", [], seen)
        return seen

    def _collect(
        self, who: str, data: bytes, asked: list[tuple[int, int, int]], seen: Seen
    ) -> None:
        """Sends, and reads up to the answer of the barrier."""
        client = self.clients[who]
        self.serial += 1
        client.sendall(data + packet(BARRIER, b"0\0", 0, BARRIER_ID + self.serial))
        answered = 0
        while True:
            type_, req_id, tx_id, payload = client.packet()
            if type_ == EVENT:
                assert (req_id, tx_id) == (0, 0), (self.name, payload)
                seen.events.setdefault(who, []).append(payload)
                continue
            if req_id == BARRIER_ID + self.serial:
                assert answered == len(asked), (self.name, who, answered, asked)
                return
            assert answered < len(asked) and req_id == asked[answered][0], (
                self.name,
                who,
                req_id,
                type_,
                payload,
                asked,
            )
            self._follow(who, asked[answered], type_, payload)
            answered += 1
            seen.answers.append((type_, tx_id, payload))

    def _follow(self, who: str, asked: tuple[int, int, int], type_: int, payload: bytes) -> None:
        """Keeps the list of the client's open transactions."""
        _, kind, tx_id = asked
        ids = self.open[who]
        if type_ == kind == TYPES["TRANSACTION_START"]:
            ids.append(int(payload[:-1]))
        elif kind == TYPES["RESET_WATCHES"] and type_ == kind:
            ids.clear()
        elif (
            kind == TYPES["TRANSACTION_END"]
            and tx_id in ids
            and (type_ == kind or payload in (b"EAGAIN\0", b"EINVAL\0"))
        ):
            # EINVAL for a wrong letter leaves it open.
            if payload != b"EINVAL\0":
                ids.remove(tx_id)

    def tree(self) -> list[tuple[bytes, bytes, bytes]]:
        """(path, permissions, value) of every node, as s0 sees them."""
        found = []
        todo = [b"/"]
        while todo:
            path = todo.pop()
            perms = self.one("s0", "GET_PERMS", path + b"\0")
            value = self.one("s0", "READ", path + b"\0")
            names = self.one("s0", "DIRECTORY", path + b"\0")
            found.append((path, perms[2], value[2]))
            if names[0] == TYPES["DIRECTORY"]:
                todo += [path.rstrip(b"/") + b"/" + name for name in names[2].split(b"\0") if name]
        return sorted(found)


def start_pyxsd(settings: Mapping[str, str]) -> Side:
    """pyxsd with domain 0's ring on a new pretended host."""
    root = peers.make_root(None)
    config = peers.oxenstored_config(root, settings)
    command = [sys.executable, "-m", "pyxsd", "--no-fork", "--config-file", str(config)]
    return Side(
        peers.start_command(
            "pyxsd",
            command,
            root,
            sock=root / "run" / "socket",
            extra_env={"XENSTORED_RUNDIR": str(root / "run"), "PYTHONPATH": str(PROJECT)},
        )
    )


def start_oxenstored(settings: Mapping[str, str]) -> Side:
    """Debian's oxenstored on another one."""
    return Side(peers.start_oxenstored(peers.make_root(None), settings=settings))


def missing() -> str:
    """Why no comparison is possible here; empty where it is."""
    try:
        peers.find_program("oxenstored")
    except peers.PeerMissing as error:
        return str(error)
    return "" if shutil.which("gcc") and shutil.which("make") else "gcc and make are needed"
