# SPDX-License-Identifier: LGPL-2.1-or-later
"""The server.

It pulls packets out of connections (_conn) and gives each to the dispatcher; whose turn it is,
says the agenda.  The loop calls, in this order, every turn: begin_turn(), on_socket() for each
socket that is ready, work().  Python calls begin(), service() and flush() for the same.

Serving is never reached from within serving.  What a request calls (handlers, the host) has
State and the parts in it, and none of those can serve; whoever holds the Server itself and is
called by a request uses serve_later().  service() refuses to be called inside of a request.

A failure of our own while one connection is served or flushed ends that connection and no
other: see _give_up.
"""

import traceback

from libc.string cimport memcpy

from pyxsd._agenda cimport OTHERS, SINGLE
from pyxsd._conn cimport is_blocked, next_packet
from pyxsd._dispatch cimport dispatch
from pyxsd._handlers cimport request_table
from pyxsd._history cimport History
from pyxsd._journal cimport (
    J_ANSWER, J_CONNECT, J_HOLD, J_HOLD_STARTS, J_READ_ON, J_READY, J_RELEASE, J_SERVE, J_SETTLE,
    J_TICK, J_TURN, J_WORK, LIVE, RECORD_SIZE, RECORDING, REFUSES, REPLAYING, SERVES, STOPS,
    Journal, Record, journal_clock, journal_note, journal_refuses, journal_served, journal_time,
)
from pyxsd._limits cimport Q_OUTSTANDING, UNLIMITED
from pyxsd._request cimport Request, prepare, run
from pyxsd._seam cimport RING, Seam, without_seam
from pyxsd._wire cimport (
    FAIL_LENGTH, HEADER_SIZE, IO_BAD, IO_CLOSED, IO_RESET, PACKET_MAX, PAYLOAD_MAX, ST_OK,
    XS_DIRECTORY_PART, XS_ERROR, XS_RESET_WATCHES, XS_RM, XS_TRANSACTION_END,
    XS_TRANSACTION_START, XS_WATCH, Header,
    Transport, buffer_free, buffer_len, buffer_put, buffer_reserve,
)
from pyxsd.events.events cimport Events
from pyxsd.store.forget cimport forget_domains
from pyxsd.store.grave cimport Grave, Hold
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.tree cimport Tree

from pyxsd._limits import QUOTA_MAX, QUOTAS

#: The quotas that one connection can have of its own.
OF_ONE = frozenset(quota.name for quota in QUOTAS if quota.scope != "server")

cdef enum:
    SOCKET_BYTES = 16384     # read from a socket at once, at most
    RING_BYTES = 1024        # from a ring: what it holds, and not what is added meanwhile
    LOG_BYTES = 65536        # of the access log that are collected while turns are run again
    CLEARED = 512            # events of what is gone that are freed in one turn
    REFUSED_BYTES = 64       # of a request that ended a process, that are told in the log
    REFUSED_MOST = 3         # of them from one ring: it is not served any more
    POINTS = 24              # of requests (see _points) between two looks at the clock
    ANSWER_BYTES = 128       # of an answer, that cost a point more; so does each watch of a change

# What serving one connection came to.
cdef enum:
    DONE = 0
    AGAIN = 1                # the time was over before the work was
    ENDED = 2                # the client will send nothing more
    BROKEN = 3               # the client broke the rules of its stream
    ANEW = 4                 # the client wants to begin anew


cdef inline int _points(const Header *head) noexcept:
    """About how dear a request may be, seen from outside.  Whose work depends on what the client
    did before, such as the end of a transaction that is replayed, counts as all POINTS."""
    if head.type in (XS_TRANSACTION_END, XS_RM, XS_RESET_WATCHES, XS_DIRECTORY_PART):
        return POINTS
    return 1 + head.len // 32 + (4 if head.type >= 6 else 0)


cdef inline uint64_t _of(Connection c) noexcept:
    """The subject of the journal's records about a connection's bytes."""
    return c.id if c.is_socket else RING | c.who.domid


