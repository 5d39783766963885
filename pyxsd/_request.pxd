# SPDX-License-Identifier: LGPL-2.1-or-later
# A request as a value, the row of the table that it is served by, and the state of the
# server that handlers work on.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._agenda cimport Agenda
from pyxsd._conn cimport Connection
from pyxsd._history cimport History
from pyxsd._limits cimport Limits
from pyxsd._wire cimport Buffer, Slice
from pyxsd.events.events cimport (
    EVENT_CHANGED, EVENT_NONE, EVENT_PERMS, EVENT_REMOVED, Events,
)
from pyxsd.events.trie cimport Watch
from pyxsd.store.nodes cimport Effect
from pyxsd.store.path cimport Path
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.pages cimport Node
from pyxsd.store.tree cimport Tree

# Serves a request: looks at its payload and tree, leaves what it found in its answer and what
# it changed in its effect.  A status (ST_*).
ctypedef int (*handler_fn)(State s, Request *r) except -1

# One row per request type.
cdef struct Row:
    uint32_t type
    const char *name         # as the protocol document calls it
    const char *label        # as the access log calls it
    handler_fn handler       # NULL: no client may send it (ENOSYS)
    int flags                # ROW_*
    int event                # EVENT_*: what watches are told when it changed something

cdef enum:
    ROW_PRIVILEGED = 1       # only for domain 0: EACCES
    ROW_DATA = 2             # answers with data, else with "OK"
    ROW_REPLAY = 4           # a transaction with it can be replayed
    ROW_READ = 8             # what it saw counts as read by the transaction
    ROW_CHANGE = 16          # may change the store
    ROW_NO_TRANSACTION = 32  # its tx_id is ignored, and answered as 0
    ROW_LOG_READ = 64        # access log: only with read-ops,
    ROW_LOG_SPECIAL = 128    # only with special-ops,
    ROW_LOG_NEVER = 256      # never by its request

# Owned by the frame that serves it; what it points to is borrowed but for `before`.
cdef struct Request:
    void *connection         # Connection
    const Row *row
    uint32_t type            # as it came; without a row it has the row of no request
    uint32_t tx_id
    Slice payload
    void *tree               # Tree: what it works on
    void *txn                # Transaction that it belongs to; NULL for none
    bint trial               # run again, to see whether it is answered as it was
    Path *path               # filled in by the handler
    Buffer *answer           # what it found
    Effect effect            # what it changed
    size_t listed            # work beside its answer: as that of so many bytes of names
    Node *before             # root of the store before it, where events need it; owned
    Watch *new_watch         # that it made

cdef class State:
    cdef Tree tree           # the store
    cdef Events events
    cdef History history
    cdef Limits limits
    cdef Agenda agenda
    cdef AccessLog log
    cdef object host         # see _core
    cdef object transactions  # the Transactions of _commit, which knows this class
    cdef dict connections    # id: Connection
    cdef dict domains        # domid: the Connection of its ring
    cdef dict targets        # target: {id: Connection} of those that act for it
    cdef uint64_t epoch      # counts changes that touched every node
    cdef bint allow_debug    # CONTROL is for everybody
    cdef Path *path          # scratch: of the request at hand
    cdef Buffer answer       # scratch: the same

    # The connection acts for that domain too (SET_TARGET); -1: for no other.
    cdef int set_target(self, Connection c, int64_t target) except -1

cdef inline Connection client(Request *r):
    return <Connection>r.connection

# A request of c that works on tree outside of any transaction.  The caller fills in the row, the
# type, the transaction id and the payload; path and answer are the scratch space that it lends.
cdef inline void prepare(Request *r, Connection c, Tree tree, Path *path,
                         Buffer *answer) noexcept:
    r.connection = <void *>c
    r.tree = <void *>tree
    r.txn = NULL
    r.trial = False
    r.path = path
    r.answer = answer
    r.before = NULL
    r.new_watch = NULL

# Reads a path as the client wrote it.
cdef bint parse_path(State s, Request *r, const char *p, size_t n) noexcept
# The same where it is the whole payload: exactly one path with its NUL.
cdef bint one_path(State s, Request *r) noexcept
# Keeps the store as it is now for the events of a removal or of new permissions.
cdef int keep_before(State s, Request *r) except -1
# Runs the handler of a request; its status.
cdef int run(State s, Request *r) except -1
# Its line in the access log, where the log wants one.
cdef int log_request(State s, const Request *r, bytes label) except -1
