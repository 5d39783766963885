# SPDX-License-Identifier: LGPL-2.1-or-later
# The changes of late, and the conflict credit of those who made them.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._agenda cimport Agenda
from pyxsd._conn cimport Connection
from pyxsd.store.path cimport Path
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.tree cimport Tree

# The mark of a change of the node at a path; never 0.
cdef uint64_t node_mark(const Path *path) noexcept

cdef class History:
    cdef Agenda agenda
    cdef double seconds      # conflict-max-history-seconds
    cdef double burst        # conflict-burst-limit: the credit of who never was punished
    cdef bint aggregate      # conflict-rate-limit-is-aggregate: one point for all
    cdef double now          # monotonic seconds, as the loop says
    cdef uint64_t commits    # changes of the store, counted
    cdef uint64_t churn      # bytes that guests have written so far
    # The changes of guests, oldest first; commit is what `commits` was after the change:
    # (commit, Connection, Tree before, Tree after, weight, mark of what it changed)
    cdef list changes
    # connection id: a deque with the commits of its changes in there, oldest first; it may also
    # have some that are not there any more
    cdef dict numbers
    # What is known of changes that were forgotten before their time, by who made them, the one that
    # it last happened to at the end; connection id: (Connection, {mark: the newest such commit})
    cdef object lost
    # Open transactions that the changes are kept for, oldest first:
    # a number that counts up: Transaction
    cdef object recent_transactions
    cdef uint64_t last_serial
    cdef object paused       # id: Connection without credit, the longest first
    cdef object penalised    # id: Connection with less than full credit
    cdef double next_credit  # when a point comes back, 0.0 while none is owed

    # A transaction begins.
    cdef int note_start(self, Connection c, Transaction txn) except -1
    # The same of one that an image had, the oldest one first: nothing is dropped for it.
    cdef int recall(self, Connection c, Transaction txn) except -1
    # And ends.
    cdef int note_end(self, Transaction txn) except -1
    # Must the store of now be kept before this connection changes it?
    cdef bint wants(self, Connection c) noexcept
    # The store was changed by c; before and after are snapshots of it.  bytes: of the
    # requests that did it.  path: the node that was changed; NULL where there are several.
    cdef int record(self, Connection c, Tree before, Tree after, int64_t bytes,
                    const Path *path) except -1
    # Keeps a change that is newer than all that are kept.
    cdef int keep(self, uint64_t commit, Connection c, Tree before, Tree after,
                  int64_t weight, uint64_t mark) except -1
    # It was forgotten before its time, so a mark of it stays; see node_mark().
    cdef int note_lost(self, Connection c, uint64_t mark, uint64_t commit) except -1
    # Who made a change of that mark after a commit, as far as it was forgotten.
    cdef list who_changed(self, uint64_t mark, uint64_t since)
    cdef int _forget(self, Connection c, int64_t weight) except -1
    cdef Py_ssize_t _oldest(self, numbers) except -1
    cdef int _drop(self, Py_ssize_t begin, Py_ssize_t end) except -1
    # Takes a point of credit.
    cdef int punish(self, Connection c) except -1
    cdef bint trim(self) except -1
    # Is there something that time will change?
    cdef bint wants_tick(self) noexcept
