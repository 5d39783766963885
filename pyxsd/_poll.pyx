# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting.

Sleeping and waking is most of what one request at a time costs.  So after a wait that was short
the loop asks again for a while before it sleeps: spin().  That pays off only while the client has
a CPU of its own.  Where both share one, the client cannot send its next request before the daemon
sleeps, and each spin is time taken from it.

Whether polling pays off is kept as a score.  It grows where a spin found something, and where a
sleep was so short that a spin would have; it shrinks where a spin was for nothing; at 0 the loop
sleeps at once.  Two things say that the client needed this CPU, and end polling at once: a spin
that found nothing followed by a short sleep, and a spin that was interrupted (between two looks
lay more time than a look takes) just before it found something.  After that polling rests for a
number of short sleeps that doubles each time, from REST_MIN to REST_MAX, so that trying again costs
next to nothing where it never pays off: one spin (40 us) in REST_MAX sleeps (10 ms).  HITS spins
in a row that found something make the rest short again, for clients that the scheduler moved away.

A timer, or the host of a virtual machine, interrupts clients and spins as well, where the client
has a CPU of its own.  That it has, a spin shows that looked in vain and then found something
without being interrupted: somebody has sent meanwhile.  So each such spin is worth one of credit,
and where there is a doubt, DOUBT of it are taken instead of ending polling: what a doubt costs was
gained by then.  Not so where a spin was interrupted for as long as a process runs at a time
(SLICE_NS): then this CPU is busy, and whoever sleeps comes first.  Polling rests for REST_MAX short
sleeps then, however well it went before: who polls is interrupted again after a few ms.
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
    REST_MIN = 64            # short sleeps
    REST_MAX = 1024
    HITS = 32
    INTERRUPTED_NS = 12000   # between two looks: something else ran on this CPU
    SLICE_NS = 500000        # the same: it was another process
    CREDIT_MAX = 64          # spins that showed that the client has a CPU of its own
    DOUBT = 16               # so many of them for each doubt


@cython.final
@cython.no_gc
cdef class Poller:
    """Waits on an epoll descriptor; poll_time_us is the longest time without
    sleep (microseconds, 0: always sleep).  Where there is one CPU it always sleeps."""

    def __cinit__(self, int epfd, long poll_time_us):
        self.epfd = epfd
        if poll_time_us > 0:
            self.wanted = <uint64_t>min(poll_time_us, 1000000) * 1000
        self.count_processors()
        self.rest = REST_MIN
        self._read_clocks()

    def count_processors(self):
        """Looks up how many CPUs there are: with one the daemon does not poll.  To be called now
        and then, since an administrator can give and take domain 0's at any time.

        On how many of them the daemon may run says nothing: pinned to one, it polls for clients
        that run on the others, and gives way to those that share its own."""
        self.budget = self.wanted if os.sysconf("SC_NPROCESSORS_ONLN") > 1 else 0

    cdef void _give_way(self) noexcept:
        self.gave_way += 1
        self.score = 0
        self.hits = 0
        self.credit = 0
        self.resting = self.rest
        if self.rest < REST_MAX:
            self.rest *= 2

    cdef void _doubt(self) noexcept:
        if self.credit >= DOUBT:
            self.credit -= DOUBT
        else:
            self._give_way()

    cpdef void found(self, bint looked, uint64_t gap_ns) noexcept:
        """A spin found something, so long after its last look before, which `looked` in vain."""
        self.missed = False
        if gap_ns > SLICE_NS:
            self.rest = REST_MAX
            self._give_way()
            return
        if gap_ns > INTERRUPTED_NS:
            self._doubt()
            return
        if looked and self.credit < CREDIT_MAX:
            self.credit += 1
        self.hits += 1
        if self.hits == HITS:
            self.hits = 0
            self.rest = REST_MIN
        if self.score < SCORE_MAX:
            self.score += 1

    cpdef void found_nothing(self) noexcept:
        """A spin came to its end."""
        self.missed = True
        self.hits = 0
        self.score -= 1

    cpdef void slept(self, uint64_t time_ns) noexcept:
        """A sleep of that length was ended by an event."""
        cdef bint missed = self.missed
        self.missed = False
        if time_ns >= self.budget:
            return
        if missed:
            # It came as soon as this CPU was free.
            self._doubt()
        elif self.resting:
            self.resting -= 1
        elif self.score < SCORE_MAX:
            # A spin would have spared this sleep.
            self.score += 2

    cdef uint64_t _read_clocks(self) noexcept:
        """Sets now and wall; monotonic nanoseconds."""
        cdef timespec at
        clock_gettime(CLOCK_REALTIME, &at)
        self.wall = at.tv_sec + at.tv_nsec * 1e-9
        clock_gettime(CLOCK_MONOTONIC, &at)
        self.now = at.tv_sec + at.tv_nsec * 1e-9
        self.now_ns = <uint64_t>at.tv_sec * 1000000000 + at.tv_nsec
        return self.now_ns

    cdef int spin(self) noexcept:
        cdef uint64_t begin, last, now
        self.count = 0
        self.missed = False
        if self.score == 0 or self.budget == 0:
            return 0
        begin = last = self._read_clocks()
        while True:
            self.count = epoll_wait(self.epfd, self.ready, EVENTS_MAX, 0)
            now = self._read_clocks()
            if self.count > 0:
                self.spun += 1
                self.found(last != begin, now - last)
                return self.count
            if self.count < 0 or now - begin >= self.budget:
                break
            last = now
        self.count = 0
        self.found_nothing()
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
        if self.count and ms:
            self.slept(end - begin)
        else:
            self.missed = False
        return self.count
