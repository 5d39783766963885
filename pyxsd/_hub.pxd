# SPDX-License-Identifier: LGPL-2.1-or-later
# Connections and the bytes that move in and out of them, turn by turn, with the
# limits that keep every connection from making the daemon grow.  What a request
# means and where watch events come from is the business of the classes that
# inherit from Hub: _delivery, _conflict, _commit, _requests, _core, each
# knowing those before it.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._outq cimport OutQueue
from pyxsd.store.perms cimport Actor
from pyxsd._ring cimport EventChannels
from pyxsd.events.trie cimport Watch
from pyxsd._wire cimport Buffer, Header, Transport

cdef enum:
    WANT_IN = 1              # the values of EPOLLIN and EPOLLOUT
    WANT_OUT = 4

cdef class Connection:
    cdef readonly Transport transport
    cdef readonly uint64_t id        # never used twice
    cdef readonly bytes label        # "DOM5", "DOM0 (ANON CONN #3)"
    cdef bytes base                  # "/local/domain/<domid>/"
    cdef readonly bint socket        # has the rights of domain 0
    cdef Actor who
    cdef Buffer inp                  # read and not served yet
    cdef OutQueue out
    cdef Watch *watches
    cdef readonly uint32_t watch_count
    cdef readonly dict transactions  # tx_id: Transaction
    cdef uint32_t last_tx
    cdef list listings               # of DIRECTORY_PART, last used first
    cdef uint64_t gencnt
    cdef readonly uint64_t ops       # requests served
    cdef public uint32_t features    # bits in the ring page
    # Events that found no room.  waiting: serial of an own watch ->
    # [token, {(path, k): None}].  overflow: id of a watching connection ->
    # {(serial, path, k): token} of events that this connection caused.
    cdef object waiting
    cdef dict overflow
    cdef dict causes                 # ids of connections with overflow for this one, in order
    cdef readonly double credit      # conflict credit; not served unless positive
    # Limits, from the configuration or SET_QUOTA; see Config for units.
    cdef public Py_ssize_t max_watches
    cdef public Py_ssize_t max_transactions
    # State
    cdef readonly bint closed
    cdef readonly bint bad           # broke the rules of its ring
    cdef bint dirty                  # on the server's list of those to flush
    cdef bint resuming               # on one of its lists of those to serve again
    cdef bint stalled                # was found blocked when it was served
    cdef readonly int interest       # WANT_*: what the loop should wait for
    cdef public int registered       # WANT_* that the loop waits for
    cdef bint changed                # on the server's list of changed interests
    cdef public object owner         # whoever made it may keep something here

    cdef bint is_blocked(self, uint32_t limit) noexcept

cdef class Hub:
    cdef readonly AccessLog log
    cdef readonly object host
    cdef readonly dict connections   # id: Connection
    cdef readonly dict domains       # domid: its ring's Connection
    cdef uint64_t last_id
    cdef uint64_t last_anonymous
    cdef list dirty
    cdef list resume                 # to serve again, at the end of the turn
    cdef list later                  # in the next one
    cdef list changed
    cdef readonly Connection system  # stands for domain 0's ring where there is none
    cdef char *scratch
    # Limits; see Config for the units.
    cdef public Py_ssize_t max_watches
    cdef public Py_ssize_t max_transactions
    cdef public uint32_t max_outstanding
    cdef bint perms_active
    cdef double burst                # conflict-burst-limit
    # Counters since the start
    cdef readonly uint64_t ops

    # What the classes above do.
    # One whole packet is to be served.
    cdef int request(self, Connection c, const Header *head, const char *payload) except -1
    # The output has got room: moves events there that wait.
    cdef int refill(self, Connection c) except -1
    # Drops all that the client ever asked for; its rights stay.  Each class
    # drops what it keeps for a connection.
    cdef int reset(self, Connection c) except -1
    cdef int begin_turn(self, double wall, double now) except -1
    # Is there something that time will change?
    cdef bint wants_loop(self) noexcept

    cpdef int set_target(self, Connection c, int64_t target) except -1
    # A socket can be read or written, or was hung up.
    cdef int on_ready(self, Connection c, bint hangup) except -1
    cdef int _service(self, Connection c) except -1
    cdef int _serve(self, Connection c) except -1
    cdef int _restart(self, Connection c) except -1
    cdef int _fail(self, Connection c) except -1
    cdef int _close(self, Connection c) except -1
    cdef int reply(self, Connection c, uint32_t type, uint32_t req_id, uint32_t tx_id,
                   const char *p, size_t n) except -1
    cdef int touch(self, Connection c) except -1
    cdef int unblock(self, Connection c) except -1
    # Is there something for flush() to do at once?
    cdef bint has_work(self) noexcept
    cdef int _flush_one(self, Connection c) except -1
    cdef int _want(self, Connection c) except -1
