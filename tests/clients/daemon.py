# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running pyxsd in a directory of its own, and a plain client of its socket."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.world import EVENT, packet, packets

PROJECT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0
TICK = os.sysconf("SC_CLK_TCK")
#: What a daemon without Xen and without all rights says at its start, and nothing else.
EXPECTED = ("no Xen, serving sockets only", "file limit")


def wait_for(what: Callable[[], Any], why: str, seconds: float = DEADLINE) -> Any:
    """Polls until `what` is true; its value, or TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(why)
        time.sleep(0.005)


def end_all_of(root: Path) -> None:
    """Kills every process that has a path below this folder, which nobody else may use, in its
    command line or its environment, and waits until they are gone.

    A daemon that another program took over from has started a process that no pid file may name
    yet or any more.
    """
    mark = f"{root}/".encode()

    def kill_them() -> bool:
        none = True
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                # Those that have ended and wait to be waited for have neither.
                texts = [(folder / name).read_bytes() for name in ("cmdline", "environ")]
                if any(mark in text for text in texts) and int(folder.name) != os.getpid():
                    os.kill(int(folder.name), signal.SIGKILL)
                    none = False
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
        return none

    wait_for(kill_them, f"processes of {root} do not end")


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether this process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


class Client:
    """One connection to the socket, blocking with a deadline."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        # A socket with a timeout does not wait where the daemon's queue is full.
        self.sock.connect(str(path))
        self.sock.settimeout(DEADLINE)
        self.rest = b""
        self.found: list[tuple[int, int, int, bytes]] = []
        self.events: list[bytes] = []
        self.serial = 0

    def packet(self) -> tuple[int, int, int, bytes]:
        """The next packet; EOFError where the daemon has closed."""
        while not self.found:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            self.found, self.rest = packets(self.rest + data)
        return self.found.pop(0)

    def send(self, type_: str | int, payload: bytes, tx_id: int = 0) -> None:
        """One request, without waiting for its answer."""
        self.serial += 1
        self.sock.sendall(packet(type_, payload, tx_id, self.serial))

    def answer(self) -> tuple[int, bytes]:
        """(type, payload) of the next answer; events before it go to self.events."""
        while True:
            type_, _, _, payload = self.packet()
            if type_ != EVENT:
                return type_, payload
            self.events.append(payload)

    def ask(self, type_: str | int, payload: bytes, tx_id: int = 0) -> tuple[int, bytes]:
        """One request and its answer."""
        self.send(type_, payload, tx_id)
        return self.answer()

    def event(self) -> bytes:
        """The next event."""
        while not self.events:
            type_, _, _, payload = self.packet()
            assert type_ == EVENT, (type_, payload)
            self.events.append(payload)
        return self.events.pop(0)

    def close(self) -> None:
        """Closes the socket."""
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Daemon:
    """Starts in the constructor; stop() or use as a context manager."""

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        arguments: Sequence[str] = ("--no-fork",),
        root: Path | None = None,
        config: bytes | None = None,
        prefix: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "pyxsd"),
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        self.owns_root = root is None
        self.root = root or Path(tempfile.mkdtemp(prefix="pyxsd-"))
        self.run = self.root / "run"
        self.socket = self.run / "socket"
        self.log_file = self.root / "xenstored.log"
        self.access_log_file = self.root / "access.log"
        self.pid_file = self.root / "pid"
        values = {
            "pid-file": str(self.pid_file),
            "xenstored-log-file": str(self.log_file),
            "xenstored-log-level": "info",
            "access-log-file": str(self.access_log_file),
            **(settings or {}),
        }
        self.config = self.root / "pyxsd.conf"
        self.config.write_bytes(
            config
            if config is not None
            else "".join(f"{key} = {value}\n" for key, value in values.items()).encode()
        )
        self.env = {
            **os.environ,
            "XENSTORED_RUNDIR": str(self.run),
            "PYTHONPATH": str(PROJECT),
            **(env or {}),
        }
        self.env.pop("XENSTORED_PATH", None)
        command = [
            *prefix,
            *program,
            "--no-domain-init",
            "--config-file",
            str(self.config),
            *arguments,
        ]
        self.output_file = self.root / "output"
        with self.output_file.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=self.env,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if wait:
            self.wait_ready()

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    def output(self) -> str:
        """What it wrote to stdout and stderr."""
        return self.output_file.read_text(errors="replace")

    def log(self) -> list[str]:
        """The lines of the daemon log."""
        return (
            self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        )

    def answers(self) -> bool:
        """Is it there?"""
        try:
            with Client(self.socket) as client:
                return client.ask("DIRECTORY", b"/\0")[0] == 1
        except (OSError, EOFError):
            return False

    def wait_ready(self) -> None:
        """Until it answers."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.output()}")
            return self.answers()

        wait_for(ready, "the daemon does not answer")

    def client(self) -> Client:
        """A new connection."""
        return Client(self.socket)

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / float(TICK)

    def resident(self) -> int:
        """Bytes of memory in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def idle_cpu(self, seconds: float = 1.0) -> float:
        """CPU seconds used while nobody asks anything, after it came to rest."""
        never = select.poll()
        never.poll(200)
        before = self.cpu()
        never.poll(int(seconds * 1000))
        return self.cpu() - before

    def check(self, *allowed: str) -> None:
        """It is alive and has nothing to complain of but what is allowed."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.output()}"
        assert self.answers(), "it does not answer"
        self.check_logs(*allowed)

    def check_logs(self, *allowed: str) -> None:
        """No complaint in the log or on stderr but what is allowed."""
        known = (*EXPECTED, *allowed)
        for line in self.log():
            if "error|" in line or " warn|" in line or "Traceback" in line:
                assert any(text in line for text in known), "\n".join(self.log()[-40:])
        for line in self.output().splitlines():
            assert line.startswith("Xen Storage Daemon") or any(text in line for text in known), (
                self.output()
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def stop(self) -> None:
        """Ends it, however it is, and removes its directory."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.owns_root:
            end_all_of(self.root)
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                # A daemon that a test has not ended ends well.
                if self.process.poll() is None:
                    self.check()
                    assert self.end() == 0, self.output()
                self.check_logs()
        finally:
            self.stop()
