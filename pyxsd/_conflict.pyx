# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who pays for conflicts: history, blame and credit (floor 2).

A domain whose changes made a transaction of another domain fail loses a point of
credit for each, and is not served while it has none left.  Points come back with
time: tick() says when.
"""

from collections import OrderedDict, deque

from libc.stdint cimport int64_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._wire cimport ST_EAGAIN, ST_EINVAL

cdef enum:
    HISTORY_MAX = 4096       # changes kept to find culprits in
    BLAME_BUDGET = 16384     # requests replayed to find the culprits of one conflict


cdef class Conflicts(Delivery):
    """The changes of late, the credit of the domains, and the time for both."""

    def __cinit__(self, *args, **kwargs):
        self.history = []
        self.young = deque()
        self.paused = OrderedDict()
        self.penalised = OrderedDict()

    def configure(self, config, AccessLog log not None):
        """Takes over the limits of a Config."""
        Delivery.configure(self, config, log)
        self.history_seconds = config.conflict_max_history_seconds
        self.aggregate = config.conflict_rate_limit_is_aggregate

    def close(self):
        """Ends all connections, so that nothing of the server stays behind."""
        Delivery.close(self)
        self.history = []
        self.young.clear()
        self.paused.clear()
        self.penalised.clear()

    # -- time -----------------------------------------------------------------

    def begin(self, double wall, double now):
        """A turn begins: the time for the log (seconds since 1970) and the
        monotonic time of everything else (seconds)."""
        self.begin_turn(wall, now)

    cdef int begin_turn(self, double wall, double now) except -1:
        self.log.set_time(wall)
        self.now = now
        return 0

    @property
    def wants_tick(self):
        """Is there something that time will change?"""
        return self.wants_loop()

    cdef bint wants_loop(self) noexcept:
        return len(self.history) != 0 or bool(self.paused) or bool(self.penalised)

    def tick(self, double now):
        """Does what is due by now (monotonic seconds); when it wants to be
        called again, or None."""
        self.now = now
        if self.history:
            self.trim_history()
        if not self.paused and not self.penalised:
            self.next_credit = 0.0
            return now + self.history_seconds if self.history else None
        if self.next_credit == 0.0:
            self.next_credit = now + self.history_seconds
        elif now >= self.next_credit:
            self._give_credit()
            self.next_credit = now + self.history_seconds
        return self.next_credit

    # -- history --------------------------------------------------------------

    cdef int trim_history(self) except -1:
        """Drops what no transaction younger than the limit began before."""
        cdef Transaction txn
        cdef Connection c
        cdef double oldest = self.now - self.history_seconds, since
        cdef uint64_t start = 0
        while self.young:
            id, tx_id, start, since = self.young[0]
            if since >= oldest:
                c = self.connections.get(id)
                txn = c.transactions.get(tx_id) if c is not None else None
                if txn is not None and txn.start == start:
                    break
            self.young.popleft()
        if not self.young:
            self.history.clear()
            return 0
        k = 0
        for entry in self.history:
            if entry[0] > start and len(self.history) - k <= HISTORY_MAX:
                break
            k += 1
        del self.history[:k]
        return 0

    cdef int record(self, Connection c, Tree before) except -1:
        """Remembers who changed the store; before is how it was."""
        self.trim_history()
        if self.young:
            self.history.append((self.commits, c, before, self.tree.snapshot()))
        return 0

    # -- blame ----------------------------------------------------------------

    cdef int rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                   bytes label) except -1:
        raise NotImplementedError

    cdef int blame(self, Connection c, Transaction txn, bytes label) except -1:
        """Finds the domains whose changes made a transaction fail.

        Guilty is who changed the store so that the transaction's requests went
        through before and not after.  The search stops where it would cost
        more than BLAME_BUDGET requests.
        """
        cdef Connection other
        cdef Tree before, after
        cdef int64_t cost = 0
        cdef int same
        cdef set guilty = set()
        self.host.log("debug", "process",
                      f"Apportioning blame for EAGAIN in txn {txn.id}, domain={c.label.decode()}")
        for commit, other, before, after in self.history:
            if commit <= txn.start or other is c or other.id in guilty:
                continue
            cost += 2 * len(txn.requests)
            if cost > BLAME_BUDGET:
                break
            same = self.rerun(c, txn, before.snapshot(), None, None)
            if same == RERUN_SAME:
                same = self.rerun(c, txn, after.snapshot(), None, None)
                if same == RERUN_SAME:
                    continue
            elif same == RERUN_DIFFERS:
                continue
            if same == RERUN_CANNOT:
                # oxenstored's trial fails of it, and so does the request.
                return ST_EINVAL
            else:
                self.host.log("debug", "process",
                              f"Blaming domain {other.label.decode()} for conflict with domain "
                              f"{c.label.decode()} txn {txn.id}")
                guilty.add(other.id)
                self._punish(other)
        if not guilty:
            self.transactions_no_culprit += 1
            self.host.log("debug", "process", f"Found no culprit for conflict in "
                          f"{label.decode()}: must be self or not in history.")
        return ST_EAGAIN

    # -- credit ---------------------------------------------------------------

    cdef int _punish(self, Connection c) except -1:
        if c.closed:
            return 0
        c.credit = max(c.credit - 1.0, -1.0)
        if c.credit <= 0.0:
            self.penalised.pop(c.id, None)
            self.paused.setdefault(c.id, c)
        else:
            self.penalised.setdefault(c.id, c)
        return 0

    def _give_credit(self):
        """One point back: to the longest-waiting paused domain, else the
        longest-waiting penalised one; or to every domain."""
        if self.aggregate:
            queue = self.paused or self.penalised
            self._give_point(queue, next(iter(queue)))
        else:
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
        self.unblock(c)
