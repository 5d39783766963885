# SPDX-License-Identifier: LGPL-2.1-or-later
# Who is to be served, whose output is to be sent, for whom the loop must wait in another
# way.  Knows connections; of what serving means, nothing.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from pyxsd._conn cimport Connection
from pyxsd._journal cimport Journal
from pyxsd._limits cimport Limits

# One that waits to be served.
cdef struct Waiting:
    uint64_t used
    uint64_t order           # of arrival, where `used` is equal
    void *connection         # a counted reference

cdef class Agenda:
    cdef Limits limits
    cdef readonly Journal journal    # of the server; the time is read through it
    cdef void **flushing     # connections with output, in the order it came; counted references
    cdef size_t flush_count  # of them
    cdef size_t flush_room
    cdef readonly list changed       # connections that closed or want something else
    cdef Waiting *heap       # a binary heap: who used least time comes first
    cdef readonly size_t count       # of them
    cdef size_t room
    cdef uint64_t arrivals
    cdef uint64_t least      # how much time everybody who waits has used at least
    cdef public uint64_t slice_ns    # the longest time for one connection
    cdef public uint64_t turn_ns     # the longest time of one turn

    # There is something to send.
    cdef int touch(self, Connection c) except -1
    # So many of those with output, the first ones, were flushed.
    cdef void flushed(self, size_t count) noexcept
    # There is something to serve.
    cdef int ready(self, Connection c) except -1
    # Who comes next; `count` must not be 0.
    cdef Connection next(self)
    # It was served for so long.
    cdef void charge(self, Connection c, uint64_t ns) noexcept
    # Serves again one that was found blocked, if it is not blocked now.
    cdef int unblock(self, Connection c) except -1
    # Finds out what the loop should wait for.
    cdef int want(self, Connection c) except -1
    cdef bint has_work(self) noexcept
    cdef int clear(self) except -1
