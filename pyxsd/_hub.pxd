# SPDX-License-Identifier: LGPL-2.1-or-later
# What moves between connections: input, output, watch events, and the limits
# that keep every connection from making the daemon grow.  What a request means
# is the server's business (_core), which inherits from Hub.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._nodes cimport NodeLimits
from pyxsd._outq cimport OutQueue
from pyxsd._path cimport Path
from pyxsd._perms cimport Actor, Perms
from pyxsd._ring cimport EventChannels
from pyxsd._store cimport Node, Tree
from pyxsd._watch cimport Watch, WatchTrie
from pyxsd._wire cimport Buffer, Header, Slice, Transport

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

# What an event is about, while it is matched.
cdef struct Firing:
    void *hub
    void *cause              # the connection that caused it; NULL for none
    Node *before             # where to look permissions up: NULL or a root
    Node *after
    Path *path               # what changed
    Path *look               # where its permissions are
    uint64_t hash            # of its text
    bint known               # perms below are looked up
    int count
    Perms *perms[4]

cdef class Hub:
    cdef readonly Tree tree          # the store
    cdef readonly AccessLog log
    cdef WatchTrie trie
    cdef readonly object host
    cdef readonly dict connections   # id: Connection
    cdef readonly dict domains       # domid: its ring's Connection
    cdef uint64_t last_id
    cdef uint64_t last_anonymous
    cdef uint64_t last_event         # numbers events that must not be merged
    cdef list dirty
    cdef list resume                 # to serve again, at the end of the turn
    cdef list later                  # in the next one
    cdef list changed
    cdef readonly bint more          # flush() left something to do at once
    cdef readonly Connection system  # stands for domain 0's ring where there is none
    cdef char *scratch
    cdef Path *watch_at              # scratch of event delivery
    cdef Path *look_at               # the same
    # Limits; see Config for the units.
    cdef NodeLimits limits
    cdef dict owner_limits           # SET_QUOTA nodes: owner -> entries
    cdef public Py_ssize_t max_watches
    cdef public Py_ssize_t max_transactions
    cdef public Py_ssize_t max_requests
    cdef public Py_ssize_t path_max
    cdef public uint32_t max_outstanding
    cdef public uint32_t max_events
    cdef bint perms_active
    cdef bint perms_watch_active
    cdef double burst                # conflict-burst-limit
    # Counters since the start
    cdef readonly uint64_t ops
    cdef readonly uint64_t events
    cdef readonly uint64_t merged
    cdef readonly uint64_t refused

    # What the server above does with one whole packet.
    cdef int request(self, Connection c, const Header *head, const char *payload) except -1
    cdef int forget_connection(self, Connection c) except -1
    cdef int begin_turn(self, double wall, double now) except -1

    cdef int fire(self, Connection cause, Path *path, Node *before, Node *after,
                  bint below) except -1
    cdef int first_event(self, Connection c, Watch *watch) except -1
    cdef int deliver(self, Connection cause, Watch *watch, const char *path, size_t n,
                     uint64_t hash) except -1
    cdef int _delay(self, Connection cause, Connection to, Watch *watch, bytes path) except -1
    cdef int _refill(self, Connection c) except -1
    cdef int _refill_from_causes(self, Connection c) except -1
    cdef int _send_waiting(self, Connection c, uint64_t serial, bytes token, tuple key) except -1
    cdef int reply(self, Connection c, uint32_t type, uint32_t req_id, uint32_t tx_id,
                   const char *p, size_t n) except -1
    cdef int touch(self, Connection c) except -1
    cdef int unblock(self, Connection c) except -1
    cdef int drop_watches(self, Connection c) except -1
    cdef int remove_watch(self, Connection c, Watch *watch) except -1
    cdef int _forget_waiting(self, Connection c, uint64_t serial) except -1
    cdef int _flush_one(self, Connection c) except -1
    cdef int _want(self, Connection c) except -1
    cdef bint wants_loop(self) noexcept
    # A socket can be read or written, or was hung up.
    cdef int on_ready(self, Connection c, bint hangup) except -1
    cdef int _service(self, Connection c) except -1
    cdef int _serve(self, Connection c) except -1
    cdef int _reset(self, Connection c) except -1
    cdef int _restart(self, Connection c) except -1
    cdef int _fail(self, Connection c) except -1
    cdef int _log_event(self, Connection to, size_t n) except -1
    cdef int _close(self, Connection c) except -1
