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
daemon remember is bounded: by its own quota for the first two places, by about OVERFLOW_EVENTS for
each guest that causes events for the third; the rest of such a guest's events are not made before
those have found room.  (With _conn the answer to XSA-325, 326 and 416.)

When the client reads, the output takes from the waiting events, one of each watch in turn,
and the place that becomes free behind the watch is taken from its overflow.  The order is kept
for each watch.  Each step moves as many events as there is new room, REFILLED at most, and looks
at no others; the output is sent before the next step.

One change can match very many watches: a thousand guests may have set a hundred each on one
path.  And one request can make very many changes, the commit of a transaction.  The first BATCH
events or so of a request are delivered at once, where each change of a commit counts too, and
more the longer its path is.  The rest becomes jobs of the connection that
made the changes, one for each change, which are done in slices of time like any serving, and
until they are done that connection is not served.  So the order of the events of one cause is
kept.  A job holds the place that its search for watches has come to, and the roots of the trees
that permissions are looked up in; so it takes the same memory however many watches match.  The
changes of a commit are kept as the transaction has listed them (Changes), and become a job one
after the other, so that the commit itself costs the same however many are left.  Where a connection
goes that has jobs, they become those of the kernel's connection, which stands for nobody then: an
event of theirs that finds no room with the watcher is dropped, as is what was on the account of the
connection that went.  So are all where LEFT jobs are left already.  Jobs of names go before them,
and are not dropped.  Jobs keep old trees, whatever they wait for; where guests together keep too
much of those (_commit) the jobs that have waited longest are hurried: they keep the tree of then no
more, so the permissions of now decide who is told, and whoever has all rights is told in any case.
A guest's do not wait for a watcher that does not read, either: its events are dropped in the same
way.

What is left of a watch or a connection that goes, very many events perhaps, is cleared away in
slices: clear_away() is called in each turn.

An event that is identical to one which is still there is dropped, but for "@" paths, whose
events tell of different domains.
"""

cimport cython
from collections import OrderedDict, deque

from libc.stdlib cimport free, malloc
from pyxsd._agenda cimport SINGLE
from pyxsd._journal cimport journal_clock
from pyxsd._limits cimport EVENT_BYTES, OVERFLOW_EVENTS, Q_EVENTS, WAITING_BYTES
from pyxsd._outq cimport path_hash
from pyxsd._wire cimport PAYLOAD_MAX, Buffer, buffer_free, buffer_len, buffer_put
from pyxsd.events.trie cimport watch_bytes, watch_path
from pyxsd.store.path cimport path_split
from pyxsd.store.perms cimport PERM_READ, perms_allow, perms_text
from pyxsd.store.subtree cimport node_age, node_at, node_child, node_ref
from pyxsd.store.transaction cimport path_keep, path_restore

cdef enum:
    BATCH = 128              # watches looked at between two looks at the clock
    FEW = 32                 # and for a request of who asks one thing at a time, see the agenda
    CHANGE_BYTES = 64        # of the path of a change that cost as much as a watch
    CLEARED_AT_ONCE = 64     # waiting events that are freed together with their watch
    REFILLED = 128           # waiting events that move into the output at once
    LEFT = 32                # jobs of connections that have gone: commits, mostly
    EVENT_COST = 224         # bytes that a waiting event takes beside its path, at most
    UNKNOWN = -1             # rights_count: nobody has asked yet


cdef inline void _note(Rights *rights, Node *node, Node *root) noexcept:
    rights.perms = node.perms
    rights.age = node_age(root)[0]


cdef int _collect(Node *root, const Path *path, Rights *found, int count) noexcept:
    """The permissions of a path's parent and of its node, as far as there."""
    cdef Node *node
    cdef size_t last
    if root == NULL or path.parts == 0:
        return count
    last = path.parts - 1
    node = node_at(root, path, last)
    if node == NULL:
        return count
    _note(&found[count], node, root)
    node = node_child(node, path.text + path.start[last], path.size[last])
    if node == NULL:
        return count + 1
    _note(&found[count + 1], node, root)
    return count + 2


