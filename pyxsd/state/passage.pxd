# SPDX-License-Identifier: LGPL-2.1-or-later
# The way of a server's state into the records of an image, and out of them.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._conn cimport Connection
from pyxsd._core cimport Server
from pyxsd._listing cimport Listing
from pyxsd._outq cimport OutQueue
from pyxsd._request cimport State
from pyxsd.events.backlog cimport Pending
from pyxsd.events.events cimport Changes, Events, Job
from pyxsd.events.trie cimport Watch
from pyxsd.state.codec cimport Codec
from pyxsd.state.graph cimport GraphReader, GraphWriter
from pyxsd.store.pages cimport Node
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.tree cimport Tree

# One watch of an image.
cdef struct Loaded:
    uint64_t serial
    void *owner              # Connection, borrowed
    const char *path
    const char *token
    uint32_t path_len
    uint32_t token_len
    uint32_t depth
    Watch *watch             # once it is there

# The methods go both ways: codec.loading says which.  Where a method takes an object that is
# there only when it is saved, it is None when it is loaded.
cdef class Passage:
    cdef Server server
    cdef State s
    cdef Events events
    cdef double now          # of the server's clock
    cdef double then         # of the image's
    cdef bint same_clock     # loading: the server goes on at the image's time
    cdef GraphWriter writer  # saving
    cdef bint blank          # saving: x in place of values
    cdef GraphReader reader  # loading
    cdef dict by_id          # loading: id: Connection, those that are closed included
    cdef Loaded *watches     # loading: by serial, once all are known
    cdef size_t watches_used
    cdef size_t watches_room
    cdef list debts          # loading: events on somebody's account
    cdef dict recent         # loading: (id, tx_id): commits at the start, of recent transactions

    # Record SERV.
    cdef int serv(self, Codec codec) except -1
    # Of a connection in CONN: its watches; when it is loaded they are only collected.
    cdef int watch_texts(self, Codec codec, Connection c) except -1
    # All else but who it is.
    cdef int connection(self, Codec codec, Connection c) except -1
    # Record LATE.
    cdef int late(self, Codec codec) except -1
    # Record TURN.
    cdef int turn(self, Codec codec) except -1
    # Loading: the watches of all connections, and then, once the connections are there, the
    # events that somebody has to pay for.
    cdef int make_watches(self) except -1
    cdef int make_debts(self) except -1
    cdef int make_recent(self) except -1

    # What a field names.
    cdef Tree tree(self, Codec codec, Tree tree)
    cdef Node *node(self, Codec codec, Node *node) except? NULL
    cdef Node *root(self, Codec codec, Node *root) except? NULL
    cdef double time(self, Codec codec, double time) except *
    cdef Connection named(self, Codec codec, Connection c)
    cdef bytes path(self, Codec codec, bytes kept)

    cdef int output(self, Codec codec, OutQueue out) except -1
    cdef int remember(self, OutQueue out, uint64_t offset, uint64_t serial) except -1
    cdef Transaction transaction(self, Codec codec, Transaction txn)
    cdef int changes(self, Codec codec, list changes, Py_ssize_t begin) except -1
    cdef int listing(self, Codec codec, Listing listing) except -1
    cdef int collect(self, const Loaded *one) except -1
    cdef Watch *watch_of(self, uint64_t serial) except NULL
    cdef int pendings(self, Codec codec, Connection c) except -1
    cdef Pending new_pending(self, Connection c, uint64_t serial)
    cdef int pending(self, Codec codec, Pending pending) except -1
    cdef int check_event(self, Pending pending, bytes path, uint64_t k) except -1
    cdef int owe(self, uint64_t number, Pending pending, path, k, Connection cause) except -1
    cdef object told_later(self, Codec codec, what)
    cdef int commit(self, Codec codec, Changes changes) except -1
    cdef int job(self, Codec codec, Job job) except -1
    cdef bint is_below(self, const Watch *watch) noexcept
    cdef object connections(self, Codec codec, by_id)
    cdef int queue(self, Codec codec, int which) except -1
