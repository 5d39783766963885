# SPDX-License-Identifier: LGPL-2.1-or-later
# The packets that wait to be sent to one connection: replies and watch events
# in one stream, counted apart, and which events are among them.

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer

# A queued event, for finding an identical one.  There is one for each watch and path:
# the last.
cdef struct Queued:
    uint64_t serial          # of the watch; 0: the slot is free
    uint64_t offset          # of the packet in the stream of all ever sent
    uint64_t hash            # of the event's path

cdef class OutQueue:
    cdef Buffer buf
    cdef uint32_t replies    # packets not wholly sent
    cdef uint32_t events
    cdef uint64_t sent       # bytes ever sent: the stream offset of the buffer's front
    cdef uint64_t reply_end  # stream offset behind the last reply
    cdef size_t part_left    # bytes of a partly sent packet still to go
    cdef bint part_event     # and whether it is an event
    cdef Queued *queued      # hash table of events; NULL where none was remembered yet
    cdef uint32_t slots      # of that table, a power of two; at most half of them in use
    cdef uint32_t used

    cdef int put(self, uint32_t type, uint32_t req_id, uint32_t tx_id,
                 const char *p, size_t n) except -1
    # An event of path and token.  mergeable: it need not be sent where has_event().
    # False where it is not queued for that reason.
    cdef bint put_event(self, uint64_t serial, bint mergeable, uint64_t hash,
                        const char *path, size_t n, const char *token, size_t m) except -1
    # Is an event of this watch and path, with a token of m bytes, queued behind the last
    # reply?  Then the client reads it after everything it was told so far.  One before
    # that reply does not count: a client that has read a new value behind it would take
    # a later change for the one it knows.
    cdef bint has_event(self, uint64_t serial, uint64_t hash,
                        const char *path, size_t n, size_t m) noexcept
    cdef void drained(self, size_t n) noexcept
    # Puts back what an earlier process had still to send: first the rest of a packet that
    # was sent in part, `torn` bytes of it, then whole packets.
    cdef int restore(self, const char *p, size_t n, size_t torn) except -1
    cdef void clear(self) noexcept
    cdef Queued *_slot(self, uint64_t serial, uint64_t hash) noexcept
    cdef int _resize(self) except -1

# The hash of an event's path, for put_event() and has_event().
cdef uint64_t path_hash(const char *p, size_t n) noexcept nogil
