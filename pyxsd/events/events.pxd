# SPDX-License-Identifier: LGPL-2.1-or-later
# Watches and the way of their events: who is told of a change, and where an event waits
# that finds no room.  Knows connections and trees, nothing of requests.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._agenda cimport Agenda
from pyxsd._conn cimport Connection
from pyxsd._limits cimport Limits
from pyxsd.events.trie cimport Watch, WatchTrie
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport Perms
from pyxsd.store.tree cimport Node, Tree

# One change while its events are delivered.
cdef struct Firing:
    void *events
    void *cause              # the connection that caused it; NULL for domain 0's kernel
    Node *before             # where to look permissions up: NULL or a root
    Node *after
    const Path *path         # what changed
    const Path *look         # where its permissions are
    uint64_t hash            # of its text
    bint known               # the permissions below are looked up
    int count
    Perms *perms[4]

# What waits behind one watch.
cdef class Pending:
    cdef Connection to       # whose watch it is
    cdef uint64_t serial     # of the watch
    cdef bytes token
    cdef bytes own_path      # the path as the watch was given
    cdef size_t strip        # bytes that a relative watch drops from event paths
    cdef object waiting      # (path, k): path is b"" for own_path; k is not 0 for "@" events
    cdef object overflow     # (path, k, cause): has no share of the watcher's memory
    cdef set paths           # of all of these that an identical event may be merged with

cdef class Events:
    cdef WatchTrie trie
    cdef Agenda agenda
    cdef Limits limits
    cdef AccessLog log
    cdef object host
    cdef Connection kernel   # stands for domain 0's ring where there is none
    cdef bint checked        # perms-watch-activate: only who may read is told
    cdef uint64_t last_event  # numbers events that must not be merged
    cdef Path *watch_at      # scratch: the path of a watch
    cdef Path *look_at       # scratch: where the permissions of a "@" path are
    cdef bytes kept          # the text of the path being fired, once somebody keeps it
    # Counters since the start
    cdef readonly uint64_t queued
    cdef readonly uint64_t merged
    cdef readonly uint64_t refused

    # Tells of a change of `path`.  before and after are the roots to look permissions up
    # in, either may be NULL.  below: watches below the path are told too, each with its
    # own path.
    cdef int fire(self, Connection cause, const Path *path, Node *before, Node *after,
                  bint below) except -1
    # "@introduceDomain" or "@releaseDomain" of some domains.
    cdef int fire_special(self, bytes name, domids, Connection cause, Node *root) except -1
    # A new watch gets one event at once.
    cdef int first_event(self, Connection c, Watch *watch) except -1
    # The output has got room: moves events there that wait.
    cdef int refill(self, Connection c) except -1
    cdef int remove_watch(self, Connection c, Watch *watch) except -1
    # Ends all watches of a connection, with what waits behind them.
    cdef int drop_watches(self, Connection c) except -1
    # Forgets which events a connection caused that found no room.
    cdef int drop_debts(self, Connection c) except -1

    cdef int _fire_name(self, bytes watched, bytes event, bint deep, Connection cause,
                        Node *root) except -1
    cdef int _offer(self, Firing *firing, Watch *watch, bint own) except -1
    cdef int _refuse(self, Connection to, const Path *path, Perms **perms, int count) except -1
    cdef int _deliver(self, Connection cause, Watch *watch, const char *path, size_t n,
                      uint64_t hash, bint own) except -1
    cdef bint _has_room(self, Connection to) noexcept
    cdef bint _may_wait(self, Pending pending, Py_ssize_t n) except -1
    cdef int _log_event(self, Connection to, size_t n) except -1
    cdef int _delay(self, Connection cause, Connection to, Watch *watch, const char *path,
                    size_t n, bint own) except -1
    cdef int _send(self, Connection c, Pending pending, bytes path, uint64_t k) except -1
    cdef int _advance(self, Pending pending) except -1
    cdef int _forget(self, Pending pending) except -1
    cdef int _repay(self, Connection cause, Pending pending, int64_t n) except -1
