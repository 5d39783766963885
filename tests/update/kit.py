# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon that is updated again and again, and the programs that it is updated to."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.clients.daemon import PROJECT, Client, Daemon, wait_for
from tests.domains.standin import Stand

OK = b"OK\0"
BUSY = b"BUSY"


def control(client: Client, *words: str) -> bytes:
    """The answer to CONTROL live-update with these words."""
    payload = "\0".join(["live-update", *words]).encode() + b"\0"
    type_, answer = client.ask("CONTROL", payload)
    assert type_ == 0, (type_, answer)
    return answer


def outcome(client: Client, *words: str) -> bytes:
    """Asks with -s until the answer is another one than BUSY; that answer."""

    def over() -> bytes:
        answer = control(client, "-s", *words)
        return b"" if answer == BUSY else answer or b"(empty)"

    return bytes(wait_for(over, "the update is never over"))


def program(folder: Path, *fault: str) -> str:
    """A program that is pyxsd, or one that fails as tests.update.faulty says."""
    path = folder / "-".join(["program", *fault])
    module = "tests.update.faulty" if fault else "pyxsd"
    words = " ".join(f"'{word}'" for word in fault)
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m {module} {words} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def descriptors(pid: int) -> list[str]:
    """What the descriptors of a process lead to, sorted, without the numbers of pipes and sockets,
    which differ from process to process, and without the stand-in's way to the guests, which a
    process opens with its first kick."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":[")[0]
            if "/host/evt/0." not in name:
                found.append(name)
        except FileNotFoundError:
            pass  # that of the listing, where it is our own
    return sorted(found)


def wait_for_descriptors(pid: int, wanted: list[str]) -> None:
    """Waits until a process has these descriptors and no others."""
    try:
        wait_for(lambda: descriptors(pid) == wanted, "")
    except TimeoutError:
        assert descriptors(pid) == wanted


class UpdatedDaemon(Daemon):
    """A daemon whose process changes."""

    @property
    def pid(self) -> int:
        """The process that serves now."""
        return int(self.pid_file.read_text())

    def end_all(self) -> None:
        """SIGTERM to whoever serves; it must end well and leave no pid file."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.pid_file.exists(), "the pid file stays")
        wait_for(lambda: is_gone(pid), "it does not end")


class UpdatedStand(Stand):
    """The same on a pretended host."""

    @property
    def pid(self) -> int:
        """The process that serves now."""
        path = self.root / "run" / "pid"
        return int(path.read_text()) if path.exists() else int(self.peer.pid)

    def terminate(self) -> None:
        """SIGTERM to whoever serves."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: is_gone(pid), "it does not end")


def is_gone(pid: int) -> bool:
    """Has the process ended?  One that nobody waits for has, too."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def update(client: Client, path: str = "", *words: str) -> None:
    """A whole update, which must go well."""
    if path:
        assert control(client, "-f", path) == OK
    answer: Any = outcome(client, *words)
    assert answer == b"OK", answer
