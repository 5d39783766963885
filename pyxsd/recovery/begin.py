# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images in the memory that outlives the process: when they are made, and what that costs.

The journal since the last image is what another process has to run again, so it is bounded: behind
each turn that ends with FULL_BYTES or more, and JOURNAL_SHARE times the image's own size, the next
image begins; earlier where the memory would not do for both images and both segments.  So it does
where requests are dear: each LOOK_BYTES it is looked for how long clients were served since then,
which is what it would take to run that again, and WORK_SECONDS of it are enough, or WORK_SHARE
times what an image takes.  What else is run again, as guests that come and go, is in the processor
time of this process, beside much that is not: looking for requests without sleep, sending.  So
ALL_SHARE times as much of that time is enough as well.

Where nobody asks for anything any more (for QUIET_SECONDS), or a process has just died, much less
is enough: what would take SOON_SECONDS to run again, or SOON_SHARE times what an image takes.  So a
burst of requests is not run again each time that a process dies later.

An image is written in slices between later turns, while the journal goes on in the other segment;
see _memory.pyx for how one takes the place of the other.

Somebody may copy what the process before has left (recovery.crash).  The next image waits for that,
for COPY_SECONDS at most, and until the journal is half as long again as it should be.

What is recorded into a directory beside (record.recorder) takes the records from this journal, so
it is told before they go; where the journal ends so does that, until the journal is back.

