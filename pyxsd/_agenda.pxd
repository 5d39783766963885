# SPDX-License-Identifier: LGPL-2.1-or-later
# Who is to be served, whose output is to be sent, for whom the loop must wait in another
# way.  Knows connections; of what serving means, nothing.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from pyxsd._conn cimport Connection
from pyxsd._journal cimport Journal
from pyxsd._limits cimport Limits

# Whom a queue is for.
cdef enum:
    DOM0                     # sockets, and the ring of domain 0
    SINGLE                   # guests that ask one thing at a time
    OTHERS                   # all other guests
    QUEUES

# One that waits to be served.
cdef struct Waiting:
    uint64_t used            # who used least comes first; in SINGLE, who is due first
    uint64_t order           # of arrival, where `used` is equal
    void *connection         # a counted reference

# A binary heap of them.
cdef struct Queue:
    Waiting *heap
    size_t count
    size_t room
    uint64_t least           # how much time everybody who waits has used at least
    uint64_t used            # for how long all of them were served, nanoseconds

cdef class Agenda:
    cdef Limits limits
    cdef readonly Journal journal    # of the server; the time is read through it
    cdef void **flushing     # connections with output, in the order it came; counted references
    cdef size_t flush_count  # of them
    cdef size_t flush_room
    cdef readonly list changed       # connections that closed or want something else
    cdef Queue queues[QUEUES]
    cdef readonly size_t count       # of those who wait in them
    cdef uint64_t arrivals
    cdef readonly uint64_t served_ns     # for how long clients were served since the start
    cdef uint64_t least      # for how long every queue with somebody in it was served at least
    cdef int serving         # the queue of the one that is served; outside of that, OTHERS
    cdef public uint64_t slice_ns    # the longest time for one connection
    cdef public uint64_t turn_ns     # the longest time of one turn
    cdef public uint64_t patience    # see PATIENCE

    # There is something to send.
    cdef int touch(self, Connection c) except -1
    # Its output goes out at once: it need not wait, if it is the last one of those with output.
    cdef void take_back(self, Connection c) noexcept
    # So many of those with output, the first ones, were flushed.
    cdef void flushed(self, size_t count) noexcept
    # There is something to serve.
    cdef int ready(self, Connection c) except -1
    # The same, of one whose slice has ended.
    cdef int left(self, Connection c) except -1
    # Who comes next; `count` must not be 0.
    cdef Connection next(self)
    # For how long that one may be served, nanoseconds.
    cdef uint64_t slice(self) noexcept
    cdef uint64_t _single_ns(self) noexcept
    cdef uint64_t _due(self, Connection c) noexcept
    # It was served for so long, with so many requests.
    cdef void served(self, Connection c, uint64_t ns, uint64_t requests) noexcept
    # It has used so much time, sending included.
    cdef void charge(self, Connection c, uint64_t ns) noexcept
    # Room for so many in a queue; and the next one of them, in their order.
    cdef int make_room(self, int which, size_t n) except -1
    cdef int append(self, int which, Connection c, uint64_t used, uint64_t order) except -1
    # Serves again one that was found blocked, if it is not blocked now.
    cdef int unblock(self, Connection c) except -1
    # Finds out what the loop should wait for.
    cdef int want(self, Connection c) except -1
    cdef int _wait(self, Connection c, int which) except -1
    cdef void _put(self, Queue *queue, Connection c, uint64_t used, uint64_t order) noexcept
    cdef bint has_work(self) noexcept
    cdef int clear(self) except -1
