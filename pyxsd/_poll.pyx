# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting (floor 1).

Sleeping and waking is most of what one request at a time costs.  So after a
wait that was short the loop asks again for a while before it sleeps: spin().
Whether that pays off is kept as a score: it grows where polling found
something, or where sleep was so short that polling would have, and shrinks
where polling was for nothing; at 0 the loop sleeps at once.
"""

cimport cython
from libc.errno cimport EINTR, errno

import os

cdef extern from "sys/epoll.h" nogil:
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *at)
    enum:
        CLOCK_MONOTONIC
        CLOCK_REALTIME

cdef enum:
    SCORE_MAX = 16


@cython.final
@cython.no_gc
cdef class Poller:
    """Waits on an epoll descriptor; poll_time_us is the longest time without
    sleep (microseconds, 0: always sleep).  On one CPU it always sleeps."""

    def __cinit__(self, int epfd, long poll_time_us):
        self.epfd = epfd
        if poll_time_us > 0 and len(os.sched_getaffinity(0)) > 1:
            self.budget = <uint64_t>min(poll_time_us, 1000000) * 1000
        self._read_clocks()

    cdef uint64_t _read_clocks(self) noexcept:
        """Sets now and wall; monotonic nanoseconds."""
        cdef timespec at
        clock_gettime(CLOCK_REALTIME, &at)
        self.wall = at.tv_sec + at.tv_nsec * 1e-9
        clock_gettime(CLOCK_MONOTONIC, &at)
        self.now = at.tv_sec + at.tv_nsec * 1e-9
        return <uint64_t>at.tv_sec * 1000000000 + at.tv_nsec

    cdef int spin(self) noexcept:
        cdef timespec at
        cdef uint64_t begin, since
        self.count = 0
        if self.score == 0 or self.budget == 0:
            return 0
        clock_gettime(CLOCK_MONOTONIC, &at)
        begin = <uint64_t>at.tv_sec * 1000000000 + at.tv_nsec
        while True:
            self.count = epoll_wait(self.epfd, self.ready, EVENTS_MAX, 0)
            since = self._read_clocks()
            if self.count > 0:
                self.spun += 1
                if self.score < SCORE_MAX:
                    self.score += 1
                return self.count
            if self.count < 0 or since - begin >= self.budget:
                break
        self.count = 0
        self.score -= 1
        return 0

    cdef int sleep(self, double timeout) except -1:
        cdef int ms = <int>(min(timeout, 1e6) * 1000.0 + 0.999) if timeout > 0.0 else 0
        cdef uint64_t begin = 0, end
        cdef timespec at
        if self.budget:
            clock_gettime(CLOCK_MONOTONIC, &at)
            begin = <uint64_t>at.tv_sec * 1000000000 + at.tv_nsec
        # Python's lock is kept: the daemon has one thread, and to let go of
        # the lock and take it again costs every request.
        self.count = epoll_wait(self.epfd, self.ready, EVENTS_MAX, ms)
        if self.count < 0:
            if errno != EINTR:
                self.count = 0
                raise OSError(errno, "epoll_wait: " + os.strerror(errno))
            self.count = 0
        end = self._read_clocks()
        # A sleep this short would have been spared by polling.
        if self.count and ms and end - begin < self.budget and self.score < SCORE_MAX:
            self.score += 2
        return self.count
