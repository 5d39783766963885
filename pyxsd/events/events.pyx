# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches, and the delivery of their events.

A change fires: the trie names the watches that match, each watcher's rights are checked,
and the event goes into the watcher's output.  Where that has no room the event waits.  An
event is in one of three places:

  output    quota "watch-events" of them per connection (1,024), and for a guest not more
            than EVENT_BYTES; sent as soon as the client reads
  waiting   behind its watch, as many for each watch; all that waits for one guest takes
            not more than WAITING_BYTES
  overflow  behind that, and on account of the connection that caused it

A connection with events on its account in somebody's overflow is not served.  So one that
never reads holds up those who cause events for it, but only them, and what it makes the
daemon remember is bounded: by its own quota for the first two places, by one request of each
causing connection for the third.  (With _conn the answer to XSA-325, 326 and 416.)

When the client reads, the output takes from the waiting events, one of each watch in turn,
and the place that becomes free behind the watch is taken from its overflow.  The order is kept
for each watch.  Each step moves as many events as there is new room and looks at no others.

An event that is identical to one which is still there is dropped, but for "@" paths, whose
events tell of different domains.
"""

cimport cython
from collections import deque

from libc.stdlib cimport free, malloc
from pyxsd._limits cimport EVENT_BYTES, Q_EVENTS, WAITING_BYTES
from pyxsd._outq cimport path_hash
from pyxsd._wire cimport PAYLOAD_MAX, Buffer, buffer_free, buffer_len, buffer_put
from pyxsd.events.trie cimport watch_path
from pyxsd.store.path cimport path_parse, path_split
from pyxsd.store.perms cimport PERM_READ, perms_allow, perms_text
from pyxsd.store.tree cimport node_at, node_child

cdef enum:
    EVENT_COST = 200         # bytes that a waiting event takes beside its path


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


cdef int _on_match(void *context, Watch *watch, const char *path, size_t n, bint own) except -1:
    cdef Firing *firing = <Firing *>context
    return (<Events>firing.events)._offer(firing, watch, own)


@cython.final
cdef class Pending:
    """What waits behind one watch; see the head of this file."""

    def __cinit__(self, Connection to):
        self.to = to
        self.waiting = deque()
        self.overflow = deque()
        self.paths = set()

    def __len__(self):
        return len(self.waiting)


@cython.final
cdef class Events:
    """All watches of a server.  host.complain(kind, text) takes warnings."""

    def __cinit__(self, Agenda agenda not None, Limits limits not None, AccessLog log not None,
                  host, Connection kernel not None, bint checked):
        self.trie = WatchTrie()
        self.agenda = agenda
        self.limits = limits
        self.log = log
        self.host = host
        self.kernel = kernel
        self.checked = checked
        self.watch_at = <Path *>malloc(sizeof(Path))
        self.look_at = <Path *>malloc(sizeof(Path))
        if self.watch_at == NULL or self.look_at == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.watch_at)
        free(self.look_at)

    # -- who is told ----------------------------------------------------------

    cdef int fire(self, Connection cause, const Path *path, Node *before, Node *after,
                  bint below) except -1:
        cdef Firing firing
        if self.trie.count == 0:
            return 0
        firing.events = <void *>self
        firing.cause = <void *>cause
        firing.before = before
        firing.after = after
        firing.path = firing.look = path
        firing.hash = path_hash(path.text, path.len)
        firing.known = False
        firing.count = 0
        self.kept = None
        if path.special:
            # Its permissions are looked up by the text of the event, "/@name",
            # which has more components where the name has a "/" in it.
            firing.look = self.look_at
            firing.known = not path_split(self.look_at, path.text, path.len)
        self.trie.match(path, below, _on_match, &firing)
        self.kept = None
        return 0

    cdef int _offer(self, Firing *firing, Watch *watch, bint own) except -1:
        """Sends a matching watch its event where its owner may see it."""
        cdef Connection to = <Connection>watch.owner
        cdef Perms *found[4]
        cdef Perms **perms = firing.perms
        cdef const Path *path = firing.path
        cdef int i, count
        if to.closed or to.bad:
            return 0
        if own and not watch.special:
            # The watch stands below what was removed: its own path decides.
            if not watch_path(watch, self.watch_at):
                return 0
            path = self.watch_at
            count = _collect(firing.before, path, found, 0)
            perms = found
        else:
            if not firing.known:
                firing.count = _collect(firing.before, firing.look, firing.perms, 0)
                firing.count = _collect(firing.after, firing.look, firing.perms, firing.count)
                firing.known = True
            count = firing.count
        if self.checked:
            for i in range(count):
                if perms_allow(perms[i], &to.who, PERM_READ):
                    break
            else:
                return self._refuse(to, path, perms, count)
        if own:
            return self._deliver(<Connection>firing.cause, watch, watch.text, watch.path_len,
                                 path_hash(watch.text, watch.path_len), True)
        return self._deliver(
            <Connection>firing.cause, watch, path.text + watch.strip, path.len - watch.strip,
            firing.hash if watch.strip == 0
            else path_hash(path.text + watch.strip, path.len - watch.strip), False)

    cdef int _refuse(self, Connection to, const Path *path, Perms **perms, int count) except -1:
        """Counts a watcher that may not be told, and logs it."""
        cdef Buffer text
        cdef int i
        self.refused += 1
        if not self.log.active:
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
            self.log.line(to.label, 0, b"w notfired", text.data, text.tail)
        finally:
            buffer_free(&text)
        return 0

    cdef int fire_special(self, bytes name, domids, Connection cause, Node *root) except -1:
        """Watches on the name are told once, those of depth 1 once for each domain, and
        those on "@releaseDomain/<domid>" of that domain.  oxenstored takes a watch on
        "@introduceDomain/<domid>" and never sends it an event."""
        cdef bytes each
        if self.trie.count == 0:
            return 0
        self._fire_name(name, name, False, cause, root)
        for domid in domids:
            each = name + b"/%d" % domid
            self._fire_name(name, each, True, cause, root)
            if name == b"@releaseDomain":
                self._fire_name(each, each, False, cause, root)
        return 0

    cdef int _fire_name(self, bytes watched, bytes event, bint deep, Connection cause,
                        Node *root) except -1:
        """Watches on `watched`, of depth 1 or without a depth, get `event`."""
        cdef Firing firing
        cdef Special special
        cdef Path *path = <Path *>malloc(sizeof(Path))
        if path == NULL:
            raise MemoryError()
        try:
            path_parse(path, event, len(event), NULL, 0, -1)
            firing.events = <void *>self
            firing.cause = <void *>(cause if cause is not None else self.kernel)
            firing.path = firing.look = path
            firing.known = True
            firing.count = _collect(root, path, firing.perms, 0)
            self.kept = event
            special.firing = &firing
            special.event = event
            special.n = len(event)
            special.hash = path_hash(special.event, special.n)
            special.deep = deep
            self.trie.match_special(watched, len(watched), _on_special, &special)
        finally:
            self.kept = None
            free(path)
        return 0

    cdef int first_event(self, Connection c, Watch *watch) except -1:
        return self._deliver(c, watch, watch.text, watch.path_len,
                             path_hash(watch.text, watch.path_len), True)

    # -- where events wait ----------------------------------------------------

    cdef bint _has_room(self, Connection to) noexcept:
        return to.out.events < self.limits.most[Q_EVENTS] \
            and (not to.is_guest or buffer_len(&to.out.buf) < EVENT_BYTES)

    cdef int _deliver(self, Connection cause, Watch *watch, const char *path, size_t n,
                      uint64_t hash, bint own) except -1:
        """The event of one watch, of n bytes of path.  own: that is the path of the watch as
        it was given, else that of the change, from watch.strip on."""
        cdef Connection to = <Connection>watch.owner
        if to.deaf:
            return 0
        if n + watch.token_len + 2 > PAYLOAD_MAX:
            # It would not fit into a packet (XSA-324).
            self.host.complain("event too long", f"event of {n + watch.token_len + 2} bytes not "
                               f"sent to {to.label.decode()}: too long")
            return 0
        if not to.pending and self._has_room(to):
            if to.out.put_event(watch.serial, not watch.special, hash, path, n,
                                watch.text + watch.path_len + 1, watch.token_len):
                self.queued += 1
                self._log_event(to, n + watch.token_len + 2)
                self.agenda.touch(to)
            else:
                self.merged += 1
            return 0
        if not watch.special and to.out.events and to.out.has_event(
                watch.serial, hash, path, n, watch.token_len):
            self.merged += 1
            return 0
        return self._delay(cause, to, watch, path, n, own)

    cdef int _log_event(self, Connection to, size_t n) except -1:
        """Logs the event just queued, whose payload has n bytes."""
        if self.log.active:
            self.log.line(to.label, 0, b"w event", to.out.buf.data + to.out.buf.tail - n, n)
        return 0

    cdef int _delay(self, Connection cause, Connection to, Watch *watch, const char *path,
                    size_t n, bint own) except -1:
        """Lets an event wait behind its watch, else on account of who caused it."""
        cdef Pending pending = to.pending.get(watch.serial)
        cdef uint64_t k = 0
        cdef bytes text
        if pending is None:
            pending = Pending(to)
            pending.serial = watch.serial
            pending.token = watch.text[watch.path_len + 1:
                                       watch.path_len + 1 + watch.token_len]
            pending.own_path = watch.text[:watch.path_len]
            pending.strip = watch.strip
            to.pending[watch.serial] = pending
        if own:
            text = b""
        else:
            if self.kept is None:
                # One text for all watches that keep this event.
                self.kept = (path - watch.strip)[:n + watch.strip]
            text = self.kept
        if watch.special:
            self.last_event += 1
            k = self.last_event
        elif text in pending.paths:
            self.merged += 1
            return 0
        else:
            pending.paths.add(text)
        if not pending.overflow and self._may_wait(pending, len(text)):
            pending.waiting.append((text, k))
            to.waiting_bytes += len(text) + EVENT_COST
            return 0
        if cause is None or cause.closed:
            cause = self.kernel
        pending.overflow.append((text, k, cause))
        cause.debts[pending] = cause.debts.get(pending, 0) + 1
        cause.overflowing += 1
        to.overfull[pending.serial] = pending
        return 0

    cdef bint _may_wait(self, Pending pending, Py_ssize_t n) except -1:
        """Is there a place behind the watch for an event with a path of n bytes?"""
        if len(pending.waiting) >= self.limits.most[Q_EVENTS]:
            return False
        return not pending.to.is_guest \
            or pending.to.waiting_bytes + n + EVENT_COST <= WAITING_BYTES

    cdef int _send(self, Connection c, Pending pending, bytes path, uint64_t k) except -1:
        """Puts a waiting event into the output."""
        cdef bytes text = path if path else pending.own_path
        cdef const char *p = <const char *>text + (pending.strip if path else 0)
        cdef size_t n = len(text) - (pending.strip if path else 0)
        if k == 0:
            pending.paths.discard(path)
        if c.out.put_event(pending.serial, k == 0, path_hash(p, n), p, n,
                           pending.token, len(pending.token)):
            self.queued += 1
            self._log_event(c, n + len(pending.token) + 2)
        else:
            self.merged += 1
        return 0

    cdef int refill(self, Connection c) except -1:
        cdef Pending pending
        if not c.pending or not self._has_room(c):
            return 0
        # One event of each watch in turn.
        while c.pending and self._has_room(c):
            pending = next(iter(c.pending.values()))
            if not pending.waiting:
                self._advance(pending)
            path, k = pending.waiting.popleft()
            c.waiting_bytes -= len(path) + EVENT_COST
            self._send(c, pending, path, k)
            self._advance(pending)
            if pending.waiting:
                c.pending.move_to_end(pending.serial)
            else:
                del c.pending[pending.serial]
        if c.is_guest:
            # Its memory has got room for events of other watches, too.
            for pending in list(c.overfull.values()):
                if c.waiting_bytes >= WAITING_BYTES:
                    break
                self._advance(pending)
        return 0

    cdef int _advance(self, Pending pending) except -1:
        """Moves events from the overflow to the places behind the watch that are free."""
        cdef Connection cause
        while pending.overflow:
            path, k, cause = pending.overflow[0]
            if pending.waiting and not self._may_wait(pending, len(path)):
                return 0
            pending.overflow.popleft()
            pending.waiting.append((path, k))
            pending.to.waiting_bytes += len(path) + EVENT_COST
            self._repay(cause, pending, 1)
        pending.to.overfull.pop(pending.serial, None)
        return 0

    cdef int _repay(self, Connection cause, Pending pending, int64_t n) except -1:
        """n events are no longer on the account of who caused them."""
        left = cause.debts[pending] - n
        if left:
            cause.debts[pending] = left
        else:
            del cause.debts[pending]
        cause.overflowing -= n
        if cause.overflowing == 0:
            self.agenda.unblock(cause)
        return 0

    # -- what goes ------------------------------------------------------------

    cdef int remove_watch(self, Connection c, Watch *watch) except -1:
        cdef Pending pending = c.pending.pop(watch.serial, None) if c.pending else None
        self.trie.remove(&c.watches, watch)
        c.watch_count -= 1
        if pending is not None:
            self._forget(pending)
        return 0

    cdef int drop_watches(self, Connection c) except -1:
        cdef Pending pending
        while c.watches != NULL:
            self.trie.remove(&c.watches, c.watches)
        c.watch_count = 0
        if c.pending:
            waiting = list(c.pending.values())
            c.pending.clear()
            for pending in waiting:
                self._forget(pending)
        return 0

    cdef int _forget(self, Pending pending) except -1:
        """Drops what waits behind a watch that is gone."""
        cdef Connection to = pending.to
        cdef dict owed = {}
        for path, _ in pending.waiting:
            to.waiting_bytes -= len(path) + EVENT_COST
        for _, _, cause in pending.overflow:
            owed[cause] = owed.get(cause, 0) + 1
        pending.waiting.clear()
        pending.overflow.clear()
        to.overfull.pop(pending.serial, None)
        for cause, n in owed.items():
            self._repay(cause, pending, n)
        return 0

    cdef int drop_debts(self, Connection c) except -1:
        cdef Pending pending
        cdef dict debts = c.debts
        if not debts:
            return 0
        c.debts = {}
        c.overflowing = 0
        for pending in debts:
            kept = deque()
            for entry in pending.overflow:
                if entry[2] is not c:
                    kept.append(entry)
                elif entry[1] == 0:
                    pending.paths.discard(entry[0])
            pending.overflow = kept
            if not kept:
                pending.to.overfull.pop(pending.serial, None)
                if not pending.waiting:
                    pending.to.pending.pop(pending.serial, None)
        return 0


cdef struct Special:
    Firing *firing
    const char *event
    size_t n
    uint64_t hash
    bint deep                # only watches of depth 1, else only those without


cdef int _on_special(void *context, Watch *watch, const char *path, size_t n, bint own) except -1:
    cdef Special *special = <Special *>context
    cdef Firing *firing = special.firing
    cdef Events events = <Events>firing.events
    cdef Connection to = <Connection>watch.owner
    cdef int i
    if special.deep != (watch.depth == 1) or to.closed or to.bad:
        return 0
    if events.checked:
        for i in range(firing.count):
            if perms_allow(firing.perms[i], &to.who, PERM_READ):
                break
        else:
            return events._refuse(to, firing.path, firing.perms, firing.count)
    return events._deliver(<Connection>firing.cause, watch, special.event, special.n,
                           special.hash, False)
