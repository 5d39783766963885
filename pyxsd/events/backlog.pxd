# SPDX-License-Identifier: LGPL-2.1-or-later
# Where events wait that find no room in a watcher's output, and on whose account.  Knows
# connections, nothing of trees.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._agenda cimport Agenda
from pyxsd._conn cimport Connection
from pyxsd._limits cimport EVENT_BYTES, Q_EVENTS, Limits
from pyxsd._wire cimport buffer_len
from pyxsd.events.trie cimport Watch

cdef enum:
    CLEARED_AT_ONCE = 64     # waiting events that are freed together with their watch

# What waits behind one watch.
cdef class Pending:
    cdef Connection to       # whose watch it is
    cdef uint64_t serial     # of the watch
    cdef Watch *watch        # borrowed; NULL once it is removed
    cdef object waiting      # (path, k): path is b"" for the watch's own; k is not 0 for "@" events
    cdef object overflow     # number: (path, k, Account): has no share of that memory
    cdef set paths           # of all of these that an identical event may be merged with

# The events of one cause that found no room.
cdef class Account:
    cdef Connection owner    # None once it is forgotten
    cdef dict owed           # number of an event: the Pending where it is

cdef class Backlog:
    cdef Agenda agenda
    cdef Limits limits
    cdef AccessLog log
    cdef Connection kernel   # stands for domain 0's ring where there is none
    cdef uint64_t last_event  # numbers events that must not be merged
    cdef uint64_t last_debt  # numbers events on somebody's account
    cdef object remains      # Pendings and Accounts that are gone and not emptied yet
    cdef size_t gone         # how many
    cdef bytes kept          # the text of the path being fired, once somebody keeps it
    # Counters since the start
    cdef readonly uint64_t queued
    cdef readonly uint64_t merged

    # Must these wait until events that it caused have found room?
    cdef bint must_wait(self, Connection cause) noexcept
    # Lets an event wait behind its watch, else on account of who caused it.
    cdef int delay(self, Connection cause, Connection to, Watch *watch, const char *path,
                   size_t n, bint own) except -1
    # An event has its place behind its watch.
    cdef int wait(self, Pending pending, bytes path, uint64_t k) except -1
    # The output has got room: moves some of the events there that wait.
    cdef int refill(self, Connection c) except -1
    # Ends what waits behind a connection's watches, and leaves them there.
    cdef int drop_waiting(self, Connection c) except -1
    # Drops what waits behind a watch that is gone.
    cdef int forget(self, Pending pending) except -1
    # Forgets the events that a connection caused and that found no room.
    cdef int drop_debts(self, Connection c) except -1
    # Is something left of what went?
    cdef bint has_remains(self) noexcept
    # Frees that many events of it.
    cdef int clear_away(self, int64_t most) except -1

    cdef int _keep(self, Connection cause, Pending pending, bytes text, uint64_t k) except -1
    cdef tuple _take(self, Pending pending)
    cdef bint _may_wait(self, Pending pending, Py_ssize_t n) except -1
    cdef int _send(self, Connection c, Pending pending, bytes path, uint64_t k) except -1
    cdef int _advance(self, Pending pending, int most) except -1
    cdef int _repay(self, Account account, number) except -1
    cdef int _bury(self, what) except -1
    cdef bint _clear_one(self, what) except -1
    cdef int _withdraw(self, Pending pending, number) except -1

# Has the output of a watcher room for one more event?
cdef inline bint has_room(Backlog b, Connection to) noexcept:
    return to.out.events < b.limits.most[Q_EVENTS] \
        and (not to.is_guest or buffer_len(&to.out.buf) < EVENT_BYTES)

# Logs the event just queued, whose payload has n bytes.
cdef inline int log_event(Backlog b, Connection to, size_t n) except -1:
    if b.log.active:
        b.log.line(to.label, 0, b"w event", to.out.buf.data + to.out.buf.tail - n, n)
    return 0
