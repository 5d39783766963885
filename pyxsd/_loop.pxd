# SPDX-License-Identifier: LGPL-2.1-or-later
# The turns of a daemon, and the descriptors that it waits on.

from libc.stdint cimport uint32_t, uint64_t
from pyxsd._hub cimport Connection, Hub
from pyxsd._poll cimport Poller

cdef class Loop:
    cdef Hub hub
    cdef readonly Poller poller
    cdef int epfd                    # borrowed
    cdef readonly dict connections   # descriptor: Connection, of sockets
    cdef readonly dict handlers      # descriptor: callable, of all else
    cdef object write_log
    cdef double log_due              # monotonic; 0: no line of the access log waits
    cdef uint64_t turns
    cdef uint64_t accepted_in        # the turn of the last accept()
    cdef int burst                   # how many the next one looks for

    cdef bint _turn(self) except -1
    cdef int _apply(self) except -1
    cdef int _write_log(self) except -1
    cdef int _control(self, int op, int fd, uint32_t events) except -1
