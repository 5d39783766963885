# SPDX-License-Identifier: LGPL-2.1-or-later
"""Going into the background: fork, session, and the word of success to whoever called."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

STATUS_FATAL = 2  # exit status of oxenstored's fatal errors
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Launch:
    """The daemon's end of the pipe to the process that was called, which waits for it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self, told: Callable[[], None] = lambda: None) -> None:
        """Let the caller's process end with success, and leave its terminal: stdio is /dev/null.

        Until here warnings on stderr are seen by whoever called.  told() is called when the word
        is out, and before its descriptor is closed.
        """
        _flush()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        self._report(0, "", told)

    def failed(self, status: int, message: str) -> None:
        """Let the caller's process end with `status` (1 to 255) after showing `message`."""
        self._report(status, message)

    def _report(self, status: int, message: str, told: Callable[[], None] = lambda: None) -> None:
        try:
            os.write(self._fd, bytes([status]) + message.encode("utf-8", "backslashreplace"))
        except BrokenPipeError:
            pass  # the caller's process was killed: nobody waits
        told()
        os.close(self._fd)


class Verdict:
    """What became of the daemon, for the process that was called: to show, and to exit with."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


def ensure_stdio() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed.

    To be called before anything is opened: a socket that got such a number would be taken for
    stderr.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def hear_signals() -> None:
    """Undo what the process that has started this one may have left: a kernel that is told to
    ignore SIGCHLD keeps no word of how a child ends, and waiting for it fails; a SIGTERM that is
    blocked never comes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as Python has it where the descriptor was closed
            stream.flush()


def daemonize() -> Launch | Verdict:
    """Fork the daemon: its process gets a `Launch`, the calling one a `Verdict` once it is known.

    The daemon is in a session of its own which it does not lead, so no terminal can become its
    own.  Directory, umask and descriptors stay.  A daemon that ends without a word, whatever
    ended it, is a verdict with STATUS_FATAL.
    """
    ensure_stdio()
    reading, writing = os.pipe()
    _flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        return Launch(writing)
    os.close(writing)
    os.waitpid(child, 0)
    report = b""
    while True:
        chunk = os.read(reading, 65536)
        if not chunk:
            break
        report += chunk
    os.close(reading)
    if not report:
        return Verdict(STATUS_FATAL, "the daemon ended before it was ready")
    return Verdict(report[0], report[1:].decode("utf-8", "replace"))