Where there is no room, the journal ends, nobody could go on, and the log says so once.  It is tried
again after RETRY_SECONDS, and after twice as long each time that there is no room again: the
journal begins, and with it an image in slices, behind which somebody could go on.
"""

from __future__ import annotations

import time

from pyxsd.recovery import beside
from pyxsd.recovery.host import Kept
from pyxsd.state import surroundings
from pyxsd.state.image import Saving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd._memory import Memory
    from pyxsd.record.recorder import Recorder

AREAS = 4  # of the memory
FULL_BYTES = 2 << 20
JOURNAL_SHARE = 2
LOOK_BYTES = 65536  # of journal, between two looks at the processor's time
WORK_SECONDS = 0.02  # for which clients were served, since the last image
WORK_SHARE = 10
ALL_SHARE = 4
SOON_SECONDS = 0.004
SOON_SHARE = 2
QUIET_SECONDS, QUIET_BYTES = 0.5, 4096  # no more of journal than that in that time
SLICE_SECONDS = 0.0001
IDLE_SECONDS = 0.001  # between slices where nobody asks anything
WAIT_BYTES = 65536  # of journal, before it is tried again to begin an image
COPY_SECONDS = 10.0
RETRY_SECONDS, RETRY_SECONDS_MAX = 30.0, 3600.0


class Protection:
    """Of one daemon, from begin() or go_on() to stop()."""

    def __init__(self, daemon: Any, memory: Memory) -> None:
        self.daemon = daemon
        self.memory = memory
        self.images = 0  # that were made
        self.recorder: Recorder | None = None  # who takes the records, too
        self.awaited: Recorder | None = None  # who would, if the journal had not ended
        self._copied_until = 0.0  # monotonic seconds
        self.full_bytes = FULL_BYTES
        self._journal: Any = daemon.server.journal
        self._number = 0  # of the image in the making
        self._length = 0
        self._saving: Saving | None = None
        self._is_begun = False  # its instant is over
        self._pause = 0.0  # seconds until it is tried again, where there was no room
        self._is_waiting = False  # for the next slice, where nobody asks anything
        self._is_wanted = False  # the next image, before it is due
        self._is_watching = False  # whether anybody asks for anything
        # At the instant of the last image: the processor time of this process, and for how long it
        # had served; the processor time that the slices of that image took.
        self._worked_from = time.process_time()
        self._served_from: int = daemon.server.agenda.served_ns
        self._image_seconds = 0.0

    # -- beginning and end --------------------------------------------------------

    def begin(self) -> bool:
        """Writes the first image and records from now on, between two turns; False where that
        cannot be, which the log says."""
        try:
            self._start()
            self._step(1e9)
        except (MemoryError, OSError) as error:
            self._give_up(str(error))
            return False
        self._is_whole()
        return True

    def _start(self) -> None:
        """The journal begins; so does an image."""
        number = self.memory.next_number
        self.daemon.server.agenda.drop_closed()
        self._journal.without_values = not self.daemon.config.record_values
        self._journal.record_in(self.memory, number, self.is_full)
        self.daemon.server.follow_journal()
        self.install()
        self._make(number)

    def _begin_again(self) -> None:
        """The same in slices: there are clients by now."""
        self._start()
        self._go_on_soon()

    def install(self) -> None:
        """Puts the seams in."""
        domains, commands = self.daemon.domains, self.daemon.server.host.commands
        server = self.daemon.server
        if domains.xen is not None and not isinstance(domains.xen, Kept):
            domains.xen = Kept(domains.xen, self._journal, server, self.ports)
        if not isinstance(commands.host, Kept):
            commands.host = Kept(commands.host, self._journal, server)

    def ports(self) -> list[int]:
        """Those that are known to be bound."""
        domains = self.daemon.domains
        return [*domains.by_port, domains.virq_port]

    def go_on(self, replayed: float = 0.0) -> None:
        """Another process has recorded until now.  replayed: the processor time that it took to run
        that again."""
        self._copied_until = time.monotonic() + COPY_SECONDS
        if self._journal.is_recording:
            self._journal.is_full_at = self._next_look()
            if replayed >= SOON_SECONDS or self._is_worth_it():
                self._begin_soon()
        # else it has ended again: is_full() is called behind the next turn

    def stop(self) -> None:
        """Nobody goes on from here any more: the daemon ends, and means to."""
        self._saving, self._is_begun, self._is_wanted = None, False, False
        self.memory.release()
        domains, commands = self.daemon.domains, self.daemon.server.host.commands
        self._journal.stop()
        self.daemon.server.follow_journal()
        if isinstance(domains.xen, Kept):
            domains.xen = domains.xen.inner
        if isinstance(commands.host, Kept):
            commands.host = commands.host.inner

    def _give_up(self, why: str) -> None:
        if self.recorder is not None:
            self.recorder.interrupt(why)
            self.awaited, self.recorder = self.recorder, None
        self.stop()
        if not self._pause:
            self.daemon.log("error", f"a crash cannot be recovered from for now: {why}")
        for area in range(AREAS):
            self.memory.trim(area, 0)
        self._pause = min(max(2 * self._pause, RETRY_SECONDS), RETRY_SECONDS_MAX)
        self._later(self._pause, self._begin_again)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        # The loop looks at its timers when it was woken.
        self.daemon.soon(lambda: self.daemon.after(seconds, what))

    # -- images ---------------------------------------------------------------------

    def _limit(self) -> int:
        size = self.memory.image_size
        wanted = max(self.full_bytes, JOURNAL_SHARE * size)
        # The next image must have room beside this one and its journal, and beside as much journal
        # again while it is made, and a third part for what areas have to spare.  Where that cannot
        # be, this is the last image, and its journal may take what there is.
        room = (self.memory.limit - min(self.memory.limit, 2 * size)) // 3
        return min(wanted, room) if room >= self.full_bytes else wanted

    def _next_look(self) -> int:
        """Where the journal is looked at again, in bytes of its segment."""
        return min(self._limit(), int(self._journal.size) + LOOK_BYTES)

    def _is_due(self) -> bool:
        """Is there enough in the journal for the next image?"""
        if int(self._journal.size) >= self._limit():
            return True
        enough = max(WORK_SECONDS, WORK_SHARE * self._image_seconds)
        worked = time.process_time() - self._worked_from
        return self._served() >= enough or worked >= ALL_SHARE * enough

    def _served(self) -> float:
        """For how many seconds clients were served since the last image."""
        return float((self.daemon.server.agenda.served_ns - self._served_from) * 1e-9)

    def _is_worth_it(self) -> bool:
        """Is there enough in the journal for an image that disturbs nobody?"""
        return self._served() >= max(SOON_SECONDS, SOON_SHARE * self._image_seconds)

    def _watch_for_quiet(self) -> None:
        if not self._is_watching and self._is_worth_it():
            self._is_watching = True
            at = self._journal.offset
            self._later(QUIET_SECONDS, lambda: self._look_for_quiet(at))

    def _look_for_quiet(self, at: int) -> None:
        self._is_watching = False
        if self._saving is not None or not self._journal.is_recording:
            return
        if self._journal.offset - at > QUIET_BYTES:
            self._watch_for_quiet()
        elif self._is_worth_it():
            self._begin_soon()

    def _begin_soon(self) -> None:
        """The next image, behind the next turn or where there is none."""
        self._is_wanted = True
        self._journal.is_full_at = 0
        self._go_on_soon()

    def _is_copied(self) -> bool:
        """Does somebody copy the last image and its journal, who may still do so?"""
        if not self.memory.held:
            return False
        is_late = time.monotonic() >= self._copied_until
        if is_late or int(self._journal.size) >= self._limit() * 3 // 2:
            self.memory.release()
            return False
        return True

    def _make(self, number: int) -> None:
        self._image_seconds, self._is_wanted = 0.0, False
        self._number, self._length, self._is_begun = number, 0, False
        self._journal.is_full_at = 0
        self._saving = Saving(self.daemon.server, self._put, self._around)

    def _put(self, data: bytes) -> None:
        self.memory.put(self._number, self._length, data)
        self._length += len(data)

    def _around(self) -> list[tuple[bytes, bytes]]:
        """The instant that the image is of."""
        daemon = self.daemon
        self._is_begun = True
        daemon.write_access_log()
        self.memory.forget_logged(self._number)
        self.memory.dated(self._number, time.time())
        if self.recorder is not None:
            self.recorder.take()
        self._journal.next_segment(self._number)
        self._worked_from = time.process_time()
        self._served_from = daemon.server.agenda.served_ns
        return [
            *surroundings.write(daemon.surroundings(), daemon.domains),
            beside.write(daemon.server, daemon.domains),
        ]

    def is_full(self) -> None:
        """Called by the loop behind a turn where the segment is full, and behind each turn while an
        image is made."""
        if not self._journal.is_recording:
            self._give_up(self._journal.fault or "the journal has ended")
            return
        if self.recorder is not None:
            self.recorder.look()
        try:
            self._slice()
        except (MemoryError, OSError) as error:
            self._give_up(str(error))

    def _slice(self) -> None:
        server = self.daemon.server
        if not self._is_begun and (
            server.is_holding or any(c.awaits for c in server.connections.values())
        ):
            # An image does not say who waits for a late answer, or for the end of a switch.
            self._journal.is_full_at += WAIT_BYTES
            return
        if self._saving is None:
            if not self._is_wanted and not self._is_due():
                self._journal.is_full_at = self._next_look()
                self._watch_for_quiet()
                return
            if self._is_copied():
                self._journal.is_full_at += WAIT_BYTES
                return
            self._make(self.memory.next_number)
        if not self._is_begun:
            self._journal.is_full_at = 0
            server.settle()
        if self._step(SLICE_SECONDS):
            self._is_whole()
        else:
            self._go_on_soon()

    def _step(self, seconds: float) -> bool:
        """A slice of the image; is it whole?"""
        assert self._saving is not None
        before = time.process_time()
        is_whole = self._saving.step(seconds)
        self._image_seconds += time.process_time() - before
        return is_whole

    def _go_on_soon(self) -> None:
        """With the next slice, where no turn comes before."""
        if not self._is_waiting:
            self._is_waiting = True
            self._later(IDLE_SECONDS, self._idle)

    def _idle(self) -> None:
        self._is_waiting = False
        if self._saving is not None or self._is_wanted:
            self.is_full()

    def _is_whole(self) -> None:
        self._saving, self._is_begun = None, False
        self.memory.swap(self._number, self._length)
        if self._pause:
            self._pause = 0.0
            self.daemon.log("info", "a crash is recovered from again from now on")
            if self.awaited is not None:
                self.awaited.resume()
                self.awaited = None
        self.images += 1
        # The areas that the next ones go into.
        self.memory.trim(3 - (self._number & 1), self._length)
        self.memory.trim(1 - (self._number & 1), self._limit())
        self._journal.is_full_at = self._next_look()


def begin(daemon: Any, memory: Memory) -> bool:
    """From now on another process can go on from the memory where this one dies; False where that
    cannot be, which the log says.  To be called when the daemon is ready to serve, in the process
    that serves."""
    try:
        memory.lock()
    except OSError as error:
        daemon.log("error", f"a crash cannot be recovered from: {error.strerror}")
        return False
    memory.watch_causes()
    protection = daemon.protection = Protection(daemon, memory)
    return protection.begin()
