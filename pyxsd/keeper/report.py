# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a child says of itself to its keeper, in a page that both have: what it is about, so that
its end can be told from its death.

    STARTING      it has not begun to serve
    SERVING       it serves; its death is to be made up for
    ENDED         it has ended on purpose, with a status
    HANDED_OVER   another keeper's child serves now
    LOST          what the keeper makes of a death that nothing makes up for
    BECOMES       all is ready for another program, which the keeper executes when the child is gone

Each is one aligned store, so a child that is killed has said it or has not.

What children to come must know stays in the page until one of them has seen to it: that whoever
started the daemon knows that it is ready; and of live updates, that this daemon's predecessor has
been told that it may leave, and which process was about to take over when a child died; of live
switches, which program a client has chosen, and how far the daemon was on its way there.
"""

from __future__ import annotations

import errno
import mmap
import os

STARTING, SERVING, ENDED, HANDED_OVER, LOST, BECOMES = range(6)
# Where in the page, in integers.
_WORD, _NUMBER, _TAKEN, _SUCCESSOR, _CHANNEL, _READY, _STAGE, _LENGTHS = range(8)

#: Stages of a live switch.  From PREPARES on, the file of the other program may be there, its
#: descriptors prepared, and the interrupt for dying domains free.
NOT_LEAVING, WAITS, PREPARES = range(3)

# Texts behind the first page, and how long they may be.
_CHOICE, _COMMAND, _TEXTS = range(3)
TEXT_MAX = 1 << 20


class Report:
    """The page and the texts behind it, mapped before the first child is made."""

    def __init__(self) -> None:
        # Nothing is there but what is written to.
        whole = memoryview(mmap.mmap(-1, mmap.PAGESIZE + _TEXTS * TEXT_MAX))
        self._words = whole[: mmap.PAGESIZE].cast("i")
        self._texts = [
            whole[mmap.PAGESIZE + n * TEXT_MAX : mmap.PAGESIZE + (n + 1) * TEXT_MAX]
            for n in range(_TEXTS)
        ]
        self.begin()

    def begin(self) -> None:
        """A new child begins."""
        self._words[_WORD] = STARTING

    def serving(self) -> None:
        """From now on a death is one of a daemon that serves."""
        self._words[_WORD] = SERVING

    def ended(self, status: int) -> None:
        """This process ends on purpose with this exit status; said once it has nothing to do any
        more."""
        self._words[_NUMBER] = status
        self._words[_WORD] = ENDED

    def handed_over(self, pid: int) -> None:
        """Another process, or its child, serves."""
        self._words[_NUMBER] = pid
        self._words[_WORD] = HANDED_OVER

    def taken(self) -> None:
        """The daemon that this one has taken over from knows it: for all children to come."""
        self._words[_TAKEN] = 1

    def is_taken(self) -> bool:
        """Has any child said so?"""
        return bool(self._words[_TAKEN])

    def ready(self) -> None:
        """Whoever has started the daemon knows that it is ready."""
        self._words[_READY] = 1

    def is_ready(self) -> bool:
        """Has any child said so?"""
        return bool(self._words[_READY])

    def handing(self, pid: int, channel: int) -> None:
        """That process may serve from now on; its channel's descriptor tells whether it does."""
        self._words[_CHANNEL] = channel
        self._words[_SUCCESSOR] = pid

    def settled(self) -> None:
        """It does not, and will not."""
        self._words[_SUCCESSOR] = 0

    def successor(self) -> tuple[int, int]:
        """Process and descriptor as handing() was told; a process of 0 where there is none."""
        return self._words[_SUCCESSOR], self._words[_CHANNEL]

    def leaving(self, stage: int) -> None:
        """How far the daemon is on its way into another program."""
        self._words[_STAGE] = stage

    def stage(self) -> int:
        """NOT_LEAVING, WAITS or PREPARES."""
        return self._words[_STAGE]

    def choose(self, text: bytes) -> None:
        """The other program that a client has chosen, as switch.kept writes it; b"": none.  OSError
        where it is too long."""
        self._put(_CHOICE, text)

    def choice(self) -> bytes:
        """What choose() was told."""
        return self._text(_CHOICE)

    def becomes(self, command: list[str]) -> None:
        """All is ready: the keeper executes this when the process that says so is gone.  OSError
        where it is too long."""
        self._put(_COMMAND, b"\0".join(map(os.fsencode, command)))
        self._words[_WORD] = BECOMES

    def command(self) -> list[str]:
        """What becomes() was told."""
        return [os.fsdecode(word) for word in self._text(_COMMAND).split(b"\0")]

    def _put(self, which: int, text: bytes) -> None:
        if len(text) > TEXT_MAX:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        # Whoever dies in here has said nothing.
        self._words[_LENGTHS + which] = 0
        self._texts[which][: len(text)] = text
        self._words[_LENGTHS + which] = len(text)

    def _text(self, which: int) -> bytes:
        return bytes(self._texts[which][: self._words[_LENGTHS + which]])

    def word(self) -> int:
        """The last of these words."""
        return self._words[_WORD]

    def number(self) -> int:
        """What was said with it: of ENDED the exit status, of HANDED_OVER the process."""
        return self._words[_NUMBER]
