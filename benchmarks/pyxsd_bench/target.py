# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon under measurement: started by us on the stand-in Xen, or one that runs already."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket as sockets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Callable

from . import daemons, proc, standin, wire
from .load import Load

PID_FILE = "daemon.pid"  # of the built-in daemons, in their run directory
START_LIMIT_S = 30.0
DEATH_LIMIT_S = 0.2
STOP_LIMIT_S = 10.0


class DaemonFailed(Exception):
    """A daemon that does not start, died or hangs; the text says which and how."""


class NotStarted(DaemonFailed):
    """It did not start.  It will not the next time either."""


class Target:
    """One daemon.  `keep` holds what a scenario built in it (connections, engines) until `close`.

    `host` is the stand-in's directory, empty where the daemon runs elsewhere.  `kind`, `program`
    and `run`: of a daemon that we have started, what it is (daemons.Description), its program's
    path and its run directory.  Where it has a keeper, `pid` is the keeper's.
    """

    def __init__(
        self, name: str, socket: str, pid: int, *, host: str = "", echo: bool = False
    ) -> None:
        self.name = name
        self.socket = socket
        self.pid = pid
        self.host = host
        self.echo = echo
        self.keep = ExitStack()
        self.state: dict[str, Any] = {}
        self.kind = self.program = self.run = ""
        self.owned = False
        self.again: Callable[[], Target] = self._never_again
        self.deadline = 0.0  # a preparation must be over by then; 0: no limit
        self._stop: Callable[[], None] = lambda: None
        self._process: subprocess.Popen[bytes] | None = None
        self._output = ""

    def _never_again(self) -> Target:
        raise NotStarted(f"{self.name} runs already and cannot be started again")

    def load(self, stall_s: float = 10.0, spin_us: float = 0.0) -> Load:
        """A load generator for this daemon; spin_us: it polls for so long before it sleeps."""
        return Load(stall_s=stall_s, spin_us=spin_us, echo=self.echo)

    def alive(self) -> None:
        """DaemonFailed where the process is gone."""
        if not proc.alive(self.pid):
            raise DaemonFailed(f"{self.name} died")
        if self.deadline and time.monotonic() > self.deadline:
            raise DaemonFailed("the preparation took too long")

    def moved(self) -> None:
        """Another process may serve now: the one that the pid file names."""
        with open(os.path.join(self.run, PID_FILE), encoding="ascii") as file:
            self.pid = int(file.read())
        if self._process is not None and self._process.pid != self.pid:
            self._process = None

    def fate(self) -> str:
        """How it ended and what it wrote, asked after something failed; empty where it lives."""
        if self._process:
            # A dying process's sockets are closed before it can be waited for.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(DEATH_LIMIT_S)
                return f"{self.name} {_ending(self._process.returncode, self._output)}"
        return "" if proc.alive(self.pid) else f"{self.name} died"

    def close(self) -> None:
        """Lets go of what scenarios kept, and stops the daemon where it is ours."""
        self.keep.close()
        self.state.clear()
        self._stop()


