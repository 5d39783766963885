# SPDX-License-Identifier: LGPL-2.1-or-later
# Values replaced by as many x bytes, in what clients send and are sent.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

# How far a client's bytes were looked at.  All zero: a packet begins.
cdef struct Stream:
    char head[16]            # of the packet at hand
    uint32_t have            # bytes of that
    uint32_t left            # bytes of its payload that are still to come
    bint in_value            # they are a value
    bint lost                # a packet was longer than any: nothing is known of what follows

# The next bytes that a client has sent.
cdef void blank_input(Stream *stream, char *p, size_t n) noexcept nogil
# Bytes to be sent: the last `torn` of a packet that was sent in part, then whole packets.
cdef void blank_output(char *p, size_t n, size_t torn, bint torn_is_event) noexcept nogil
# The payload of a request of that type.
cdef void blank_request(uint32_t type, char *p, size_t n) noexcept nogil
# A value.
cdef void blank_value(char *p, size_t n) noexcept nogil
