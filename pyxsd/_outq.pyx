# SPDX-License-Identifier: LGPL-2.1-or-later
"""The output queue of a connection.

One buffer holds the packets in the order in which the client will read them.  A hash
table remembers where in the stream the last event of each watch and path begins, so
that an identical one is found without searching the buffer.  What it says may be out of
date: an event counts only where it begins at or behind the front of the buffer, and
behind the last reply.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from pyxsd._siphash cimport hash_key, sip_bytes
from pyxsd._wire cimport (
    HEADER_SIZE, PAYLOAD_MAX, Header, XS_WATCH_EVENT, buffer_consume, buffer_free, buffer_len,
    buffer_reserve,
)

cdef enum:
    SLOTS_MIN = 16           # of the smallest table of events
    SLOTS_KEPT = 64          # a larger table goes as soon as all events are sent


cdef uint64_t path_hash(const char *p, size_t n) noexcept nogil:
    return sip_bytes(&hash_key, p, n)


@cython.final
@cython.no_gc
cdef class OutQueue:
    """The packets for one connection; how many there may be is for others to say."""

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
        self.reply_end = self.sent + buffer_len(&self.buf)
        return 0

    cdef Queued *_slot(self, uint64_t serial, uint64_t hash) noexcept:
        """The slot of a watch and path, or the free one where it would go."""
        cdef uint32_t i = <uint32_t>(hash ^ serial) & (self.slots - 1)
        while self.queued[i].serial and (self.queued[i].serial != serial
                                         or self.queued[i].hash != hash):
            i = (i + 1) & (self.slots - 1)
        return &self.queued[i]

    cdef bint has_event(self, uint64_t serial, uint64_t hash,
                        const char *path, size_t n, size_t m) noexcept:
        cdef char *at
        cdef Queued *slot
        cdef Header head
        if self.events == 0 or self.used == 0:
            return False
        slot = self._slot(serial, hash)
        if slot.serial == 0 or slot.offset < self.sent or slot.offset < self.reply_end:
            return False
        at = self.buf.data + self.buf.head + (slot.offset - self.sent)
        memcpy(&head, at, HEADER_SIZE)
        return head.len == n + m + 2 and memcmp(at + HEADER_SIZE, path, n) == 0

    cdef bint put_event(self, uint64_t serial, bint mergeable, uint64_t hash,
                        const char *path, size_t n, const char *token, size_t m) except -1:
        cdef Header head
        cdef Queued *slot
        cdef char *at
        if mergeable and self.has_event(serial, hash, path, n, m):
            return False
        head.type = XS_WATCH_EVENT
        head.req_id = head.tx_id = 0
        head.len = <uint32_t>(n + m + 2)
        at = buffer_reserve(&self.buf, HEADER_SIZE + head.len)
        if mergeable:
            # What is out of date does no harm in a small table until it is half full.
            if self.used * 2 >= self.slots or (self.events == 0 and self.slots > SLOTS_KEPT):
                self._resize()
            slot = self._slot(serial, hash)
            self.used += slot.serial == 0
            slot.serial = serial
            slot.hash = hash
            slot.offset = self.sent + buffer_len(&self.buf)
        memcpy(at, &head, HEADER_SIZE)
        at += HEADER_SIZE
        memcpy(at, path, n)
        at[n] = 0
        memcpy(at + n + 1, token, m)
        at[n + 1 + m] = 0
        self.buf.tail += HEADER_SIZE + head.len
        self.events += 1
        return True

    cdef int _resize(self) except -1:
        """Gives the table four slots and more for each event that still counts, and
        forgets the others."""
        cdef Queued *old = self.queued
        cdef uint64_t first = max(self.sent, self.reply_end)
        cdef uint32_t i, slots = SLOTS_MIN, before = self.slots, counting = 0
        if self.events:
            for i in range(before):
                counting += old[i].serial != 0 and old[i].offset >= first
        while counting * 4 >= slots:
            slots *= 2
        self.queued = <Queued *>calloc(slots, sizeof(Queued))
        if self.queued == NULL:
            self.queued = old
            raise MemoryError()
        self.slots = slots
        self.used = counting
        if counting:
            for i in range(before):
                if old[i].serial and old[i].offset >= first:
                    self._slot(old[i].serial, old[i].hash)[0] = old[i]
        free(old)
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

    cdef int restore(self, const char *p, size_t n, size_t torn) except -1:
        cdef Header head
        cdef size_t at = torn
        cdef uint32_t replies = torn != 0, events = 0
        while n - at >= HEADER_SIZE and at <= n:
            memcpy(&head, p + at, HEADER_SIZE)
            if head.len > PAYLOAD_MAX or n - at - HEADER_SIZE < head.len:
                break
            at += HEADER_SIZE + head.len
            if head.type == XS_WATCH_EVENT:
                events += 1
            else:
                replies += 1
        if at != n:
            raise ValueError("the output is not whole packets")
        self.clear()
        if n:
            # What there is nothing of may be NULL.
            memcpy(buffer_reserve(&self.buf, n), p, n)
            self.buf.tail += n
        self.replies = replies
        self.events = events
        self.part_left = torn
        self.part_event = False
        self.reply_end = self.sent + n
        return 0

    cdef void clear(self) noexcept:
        """Forgets all that is queued."""
        self.sent += buffer_len(&self.buf)
        self.replies = self.events = 0
        self.part_left = 0
        buffer_free(&self.buf)
        free(self.queued)
        self.queued = NULL
        self.slots = self.used = 0

    # -- the Python face: tests -----------------------------------------------

    def reply(self, bytes payload not None):
        """Queues a reply of type 0."""
        self.put(0, 0, 0, payload, len(payload))

    def event(self, uint64_t serial, bytes path not None, bytes token not None):
        """Queues an event that can be merged; False where it was."""
        return bool(self.put_event(serial, True, path_hash(path, len(path)), path, len(path),
                                   token, len(token)))

    def take(self, size_t n):
        """The first n bytes of what is queued, which count as sent then."""
        cdef bytes sent = self.buf.data[self.buf.head:self.buf.head + min(
            n, buffer_len(&self.buf))] if self.buf.data != NULL else b""
        self.drained(len(sent))
        return sent

    @property
    def table(self):
        """(slots, slots in use) of the table of events."""
        return self.slots, self.used
