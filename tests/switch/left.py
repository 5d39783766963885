# SPDX-License-Identifier: LGPL-2.1-or-later
"""A state that a real daemon has left, on a pretended host of its own, and pyxsd that goes on.

Sockets, event channels, ring pages and domains are made as the recording says, and moved to the
numbers that the file has (leave.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyxsd.state import show, stream
from pyxsd.state.host_state import LETTERS
from tests.clients.daemon import PROJECT, Client, wait_for
from tests.domains.standin import DYING, GONE, SHUTDOWN, peers
from tests.state.recorded import meaning
from tests.switch.kit import SwitchedStand
from tests.world import TYPES

STATES = {"running": -1, "shutdown": SHUTDOWN, "dying": DYING, "gone": GONE}


class Adopted(Client):
    """Our end of a socket that the daemon has got from its predecessor."""

    def __init__(self, sock: socket.socket) -> None:  # pylint: disable=super-init-not-called
        self.sock = sock
        self.sock.settimeout(30)
        self.rest = b""
        self.found = []
        self.events = []
        self.serial = 5000

    def take(self, count: int) -> bytes:
        """The next bytes."""
        found = b""
        while len(found) < count:
            piece = self.sock.recv(count - len(found))
            assert piece, "it has closed"
            found += piece
        return found

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        self.sock.sendall(data)


class Guest:
    """A domain with the face of a Client."""

    def __init__(self, domain: Any) -> None:
        self.domain = domain
        self.events: list[bytes] = []
        domain._req_id = 5000

    def ask(self, type_: str, payload: bytes, tx_id: int = 0) -> tuple[int, bytes]:
        """One request and its answer."""
        events: list[Any] = []
        got = self.domain.request(TYPES[type_], payload, tx_id, events)
        self.events += [event.payload for event in events]
        return got.type, got.payload

    def packet(self) -> tuple[int, int, int, bytes]:
        """The next packet."""
        got = self.domain.packet()
        return got.type, got.req_id, got.tx_id, got.payload

    def take(self, count: int) -> bytes:
        """The next bytes."""
        return bytes(self.domain.receive(count))

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        self.domain.send(data)


class Left:
    """A recorded state on a pretended host, and pyxsd that goes on from it."""

    def __init__(self, path: Path) -> None:
        self.want = meaning(path)
        self.state = show.read_any(path.read_bytes())
        self.stand = SwitchedStand("pyxsd")
        self.root = self.stand.root
        self.clients: dict[str, Any] = {}
        self.domains: dict[int, Any] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.socket = self.root / "run" / "socket"
        self.listener.bind(str(self.socket))
        self.listener.listen(16)
        name = "db" if path.suffix == ".db" else "state_dump"
        self.file = self.root / "run" / name
        self.file.write_bytes(path.read_bytes())
        self.stem = path.stem
        self.virq: int = self.want["virq_port"] if path.suffix == ".db" else 0
        self.settings: dict[str, str] = {}
        self.bound = True  # are the event channels left behind, and in the file?
        self.process: Any = None

    def start(self, states: dict[str, str] | None = None, faults: tuple[str, ...] = ()) -> None:
        """Leaves the state behind and becomes pyxsd; answers when this returns."""
        host = self.stand.host
        dead = {int(key): value for key, value in (states or self.want["domains"]).items()}
        rings = {c["domid"]: c for c in self.want["connections"] if "domid" in c}
        for domid in map(int, self.want["domains"]):
            if domid:
                self.domains[domid] = host.create(domid)
        for domid in set(rings) - set(self.domains):
            self.domains[domid] = host.create(domid)
        ports = []
        for client in self.state.clients:
            if client.domid is None:
                ours, theirs = socket.socketpair()
                recorded = next(c for c in self.want["connections"] if c.get("fd") == client.fd)
                self.clients[recorded["conn"]] = Adopted(ours)
                recorded["theirs"] = theirs
            else:
                domain = self.domains.get(client.domid)
                ports.append([client.domid, domain.port if domain else 1, client.local_port])
                if domain is not None:
                    self._fill(domain, rings[client.domid])
                    if not rings[client.domid]["ring"]["error"]:
                        self.clients[f"d{client.domid}"] = Guest(domain)
        self._run(ports, dead, faults)

    @staticmethod
    def _fill(domain: Any, recorded: dict[str, Any]) -> None:
        ring = recorded.get("ring")
        if not ring:
            return
        unread = bytes.fromhex(ring["unread_requests"])
        for i, byte in enumerate(unread):
            domain.poke((ring["req_cons"] + i) % 1024, bytes([byte]))
        unread = bytes.fromhex(ring["unread_replies"])
        for i, byte in enumerate(unread):
            domain.poke(1024 + (ring["rsp_cons"] + i) % 1024, bytes([byte]))
        for name in ("req_cons", "req_prod", "rsp_cons", "rsp_prod", "connection", "error"):
            domain.set(name, ring[name])

    def _forget_channels(self) -> None:
        """Leaves a dump as oxenstoreds before 4.16.3 write it."""

        def line(fields: list[bytes]) -> bytes:
            if fields[0] == b"dom":
                domain = self.domains.get(int(fields[1]))
                fields = [*fields[:3], b"%d" % (domain.port if domain else 1)]
            return b",".join(fields)

        self.file.write_bytes(
            b"".join(
                line(row.split(b",")) + b"\n"
                for row in self.file.read_bytes().splitlines()
                if not row.startswith(b"evtchn-dev")
            )
        )

    def _run(self, ports: list[Any], dead: dict[int, str], faults: tuple[str, ...]) -> None:
        if not self.bound:
            self._forget_channels()
        argv = self.want.get("new_argv") or ["NEW", "--live", "--restart"]
        words = [word for word in argv[1:] if word not in ("--config-file", "ox.conf")]
        words = [str(self.root / "c.pid") if word == "c.pid" else word for word in words]
        theirs = [(c["theirs"], c["fd"]) for c in self.want["connections"] if "theirs" in c]
        theirs.append((self.listener, self.want["listen_fd"]))
        gate = self.root / "gate"
        os.mkfifo(gate)
        plan = {
            "ports": ports if self.bound else [],
            "virq": self.virq if self.bound else 0,
            "evtchn": self.want["evtchn_fd"] if self.bound else -1,
            "descriptors": [[sock.fileno(), wanted] for sock, wanted in theirs],
            "command": [
                "/bin/sh",
                "-c",
                f': <{gate}; exec "$0" "$@"',
                self.stand.pyxsd(**self.settings),
                *words,
            ],
        }
        (self.root / "plan").write_text(json.dumps(plan))
        env = peers.standin_env(self.root / "host")
        env.update(
            XENSTORED_RUNDIR=str(self.root / "run"),
            PYTHONPATH=str(PROJECT),
            XENSTORED_ROOTDIR=str(self.root / "none"),
        )
        with (self.root / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.switch.leave", str(self.root / "plan")],
                env=env,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[sock.fileno() for sock, _ in theirs],
            )
        with gate.open("wb"):  # all is left behind
            for domid in self.domains:
                state = STATES[dead.get(domid, "gone")]
                if state >= 0:
                    self.stand.host.set_state(domid, state)
                if state in (DYING, GONE):
                    self.clients.pop(f"d{domid}", None)
            self.stand.host.set_faults(*faults)
        for sock, _ in theirs:
            sock.close()
        wait_for(self._answers, "it does not answer", 30)
        self.clients["new"] = Client(self.socket)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.root / "output").read_text()
        log = self.stand.log_file
        return log.exists() and "live switch: took over" in log.read_text()

    def log(self) -> str:
        """The daemon's log."""
        return self.stand.log_file.read_text() + (self.root / "output").read_text()

    def outcome(self) -> bytes:
        """What the client that has asked for the switch is told: C's finds it in what C has left to
        be sent, oxenstored's asks once more."""
        client = self.clients["lu"]
        if self.state.kind == "stream":
            return b"OK"
        return bytes(client.ask("CONTROL", b"live-update\0-s\0")[1])

    def name(self, client: Any) -> str:
        """The recording's name of a client of the file."""
        if client.domid is not None:
            return f"d{client.domid}"
        return str(next(c["conn"] for c in self.want["connections"] if c.get("fd") == client.fd))

    def under_way(self) -> list[Any]:
        """What each client gets of what was under way; what of it is wrong."""
        wrong = []
        rings = {c["domid"]: c["ring"] for c in self.want["connections"] if "ring" in c}
        for state in self.state.clients:
            client = self.clients.get(self.name(state))
            if client is None:
                continue
            unread = bytes.fromhex(rings.get(state.domid, {}).get("unread_replies", ""))
            for what in (unread, state.output):
                got = client.take(len(what))
                if got != what:
                    wrong.append([self.name(state), what, got])
            whole, _ = stream.packets(state.input, False)
            for request in whole:  # in the order in which they were sent
                type_, req_id, *_ = struct.unpack("=4I", request[:16])
                told = client.packet()
                if told[:2] != (type_, req_id):
                    wrong.append([self.name(state), request, told])
        return wrong

    def prepare(self, payload: bytes) -> bytes:
        """A domain that is to be introduced, with a port that nobody has bound."""
        domid, mfn, _ = payload.split(b"\0")[:3]
        host, number = self.stand.host, int(domid)
        if number in self.domains:
            port = host.reset_port(number)
        else:
            self.domains[number] = host.create(number)
            port = self.domains[number].port
        if f"d{number}" not in self.clients:
            self.clients[f"d{number}"] = Guest(self.domains[number])
        return b"%s\0%s\0%d\0" % (domid, mfn, port)

    def collect(self) -> dict[str, list[str]]:
        """The events that each client has got since the last time, in hex."""
        found = {}
        for name, client in self.clients.items():
            if name == "new":
                continue
            client.ask("GET_DOMAIN_PATH", b"0\0")
            if client.events:
                found[name] = [event.hex() for event in client.events]
                client.events.clear()
        return found

    def tree(self) -> dict[str, list[Any]]:
        """{path: [permissions, value]} as a privileged client sees it."""
        client = self.clients["new"]
        found: dict[str, list[Any]] = {}
        todo = ["/"]
        while todo:
            path = todo.pop()
            name = path.encode("latin-1") + b"\0"
            perms = client.ask("GET_PERMS", name)[1].decode().split("\0")[:-1]
            type_, names = client.ask("DIRECTORY", name)
            assert type_ == TYPES["DIRECTORY"], (path, names)
            found[path] = [perms, client.ask("READ", name)[1].hex()]
            todo += [
                path.rstrip("/") + "/" + each.decode("latin-1")
                for each in names.split(b"\0")
                if each
            ]
        return found

    def wanted_tree(self) -> dict[str, list[Any]]:
        """The same as the file says it, after the requests that were held back."""
        found = {}
        for node in self.state.nodes:
            perms = [
                f"{LETTERS[entry.access]}{entry.domid}"
                for i, entry in enumerate(node.permissions)
                if i == 0 or not entry.stale
            ]
            path = node.path.decode("latin-1")
            found[path if path[0] == "/" else f"/{path}"] = [perms, node.value.hex()]
        return found

    def stop(self) -> None:
        """Ends it, and looks whether it had anything to complain of that it should not."""
        for client in self.clients.values():
            if isinstance(client, Client):
                client.close()
        well = False
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                assert self.process.wait(30) == 0, self.log()
                for word in ("Traceback", "unexpected", "request failed"):
                    assert word not in self.log(), self.log()
            well = True
        finally:
            self.stand.close(well)
