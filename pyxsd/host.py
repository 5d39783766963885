# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the server asks of those above it, brought together."""

from __future__ import annotations

import os

from pyxsd import _conn, features
from pyxsd.control import Control
from pyxsd.events import trie
from pyxsd.store import transaction, tree
from pyxsd.system.files import replace_contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from pyxsd.system.daemon_log import DaemonLog


class Requests:
    """Where the requests go that are not the server's alone; server, domains and commands are set
    by who makes them."""

    def __init__(self) -> None:
        self.server: Any = None
        self.domains: Any = None
        self.commands: Any = None

    def introduce(self, connection: Any, domid: int, mfn: int, port: int) -> None:
        """INTRODUCE."""
        self.domains.introduce(connection, domid, mfn, port)

    def release(self, connection: Any, domid: int) -> None:
        """RELEASE."""
        self.domains.release(connection, domid)

    def resume(self, connection: Any, domid: int) -> None:
        """RESUME."""
        self.domains.resume(connection, domid)

    def control(self, connection: Any, payload: bytes) -> bytes | None:
        """CONTROL; None: the answer comes later."""
        answer: bytes | None = self.commands.run(connection, payload)
        return answer

    def feature_or_quota(self, connection: Any, type_: int, payload: bytes) -> bytes:
        """GET_FEATURE and the other newer requests."""
        return features.run(self.server, connection, type_, payload)

    def mfn(self, domid: int) -> int:
        """What the domain was introduced with; KeyError."""
        return int(self.domains.table[domid].mfn)


class Host(Requests):
    """The server's host and the commands' (control.ControlHost) in one."""

    def __init__(self, daemon_log: DaemonLog) -> None:
        super().__init__()
        self.daemon_log = daemon_log
        self.recorder: Any = None  # where what comes from outside can be recorded
        self.updates: Any = None  # the Dialogue about live updates, from the first command on
        self.begin_updates: Callable[[], Any] | None = None  # makes it
        self.own_program: Callable[[], Any] = lambda: None  # the Program that this process runs

    def attach(self, server: Any, domains: Any) -> None:
        """Whom requests go to."""
        self.server = server
        self.domains = domains
        self.commands = Control(server, self)

    # -- the server's side ----------------------------------------------------

    def log(self, level: str, facility: str, text: str) -> None:
        """A line for the daemon log."""
        self.daemon_log.log(level, facility, text)

    def complain(self, kind: str, text: str) -> None:
        """A warning that clients can cause as often as they like: a few of a kind in a minute."""
        self.daemon_log.limited(kind, text)

    # -- the commands' side ---------------------------------------------------

    def trim(self) -> None:
        """Gives free memory back to the system."""
        tree.trim_memory()

    def access_log(self, on: bool | None) -> bool:
        """Switches the access log; whether it is on."""
        if on is not None:
            self.server.log.switch(on)
        return bool(self.server.log.active)

    def log_file(self, path: str) -> None:
        """Lets the daemon log go to another file."""
        self.daemon_log.redirect(path)

    def replace(self, path: bytes, text: str) -> None:
        """Writes a file anew; OSError."""
        replace_contents(path, text)

    def memory(self) -> str:
        """Resident memory and the objects alive, a line each."""
        rows = [f"resident: {resident_bytes()} bytes"]
        for module in (tree, trie, transaction, _conn):
            rows += [f"{name}: {count}" for name, count in module.live_counts().items()]
        return "\n".join(rows) + "\n"

    def record(self, word: str) -> bytes:
        """record: see record.recorder."""
        if self.recorder is None:
            return b"record-directory is not configured\0"
        answer: bytes = self.recorder.command(word)
        return answer

    def live_update(self, connection: Any, arguments: list[str]) -> bytes | None:
        """live-update: see update.dialogue."""
        answer: bytes | None = self.dialogue().command(connection, arguments)
        return answer

    def program(self) -> Any:
        """The Program that takes over in the next live update, or goes on where this process dies:
        this one's own, unless another one was chosen."""
        return self.own_program() if self.updates is None else self.updates.program

    def dialogue(self) -> Any:
        """The Dialogue about live updates, which is made for the first one that asks for it."""
        if self.updates is None and self.begin_updates is not None:
            self.updates = self.begin_updates()
        return self.updates


def resident_bytes() -> int:
    """The resident memory of this process, in bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
