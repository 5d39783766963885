# SPDX-License-Identifier: LGPL-2.1-or-later
# Who pays for conflicts: the changes of late, and the credit of the domains that
# made transactions of others fail by theirs.

from libc.stdint cimport uint64_t
from pyxsd._delivery cimport Delivery
from pyxsd._hub cimport Connection
from pyxsd.store.tree cimport Tree
from pyxsd.store.transaction cimport Transaction

# What running a transaction's requests again came to.
cdef enum:
    RERUN_DIFFERS = 0        # one of them was answered in another way
    RERUN_SAME = 1
    RERUN_CANNOT = 2         # there is one that cannot be replayed

cdef class Conflicts(Delivery):
    cdef double now          # monotonic seconds, as the loop says
    cdef uint64_t commits    # changes of the store, counted
    cdef double history_seconds
    cdef bint aggregate
    cdef list history        # (commit, Connection, before, after) not by domain 0
    # Transactions that the history is kept for, oldest first: (connection id,
    # tx_id, start, since)
    cdef object young
    cdef object paused       # domid: Connection, out of credit, longest first
    cdef object penalised    # domid: Connection, with less than full credit
    cdef double next_credit
    # Counters since the start
    cdef readonly uint64_t transactions_no_culprit

    # What the class that serves requests does: are the transaction's requests
    # answered on `tree` as they were?  RERUN_*.  What they change there is noted
    # in `into`; label names the log lines.  Without both it is a trial.
    cdef int rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                   bytes label) except -1

    cdef int trim_history(self) except -1
    cdef int record(self, Connection c, Tree before) except -1
    cdef int blame(self, Connection c, Transaction txn, bytes label) except -1
    cdef int _punish(self, Connection c) except -1
