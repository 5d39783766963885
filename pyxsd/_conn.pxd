# SPDX-License-Identifier: LGPL-2.1-or-later
# A client: who it is, whose rights it has, its bytes in both directions, and what the
# parts of the server keep for it.  Knows none of those parts.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyxsd._limits cimport OUTPUT_BYTES
from pyxsd._outq cimport OutQueue
from pyxsd._wire cimport HEADER_SIZE, PAYLOAD_MAX, Buffer, Header, Transport, buffer_len
from pyxsd.events.trie cimport Watch
from pyxsd.store.perms cimport Actor

# What the loop waits for; the values of EPOLLIN and EPOLLOUT.
cdef enum:
    WANT_IN = 1
    WANT_OUT = 4

cdef class Connection:
    # Who it is
    cdef readonly Transport transport
    cdef readonly uint64_t id        # never used twice
    cdef readonly bytes label        # "DOM5", "DOM0 (ANON CONN #3)"
    cdef bytes base                  # where relative paths begin: "/local/domain/<domid>/"
    cdef readonly bint is_socket     # else the ring of a domain
    cdef readonly bint is_guest      # the ring of a domain other than 0
    cdef Actor who                   # whose rights it has
    cdef public uint32_t features    # bits of the ring page
    # Its bytes
    cdef Buffer inp                  # read and not served yet
    cdef OutQueue out                # replies and events not sent yet
    cdef readonly uint64_t ops       # requests served
    # Its state
    cdef readonly bint closed
    cdef readonly bint bad           # a ring that broke its rules; not read any more
    cdef readonly bint ended         # the client will send nothing more
    cdef readonly bint deaf          # the client will read nothing more
    cdef readonly bint hung_up       # both; the loop reports it again and again
    cdef readonly bint stalled       # was found blocked when it was to be served
    cdef readonly bint awaits        # the answer to its last request comes later
    cdef Header asked                # that request
    cdef public int refused          # requests of which a process has died
    # Kept by the agenda
    cdef bint to_flush               # has output for the end of the turn
    cdef bint is_ready               # waits for its share of the turn
    cdef uint64_t used               # time it was served, nanoseconds; see the agenda
    cdef bint asks_many              # more than one request of it was served the last time
    cdef readonly uint32_t pace      # what serving it takes on average of late, nanoseconds
    cdef bint changed                # closed, or `interest` is not what is registered
    cdef readonly int interest       # WANT_*: what the loop should wait for; -1: nothing at all
    cdef public int registered       # WANT_* that the loop waits for; -1: nothing at all
    # Kept by the events
    cdef Watch *watches
    cdef readonly uint32_t watch_count
    cdef int64_t watch_bytes         # of all of them, see there
    cdef object pending              # serial of a watch of its own: what waits behind it
    cdef object overfull             # the same, of those with more than their share
    cdef int64_t waiting_bytes       # of all that waits there
    cdef object debts                # events that it caused and that found no room: an Account
    cdef readonly int64_t overflowing   # how many those are
    cdef object jobs                 # events of its changes that are still to be delivered
    cdef bint hurried                # they keep no old stores, see Events.hurry()
    # Kept by the transactions
    cdef readonly dict transactions  # tx_id: Transaction
    cdef object at_hand              # the one of these that it has asked something in last, or None
    cdef uint32_t last_tx
    cdef int64_t recorded_bytes      # of the requests that they remember
    cdef bint waits                  # its jobs are not done, and keep old stores,
    cdef uint64_t waits_churn        # since this was the history's churn
    cdef double waits_since          # and this the time, monotonic seconds
    cdef int64_t replaced            # bytes of the store that its changes have let go of so far
    # Kept by the history
    cdef int64_t kept                # the weight of its changes that are kept
    cdef readonly double credit      # conflict credit; not served unless positive
    # Kept by DIRECTORY_PART
    cdef list listings               # directories that it asked for, last used first
    cdef uint64_t generation
    # Quotas of its own; -1 where those of all connections hold
    cdef int64_t most_watches
    cdef int64_t most_transactions

    # Something is going to wait behind its watches: `pending` and `overfull`, which are None until
    # then, are there from now on.  Most clients never need them.
    cdef int begin_waiting(self) except -1

# Must it wait with its next request?  outstanding: replies that may wait.
cdef inline bint is_blocked(Connection c, int64_t outstanding) noexcept:
    return c.out.replies >= outstanding or c.overflowing != 0 or c.credit <= 0.0 \
        or c.jobs is not None or c.awaits \
        or (c.is_guest and buffer_len(&c.out.buf) >= OUTPUT_BYTES)

# The header of the next packet: 1 where the whole packet is there, 0 where more bytes are
# needed, -1 where it claims more than PAYLOAD_MAX.
cdef inline int next_packet(Connection c, Header *head) noexcept:
    cdef size_t have = buffer_len(&c.inp)
    if have < HEADER_SIZE:
        return 0
    memcpy(head, c.inp.data + c.inp.head, HEADER_SIZE)
    if head.len > PAYLOAD_MAX:
        return -1
    return have >= HEADER_SIZE + head.len
