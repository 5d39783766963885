# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real daemon, and Debian's two, each on a pretended host of its own."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.daemon import Client, end_all_of, wait_for

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "glue" / "standin"))

# Plain modules of the stand-in's folder, which no type checker sees.
guests: Any = importlib.import_module("guest")
peers: Any = importlib.import_module("peers")

GONE, RUNNING, SHUTDOWN, DYING, DEAD = range(5)
WATCH_EVENT = 15
MFN = 4660
#: Held without a guest: dom0's channel and the virtual interrupt; dom0's page.
IDLE = (2, 1)
NAMES = ("pyxsd", "oxenstored", "xenstored")


def require(reason: str) -> None:
    """Something is missing: fails where all must run, else skips."""
    if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Stand:
    """A daemon on a pretended host: start() it, and use as a context manager."""

    def __init__(
        self, name: str = "pyxsd", *, settings: Mapping[str, str] | None = None, manage: str = ""
    ) -> None:
        self.name = name
        self.manage = manage
        self.root: Path = peers.make_root(None)
        self.settings = dict(settings or {})
        self.host: Any = guests.Host(self.root / "host")
        self.peer: Any = None
        self.arguments: Sequence[str] = ()
        self.program: Sequence[str] = ("-m", "pyxsd")
        self.env: dict[str, str] = {}
        self.log_file = self.root / "run" / "xenstored.log"

    def start(self, *arguments: str, **env: str) -> Stand:
        """Starts it, or again after it has ended; answers when this returns."""
        socket = self.root / "run" / "socket"
        if socket.exists():
            socket.unlink()
        if self.name == "pyxsd":
            values = {
                "pid-file": f"{self.root}/run/pid",
                "xenstored-log-file": str(self.log_file),
                "xenstored-log-level": "info",
                "access-log-file": f"{self.root}/run/access.log",
                "xenstored-kva": f"{self.root}/host/xsd_kva",
                "xenstored-port": f"{self.root}/host/xsd_port",
                **self.settings,
            }
            config = self.root / "pyxsd.conf"
            config.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
            command = [
                sys.executable,
                *self.program,
                "--no-fork",
                "--config-file",
                str(config),
                *arguments,
            ]
            self.peer = peers.start_command(
                "pyxsd",
                command,
                self.root,
                sock=socket,
                manage=self.manage,
                extra_env={
                    "PYTHONPATH": str(PROJECT),
                    "XENSTORED_RUNDIR": f"{self.root}/run",
                    **env,
                },
            )
        elif self.name == "oxenstored":
            self.peer = peers.start_oxenstored(self.root, settings=self.settings, args=arguments)
        else:
            self.peer = peers.start_xenstored(self.root, args=arguments)
        return self

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return int(self.peer.pid)

    def client(self) -> Client:
        """A new connection to the socket."""
        return Client(self.peer.socket)

    def held(self) -> tuple[int, int]:
        """(ports, pages) that the daemon holds."""
        return (self.host.ports_in_use(), guests.count_mappings(self.pid, self.host.directory))

    def settles(self, wanted: tuple[int, int] = IDLE) -> None:
        """Waits until ports and pages are as they should be."""
        try:
            wait_for(lambda: self.held() == wanted, "")
        except TimeoutError:
            pytest.fail(f"(ports, pages) are {self.held()}, not {wanted}")

    def log(self) -> str:
        """The daemon's log and what it wrote to stderr."""
        text = str(self.peer.output()) if self.peer else ""
        if self.log_file.exists():
            text = self.log_file.read_text(errors="replace") + text
        return text

    def pause(self) -> None:
        """Holds the daemon, so that several things come to it at once."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: self._state() == "T", "it does not stop")

    def resume(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def terminate(self) -> None:
        """SIGTERM, which must end it well."""
        self.peer.process.terminate()
        assert self.peer.process.wait(30) == 0, self.log()

    def close(self, check: bool) -> None:
        """Ends it, checks its log, and removes the host."""
        import shutil

        try:
            if check and self.name == "pyxsd" and self.peer:
                assert self.peer.process.poll() in (None, 0, -signal.SIGKILL), self.log()
                for word in ("Traceback", "unexpected", "request failed"):
                    assert word not in self.log(), self.log()
        finally:
            if self.peer:
                if self.peer.process.poll() is None:
                    self.resume()
                self.peer.stop()
            end_all_of(self.root)
            self.host.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(kind is None)


def introduce(client: Client, domain: Any, mfn: int = MFN, port: int = 0) -> bytes:
    """INTRODUCE of a guest; the body of the answer."""
    return client.ask("INTRODUCE", b"%d\0%d\0%d\0" % (domain.domid, mfn, port or domain.port))[1]


def home(client: Client, domid: int) -> None:
    """A home that the domain owns."""
    path = b"/local/domain/%d\0" % domid
    assert client.ask("MKDIR", path)[1] == b"OK\0"
    assert client.ask("SET_PERMS", path + b"n%d\0" % domid)[1] == b"OK\0"


def with_homes(stand: Stand, client: Client, *domids: int) -> list[Any]:
    """Guests that are introduced, each with a home of its own."""
    domains = [stand.host.create(domid) for domid in domids]
    for domain in domains:
        assert introduce(client, domain) == b"OK\0"
        home(client, domain.domid)
    return domains


def works(domain: Any, client: Client, value: bytes = b"fine") -> None:
    """Domain and socket see what the other has written."""
    assert domain.request(11, b"alive\0" + value).payload == b"OK\0"
    path = b"/local/domain/%d/alive\0" % domain.domid
    assert client.ask("READ", path)[1] == value
    assert client.ask("WRITE", path + value[::-1])[1] == b"OK\0"
    assert domain.request(2, b"alive\0").payload == value[::-1]


def elapsed(since: float) -> str:
    """Milliseconds, for what is printed."""
    return f"{(time.monotonic() - since) * 1000:.0f} ms"
