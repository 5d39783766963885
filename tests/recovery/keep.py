# SPDX-License-Identifier: LGPL-2.1-or-later
"""A keeper for tests, as a program: `python -m tests.recovery.keep` with pyxsd's arguments.

Each process that serves is made as the keeper of pyxsd makes it (pyxsd.keeper.clone), so that what
one has opened is there for the next one.  An exit that was ordered ends it.  Of the environment:

    PYXSD_KEEP_PID     the file that has the pid of who serves
    PYXSD_KILLS        kills each of the first so many processes, at a random instant
    PYXSD_KILL_SEED    which instants those are
    PYXSD_KILL_MS      how long each lives on average, in milliseconds; one of ten, from when it
                       has served something: where all need longer than that to come back, nothing
                       would ever be served
    PYXSD_KILL_STEPS   runs at most so many instructions one by one, a random number of them, before
                       the kill
    PYXSD_KILLED       the file that is there when all were killed
    PYXSD_CRASH        if there: CONTROL has the command crash, which anybody may ask for
    PYXSD_FULL_BYTES   how much journal there is between two images
    PYXSD_KEEP_LIMIT   bytes of memory
    PYXSD_DIE_AGAIN    of those that come back the first so many die when they have opened all that
                       they need, before anything else is closed
    PYXSD_COPIES       if there: from the first death on one more process has copies of all
                       descriptors of then, as the one before a live update has them
    PYXSD_RETRY        seconds until it is tried again where that was not enough
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from pyxsd import control
from pyxsd._memory import Memory
from pyxsd.keeper import clone
from pyxsd.recovery import again
from pyxsd.recovery import begin as beginning
from pyxsd.start import assembly, fresh
from pyxsd.system import configuration, listening, options
from pyxsd.system.daemon_log import open_daemon_log

PTRACE_SINGLESTEP, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 9, 0x4206, 0x4207, 0x40000000


def spawn(run: Callable[[], int]) -> int:
    """A process that shares the descriptors; its pid."""
    pid = clone.spawn()
    if pid == 0:
        status = 70
        try:
            status = run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def crash(_control: Any, _connection: Any, arguments: list[bytes]) -> bytes:
    """crash segv|abort|exit|kill: ends the process that serves this request.  crash kill COUNT:
    no more than so many, one behind the other.  crash memory: there is none."""
    if len(arguments) > 1:
        with open(os.environ["PYXSD_KEEP_PID"] + "-crashes", "ab") as file:
            file.write(b"x")
            if file.tell() > int(arguments[1]):
                return b"alive\0"
    if arguments[0] == b"segv":
        ctypes.string_at(8)
    elif arguments[0] == b"abort":
        os.abort()
    elif arguments[0] == b"memory":
        raise MemoryError
    elif arguments[0] == b"exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def run_some(pid: int, count: int) -> None:
    """Lets a process run so many instructions from now on, and then no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    libc.ptrace(PTRACE_INTERRUPT, pid, 0, 0)
    _, status = os.waitpid(pid, WALL)
    while count and os.WIFSTOPPED(status):
        libc.ptrace(PTRACE_SINGLESTEP, pid, 0, 0)
        _, status = os.waitpid(pid, WALL)
        count -= 1


def die(_again: Any) -> None:
    """In place of a part of coming back."""
    os.kill(os.getpid(), signal.SIGKILL)


def keep_copies() -> None:
    """A process that has copies of the descriptors, for as long as this one lives."""
    if os.fork() == 0:
        clone.die_with_parent(True)
        while True:
            signal.pause()


def wait_for_progress(memory: Memory) -> None:
    """Until something is served; 10 seconds at most."""
    before, end = memory.progress(), time.monotonic() + 10
    while memory.progress() == before and time.monotonic() < end:
        time.sleep(0.001)


def tell_pid() -> None:
    """Writes the pid of this process into its file."""
    path = os.environ["PYXSD_KEEP_PID"]
    with open(path + "#", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    os.rename(path + "#", path)


def serve(config: Any, parsed: Any, listener: int, memory: Memory, incarnation: int) -> int:
    """One process that serves."""
    gc.disable()
    beginning.RETRY_SECONDS = float(os.environ.get("PYXSD_RETRY", "30"))
    if "PYXSD_CRASH" in os.environ:
        control.COMMANDS[b"crash"] = control.Command(crash, "", True)
    if incarnation == 0:
        log = open_daemon_log(config)
        daemon = fresh.build(config, parsed, listener, log)
        daemon.install_signals()
        full = int(os.environ.get("PYXSD_FULL_BYTES", "0"))
        beginning.begin(daemon, memory)
    else:
        if incarnation <= int(os.environ.get("PYXSD_DIE_AGAIN", "0")):
            setattr(again.Again, "_make_quiet", die)  # noqa: B010
        daemon = again.build(config, parsed, memory, assembly.assemble)
        daemon.install_signals()
        full = int(os.environ.get("PYXSD_FULL_BYTES", "0"))
    if full and daemon.protection is not None:
        daemon.protection.full_bytes = full
        daemon.protection.go_on()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    daemon.run()
    if daemon.protection is not None:
        daemon.protection.stop()
        daemon.protection = None
    daemon.send_all()
    daemon.save()
    daemon.close()
    return 0


def main() -> int:
    """The keeper."""
    parsed = options.parse(sys.argv[1:])
    assert isinstance(parsed, options.Options)
    config, _ = configuration.load(parsed.config_file)
    listener = listening.listen(listening.socket_path(os.environ))
    memory = Memory.create(int(os.environ.get("PYXSD_KEEP_LIMIT", str(64 << 20))))
    ended = False

    def end(_number: int, _frame: object) -> None:
        nonlocal ended
        ended = True
        if pid:
            os.kill(pid, signal.SIGTERM)

    kills = int(os.environ.get("PYXSD_KILLS", "0"))
    instants = random.Random(int(os.environ.get("PYXSD_KILL_SEED", "0")))
    steps = int(os.environ.get("PYXSD_KILL_STEPS", "0"))
    mean = float(os.environ.get("PYXSD_KILL_MS", "20"))
    pid = 0
    incarnation = 0
    died = 0
    progress = -1
    signal.signal(signal.SIGTERM, end)
    while True:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

        def run(number: int = incarnation) -> int:
            # The keeper itself opens nothing meanwhile: it would seem to be this one's.
            tell_pid()
            return serve(config, parsed, listener, memory, number)

        pid = spawn(run)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        while kills and not memory.is_begun() and incarnation == 0:
            time.sleep(0.005)
        if incarnation < kills:
            if incarnation % 10 == 9:
                wait_for_progress(memory)
            time.sleep(instants.expovariate(1000.0 / mean))
            if steps:
                run_some(pid, instants.randrange(steps))
            os.kill(pid, signal.SIGKILL)
        elif incarnation == kills and "PYXSD_KILLED" in os.environ:
            os.mkdir(os.environ["PYXSD_KILLED"])
        _, status = os.waitpid(pid, 0)
        if ended or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0):
            print(f"images {memory.next_number - 1}, memory {memory.used}", flush=True)
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
        if incarnation >= kills or status != signal.SIGKILL:
            print(f"process {pid} ended: {status}", flush=True)
        if os.WIFEXITED(status):
            memory.died(-1)
        if incarnation == 0 and "PYXSD_COPIES" in os.environ:
            keep_copies()
        died = died + 1 if memory.progress() == progress else 0
        progress = memory.progress()
        if not memory.is_begun() or died > 2000:
            print(f"given up, {memory.number}, {died}", flush=True)
            return 71
        incarnation += 1


if __name__ == "__main__":
    sys.exit(main())
