# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is tried on a machine with a real systemd, in this machine; prints a line for each check.

The daemon runs as a service in each of two ways: by Xen's unit and its script launch-xenstore
("launch"), and by that unit with pyxsd's drop-in, which starts it in the foreground ("dropin"); and
in both with crash-recovery = true and the drop-in for it ("launch-kept", "dropin-kept").
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

UNIT = "xenstored.service"
DROP_INS = "/etc/systemd/system/xenstored.service.d"
CONFIG = "/etc/xen/oxenstored.conf"
PID_FILE = "/run/xen/xenstored.pid"
SOCKET = "/run/xenstored/socket"
STATE = "/run/xenstored/db"
PATIENCE = 120.0  # seconds; the processor is emulated

CONTROL, READ, WATCH, WRITE, EVENT, ERROR = 0, 2, 4, 11, 15, 16
TRANSACTION_START, TRANSACTION_END = 6, 7


class Client:
    """A connection that stays while daemons come and go."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(SOCKET)
        self.events: list[bytes] = []

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError("the daemon has closed the connection")
            data += piece
        return data

    def _packet(self) -> tuple[int, bytes]:
        kind, _, _, length = struct.unpack("<IIII", self._exactly(16))
        return kind, self._exactly(length)

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> bytes:
        """A request's answer; RuntimeError where that is an error."""
        self.socket.sendall(struct.pack("<IIII", kind, 0, transaction, len(payload)) + payload)
        while True:
            answered, payload = self._packet()
            if answered != EVENT:
                break
            self.events.append(payload)
        if answered == ERROR:
            raise RuntimeError(payload.decode())
        return payload

    def event(self) -> bytes:
        """The next event."""
        while not self.events:
            kind, payload = self._packet()
            if kind == EVENT:
                self.events.append(payload)
        return self.events.pop(0)

    def live_update(self, *words: bytes) -> bytes:
        """The answer to CONTROL live-update."""
        return self.ask(CONTROL, b"\0".join([b"live-update", *words, b""])).rstrip(b"\0")

    def outcome(self) -> bytes:
        """Updates; the outcome."""
        return until(lambda: (lambda said: said != b"BUSY" and said)(self.live_update(b"-s")))


def until(what: Callable[[], Any]) -> Any:
    """Polls for what announces itself by no event."""
    end = time.monotonic() + PATIENCE
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


def systemctl(*words: str) -> str:
    """Its output; RuntimeError."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"systemctl {' '.join(words)}: {done.stderr}")
    return done.stdout


def shown(name: str) -> str:
    """A property of the unit."""
    return systemctl("show", "-p", name, "--value", UNIT).strip()


def pid() -> int:
    """Who serves."""
    with open(PID_FILE) as file:
        return int(file.read())


def alive(number: int) -> bool:
    """Is it a process that has not ended?"""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # before it is opened, or behind that
        return False


def same(found: object, wanted: object) -> None:
    """AssertionError where they differ."""
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def oom_score(number: int) -> str:
    """As systemd or the script has set it."""
    with open(f"/proc/{number}/oom_score_adj") as file:
        return file.read().strip()


def starts(way: str) -> None:
    """The unit is active when the daemon answers."""
    systemctl("start", UNIT)
    same(shown("ActiveState"), "active")
    same(alive(pid()), True)
    same(Client().ask(READ, b"/\0"), b"")
    until(lambda: oom_score(pid()) == "-500")  # the script sets it when the daemon is ready
    if foreground(way):
        same(shown("MainPID"), str(pid()))
    if kept(way):
        until(lambda: oom_score(child()) == "-500")


def foreground(way: str) -> bool:
    """Is the daemon the unit's main process?"""
    return way.startswith("dropin")


def kept(way: str) -> bool:
    """May it be killed?"""
    return way.endswith("kept")


def child() -> int:
    """The daemon proper; 0 where there is none at the moment."""
    return int((children(pid()) or ["0"])[0])


def children(number: int) -> list[str]:
    """Those of a process."""
    try:
        with open(f"/proc/{number}/task/{number}/children") as file:
            return file.read().split()
    except OSError:
        return []


def updates(way: str) -> None:
    """Twice; a client with a watch sees nothing of it."""
    client = Client()
    client.ask(WATCH, b"/watched\0token\0")
    client.event()
    for _ in range(2):
        update(way, client)


def update(way: str, client: Client) -> None:
    """One update; the unit and its process are as they should be."""
    before = pid()
    same(client.outcome(), b"OK")
    after = pid()
    if after == before:
        raise AssertionError("no other process took over")
    until(lambda: not alive(before))
    same(shown("ActiveState"), "active")
    client.ask(WRITE, b"/watched\0%d" % after)
    same(client.event(), b"/watched\0token\0")
    until(lambda: shown("MainPID") in (str(after), "0"))
    if foreground(way):
        same(shown("MainPID"), str(after))
    same(alive(after), True)
    same(oom_score(after), "-500")
    with open(f"/proc/{after}/cgroup") as file:
        same(UNIT in file.read(), True)


def survives_a_program_that_hangs(_way: str) -> None:
    """The old one goes on."""
    client = Client()
    before = pid()
    said = client.live_update(b"-f", b"/system/hangs")
    if b"did not say `ready`" not in said:
        raise AssertionError(f"of a program that hangs: {said!r}")
    same(pid(), before)
    same(shown("ActiveState"), "active")
    client.ask(WRITE, b"/after\0x")
    same(Client().ask(READ, b"/after\0"), b"x")