cdef void _move(Node **kept, Node *root, Grave grave) noexcept:
    """Keeps another root, where one is kept."""
    if kept[0] != NULL:
        node_ref(root)
        grave.bury(kept[0])
        kept[0] = root


cdef inline bint _is_of_a_name(what) noexcept:
    return isinstance(what, Job) and (<Job>what).name is not None


cdef inline bint _may_see(Connection to, const Rights *rights, int count) noexcept:
    cdef int i
    for i in range(count):
        if perms_allow(rights[i].perms, rights[i].age, &to.who, PERM_READ):
            return True
    return False


cdef inline bint _sees_all(const Watch *watch) noexcept:
    """Has the watcher the rights of domain 0?"""
    return watch.owner != NULL and (<Connection>watch.owner).who.privileged


@cython.final
@cython.no_gc
cdef class Job:
    """A change whose events are being delivered; see the head of this file."""

    def __dealloc__(self):
        if self.before != NULL:
            self.grave.bury(self.before)
        if self.after != NULL:
            self.grave.bury(self.after)

    cdef int keep(self, Grave grave, Node *before, Node *after) except -1:
        """Keeps the roots, so that the trees stay as they are."""
        self.grave = grave
        self.before = node_ref(before) if before != NULL else NULL
        self.after = node_ref(after) if after != NULL else NULL
        return 0

    cdef void move(self, Node *root) noexcept:
        _move(&self.before, root, self.grave)
        _move(&self.after, root, self.grave)


@cython.final
@cython.no_gc
cdef class Changes:
    """Changes of one commit; see the head of this file."""

    def __dealloc__(self):
        if self.before != NULL:
            self.grave.bury(self.before)
            self.grave.bury(self.after)

    cdef void move(self, Node *root) noexcept:
        _move(&self.before, root, self.grave)
        _move(&self.after, root, self.grave)

    cdef Py_ssize_t left(self) noexcept:
        return len(self.changes) - self.next

    cdef Job job(self, Py_ssize_t at):
        cdef Job job = Job.__new__(Job)
        cdef int kind
        kind, job.text = self.changes[at]
        job.below = kind == EVENT_REMOVED
        job.newest = self.newest
        job.keep(self.grave, NULL if kind == EVENT_CHANGED else self.before,
                 NULL if kind == EVENT_REMOVED else self.after)
        return job


@cython.final
cdef class Pending:
    """What waits behind one watch; see the head of this file."""

    def __cinit__(self, Connection to):
        self.to = to
        self.waiting = deque()
        self.overflow = OrderedDict()
        self.paths = set()

    def __len__(self):
        return len(self.waiting)


@cython.final
cdef class Account:
    """What one connection caused and what found no room; see the head of this file."""

    def __cinit__(self, Connection owner):
        self.owner = owner
        self.owed = {}


