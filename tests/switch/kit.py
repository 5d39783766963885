# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pretended host whose xenstored changes while its guests run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.clients.daemon import PROJECT, Client, wait_for
from tests.domains.standin import Stand, peers, require, works

OK = b"OK\0"


#: Debian\'s daemons by the names of their programs.
C, OX = "xenstored", "oxenstored"


def real(name: str) -> str:
    """The path of Debian's daemon of that name; skips where it is not installed."""
    try:
        return str(peers.find_program(name))
    except peers.PeerMissing as error:
        require(str(error))
        raise


class SwitchedStand(Stand):
    """Begins with one of Debian's daemons or with pyxsd; the process stays the same."""

    def __init__(self, name: str, **options: Any) -> None:
        if name != "pyxsd":
            real(name)
        super().__init__(name, **options)

    def __enter__(self) -> SwitchedStand:
        return self

    def pyxsd(self, *words: str, **settings: str) -> str:
        """A program that is pyxsd with a configuration for this host."""
        values = {
            "pid-file": f"{self.root}/run/pyxsd.pid",
            "xenstored-log-file": str(self.log_file),
            "xenstored-log-level": "info",
            "access-log-file": f"{self.root}/run/access.log",
            "xenstored-kva": f"{self.root}/host/xsd_kva",
            "xenstored-port": f"{self.root}/host/xsd_port",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        config = self.root / "pyxsd.conf"
        config.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
        path = self.root / "pyxsd"
        more = " ".join(f"'{word}'" for word in words)
        path.write_text(
            f"#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m pyxsd "
            f"--config-file '{config}' {more} \"$@\"\n"
        )
        path.chmod(0o755)
        return str(path)

    def start_pyxsd(self, *arguments: str, **env: str) -> SwitchedStand:
        """Begins with pyxsd, where Debian's daemons find what they have built in."""
        moved = peers.standin_env(self.root / "host", self.root / "run")
        self.start(
            *arguments,
            LD_PRELOAD=moved["LD_PRELOAD"],
            XSD_STANDIN_RUNDIR=moved["XSD_STANDIN_RUNDIR"],
            **env,
        )
        return self

    def script(self, name: str, *lines: str) -> str:
        """A program of this host that is a shell script."""
        path = self.root / name
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        return str(path)

    def what_runs(self) -> str:
        """pyxsd, oxenstored or xenstored: what the process is now."""
        program = os.path.basename(os.readlink(f"/proc/{self.pid}/exe"))
        return "pyxsd" if program.startswith("python") else program


def a_stand(kind: type[SwitchedStand], name: str = "pyxsd") -> Any:
    """One of that kind that begins with that daemon; skips where Debian's are not installed, or it
    cannot be."""
    for peer in (C, OX):
        real(peer)
    try:
        return kind(name)
    except RuntimeError as error:
        require(str(error))
        raise


def begin_to_leave(client: Client, other: Client, program: str) -> int:
    """The client asks for a switch to that program, which waits for the other one's transaction,
    for a minute at most; its id."""
    tx_id = int(other.ask("TRANSACTION_START", b"\0")[1][:-1])
    assert control(client, "-f", program) == OK
    client.send("CONTROL", b"live-update\0-s\0-t\00060\0")
    wait_for(lambda: b"update: under way" in control(other), "it does not begin")
    return tx_id


class KeptStand(SwitchedStand):
    """One whose pyxsd has crash recovery, and so a keeper: the process that stays."""

    def __init__(self, name: str, **options: Any) -> None:
        settings = {"crash-recovery": "true"} if name == "pyxsd" else {}
        super().__init__(name, settings=settings, **options)

    def pyxsd(self, *words: str, **settings: str) -> str:
        return super().pyxsd(*words, **{"crash_recovery": "true", **settings})

    @property
    def child(self) -> int:
        """The process that serves; 0 where there is none at the moment."""
        found = children(self.pid)
        return found[0] if found else 0


def children(pid: int) -> list[int]:
    """Those of a process, also ones that have ended and are not waited for."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def control(client: Any, *words: str) -> bytes:
    """The answer to CONTROL live-update with these words; the client is a socket."""
    answer = client.ask(
        "CONTROL", b"".join(word.encode() + b"\0" for word in ("live-update", *words))
    )
    assert answer[0] == 0, answer
    return bytes(answer[1])


def switch(client: Client, program: str, *words: str, seconds: int = 30) -> bytes:
    """The dialogue as xenstore-control holds it, with all three daemons; its outcome."""
    answer = control(client, "-f", program)
    if answer not in (OK, b"OK"):
        return answer

    def outcome() -> bytes:
        told = control(client, "-s", "-t", str(seconds), *words)
        return b"" if told == b"BUSY" else told

    return bytes(wait_for(outcome, "the switch is never over"))


def must_switch(stand: SwitchedStand, client: Client, program: str, kind: str) -> None:
    """Switches; the same process is another program then."""
    pid = stand.pid
    assert switch(client, program).rstrip(b"\0") == b"OK", stand.log()
    assert (stand.pid, stand.what_runs()) == (pid, kind)


def state_file(stand: SwitchedStand) -> Path:
    """Where C xenstored leaves its state."""
    return stand.root / "run" / "state_dump"


def all_goes_on(client: Client, watcher: Client, kernel: Any, domains: list[Any]) -> None:
    """The store, the domains' rings and the watches of all kinds of clients are as before."""
    assert client.ask("READ", b"/a\0")[1] == b"\x00binary\xff"
    assert client.ask("GET_PERMS", b"/a\0")[1] == b"b0\0r3\0"
    for domain in domains:
        works(domain, client)
    client.ask("WRITE", b"/a/b\0x")
    assert watcher.event() == b"/a/b\0token\0"
    client.ask("WRITE", b"/k\0")
    assert kernel.packet().payload == b"/k\0kernel\0"
    client.ask("WRITE", b"/local/domain/3/in\0x")
    assert domains[1].packet().payload == b"in\0tok\0"
