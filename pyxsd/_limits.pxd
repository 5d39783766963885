# SPDX-License-Identifier: LGPL-2.1-or-later
# The quotas of a server: their table, and the numbers that hold now.

from libc.stdint cimport int64_t
from pyxsd.store.nodes cimport NodeLimits

# One number per quota; the same order as the table QUOTAS.
cdef enum:
    Q_NODES = 0              # nodes that one owner may have
    Q_NODE_SIZE = 1          # bytes of a value
    Q_NODE_PERMS = 2         # entries of a permission list
    Q_PATH_MAX = 3           # bytes of a path
    Q_WATCHES = 4            # watches of a connection
    Q_EVENTS = 5             # events that wait in a connection's output, or behind a watch
    Q_OUTSTANDING = 6        # replies that wait in a connection's output
    Q_TRANSACTIONS = 7       # open transactions of a connection
    Q_TRANSACTION_NODES = 8  # requests in one transaction
    Q_COUNT = 9

# "As many as you like": more than anything can count to.
cdef int64_t UNLIMITED

# What one guest may make the daemon remember, in bytes, whatever the quotas count.
cdef enum:
    OUTPUT_BYTES = 262144    # replies that wait; one more request is served only below it
    EVENT_BYTES = 262144     # events that wait in the output
    WAITING_BYTES = 786432   # events that wait behind watches
    OVERFLOW_EVENTS = 1024   # events of one guest's changes that found no room anywhere
    WATCH_BYTES = 524288     # watches: see watch_bytes()
    RECORDED_BYTES = 786432  # requests of open transactions, and their changes
    PINNED_BYTES = 1048576   # what was replaced since the start of open transactions

cdef class Limits:
    cdef int64_t most[Q_COUNT]
    cdef bint active         # quota-activate: the quotas on nodes and watches hold
    cdef int refused         # the status of a request over a quota: ST_EQUOTA or ST_ENOSPC
    cdef NodeLimits node     # what the tree's requests look at; follows `most`
    cdef dict owners         # owner: entries, where that owner has a limit of its own

    cdef int _follow(self) except -1
