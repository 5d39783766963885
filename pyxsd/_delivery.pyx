# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches, and the delivery of their events (floor 2).

How growth is bounded (with _hub the answer to XSA-325, 326 and 416):

- max_events events wait in a connection's output, and as many behind each watch;
- what does not fit waits in the overflow of the connection that caused it,
  which is not read until its overflow is empty;
- an event identical to one that waits is dropped, but for "@" paths.

What waits moves on as soon as there is room, in order per watch.
"""

from collections import OrderedDict
from libc.stdlib cimport free, malloc
from pyxsd._accesslog cimport AccessLog
from pyxsd._outq cimport path_hash
from pyxsd.store.path cimport path_parse, path_split
from pyxsd.store.perms cimport PERM_READ, perms_allow, perms_text
from pyxsd.store.tree cimport node_at, node_child
from pyxsd.events.trie cimport watch_path
from pyxsd._wire cimport PAYLOAD_MAX, Buffer, buffer_free, buffer_put


cdef int _on_match(void *context, Watch *watch, const char *path, size_t n, bint own) except -1:
    """Sends one matching watch its event where its owner may see it."""
    cdef Firing *firing = <Firing *>context
    cdef Delivery delivery = <Delivery>firing.delivery
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
        if not watch.special and not watch_path(watch, delivery.watch_at):
            return 0
        count = 0
        if watch.special:
            perms = firing.perms
            count = firing.count
        else:
            count = _collect(firing.before, delivery.watch_at, found, 0)
            perms = found
        hash = path_hash(path, n)
    else:
        if not firing.known:
            firing.count = _collect(firing.before, firing.look, firing.perms, 0)
            firing.count = _collect(firing.after, firing.look, firing.perms, firing.count)
            firing.known = True
        count = firing.count
        hash = firing.hash if watch.strip == 0 else path_hash(path, n)
    if delivery.perms_watch_active:
        for i in range(count):
            if perms_allow(perms[i], &to.who, PERM_READ):
                break
        else:
            return _refuse(delivery, to,
                           firing.path if not own or watch.special else delivery.watch_at,
                           perms, count)
    return delivery.deliver(cause, watch, path, n, hash)


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


cdef int _refuse(Delivery delivery, Connection to, const Path *path, Perms **perms,
                 int count) except -1:
    cdef Buffer text
    cdef int i
    delivery.refused += 1
    if not delivery.log.active:
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
        delivery.log.line(to.label, 0, b"w notfired", text.data, text.tail)
    finally:
        buffer_free(&text)
    return 0


cdef class Delivery(Hub):
    """All watches of a server, and the store that their events tell of."""

    def __cinit__(self, *args, **kwargs):
        self.tree = Tree()
        self.trie = WatchTrie()
        self.watch_at = <Path *>malloc(sizeof(Path))
        self.look_at = <Path *>malloc(sizeof(Path))
        if self.watch_at == NULL or self.look_at == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.watch_at)
        free(self.look_at)

    def configure(self, config, AccessLog log not None):
        """Takes over the limits of a Config."""
        Hub.configure(self, config, log)
        self.max_events = max(1, min(config.quota_maxwatchevents, 1 << 30))
        self.perms_watch_active = config.perms_watch_activate

    # -- watches that go ------------------------------------------------------

    cdef int reset(self, Connection c) except -1:
        cdef Connection other
        cdef dict overflow
        self.drop_watches(c)
        Hub.reset(self, c)
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
        firing.delivery = <void *>self
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

    cdef int refill(self, Connection c) except -1:
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
            firing.delivery = <void *>self
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