def running(path: str) -> Target:
    """A daemon that serves `path` already.  OSError where nobody listens there."""
    try:
        pid = proc.listener(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    if not pid:
        raise OSError(errno.ESRCH, "the process that listens there is not seen from here", path)
    name = f"running-{pid}"
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
            name = comm.read().strip()
    except OSError:
        pass
    return Target(name, path, pid)


def start(description: daemons.Description) -> Target:
    """Starts a daemon in a private directory.  NotStarted with its output where it does not."""
    try:
        peers = standin.load()
        libs = "" if description.echo else str(peers.build_standin())
    except (standin.StandinMissing, RuntimeError, OSError) as error:
        raise NotStarted(f"{description.name}: {error}") from error
    root = peers.make_root(None)
    run, host = str(root / "run"), str(root / "host")
    config = str(root / "daemon.conf")
    programs = {}
    for program in peers.NAMES:
        try:
            programs[program] = str(peers.find_program(program))
        except RuntimeError:
            programs[program] = program
    places = daemons.places(run, host, config, programs)
    with open(config, "w", encoding="utf-8") as out:
        out.writelines(
            f"{key} = {daemons.fill(value, places)}\n" for key, value in description.config
        )
    environment = dict(os.environ)
    if libs:
        environment = peers.standin_env(
            root / "host", root / "run" if description.preload else None
        )
    environment["XENSTORED_RUNDIR"] = run
    environment.update((k, daemons.fill(v, places)) for k, v in description.environment)
    command = [daemons.fill(word, places) for word in description.command]
    target = _spawn(description, command, environment, str(root), places)
    target.host = "" if description.echo else host
    target.again = lambda: start(description)
    return target


def _spawn(
    description: daemons.Description,
    command: list[str],
    environment: dict[str, str],
    root: str,
    places: dict[str, str],
) -> Target:
    output = os.path.join(root, "output")
    socket = daemons.fill(description.socket, places)
    if shutil.which(command[0]) is None:
        shutil.rmtree(root, ignore_errors=True)
        hint = f" ({description.package})" if description.package else ""
        raise NotStarted(f"{description.name}: {command[0]} is not installed{hint}")
    begin = time.monotonic()
    try:
        with open(output, "wb") as out, _all_cpus():
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=root,
            )
    except OSError as error:
        shutil.rmtree(root, ignore_errors=True)
        raise NotStarted(f"{description.name}: {command[0]}: {error.strerror}") from error
    pid = process.pid
    target: Target | None = None

    def stop() -> None:
        last = pid if target is None else target.pid
        if last != process.pid:
            # The command is a wrapper, which need not pass the signal on, or another one serves.
            with suppress(OSError):
                os.kill(last, signal.SIGTERM)
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if last != process.pid:
            _end_of(last)
        shutil.rmtree(root, ignore_errors=True)

    try:
        _wait_ready(process, socket, description, output)
        with suppress(OSError):
            pid = proc.listener(socket) or process.pid  # 0: not visible from here
    except BaseException:  # a Ctrl-C must not leave the daemon behind either
        stop()
        raise
    took = time.monotonic() - begin
    target = Target(description.name, socket, pid, echo=description.echo)
    target.state["start_s"] = took
    if pid:
        target.state["start_cpu_ns"] = proc.cpu(pid).total_ns
    target.owned, target._stop = True, stop
    target.kind, target.program, target.run = description.kind, command[0], places["run"]
    target._process, target._output = process, output
    return target


def _end_of(pid: int) -> None:
    """Waits for a process that is not our child; kills it where it takes too long."""
    begin = time.monotonic()
    while proc.alive(pid):
        if time.monotonic() - begin > STOP_LIMIT_S:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _wait_ready(
    process: subprocess.Popen[bytes], socket: str, description: daemons.Description, output: str
) -> None:
    """Waits until the daemon answers.  NotStarted, with what it wrote, where it does not."""
    begin = time.monotonic()
    while not _answers(socket, description.echo):
        status = process.poll()
        if status is not None or time.monotonic() - begin > START_LIMIT_S:
            raise NotStarted(f"{description.name} did not start: {_ending(status, output)}")
        time.sleep(0.001)


def _ending(status: int | None, output: str) -> str:
    """How a process ended (None: it did not, but says nothing), and the end of what it wrote."""
    if status is None:
        how = f"no answer within {START_LIMIT_S:g} s"
    elif status < 0:
        how = f"was killed by signal {-status} ({signal.Signals(-status).name})"
    else:
        how = f"ended with status {status}"
    with open(output, encoding="utf-8", errors="replace") as written:
        text = " ".join(written.read()[-600:].split())
    return f"{how}; its output: {text}" if text else how


@contextmanager
def _all_cpus() -> Iterator[None]:
    """A daemon sees the whole machine, also where this process is bound to one CPU."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _answers(path: str, echo: bool) -> bool:
    """Whether a DIRECTORY of / is answered."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(START_LIMIT_S)
        try:
            probe.connect(path)
            probe.sendall(wire.PROBE)
            reply = probe.recv(4096)
        except OSError:
            return False
    return len(reply) >= wire.HEADER.size and (echo or reply[0] == wire.DIRECTORY)
