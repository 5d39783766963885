# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections, their queues, and the delivery of watch events (floor 2).

How growth is bounded (the answer to XSA-325, 326 and 416), per connection:

- a request is read only where its reply has room (max_outstanding replies);
- max_events events wait in the output, and as many behind each watch;
- what does not fit waits in the overflow of the connection that caused it,
  which is not read until its overflow is empty;
- an event identical to one that waits is dropped, but for "@" paths.

What waits moves on as soon as there is room, in order per watch.
"""

cimport cython
from collections import OrderedDict
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove
from pyxsd._outq cimport path_hash
from pyxsd._path cimport path_parse, path_split
from pyxsd._perms cimport PERM_READ, perms_allow, perms_text
from pyxsd._store cimport node_at, node_child
from pyxsd._watch cimport watch_path
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


cdef int _on_match(void *context, Watch *watch, const char *path, size_t n, bint own) except -1:
    """Sends one matching watch its event where its owner may see it."""
    cdef Firing *firing = <Firing *>context
    cdef Hub hub = <Hub>firing.hub
    cdef Connection to = <Connection>watch.owner
    cdef Connection cause = <Connection>firing.cause
    cdef Perms *found[4]
    cdef Perms **perms = firing.perms
    cdef int i, count
    cdef uint64_t hash
    if to.closed or to.bad:
        return 0
    if own:
        # The watch stands below what was removed: its own path decides.
        if not watch.special and not watch_path(watch, hub.watch_at):
            return 0
        count = 0
        if watch.special:
            perms = firing.perms
            count = firing.count
        else:
            count = _collect(firing.before, hub.watch_at, found, 0)
            perms = found
        hash = path_hash(path, n)
    else:
        if not firing.known:
            firing.count = _collect(firing.before, firing.look, firing.perms, 0)
            firing.count = _collect(firing.after, firing.look, firing.perms, firing.count)
            firing.known = True
        count = firing.count
        hash = firing.hash if watch.strip == 0 else path_hash(path, n)
    if hub.perms_watch_active:
        for i in range(count):
            if perms_allow(perms[i], &to.who, PERM_READ):
                break
        else:
            return _refuse(hub, to, firing.path if not own or watch.special else hub.watch_at,
                           perms, count)
    return hub.deliver(cause, watch, path, n, hash)


cdef int _collect(Node *root, const Path *path, Perms **found, int count) noexcept:
    """The permissions of a path's parent and of its node, as far as there."""
    cdef Node *node
    cdef size_t last
    if root == NULL or path.parts == 0:
        return count
    last = path.parts - 1
    node = node_at(root, path, last)
    if node == NULL:
        return count
    found[count] = node.perms
    node = node_child(node, path.text + path.start[last], path.size[last])
    if node == NULL:
        return count + 1
    found[count + 1] = node.perms
    return count + 2


cdef int _refuse(Hub hub, Connection to, const Path *path, Perms **perms, int count) except -1:
    cdef Buffer text
    cdef int i
    hub.refused += 1
    if not hub.log.active:
        return 0
    text.data = NULL
    text.head = text.tail = text.cap = 0
    try:
        buffer_put(&text, b"EPERM perms=[", 13)
        for i in range(count):
            if i:
                buffer_put(&text, b", ", 2)
            perms_text(perms[i], &text, c" ", False)
        buffer_put(&text, b"] path=", 7)
        buffer_put(&text, path.text, path.len)
        hub.log.line(to.label, 0, b"w notfired", text.data, text.tail)
    finally:
        buffer_free(&text)
    return 0


