# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where events wait that find no room.

An event is in one of three places:

  output    quota "watch-events" of them per connection (1,024), and for a guest not more
            than EVENT_BYTES; sent as soon as the client reads
  waiting   behind its watch, as many for each watch; all that waits for one guest takes
            not more than WAITING_BYTES
  overflow  behind that, and on account of the connection that caused it

A connection with events on its account in somebody's overflow is not served.  So one that
never reads holds up those who cause events for it, but only them, and what it makes the
daemon remember is bounded: by its own quota for the first two places, by about OVERFLOW_EVENTS for
each guest that causes events for the third; the rest of such a guest's events are not made before
those have found room.  (With _conn the answer to XSA-325, 326 and 416.)

When the client reads, the output takes from the waiting events, one of each watch in turn,
and the place that becomes free behind the watch is taken from its overflow.  The order is kept
for each watch.  Each step moves as many events as there is new room, REFILLED at most, and looks
at no others; the output is sent before the next step.

What is left of a watch or a connection that goes, very many events perhaps, is cleared away in
slices: clear_away() is called in each turn.

An event that is identical to one which is still there is dropped, but for "@" paths, whose
events tell of different domains.
"""

cimport cython
from collections import OrderedDict, deque

from pyxsd._limits cimport OVERFLOW_EVENTS, Q_EVENTS, WAITING_BYTES
from pyxsd._outq cimport path_hash

cdef enum:
    REFILLED = 128           # waiting events that move into the output at once
    EVENT_COST = 224         # bytes that a waiting event takes beside its path, at most


@cython.final
cdef class Pending:
    """What waits behind one watch; see the head of this file."""

    def __cinit__(self, Connection to):
        self.to = to
        self.waiting = deque()
        self.overflow = OrderedDict()
        self.paths = set()

    def __len__(self):
        return len(self.waiting)


@cython.final
cdef class Account:
    """What one connection caused and what found no room; see the head of this file."""

    def __cinit__(self, Connection owner):
        self.owner = owner
        self.owed = {}


cdef class Backlog:
    """What waits for all watchers of a server.  Whoever makes one (Events) sets its parts."""

    def __cinit__(self):
        self.remains = deque()

    cdef bint must_wait(self, Connection cause) noexcept:
        return cause.is_guest and cause.overflowing >= OVERFLOW_EVENTS and not cause.hurried

    cdef int delay(self, Connection cause, Connection to, Watch *watch, const char *path,
                   size_t n, bint own) except -1:
        cdef Pending pending
        cdef uint64_t k = 0
        cdef bytes text
        to.begin_waiting()
        pending = to.pending.get(watch.serial)
        if cause is None or cause.closed:
            cause = self.kernel
        if own:
            text = b""
        else:
            if self.kept is None:
                # One text for all watches that keep this event.
                self.kept = (path - watch.strip)[:n + watch.strip]
            text = self.kept
        if pending is None:
            pending = Pending(to)
            pending.serial = watch.serial
            pending.watch = watch
            to.pending[watch.serial] = pending
        if watch.special:
            self.last_event += 1
            k = self.last_event
        elif text in pending.paths:
            self.merged += 1
            return 0
        try:
            return self._keep(cause, pending, text, k)
        except MemoryError:
            # As if it had never been.
            if k == 0:
                pending.paths.discard(text)
            if not pending.overflow:
                to.overfull.pop(pending.serial, None)
                if not pending.waiting:
                    to.pending.pop(pending.serial, None)
            raise

    cdef int _keep(self, Connection cause, Pending pending, bytes text, uint64_t k) except -1:
        """Keeps an event behind its watch, or on the account of its cause.  MemoryError: it is not
        kept, but its path may be, and the Pending though nothing is in it."""
        cdef Connection to = pending.to
        cdef Account account
        if not pending.overflow and self._may_wait(pending, len(text)):
            if k == 0:
                pending.paths.add(text)
            return self.wait(pending, text, k)
        if k == 0:
            if cause is self.kernel or (cause.hurried and cause.is_guest):
                # Of somebody who has gone, or may not wait.
                if not pending.waiting and not pending.overflow:
                    del to.pending[pending.serial]
                return 0
            pending.paths.add(text)
        account = cause.debts
        if account is None:
            cause.debts = account = Account(cause)
        self.last_debt += 1
        number = self.last_debt
        try:
            pending.overflow[number] = (text, k, account)
            account.owed[number] = pending
            to.overfull[pending.serial] = pending
        except MemoryError:
            pending.overflow.pop(number, None)
            account.owed.pop(number, None)
            raise
        cause.overflowing += 1
        return 0

    cdef int wait(self, Pending pending, bytes path, uint64_t k) except -1:
        """Gives an event a place behind its watch.  Its path may be a text of its own, and the set
        of paths may have just grown to six places for each."""
        pending.waiting.append((path, k))
        pending.to.waiting_bytes += len(path) + EVENT_COST
        return 0

    cdef tuple _take(self, Pending pending):
        """The oldest event behind a watch, (path, k), which gives its place back."""
        cdef tuple event = pending.waiting.popleft()
        pending.to.waiting_bytes -= len(event[0]) + EVENT_COST
        return event

    cdef bint _may_wait(self, Pending pending, Py_ssize_t n) except -1:
        """Is there a place behind the watch for an event with a path of n bytes?"""
        if len(pending.waiting) >= self.limits.most[Q_EVENTS]:
            return False
        return not pending.to.is_guest \
            or pending.to.waiting_bytes + n + EVENT_COST <= WAITING_BYTES

    cdef int _send(self, Connection c, Pending pending, bytes path, uint64_t k) except -1:
        """Puts a waiting event into the output."""
        cdef const Watch *watch = pending.watch
        cdef const char *p = <const char *>path + watch.strip if path else watch.text
        cdef size_t n = len(path) - watch.strip if path else watch.path_len
        if k == 0:
            pending.paths.discard(path)
        if c.out.put_event(pending.serial, k == 0, path_hash(p, n), p, n,
                           watch.text + watch.path_len + 1, watch.token_len):
            self.queued += 1
            log_event(self, c, n + watch.token_len + 2)
        else:
            self.merged += 1
        return 0

    cdef int refill(self, Connection c) except -1:
        cdef Pending pending
        cdef int left = REFILLED
        if not c.pending or not has_room(self, c):
            return 0
        # One event of each watch in turn.
        while left and c.pending and has_room(self, c):
            left -= 1
            pending = next(iter(c.pending.values()))
            if not pending.waiting:
                self._advance(pending, 1)
            path, k = self._take(pending)
            self._send(c, pending, path, k)
            self._advance(pending, 2)
            if pending.waiting:
                c.pending.move_to_end(pending.serial)
            else:
                del c.pending[pending.serial]
        if c.is_guest:
            # Its memory has got room for events of other watches, too.
            left = REFILLED
            for pending in list(c.overfull.values()):
                if left <= 0 or c.waiting_bytes >= WAITING_BYTES:
                    break
                left -= 1 + self._advance(pending, left)
        return 0

    cdef int _advance(self, Pending pending, int most) except -1:
        """Moves events from the overflow to the places behind the watch that are free, `most` of
        them; how many it was."""
        cdef int moved = 0
        while pending.overflow:
            if moved == most:
                return moved
            number, (path, k, account) = next(iter(pending.overflow.items()))
            if pending.waiting and not self._may_wait(pending, len(path)):
                return moved
            # What can fail comes first.
            self.wait(pending, path, k)
            del pending.overflow[number]
            self._repay(account, number)
            moved += 1
        pending.to.overfull.pop(pending.serial, None)
        return moved

    cdef int _repay(self, Account account, number) except -1:
        """An event is no longer on the account of who caused it."""
        cdef Connection cause = account.owner
        del account.owed[number]
        if cause is None:
            return 0
        cause.overflowing -= 1
        if cause.jobs is not None:
            if not self.must_wait(cause):
                self.agenda.left(cause)
        elif cause.overflowing == 0:
            self.agenda.unblock(cause)
        return 0

    # -- what goes ------------------------------------------------------------

    cdef int drop_waiting(self, Connection c) except -1:
        cdef Pending pending
        if c.pending:
            waiting = list(c.pending.values())
            c.pending.clear()
            for pending in waiting:
                self.forget(pending)
            self.clear_away(CLEARED_AT_ONCE)
        return 0

    cdef int forget(self, Pending pending) except -1:
        """It counts as the watcher's memory until
        it is cleared away, else one that sets and removes watches could fill that many times."""
        pending.watch = NULL
        pending.to.overfull.pop(pending.serial, None)
        return self._bury(pending)

    cdef int _bury(self, what) except -1:
        """Leaves a Pending or an Account to be cleared away."""
        try:
            self.remains.append(what)
        except MemoryError:
            while self._clear_one(what):
                pass
            return 0
        self.gone += 1
        return 0

    cdef int drop_debts(self, Connection c) except -1:
        cdef Account account = c.debts
        if account is None:
            return 0
        account.owner = None
        c.debts = None
        c.overflowing = 0
        self._bury(account)
        return self.clear_away(CLEARED_AT_ONCE)

    cdef bint has_remains(self) noexcept:
        return self.gone != 0

    cdef int clear_away(self, int64_t most) except -1:
        while self.gone and most > 0:
            most -= 1
            if not self._clear_one(self.remains[0]):
                self.remains.popleft()
                self.gone -= 1
        return 0

    cdef bint _clear_one(self, what) except -1:
        """Frees an event of a Pending or an Account that is gone; was there one?  MemoryError: it
        is still in both."""
        cdef Pending pending
        cdef Account account
        if isinstance(what, Account):
            account = what
            if not account.owed:
                return False
            # The last one: nothing needs to be looked for.
            number = next(reversed(account.owed))
            self._withdraw(account.owed[number], number)
            del account.owed[number]
            return True
        pending = what
        if pending.waiting:
            path, _ = self._take(pending)
            pending.paths.discard(path)
            return True
        if pending.overflow:
            number, (path, _, account) = next(iter(pending.overflow.items()))
            del pending.overflow[number]
            pending.paths.discard(path)
            self._repay(account, number)
            return True
        return False

    cdef int _withdraw(self, Pending pending, number) except -1:
        """Takes an event back whose cause is gone."""
        event = pending.overflow.get(number)
        if event is None:
            return 0  # there was just no memory left for the account
        path, k, _ = event
        if k == 0:
            pending.paths.discard(path)
        if len(pending.overflow) == 1:
            pending.to.overfull.pop(pending.serial, None)
            if not pending.waiting:
                pending.to.pending.pop(pending.serial, None)
        # Last of all: where memory runs out before, all of this is done once more.
        del pending.overflow[number]
        return 0
