# SPDX-License-Identifier: LGPL-2.1-or-later
# Bytes in and out of the page that a domain shares, and event channels.
# Offsets and rules: Xen's public/io/xs_wire.h and docs/misc/xenstore-ring.txt.

from libc.stdint cimport uint32_t, uintptr_t
from pyxsd._journal cimport Journal
from pyxsd._wire cimport Transport

cdef extern from "xsd_glue.h":
    ctypedef struct xsd_glue:
        pass
    struct xsd_glue_api:
        int (*notify)(xsd_glue *, uint32_t port) noexcept nogil
        int (*pending)(xsd_glue *, uint32_t *ports, uint32_t n) noexcept nogil
        int (*unmask)(xsd_glue *, const uint32_t *ports, uint32_t n) noexcept nogil

cdef enum:
    RING_SIZE = 1024

# The shared page; the other side may change any of it at any time.
cdef struct Interface:
    char req[RING_SIZE]      # requests to the daemon
    char rsp[RING_SIZE]      # replies and events to the domain
    uint32_t req_cons        # indices run freely modulo 2^32
    uint32_t req_prod
    uint32_t rsp_cons
    uint32_t rsp_prod
    uint32_t server_features
    uint32_t connection      # not 0: the domain asks for a reconnect
    uint32_t error           # FAIL_*
    uint32_t evtchn_port

cdef enum:
    PORTS_MAX = 1024         # pending ports taken in one go

cdef class EventChannels:
    cdef const xsd_glue_api *api
    cdef xsd_glue *glue
    cdef readonly list notified      # without a glue: the ports, for tests
    cdef uint32_t ports[PORTS_MAX]   # taken, and masked until release()
    cdef int count

    cdef void notify(self, uint32_t port) noexcept
    # Takes the ports that are pending; how many.
    cdef int take(self, Journal journal) except -1
    cdef void _note(self, Journal journal, int n) noexcept
    cdef int _again(self, Journal journal) except -1

cdef class RingTransport(Transport):
    cdef Interface *page
    cdef EventChannels channels
    cdef public uint32_t port        # local port to notify; 0: none
    cdef bint kick                   # something changed since the last notify
    cdef bint closed                 # let go of for good
    cdef object keep                 # what owns the page, in tests

    cpdef close(self)
