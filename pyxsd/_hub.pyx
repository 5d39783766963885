# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections: their input and output, turn by turn (floor 2).

How growth is bounded here (a part of the answer to XSA-325, 326 and 416; the
other part, of watch events, is in _delivery), per connection:

- a request is read only where its reply has room (max_outstanding replies);
- nothing is read while an event that the connection caused has found no room,
  or while it is out of conflict credit.
"""

cimport cython
from collections import OrderedDict
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove
from pyxsd._wire cimport (
    FAIL_LENGTH, HEADER_SIZE, IO_BAD, IO_CLOSED, IO_RESET, PACKET_MAX, PAYLOAD_MAX, XS_ERROR,
    buffer_consume, buffer_free, buffer_len, buffer_put,
)

cdef enum:
    TURN_BYTES = 65536       # read from a socket in one turn, at most
    TURN_RING_BYTES = 1024   # from a ring: what it holds, and not what is added meanwhile
    TURN_ROUNDS = 4          # of flushing and resuming at the end of a turn

cdef long long _live = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"connections": _live}


@cython.final
cdef class Connection:
    """A client: a socket with the rights of domain 0, or the ring of a domain."""

    def __cinit__(self):
        global _live
        _live += 1

    def __dealloc__(self):
        global _live
        _live -= 1
        buffer_free(&self.inp)

    cdef bint is_blocked(self, uint32_t limit) noexcept:
        """Must it wait with its next request?"""
        return self.out.replies >= limit or bool(self.overflow) or self.credit <= 0.0

    @property
    def domid(self):
        """The domain whose rights it has."""
        return self.who.domid

    @property
    def target(self):
        """The domain that it also acts for, -1 for none (SET_TARGET)."""
        return self.who.target

    @property
    def privileged(self):
        """Has it the rights of domain 0?"""
        return self.who.privileged

    @property
    def partial_input(self):
        """The bytes read and not served yet (at most one turn's worth)."""
        return self.inp.data[self.inp.head:self.inp.tail] if self.inp.data != NULL else b""

    @property
    def pending_output(self):
        """The bytes queued and not sent yet; the front may be inside a packet."""
        buf = &self.out.buf
        return buf.data[buf.head:buf.tail] if buf.data != NULL else b""

    @property
    def queued(self):
        """(replies, events) in the output queue."""
        return self.out.replies, self.out.events

    @property
    def has_output(self):
        """Is there something queued?"""
        return buffer_len(&self.out.buf) > 0

    @property
    def overflowing(self):
        """Events caused by this connection that found no room anywhere."""
        return sum(len(events) for events in self.overflow.values())

    @property
    def waiting_events(self):
        """Events that wait behind this connection's watches."""
        return sum(len(entry[1]) for entry in self.waiting.values())

    @property
    def blocked(self):
        """Was it found blocked: no request of it is served for now?"""
        return self.stalled

    def watch_list(self):
        """[(path as given, token, depth or None)], oldest first."""
        cdef Watch *watch = self.watches
        cdef list found = []
        while watch != NULL:
            found.append((watch.text[:watch.path_len],
                          watch.text[watch.path_len + 1:watch.path_len + 1 + watch.token_len],
                          None if watch.depth == 0xffffffff else watch.depth))
            watch = watch.owner_next
        found.reverse()
        return found


cdef class Hub:
    """All connections of a server; made to be inherited."""

    def __cinit__(self, *args, **kwargs):
        self.connections = {}
        self.domains = {}
        self.dirty = []
        self.resume = []
        self.later = []
        self.changed = []
        self.scratch = <char *>malloc(TURN_BYTES + PACKET_MAX)
        if self.scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.scratch)

    def configure(self, config, AccessLog log not None):
        """Takes over the limits of a Config."""
        self.log = log
        self.max_watches = config.quota_maxwatch
        self.max_transactions = config.quota_transaction
        self.max_outstanding = max(1, min(config.quota_maxoutstanding, 1 << 30))
        self.perms_active = config.perms_activate
        self.burst = config.conflict_burst_limit
        self.system = self._new(Transport(), 0, False)
        self.system.label = b"DOM0"

    def close(self):
        """Ends all connections, so that nothing of the server stays behind."""
        cdef Connection c
        for c in list(self.connections.values()):
            self._close(c)
        self.take_changed()
        self.dirty = []
        self.resume = []
        self.later = []
        self.system = None

    # -- for the classes above ------------------------------------------------

    cdef int request(self, Connection c, const Header *head, const char *payload) except -1:
        raise NotImplementedError

    cdef int refill(self, Connection c) except -1:
        return 0

    cdef int reset(self, Connection c) except -1:
        buffer_free(&c.inp)
        c.out.clear()
        return 0

    cdef int begin_turn(self, double wall, double now) except -1:
        self.log.set_time(wall)
        return 0

    cdef bint wants_loop(self) noexcept:
        return False

    # -- connections ----------------------------------------------------------

    def _new(self, Transport transport not None, int64_t domid, bint socket):
        cdef Connection c = Connection.__new__(Connection)
        self.last_id += 1
        c.id = self.last_id
        c.transport = transport
        c.socket = socket
        c.base = b"/local/domain/%d/" % domid
        c.who.domid = domid
        c.who.target = -1
        c.who.privileged = domid == 0
        c.who.unchecked = not self.perms_active
        c.out = OutQueue.__new__(OutQueue)
        c.transactions = {}
        c.waiting = OrderedDict()
        c.overflow = {}
        c.causes = {}
        c.credit = self.burst if domid and not socket else 1e9
        c.max_watches = self.max_watches
        c.max_transactions = self.max_transactions
        c.interest = c.registered = WANT_IN
        return c

    def connect(self, Transport transport not None, domid=None):
        """A new connection: of a socket where domid is None, else the ring of
        that domain.  The loop waits for input on it (registered is WANT_IN)."""
        cdef Connection c
        if domid is not None and domid in self.domains:
            raise ValueError(f"domain {domid} is connected already")
        c = self._new(transport, 0 if domid is None else domid, domid is None)
        if domid is None:
            self.last_anonymous += 1
            c.label = b"DOM0 (ANON CONN #%d)" % self.last_anonymous
        else:
            c.label = b"DOM%d" % domid
            self.domains[domid] = c
        self.connections[c.id] = c
        self.log.line(c.label, 0, b"newconn", NULL, 0)
        return c

    def disconnect(self, Connection c not None):
        """Ends a connection with its watches and transactions."""
        self._close(c)

    cdef int _close(self, Connection c) except -1:
        if c.closed:
            return 0
        c.closed = True
        self.log.line(c.label, 0, b"endconn", NULL, 0)
        self.reset(c)
        self.connections.pop(c.id, None)
        if not c.socket and self.domains.get(c.who.domid) is c:
            del self.domains[c.who.domid]
        c.interest = 0
        if not c.changed:
            c.changed = True
            self.changed.append(c)
        return 0

    cpdef int set_target(self, Connection c, int64_t target) except -1:
        """The connection acts for that domain too (-1: for no other)."""
        c.who.target = target
        c.who.privileged = c.who.domid == 0 or target == 0
        return 0

    # -- input ----------------------------------------------------------------

    cdef int on_ready(self, Connection c, bint hangup) except -1:
        if hangup and c.stalled:
            # It went away while it was not served; nobody waits for what it
            # may still have asked.
            return self._close(c)
        return self._service(c)

    def serve_ports(self, EventChannels channels not None, dict by_port not None):
        """Takes the pending ports and serves those that have a connection
        (port: Connection); the others as a list, or None.  All of them stay
        masked until channels.release()."""
        cdef int i
        cdef object c
        cdef list others = None
        for i in range(channels.take()):
            c = by_port.get(channels.ports[i])
            if c is not None:
                self._service(<Connection>c)
            elif others is None:
                others = [channels.ports[i]]
            else:
                others.append(channels.ports[i])
        return others

    def service(self, Connection c not None):
        """Serves what a client has sent, one turn's worth; its output goes out
        at the end of the turn (flush)."""
        self._service(c)

    def serve_later(self, Connection c not None):
        """Serves what a client has sent at the end of this turn, once the request
        at hand is done.  For whatever is called by a request: serving inside of
        serving would run one client's bytes with another one's rights."""
        if not c.closed and not c.resuming:
            c.resuming = True
            self.resume.append(c)

    cdef int _service(self, Connection c) except -1:
        if c.closed:
            return 0
        if buffer_len(&c.out.buf):
            self.touch(c)
        if not c.socket and c.transport.asks_restart():
            # A fresh start is granted to whoever is not read from, too.
            c.bad = False
            return self._restart(c)
        return 0 if c.bad else self._serve(c)

    cdef int _restart(self, Connection c) except -1:
        """The client wants to begin anew on the same connection."""
        self.reset(c)
        c.stalled = False
        c.transport.restart()
        return self._want(c)

    cdef int _serve(self, Connection c) except -1:
        cdef char *data = self.scratch
        cdef size_t have, at = 0
        cdef Py_ssize_t got
        cdef Header head
        cdef bint fresh = True       # nothing read in this turn yet
        cdef bint more = False       # and more is known to be there
        have = buffer_len(&c.inp)
        if have:
            memcpy(data, c.inp.data + c.inp.head, have)
            buffer_consume(&c.inp, have)
        while True:
            # Serve all whole packets at hand.
            c.stalled = False
            while have - at >= HEADER_SIZE:
                memcpy(&head, data + at, HEADER_SIZE)
                if head.len > PAYLOAD_MAX:
                    # The packet boundary is lost: nothing after it can be read.
                    c.transport.fail(FAIL_LENGTH)
                    return self._fail(c)
                if have - at < HEADER_SIZE + head.len:
                    break
                if c.is_blocked(self.max_outstanding):
                    c.stalled = True
                    break
                self.request(c, &head, data + at + HEADER_SIZE)
                c.ops += 1
                self.ops += 1
                if c.closed:
                    return 0
                at += HEADER_SIZE + head.len
            if c.stalled or not fresh:
                break
            if c.is_blocked(self.max_outstanding):
                c.stalled = True
                break
            fresh = False
            if at:
                memmove(data, data + at, have - at)
            have -= at
            at = 0
            got = c.transport.read(data + have, TURN_BYTES if c.socket else TURN_RING_BYTES)
            if got > 0:
                have += got
                # A ring that was not seen empty brings no further kick.
                more = not c.socket and got == TURN_RING_BYTES
                self.touch(c)
                continue
            if got == IO_CLOSED:
                return self._close(c)
            if got == IO_BAD:
                return self._fail(c)
            if got == IO_RESET:
                return self._restart(c)
            break
        if have > at:
            buffer_put(&c.inp, data + at, have - at)
        if more and not c.stalled and not c.resuming:
            c.resuming = True
            self.later.append(c)
        # Where something goes out, flushing will know better what to wait for.
        return 0 if c.dirty else self._want(c)

    cdef int _fail(self, Connection c) except -1:
        """A broken stream: ends a socket, parks a ring."""
        if c.socket:
            return self._close(c)
        self.host.log("warn", "xenstored", f"{c.label.decode()}: broken ring, not served any more")
        c.bad = True
        self.reset(c)
        return self._want(c)

    # -- output ---------------------------------------------------------------

    cdef int reply(self, Connection c, uint32_t type, uint32_t req_id, uint32_t tx_id,
                   const char *p, size_t n) except -1:
        c.out.put(type, req_id, tx_id, p, n)
        if type == XS_ERROR:
            if self.log.active and (self.log.read_ops or n != 7 or p[1] != c"N"
                                    or p[3] != c"E"):
                self.log.line(c.label, tx_id, b"error", p, n)
        return self.touch(c)

    cdef int touch(self, Connection c) except -1:
        if not c.dirty:
            c.dirty = True
            self.dirty.append(c)
        return 0

    cdef int unblock(self, Connection c) except -1:
        """Serves a connection again that was found blocked, if it is not now."""
        if c.stalled and not c.resuming and not c.closed \
                and not c.is_blocked(self.max_outstanding):
            c.resuming = True
            self.resume.append(c)
        return 0

    cdef int _flush_one(self, Connection c) except -1:
        cdef size_t n
        cdef Py_ssize_t put
        while not c.closed and not c.bad:
            n = buffer_len(&c.out.buf)
            if n == 0:
                break
            put = c.transport.write(c.out.buf.data + c.out.buf.head, n)
            if put == IO_CLOSED:
                return self._close(c)
            if put == IO_BAD:
                return self._fail(c)
            if put <= 0:
                break
            c.out.drained(put)
            if c.waiting:
                self.refill(c)
            if <size_t>put < n:
                break
        c.transport.finish()
        if c.stalled:
            self.unblock(c)
        return self._want(c)

    def flush(self):
        """Sends what the turn produced and serves whom that unblocked.

        True where more is left to do at once.  At the end of each turn.
        """
        cdef list dirty, resume
        cdef Connection c
        cdef int rounds = 0
        while self.dirty or self.resume:
            if rounds == TURN_ROUNDS:
                return True
            rounds += 1
            dirty = self.dirty
            if dirty:
                self.dirty = []
                for c in dirty:
                    c.dirty = False
                    if not c.closed:
                        self._flush_one(c)
            resume = self.resume
            if resume:
                self.resume = []
                for c in resume:
                    c.resuming = False
                    self._service(c)
        if self.later:
            self.resume, self.later = self.later, []
        return self.has_work()

    cdef bint has_work(self) noexcept:
        return len(self.dirty) != 0 or len(self.resume) != 0

    cdef int _want(self, Connection c) except -1:
        """What should the loop wait for?"""
        cdef int want = 0
        if not c.closed and not c.bad:
            if not c.stalled:
                want = WANT_IN
            if buffer_len(&c.out.buf):
                want |= WANT_OUT
        c.interest = want
        if want != c.registered and not c.changed:
            c.changed = True
            self.changed.append(c)
        return 0

    def take_changed(self):
        """The connections that closed or whose interest differs from what is
        registered, since the last call."""
        cdef Connection c
        changed = self.changed
        if changed:
            self.changed = []
            for c in changed:
                c.changed = False
        return changed
