# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's side of being kept.

The keeper's process id is the one that everybody knows: it stands in the pid files, systemd watches
it, launch-xenstore sets its oom_score_adj, which is taken over from there.

The daemon becomes another xenstored in the keeper's process, where there is one: the number stays.

A keeper that dies is made up for by a live update to the daemon's own program, which begins as a
keeper with a child.  Until that has taken over nobody would make up for the daemon's own death.
"""

from __future__ import annotations

import os
import signal
import time

from pyxsd.keeper import clone
from pyxsd.keeper.report import SERVING
from pyxsd.system.descriptors import leave_some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from pyxsd.keeper.keeper import Life
    from pyxsd.update.channel import Channel
    from pyxsd.update.program import Process

#: Between two looks at the keeper's oom_score_adj: at first, since a start script sets it when the
#: daemon is ready, and later.
SCORE_SECONDS = (0.2, 0.5, 1.0, 2.0, 15.0)
#: For the word of a process that may serve by now, and for the end of one that shall not.
TAKEN_SECONDS = 5.0
#: Until another keeper is tried again, where an update is under way or has failed.
AGAIN_SECONDS = (0.05, 0.2, 1.0, 5.0, 60.0)


#: Between two looks whether the recording of a crash is there, and how many of them.
WITNESS_SECONDS, WITNESS_LOOKS = 0.25, 4 * 75


class Ward:
    """One daemon whose death another process makes up for."""

    def __init__(self, life: Life, memory: Any) -> None:
        self.life = life
        self.memory = memory
        self.alone_since = 0.0  # monotonic seconds; 0: it has its keeper
        self._daemon: Any = None
        self._keeper = -1  # a descriptor of the keeper's process
        self._looks = 0
        self._tries = 0
        self._looks_for_word = 0

    def begin(self, daemon: Any) -> None:
        """The daemon serves from now on; it has its handlers for signals."""
        self._daemon = daemon
        daemon.ward = self
        for file in daemon.pid_files:
            file.pid = self.life.keeper
        if not self.life.number:
            self._record()
        else:
            daemon.claim_back()  # an update may have been under way
        self.life.report.serving()
        self.life.let_signals_in()
        if os.getpid() == self.life.keeper:
            # No child could be made.  It ends in a moment, and nobody would make up for a death.
            daemon.server.journal.expendable = False
            self.alone_since = time.monotonic()
            return
        try:
            self._keeper = os.pidfd_open(self.life.keeper)
        except OSError as error:
            self._gone(f"cannot be watched: {error.strerror}")
            return
        if os.getppid() != self.life.keeper:
            self._keeper_died()
            return
        daemon.loop.add_handler(self._keeper, self._keeper_died)
        daemon.server.journal.expendable = True
        self._copy_score()
        # Clients decide how many are open; who goes on from here must be able to open its own.
        leave_some()
        if self.life.number:
            seconds = time.monotonic() - self.life.noticed
            witness = self.life.witness
            is_recorded = witness is not None and witness.is_expected()
            where = f"; see {witness.directory}" if witness is not None and is_recorded else ""
            what = (
                f"live switch: {self.life.refused}"
                if self.life.refused
                else f"crash recovery: the daemon was {self.life.cause}"
            )
            daemon.log(
                "warn",
                f"{what}; process {os.getpid()} went on after {seconds * 1000:.1f} ms{where}",
            )
            if is_recorded:
                self._looks_for_word = WITNESS_LOOKS
                self._hear_witness()

    def _hear_witness(self) -> None:
        """Tells how the recording of the crash went, when it is known."""
        assert self.life.witness is not None
        text = self.life.witness.told()
        if text:
            self._daemon.log("warn", text)
        elif self._looks_for_word:
            self._looks_for_word -= 1
            self._daemon.after(WITNESS_SECONDS, self._hear_witness)

    def is_made_up_for(self) -> bool:
        """Would another process go on if this one died now?"""
        is_kept = not self.alone_since and self.life.report.word() == SERVING
        return is_kept and self.memory.is_begun()

    def _record(self) -> None:
        """From now on memory has all that the daemon is."""
        from pyxsd.recovery.begin import begin

        begin(self._daemon, self.memory)  # what hinders it, it tells

    # -- handing over to another daemon ----------------------------------------

    def handing(self, process: Process) -> None:
        """That process is told in a moment that it may serve."""
        assert process.channel is not None
        self.life.report.handing(process.pid, process.channel.fileno())

    def not_handing(self) -> None:
        """It has been ended."""
        self.life.report.settled()

    def has_been_succeeded(self) -> bool:
        """Does another daemon serve, to which the process before was handing over when it died?
        One that is not about to is ended."""
        from pyxsd.update.channel import Channel

        pid, fd = self.life.report.successor()
        if not pid:
            return False
        channel = Channel(fd)
        if _has_taken(channel):
            self.life.report.handed_over(pid)
            return True
        # As long as the other end is open, the number is not another process's.
        if not channel.wait_for_end(0.001)[0]:
            os.kill(pid, signal.SIGKILL)
            channel.wait_for_end(TAKEN_SECONDS)
        channel.close()
        self.life.report.settled()
        return False

    def handed_over(self, pid: int) -> None:
        """Another process serves."""
        self.life.report.handed_over(pid)
        if self.alone_since:
            seconds = time.monotonic() - self.alone_since
            self._daemon.log(
                "warn",
                f"crash recovery: process {pid} is the keeper after {seconds * 1000:.0f} ms "
                "without one",
            )

    def describe(self) -> str:
        """In words, for who asks."""
        if self.alone_since:
            seconds = time.monotonic() - self.alone_since
            return f"without a keeper for {seconds:.1f} seconds"
        text = f"by process {self.life.keeper}, {self.life.deaths} deaths made up for"
        if not self.memory.is_begun():
            text = f"not for now, see the log; {text}"
        return f"{text}, the last one: {self.life.cause}" if self.life.cause else text

    # -- becoming another program -----------------------------------------------

    def has_keeper(self) -> bool:
        """Is the keeper there at this moment?  Else this process is on its own."""
        if not self.alone_since and os.getppid() != self.life.keeper:
            self._keeper_died()
        return not self.alone_since

    def was_leaving(self) -> bool:
        """Had a client chosen another program when the process before died?"""
        return bool(self.life.report.choice())

    def chosen(self, text: bytes) -> None:
        """Whoever goes on from here knows which program was chosen; OSError."""
        self.life.report.choose(text)

    def leaving(self, stage: int) -> None:
        """Whoever goes on from here takes back what was given up."""
        self.life.report.leaving(stage)

    def becomes(self, command: list[str]) -> NoReturn:
        """Ends this process; the keeper executes the program.  Where that cannot be, another child
        goes on from here.  OSError where nothing can be said."""
        self.life.report.becomes(command)
        os._exit(0)

    # -- taking over from another daemon --------------------------------------

    def is_tied(self) -> bool:
        """From now on this process is killed where its keeper is, which is all that the old daemon
        kills where it takes an update back; False where the keeper has gone already."""
        clone.die_with_parent(True)
        return os.getppid() == self.life.keeper

    def say_taken(self, old: Channel) -> bool:
        """The old daemon may leave; from now on this process outlives its keeper.  False where that
        has gone already: the old one goes on, and this process must end.

        Said by a later child where the one before had no time for it.  It is closed once, since its
        number may be another's by now.
        """
        from pyxsd.update.arrival import say_taken

        if self.life.report.is_taken():
            old.forget()
            return True
        # In this order: once that word is said nothing but its own death may end this process.
        clone.die_with_parent(False)
        if os.getppid() != self.life.keeper:
            return False
        say_taken(old)
        self.life.report.taken()
        old.close()
        return True

    # -- the keeper's death ---------------------------------------------------

    def _keeper_died(self) -> bool:
        if self._daemon.loop.handlers.pop(self._keeper, None) is not None:
            self._daemon.epoll.unregister(self._keeper)
        os.close(self._keeper)
        self._gone("has died")
        return True

    def _gone(self, how: str) -> None:
        daemon = self._daemon
        daemon.server.journal.expendable = False
        self.alone_since = time.monotonic()
        daemon.log(
            "error",
            f"crash recovery: the keeper, process {self.life.keeper}, {how}; until there is "
            "another one, nothing makes up for a death of this process",
        )
        # Whoever sends a signal to the keeper reaches this process.
        for file in daemon.pid_files:
            file.pid = os.getpid()
        daemon.claim_back()
        daemon.soon(self._find_another)

    def _find_another(self) -> None:
        """Updates the daemon to its own program, unless an update is under way; looks again."""
        daemon = self._daemon
        pause = AGAIN_SECONDS[min(self._tries, len(AGAIN_SECONDS) - 1)]
        dialogue = daemon.server.host.dialogue()
        if dialogue is not None and dialogue.renew():
            self._tries += 1
        daemon.after(pause, self._find_another)

    # -- when memory runs out -------------------------------------------------

    def _copy_score(self) -> None:
        """What was set for the keeper holds for this process."""
        if self.alone_since:
            return
        try:
            with open(f"/proc/{self.life.keeper}/oom_score_adj", "rb") as file:
                wanted = file.read()
            with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
                if file.read() != wanted:
                    file.write(wanted)
        except OSError:
            pass  # no /proc here, or the keeper has just died
        pause = SCORE_SECONDS[min(self._looks, len(SCORE_SECONDS) - 1)]
        self._looks += 1
        self._daemon.after(pause, self._copy_score)


def _has_taken(channel: Channel) -> bool:
    """Does the process at the other end serve?  It may still be on its way there."""
    try:
        # The process before may have died in front of this word; nobody minds a second one.
        channel.send("go", seconds=1.0)
    except OSError:
        pass  # the other end is closed; what was said before is there still
    for _ in range(2):
        try:
            return channel.receive(TAKEN_SECONDS, peek=True).word == "taken"
        except ConnectionResetError:
            pass  # it has closed its end with that second word unread, which is told once
        except (TimeoutError, EOFError, OSError):
            return False
    return False
