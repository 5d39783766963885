# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is to be done, and in which order.

Time belongs to everybody.  Whoever has something to be served waits in one of three queues.  A
turn of the loop takes one after the other out of them, serves each for at most a slice, and ends
after turn_ns; what is left waits for the next turn, which follows without a sleep.

Of the queues, the one that was served for the least time comes first.  So domain 0, whose queue is
its own, gets a third of the time at least and does not wait for what a thousand guests ask; and
so does a guest that asks one thing at a time and waits for the answer.  It is not what a guest that
has filled its ring can do to the others: where the last time more than one request of it was
served, or where it takes more than 20 us on average, it waits among the others, and so does what is
left of a slice.  An average says nothing of the next request, and a thousand guests could each ask
for something dear at the same moment.  So a request that may take long, such as the end of a
transaction, is not served in that queue but goes over to the others; so do the events of a change
behind the first few, and those that have waited for room.

Guests that ask one thing at a time come in the order in which they came, but one that asks for
cheap things goes before those that came earlier and ask for dear ones: each has patience for as
long as it would take to serve all who wait there PATIENCE times, if they took as much on average as
itself.  Without that one who reads a node in 2 us would wait for a thousand who take 10 us each.
By a fair share of a thousandth of the time the one who asks most often would wait longest.

Replies go out with the slice, which counts as time of whoever gets them: nobody waits for the
events of a thousand others.  What he takes on average is without that.  Only what is served in the
time of the turn's first slice goes out together, when that time or the turn is over: where many
clients ask for little they then wake up together, and their next requests are there together.

In the queues of domain 0 and of the others who used least time comes first.  So a client that asks
now and then is served before a thousand that always ask, and one that asks for dear things
waits longer than one that asks for cheap ones.  The count is of time, not of requests, since a
guest can make one request cost a thousand times what another one costs.

A connection that had nothing to ask cannot save up time: when it comes back it is put at
most BONUS_NS before those who wait.  So is a queue that was empty, by TURN_NS.  A connection that
was served stays where its time puts it.
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
    SLICE_NS = 50000
    TURN_NS = 150000
    BONUS_NS = 200000
    PATIENCE = 4
    LONGEST_NS = 1000000     # that is counted of one slice, since no request should take more
    PACE_NS = 40000          # that one slice counts at most in the average


cdef inline bint _before(const Waiting *a, const Waiting *b) noexcept:
    return a.used < b.used or (a.used == b.used and a.order < b.order)


cdef void _rise(Waiting *heap, size_t at, Waiting entry) noexcept:
    """Puts one in behind `at` others that are a heap."""
    cdef size_t above
    while at:
        above = (at - 1) >> 1
        if not _before(&entry, &heap[above]):
            break
        heap[at] = heap[above]
        at = above
    heap[at] = entry