def survives_the_kill_of_the_new_one(way: str) -> None:
    """The new program is killed while it waits for the state."""
    client = Client()
    before = pid()
    serves = child() if kept(way) else before
    same(client.live_update(b"-s"), b"BUSY")
    for number in until(lambda: children(serves)):
        os.kill(int(number), signal.SIGKILL)
    said = client.outcome()
    if said == b"OK":
        raise AssertionError("the new program was killed, and the answer is OK")
    same(pid(), before)
    same(shown("ActiveState"), "active")
    same(client.ask(READ, b"/\0"), b"")


class Watcher:
    """A client with a watch and an open transaction, which nothing of it may notice."""

    def __init__(self) -> None:
        self.client = Client()
        self.client.ask(WATCH, b"/watched\0token\0")
        self.client.event()
        self.transaction = self.client.ask(TRANSACTION_START, b"\0").rstrip(b"\0")
        self.serial = 0

    def look(self) -> None:
        """All is there, and the unit is active."""
        self.serial += 1
        value = b"%d" % self.serial
        self.client.ask(WRITE, b"/watched\0" + value)
        same(self.client.event(), b"/watched\0token\0")
        same(Client().ask(READ, b"/watched\0"), value)
        same(shown("ActiveState"), "active")

    def end(self) -> None:
        """Its transaction is there, too."""
        self.client.ask(TRANSACTION_END, b"F\0", int(self.transaction))


def dies(how: Callable[[int], None]) -> None:
    """The child's end, and another one in its place."""
    keeper, before = pid(), child()
    how(before)
    until(lambda: not alive(before) and child() not in (0, before))
    same(pid(), keeper)


def survives_kills_of_the_child(_way: str) -> None:
    """Ten of them."""
    watcher = Watcher()
    for _ in range(10):
        dies(lambda number: os.kill(number, signal.SIGKILL))
        watcher.look()
    watcher.end()


def run_out_of_memory(number: int) -> None:
    """The kernel takes this process for the one to kill where memory has run out."""
    with open(f"/proc/{number}/oom_score_adj", "w") as file:
        file.write("1000")
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("f")


def survives_the_oom_killer(_way: str) -> None:
    """It kills the child; systemd hears of it."""
    watcher = Watcher()
    for _ in range(2):
        dies(run_out_of_memory)
        watcher.look()
    watcher.end()
    time.sleep(1)  # for systemd to do the wrong thing
    watcher.look()


def survives_kills_of_the_keeper(way: str) -> None:
    """The child gets another one; then that is killed, and then the child."""
    watcher = Watcher()
    for _ in range(2):
        before = pid()
        os.kill(before, signal.SIGKILL)
        watcher.look()
        until(lambda: pid() != before and child())  # noqa: B023
        until(lambda: b"by process %d" % pid() in watcher.client.live_update())
        watcher.look()
        dies(lambda number: os.kill(number, signal.SIGKILL))
        watcher.look()
    watcher.end()
    same(oom_score(child()), "-500")


def ends(_way: str) -> None:
    """SIGTERM to the unit: the state is on disk, the unit is not failed."""
    number = pid()
    systemctl("kill", UNIT)
    until(lambda: not alive(number))
    same(os.stat(STATE).st_mode & 0o777, 0o600)
    same(os.path.exists(PID_FILE), False)
    until(lambda: shown("MainPID") == "0")
    if shown("ActiveState") == "failed":
        raise AssertionError("the unit has failed: " + systemctl("status", UNIT))


def goes(_way: str) -> None:
    """The unit can be stopped."""
    systemctl("stop", UNIT)
    same(shown("ActiveState"), "inactive")


STEPS = (
    starts,
    updates,
    survives_a_program_that_hangs,
    survives_the_kill_of_the_new_one,
    ends,
    goes,
)

KEPT_STEPS = (
    starts,
    survives_kills_of_the_child,
    updates,
    survives_the_oom_killer,
    survives_the_kill_of_the_new_one,
    survives_kills_of_the_keeper,
    ends,
    goes,
)


def choose(way: str) -> None:
    """Makes unit and configuration those of this way."""
    os.makedirs(DROP_INS, exist_ok=True)
    for name, wanted in (("pyxsd.conf", foreground(way)), ("pyxsd-recovery.conf", kept(way))):
        if wanted:
            shutil.copy(f"/system/{name}", DROP_INS)
        elif os.path.exists(f"{DROP_INS}/{name}"):
            os.unlink(f"{DROP_INS}/{name}")
    with open(CONFIG) as file:
        lines = [line for line in file if not line.startswith("crash-recovery")]
    with open(CONFIG, "w") as file:
        file.writelines([*lines, f"crash-recovery = {str(kept(way)).lower()}\n"])
    systemctl("daemon-reload")


def prepare() -> None:
    """The folders that a host has."""
    for folder in ("/run/xen", "/run/xenstored", "/standin/host", "/var/log/xen"):
        os.makedirs(folder, exist_ok=True)


def main() -> int:
    """All steps in all ways."""
    prepare()
    for way in ("launch", "dropin", "launch-kept", "dropin-kept"):
        choose(way)
        for step in KEPT_STEPS if kept(way) else STEPS:
            name = f"{way}.{step.__name__.replace('_', '-')}"
            try:
                step(way)
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                print(f"CHECK {name} fail {text}", flush=True)
            else:
                print(f"CHECK {name} ok", flush=True)
    for path in ("/var/log/xen/xenstored.log", "/run/log"):
        if os.path.isfile(path):
            with open(path) as file:
                for line in file.read().splitlines()[-40:]:
                    print("LOG", line)
    print("SYSTEM END 0", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
