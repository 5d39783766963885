# SPDX-License-Identifier: LGPL-2.1-or-later
# The turns of a daemon, and the descriptors that it waits for.

from libc.stdint cimport uint32_t, uint64_t
from pyxsd._conn cimport Connection
from pyxsd._core cimport Server
from pyxsd._poll cimport Poller

cdef class Loop:
    cdef Server server
    cdef readonly Poller poller
    cdef int epfd                    # borrowed
    cdef readonly dict connections   # descriptor: Connection, of sockets
    cdef readonly dict handlers      # descriptor: callable, of all else
    cdef uint64_t handled            # bit d % 64 is set where one of them has descriptor d
    cdef uint64_t shared             # connections up to this one: another process may have a copy
    cdef object write_log
    cdef object failed               # told of a handler that raised
    cdef double log_due              # monotonic; 0: no line of the access log waits
    cdef uint64_t turns
    cdef uint64_t accepted_in        # the turn of the last accept()
    cdef int burst                   # how many the next one looks for

    cdef bint _turn(self) except -1
    cdef bint _handle(self, int fd) except -1
    cdef int _apply(self) except -1
    cdef int _wait_for(self, Connection c) except -1
    cdef int _write_log(self) except -1
    cdef int _control(self, int op, int fd, uint32_t events) except -1
