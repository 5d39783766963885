# SPDX-License-Identifier: LGPL-2.1-or-later
"""A log that is a file, rotated by its number of lines."""

from __future__ import annotations

import errno
import os
import stat
import time

from pyxsd.system.log import RETRY_SECONDS, Log, silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Non-blocking, for a FIFO whose reader is slow.
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class LogFile(Log):
    """A file that is rotated by its count of lines.

    `path` is renamed to `path.1`, that to `path.2` and so on, `nb_files` files in all (at least
    1), as soon as more than `nb_lines` lines were written since the start or the last rotation.
    With one file it is emptied instead.  `rotated` is called once at the end of a `write` that
    rotated.  What is no regular file (a device, a FIFO) is never renamed.

    One `write` rotates at most `nb_files` times, which replaces every file; lines beyond that
    stay in the last one.  Where renaming fails the lines go on in the same file, and it is tried
    again once in RETRY_SECONDS.
    """

    def __init__(
        self,
        path: str,
        nb_files: int,
        nb_lines: int,
        *,
        name: str = "log",
        complain: Callable[[str], None] = silence,
        rotated: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._label = f"{name} {path}"
        self._nb_files = max(nb_files, 1)
        self._per_file = max(nb_lines, 0) + 1
        self._room = self._per_file  # lines until the next rotation; negative: it is late
        self._rotate_at = 0.0  # no rotation before that time: the last one was refused
        self._refused = False  # that was told
        self._complain = complain
        self._rotated = rotated
        self._clock = clock
        self._fd = -1
        self._look_at = 0.0  # when to look at the file again: is it deleted, can it be written
        self._lost_now = 0  # lines lost since the failure that was told last
        self._torn = b""  # rest of a line whose beginning stands at the file's end
        self._torn_in = (0, 0)  # device and inode of that file
        self.working = True
        failure = self._open()
        if failure is not None:
            self._complain(self._fail(failure))

    def write(self, block: bytes, lines: int, severity: str = "") -> None:
        now = self._clock()
        if now >= self._look_at:
            notes = self._look(now)
        elif self.working:
            notes = []
        else:
            self._lose(lines)
            return
        rotations = 0
        if self._fd >= 0:
            if self._torn:
                block = self._torn + block
                lines += 1
            start = 0
            failure: OSError | None = None
            while (
                failure is None
                and lines >= self._room
                and now >= self._rotate_at
                and rotations < self._nb_files
            ):
                # A line that was begun in the old file is ended there.
                count = max(self._room, 1 if self._torn else 0)
                end = _end_of_line(block, start, count)
                lines -= count
                failure = self._put(block[start:end], count)
                start = end
                if failure is None:
                    rotations += 1
                    failure = self._rotate(notes)
            if failure is None and lines:
                failure = self._put(block[start:] if start else block, lines)
                lines = 0
            if failure is None:
                if not self.working:
                    notes.append(self._recover())
            else:
                self._lose(lines)
                lines = 0
                if self.working:
                    notes.append(self._fail(failure))
        else:
            self._lose(lines)
        # Last of all: a note may come back into this very log, and the callback take its time.
        for note in notes:
            self._complain(note)
        if rotations and self._rotated is not None:
            self._rotated()

    def reopen(self) -> None:
        self._close()
        failure = self._open()
        if failure is None:
            self._look_at = 0.0
        elif self.working:
            self._complain(self._fail(failure))

    def close(self) -> None:
        self._close()
        self._look_at = float("inf")
        self.working = False

    def fileno(self) -> int:
        """The descriptor, or -1 while there is none."""
        return self._fd

    def _look(self, now: float) -> list[str]:
        """Once in RETRY_SECONDS: open what is closed, leave what was deleted or renamed."""
        self._look_at = now + RETRY_SECONDS
        notes = []
        if self._fd >= 0 and not self._is_at_its_name():
            self._close()
        if self._fd < 0:
            failure = self._open()
            if failure is not None and self.working:
                notes.append(self._fail(failure))
        return notes

    def _is_at_its_name(self) -> bool:
        """Whether `path` still leads to the open file.

        A name that cannot be followed now (no permission, I/O error) is no reason to leave the
        file, as long as it has a name at all.
        """
        try:
            status = os.fstat(self._fd)
        except OSError:
            return False  # ESTALE, EIO: open it anew
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        except OSError:
            return status.st_nlink > 0
        return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)

    def _open(self, flags: int = 0) -> OSError | None:
        try:
            self._fd = os.open(self.path, _OPEN_FLAGS | flags, 0o644)
        except OSError as error:
            return error
        except ValueError:
            return OSError(errno.EINVAL, "NUL in the name")
        if self._torn and _identity(self._fd) != self._torn_in:
            self._torn = b""
            self._lose(1)
        return None

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError:
                pass  # EIO of earlier writes: nothing is left that could be done

    def _put(self, data: bytes, lines: int) -> OSError | None:
        """Write whole lines, the first of them the torn one if there is one.

        After a failure `_torn` is what is missing of the file's last line; that line is not lost.
        """
        done = 0
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            whole = data.count(b"\n", 0, done)
            self._room -= whole
            lines -= whole
            if done:
                end = data.find(b"\n", done) + 1
                self._torn = b"" if data[done - 1] == 10 else data[done : end or len(data)]
                self._torn_in = _identity(self._fd)
            self._lose(lines - 1 if self._torn else lines)
            return error
        self._torn = b""
        self._room -= lines
        return None

    def _rotate(self, notes: list[str]) -> OSError | None:
        emptied = self._nb_files <= 1
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                self._room = self._per_file
                return None
            if not emptied:
                self._shift()
        except FileNotFoundError:
            pass  # deleted or moved: a new one is opened
        except OSError as error:
            # Goes on in the same file rather than lose lines.
            self._rotate_at = self._clock() + RETRY_SECONDS
            if not self._refused:
                self._refused = True
                notes.append(f"{self._label}: not rotated: {error.strerror}")
            return None
        self._refused = False
        self._room = self._per_file
        # Closed before the new one is opened: that works without a free descriptor too.
        self._close()
        return self._open(os.O_TRUNC if emptied else 0)

    def _shift(self) -> None:
        """Rename path.(n-1) to path.n, the oldest first, up to the first gap."""
        names = [self.path]
        while len(names) < self._nb_files and os.path.lexists(names[-1]):
            names.append(f"{self.path}.{len(names)}")
        for older, newer in zip(reversed(names), reversed(names[:-1])):
            if os.path.lexists(newer):
                os.rename(newer, older)

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._lost_now += lines

    def _fail(self, failure: OSError) -> str:
        self.working = False
        self._look_at = self._clock() + RETRY_SECONDS
        return f"{self._label}: {failure.strerror}; lines are lost until it can be written again"

    def _recover(self) -> str:
        self.working = True
        lost, self._lost_now = self._lost_now, 0
        return f"{self._label}: written again, {lost} lines were lost"


def _end_of_line(block: bytes, start: int, lines: int) -> int:
    """The offset behind the next `lines` newlines."""
    end = start
    for _line in range(lines):
        end = block.find(b"\n", end) + 1
        if not end:
            return len(block)
    return end


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
