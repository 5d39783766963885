# SPDX-License-Identifier: LGPL-2.1-or-later
"""The turns of a daemon: wait, serve who is ready, send what came of it, and tell epoll what
is waited for now.

A turn takes all descriptors that are ready.  Handlers go first: what the event channels tell
of a domain's death must be known before a toolstack's next request.  Sockets and rings are then
served in the order of the agenda, for a turn's time; what is left over is served in the next
turn, which looks for new arrivals without sleeping.  A turn in which nothing but requests was
served does not leave this file and those that it calls in the core.

A handler or a connection that fails does not keep the others from being served.
"""

cimport cython
from libc.errno cimport errno
from pyxsd._journal cimport J_DISCONNECT, Journal, journal_note
from pyxsd._poll cimport epoll_event
from pyxsd._seam cimport without_seam
from pyxsd._sock cimport SocketTransport
from pyxsd._wire cimport buffer_len

import os

from pyxsd._sock import accept

cdef extern from "sys/epoll.h" nogil:
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    enum:
        EPOLLIN
        EPOLLERR
        EPOLLHUP
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD

cdef enum:
    LOG_BYTES = 65536        # of the access log that are not kept back longer
    LOG_MS = 50              # nor are lines older than this
    ACCEPTS = 64             # connections taken in one turn, at most
    FEW = 16                 # sockets that are looked at in next to no time


