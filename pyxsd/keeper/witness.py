# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who writes down what a child has left that has died: a process of its own for each such death,
which nobody waits for.

It is made when the next child has been made, and has nothing of theirs but the memory that outlives
them: no descriptor of a client, not for a moment.  It has the lowest priority and WRITE_SECONDS,
and is the first to go where the system lacks memory.  How it went stands in a page that all share,
until a child has told it; until then no other one is made.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct

from pyxsd.keeper import clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn

#: Seconds of one writer.
WRITE_SECONDS = 60
PRIORITY = 19
OOM_SCORE = "1000"
NAME = "pyxsd-witness"
#: What is told, before the path and before the reason.
FOUND = "crash recovery: what led to it is recorded: pyxsd --replay "
LOST = "crash recovery: what led to it is not recorded: "
#: What stands in the page's first word.
NOTHING, WRITING, SAID = range(3)
_HEAD = struct.Struct("=II")  # the word, the length of the text behind it


class Witness:
    """Of one keeper's children.

    directory: where recordings go, for who tells of them.  leave(): what the dead has left, at
    once. record(left, cause): writes it, in a process of its own; the path. ValueError, OSError.
    """

    def __init__(
        self,
        directory: str,
        leave: Callable[[], Any],
        record: Callable[[Any, str], str],
    ) -> None:
        self.directory = directory
        self._leave = leave
        self._record = record
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._left: Any = None
        self._cause = ""
        self._pid = 0

    # -- the keeper's side ------------------------------------------------------

    def died(self, cause: str) -> None:
        """A child has died of a fault, of this; the next one is not made yet."""
        if self._word() != NOTHING:
            return  # the death before is not told yet
        try:
            self._left = self._leave()
        except (ValueError, MemoryError):
            return  # there is nothing that makes sense, which the next child says; or no memory
        self._cause = cause
        self._put(WRITING, "")

    def next_is_made(self) -> None:
        """The next child was made."""
        if self._left is None:
            return
        left, self._left = self._left, None
        try:
            self._pid = clone.spawn()
        except OSError as error:
            self._put(SAID, f"{LOST}no process can be made: {error.strerror}")
            return
        if self._pid == 0:
            self._live(left)

    def ended(self, pid: int, how: str) -> None:
        """Some process has ended that the keeper's had made; how: in words."""
        if pid == self._pid:
            self._pid = 0
            if self._word() == WRITING:
                self._put(SAID, f"{LOST}the process that was to do so was {how}")

    def wait(self) -> None:
        """Until nobody writes any more, which has an end (WRITE_SECONDS): there will be no other
        child, and the keeper writes into the same folder."""
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0

    # -- the writer's -----------------------------------------------------------

    def _live(self, left: Any) -> NoReturn:
        text = LOST
        try:
            # Before all else: what it opens from now on is its own.
            clone.leave_descriptors()
            _put("comm", NAME)
            _put("oom_score_adj", OOM_SCORE)
            clone.leave_no_core()
            signal.alarm(WRITE_SECONDS)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
            text = FOUND + self._record(left, self._cause)
        except OSError as error:
            text += str(error.strerror)
        except ValueError as error:
            text += str(error)
        except BaseException as error:
            text += f"{type(error).__name__}: {error}"
        finally:
            try:
                self._put(SAID, text)
            finally:
                os._exit(0)

    # -- a child's --------------------------------------------------------------

    def is_expected(self) -> bool:
        """Is there something told, or will there be?"""
        return self._word() != NOTHING

    def told(self) -> str:
        """What there is to be told, once; empty: not yet."""
        word, length = _HEAD.unpack_from(self._page)
        if word != SAID:
            return ""
        begin = _HEAD.size
        text = self._page[begin : begin + min(length, len(self._page) - begin)]
        self._put(NOTHING, "")
        return text.decode("utf-8", "replace")

    # -- the page ---------------------------------------------------------------

    def _word(self) -> int:
        return int(_HEAD.unpack_from(self._page)[0])

    def _put(self, word: int, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")[: len(self._page) - _HEAD.size]
        self._page[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._page, 0, self._word(), len(data))
        _HEAD.pack_into(self._page, 0, word, len(data))


def _put(name: str, text: str) -> None:
    """Into a file of /proc about this process."""
    try:
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        pass  # no /proc, or it is not this user's
