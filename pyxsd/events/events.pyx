# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches, and the delivery of their events.

A change fires: the trie names the watches that match, each watcher's rights are checked,
and the event goes into the watcher's output.  Where that has no room the event waits (backlog.pyx),
and its cause with it.

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
"""

cimport cython
from collections import deque

from libc.stdlib cimport free, malloc
from pyxsd._accesslog cimport AccessLog
from pyxsd._agenda cimport SINGLE, Agenda
from pyxsd._journal cimport journal_clock
from pyxsd._limits cimport Limits
from pyxsd._outq cimport path_hash
from pyxsd._wire cimport PAYLOAD_MAX, Buffer, buffer_free, buffer_put
from pyxsd.events.backlog cimport CLEARED_AT_ONCE, Backlog, Pending, has_room, log_event
from pyxsd.events.trie cimport watch_bytes, watch_path
from pyxsd.store.path cimport path_split
from pyxsd.store.perms cimport perms_showed, perms_text
from pyxsd.store.subtree cimport node_age, node_at, node_child, node_ref
from pyxsd.store.transaction cimport path_keep, path_restore

cdef enum:
    BATCH = 128              # watches looked at between two looks at the clock
    FEW = 32                 # and for a request of who asks one thing at a time, see the agenda
    CHANGE_BYTES = 64        # of the path of a change that cost as much as a watch
    LEFT = 32                # jobs of connections that have gone: commits, mostly
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
        if perms_showed(rights[i].perms, &to.who, rights[i].age):
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
cdef class Events(Backlog):
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
        if not to.pending and has_room(self, to):
            if to.out.put_event(watch.serial, not watch.special, hash, path, n,
                                watch.text + watch.path_len + 1, watch.token_len):
                self.queued += 1
                log_event(self, to, n + watch.token_len + 2)
                self.agenda.touch(to)
            else:
                self.merged += 1
            return 0
        if not watch.special and to.out.events and to.out.has_event(
                watch.serial, hash, path, n, watch.token_len):
            self.merged += 1
            return 0
        return self.delay(cause, to, watch, path, n, own)

    # -- what goes ------------------------------------------------------------

    cdef int remove_watch(self, Connection c, Watch *watch) except -1:
        cdef Pending pending = c.pending.pop(watch.serial, None) if c.pending else None
        c.watch_count -= 1
        c.watch_bytes -= watch_bytes(watch)
        self.trie.remove(&c.watches, watch)
        if pending is not None:
            self.forget(pending)
            self.clear_away(CLEARED_AT_ONCE)
        return 0

    cdef int drop_watches(self, Connection c) except -1:
        while c.watches != NULL:
            self.trie.remove(&c.watches, c.watches)
        c.watch_count = 0
        c.watch_bytes = 0
        return self.drop_waiting(c)

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
