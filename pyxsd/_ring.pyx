# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Transport over a domain's shared page.

The page belongs to a hostile guest: an index is read, checked, and only the
copy is used.  The other side's index is read with acquire before the bytes it
speaks of, the own one written with release behind them; then a full barrier,
and a look at the other side's index again.  The domain is notified once per
turn, in finish().
"""

import os

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset
from pyxsd._journal cimport J_PORTS, RECORDING, Journal, journal_replays
from pyxsd._wire cimport (
    FAIL_INDICES, IO_BAD, IO_CLOSED, IO_NONE, IO_RESET, doubt_moved,
)

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint32_t ring_load(const uint32_t *at)
    {
        return __atomic_load_n(at, __ATOMIC_RELAXED);
    }
    static inline void ring_store(uint32_t *at, uint32_t value)
    {
        __atomic_store_n(at, value, __ATOMIC_RELAXED);
    }
    static inline uint32_t ring_load_acquire(const uint32_t *at)
    {
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
    }
    static inline void ring_store_release(uint32_t *at, uint32_t value)
    {
        __atomic_store_n(at, value, __ATOMIC_RELEASE);
    }
    static inline void ring_barrier(void)
    {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    static inline void ring_fetch(const uint32_t *at)
    {
        __builtin_prefetch(at, 1);
    }
    """
    uint32_t ring_load(const uint32_t *at) noexcept nogil
    void ring_store(uint32_t *at, uint32_t value) noexcept nogil
    uint32_t ring_load_acquire(const uint32_t *at) noexcept nogil
    void ring_store_release(uint32_t *at, uint32_t value) noexcept nogil
    void ring_barrier() noexcept nogil
    void ring_fetch(const uint32_t *at) noexcept nogil

#: Bits of server_features: reconnection, the error field, WATCH with depth, permission entries
#: of DOMID_ANY.
FEATURE_RECONNECTION = 1
FEATURE_ERROR = 2
FEATURE_WATCH_DEPTH = 4
FEATURE_DOMID_ANY = 8
FEATURES = (FEATURE_RECONNECTION | FEATURE_ERROR | FEATURE_WATCH_DEPTH
            | FEATURE_DOMID_ANY)


@cython.final
@cython.no_gc
cdef class EventChannels:
    """Notifying, pending ports and unmasking, through the glue's C pointers.

    api and handle are addresses (struct xsd_glue_api, xsd_glue); without them
    nothing is bound and `notified` collects what would have been notified.
    """

    def __cinit__(self, uintptr_t api=0, uintptr_t handle=0):
        self.api = <const xsd_glue_api *>api
        self.glue = <xsd_glue *>handle
        self.notified = []

    cdef void notify(self, uint32_t port) noexcept:
        if self.api != NULL:
            if port:
                self.api.notify(self.glue, port)
        else:
            self.notified.append(port)

    def kick(self, uint32_t port):
        """Notifies a port."""
        self.notify(port)

    cdef int take(self, Journal journal) except -1:
        cdef int n = self.count
        if n == 0 and journal_replays(journal):
            n = self.count = self._again(journal)
        elif n == 0 and self.api != NULL:
            if journal.mode == RECORDING:
                journal.begin_doubt(J_PORTS, 0, 0)
            n = self.api.pending(self.glue, self.ports, PORTS_MAX)
            if journal.mode == RECORDING:
                self._note(journal, n)
            if n < 0:
                raise OSError(-n, "pending event channels: " + os.strerror(-n))
            self.count = n
        return n

    cdef void _note(self, Journal journal, int n) noexcept:
        """The record of what was asked for."""
        cdef size_t size = 4 * n if n > 0 else 0
        cdef char *at = journal.room(size)
        if at != NULL:
            memcpy(at, self.ports, size)
            journal.add(J_PORTS, 0, <int32_t>size if n > 0 else n, 0)

    cdef int _again(self, Journal journal) except -1:
        """The ports of a journal."""
        answer = journal.answer(J_PORTS, 0)
        if answer is None:
            return 0
        if answer[0] < 0:
            raise OSError(-answer[0], "pending event channels: " + os.strerror(-answer[0]))
        if len(answer[1]) > <Py_ssize_t>sizeof(self.ports):
            raise ValueError(f"{len(answer[1])} bytes of ports")
        memcpy(self.ports, <const char *>(<bytes>answer[1]), len(answer[1]))
        return len(answer[1]) // sizeof(uint32_t)

    @property
    def taken(self):
        """The ports that were taken and not released yet, as a list."""
        return [self.ports[i] for i in range(self.count)]

    def suppose(self, Journal journal not None, ports not None):
        """Takes these ports, PORTS_MAX at most, as if they were pending."""
        self.count = 0
        for port in ports[:PORTS_MAX]:
            self.ports[self.count] = port
            self.count += 1
        journal.note(J_PORTS, 0, 0, (<const char *>self.ports)[:4 * self.count])

    def release(self):
        """Lets the ports that were taken become pending again."""
        cdef int n = self.count
        self.count = 0
        if n and self.api != NULL:
            self.api.unmask(self.glue, self.ports, n)


