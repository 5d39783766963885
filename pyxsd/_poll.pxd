# SPDX-License-Identifier: LGPL-2.1-or-later
# Waiting for descriptors: epoll, and polling without sleep while that pays off.
# The one place where the time is read.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data

cdef enum:
    EVENTS_MAX = 256         # descriptors taken in one turn

cdef class Poller:
    cdef int epfd            # borrowed
    cdef uint64_t wanted     # longest time without sleep where there are CPUs, ns
    cdef uint64_t budget     # longest time without sleep, ns; 0: always sleep
    cdef readonly int score  # how well polling paid off lately; 0: it is not tried
    cdef bint missed         # the last spin found nothing
    cdef uint32_t resting    # short sleeps before polling is tried again
    cdef uint32_t rest       # so many the next time that polling was in the way
    cdef uint32_t hits       # spins in a row that found something
    cdef readonly uint32_t credit  # spins that showed that the client has a CPU of its own
    cdef readonly uint64_t gave_way  # times that polling was in the client's way, since the start
    cdef readonly int count  # descriptors that are ready
    cdef epoll_event ready[EVENTS_MAX]
    cdef readonly double now     # monotonic seconds, when the last wait ended
    cdef uint64_t now_ns         # the same in nanoseconds
    cdef readonly double wall    # seconds since 1970, likewise
    cdef readonly uint64_t spun  # waits that polling ended, since the start

    cdef uint64_t _read_clocks(self) noexcept
    # Polling took the CPU that the client needed: ends it for a while.
    cdef void _give_way(self) noexcept
    # There are signs that it did; ends it where there is no credit.
    cdef void _doubt(self) noexcept
    # What a spin or a sleep came to: the rules, which read no clock.
    cpdef void found(self, bint looked, uint64_t gap_ns) noexcept
    cpdef void found_nothing(self) noexcept
    cpdef void slept(self, uint64_t time_ns) noexcept
    # Polls for as long as that is worth it; how many are ready.
    cdef int spin(self) noexcept
    # Waits at most so many seconds; how many are ready.  A signal ends it.
    cdef int sleep(self, double timeout) except -1