@cython.final
cdef class Events:
    """All watches of a server.  host.complain(kind, text) takes warnings."""

    def __cinit__(self, Agenda agenda not None, Limits limits not None, AccessLog log not None,
                  host, Connection kernel not None, Grave grave not None, bint checked):
        self.grave = grave
        self.trie = WatchTrie()
        self.agenda = agenda
        self.limits = limits
        self.log = log
        self.host = host
        self.kernel = kernel
        self.checked = checked
        self.spare = Job.__new__(Job)
        self.remains = deque()
        self.path = <Path *>malloc(sizeof(Path))
        self.look_at = <Path *>malloc(sizeof(Path))
        if self.path == NULL or self.look_at == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.path)
        free(self.look_at)

    # -- who is told ----------------------------------------------------------

    cdef void begin(self) noexcept:
        self.most = self.at_once = FEW if self.agenda.serving == SINGLE else BATCH
        self.complained = False

    cdef int fire(self, Connection cause, const Path *path, Node *before, Node *after,
                  bint below, bint there=False) except -1:
        cdef Job job
        cdef Watch *watch
        cdef int64_t steps = self.at_once
        if self.trie.count == 0:
            return 0
        if cause.jobs is not None or self.at_once <= 0:
            job = Job.__new__(Job)
            job.text = path_keep(path)
            job.below = below
            job.newest = self.trie.serial
            job.keep(self.grave, before, after)
            return self._queue(cause, job)
        job = self.spare
        job.below = below
        if job.name is not None:
            job.name = None
        self.trie.search(&job.search, path, below)
        watch = self.trie.search_next(&job.search, path, before, &steps)
        if watch != NULL:
            self._tell(cause, job, path, before, after, watch, steps,
                       there and path.parts and not path.special)
        if job.search.done:
            return 0
        return self._park(cause, job, path, before, after)

    cdef int fire_kept(self, Connection cause, list changes, Node *before, Node *after) except -1:
        cdef Changes rest
        cdef Job job
        cdef Py_ssize_t done = 0
        cdef int kind
        cdef bytes text
        if self.trie.count == 0:
            return 0
        while done < len(changes) and cause.jobs is None and self.at_once > 0:
            kind, text = changes[done]
            done += 1
            self.at_once -= 1 + len(text) // CHANGE_BYTES
            path_restore(self.path, text)
            job = self.spare
            job.below = kind == EVENT_REMOVED
            job.name = None
            self._start(cause, job, self.path, NULL if kind == EVENT_CHANGED else before,
                        NULL if kind == EVENT_REMOVED else after)
        if done == len(changes):
            return 0
        rest = Changes.__new__(Changes)
        rest.changes = changes
        rest.next = done
        rest.newest = self.trie.serial
        rest.grave = self.grave
        rest.before = node_ref(before)
        rest.after = node_ref(after)
        return self._queue(cause, rest)

    cdef int fire_special(self, bytes name, domids, Connection cause, Node *root) except -1:
        """Watches on the name are told once, those of depth 1 once for each domain, and
        those on "@releaseDomain/<domid>" of that domain.  oxenstored takes a watch on
        "@introduceDomain/<domid>" and never sends it an event."""
        cdef bytes each
        if self.trie.count == 0:
            return 0
        if cause is None or cause.closed:
            # A domain may have released itself.
            cause = self.kernel
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
        cdef bint later = cause.jobs is not None or self.at_once <= 0
        cdef Job job = Job.__new__(Job) if later else self.spare
        job.name = watched
        job.text = event
        job.deep = deep
        job.below = False
        if later:
            job.newest = self.trie.serial
            job.keep(self.grave, NULL, root)
            return self._queue(cause, job)
        path_restore(self.path, event)
        return self._start(cause, job, self.path, NULL, root)

    cdef int _start(self, Connection cause, Job job, const Path *path, Node *before,
                    Node *after) except -1:
        """Delivers the events of a change, or some of them where there are many."""
        self._begin(job, path)
        self._some(cause, job, path, before, after)
        if job.search.done:
            return 0
        return self._park(cause, job, path, before, after)

    cdef int _park(self, Connection cause, Job job, const Path *path, Node *before,
                   Node *after) except -1:
        """Keeps what is left of a change for later, if something is."""
        self.trie.park(&job.search, path, before)
        if job.search.done:
            return 0
        try:
            self.spare = Job.__new__(Job)
            if job.name is None:
                job.text = path_keep(path)
            job.keep(self.grave, before, after)
            job.begun = True
            return self._queue(cause, job)
        except BaseException:
            # Nobody may have it; a parked search would hold its watch for ever.
            self.trie.give_up(&job.search)
            raise

    cdef int _begin(self, Job job, const Path *path) except -1:
        """Begins the search for the watches that a change concerns."""
        if job.name is not None:
            return self.trie.search_special(&job.search, job.name, len(job.name))
        self.trie.search(&job.search, path, job.below)
        return 0

    cdef int _prepare(self, Job job, const Path *path, Node *before, Node *after) except -1:
        """Looks up the permissions that decide who may be told of the changed path."""
        cdef const Path *look = path
        self.rights_count = 0
        if path.special and job.name is None:
            # They are looked up by the text of the event, "/@name", which has more
            # components where the name has a "/" in it.
            if not path_split(self.look_at, path.text, path.len):
                return 0
            look = self.look_at
        if before != NULL:
            self.rights_count = _collect(before, look, self.rights, 0)
        if after != NULL:
            self.rights_count = _collect(after, look, self.rights, self.rights_count)
        return 0

    cdef int _some(self, Connection cause, Job job, const Path *path, Node *before,
                   Node *after) except -1:
        """Delivers the next events of a job, having looked at BATCH watches at most."""
        cdef int64_t steps = BATCH
        cdef Watch *watch = self.trie.search_next(&job.search, path, before, &steps)
        if watch == NULL:
            return 0
        return self._tell(cause, job, path, before, after, watch, steps, False)

    cdef int _tell(self, Connection cause, Job job, const Path *path, Node *before, Node *after,
                   Watch *watch, int64_t steps, bint there) except -1:
        """Delivers the event of a watch that was found, and those of the next ones, looking at
        `steps` more.  there: the path and so its parent are in `after`, so whoever has all
        rights may see them, and nobody needs to look for them on his behalf."""
        cdef uint64_t hash = 0
        if job.name is None:
            hash = path_hash(path.text, path.len)
        else:
            self.kept = job.text
        if there:
            self.rights_count = UNKNOWN
        else:
            self._prepare(job, path, before, after)
        try:
            while watch != NULL:
                self.at_once -= 1
                if self.rights_count == UNKNOWN and not _sees_all(watch):
                    self._prepare(job, path, before, after)
                if job.name is None or job.deep == (watch.depth == 1):
                    self._offer(cause, watch, &job.search, path, before, hash)
                watch = self.trie.search_next(&job.search, path, before, &steps)
        finally:
            self.kept = None
        return 0

    cdef int _queue(self, Connection cause, what) except -1:
        """Puts a Job, or Changes, behind those that its cause has."""
        if cause.jobs is None:
            cause.jobs = deque()
        if cause is self.kernel and _is_of_a_name(what):
            cause.jobs.insert(len(cause.jobs) - self._left(), what)
        else:
            cause.jobs.append(what)
        return self.agenda.left(cause)

    cdef Py_ssize_t _left(self) except -1:
        """How many jobs of connections that have gone there are: the kernel's last ones."""
        cdef Py_ssize_t at, end
        if self.kernel.jobs is None:
            return 0
        at = end = len(self.kernel.jobs)
        while at and not _is_of_a_name(self.kernel.jobs[at - 1]):
            at -= 1
        return end - at

    cdef bint must_wait(self, Connection cause) noexcept:
        return cause.is_guest and cause.overflowing >= OVERFLOW_EVENTS and not cause.hurried

    cdef int hurry(self, Connection cause, Node *root) except -1:
        if cause.jobs is None:
            return 0
        cause.hurried = True
        for what in cause.jobs:
            if isinstance(what, Job):
                (<Job>what).move(root)
            else:
                (<Changes>what).move(root)
        return self.agenda.left(cause)

    cdef int resume(self, Connection cause, uint64_t until) except -1:
        cdef Job job
        cdef Changes changes
        while cause.jobs is not None and not self.must_wait(cause):
            first = cause.jobs[0]
            if isinstance(first, Changes):
                changes = first
                job = changes.job(changes.next)
                changes.next += 1
                if changes.left():
                    cause.jobs.appendleft(job)
                else:
                    cause.jobs[0] = job
            else:
                job = first
            path_restore(self.path, job.text)
            if job.begun:
                self.trie.resume(&job.search, self.path, job.before)
            else:
                self._begin(job, self.path)
                job.search.newest = job.newest
                job.begun = True
            self.complained = False
            self._some(cause, job, self.path, job.before, job.after)
            self.trie.park(&job.search, self.path, job.before)
            if job.search.done:
                cause.jobs.popleft()
                if not cause.jobs:
                    cause.jobs = None
                    cause.hurried = False
            if journal_clock(self.agenda.journal) >= until:
                break
        return 0

    cdef int _offer(self, Connection cause, Watch *watch, const Search *search,
                    const Path *path, Node *before, uint64_t hash) except -1:
        """Sends a matching watch its event where its owner may see it."""
        cdef Connection to = <Connection>watch.owner
        cdef Rights own[2]
        cdef Rights *rights = self.rights
        cdef int count = self.rights_count
        if to.closed or to.bad or to.deaf:
            return 0
        if search.own:
            # The watch stands below what was removed: its own path decides.
            rights = own
            count = 0
            if search.parent != NULL:
                _note(&own[0], search.parent, before)
                count = 1
                if search.found != NULL:
                    _note(&own[1], search.found, before)
                    count = 2
        if self.checked and count != UNKNOWN and not _may_see(to, rights, count) \
                and not (cause.hurried and to.who.privileged):
            self.refused += 1
            if not self.log.active:
                return 0
            if search.own and watch_path(watch, self.look_at):
                path = self.look_at
            return self._refuse(to, path, rights, count)
        if search.own:
            return self._deliver(cause, watch, watch.text, watch.path_len,
                                 path_hash(watch.text, watch.path_len), True)
        if watch.special and self.kept is not None:
            # Of a name: the event's path is what it is called.
            return self._deliver(cause, watch, self.kept, len(self.kept),
                                 path_hash(self.kept, len(self.kept)), False)
        return self._deliver(
            cause, watch, path.text + watch.strip, path.len - watch.strip,
            hash if watch.strip == 0
            else path_hash(path.text + watch.strip, path.len - watch.strip), False)

    cdef int _refuse(self, Connection to, const Path *path, const Rights *rights,
                     int count) except -1:
        """Logs a watcher that may not be told, in as many bytes as the log shows."""
        cdef Buffer text
        cdef size_t most = self.log.longest()
        cdef int i
        text.data = NULL
        text.head = text.tail = text.cap = 0
        try:
            buffer_put(&text, b"EPERM perms=[", 13)
            for i in range(count):
                if i:
                    buffer_put(&text, b", ", 2)
                if text.tail < most:
                    perms_text(rights[i].perms, rights[i].age, &text, c" ", False,
                               most - text.tail)
            buffer_put(&text, b"] path=", 7)
            buffer_put(&text, path.text, path.len)
            self.log.line(to.label, 0, b"w notfired", text.data, text.tail)
        finally:
            buffer_free(&text)
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
            # It would not fit into a packet (XSA-324).  One is told: a guest can have a hundred of
            # them with each request, and the host takes ten times as long as an event.
            if self.complained:
                return 0
            self.complained = True
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
        cdef Pending pending
        cdef uint64_t k = 0
        cdef bytes text
        to.begin_waiting()
        pending = to.pending.get(watch.serial)
        if cause is None or cause.closed:
            cause = self.kernel
        if own:
            text = b""
        else:
            if self.kept is None:
                # One text for all watches that keep this event.
                self.kept = (path - watch.strip)[:n + watch.strip]
            text = self.kept
        if pending is None:
            pending = Pending(to)
            pending.serial = watch.serial
            pending.watch = watch
            to.pending[watch.serial] = pending
        if watch.special:
            self.last_event += 1
            k = self.last_event
        elif text in pending.paths:
            self.merged += 1
            return 0
        try:
            return self._keep(cause, pending, text, k)
        except MemoryError:
            # As if it had never been.
            if k == 0:
                pending.paths.discard(text)
            if not pending.overflow:
                to.overfull.pop(pending.serial, None)
                if not pending.waiting:
                    to.pending.pop(pending.serial, None)
            raise

    cdef int _keep(self, Connection cause, Pending pending, bytes text, uint64_t k) except -1:
        """Keeps an event behind its watch, or on the account of its cause.  MemoryError: it is not
        kept, but its path may be, and the Pending though nothing is in it."""
        cdef Connection to = pending.to
        cdef Account account
        if not pending.overflow and self._may_wait(pending, len(text)):
            if k == 0:
                pending.paths.add(text)
            return self._wait(pending, text, k)
        if k == 0:
            if cause is self.kernel or (cause.hurried and cause.is_guest):
                # Of somebody who has gone, or may not wait.
                if not pending.waiting and not pending.overflow:
                    del to.pending[pending.serial]
                return 0
            pending.paths.add(text)
        account = cause.debts
        if account is None:
            cause.debts = account = Account(cause)
        self.last_debt += 1
        number = self.last_debt
        try:
            pending.overflow[number] = (text, k, account)
            account.owed[number] = pending
            to.overfull[pending.serial] = pending
        except MemoryError:
            pending.overflow.pop(number, None)
            account.owed.pop(number, None)
            raise
        cause.overflowing += 1
        return 0

    cdef int _wait(self, Pending pending, bytes path, uint64_t k) except -1:
        """Gives an event a place behind its watch.  Its path may be a text of its own, and the set
        of paths may have just grown to six places for each."""
        pending.waiting.append((path, k))
        pending.to.waiting_bytes += len(path) + EVENT_COST
        return 0

    cdef tuple _take(self, Pending pending):
        """The oldest event behind a watch, (path, k), which gives its place back."""
        cdef tuple event = pending.waiting.popleft()
        pending.to.waiting_bytes -= len(event[0]) + EVENT_COST
        return event

    cdef bint _may_wait(self, Pending pending, Py_ssize_t n) except -1:
        """Is there a place behind the watch for an event with a path of n bytes?"""
        if len(pending.waiting) >= self.limits.most[Q_EVENTS]:
            return False
        return not pending.to.is_guest \
            or pending.to.waiting_bytes + n + EVENT_COST <= WAITING_BYTES

    cdef int _send(self, Connection c, Pending pending, bytes path, uint64_t k) except -1:
        """Puts a waiting event into the output."""
        cdef const Watch *watch = pending.watch
        cdef const char *p = <const char *>path + watch.strip if path else watch.text
        cdef size_t n = len(path) - watch.strip if path else watch.path_len
        if k == 0:
            pending.paths.discard(path)
        if c.out.put_event(pending.serial, k == 0, path_hash(p, n), p, n,
                           watch.text + watch.path_len + 1, watch.token_len):
            self.queued += 1
            self._log_event(c, n + watch.token_len + 2)
        else:
            self.merged += 1
        return 0

    cdef int refill(self, Connection c) except -1:
        cdef Pending pending
        cdef int left = REFILLED
        if not c.pending or not self._has_room(c):
            return 0
        # One event of each watch in turn.
        while left and c.pending and self._has_room(c):
            left -= 1
            pending = next(iter(c.pending.values()))
            if not pending.waiting:
                self._advance(pending, 1)
            path, k = self._take(pending)
            self._send(c, pending, path, k)
            self._advance(pending, 2)
            if pending.waiting:
                c.pending.move_to_end(pending.serial)
            else:
                del c.pending[pending.serial]
        if c.is_guest:
            # Its memory has got room for events of other watches, too.
            left = REFILLED
            for pending in list(c.overfull.values()):
                if left <= 0 or c.waiting_bytes >= WAITING_BYTES:
                    break
                left -= 1 + self._advance(pending, left)
        return 0

    cdef int _advance(self, Pending pending, int most) except -1:
        """Moves events from the overflow to the places behind the watch that are free, `most` of
        them; how many it was."""
        cdef int moved = 0
        while pending.overflow:
            if moved == most:
                return moved
            number, (path, k, account) = next(iter(pending.overflow.items()))
            if pending.waiting and not self._may_wait(pending, len(path)):
                return moved
            # What can fail comes first.
            self._wait(pending, path, k)
            del pending.overflow[number]
            self._repay(account, number)
            moved += 1
        pending.to.overfull.pop(pending.serial, None)
        return moved

    cdef int _repay(self, Account account, number) except -1:
        """An event is no longer on the account of who caused it."""
        cdef Connection cause = account.owner
        del account.owed[number]
        if cause is None:
            return 0
        cause.overflowing -= 1
        if cause.jobs is not None:
            if not self.must_wait(cause):
                self.agenda.left(cause)
        elif cause.overflowing == 0:
            self.agenda.unblock(cause)
        return 0

    # -- what goes ------------------------------------------------------------

    cdef int remove_watch(self, Connection c, Watch *watch) except -1:
        cdef Pending pending = c.pending.pop(watch.serial, None) if c.pending else None
        c.watch_count -= 1
        c.watch_bytes -= watch_bytes(watch)
        self.trie.remove(&c.watches, watch)
        if pending is not None:
            self._forget(pending)
            self.clear_away(CLEARED_AT_ONCE)
        return 0

    cdef int drop_watches(self, Connection c) except -1:
        while c.watches != NULL:
            self.trie.remove(&c.watches, c.watches)
        c.watch_count = 0
        c.watch_bytes = 0
        return self.drop_waiting(c)

    cdef int drop_waiting(self, Connection c) except -1:
        cdef Pending pending
        if c.pending:
            waiting = list(c.pending.values())
            c.pending.clear()
            for pending in waiting:
                self._forget(pending)
            self.clear_away(CLEARED_AT_ONCE)
        return 0

    cdef int _forget(self, Pending pending) except -1:
        """Drops what waits behind a watch that is gone.  It counts as the watcher's memory until
        it is cleared away, else one that sets and removes watches could fill that many times."""
        pending.watch = NULL
        pending.to.overfull.pop(pending.serial, None)
        return self._bury(pending)

    cdef int _bury(self, what) except -1:
        """Leaves a Pending or an Account to be cleared away."""
        try:
            self.remains.append(what)
        except MemoryError:
            while self._clear_one(what):
                pass
            return 0
        self.gone += 1
        return 0

    cdef int drop_jobs(self, Connection c) except -1:
        if c.jobs is not None:
            for what in c.jobs:
                if isinstance(what, Job):
                    self.trie.give_up(&(<Job>what).search)
            c.jobs = None
            c.hurried = False
        return 0

    cdef int leave_jobs(self, Connection c) except -1:
        if c.jobs is None:
            return 0
        for what in c.jobs:
            # Who comes and goes must not leave more than can be told meanwhile.
            if _is_of_a_name(what) or self._left() < LEFT:
                self._queue(self.kernel, what)
            elif isinstance(what, Job):
                self.trie.give_up(&(<Job>what).search)
        c.jobs = None
        c.hurried = False
        return 0

    cdef int drop_debts(self, Connection c) except -1:
        cdef Account account = c.debts
        if account is None:
            return 0
        account.owner = None
        c.debts = None
        c.overflowing = 0
        self._bury(account)
        return self.clear_away(CLEARED_AT_ONCE)

    cdef bint has_remains(self) noexcept:
        return self.gone != 0

    cdef int clear_away(self, int64_t most) except -1:
        while self.gone and most > 0:
            most -= 1
            if not self._clear_one(self.remains[0]):
                self.remains.popleft()
                self.gone -= 1
        return 0

    cdef bint _clear_one(self, what) except -1:
        """Frees an event of a Pending or an Account that is gone; was there one?  MemoryError: it
        is still in both."""
        cdef Pending pending
        cdef Account account
        if isinstance(what, Account):
            account = what
            if not account.owed:
                return False
            # The last one: nothing needs to be looked for.
            number = next(reversed(account.owed))
            self._withdraw(account.owed[number], number)
            del account.owed[number]
            return True
        pending = what
        if pending.waiting:
            path, _ = self._take(pending)
            pending.paths.discard(path)
            return True
        if pending.overflow:
            number, (path, _, account) = next(iter(pending.overflow.items()))
            del pending.overflow[number]
            pending.paths.discard(path)
            self._repay(account, number)
            return True
        return False

    cdef int _withdraw(self, Pending pending, number) except -1:
        """Takes an event back whose cause is gone."""
        event = pending.overflow.get(number)
        if event is None:
            return 0  # there was just no memory left for the account
        path, k, _ = event
        if k == 0:
            pending.paths.discard(path)
        if len(pending.overflow) == 1:
            pending.to.overfull.pop(pending.serial, None)
            if not pending.waiting:
                pending.to.pending.pop(pending.serial, None)
        # Last of all: where memory runs out before, all of this is done once more.
        del pending.overflow[number]
        return 0
