# SPDX-License-Identifier: LGPL-2.1-or-later
# Watches and the way of their events: who is told of a change.  Knows connections and trees,
# nothing of requests.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._conn cimport Connection
from pyxsd.events.backlog cimport Backlog
from pyxsd.events.trie cimport Search, Watch, WatchTrie
from pyxsd.store.grave cimport Grave
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport Perms

# What watches are told when a request changed something.
cdef enum:
    EVENT_NONE = 0
    EVENT_CHANGED = 1        # of the path; permissions are those after the change
    EVENT_PERMS = 2          # of the path; permissions are those before or after it
    EVENT_REMOVED = 3        # of the path and all below; permissions are those before it

# A permission list, and how old the store is that has it (see perms.pyx).
cdef struct Rights:
    Perms *perms
    uint64_t age

# A change, and how far the delivery of its events has come.
cdef class Job:
    cdef bytes text          # the changed path, see path_keep; of a name: the event's path
    cdef bytes name          # "@introduceDomain", ...: what is watched; None for a path
    cdef bint deep           # of a name: only watches of depth 1, else those without
    cdef bint below          # watches below the path are told, too
    cdef bint begun          # the search has begun
    cdef Search search       # for the watches that are still to be told
    cdef uint64_t newest     # serial of the newest watch that may be told
    cdef Node *before        # where to look permissions up: NULL or a root, counted
    cdef Node *after
    cdef Grave grave         # where these go in the end; None while there are none

    cdef int keep(self, Grave grave, Node *before, Node *after) except -1
    # Keeps the root of the store as it is now, where it keeps one.
    cdef void move(self, Node *root) noexcept

# The changes of a commit, as far as they are no jobs yet: one becomes a job when the one before
# it is done.
cdef class Changes:
    cdef list changes        # (EVENT_*, path; see path_keep), in order
    cdef Py_ssize_t next     # the first one that is still to be told of
    cdef uint64_t newest     # serial of the newest watch that may be told
    cdef Node *before        # root of the tree before all of them, counted
    cdef Node *after         # and behind them
    cdef Grave grave         # where these go in the end

    # As Job.move().
    cdef void move(self, Node *root) noexcept
    # How many there are still.
    cdef Py_ssize_t left(self) noexcept
    # The job of one of them.
    cdef Job job(self, Py_ssize_t at)

cdef class Events(Backlog):
    cdef WatchTrie trie
    cdef Grave grave         # of the store
    cdef object host
    cdef bint checked        # perms-watch-activate: only who may read is told
    cdef Path *path          # scratch: of a change that was parked
    cdef Path *look_at       # scratch: where the permissions of a "@" path are
    cdef Job spare           # for the next change
    cdef int64_t most        # matches that the request at hand may deliver at once
    cdef int64_t at_once     # of these, how many it still may
    cdef bint complained     # of an event of it that is too long to be sent
    # Permissions of the path being fired: those of its parent and of itself
    cdef Rights rights[4]
    cdef int rights_count    # UNKNOWN: nobody has asked yet
    # Since the start: events that were not sent for want of permission
    cdef readonly uint64_t refused

    # A request begins, or something else that may change much.
    cdef void begin(self) noexcept
    # Tells of a change of `path`.  before and after are the roots to look permissions up
    # in, either may be NULL.  below: watches below the path are told too, each with its
    # own path.  there: the node of the path is known to be in `after`.
    cdef int fire(self, Connection cause, const Path *path, Node *before, Node *after,
                  bint below, bint there=*) except -1
    # Tells of the changes of a commit, (EVENT_*, path; see path_keep): of the first ones at once,
    # of the rest in slices.  before and after: the roots around all of them.
    cdef int fire_kept(self, Connection cause, list changes, Node *before, Node *after) except -1
    # "@introduceDomain" or "@releaseDomain" of some domains.
    cdef int fire_special(self, bytes name, domids, Connection cause, Node *root) except -1
    # Goes on with the events that a connection still has to cause, until that time
    # (monotonic nanoseconds).
    cdef int resume(self, Connection cause, uint64_t until) except -1
    # They keep no old trees any more but the store of now, which has that root.  A guest's wait no
    # longer, as those of somebody who has gone: what finds no room is dropped.
    cdef int hurry(self, Connection cause, Node *root) except -1
    # A new watch gets one event at once.
    cdef int first_event(self, Connection c, Watch *watch) except -1
    cdef int remove_watch(self, Connection c, Watch *watch) except -1
    # Ends all watches of a connection, with what waits behind them.
    cdef int drop_watches(self, Connection c) except -1
    # Forgets the changes of a connection whose events are not delivered yet.
    cdef int drop_jobs(self, Connection c) except -1
    # It goes: they are delivered without it.
    cdef int leave_jobs(self, Connection c) except -1

    cdef int _fire_name(self, bytes watched, bytes event, bint deep, Connection cause,
                        Node *root) except -1
    cdef int _start(self, Connection cause, Job job, const Path *path, Node *before,
                    Node *after) except -1
    cdef int _begin(self, Job job, const Path *path) except -1
    cdef int _tell(self, Connection cause, Job job, const Path *path, Node *before, Node *after,
                   Watch *watch, int64_t steps, bint there) except -1
    cdef int _park(self, Connection cause, Job job, const Path *path, Node *before,
                   Node *after) except -1
    cdef int _prepare(self, Job job, const Path *path, Node *before, Node *after) except -1
    cdef int _some(self, Connection cause, Job job, const Path *path, Node *before,
                   Node *after) except -1
    cdef Py_ssize_t _left(self) except -1
    cdef int _queue(self, Connection cause, what) except -1
    cdef int _offer(self, Connection cause, Watch *watch, const Search *search,
                    const Path *path, Node *before, uint64_t hash) except -1
    cdef int _refuse(self, Connection to, const Path *path, const Rights *rights,
                     int count) except -1
    cdef int _deliver(self, Connection cause, Watch *watch, const char *path, size_t n,
                      uint64_t hash, bint own) except -1
