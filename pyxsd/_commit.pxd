# SPDX-License-Identifier: LGPL-2.1-or-later
# The life of transactions: start, end, commit, and the replay of one that cannot be committed
# as it is.  What one of them holds is in store.transaction.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._conn cimport Connection
from pyxsd._request cimport Request, Row, State
from pyxsd._wire cimport Buffer
from pyxsd.store.path cimport Path
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.tree cimport Tree

# What running a transaction's requests again came to.
cdef enum:
    RERUN_DIFFERS = 0        # one of them is answered in another way now
    RERUN_SAME = 1
    RERUN_CANNOT = 2         # there is one that cannot be run again
    RERUN_TOO_LONG = 3       # it would take more work than one request may cost

# A search for those who made a transaction fail.
cdef class Search:
    cdef Connection victim   # whose transaction it is
    cdef Transaction txn
    cdef Tree tried          # the store of the last trial, and how it ended (RERUN_*)
    cdef int same
    cdef list changes        # of which, from `first` on, one may have made the difference
    cdef Py_ssize_t first
    cdef set guilty          # ids of the connections that were found

cdef class Transactions:
    cdef State s
    cdef const Row *rows     # the table of requests, a row for each type
    cdef bint merge          # merge-activate
    cdef bint test_eagain    # fails commits, to test clients
    cdef Path *path          # scratch: of a request run again
    cdef Buffer answer       # scratch: of a request run again
    cdef int64_t work        # that may still be spent on running requests again
    # Those of guests, the one that has kept the store as it was for longest first:
    # (connection id, tx_id): Transaction
    cdef object keeping
    cdef uint32_t keepers    # guests that have any of those
    # Those with changes whose events are still to be told, which keeps the store as it was, the
    # first one first; the kernel's connection, too.  id: Connection
    cdef object waiting
    # Counters
    cdef readonly uint32_t open
    cdef readonly uint64_t failed
    cdef readonly uint64_t no_culprit
    cdef readonly uint64_t merged
    cdef readonly uint64_t done

    # Opens one; its id.
    cdef uint32_t start(self, Connection c) except 0
    # A guest has replaced so many bytes of the store: gives up those of its transactions that keep
    # too much of it as it was.
    cdef int replaced(self, Connection c, int64_t bytes) except -1
    # Not all events of a connection's changes are told, from now on, if they were before,
    cdef int must_wait(self, Connection c) except -1
    # and no longer.
    cdef int waits_no_more(self, Connection c) except -1
    # Those that an image had are open again, and wait again.
    cdef int restored(self) except -1
    # Do the open transactions of a guest keep too much of the store as it was?
    cdef bint pins_too_much(self, Connection c) except -1
    # Do they take too much with the requests that they remember and the nodes that they copied?
    cdef bint remembers_too_much(self, Connection c) except -1
    # It is not open any more.
    cdef int close(self, Connection c, Transaction txn) except -1
    # Ends all of a connection.
    cdef int drop(self, Connection c) except -1
    # Commits one that has writes, if need be by replaying it; a status.
    cdef int commit(self, Connection c, Transaction txn) except -1
    # Remembers a request that a transaction has served.
    cdef int note(self, Transaction txn, Request *r, int status) except -1

    cdef int _give_up(self, Connection c, Transaction txn) except -1
    cdef int _give_up_oldest(self) except -1
    cdef bint _keeps_too_much(self, uint64_t churn, double since) noexcept
    cdef uint32_t _next_id(self, Connection c) except 0
    cdef const Path *_only_node(self, Transaction txn) except? NULL
    cdef int _attempt(self, Connection c, bytes label, Transaction txn) except -1
    cdef bint _is_to_fail(self, Transaction txn) noexcept
    cdef int _replay(self, Connection c, Transaction txn) except -1
    cdef int _rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                    bytes label) except -1
    cdef int _blame(self, Connection c, Transaction txn, bytes label) except -1
    cdef int _try(self, Search search, Tree tree) except -1
    cdef Py_ssize_t _suspect(self, Search search) except -1
    cdef int _one_by_one(self, Search search) except -1
    cdef int _by_halves(self, Search search) except -1
    cdef int _by_mark(self, Search search, uint64_t mark) except -1
    cdef int _accuse(self, Search search, Connection other) except -1
    cdef int _punish(self, Connection c, Transaction txn, Connection guilty) except -1

# What a request reads and writes, for the merge of a transaction.
cdef int note_effect(Transaction txn, Request *r, int status) except -1