@cython.final
@cython.no_gc
cdef class RingTransport(Transport):
    """The ring in the page at an address (or in a bytearray, for tests).

    With page 0 there is no page yet: nothing can be read or written until attach().
    """

    def __cinit__(self, page, EventChannels channels not None, uint32_t port=0):
        self.channels = channels
        self.attach(page, port)

    def attach(self, page, uint32_t port):
        """Takes the ring in that page from now on, and notifies that local port."""
        cdef unsigned char[::1] view
        if isinstance(page, int):
            self.keep = None
            self.page = <Interface *><uintptr_t>page
        else:
            view = page
            if view.shape[0] < <Py_ssize_t>sizeof(Interface):
                raise ValueError("the page is too small")
            self.page = <Interface *>&view[0]
            self.keep = page
        self.port = port

    # A guest that writes into a ring which is not empty, or reads from one which
    # is not full, need not kick: it may count on the daemon to look again after
    # it has moved its own index (Linux does).  So both directions go on until
    # they have seen the ring empty, or full, after that.

    cdef void expect(self) noexcept:
        # The guest has just written there, on another processor as a rule.
        if self.page != NULL:
            ring_fetch(&self.page.req_cons)

    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept:
        """Fewer than cap bytes: the ring was empty then, and more will be kicked for."""
        cdef Interface *page = self.page
        cdef uint32_t cons, prod, n, at, first
        cdef size_t got = 0
        if page == NULL:
            return IO_CLOSED if self.closed else IO_NONE
        if ring_load(&page.connection) != 0:
            return IO_RESET
        cons = ring_load(&page.req_cons)
        while got < cap:
            prod = ring_load_acquire(&page.req_prod)
            n = prod - cons
            if n > RING_SIZE:
                self.fail(FAIL_INDICES)
                return IO_BAD
            if n == 0:
                break
            if n > cap - got:
                n = <uint32_t>(cap - got)
            at = cons % RING_SIZE
            first = RING_SIZE - at
            if first > n:
                first = n
            memcpy(dst + got, page.req + at, first)
            memcpy(dst + got + first, page.req, n - first)
            cons += n
            got += n
            if self.doubt != NULL:
                doubt_moved(self.doubt, got, cons)
            ring_store_release(&page.req_cons, cons)
            ring_barrier()
            self.kick = True
        return got if got else IO_NONE

    cdef Py_ssize_t write(self, const char *src, size_t size) noexcept:
        """Fewer than size bytes: the ring was full then, and room will be kicked for."""
        cdef Interface *page = self.page
        cdef uint32_t cons, prod, n, at, first
        cdef size_t put = 0
        if page == NULL:
            return IO_CLOSED if self.closed else IO_NONE
        prod = ring_load(&page.rsp_prod)
        while put < size:
            cons = ring_load_acquire(&page.rsp_cons)
            n = prod - cons
            if n > RING_SIZE:
                self.fail(FAIL_INDICES)
                return IO_BAD
            n = RING_SIZE - n
            if n > size - put:
                n = <uint32_t>(size - put)
            if n == 0:
                break
            at = prod % RING_SIZE
            first = RING_SIZE - at
            if first > n:
                first = n
            memcpy(page.rsp + at, src + put, first)
            memcpy(page.rsp, src + put + first, n - first)
            prod += n
            put += n
            if self.doubt != NULL:
                doubt_moved(self.doubt, put, prod)
            ring_store_release(&page.rsp_prod, prod)
            ring_barrier()
            self.kick = True
        return put if put else IO_NONE

    cdef void finish(self) noexcept:
        if self.kick:
            self.kick = False
            ring_barrier()
            self.channels.notify(self.port)

    cdef void fail(self, int reason) noexcept:
        if self.page != NULL:
            ring_store(&self.page.error, reason)
            ring_barrier()
            self.kick = True
            self.finish()

    cdef bint asks_restart(self) noexcept:
        return self.page != NULL and ring_load(&self.page.connection) != 0

    cdef void restart(self) noexcept:
        cdef Interface *page = self.page
        if page == NULL:
            return
        ring_store(&page.req_cons, 0)
        ring_store(&page.req_prod, 0)
        ring_store(&page.rsp_cons, 0)
        ring_store(&page.rsp_prod, 0)
        memset(page.req, 0xff, RING_SIZE)
        memset(page.rsp, 0xff, RING_SIZE)
        ring_store(&page.error, 0)
        ring_barrier()
        ring_store(&page.connection, 0)
        self.kick = True
        self.finish()

    def redo(self, bint is_input, uint32_t index, uint32_t n):
        """Who moved n bytes died before or after it stored the index that says so: it is there
        now.  Where the index is neither that nor one of before it is left alone."""
        cdef uint32_t *at
        if self.page == NULL:
            return
        at = &self.page.req_cons if is_input else &self.page.rsp_prod
        if 0 < <uint32_t>(index - ring_load(at)) <= n:
            ring_store_release(at, index)
            ring_barrier()

    def advertise(self, uint32_t features):
        """Sets server_features, before the first byte is consumed."""
        if self.page != NULL:
            ring_store(&self.page.server_features, features)
            ring_barrier()

    @property
    def features(self):
        """What server_features says."""
        return ring_load(&self.page.server_features) if self.page != NULL else 0

    @property
    def indices(self):
        """(req_cons, rsp_prod), the two indices that only the daemon moves; None without a page."""
        if self.page == NULL:
            return None
        return ring_load(&self.page.req_cons), ring_load(&self.page.rsp_prod)

    def has_work(self):
        """Is there something that a kick would have told?"""
        cdef Interface *page = self.page
        if page == NULL:
            return False
        return ring_load(&page.connection) != 0 \
            or ring_load(&page.req_prod) != ring_load(&page.req_cons)

    cpdef close(self):
        """Lets go of the page; what comes later reads IO_CLOSED."""
        self.closed = True
        self.page = NULL
        self.keep = None
