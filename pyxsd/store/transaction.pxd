# SPDX-License-Identifier: LGPL-2.1-or-later
# A transaction: its snapshot, what it asked and changed, and its commit by
# taking over or by merging.  Replaying it is the server's work, who can serve
# requests.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd.store.nodes cimport NodeLimits
from pyxsd.store.path cimport Path
from pyxsd.store.pages cimport Node
from pyxsd.store.tree cimport Tree

cdef enum:
    COMMIT_DONE = 0          # committed: nothing had changed since the start
    COMMIT_MERGED = 1        # committed by grafting what was written
    COMMIT_CONFLICT = 2      # neither is possible

cdef class Transaction:
    cdef readonly uint32_t id
    cdef readonly Tree base          # the store at the start
    cdef readonly Tree tree          # the same with the transaction's writes
    cdef readonly uint64_t start     # changes committed before the start
    cdef readonly uint64_t epoch     # of the store; another one now: replay
    cdef readonly double since       # when it began, seconds
    # (type, payload, status, digest of the reply) in order; payload is None where
    # a request cannot be replayed
    cdef readonly list requests
    cdef uint64_t client             # id of the connection, and its number there, in
    cdef uint64_t serial             # History.recent_transactions; 0: it is not there
    cdef int64_t recorded_bytes      # that these take
    cdef uint64_t churn              # bytes that guests had replaced before the start
    cdef int64_t replaced            # and its own connection
    cdef bint given_up               # its snapshots are not those of its start any more: EAGAIN
    cdef readonly list changes       # (kind of event, path) in order: what to fire
    cdef public uint32_t count       # requests, the recorded ones and the rest
    cdef public bint quota_reached
    cdef bytes read_ancestor         # deepest common ancestor of all reads; None
    cdef bytes written_ancestor      # and of all writes

    cdef int note_read(self, const Path *path) except -1
    # Lets go of the snapshots and of the requests: it can only fail now.
    cdef int give_up(self, Tree current) except -1
    # parts: how much of the path was written to
    cdef int note_write(self, const Path *path, size_t parts) except -1
    # limits: the entry quotas to look at; NULL for a client that has none
    cdef int commit(self, Tree current, uint64_t epoch, bint merge,
                    const NodeLimits *limits) except -1

# Reads back a path kept as bytes ("@name" for a special one).
cdef int path_restore(Path *out, bytes text) except -1
cdef bytes path_keep(const Path *path)
