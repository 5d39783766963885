# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writing the database while clients are served.

The database of a store of 100,000 nodes takes 300 ms to write.  SIGTERM waits for that; a rotation
of the access log must not, since guests can make log lines, nor must a commit where the store is
persistent.  So the rows are written in slices of SLICE_SECONDS with PAUSE_SECONDS between them, and
the next writing begins `least` seconds after the end of the last one at the earliest.  The file
takes the place of the old one when it is whole.

The nodes are those of the moment at which writing began (a snapshot); the watches of a domain those
of the moment at which its turn came.
"""

from __future__ import annotations

import os
import time

from pyxsd.system.files import create_anew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

SLICE_SECONDS = 0.0005
PAUSE_SECONDS = 0.002
LEAST_SECONDS = 10.0
ROWS = 16  # between two looks at the clock


class Saver:
    """Writes rows(), lines without their newlines, to a file.

    after(seconds, what) calls `what` once, later; complain(text) is told of a failure.  least: the
    seconds between two writings.
    """

    def __init__(
        self,
        path: str,
        rows: Callable[[], Iterable[bytes]],
        after: Callable[[float, Callable[[], None]], None],
        complain: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        least: float = LEAST_SECONDS,
    ) -> None:
        self.path = path
        self._rows = rows
        self._after = after
        self._complain = complain
        self._clock = clock
        self._least = least
        self._left: Iterator[bytes] | None = None
        self._file: BinaryIO | None = None
        self._waiting = False  # the next writing is on the list of what to call later
        self._again = False  # it was asked for while a file was being written
        self._not_before = 0.0

    @property
    def under_way(self) -> bool:
        """Is a file being written?"""
        return self._file is not None

    def start(self) -> None:
        """Writes the file soon; once, however often this is called meanwhile."""
        if self._waiting:
            return
        self._waiting = True
        self._after(max(0.0, self._not_before - self._clock()), self._begin)

    def stop(self) -> None:
        """Drops what is half written; never fails."""
        file, self._file, self._left = self._file, None, None
        if file is None:
            return
        try:
            file.close()
        except OSError:
            pass  # a full disk: what is still to be written is not wanted any more
        try:
            os.unlink(self._temporary)
        except OSError:
            pass  # somebody removed it

    @property
    def _temporary(self) -> str:
        return self.path + "#slices"

    def _begin(self) -> None:
        self._waiting = False
        if self._file is not None:
            # What is written is of an earlier moment.
            self._again = True
            return
        try:
            fd = create_anew(self._temporary)
        except OSError as error:
            self._failed(error)
            return
        self._file = open(fd, "wb", buffering=1 << 16)
        self._left = iter(self._rows())
        self._go_on()

    def _go_on(self) -> None:
        if self._file is None or self._left is None:
            return  # stopped meanwhile
        end = self._clock() + SLICE_SECONDS
        try:
            while self._clock() < end:
                for _ in range(ROWS):
                    row = next(self._left, None)
                    if row is None:
                        self._finish()
                        return
                    self._file.write(row + b"\n")
        except Exception as error:  # whatever fails, the next writing begins in time
            self._failed(error)
            return
        self._after(PAUSE_SECONDS, self._go_on)

    def _finish(self) -> None:
        assert self._file is not None
        self._file.close()
        os.rename(self._temporary, self.path)
        self._file = None
        self._left = None
        self._not_before = self._clock() + self._least
        if self._again:
            self._again = False
            self.start()

    def _failed(self, error: Exception) -> None:
        self._not_before = self._clock() + self._least
        self.stop()
        text = isinstance(error, OSError) and error.strerror
        self._complain(f"cannot write {self.path}: {text or type(error).__name__}")