@cython.final
cdef class Agenda:
    """The lists of one server."""

    def __cinit__(self, Limits limits not None):
        self.limits = limits
        self.journal = Journal()
        self.changed = []
        self.serving = OTHERS
        self.slice_ns = SLICE_NS
        self.turn_ns = TURN_NS
        self.patience = PATIENCE

    def __dealloc__(self):
        cdef int which
        self.clear()
        for which in range(QUEUES):
            free(self.queues[which].heap)
        free(self.flushing)

    cdef int clear(self) except -1:
        cdef Queue *queue
        cdef size_t i, count
        cdef int which
        self.count = 0
        for which in range(QUEUES):
            queue = &self.queues[which]
            count = queue.count
            queue.count = 0
            for i in range(count):
                (<Connection>queue.heap[i].connection).is_ready = False
                Py_DECREF(<object>queue.heap[i].connection)
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

    cdef void take_back(self, Connection c) noexcept:
        if self.flush_count and self.flushing[self.flush_count - 1] == <void *>c:
            self.flush_count -= 1
            c.to_flush = False
            Py_DECREF(c)

    cdef void flushed(self, size_t count) noexcept:
        cdef size_t i
        for i in range(count):
            Py_DECREF(<object>self.flushing[i])
        self.flush_count -= count
        if self.flush_count:
            memmove(self.flushing, self.flushing + count, self.flush_count * sizeof(void *))

    cdef int ready(self, Connection c) except -1:
        if not c.is_guest:
            return self._wait(c, DOM0)
        return self._wait(c, OTHERS if c.asks_many or c.pace > self._single_ns() else SINGLE)

    cdef int left(self, Connection c) except -1:
        return self._wait(c, OTHERS if c.is_guest else DOM0)

    cdef int _wait(self, Connection c, int which) except -1:
        cdef Queue *queue = &self.queues[which]
        if c.is_ready or c.closed:
            return 0
        self.make_room(which, queue.count + 1)
        if queue.count == 0 and queue.used + TURN_NS < self.least:
            queue.used = self.least - TURN_NS
        if which != SINGLE and c.used + BONUS_NS < queue.least:
            c.used = queue.least - BONUS_NS
        self.arrivals += 1
        self._put(queue, c, self._due(c) if which == SINGLE else c.used, self.arrivals)
        return 0

    cdef int make_room(self, int which, size_t n) except -1:
        cdef Queue *queue = &self.queues[which]
        cdef size_t room = 2 * queue.room + 16
        cdef Waiting *heap
        if n <= queue.room:
            return 0
        if room < n:
            room = n
        heap = <Waiting *>realloc(queue.heap, room * sizeof(Waiting))
        if heap == NULL:
            raise MemoryError()
        queue.heap = heap
        queue.room = room
        return 0

    cdef void _put(self, Queue *queue, Connection c, uint64_t used, uint64_t order) noexcept:
        cdef Waiting entry
        entry.used = used
        entry.order = order
        entry.connection = <void *>c
        Py_INCREF(c)
        c.is_ready = True
        self.count += 1
        queue.count += 1
        _rise(queue.heap, queue.count - 1, entry)

    cdef int append(self, int which, Connection c, uint64_t used, uint64_t order) except -1:
        cdef Queue *queue = &self.queues[which]
        cdef Waiting *last
        if c.is_ready or c.closed:
            raise ValueError(f"the connection {c.id} waits twice, or is closed")
        if queue.count:
            last = &queue.heap[queue.count - 1]
            if (last.used, last.order) >= (used, order):
                raise ValueError(f"the connection {c.id} waits in the wrong place")
        self.make_room(which, queue.count + 1)
        self._put(queue, c, used, order)
        return 0

    cdef Connection next(self):
        cdef Queue *queue = NULL
        cdef Queue *other
        cdef int which
        cdef Waiting first, last
        cdef size_t at = 0, below
        cdef Connection c
        for which in range(QUEUES):
            other = &self.queues[which]
            if other.count and (queue == NULL or other.used < queue.used):
                queue = other
                self.serving = which
        if queue.used > self.least:
            self.least = queue.used
        first = queue.heap[0]
        c = <Connection>first.connection
        Py_DECREF(c)
        c.is_ready = False
        if first.used > queue.least:
            queue.least = first.used
        self.count -= 1
        queue.count -= 1
        last = queue.heap[queue.count]
        while True:
            below = 2 * at + 1
            if below >= queue.count:
                break
            if below + 1 < queue.count and _before(&queue.heap[below + 1], &queue.heap[below]):
                below += 1
            if not _before(&queue.heap[below], &last):
                break
            queue.heap[at] = queue.heap[below]
            at = below
        if queue.count:
            queue.heap[at] = last
        return c

    cdef uint64_t _single_ns(self) noexcept:
        """For one in SINGLE, and the most that its slices take on average: 20 us."""
        return self.slice_ns // 5 * 2

    cdef uint64_t _due(self, Connection c) noexcept:
        """When one in SINGLE is to be served, on the clock of the time that all of them got."""
        cdef Queue *queue = &self.queues[SINGLE]
        return queue.used + self.patience * queue.count * c.pace

    cdef uint64_t slice(self) noexcept:
        return self._single_ns() if self.serving == SINGLE else self.slice_ns

    def drop_closed(self):
        """Leaves out those that were closed while they waited, as they are when their turn comes: a
        server made of an image has none of them."""
        cdef Queue *queue
        cdef Connection c
        cdef Waiting entry
        cdef size_t i, kept
        cdef int which
        for which in range(QUEUES):
            queue = &self.queues[which]
            kept = 0
            for i in range(queue.count):
                entry = queue.heap[i]
                c = <Connection>entry.connection
                if c.closed:
                    c.is_ready = False
                    Py_DECREF(c)
                    continue
                # What was before it is a heap.
                _rise(queue.heap, kept, entry)
                kept += 1
            self.count -= queue.count - kept
            queue.count = kept
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
        # What took longer was the machine's doing, as a rule.
        ns = min(ns, <uint64_t>LONGEST_NS)
        self.served_ns += ns
        self.queues[self.serving].used += ns
        if self.serving != SINGLE:
            c.used += ns

    cdef void served(self, Connection c, uint64_t ns, uint64_t requests) noexcept:
        if requests:
            c.asks_many = requests > 1
        if requests or ns > c.pace:
            # That one took very long, as where the machine did something else, is soon forgotten.
            c.pace = (3 * <uint64_t>c.pace + min(ns, <uint64_t>PACE_NS)) >> 2

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