cdef class Hub:
    """All connections and watches of a server, and its store."""

    def __cinit__(self, *args, **kwargs):
        self.tree = Tree()
        self.trie = WatchTrie()
        self.connections = {}
        self.domains = {}
        self.owner_limits = {}
        self.dirty = []
        self.resume = []
        self.later = []
        self.changed = []
        self.scratch = <char *>malloc(TURN_BYTES + PACKET_MAX)
        self.watch_at = <Path *>malloc(sizeof(Path))
        self.look_at = <Path *>malloc(sizeof(Path))
        if self.scratch == NULL or self.watch_at == NULL or self.look_at == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.scratch)
        free(self.watch_at)
        free(self.look_at)

    def configure(self, config, AccessLog log not None):
        """Takes over the limits of a Config."""
        self.log = log
        self.limits.entries = config.quota_maxentity
        self.limits.value = config.quota_maxsize
        self.limits.active = config.quota_activate
        self.limits.by_owner = NULL
        self.max_watches = config.quota_maxwatch
        self.max_transactions = config.quota_transaction
        self.max_requests = config.quota_maxrequests
        self.path_max = config.quota_path_max
        self.max_outstanding = max(1, min(config.quota_maxoutstanding, 1 << 30))
        self.max_events = max(1, min(config.quota_maxwatchevents, 1 << 30))
        self.perms_active = config.perms_activate
        self.perms_watch_active = config.perms_watch_activate
        self.burst = config.conflict_burst_limit
        self.system = self._new(Transport(), 0, False)
        self.system.label = b"DOM0"

    # -- connections ----------------------------------------------------------

    cdef int request(self, Connection c, const Header *head, const char *payload) except -1:
        raise NotImplementedError

    cdef int forget_connection(self, Connection c) except -1:
        return 0

    cdef int begin_turn(self, double wall, double now) except -1:
        self.log.set_time(wall)
        return 0

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
        self._reset(c)
        self.connections.pop(c.id, None)
        if not c.socket and self.domains.get(c.who.domid) is c:
            del self.domains[c.who.domid]
        c.interest = 0
        if not c.changed:
            c.changed = True
            self.changed.append(c)
        return 0

    cdef int _reset(self, Connection c) except -1:
        """Drops all that the client ever asked for; its rights stay."""
        cdef Connection other
        cdef dict overflow
        self.drop_watches(c)
        self.forget_connection(c)
        buffer_free(&c.inp)
        c.out.clear()
        # What it caused and found no room for is lost with it.
        overflow = c.overflow
        c.overflow = {}
        for id in overflow:
            other = self.connections.get(id)
            if other is not None:
                other.causes.pop(c.id, None)
        return 0

    cdef int drop_watches(self, Connection c) except -1:
        cdef Connection cause
        while c.watches != NULL:
            self.trie.remove(&c.watches, c.watches)
        c.watch_count = 0
        c.waiting.clear()
        if c.causes:
            causes = c.causes
            c.causes = {}
            for id in causes:
                cause = self.connections.get(id, self.system if id == self.system.id else None)
                if cause is not None:
                    cause.overflow.pop(c.id, None)
                    if not cause.overflow:
                        self.unblock(cause)
        return 0

    cdef int remove_watch(self, Connection c, Watch *watch) except -1:
        cdef uint64_t serial = watch.serial
        self.trie.remove(&c.watches, watch)
        c.watch_count -= 1
        if c.waiting:
            self._forget_waiting(c, serial)
        return 0

    cdef int _forget_waiting(self, Connection c, uint64_t serial) except -1:
        cdef Connection cause
        cdef dict events
        c.waiting.pop(serial, None)
        for id in list(c.causes):
            cause = self.connections.get(id, self.system if id == self.system.id else None)
            if cause is None:
                continue
            events = cause.overflow.get(c.id, {})
            for key in [key for key in events if key[0] == serial]:
                del events[key]
            if not events:
                cause.overflow.pop(c.id, None)
                c.causes.pop(id, None)
                if not cause.overflow:
                    self.unblock(cause)
        return 0

    # -- input ----------------------------------------------------------------

    cdef bint wants_loop(self) noexcept:
        """Is there something that time will change?"""
        return False

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
        self._reset(c)
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
        self._reset(c)
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
                self._refill(c)
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
        self.more = False
        while self.dirty or self.resume:
            if rounds == TURN_ROUNDS:
                self.more = True
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
                    if not c.closed and not c.bad:
                        self._serve(c)
        if self.later:
            self.resume, self.later = self.later, []
            self.more = True
        return self.more

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

    # -- watch events ---------------------------------------------------------

    cdef int fire(self, Connection cause, Path *path, Node *before, Node *after,
                  bint below) except -1:
        """Sends the events of a change.

        before and after are the roots to look permissions up in, either may be
        NULL.  below: watches below the path are told too, with their own path.
        """
        cdef Firing firing
        if self.trie.count == 0:
            return 0
        firing.hub = <void *>self
        firing.cause = <void *>cause
        firing.before = before
        firing.after = after
        firing.path = firing.look = path
        firing.hash = path_hash(path.text, path.len)
        firing.known = False
        firing.count = 0
        if path.special:
            # Its permissions are looked up by the text of the event, "/@name",
            # which has more components where the name has a "/" in it.
            firing.look = self.look_at
            firing.known = not path_split(self.look_at, path.text, path.len)
        return self.trie.match(path, below, _on_match, &firing)

    cdef int first_event(self, Connection c, Watch *watch) except -1:
        return self.deliver(c, watch, watch.text, watch.path_len,
                            path_hash(watch.text, watch.path_len))

    cdef int deliver(self, Connection cause, Watch *watch, const char *path, size_t n,
                     uint64_t hash) except -1:
        cdef Connection to = <Connection>watch.owner
        cdef const char *token = watch.text + watch.path_len + 1
        if n + watch.token_len + 2 > PAYLOAD_MAX:
            # It would not fit into a packet (XSA-324).
            self.host.log("warn", "xenstored",
                          f"event of {n + watch.token_len + 2} bytes not sent to "
                          f"{to.label.decode()}: too long")
            return 0
        if to.out.events < self.max_events and not to.waiting:
            if to.out.put_event(watch.serial, not watch.special, hash, path, n,
                                token, watch.token_len):
                self.events += 1
                self._log_event(to, n + watch.token_len + 2)
                self.touch(to)
            else:
                self.merged += 1
            return 0
        if not watch.special and to.out.events and to.out.has_event(
                watch.serial, hash, path, n, watch.token_len):
            self.merged += 1
            return 0
        return self._delay(cause, to, watch, path[:n])

    cdef int _log_event(self, Connection to, size_t n) except -1:
        """Logs the event just queued, whose payload has n bytes."""
        if self.log.active:
            self.log.line(to.label, 0, b"w event", to.out.buf.data + to.out.buf.tail - n, n)
        return 0

    cdef int _delay(self, Connection cause, Connection to, Watch *watch, bytes path) except -1:
        """Lets an event wait behind its watch, else with who caused it."""
        cdef uint64_t k = 0
        cdef bytes token = watch.text[watch.path_len + 1:watch.path_len + 1 + watch.token_len]
        if watch.special:
            self.last_event += 1
            k = self.last_event
        key = (path, k)
        entry = to.waiting.get(watch.serial)
        if entry is None:
            entry = to.waiting[watch.serial] = [token, OrderedDict()]
        if key in entry[1]:
            self.merged += 1
            return 0
        if len(entry[1]) < self.max_events:
            entry[1][key] = None
            return 0
        if cause is None or cause.closed:
            cause = self.system
        if cause.id not in to.causes:
            to.causes[cause.id] = None
            cause.overflow[to.id] = {}
        events = cause.overflow[to.id]
        key = (watch.serial, path, k)
        if key in events:
            self.merged += 1
        else:
            events[key] = token
        return 0

    cdef int _send_waiting(self, Connection c, uint64_t serial, bytes token, tuple key) except -1:
        cdef bytes path = key[0]
        cdef const char *p = path
        if c.out.put_event(serial, key[1] == 0, path_hash(p, len(path)), p, len(path),
                           token, len(token)):
            self.events += 1
            self._log_event(c, len(path) + len(token) + 2)
        return 0

    cdef int _refill(self, Connection c) except -1:
        """Moves what waits into the output, as far as there is room."""
        while True:
            # One event of each watch in turn; order is kept per watch.
            while c.waiting and c.out.events < self.max_events:
                serial, entry = next(iter(c.waiting.items()))
                key, _ = entry[1].popitem(last=False)
                self._send_waiting(c, serial, entry[0], key)
                if entry[1]:
                    c.waiting.move_to_end(serial)
                else:
                    del c.waiting[serial]
            if not c.causes:
                return 0
            if not self._refill_from_causes(c):
                return 0

    cdef int _refill_from_causes(self, Connection c) except -1:
        """Moves events behind c's watches that waited with who caused them;
        how many.  Those who are rid of all may go on."""
        cdef Connection cause
        cdef int moved = 0
        for id in list(c.causes):
            cause = self.connections.get(id, self.system if id == self.system.id else None)
            events = {} if cause is None else cause.overflow.get(c.id, {})
            for key in list(events):
                serial, path, k = key
                entry = c.waiting.get(serial)
                if entry is None:
                    entry = c.waiting[serial] = [events[key], OrderedDict()]
                if len(entry[1]) >= self.max_events:
                    continue
                entry[1][(path, k)] = None
                del events[key]
                moved += 1
            if not events:
                c.causes.pop(id, None)
                if cause is not None:
                    cause.overflow.pop(c.id, None)
                    if not cause.overflow:
                        self.unblock(cause)
        return moved

    def fire_special(self, bytes name not None, domids, Connection cause=None):
        """Fires "@introduceDomain" or "@releaseDomain" for some domains.

        The generic watches are told once, those of depth 1 and those on
        "<name>/<domid>" once per domain.
        """
        cdef bytes each
        self._fire_special(name, name, None, cause)
        for domid in domids:
            each = name + b"/%d" % domid
            self._fire_special(name, each, 1, cause)
            self._fire_special(each, each, None, cause)

    def _fire_special(self, bytes watched, bytes event, depth, Connection cause):
        """Watches on `watched` with that depth (None: without) get `event`."""
        cdef Firing firing
        cdef Path *path
        cdef Special special
        if self.trie.count == 0:
            return
        if cause is None:
            cause = self.domains.get(0, self.system)
        path = <Path *>malloc(sizeof(Path))
        if path == NULL:
            raise MemoryError()
        try:
            path_parse(path, event, len(event), NULL, 0, -1)
            firing.hub = <void *>self
            firing.cause = <void *>cause
            firing.before = NULL
            firing.after = self.tree.root
            firing.path = firing.look = path
            firing.known = True
            firing.count = _collect(firing.after, path, firing.perms, 0)
            special.firing = &firing
            special.event = event
            special.n = len(event)
            special.deep = depth is not None
            self.trie.match_special(watched, len(watched), _on_special, &special)
        finally:
            free(path)

    # -- what can be seen from outside ----------------------------------------

    @property
    def watch_total(self):
        """Watches of all connections."""
        return self.trie.count


cdef struct Special:
    Firing *firing
    const char *event
    size_t n
    bint deep                # only watches of depth 1, else only those without


cdef int _on_special(void *context, Watch *watch, const char *path, size_t n, bint own) except -1:
    cdef Special *special = <Special *>context
    if special.deep != (watch.depth == 1):
        return 0
    return _on_match(special.firing, watch, special.event, special.n, True)
