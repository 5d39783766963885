# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program that shall take over: its command line, and a process of it beside the old daemon."""

from __future__ import annotations

import errno
import os
import signal
import sys

from pyxsd.named import NamedTuple
from pyxsd.system.errors import in_words
from pyxsd.system.options import CAN_TAKE_OVER, TAKE_OVER
from pyxsd.update.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OUTPUT_MAX = 65536
_REASON_MAX = 300
#: For the end of what a killed process has made.
END_SECONDS = 5.0


class ProgramError(Exception):
    """The program cannot take over; the text says why."""


class Program(NamedTuple):
    """A command line without what a live update adds to it."""

    path: str
    before: tuple[str, ...] = ()  # words between the program and its options, such as -m pyxsd
    arguments: tuple[str, ...] = ()

    def words(self, *more: str) -> list[str]:
        """The whole command line, as a process of it sees it."""
        return [self.path, *self.before, "--live", "--restart", *self.arguments, *more]


def own_program(arguments: Sequence[str] | None = None) -> Program:
    """The program that this process runs; where its files were replaced, the new ones.

    arguments: what it was told, where a foreign xenstored said it in its own way.
    """
    given = sys.argv[1:]
    before: tuple[str, ...] = ("-m", "pyxsd")
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        before = tuple(words[1 : len(words) - len(given)])
    except OSError:
        pass  # no /proc here: the module of that name is as good
    kept = (
        word
        for word in (given if arguments is None else arguments)
        if word not in ("--live", "--restart") and not word.startswith(TAKE_OVER + "=")
    )
    return Program(sys.executable, before, tuple(kept))


class Process:
    """A process of a program, with a channel to it or with a pipe from its output and its errors.

    Nobody waits for it in here; it is a child of the daemon, which goes on serving meanwhile.
    """

    def __init__(
        self, program: Program, environ: Mapping[str, str], *more: str, converse: bool
    ) -> None:
        self.channel: Channel | None = None
        self.status: int | None = None  # as os.waitstatus_to_exitcode has it
        self.last_words: list[str] = []  # that it had said when it was taken back
        self._output = b""
        self._pipe = -1
        actions: list[tuple[int, ...]] = []
        if converse:
            self.channel, theirs = Channel.pair()
            more = (*more, f"{TAKE_OVER}={theirs}")
        else:
            self._pipe, theirs = os.pipe()
            os.set_blocking(self._pipe, False)
            actions = [(os.POSIX_SPAWN_DUP2, theirs, fd) for fd in (1, 2)]
        try:
            os.set_inheritable(theirs, True)
            self.pid = os.posix_spawn(
                program.path,
                program.words(*more),
                dict(environ),
                file_actions=actions,
                setsigdef=[signal.SIGPIPE],
            )
        except (OSError, ValueError) as error:
            self.close()
            raise ProgramError(f"{program.path}: {in_words(error)}") from error
        finally:
            os.close(theirs)

    def ended(self) -> bool:
        """Has it ended?"""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def output(self) -> str:
        """What it has written so far, errors too, the first 64 KiB of it.

        One look, which takes as much as a pipe holds: a program may write without end.
        """
        try:
            if self._pipe >= 0:
                self._output = (self._output + os.read(self._pipe, 65536))[:_OUTPUT_MAX]
        except BlockingIOError:
            pass  # nothing new
        return self._output.decode("utf-8", "replace")

    def how_it_ended(self) -> str:
        """The end in words."""
        if self.status is None:
            return "did not end"
        return (
            f"exited with code {self.status}"
            if self.status >= 0
            else f"was killed by signal {-self.status}"
        )

    def kill(self) -> None:
        """Ends it, whatever it does, waits for that, and closes what leads to it.

        Others that it has started may have the other end of the channel, and live on: nobody waits
        for them.
        """
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.close()

    def take_back(self) -> None:
        """The same for one that may serve already: waits until nobody has the other end.

        A child that it has made to serve for it dies of that, too; both have the other end of the
        channel, whose end is theirs.
        """
        channel, self.channel = self.channel, None
        self.kill()
        if channel is not None:
            self.last_words += channel.wait_for_end(END_SECONDS)[1]
            channel.close()

    def close(self) -> None:
        """Closes what leads to it, and leaves it alone."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def fault_of(path: str) -> str:
    """Why there is no program of that path; "" where there is one."""
    if not path.startswith("/"):
        return f"{path}: not an absolute path"
    if not os.path.exists(path):
        return f"{path}: {os.strerror(errno.ENOENT)}"
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        return f"{path}: not a program"
    return ""


def verdict(program: Program, process: Process) -> str:
    """What a check by --help came to: "" where the program can take over, else why not.

    The words of oxenstored for a program that does not end with 0, and the first line of what that
    has said, such as the first mistake in the configuration.
    """
    if process.status != 0:
        why = process.output().partition("\n")[0][:_REASON_MAX]
        return (
            f"Command '{' '.join(program.words('--help'))}' {process.how_it_ended()}"
            f"{why and f': {why}'}"
        )
    if CAN_TAKE_OVER not in process.output():
        return f"{program.path} is not a pyxsd that can take over"
    return ""
