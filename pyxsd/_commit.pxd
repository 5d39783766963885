# SPDX-License-Identifier: LGPL-2.1-or-later
# The life of transactions in the server: start, end, commit, and the replay of one
# that cannot be committed as it is.  What one of them holds is in _txn.

from libc.stdint cimport uint32_t, uint64_t
from pyxsd._conflict cimport Conflicts
from pyxsd._hub cimport Connection
from pyxsd.store.path cimport Path
from pyxsd.store.transaction cimport Transaction

cdef class Transactions(Conflicts):
    cdef Path *path          # scratch: of the request or change at hand
    cdef bint merge_activate
    cdef bint test_eagain
    cdef readonly uint64_t epoch    # changes that touched every node
    cdef readonly uint32_t open_transactions
    # Counters since the start
    cdef readonly uint64_t transactions_failed
    cdef readonly uint64_t transactions_merged
    cdef readonly uint64_t transactions_done

    cdef int drop_transactions(self, Connection c) except -1
    cdef int start(self, Connection c, uint32_t *id) except -1
    cdef int end(self, Connection c, Transaction txn) except -1
    cdef int _commit(self, bytes label, Transaction txn) except -1
    cdef int _fire_transaction(self, Connection c, Transaction txn) except -1
    cdef int _replay(self, Connection c, Transaction txn) except -1
