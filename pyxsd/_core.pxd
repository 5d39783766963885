# SPDX-License-Identifier: LGPL-2.1-or-later
# The server: connections come and go, are served, and get their output.  What the loop and
# the Python side call.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyxsd._accesslog cimport AccessLog
from pyxsd._agenda cimport Agenda
from pyxsd._commit cimport Transactions
from pyxsd._conn cimport Connection
from pyxsd._limits cimport Limits
from pyxsd._request cimport State
from pyxsd._ring cimport EventChannels
from pyxsd._wire cimport Buffer, Header

cdef class Server:
    cdef State s
    cdef readonly AccessLog log
    cdef readonly object host
    cdef readonly Agenda agenda
    cdef readonly Limits limits
    cdef readonly Connection kernel  # stands for domain 0's ring where there is none
    cdef bint perms_active           # perms-activate
    cdef uint64_t last_id
    cdef uint64_t last_anonymous
    cdef Connection serving          # whom a request is served for right now
    cdef bint drains                 # nothing is read, only what was read before is served
    cdef bint holds_starts           # see hold_starts()
    cdef list held                   # trees, see hold()
    cdef Buffer spare                # lent to whoever is served
    # Counters since the start
    cdef readonly uint64_t ops       # requests
    cdef readonly uint64_t failures  # connections that were ended by an error of our own

    # -- for the loop
    cdef int begin_turn(self, double wall, double now) except -1
    # A socket can be read or written, or was hung up.
    cdef int on_socket(self, Connection c, bint hung_up) except -1
    # Serves who waits, for a turn's time, and sends what came of it.  now: monotonic nanoseconds,
    # 0 where the caller does not know.
    cdef int work(self, uint64_t now) except -1
    cdef bint _has_remains(self) noexcept
    cdef int _clear_away(self) except -1
    cdef bint has_work(self) noexcept
    cdef bint wants_tick(self) noexcept

    cdef int _step(self, Connection c, uint64_t until) except -1
    cdef int _serve(self, Connection c, uint64_t until) except -1
    cdef bint _is_held(self, Connection c, const Header *head) noexcept
    cdef int _packets(self, Connection c, uint64_t until) except -1
    cdef _told_of(self, Connection c, const Header *head)
    cdef int _refuse(self, Connection c, const Header *head) except -1
    cdef int _input_is_served(self, Connection c) except -1
    cdef int _flush_all(self) except -1
    cdef int _send(self, Connection c) except -1
    cdef int _flush(self, Connection c) except -1
    cdef int _nobody_reads(self, Connection c) except -1
    cdef bint _is_hopeless(self, Connection c) noexcept
    cdef int _end_if_done(self, Connection c) except -1
    cdef int _reset(self, Connection c) except -1
    cdef int _restart(self, Connection c) except -1
    cdef int _break(self, Connection c) except -1
    cdef int _close(self, Connection c) except -1
    cdef int _give_up(self, Connection c, object error) except -1
