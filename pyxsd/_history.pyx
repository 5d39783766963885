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

The history holds snapshots, so it is bounded in number and in time, and for each guest in
weight: how many nodes its changes copied or made, values counting as a node for every NODE_BYTES.
A guest that writes below 500 nodes of its own keeps 50 KB with each change.  Where it is over its
share, two changes of it in a row become one, for which it is blamed like for each of them; where
others came between, the oldest changes are dropped.  Time is what begin() and
tick() say it is: the history reads no clock.
"""

cimport cython
from collections import OrderedDict, deque

cdef enum:
    CHANGES_MAX = 1024       # changes that are kept at most
    NODE_BYTES = 128         # that a copied node takes, about
    WEIGHT_MAX = 8192        # of the changes of one guest: 1 MB


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
        if self.changes is not None:
            self._drop(0, len(self.changes))
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

    cdef int record(self, Connection c, Tree before, Tree after, int64_t bytes) except -1:
        cdef int64_t weight = 1 + after.copied - before.copied + bytes // NODE_BYTES
        cdef Py_ssize_t k
        self.trim()
        if not self.recent_transactions:
            return 0
        if c.kept + weight > WEIGHT_MAX and c.kept:
            k = len(self.changes) - 1
            _, last, first, _, had = self.changes[k]
            if last is c:
                # What was between the two changes is freed.
                weight = max(weight, <int64_t>had)
                c.kept += weight - had
                self.changes[k] = (self.commits, c, first, after, weight)
                return 0
            # Others came between: their changes keep what it had replaced by then.
            while c.kept and c.kept + weight > WEIGHT_MAX:
                self._drop(0, 1)
        c.kept += weight
        self.changes.append((self.commits, c, before, after, weight))
        return 0

    cdef int _drop(self, Py_ssize_t begin, Py_ssize_t end) except -1:
        """Forgets some changes."""
        cdef Connection c
        for _, c, _, _, weight in self.changes[begin:end]:
            c.kept -= weight
        del self.changes[begin:end]
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
            return self._drop(0, len(self.changes))
        for entry in self.changes:
            if entry[0] > start and len(self.changes) - k <= CHANGES_MAX:
                break
            k += 1
        return self._drop(0, k) if k else 0

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
