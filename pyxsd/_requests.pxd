# SPDX-License-Identifier: LGPL-2.1-or-later
# How a request is served, whichever it is: the frame around the handlers.

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._commit cimport Transactions
from pyxsd._hub cimport Connection
from pyxsd.store.nodes cimport Effect, NodeLimits
from pyxsd.store.tree cimport Tree
from pyxsd.store.transaction cimport Transaction
from pyxsd.events.trie cimport Watch
from pyxsd._wire cimport Buffer, Header, Slice

# Works on Requests.work, leaves what it found in `answer` and what it changed in
# `effect`; a status.
ctypedef int (*handler_fn)(Requests s, Connection c, Slice p) except -1

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

cdef class Requests(Transactions):
    cdef const Row *rows     # the table: a row for each type below XS_TYPES
    # The request being served
    cdef Tree work           # the tree that it works on
    cdef Transaction txn     # its transaction, None for none
    cdef uint32_t tx_id      # as it came
    cdef bint live           # on the store itself: its changes fire events
    cdef Buffer answer
    cdef Effect effect
    cdef Tree before         # the store before it, where events will need it
    cdef Watch *fresh        # the watch that it made
    # Limits; see Config for the units.
    cdef NodeLimits limits
    cdef dict owner_limits   # SET_QUOTA nodes: owner -> entries
    cdef public Py_ssize_t max_requests
    cdef public Py_ssize_t path_max
    cdef int quota_status    # ST_EQUOTA or ST_ENOSPC
    cdef bint allow_debug
    # Counters since the start
    cdef readonly uint64_t writes

    cdef bint parse_path(self, Connection c, const char *p, size_t n) noexcept
    cdef bint one_path(self, Connection c, Slice p) noexcept
    cdef const Row *row(self, uint32_t type) noexcept
    cdef int run(self, const Row *row, Connection c, Slice p) except -1
    cdef int _answer(self, Connection c, const Row *row, const Header *head, int status) except -1
    cdef int _log_request(self, const Row *row, bytes label, uint32_t tx_id, uint32_t type,
                          const char *p, size_t n) except -1
    cdef int _note(self, Transaction txn, const Row *row, uint32_t type, int status) except -1
    cdef int _fire_change(self, Connection c, uint32_t type) except -1
    cdef bint _same_answer(self, const Row *row, int status, bytes reply) noexcept
