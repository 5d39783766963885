# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recording into a directory (record.files): `record-directory` and CONTROL `record`.

The journal is in memory and is written once a second, and where there are 64 KiB of it.  A
recording that has a quarter of `record-size` is ended and the next one is begun, with a state of
its own; the oldest ones are deleted, so that all together have no more than `record-size`, or than
twice the state where that is more.  With `record-values = false` values are replaced on the way
to the file (record.blanked).  Whatever fails ends the recording, with a line in the daemon
log, and nothing else.
"""

from __future__ import annotations

import os

from pyxsd.record import files, recording
from pyxsd.record.blanked import Blanked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Protocol

    from pyxsd.system.configuration import Config

    class RecordedDaemon(Protocol):
        """What is needed of the daemon."""

        config: Config
        server: Any
        domains: Any

        def after(self, seconds: float, what: Callable[[], None]) -> None:
            """Calls `what` once, between two turns, in so many seconds."""

        def soon(self, what: Callable[[], None]) -> None:
            """Calls `what` once, when the turn at hand is over."""

        def log(self, level: str, text: str) -> None:
            """A line for the daemon log."""


WRITE_SECONDS = 1.0
MEBIBYTE = 1 << 20


class Recorder:
    """The recordings of one daemon."""

    def __init__(self, daemon: RecordedDaemon) -> None:
        self._daemon = daemon
        self._directory = daemon.config.record_directory
        self._most = max(1, daemon.config.record_size) * MEBIBYTE
        self._file: files.Writer | None = None
        self._blanked: Blanked | None = None
        self._full_at = 0  # bytes of it from which on the next one is begun
        self._ticks = 0  # of the timer that is the present one

    def command(self, word: str) -> bytes:
        """The answer to CONTROL `record`, `record on` and `record off`."""
        if word not in ("", "on", "off"):
            return b"OK\0"
        if word:
            self._daemon.soon(self.start if word == "on" else self.stop)
            return b"OK\0"
        if self._file is None:
            return b"Recording is off\n\0"
        return b"Recording is on, %s\n\0" % os.fsencode(self._file.path)

    def start(self) -> None:
        """Records from now on, between two turns."""
        if self._file is not None:
            return
        if not recording.is_possible(self._daemon.server):
            self._daemon.after(WRITE_SECONDS, self.start)
            return
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._begin(
                lambda: recording.begin(
                    self._daemon.server,
                    self._daemon.domains,
                    self._daemon.server.host,
                    self._daemon.config,
                    self._is_full,
                )
            )
        except OSError as error:
            self._give_up(f"cannot record into {self._directory}: {error.strerror}")
            return
        self._ticks += 1
        self._wait(self._ticks)

    def _begin(self, beginning: Callable[[], bytes]) -> None:
        """The next file, with its first block; OSError."""
        known = files.numbers(self._directory)
        number = known[-1] + 1 if known else 1
        self._file = files.Writer(files.path_of(self._directory, number))
        self._file.add(files.BEGINNING, beginning())
        if not self._daemon.config.record_values:
            self._blanked = Blanked(self._daemon.server)
        # However large the state is, as many bytes of journal follow it.
        self._full_at = max(self._most // 4, 2 * self._file.size)
        self._daemon.log("info", f"recording into {self._file.path}")
        self._delete_old(known)

    def _delete_old(self, known: list[int]) -> None:
        """Leaves three quarters of the room to those that are there; the present one takes the
        rest, or what its first state needs."""
        assert self._file is not None
        left = self._most - self._full_at
        for number in reversed(known):
            path = files.path_of(self._directory, number)
            left -= os.path.getsize(path)
            if left < 0:
                os.unlink(path)

    def _wait(self, ticks: int) -> None:
        def now() -> None:
            if ticks == self._ticks and self._file is not None:
                self._write()
                self._wait(ticks)

        self._daemon.after(WRITE_SECONDS, now)

    def _is_full(self) -> None:
        """Called by the loop where the journal's segment is full."""
        self._write()

    def _write(self) -> None:
        """Takes the journal to the file; the next file where this one is long enough."""
        journal = self._daemon.server.journal
        if self._file is None:
            return
        if not journal.is_recording:
            self._give_up(journal.fault or "the journal has ended")
            return
        try:
            if journal.size:
                data = journal.take()
                self._file.add(
                    files.JOURNAL, data if self._blanked is None else self._blanked.records(data)
                )
            if self._file.size > self._full_at and recording.is_possible(self._daemon.server):
                self._file.close()
                self._begin(self._anew)
        except OSError as error:
            self._give_up(f"cannot write {self._file.path}: {error.strerror}")
        except Exception as error:  # whatever fails, serving goes on, and the log says why
            self._give_up(f"{type(error).__name__}: {error}")

    def _anew(self) -> bytes:
        return recording.begin_anew(
            self._daemon.server, self._daemon.domains, self._daemon.config, self._is_full
        )

    def _give_up(self, why: str) -> None:
        self._daemon.log("error", f"recording has ended: {why}")
        self._end()

    def stop(self) -> None:
        """Writes what is there and records no more, between two turns."""
        self._write()
        if self._file is not None:
            self._daemon.log("info", f"recording has ended: {self._file.path}")
        self._end()

    def _end(self) -> None:
        recording.end(self._daemon.server, self._daemon.domains, self._daemon.server.host)
        if self._file is not None:
            self._file.close()
            self._file = None
