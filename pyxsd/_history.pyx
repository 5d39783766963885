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

The history holds snapshots, so it is bounded in time, and for each guest in weight: how many
nodes its changes copied or made, the pages of directories that were copied with them, values and
what was let go of counting as a node for every NODE_BYTES, CHANGE_WEIGHT for each change, and the
counts of nodes by owner where the change has made other ones (32 KB on a host with a thousand
guests).  A guest that writes below 500 nodes of its own keeps 50 KB with each change.  Where a
guest is over its share, its own oldest change is forgotten, and with it what others changed from
then until the next change of that guest, since the snapshots in between hold what the guest has
replaced.  Changes before it stay.  What was forgotten cannot be tried any more.  But no change
must be hidden behind heavy ones, and nobody may be blamed for having written much.  So a mark of
a forgotten change stays, a hash of the path of the node that it changed: whoever changed the very
node of which the failed transaction was told something else is guilty.  Of a commit that changed
several nodes there is no mark, and the newest MARKS_MAX marks of each guest are kept.

In 50 milliseconds guests can make 20,000 changes, and start and end as many transactions.  So what
is to be forgotten, and what no transaction needs any more, is dropped in slices; and a transaction
is forgotten at its end.

Time is what begin() and tick() say it is: the history reads no clock.
"""

cimport cython
from bisect import bisect_left
from collections import OrderedDict, deque

from cpython.dict cimport PyDict_Size
from pyxsd._outq cimport path_hash
from pyxsd.store.tree cimport Node, node_content

cdef enum:
    NODE_BYTES = 128         # that a copied node takes, about
    CHANGE_WEIGHT = 4        # of a change itself: its two snapshots and its entry, 512 bytes
    WEIGHT_MAX = 4096        # of the changes of one guest: 0.5 MB
    MARKS_MAX = 512          # of forgotten changes of one guest: 100 KB
    FORGOTTEN = 512          # changes that are forgotten at once
    TRIMMED = 256            # changes, and starts of transactions, that trim() drops at once


cdef uint64_t node_mark(const Path *path) noexcept:
    return path_hash(path.text, path.len) | 1


cdef inline bint _has_any(object of) noexcept:
    """bool() of an OrderedDict, without the search for its method: each turn asks."""
    return PyDict_Size(of) > 0


@cython.final
cdef class History:
    """The history of one server.  config has the three conflict settings."""

    def __cinit__(self, Agenda agenda not None, config):
        self.agenda = agenda
        self.seconds = config.conflict_max_history_seconds
        self.burst = config.conflict_burst_limit
        self.aggregate = config.conflict_rate_limit_is_aggregate
        self.clear()

    def clear(self):
        """Forgets everything but the credit."""
        if self.changes is not None:
            self._drop(0, len(self.changes))
            for txn in list(self.recent_transactions.values()):
                self.note_end(txn)
        self.changes = []
        self.numbers = {}
        self.lost = OrderedDict()
        self.recent_transactions = OrderedDict()
        self.paused = OrderedDict()
        self.penalised = OrderedDict()
        self.next_credit = 0.0

    # -- changes --------------------------------------------------------------

    cdef int note_start(self, Connection c, Transaction txn) except -1:
        self.recall(c, txn)
        if len(self.recent_transactions) > 64:
            self.trim()
        return 0

    cdef int recall(self, Connection c, Transaction txn) except -1:
        self.last_serial += 1
        txn.client = c.id
        txn.serial = self.last_serial
        self.recent_transactions[txn.serial] = txn
        return 0

    cdef int note_end(self, Transaction txn) except -1:
        if txn.serial:
            del self.recent_transactions[txn.serial]
            txn.serial = 0
        return 0

    cdef bint wants(self, Connection c) noexcept:
        return c.is_guest and _has_any(self.recent_transactions)

    cdef int record(self, Connection c, Tree before, Tree after, int64_t bytes,
                    const Path *path) except -1:
        cdef uint64_t mark = 0
        cdef int64_t copied = after.copied - before.copied
        cdef int64_t nodes, dropped, weight
        cdef Node *node = before.find(path) if path != NULL else NULL
        if path != NULL and after.nodes >= before.nodes:
            # What one had that was written.  The copies of those on its path share theirs.
            dropped = node_content(node) if node != NULL else 0
        else:
            # What was let go of beside the copied nodes: those on the path, where there is one.
            nodes = copied if path == NULL else min(copied, <int64_t>path.parts + 1)
            dropped = max(after.dropped - before.dropped - nodes * NODE_BYTES, 0)
        weight = CHANGE_WEIGHT + copied + (bytes + dropped) // NODE_BYTES
        # Where the counts changed, a table with all owners of nodes is kept, too.
        weight += after.counts_beside(before) // NODE_BYTES
        self.trim()
        if not self.recent_transactions:
            return 0
        if c.kept and c.kept + weight > WEIGHT_MAX:
            self._forget(c, c.kept + weight - WEIGHT_MAX)
        # An equal value leaves the node what it is.
        if path != NULL and node != after.find(path):
            mark = node_mark(path)
        return self.keep(self.commits, c, before, after, weight, mark)

    cdef int keep(self, uint64_t commit, Connection c, Tree before, Tree after,
                  int64_t weight, uint64_t mark) except -1:
        if c.id not in self.numbers:
            self.numbers[c.id] = deque()
        self.numbers[c.id].append(commit)
        self.changes.append((commit, c, before, after, weight, mark))
        c.kept += weight
        return 0

    cdef int _forget(self, Connection c, int64_t weight) except -1:
        """Forgets the oldest changes of a connection that have that weight together, and all up to
        its next one; of very many only the first FORGOTTEN.  What is left then of others goes when
        no transaction needs it any more."""
        numbers = self.numbers[c.id]
        cdef Py_ssize_t begin = self._oldest(numbers), end = begin, count = len(self.changes)
        cdef uint64_t commit = 0
        cdef Connection other
        while end < count and end - begin < FORGOTTEN:
            next_commit, other, _, _, its_weight, mark = self.changes[end]
            if other is c:
                if weight <= 0:
                    break
                weight -= its_weight
            commit = next_commit
            if mark:
                self.note_lost(other, mark, commit)
            end += 1
        self._drop(begin, end)
        if begin and c.kept:
            while numbers[0] <= commit:
                numbers.popleft()
        return 0

    cdef int note_lost(self, Connection c, uint64_t mark, uint64_t commit) except -1:
        if c.id not in self.lost:
            self.lost[c.id] = (c, OrderedDict())
        self.lost.move_to_end(c.id)
        marks = self.lost[c.id][1]
        marks[mark] = commit
        marks.move_to_end(mark)
        if len(marks) > MARKS_MAX:
            marks.popitem(last=False)
        return 0

    cdef list who_changed(self, uint64_t mark, uint64_t since):
        cdef Connection c
        cdef list found = []
        for c, marks in self.lost.values():
            if marks.get(mark, 0) > since:
                found.append(c)
        return found

    cdef Py_ssize_t _oldest(self, numbers) except -1:
        """Where the first change is that these numbers are about; behind the end if there is
        none.  Forgotten ones are taken off the numbers."""
        cdef Py_ssize_t k
        cdef uint64_t commit
        while numbers:
            k = bisect_left(self.changes, (numbers[0],))
            if k == len(self.changes):
                break
            commit = self.changes[k][0]
            if commit == numbers[0]:
                return k
            while numbers and numbers[0] < commit:
                numbers.popleft()
        return len(self.changes)

    cdef int _drop(self, Py_ssize_t begin, Py_ssize_t end) except -1:
        """Forgets some changes."""
        cdef Connection c
        for commit, c, _, _, weight, _ in self.changes[begin:end]:
            c.kept -= weight
            if c.kept == 0:
                del self.numbers[c.id]
            elif begin == 0:
                numbers = self.numbers[c.id]
                while numbers[0] <= commit:
                    numbers.popleft()
        del self.changes[begin:end]
        return 0

    cdef bint trim(self) except -1:
        """Drops what no transaction that is open and recent began before, as far as TRIMMED goes;
        is there more of it?"""
        cdef Transaction txn
        cdef double oldest = self.now - self.seconds
        cdef uint64_t start = 0
        cdef Py_ssize_t k = 0, left = TRIMMED
        cdef bint forgotten = False
        while self.recent_transactions and left:
            left -= 1
            txn = next(iter(self.recent_transactions.values()))
            start = txn.start
            if txn.since >= oldest:
                break
            self.note_end(txn)
        if not self.recent_transactions:
            start = self.commits
        for entry in self.changes:
            if k == TRIMMED or entry[0] > start:
                break
            k += 1
        if k:
            self._drop(0, k)
        if self.lost:
            # Up to MARKS_MAX marks.
            id = next(iter(self.lost))
            if next(reversed(self.lost[id][1].values())) <= start:
                del self.lost[id]
                forgotten = True
        return left == 0 or k == TRIMMED or forgotten

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
        return len(self.changes) != 0 or _has_any(self.lost) or _has_any(self.paused) \
            or _has_any(self.penalised)

    def tick(self, double now):
        """Does what is due by now (monotonic seconds); when it wants to be called again,
        or None."""
        cdef bint more
        self.now = now
        more = (len(self.changes) != 0 or bool(self.lost)) and self.trim()
        if not self.paused and not self.penalised:
            self.next_credit = 0.0
        elif self.next_credit == 0.0:
            self.next_credit = now + self.seconds
        elif now >= self.next_credit:
            self._give_credit()
            self.next_credit = now + self.seconds
        if more:
            return now
        if self.next_credit:
            return self.next_credit
        return now + self.seconds if self.changes or self.lost else None

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
