# SPDX-License-Identifier: LGPL-2.1-or-later
# Watches and the way of their events: who is told of a change, and where an
# event waits that finds no room.

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._hub cimport Connection, Hub
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport Perms
from pyxsd.store.tree cimport Node, Tree
from pyxsd.events.trie cimport Watch, WatchTrie

# What an event is about, while it is matched.
cdef struct Firing:
    void *delivery
    void *cause              # the connection that caused it; NULL for none
    Node *before             # where to look permissions up: NULL or a root
    Node *after
    Path *path               # what changed
    Path *look               # where its permissions are
    uint64_t hash            # of its text
    bint known               # perms below are looked up
    int count
    Perms *perms[4]

cdef class Delivery(Hub):
    cdef readonly Tree tree          # the store
    cdef WatchTrie trie
    cdef uint64_t last_event         # numbers events that must not be merged
    cdef Path *watch_at              # scratch of event delivery
    cdef Path *look_at               # the same
    # Limits; see Config for the units.
    cdef public uint32_t max_events
    cdef bint perms_watch_active
    # Counters since the start
    cdef readonly uint64_t events
    cdef readonly uint64_t merged
    cdef readonly uint64_t refused

    cdef int drop_watches(self, Connection c) except -1
    cdef int remove_watch(self, Connection c, Watch *watch) except -1
    cdef int _forget_waiting(self, Connection c, uint64_t serial) except -1
    cdef int fire(self, Connection cause, Path *path, Node *before, Node *after,
                  bint below) except -1
    cdef int first_event(self, Connection c, Watch *watch) except -1
    cdef int deliver(self, Connection cause, Watch *watch, const char *path, size_t n,
                     uint64_t hash) except -1
    cdef int _log_event(self, Connection to, size_t n) except -1
    cdef int _delay(self, Connection cause, Connection to, Watch *watch, bytes path) except -1
    cdef int _send_waiting(self, Connection c, uint64_t serial, bytes token, tuple key) except -1
    cdef int _refill_from_causes(self, Connection c) except -1