@cython.final
cdef class Loop:
    """Serves the sockets of a server through an epoll descriptor, which it borrows.

    write_log() is called before each sleep that finds lines in the access log, and where some
    have waited for LOG_MS.  failed(fd, exception) is called where a handler raised; it should
    see to it that the same does not happen in every turn.  poll_time_us: see Poller.
    """

    def __cinit__(self, Server server not None, int epfd, long poll_time_us, write_log, failed):
        self.server = server
        self.epfd = epfd
        self.poller = Poller(epfd, poll_time_us)
        self.connections = {}
        self.handlers = {}
        self.write_log = write_log
        self.failed = failed
        self.burst = 1

    def add_handler(self, int fd, handler not None):
        """Calls handler() in each turn in which the descriptor can be read; where
        it returns True, run() returns."""
        self._control(EPOLL_CTL_ADD, fd, EPOLLIN)
        self.handlers[fd] = handler
        self.handled |= <uint64_t>1 << (fd & 63)

    def share(self):
        """Another process may have a copy of each socket that is open now: one that is given
        them or gives them; and one that is started, until the kernel has closed what it does not
        inherit, which may be after it has let its parent go on."""
        self.shared = self.server.last_id

    def adopt(self, int fd):
        """Serves a connected socket; its Connection.  The descriptor is closed
        with it; where it cannot be waited for (OSError) it is closed at once."""
        cdef SocketTransport transport = SocketTransport(fd)
        self._control(EPOLL_CTL_ADD, fd, EPOLLIN)
        connection = self.server.connect(transport)
        self.connections[fd] = connection
        return connection

    def attach(self, Connection c not None):
        """Serves a socket whose connection the server has already, and waits for what is
        registered; OSError."""
        cdef int fd = (<SocketTransport?>without_seam(c.transport)).fd
        if c.registered >= 0:
            self._control(EPOLL_CTL_ADD, fd, c.registered)
        self.connections[fd] = c

    def accept(self, int listener):
        """Takes connections that wait at a listening socket: how many, or the
        negative errno where the first was refused.

        One as a rule, without asking for a second; where the listener is ready
        turn after turn, twice as many each time.
        """
        cdef int fd, i
        if self.accepted_in + 1 == self.turns:
            self.burst = min(2 * self.burst, <int>ACCEPTS)
        else:
            self.burst = 1
        self.accepted_in = self.turns
        for i in range(self.burst):
            fd = accept(listener)
            if fd < 0:
                return i or fd
            self.adopt(fd)
        return self.burst

    def run(self, double due, bint once):
        """Turn after turn, until there is something for whoever called: a handler
        returned True, `due` (monotonic seconds) is reached, or the server wants
        tick(); with `once` after one turn."""
        cdef Server server = self.server
        cdef Poller poller = self.poller
        cdef Journal journal = server.agenda.journal
        cdef bint stop
        while True:
            if server.has_work():
                # Left over, or served between two runs: by a ring scan, by credit.
                poller.sleep(0.0)
            elif not poller.spin():
                if server.log.lines:
                    self._write_log()
                poller.sleep(due - poller.now)
            stop = self._turn()
            if journal.at >= journal.full:
                journal.hand_over()
            if server.log.lines == 0:
                self.log_due = 0.0
            elif self.log_due == 0.0:
                self.log_due = poller.now + LOG_MS * 0.001
            elif poller.now >= self.log_due or buffer_len(&server.log.buf) > LOG_BYTES:
                self._write_log()
            if stop or once or poller.now >= due or server.wants_tick():
                return

    def let_go(self):
        """Between two turns: as at the end of one, where clients were served since then."""
        if self.server.agenda.changed:
            self._apply()

    cdef int _write_log(self) except -1:
        self.log_due = 0.0
        self.write_log()
        return 0

    cdef bint _turn(self) except -1:
        """One turn; does a handler want the caller to look?"""
        cdef Server server = self.server
        cdef Poller poller = self.poller
        cdef int i, fd
        cdef object c
        cdef bint stop = False, hung_up
        cdef uint64_t now = poller.now_ns
        self.turns += poller.count > 0
        server.begin_turn(poller.wall, poller.now)
        for i in range(poller.count):
            fd = poller.ready[i].data.fd
            if (self.handled >> (fd & 63)) & 1 and fd in self.handlers:
                now = 0
                if self._handle(fd):
                    stop = True
        for i in range(poller.count):
            c = self.connections.get(poller.ready[i].data.fd)
            if c is not None:
                hung_up = poller.ready[i].events & (EPOLLERR | EPOLLHUP) != 0
                if hung_up:
                    now = 0
                server.on_socket(<Connection>c, hung_up)
        # The time at which the wait ended will do where little was done since then.
        server.work(now if poller.count <= FEW else 0)
        if server.agenda.changed:
            self._apply()
        return stop

    cdef bint _handle(self, int fd) except -1:
        """Calls a handler; does it want the caller of run() to look?"""
        try:
            return bool(self.handlers[fd]())
        except Exception as error:
            self.failed(fd, error)
            return True

    cdef int _apply(self) except -1:
        """Waits for what the connections want now; lets go of the closed ones."""
        cdef Connection c
        for c in self.server.take_changed():
            if not c.is_socket:
                c.registered = c.interest
                continue
            try:
                self._wait_for(c)
            except OSError as error:
                # It cannot be waited for, so it cannot be served.
                self.failed(-1, error)
                journal_note(self.server.agenda.journal, J_DISCONNECT, 0, c.id)
                self.server.disconnect(c)
        return 0

    cdef int _wait_for(self, Connection c) except -1:
        cdef SocketTransport transport = <SocketTransport?>without_seam(c.transport)
        cdef int fd = transport.fd
        cdef epoll_event event
        if c.closed:
            # Closing alone does not take it out of the epoll set while another process has a copy
            # of it; its number would speak for the next client then.
            if c.id <= self.shared and c.registered >= 0:
                epoll_ctl(self.epfd, EPOLL_CTL_DEL, fd, &event)
            self.connections.pop(fd, None)
            transport.close()
        elif c.registered != c.interest:
            self._control(EPOLL_CTL_DEL if c.interest < 0
                          else EPOLL_CTL_ADD if c.registered < 0 else EPOLL_CTL_MOD,
                          fd, c.interest)
            c.registered = c.interest
        return 0

    cdef int _control(self, int op, int fd, uint32_t events) except -1:
        cdef epoll_event event
        event.events = events
        event.data.fd = fd
        if epoll_ctl(self.epfd, op, fd, &event) < 0:
            raise OSError(errno, f"epoll_ctl {fd}: " + os.strerror(errno))
        return 0
