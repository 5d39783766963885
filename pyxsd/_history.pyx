# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who pays for conflicts.

A guest that keeps writing what other transactions look at could starve them (XSA-206).  So
each guest has credit, `burst` points of it.  While a transaction is open that began less than
`seconds` ago, the changes that guests commit are kept, each with the store before and after it.
When a commit fails (_commit.blame), a guest whose change made the difference loses a point; one
without credit is not served.  Every `seconds` one point goes back: to the guest that has been
paused the longest, else to the one that has been penalised the longest, or, without
`aggregate`, one to each.

Sockets and domain 0 are never punished, so their changes are not kept.

The history holds snapshots, so it is bounded in number and in time.  Time is what begin() and
tick() say it is: the history reads no clock.
"""

cimport cython
from collections import OrderedDict, deque

cdef enum:
    CHANGES_MAX = 1024       # changes that are kept at most


@cython.final
cdef class History:
    """The history of one server.  connections: id: Connection, of all that are open; config
    has the three conflict settings."""

    def __cinit__(self, Agenda agenda not None, dict connections not None, config):
        self.agenda = agenda
        self.connections = connections
        self.seconds = config.conflict_max_history_seconds
        self.burst = config.conflict_burst_limit
        self.aggregate = config.conflict_rate_limit_is_aggregate
        self.clear()

    def clear(self):
        """Forgets everything but the credit."""
        self.changes = []
        self.recent_transactions = deque()
        self.paused = OrderedDict()
        self.penalised = OrderedDict()
        self.next_credit = 0.0

    # -- changes --------------------------------------------------------------

    cdef int note_start(self, Connection c, uint32_t tx_id) except -1:
        self.recent_transactions.append((c.id, tx_id, self.commits, self.now))
        if len(self.recent_transactions) > 64:
            self.trim()
        return 0

    cdef bint wants(self, Connection c) noexcept:
        return c.is_guest and bool(self.recent_transactions)

    cdef int record(self, Connection c, Tree before, Tree after) except -1:
        self.trim()
        if self.recent_transactions:
            self.changes.append((self.commits, c, before, after))
        return 0

    cdef int trim(self) except -1:
        """Drops what no transaction that is open and recent began before."""
        cdef Transaction txn
        cdef Connection c
        cdef double oldest = self.now - self.seconds, since
        cdef uint64_t start = 0
        cdef Py_ssize_t k = 0
        while self.recent_transactions:
            id, tx_id, start, since = self.recent_transactions[0]
            if since >= oldest:
                c = self.connections.get(id)
                txn = c.transactions.get(tx_id) if c is not None else None
                if txn is not None and txn.start == start:
                    break
            self.recent_transactions.popleft()
        if not self.recent_transactions:
            self.changes.clear()
            return 0
        for entry in self.changes:
            if entry[0] > start and len(self.changes) - k <= CHANGES_MAX:
                break
            k += 1
        if k:
            del self.changes[:k]
        return 0

    # -- credit ---------------------------------------------------------------

    cdef int punish(self, Connection c) except -1:
        if c.closed:
            return 0
        c.credit = max(c.credit - 1.0, -1.0)
        if c.credit <= 0.0:
            self.penalised.pop(c.id, None)
            self.paused.setdefault(c.id, c)
        else:
            self.penalised.setdefault(c.id, c)
        return 0

    cdef bint wants_tick(self) noexcept:
        return len(self.changes) != 0 or bool(self.paused) or bool(self.penalised)

    def tick(self, double now):
        """Does what is due by now (monotonic seconds); when it wants to be called again,
        or None."""
        self.now = now
        if self.changes:
            self.trim()
        if not self.paused and not self.penalised:
            self.next_credit = 0.0
            return now + self.seconds if self.changes else None
        if self.next_credit == 0.0:
            self.next_credit = now + self.seconds
        elif now >= self.next_credit:
            self._give_credit()
            self.next_credit = now + self.seconds
        return self.next_credit

    def _give_credit(self):
        if self.aggregate:
            queue = self.paused or self.penalised
            self._give_point(queue, next(iter(queue)))
            return
        for id in [*self.penalised]:
            self._give_point(self.penalised, id)
        for id in [*self.paused]:
            self._give_point(self.paused, id)

    def _give_point(self, queue, id):
        cdef Connection c = queue[id]
        if c.closed:
            del queue[id]
            return
        c.credit = min(c.credit + 1.0, self.burst)
        if c.credit <= 0.0:
            return
        del queue[id]
        if c.credit < self.burst:
            self.penalised[id] = c
        self.agenda.unblock(c)
