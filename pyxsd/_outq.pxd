# SPDX-License-Identifier: LGPL-2.1-or-later
# The packets that wait to be sent to one connection: replies and watch events
# in one stream, counted apart, and which events are among them.

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer

# A queued event, for finding an identical one.
cdef struct Queued:
    uint64_t serial          # of the watch; 0: the slot is free
    uint64_t offset          # of the packet in the stream of all ever sent
    uint64_t hash            # of the event's path

cdef class OutQueue:
    cdef Buffer buf
    cdef uint32_t replies    # packets not wholly sent
    cdef uint32_t events
    cdef uint64_t sent       # bytes ever sent: the stream offset of the buffer's front
    cdef size_t part_left    # bytes of a partly sent packet still to go
    cdef bint part_event     # and whether it is an event
    cdef Queued *queued
    cdef uint32_t slots      # of `queued`, a power of two
    cdef uint32_t used

    cdef int put(self, uint32_t type, uint32_t req_id, uint32_t tx_id,
                 const char *p, size_t n) except -1
    # An event of path and token; False where an identical one is queued still.
    cdef bint put_event(self, uint64_t serial, bint mergeable, uint64_t hash,
                        const char *path, size_t n, const char *token, size_t m) except -1
    cdef bint has_event(self, uint64_t serial, uint64_t hash,
                        const char *path, size_t n, size_t m) noexcept
    cdef void drained(self, size_t n) noexcept
    cdef void clear(self) noexcept
    cdef int _remember(self, uint64_t serial, uint64_t hash, uint64_t offset) except -1

cdef uint64_t path_hash(const char *p, size_t n) noexcept nogil
