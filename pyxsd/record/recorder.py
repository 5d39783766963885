# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recording into a directory (record.files): `record-directory` and CONTROL `record`.

The journal is in memory and is written once a second, and where there are 64 KiB of it.  A
recording that has a quarter of `record-size` is ended and the next one is begun, with a state of
its own; the oldest ones are deleted, so that all together have no more than `record-size`, or than
twice the state where that is more.  With `record-values = false` values are replaced on the way
to the file (record.blanked).  Whatever fails ends the recording, with a line in the daemon
daemon log, and nothing else.

Where crashes are recovered from, the journal is in memory that outlives the process, and the
recording takes its records from there: recovery.begin says when they go.  A recording ends with its
process, and the next process begins another one, with its state.
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
        protection: Any

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
        self._is_own = False  # is the journal recorded for this recorder alone?
        self._protection: Any = None  # whose journal it is where it is not
        self._taken = 0  # bytes of that journal
        self._is_wanted = False

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
        self._is_wanted = True
        if self._file is not None:
            return
        protection = self._daemon.protection
        if protection is not None and not self._daemon.server.journal.is_recording:
            protection.awaited = self
            self._daemon.log("warn", "recording begins when a crash can be recovered from again")
            return
        if not recording.is_possible(self._daemon.server):
            self._daemon.after(WRITE_SECONDS, self.start)
            return
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._protection = protection
            self._begin(self._first if protection is None else self._beside)
        except OSError as error:
            self._give_up(f"cannot record into {self._directory}: {error.strerror}")
            return
        except Exception as error:  # whatever fails, serving goes on, and the log says why
            self._give_up(f"{type(error).__name__}: {error}")
            return
        self._ticks += 1
        self._wait(self._ticks)

    def _first(self) -> bytes:
        daemon = self._daemon
        self._is_own = True
        return recording.begin(
            daemon.server, daemon.domains, daemon.server.host, daemon.config, self._is_full
        )

    def _beside(self) -> bytes:
        """The beginning of a recording of a journal that is recorded anyway."""
        daemon = self._daemon
        data, self._taken = recording.begin_beside(daemon.server, daemon.domains, daemon.config)
        self._protection.recorder = self
        return data

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
        self.take()
        if self._file is None:
            return
        try:
            if self._file.size > self._full_at and recording.is_possible(self._daemon.server):
                full, self._file = self._file, None
                full.close()
                self._begin(self._anew)
        except OSError as error:
            self._give_up(f"cannot write into {self._directory}: {error.strerror}")
        except Exception as error:  # whatever fails, serving goes on, and the log says why
            self._give_up(f"{type(error).__name__}: {error}")

    def take(self) -> None:
        """Takes the records to the file."""
        if self._file is None:
            return
        journal = self._daemon.server.journal
        try:
            if self._protection is None:
                data = journal.take()
            else:
                data = journal.behind(self._taken)
                self._taken += len(data)
            if data:
                self._file.add(
                    files.JOURNAL, data if self._blanked is None else self._blanked.records(data)
                )
        except OSError as error:
            self._give_up(f"cannot write {self._file.path}: {error.strerror}")
        except Exception as error:  # whatever fails, serving goes on, and the log says why
            self._give_up(f"{type(error).__name__}: {error}")

    # -- where another journal is used ------------------------------------------

    def look(self) -> None:
        """Between two turns: are there enough records for a write?"""
        if self._daemon.server.journal.offset - self._taken >= recording.SEGMENT_BYTES:
            self._write()

    def interrupt(self, why: str) -> None:
        """That journal ends."""
        self.take()
        if self._file is not None:
            self._give_up(why)

    def resume(self) -> None:
        """It has begun again."""
        if self._is_wanted:
            self.start()

    # -- the end, and the next one ----------------------------------------------

    def _anew(self) -> bytes:
        if self._protection is not None:
            return self._beside()
        return recording.begin_anew(
            self._daemon.server, self._daemon.domains, self._daemon.config, self._is_full
        )

    def _give_up(self, why: str) -> None:
        self._daemon.log("error", f"recording has ended: {why}")
        self._end()

    def stop(self) -> None:
        """Writes what is there and records no more, between two turns."""
        self._is_wanted = False
        self._write()
        if self._file is not None:
            self._daemon.log("info", f"recording has ended: {self._file.path}")
        self._end()

    def _end(self) -> None:
        if self._protection is not None:
            self._protection.recorder = None
        elif self._is_own:
            self._is_own = False
            recording.end(self._daemon.server, self._daemon.domains, self._daemon.server.host)
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # a disk that says so late: what is missing a replay tells