cdef class Server:
    """A store and all its connections.

    config is a Config (or has its attributes).  host is what handlers ask (see _handlers), and

        log(level, facility, text)     a line for the daemon log
        complain(kind, text)           a warning that clients can cause as often as they like
    """

    def __cinit__(self, config, host, AccessLog log=None, bytes executable=b"/usr/sbin/pyxsd"):
        cdef State s = State()
        self.host = host
        self.log = log if log is not None else AccessLog()
        self.limits = Limits(config)
        self.agenda = Agenda(self.limits)
        self.perms_active = config.perms_activate
        self.s = s
        s.log = self.log
        s.host = host
        s.limits = self.limits
        s.agenda = self.agenda
        s.allow_debug = config.allow_debug
        s.history = History(self.agenda, config)
        self.kernel = self._new(Transport(), 0)
        s.events = Events(self.agenda, self.limits, self.log, host, self.kernel,
                          s.tree.grave, config.perms_watch_activate)
        s.tree.grave.journal = self.agenda.journal
        s.transactions = Transactions(s, config)
        (<Transactions>s.transactions).rows = request_table()
        for name, value in (([b"@introduceDomain"], b""), ([b"@releaseDomain"], b""),
                            ([b"local"], b""), ([b"tool"], b""),
                            ([b"tool", b"xenstored"], executable)):
            s.tree.load(name, b"n0\0", value)

    def __dealloc__(self):
        buffer_free(&self.spare)

    def close(self):
        """Ends all connections, so that nothing of the server stays behind."""
        cdef Connection c
        for c in list(self.s.connections.values()):
            self._close(c)
        self.s.events.drop_jobs(self.kernel)
        self._reset(self.kernel)
        self.agenda.clear()
        self.held = None
        self.s.history.clear()
        self.s.transactions = None
        while self._has_remains():
            self._clear_away()

    # -- connections ----------------------------------------------------------

    def _new(self, Transport transport, domid):
        cdef Connection c
        self.last_id += 1
        c = Connection(self.last_id, transport, domid)
        c.who.unchecked = not self.perms_active
        if c.is_guest:
            c.credit = self.s.history.burst
        return c

    def connect(self, Transport transport not None, domid=None):
        """A new connection: of a socket where domid is None, else the ring of that domain.
        The loop waits for input on it (registered is WANT_IN)."""
        cdef Connection c
        if domid is not None and domid in self.s.domains:
            raise ValueError(f"domain {domid} is connected already")
        c = self._new(transport, domid)
        if domid is None:
            self.last_anonymous += 1
            c.label = b"DOM0 (ANON CONN #%d)" % self.last_anonymous
        else:
            self.s.domains[domid] = c
        self.s.connections[c.id] = c
        if domid is None:
            journal_note(self.agenda.journal, J_CONNECT, transport.descriptor(), c.id)
        if self.agenda.journal.mode != LIVE:
            c.transport = Seam(transport, self.agenda.journal, _of(c))
            (<Seam>c.transport).fresh = True
        self.log.line(c.label, 0, b"newconn", NULL, 0)
        return c

    def follow_journal(self):
        """Lets the bytes of all connections go through the journal, or past it, as its mode says.
        To be called when that has changed."""
        cdef Connection c
        cdef Journal journal = self.agenda.journal
        if journal.mode == LIVE:
            self.held = None
        for c in self.s.connections.values():
            if journal.mode == LIVE:
                c.transport = without_seam(c.transport)
                c.transport.doubt = NULL
            elif not isinstance(c.transport, Seam):
                c.transport = Seam(c.transport, journal, _of(c))

    def disconnect(self, Connection c not None):
        """Ends a connection with its watches and transactions."""
        self._close(c)

    cdef int _reset(self, Connection c) except -1:
        """Drops all that the client ever asked for; its rights stay.  The events of the changes
        that it made are still delivered."""
        self.s.events.drop_watches(c)
        self.s.events.drop_debts(c)
        (<Transactions>self.s.transactions).drop(c)
        c.listings = None
        c.awaits = False
        c.out.clear()
        if c is not self.serving:
            # Else the packet at hand is in there; who serves it drops it.
            buffer_free(&c.inp)
        return 0

    cdef int _close(self, Connection c) except -1:
        if c.closed:
            return 0
        c.closed = True
        self.log.line(c.label, 0, b"endconn", NULL, 0)
        self.s.events.leave_jobs(c)
        self._reset(c)
        self.s.set_target(c, -1)
        self.s.connections.pop(c.id, None)
        if not c.is_socket and self.s.domains.get(c.who.domid) is c:
            del self.s.domains[c.who.domid]
        c.interest = 0
        if not c.changed:
            c.changed = True
            self.agenda.changed.append(c)
        return 0

    cdef int _restart(self, Connection c) except -1:
        """The domain wants to begin anew on the same ring."""
        self._reset(c)
        c.bad = c.stalled = False
        c.transport.restart()
        return self.agenda.want(c)

    cdef int _break(self, Connection c) except -1:
        """A broken stream: ends a socket, parks a ring."""
        if c.is_socket:
            return self._close(c)
        self.host.complain("broken ring",
                           f"{c.label.decode()}: broken ring, not served any more")
        c.bad = True
        self._reset(c)
        return self.agenda.want(c)

    cdef int _give_up(self, Connection c, object error) except -1:
        """An error of our own while a connection was served or flushed (the exception is at
        hand): whatever is half done for it, the others must be served."""
        self.agenda.journal.met(error)
        self.failures += 1
        self.host.complain("failure", f"{c.label.decode()}: given up:\n{traceback.format_exc()}")
        self.serving = None
        if not c.closed:
            self.s.events.drop_jobs(c)
            self._break(c)
        return 0

    @property
    def journal(self):
        """All that comes from outside, recorded, replayed or neither."""
        return self.agenda.journal

    # -- input ----------------------------------------------------------------

    cdef int begin_turn(self, double wall, double now) except -1:
        cdef Grave grave = self.s.tree.grave
        if self.agenda.journal.mode == RECORDING:
            if self.held is not None and grave.holds == 0 and not grave.has_work():
                journal_note(self.agenda.journal, J_RELEASE, 0, 0)
                self.release_again()
            self.agenda.journal.turn(wall, now)
        self.log.set_time(wall)
        self.s.history.now = now
        return 0

    def begin(self, double wall, double now):
        """A turn begins: the time for the log (seconds since 1970) and the monotonic time of
        everything else (seconds)."""
        self.begin_turn(wall, now)

    cdef int on_socket(self, Connection c, bint hung_up) except -1:
        if self.agenda.journal.mode == RECORDING and not c.closed:
            journal_note(self.agenda.journal, J_READY, hung_up, c.id)
        if hung_up:
            c.hung_up = True
            self._nobody_reads(c)
            if self._is_hopeless(c):
                return self._close(c)
        if buffer_len(&c.out.buf):
            self.agenda.touch(c)
        if c.ended:
            self._end_if_done(c)
        if not c.stalled and not c.ended:
            self.agenda.ready(c)
        else:
            self.agenda.want(c)
        return 0

    def ready(self, Connection c not None, bint hung_up):
        """A socket can be read or written, or was hung up."""
        self.on_socket(c, hung_up)

    def on_ports(self, EventChannels channels not None, dict by_port not None):
        """Takes the pending ports; the rings of those that have a connection (port:
        Connection) are served in this turn; the others as a list, or None.  All of them stay
        masked until channels.release()."""
        cdef int i
        cdef object c
        cdef list others = None
        for i in range(channels.take(self.agenda.journal)):
            c = by_port.get(channels.ports[i])
            if c is not None:
                (<Connection>c).transport.expect()
                self.agenda.ready(<Connection>c)
            elif others is None:
                others = [channels.ports[i]]
            else:
                others.append(channels.ports[i])
        return others

    def serve_later(self, Connection c not None):
        """Serves what a client has sent once the request at hand is done, in its turn."""
        self.agenda.ready(c)

    def answer(self, Connection c not None, bytes payload not None):
        """The answer to the CONTROL request for which the host answered None; the connection is
        not served until it is there.  Nothing where the client has gone or begun anew."""
        if not c.awaits:
            return
        self.agenda.journal.note(J_ANSWER, c.id, 0, payload)
        c.awaits = False
        if not c.deaf:
            if len(payload) > PAYLOAD_MAX:
                c.out.put(XS_ERROR, c.asked.req_id, c.asked.tx_id, b"E2BIG", 6)
            else:
                c.out.put(c.asked.type, c.asked.req_id, c.asked.tx_id, payload, len(payload))
            self.agenda.touch(c)
        self.agenda.unblock(c)

    def service(self, Connection c not None):
        """Serves what a client has sent, for at most one slice of time; its output goes out
        with flush().  RuntimeError inside of a request."""
        if self.serving is not None:
            raise RuntimeError("serving inside of serving")
        if not c.closed:
            journal_note(self.agenda.journal, J_SERVE, self.drains, c.id)
        if self._step(c, journal_clock(self.agenda.journal) + self.agenda.slice_ns):
            self.agenda.left(c)

    def drain(self, Connection c not None):
        """Serves what was read from a client before, for at most one slice of time, and reads
        nothing; see service()."""
        self.drains = True
        try:
            self.service(c)
        finally:
            self.drains = False

    def hold_starts(self, bint hold):
        """Holds back TRANSACTION_START of clients that have no transaction open, with what they ask
        behind it, so that a moment without any comes; or holds back no more.  An image does not say
        it: none is made meanwhile."""
        cdef Connection c
        if hold != self.holds_starts:
            journal_note(self.agenda.journal, J_HOLD_STARTS, hold, 0)
            self.holds_starts = hold
            for c in self.s.connections.values():
                self.agenda.unblock(c)

    @property
    def is_holding(self):
        """Does hold_starts() hold back?"""
        return self.holds_starts

    def is_held(self, Connection c not None):
        """Is the next request of the client one that is held back?"""
        cdef Header head
        return self.holds_starts and next_packet(c, &head) == 1 and self._is_held(c, &head)

    def read_on(self, Connection c not None, Py_ssize_t most):
        """Reads what a client has sent, until `most` bytes of it wait, and serves nothing.  That it
        has ended or broken its stream, whoever reads next finds again."""
        cdef Py_ssize_t room = most - <Py_ssize_t>buffer_len(&c.inp), got
        journal_note(self.agenda.journal, J_READ_ON, most, c.id)
        if room > 0:
            got = c.transport.read(buffer_reserve(&c.inp, room), room)
            c.inp.tail += max(got, 0)
            c.transport.finish()

    cdef bint _is_held(self, Connection c, const Header *head) noexcept:
        return head.type == XS_TRANSACTION_START and len(c.transactions) == 0

    cdef int _step(self, Connection c, uint64_t until) except -1:
        """Serves a connection until that time, whatever happens; AGAIN or 0."""
        cdef Grave grave = self.s.tree.grave
        cdef int status = DONE
        if c.closed:
            return DONE
        grave.serving()
        try:
            status = self._serve(c, until)
        except Exception as error:
            self._give_up(c, error)
        grave.served()
        return status

    cdef int _serve(self, Connection c, uint64_t until) except -1:
        cdef int status
        cdef Transactions transactions
        if c.pending:
            if self.agenda.serving == SINGLE:
                # It goes over to the others, with events that may have got room.
                return AGAIN
            self.s.events.refill(c)
        if buffer_len(&c.out.buf):
            self.agenda.touch(c)
        if c.jobs is not None:
            transactions = self.s.transactions
            self.s.events.resume(c, until)
            if c.jobs is None:
                transactions.waits_no_more(c)
            else:
                transactions.must_wait(c)
                if not self.s.events.must_wait(c):
                    return AGAIN
                if c.is_socket or not c.transport.asks_restart():
                    return DONE
                # Those of its former life need not wait for who does not read.
                self.s.events.leave_jobs(c)
                transactions.waits_no_more(c)
            if c is self.kernel:
                return 0
        if not c.is_socket and c.transport.asks_restart():
            # A fresh start is granted to whoever is not read from, too.
            if self.agenda.serving == SINGLE:
                # It drops as much as the client has made the server remember.
                return AGAIN
            return self._restart(c)
        if c.bad:
            return 0
        if c.inp.data == NULL:
            c.inp = self.spare
            self.spare.data = NULL
            self.spare.head = self.spare.tail = self.spare.cap = 0
        c.stalled = False
        self.serving = c
        status = self._packets(c, until)
        self.serving = None
        self._input_is_served(c)
        if c.closed:
            return 0
        if c.jobs is not None:
            (<Transactions>self.s.transactions).must_wait(c)
        if status == AGAIN:
            return AGAIN
        if status == ENDED:
            c.ended = True
        elif status == BROKEN:
            return self._break(c)
        elif status == ANEW:
            return self._restart(c)
        if self._is_hopeless(c):
            return self._close(c)
        if c.ended:
            self._end_if_done(c)
        # Where something goes out, flushing will know better what to wait for.
        if not c.to_flush and not c.closed:
            self.agenda.want(c)
        return 0

    cdef int _packets(self, Connection c, uint64_t until) except -1:
        """Serves whole packets, reading once; DONE, AGAIN, ..."""
        cdef Header head
        cdef int64_t outstanding = self.limits.most[Q_OUTSTANDING]
        cdef int points = 0, cost, whole, verdict
        cdef bint among_single = self.agenda.serving == SINGLE
        cdef bint fresh = not self.drains  # nothing read in this turn yet
        cdef bint more = False       # and more is known to be there
        cdef Journal journal = self.agenda.journal
        cdef State s = self.s
        cdef Py_ssize_t got
        while True:
            while True:
                whole = next_packet(c, &head)
                if whole == 0:
                    break
                if whole < 0:
                    # The packet boundary is lost: nothing after it can be read.
                    c.transport.fail(FAIL_LENGTH)
                    return BROKEN
                if is_blocked(c, outstanding) or (self.holds_starts and self._is_held(c, &head)):
                    c.stalled = True
                    return DONE
                cost = _points(&head)
                if among_single and cost >= POINTS:
                    # In its turn among the others: those who ask one thing at a time come in the
                    # order in which they came, so none of them may take long.
                    return AGAIN
                verdict = SERVES
                if journal.numbers:
                    verdict = journal_refuses(journal, self.ops + 1)
                if verdict == STOPS:
                    if journal.stopped is None:
                        journal.stopped = self._told_of(c, &head)
                    return AGAIN
                if verdict == REFUSES:
                    self._refuse(c, &head)
                else:
                    dispatch(s, c, &head, c.inp.data + c.inp.head + HEADER_SIZE)
                c.ops += 1
                self.ops += 1
                if journal.numbers:
                    journal_served(journal, self.ops)
                if c.bad:
                    return BROKEN
                if c.closed:
                    return DONE
                c.inp.head += HEADER_SIZE + head.len
                points += cost + <int>(s.answer.tail // ANSWER_BYTES)
                points += <int>(s.events.most - s.events.at_once)
                if points >= POINTS:
                    points = 0
                    if journal_clock(journal) >= until:
                        return AGAIN
            if not fresh:
                return AGAIN if more else DONE
            if is_blocked(c, outstanding):
                c.stalled = True
                return DONE
            if c.ended:
                return DONE
            fresh = False
            if c.inp.head == c.inp.tail:
                c.inp.head = c.inp.tail = 0
            got = SOCKET_BYTES if c.is_socket else RING_BYTES
            got = c.transport.read(buffer_reserve(&c.inp, got), got)
            if got <= 0:
                return (ENDED if got == IO_CLOSED else BROKEN if got == IO_BAD
                        else ANEW if got == IO_RESET else DONE)
            c.inp.tail += got
            # A ring that was not seen empty brings no further kick.
            more = got == (SOCKET_BYTES if c.is_socket else RING_BYTES)
            self.agenda.touch(c)

    cdef _told_of(self, Connection c, const Header *head):
        """The next request in words, with its first bytes."""
        cdef const char *payload = <const char *>c.inp.data + c.inp.head + HEADER_SIZE
        shown = payload[:min(head.len, <uint32_t>REFUSED_BYTES)].hex()
        return f"{c.label.decode()}: request {head.type} with {head.len} bytes, {shown}"

    cdef int _refuse(self, Connection c, const Header *head) except -1:
        """A process has died of this request: nobody runs it again."""
        c.refused += 1
        self.host.complain(
            "refused request",
            f"{self._told_of(c, head)}, has ended a process of this daemon; it is answered EIO")
        if not c.deaf:
            c.out.put(XS_ERROR, head.req_id, head.tx_id, b"EIO", 4)
            self.agenda.touch(c)
        if c.refused >= REFUSED_MOST and not c.is_socket:
            c.bad = True
        return 0

    cdef int _input_is_served(self, Connection c) except -1:
        """Takes the buffer back, but for what is left in it."""
        cdef Buffer left
        cdef size_t n = buffer_len(&c.inp)
        if c.closed or c.bad:
            n = 0
        if n >= PACKET_MAX or (n and c.inp.cap <= PACKET_MAX):
            # It stays with the connection: there is much in it, or it is small.
            return 0
        left.data = NULL
        left.head = left.tail = left.cap = 0
        if n:
            buffer_put(&left, c.inp.data + c.inp.head, n)
        if self.spare.data == NULL:
            self.spare = c.inp
            self.spare.head = self.spare.tail = 0
        else:
            buffer_free(&c.inp)
        c.inp = left
        return 0

    # -- output ---------------------------------------------------------------

    cdef int _nobody_reads(self, Connection c) except -1:
        """The client takes nothing any more.  What it sent before is still served."""
        if not c.deaf:
            c.deaf = True
            self.s.events.drop_watches(c)
            c.out.clear()
            self.agenda.unblock(c)
        return 0

    cdef bint _is_hopeless(self, Connection c) noexcept:
        """Has the client gone while others must read before it can be served?"""
        return c.hung_up and c.stalled and (c.overflowing != 0 or c.credit <= 0.0)

    cdef int _end_if_done(self, Connection c) except -1:
        """A client that will send nothing more, and has got all that it is owed, goes."""
        cdef Header head
        if c.stalled or c.is_ready or buffer_len(&c.out.buf) or next_packet(c, &head) == 1:
            return 0
        return self._close(c)

    cdef int _send(self, Connection c) except -1:
        """Sends what can be sent, whatever happens."""
        if not c.closed:
            try:
                self._flush(c)
            except Exception as error:
                self._give_up(c, error)
        return 0

    cdef int _flush(self, Connection c) except -1:
        cdef size_t n = buffer_len(&c.out.buf)
        cdef Py_ssize_t put
        if n and not c.bad and not c.deaf:
            put = c.transport.write(c.out.buf.data + c.out.buf.head, n)
            if put == IO_CLOSED:
                if not c.is_socket:
                    return self._close(c)
                self._nobody_reads(c)
            elif put == IO_BAD:
                return self._break(c)
            elif put > 0:
                c.out.drained(put)
                if c.pending:
                    # They go into the output in its turn among the others: that takes a hundred
                    # times as long as sending, and who comes behind it here waits for that.
                    self.agenda.left(c)
        c.transport.finish()
        if c.stalled:
            self.agenda.unblock(c)
        if c.ended:
            self._end_if_done(c)
        return self.agenda.want(c)

    cdef int _flush_all(self) except -1:
        """Sends what waits to be sent, for a turn's time; whoever is left comes first in the next
        turn."""
        cdef Agenda agenda = self.agenda
        cdef Connection c
        # What is put there meanwhile is for the next turn.
        cdef size_t done = 0, count = agenda.flush_count
        cdef uint64_t until = journal_clock(agenda.journal) + agenda.turn_ns if count > 1 else 0
        while done < count:
            c = <Connection>agenda.flushing[done]
            done += 1
            c.to_flush = False
            self._send(c)
            if done < count and done % 4 == 0 and journal_clock(agenda.journal) >= until:
                break
        if done:
            agenda.flushed(done)
        return 0

    cdef int work(self, uint64_t now) except -1:
        cdef Agenda agenda = self.agenda
        cdef Journal journal = agenda.journal
        cdef Connection c
        cdef uint64_t begin, end, hold, ops
        cdef bint again, held = True
        journal_note(journal, J_WORK, 0, now)
        if agenda.count:
            if now == 0:
                now = journal_clock(journal)
            end = now + agenda.turn_ns
            hold = now + min(agenda.slice_ns, agenda.turn_ns)
            while True:
                c = agenda.next()
                begin, ops = now, c.ops
                again = self._step(c, begin + agenda.slice())
                now = journal_clock(journal)
                agenda.served(c, now - begin, c.ops - ops)
                if now >= hold and c.to_flush:
                    agenda.take_back(c)
                    self._send(c)
                    now = journal_clock(journal)
                agenda.charge(c, now - begin)
                if again:
                    agenda.left(c)
                if agenda.count == 0 or now >= end:
                    break
                if held and now >= hold:
                    # Who has been served does not wait for those behind the first slice.
                    held = False
                    self._flush_all()
                    now = journal_clock(journal)
            agenda.serving = OTHERS
        if self._has_remains():
            self._clear_away()
        return self._flush_all()

    cdef bint _has_remains(self) noexcept:
        return self.s.tree.grave.has_work() or self.s.events.has_remains()

    cdef int _clear_away(self) except -1:
        """Frees some of what is left of old trees, and of watches and connections that are gone."""
        self.s.tree.grave.dig()
        return self.s.events.clear_away(CLEARED)

    def settle(self):
        """An image is about to be made of a server that goes on, between two turns."""
        journal_note(self.agenda.journal, J_SETTLE, 0, 0)
        self.agenda.drop_closed()

    def hold(self):
        """Somebody begins to write down, in slices, trees as they are now: until nobody refers to
        what is returned.  Between two turns.

        What he holds is not changed in place but copied, which counts.  In a replay nobody holds
        it; and in a server made of an image nothing is held by what is still to be freed.  So while
        all is recorded the server holds the trees itself, from a record on to another one, which
        stands where nobody else does any more; and so does the replay."""
        if self.agenda.journal.mode == RECORDING:
            journal_note(self.agenda.journal, J_HOLD, 0, 0)
            self.hold_again()
        return Hold(self.s.tree.grave)

    def hold_again(self):
        """As a journal says: all trees that can change are held from now on."""
        cdef list held = [self.s.tree.snapshot()]
        cdef Connection c
        cdef Transaction txn
        for c in self.s.connections.values():
            for txn in c.transactions.values():
                held.append(txn.tree.snapshot())
        self.held = held

    def release_again(self):
        """As a journal says: and no longer."""
        self.s.tree.grave.begin_anew()
        self.held = None

    def work_again(self, uint64_t now):
        """What work() was called with, as a journal says."""
        self.work(now)

    def run_again(self):
        """Turns of a journal in which nothing but sockets was served, as many as there are; the
        records that come next are for whoever calls.  So are those of a turn that begins while
        connections have changed or there is much in the access log."""
        cdef Journal journal = self.agenda.journal
        cdef const Record *record
        cdef double wall, now
        while journal.mode == REPLAYING and journal.at < journal.end:
            record = <const Record *>(journal.data + journal.at)
            if record.kind == J_WORK:
                journal.next(J_WORK, record.subject)
                self.work(record.subject)
            elif record.kind == J_READY:
                c = self.s.connections.get(record.subject)
                if c is None:
                    return
                journal.next(J_READY, record.subject)
                self.on_socket(<Connection>c, record.result != 0)
            elif (record.kind == J_TURN and record.result == sizeof(wall)
                    and not self.agenda.changed and buffer_len(&self.log.buf) < LOG_BYTES):
                journal.next(J_TURN, record.subject)
                memcpy(&wall, <const char *>record + RECORD_SIZE, sizeof(wall))
                memcpy(&now, &record.subject, sizeof(now))
                self.begin_turn(wall, now)
            else:
                return

    def flush(self):
        """Serves who waits for it, for a turn's time, and sends what the turn produced.  True
        where more is left to do at once.  At the end of each turn."""
        self.work(0)
        return self.has_work()

    def send_all(self):
        """Sends what can be sent, however long that takes: at the end."""
        cdef Connection c
        cdef Events events = self.s.events
        cdef uint64_t before
        while True:
            while self.agenda.flush_count:
                self._flush_all()
            before = events.queued + events.merged
            for c in list(self.s.connections.values()):
                if c.pending:
                    events.refill(c)
                    self.agenda.touch(c)
            if events.queued + events.merged == before:
                break

    cdef bint has_work(self) noexcept:
        return self.agenda.has_work() or self._has_remains()

    def take_changed(self):
        """The connections that closed or whose interest differs from what is registered,
        since the last call."""
        cdef Connection c
        changed = self.agenda.changed
        if changed:
            self.agenda.changed = []
            for c in changed:
                c.changed = False
        return changed

    # -- time -----------------------------------------------------------------

    cdef bint wants_tick(self) noexcept:
        return self.s.history.wants_tick()

    @property
    def wants_time(self):
        """Is there something that time will change?"""
        return self.wants_tick()

    def tick(self, double now):
        """Does what is due by now (monotonic seconds); when it wants to be called again, or
        None."""
        journal_note(self.agenda.journal, J_TICK, 0, journal_time(now))
        return self.s.history.tick(now)

    # -- for the Python side --------------------------------------------------

    @property
    def tree(self):
        """The store."""
        return self.s.tree

    @property
    def connections(self):
        """{id: Connection} of all that are open."""
        return self.s.connections

    @property
    def domains(self):
        """{domid: Connection} of those that are rings."""
        return self.s.domains

    def set_target(self, Connection c not None, int64_t target):
        """The connection acts for that domain too (-1: for no other)."""
        self.s.set_target(c, target)

    def fire_special(self, bytes name not None, domids, Connection cause=None):
        """Tells watchers of b"@introduceDomain" or b"@releaseDomain" of some domains."""
        if cause is None:
            cause = self.s.domains.get(0)
        self.s.events.begin()
        self.s.events.fire_special(name, domids, cause, self.s.tree.root)

    def forget_domain(self, int64_t domid):
        """A domain is gone: its nodes, its entries in permissions, its own quotas, and the
        rights that SET_TARGET gave others over it.

        Every node counts as touched, so open transactions are replayed.
        """
        self.forget_domains([domid])

    def forget_domains(self, domids):
        """The same of several domains, in one walk of the tree."""
        forget_domains(self.s.tree, domids)
        self.s.history.commits += 1
        self.s.epoch += 1
        for domid in domids:
            self.limits.set_owner(domid, -1)
            for c in list(self.s.targets.get(domid, {}).values()):
                self.s.set_target(c, -1)

    def restore_watch(self, Connection c not None, bytes path not None, bytes token not None,
                      bytes depth):
        """Puts a watch of a state file back, without a first event."""
        cdef bytes payload = path + b"\0" + token + b"\0"
        cdef Request r
        if depth is not None:
            payload += depth + b"\0"
        prepare(&r, c, self.s.tree, self.s.path, &self.s.answer)
        r.type = XS_WATCH
        r.row = &request_table()[XS_WATCH]
        r.tx_id = 0
        r.payload.p = payload
        r.payload.n = len(payload)
        if run(self.s, &r) != ST_OK:
            self.host.log("warn", "xenstored",
                          f"{c.label.decode()}: watch not restored: {path!r}")

    def restore_stream(self, Connection c not None, bytes inp not None, bytes out not None,
                       size_t torn=0):
        """Replaces what a connection has read and not served, and what it has still to send: the
        last `torn` bytes of a packet that was sent in part, then whole packets.  ValueError,
        with nothing changed, where it is something else."""
        c.out.restore(out, len(out), torn)
        buffer_free(&c.inp)
        buffer_put(&c.inp, <const char *>inp, len(inp))
        self.agenda.touch(c)
        self.agenda.ready(c)

    def drop_stream(self, Connection c not None):
        """Forgets what was under way with a client whose stream went on without this server:
        bytes in both directions, transactions, events that wait.  Its watches stay, and so do its
        changes that are still to be told of."""
        self.s.events.drop_waiting(c)
        (<Transactions>self.s.transactions).drop(c)
        c.listings = None
        c.awaits = c.bad = c.stalled = False
        c.out.clear()
        buffer_free(&c.inp)
        self.agenda.want(c)

    def set_owner_quota(self, int64_t owner, value):
        """Gives a domid a limit of nodes of its own, 0 for none; ValueError."""
        self.limits.set_owner(owner, value)

    def set_tree(self, Tree tree not None):
        """Takes over a tree that was read from a state file."""
        self.s.tree.adopt(tree)
        self.s.epoch += 1

    def quota(self, str name not None, Connection c=None):
        """A quota by its name in QUOTAS, of all or of one connection; 0 is no limit.
        KeyError where there is none of that name, or not for one connection."""
        cdef int64_t own
        if c is None:
            return self.limits.get(name)
        if name not in OF_ONE:
            raise KeyError(name)
        if name == "nodes":
            return self.limits.of_owner(c.who.domid)
        own = c.most_watches if name == "watches" else c.most_transactions
        return self.limits.get(name) if own < 0 else 0 if own == UNLIMITED else own

    def set_quota(self, str name not None, value, Connection c=None):
        """Sets a quota of all, or of one connection; see quota().  ValueError for a value
        out of range."""
        if c is None:
            self.limits.set(name, value)
            return
        if name not in OF_ONE:
            raise KeyError(name)
        if not 0 <= value <= QUOTA_MAX:
            raise ValueError(f"quota {name}: {value}")
        if name == "nodes":
            self.limits.set_owner(c.who.domid, value)
        elif name == "watches":
            c.most_watches = value or UNLIMITED
        else:
            c.most_transactions = value or UNLIMITED

    @property
    def epoch(self):
        """Counts changes that touched every node."""
        return self.s.epoch

    @property
    def writes(self):
        """Changes of the store since the start."""
        return self.s.history.commits

    @property
    def watch_total(self):
        """Watches of all connections."""
        return self.s.events.trie.count

    @property
    def events(self):
        """Events queued since the start."""
        return self.s.events.queued

    @property
    def merged(self):
        """Events that were identical to a queued one, since the start."""
        return self.s.events.merged

    @property
    def refused(self):
        """Events that were not sent for want of permission, since the start."""
        return self.s.events.refused

    @property
    def open_transactions(self):
        """Of all connections."""
        return (<Transactions>self.s.transactions).open

    @property
    def transactions_done(self):
        """Commits with writes since the start."""
        return (<Transactions>self.s.transactions).done

    @property
    def transactions_merged(self):
        """Commits by merging since the start."""
        return (<Transactions>self.s.transactions).merged

    @property
    def transactions_failed(self):
        """Commits that failed (EAGAIN) since the start."""
        return (<Transactions>self.s.transactions).failed

    @property
    def transactions_no_culprit(self):
        """Those of them for which nobody was to blame."""
        return (<Transactions>self.s.transactions).no_culprit
