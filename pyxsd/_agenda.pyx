# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is to be done, and in which order.

Time belongs to everybody.  Whoever has something to be served waits in a heap that is
ordered by the time for which the daemon has served it so far; who used least comes first.
A turn of the loop takes one after the other out of it, serves each for at most slice_ns, and
ends after turn_ns; what is left waits for the next turn, which follows without a sleep.
So a client that asks now and then is served before a thousand that always ask, and one
that asks for dear things waits longer than one that asks for cheap ones.

A connection that had nothing to ask cannot save up time: when it comes back it is put at
most BONUS_NS before those who wait.  A connection that was served stays where its time puts
it.  The count is of time, not of requests, since a guest can make one request cost a thousand
times what another one costs.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, realloc
from libc.string cimport memmove
from pyxsd._conn cimport WANT_IN, WANT_OUT, is_blocked
from pyxsd._journal cimport Journal
from pyxsd._limits cimport Q_OUTSTANDING
from pyxsd._wire cimport buffer_len

cdef enum:
    SLICE_NS = 100000
    TURN_NS = 300000
    BONUS_NS = 200000


cdef inline bint _before(const Waiting *a, const Waiting *b) noexcept:
    return a.used < b.used or (a.used == b.used and a.order < b.order)


@cython.final
cdef class Agenda:
    """The lists of one server."""

    def __cinit__(self, Limits limits not None):
        self.limits = limits
        self.journal = Journal()
        self.changed = []
        self.slice_ns = SLICE_NS
        self.turn_ns = TURN_NS

    def __dealloc__(self):
        self.clear()
        free(self.heap)
        free(self.flushing)

    cdef int clear(self) except -1:
        cdef size_t i, count = self.count
        self.count = 0
        for i in range(count):
            (<Connection>self.heap[i].connection).is_ready = False
            Py_DECREF(<object>self.heap[i].connection)
        self.flushed(self.flush_count)
        self.changed = []
        return 0

    cdef int touch(self, Connection c) except -1:
        cdef void **flushing
        if c.to_flush:
            return 0
        if self.flush_count == self.flush_room:
            flushing = <void **>realloc(self.flushing, (2 * self.flush_room + 16) * sizeof(void *))
            if flushing == NULL:
                raise MemoryError()
            self.flushing = flushing
            self.flush_room = 2 * self.flush_room + 16
        self.flushing[self.flush_count] = <void *>c
        self.flush_count += 1
        Py_INCREF(c)
        c.to_flush = True
        return 0

    cdef void flushed(self, size_t count) noexcept:
        cdef size_t i
        for i in range(count):
            Py_DECREF(<object>self.flushing[i])
        self.flush_count -= count
        if self.flush_count:
            memmove(self.flushing, self.flushing + count, self.flush_count * sizeof(void *))

    cdef int ready(self, Connection c) except -1:
        cdef Waiting *heap
        cdef Waiting entry
        cdef size_t at, above
        if c.is_ready or c.closed:
            return 0
        if self.count == self.room:
            heap = <Waiting *>realloc(self.heap, (2 * self.room + 16) * sizeof(Waiting))
            if heap == NULL:
                raise MemoryError()
            self.heap = heap
            self.room = 2 * self.room + 16
        if c.used + BONUS_NS < self.least:
            c.used = self.least - BONUS_NS
        self.arrivals += 1
        entry.used = c.used
        entry.order = self.arrivals
        entry.connection = <void *>c
        Py_INCREF(c)
        c.is_ready = True
        at = self.count
        self.count += 1
        while at:
            above = (at - 1) >> 1
            if not _before(&entry, &self.heap[above]):
                break
            self.heap[at] = self.heap[above]
            at = above
        self.heap[at] = entry
        return 0

    cdef Connection next(self):
        cdef Waiting first = self.heap[0]
        cdef Waiting last
        cdef size_t at = 0, below
        cdef Connection c = <Connection>first.connection
        Py_DECREF(c)
        c.is_ready = False
        if first.used > self.least:
            self.least = first.used
        self.count -= 1
        last = self.heap[self.count]
        while True:
            below = 2 * at + 1
            if below >= self.count:
                break
            if below + 1 < self.count and _before(&self.heap[below + 1], &self.heap[below]):
                below += 1
            if not _before(&self.heap[below], &last):
                break
            self.heap[at] = self.heap[below]
            at = below
        if self.count:
            self.heap[at] = last
        return c

    def drop_closed(self):
        """Leaves out those that were closed while they waited, as they are when their turn comes: a
        server made of an image has none of them."""
        cdef Waiting *heap = self.heap
        cdef Connection c
        cdef Waiting entry
        cdef size_t i, at, above, kept = 0
        for i in range(self.count):
            entry = heap[i]
            c = <Connection>entry.connection
            if c.closed:
                c.is_ready = False
                Py_DECREF(c)
                continue
            # What was before it is a heap.
            at = kept
            kept += 1
            while at:
                above = (at - 1) >> 1
                if not _before(&entry, &heap[above]):
                    break
                heap[at] = heap[above]
                at = above
            heap[at] = entry
        self.count = kept
        kept = 0
        for i in range(self.flush_count):
            c = <Connection>self.flushing[i]
            if c.closed:
                c.to_flush = False
                Py_DECREF(c)
            else:
                self.flushing[kept] = self.flushing[i]
                kept += 1
        self.flush_count = kept

    cdef void charge(self, Connection c, uint64_t ns) noexcept:
        c.used += ns

    cdef int unblock(self, Connection c) except -1:
        if c.stalled and not is_blocked(c, self.limits.most[Q_OUTSTANDING]):
            self.ready(c)
        return 0

    cdef int want(self, Connection c) except -1:
        cdef int want = 0
        if not c.closed and not c.bad:
            if not c.stalled and not c.ended:
                want = WANT_IN
            if buffer_len(&c.out.buf):
                want |= WANT_OUT
            if want == 0 and c.hung_up:
                # epoll would report it again and again.
                want = -1
        c.interest = want
        if want != c.registered and not c.changed:
            c.changed = True
            self.changed.append(c)
        return 0

    cdef bint has_work(self) noexcept:
        return self.count != 0 or self.flush_count != 0
