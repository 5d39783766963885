# SPDX-License-Identifier: LGPL-2.1-or-later
# The server: what each request means, transactions with their replays, and who
# pays for conflicts.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._hub cimport Connection, Hub
from pyxsd._nodes cimport Effect
from pyxsd._path cimport Path
from pyxsd._perms cimport Actor
from pyxsd._store cimport Tree
from pyxsd._txn cimport Transaction
from pyxsd._watch cimport Watch
from pyxsd._wire cimport Buffer, Header, Slice

ctypedef int (*handler_fn)(Server s, Connection c, Slice p) except -1

# One row per request.
cdef struct Row:
    handler_fn handler
    int flags                # ROW_*

cdef enum:
    ROW_PRIVILEGED = 1       # only for domain 0: EACCES
    ROW_DATA = 2             # answers with data, else with "OK"
    ROW_REPLAY = 4           # a transaction with it can be replayed
    ROW_READ = 8             # what it saw counts as read by the transaction
    ROW_CHANGE = 16          # may change the store
    ROW_LOG_READ = 32        # access log: only with read-ops,
    ROW_LOG_SPECIAL = 64     # only with special-ops,
    ROW_LOG_NEVER = 128      # never by its request

# What running a transaction's requests again came to.
cdef enum:
    RERUN_DIFFERS = 0        # one of them was answered in another way
    RERUN_SAME = 1
    RERUN_CANNOT = 2         # there is one that cannot be replayed

cdef class Server(Hub):
    # The request being served
    cdef Tree work           # the tree that it works on
    cdef Transaction txn     # its transaction, None for none
    cdef uint32_t tx_id      # as it came
    cdef bint live           # on the store itself: its changes fire events
    cdef Path *path
    cdef Buffer answer
    cdef Effect effect
    cdef Tree before         # the store before it, where events will need it
    cdef Watch *fresh        # the watch that it made
    # Time, as the loop says
    cdef double now          # monotonic seconds
    # Transactions
    cdef bint merge_activate
    cdef bint test_eagain
    cdef bint allow_debug
    cdef int quota_status    # ST_EQUOTA or ST_ENOSPC
    cdef double history_seconds
    cdef bint aggregate
    cdef uint64_t commits    # changes of the store, counted
    cdef readonly uint64_t epoch    # changes that touched every node
    cdef readonly uint32_t open_transactions
    cdef list history        # (commit, Connection, before, after) not by domain 0
    # Transactions that the history is kept for, oldest first: (connection id,
    # tx_id, start, since)
    cdef object young
    cdef object paused       # domid: Connection, out of credit, longest first
    cdef object penalised    # domid: Connection, with less than full credit
    cdef double next_credit
    # Counters since the start
    cdef readonly uint64_t transactions_failed
    cdef readonly uint64_t transactions_no_culprit
    cdef readonly uint64_t transactions_merged
    cdef readonly uint64_t transactions_done
    cdef readonly uint64_t writes

    cdef const Row *_row(self, uint32_t type) noexcept
    cdef int _run(self, const Row *row, Connection c, Slice p) except -1
    cdef int _answer(self, Connection c, const Row *row, const Header *head, int status) except -1
    cdef int _log_request(self, const Row *row, bytes label, uint32_t tx_id, uint32_t type,
                          const char *p, size_t n) except -1
    cdef int _note(self, Transaction txn, const Row *row, uint32_t type, int status) except -1
    cdef int _fire_change(self, Connection c, uint32_t type) except -1
    cdef int _fire_transaction(self, Connection c, Transaction txn) except -1
    cdef int _start(self, Connection c, uint32_t *id) except -1
    cdef int _commit(self, Connection c, bytes label, Transaction txn, Transaction into) except -1
    cpdef int set_target(self, Connection c, int64_t target) except -1
    cdef int _end(self, Connection c, Transaction txn) except -1
    cdef int _replay(self, Connection c, Transaction txn) except -1
    cdef int _rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                    bytes label) except -1
    cdef bint _same_answer(self, const Row *row, int status, bytes reply) noexcept
    cdef int _blame(self, Connection c, Transaction txn, bytes label) except -1
    cdef int _punish(self, Connection c) except -1
    cdef int _record(self, Connection c, Tree before) except -1
    cdef int _trim_history(self) except -1
    cdef bint _parse_path(self, Connection c, const char *p, size_t n) noexcept
    cdef bint _one_path(self, Connection c, Slice p) noexcept
