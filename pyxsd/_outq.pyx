# SPDX-License-Identifier: LGPL-2.1-or-later
"""The output queue of a connection (floor 1)."""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from pyxsd._wire cimport (
    HEADER_SIZE, Header, XS_WATCH_EVENT, buffer_consume, buffer_free, buffer_len,
    buffer_reserve,
)


cdef uint64_t path_hash(const char *p, size_t n) noexcept nogil:
    """A quick hash; whoever is found by it is compared byte by byte."""
    cdef uint64_t h = n, word
    while n >= 8:
        memcpy(&word, p, 8)
        h = (h ^ word) * <uint64_t>0x9E3779B97F4A7C15
        h ^= h >> 32
        p += 8
        n -= 8
    word = 0
    memcpy(&word, p, n)
    h = (h ^ word) * <uint64_t>0xBF58476D1CE4E5B9
    return h ^ (h >> 31)


@cython.final
@cython.no_gc
cdef class OutQueue:
    """Owned by one connection; the server above counts and limits."""

    def __dealloc__(self):
        buffer_free(&self.buf)
        free(self.queued)

    cdef int put(self, uint32_t type, uint32_t req_id, uint32_t tx_id,
                 const char *p, size_t n) except -1:
        cdef char *at = buffer_reserve(&self.buf, HEADER_SIZE + n)
        cdef Header head
        head.type = type
        head.req_id = req_id
        head.tx_id = tx_id
        head.len = <uint32_t>n
        memcpy(at, &head, HEADER_SIZE)
        if n:
            memcpy(at + HEADER_SIZE, p, n)
        self.buf.tail += HEADER_SIZE + n
        self.replies += 1
        return 0

    cdef bint has_event(self, uint64_t serial, uint64_t hash,
                        const char *path, size_t n, size_t m) noexcept:
        """Is an event of this watch and path, with a token of m bytes, queued?"""
        cdef char *at
        cdef Queued *slot
        cdef Header head
        cdef uint32_t i
        if self.events == 0 or self.used == 0:
            return False
        i = <uint32_t>(hash ^ serial) & (self.slots - 1)
        while self.queued[i].serial:
            slot = &self.queued[i]
            if slot.hash == hash and slot.serial == serial and slot.offset >= self.sent:
                at = self.buf.data + self.buf.head + (slot.offset - self.sent)
                memcpy(&head, at, HEADER_SIZE)
                if head.len == n + m + 2 and memcmp(at + HEADER_SIZE, path, n) == 0:
                    return True
            i = (i + 1) & (self.slots - 1)
        return False

    cdef bint put_event(self, uint64_t serial, bint mergeable, uint64_t hash,
                        const char *path, size_t n, const char *token, size_t m) except -1:
        cdef Header head
        cdef char *at
        if mergeable and self.has_event(serial, hash, path, n, m):
            return False
        head.type = XS_WATCH_EVENT
        head.req_id = head.tx_id = 0
        head.len = <uint32_t>(n + m + 2)
        at = buffer_reserve(&self.buf, HEADER_SIZE + head.len)
        if mergeable:
            self._remember(serial, hash, self.sent + buffer_len(&self.buf))
        memcpy(at, &head, HEADER_SIZE)
        at += HEADER_SIZE
        memcpy(at, path, n)
        at[n] = 0
        memcpy(at + n + 1, token, m)
        at[n + 1 + m] = 0
        self.buf.tail += HEADER_SIZE + head.len
        self.events += 1
        return True

    cdef int _remember(self, uint64_t serial, uint64_t hash, uint64_t offset) except -1:
        cdef Queued *old = self.queued
        cdef uint32_t i, k, slots = self.slots, live = 0
        if self.events == 0 and self.used:
            # All that is remembered was sent.
            self.used = 0
            if slots > 64:
                free(self.queued)
                self.queued = NULL
                self.slots = slots = 0
            else:
                for i in range(slots):
                    self.queued[i].serial = 0
            old = self.queued
        if slots == 0 or self.used * 2 >= slots:
            for i in range(slots):
                if old[i].serial and old[i].offset >= self.sent:
                    live += 1
            k = slots if slots else 16
            while live * 4 >= k:
                k *= 2
            self.queued = <Queued *>calloc(k, sizeof(Queued))
            if self.queued == NULL:
                self.queued = old
                raise MemoryError()
            self.slots = k
            self.used = 0
            for i in range(slots):
                if old[i].serial and old[i].offset >= self.sent:
                    self._remember(old[i].serial, old[i].hash, old[i].offset)
            free(old)
        i = <uint32_t>(hash ^ serial) & (self.slots - 1)
        while self.queued[i].serial:
            i = (i + 1) & (self.slots - 1)
        self.queued[i].serial = serial
        self.queued[i].hash = hash
        self.queued[i].offset = offset
        self.used += 1
        return 0

    cdef void drained(self, size_t n) noexcept:
        """n bytes from the front were sent."""
        cdef Header head
        cdef size_t step
        self.sent += n
        if n == buffer_len(&self.buf):
            self.replies = self.events = 0
            self.part_left = 0
            buffer_consume(&self.buf, n)
            return
        while n:
            if self.part_left == 0:
                memcpy(&head, self.buf.data + self.buf.head, HEADER_SIZE)
                self.part_left = HEADER_SIZE + head.len
                self.part_event = head.type == XS_WATCH_EVENT
            step = n if n < self.part_left else self.part_left
            self.buf.head += step
            self.part_left -= step
            n -= step
            if self.part_left == 0:
                if self.part_event:
                    self.events -= 1
                else:
                    self.replies -= 1

    cdef void clear(self) noexcept:
        """Forgets all that is queued."""
        self.sent += buffer_len(&self.buf)
        self.replies = self.events = 0
        self.part_left = 0
        buffer_free(&self.buf)
        free(self.queued)
        self.queued = NULL
        self.slots = self.used = 0
