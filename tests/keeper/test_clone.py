# SPDX-License-Identifier: LGPL-2.1-or-later
"""A child that shares the table of descriptors, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keeper import refuse

PROJECT = Path(__file__).resolve().parents[2]


def run(code: str, *prefix: str) -> str:
    """What a program prints that has one thread."""
    done = subprocess.run(
        [
            *prefix,
            sys.executable,
            "-c",
            "import os, signal\nfrom pyxsd.keeper import clone\n" + code,
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


#: Makes mutexes that are shared and robust.
ROBUST = """
        import ctypes, errno, mmap
        libc = ctypes.CDLL(None)
        def robust():
            mutex = (ctypes.c_char * 64).from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
            attributes = ctypes.create_string_buffer(64)
            libc.pthread_mutexattr_init(attributes)
            libc.pthread_mutexattr_setpshared(attributes, 1)
            libc.pthread_mutexattr_setrobust(attributes, 1)
            libc.pthread_mutex_init(mutex, attributes)
            return mutex
"""
#: What a program does, and what it prints.
CASES = {
    "the check leaves nothing": (
        """
        before = os.listdir("/proc/self/fd")
        for _ in range(20): clone.check()
        print(os.listdir("/proc/self/fd") == before)
        try: os.waitpid(-1, 0)
        except ChildProcessError: print("no child")
        """,
        "True\nno child\n",
    ),
    "the check where SIGCHLD is ignored": (
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        clone.check()
        print("well")
        """,
        "well\n",
    ),
    "descriptors are shared both ways, memory is not": (
        """
        value = [1]
        kept, gone = os.dup(1), os.dup(1)
        pid = clone.spawn()
        if pid == 0:
            value[0] = 2
            os.dup2(1, 99)
            os.close(gone)
            os._exit(0)
        os.waitpid(pid, 0)
        os.fstat(99)
        os.fstat(kept)
        try: os.fstat(gone)
        except OSError: print("closed", value)
        """,
        "closed [1]\n",
    ),
    "thread ids are right, over many deaths": (
        """
        import threading
        reading, writing = os.pipe()
        for _ in range(50):
            pid = clone.spawn()
            if pid == 0:
                # A signal to itself goes by the thread id that the C library has.
                signal.pthread_kill(threading.get_ident(), 0)
                os.write(writing, b"%d %d %d " % (
                    os.getpid(), threading.get_native_id(), os.getppid()))
                signal.pause()
            found = [int(word) for word in os.read(reading, 100).split()]
            assert found == [pid, pid, os.getpid()], found
            os.kill(pid, signal.SIGKILL)
            assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)
        print(threading.get_native_id() == os.getpid())
        """,
        "True\n",
    ),
    "Python knows which of them it is in": (
        """
        called = []
        os.register_at_fork(
            after_in_parent=lambda: called.append("parent"),
            after_in_child=lambda: called.append("child"),
        )
        pid = clone.spawn()
        if pid == 0:
            os.write(1, b"%s\\n" % called[0].encode())
            os._exit(0)
        os.waitpid(pid, 0)
        print(called)
        """,
        "child\n['parent']\n",
    ),
    "a thread of the child's": (
        """
        import threading
        pid = clone.spawn()
        if pid == 0:
            thread = threading.Thread(target=lambda: os.write(1, b"thread\\n"))
            thread.start()
            thread.join()
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        """,
        "thread\n0\n",
    ),
    "who gets a robust mutex knows that its owner was killed, over many deaths": (
        ROBUST
        + """
        mutex = robust()
        reading, writing = os.pipe()
        for _ in range(3):
            pid = clone.spawn()
            if pid == 0:
                os.write(writing, b"%d" % libc.pthread_mutex_trylock(mutex))
                signal.pause()
            locked = os.read(reading, 100)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            print(locked, libc.pthread_mutex_trylock(mutex) == errno.EOWNERDEAD)
            libc.pthread_mutex_consistent(mutex)
            libc.pthread_mutex_unlock(mutex)
        """,
        "b'0' True\n" * 3,
    ),
    "a child leaves the robust mutexes alone that its parent has locked": (
        ROBUST
        + """
        mine, its = robust(), robust()
        libc.pthread_mutex_lock(mine)
        before = mine.raw
        pid = clone.spawn()
        if pid == 0:
            os._exit(libc.pthread_mutex_trylock(mine) + libc.pthread_mutex_lock(its))
        print(os.waitpid(pid, 0)[1] >> 8 == errno.EBUSY, mine.raw == before)
        print(libc.pthread_mutex_unlock(mine))
        """,
        "True True\n0\n",
    ),
    "both have the signal mask of before": (
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        pid = clone.spawn()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        if pid == 0:
            os._exit(mask != {signal.SIGHUP})
        print(mask == {signal.SIGHUP}, os.waitpid(pid, 0)[1])
        """,
        "True 0\n",
    ),
    "a child that is to die with its parent": (
        """
        reading, writing = os.pipe()
        parent = os.fork()
        if parent == 0:
            pid = clone.spawn()
            if pid == 0:
                clone.die_with_parent(True)
                os.write(writing, b"!")
            signal.pause()
        os.close(writing)
        print(os.read(reading, 1))
        os.kill(parent, signal.SIGKILL)
        print(os.read(reading, 1))  # the end of the file: both have gone
        """,
        "b'!'\nb''\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_clone(name: str) -> None:
    code, printed = CASES[name]
    indent = len(code) - len(code.lstrip("\n ")) - 1
    assert run("\n".join(line[indent:] for line in code.splitlines())) == printed


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_where_it_is_refused(error: int) -> None:
    """By a filter of system calls; a plain fork goes."""
    printed = run(
        "for what in (clone.check, clone.spawn):\n"
        "    try: what()\n"
        "    except OSError as error: print(error)\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1])\n",
        sys.executable,
        "-m",
        refuse.__name__,
        "clone",
        str(error),
    )
    told = f"[Errno {error}] clone with a shared table of descriptors: {os.strerror(error)}\n"
    assert printed == told * 2 + "0\n"


def test_no_core() -> None:
    """A child that says so leaves none; its keeper is as it was."""
    printed = run(
        "import ctypes\n"
        "pid = clone.spawn()\n"
        "if pid == 0: clone.leave_no_core()\n"
        "is_dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "if pid == 0: os._exit(is_dumpable)\n"
        "print(is_dumpable, os.waitpid(pid, 0)[1])\n"
    )
    assert printed == "1 0\n"
