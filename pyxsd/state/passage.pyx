# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in the records of an image, and in which order (image.pyx).

What is saved and what is loaded is said once: each method here goes both ways, and names every
field of its record once.
"""

from collections import deque

cimport cython
from libc.stdlib cimport bsearch, free, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memset
from pyxsd._agenda cimport QUEUES, Agenda, Queue, Waiting
from pyxsd._commit cimport Transactions
from pyxsd._conn cimport WANT_IN, WANT_OUT
from pyxsd._history cimport History
from pyxsd._limits cimport Q_COUNT, UNLIMITED, Limits
from pyxsd._outq cimport Queued, path_hash
from pyxsd._siphash cimport HashKey, hash_key as the_key
from pyxsd._wire cimport (
    HEADER_SIZE, ST_COUNT, XS_READ, XS_TYPES, Buffer, Header, buffer_free, buffer_len,
)
from pyxsd.events.backlog cimport Account
from pyxsd.events.events cimport EVENT_CHANGED, EVENT_PERMS, EVENT_REMOVED
from pyxsd.events.trie cimport Search, watch_bytes, watch_path
from pyxsd.state.blank cimport Stream, blank_input, blank_output, blank_request
from pyxsd.store.path cimport Path, path_parse
from pyxsd.store.subtree cimport node_ref
from pyxsd.store.transaction cimport path_restore

cdef enum:
    TEXT_MAX = 0xFFFF        # bytes of the path or token of a watch
    WEIGHT_MAX = 0xFFFFFFFF


@cython.final
cdef class Passage:
    """The way of a server's state into an image, or out of one.

    Each of its methods goes both ways: codec.loading says which.
    """

    def __cinit__(self, Server server):
        self.server = server
        self.s = server.s
        self.events = server.s.events
        self.now = self.then = server.s.history.now
        self.by_id = {}
        self.debts = []
        self.recent = {}

    def __dealloc__(self):
        free(self.watches)

    # -- what fields name -----------------------------------------------------

    cdef Tree tree(self, Codec codec, Tree tree):
        cdef uint32_t number = 0
        if not codec.loading:
            number = self.writer.tree(tree)
            codec.u32(&number)
            return tree
        codec.u32(&number)
        return self.reader.tree(number)

    cdef Node *node(self, Codec codec, Node *node) except? NULL:
        """A node, borrowed, or NULL."""
        cdef uint32_t number = 0
        if not codec.loading:
            number = self.writer.node(node)
            codec.u32(&number)
            return node
        codec.u32(&number)
        return self.reader.node(number)

    cdef Node *root(self, Codec codec, Node *root) except? NULL:
        """The root of a tree, borrowed, or NULL."""
        root = self.node(codec, root)
        if root != NULL and root.name_len:
            raise ValueError("a node with a name in place of a root")
        return root

    cdef double time(self, Codec codec, double time) except *:
        """A time of the image, on this server's clock."""
        codec.f64(&time)
        return time if self.then == self.now else time - self.then + self.now

    cdef Connection named(self, Codec codec, Connection c):
        """A connection, by its id."""
        cdef uint64_t id = 0 if codec.loading else c.id
        codec.u64(&id)
        return self.by_id[id] if codec.loading else c

    cdef bytes path(self, Codec codec, bytes kept):
        """A path as path_keep() makes it."""
        kept = codec.blob(kept)
        if codec.loading:
            if kept is None or kept[:1] not in (b"/", b"@"):
                raise ValueError(f"not a path: {kept and kept[:64]!r}")
            path_restore(self.s.path, kept)
        return kept

    # -- SERV -----------------------------------------------------------------

    cdef int serv(self, Codec codec) except -1:
        cdef Server server = self.server
        cdef Limits limits = server.limits
        cdef Events events = self.events
        cdef Transactions transactions = self.s.transactions
        cdef Tree tree
        cdef HashKey key = the_key
        cdef size_t i, n
        cdef int64_t owner, most
        codec.raw(&key, sizeof(key))
        codec.f64(&self.then)
        if self.same_clock:
            self.now = self.then
        tree = self.tree(codec, self.s.tree)
        if codec.loading:
            self.s.tree.adopt(tree)
            self.s.tree.copied = tree.copied
            self.s.tree.dropped = tree.dropped
        codec.u64(&self.s.epoch)
        codec.u64(&server.last_id)
        codec.u64(&server.last_anonymous)
        codec.u64(&server.ops)
        codec.u64(&server.failures)
        codec.u64(&events.last_event)
        codec.u64(&events.last_debt)
        codec.u64(&events.queued)
        codec.u64(&events.merged)
        codec.u64(&events.refused)
        codec.u64(&transactions.failed)
        codec.u64(&transactions.no_culprit)
        codec.u64(&transactions.merged)
        codec.u64(&transactions.done)
        n = codec.count(Q_COUNT, 8)
        if n != Q_COUNT:
            raise ValueError(f"{n} quotas")
        for i in range(n):
            codec.i64(&limits.most[i])
        owners = [] if codec.loading else list(limits.owners.items())
        for i in range(codec.count(len(owners), 16)):
            if not codec.loading:
                owner, most = owners[i]
            codec.i64(&owner)
            codec.i64(&most)
            if codec.loading:
                if most < 0:
                    raise ValueError(f"a quota of {most} nodes")
                # As Limits.set_owner() keeps it.
                limits.owners[owner] = min(most, UNLIMITED)
        # Of the newest watch: more of them are added while an image is loaded.
        codec.u64(&events.trie.serial)
        if codec.loading:
            limits._follow()
        return 0

    # -- CONN -----------------------------------------------------------------

    cdef int connection(self, Codec codec, Connection c) except -1:
        """All of a connection but who it is and its watches."""
        cdef int64_t target = c.who.target
        cdef Transaction txn
        cdef Listing listing
        cdef Stream stream
        cdef bint there
        cdef size_t i, at
        codec.i64(&target)
        codec.u32(&c.features)
        codec.u64(&c.ops)
        codec.flag(&c.bad)
        codec.flag(&c.ended)
        codec.flag(&c.deaf)
        codec.flag(&c.hung_up)
        codec.flag(&c.stalled)
        codec.flag(&c.awaits)
        codec.raw(&c.asked, sizeof(c.asked))
        codec.u64(&c.used)
        codec.flag(&c.asks_many)
        codec.u32(&c.pace)
        codec.i32(&c.interest)
        codec.f64(&c.credit)
        codec.u32(&c.last_tx)
        codec.i64(&c.replaced)
        codec.i64(&c.most_watches)
        codec.i64(&c.most_transactions)
        codec.u64(&c.generation)
        at = codec.out.tail
        codec.buffer(&c.inp)
        if self.blank:
            memset(&stream, 0, sizeof(stream))
            blank_input(&stream, codec.out.data + at + 4, codec.out.tail - at - 4)
        self.output(codec, c.out)
        if codec.loading:
            self.s.set_target(c, target)
            if c.interest not in (-1, 0, WANT_IN, WANT_OUT, WANT_IN | WANT_OUT):
                raise ValueError(f"it waits for {c.interest}")
        held = [] if codec.loading else list(c.transactions.values())
        for i in range(codec.count(len(held), 64)):
            txn = self.transaction(codec, None if codec.loading else held[i])
            if codec.loading:
                if txn.id in c.transactions:
                    raise ValueError(f"the transaction {txn.id} is there twice")
                c.transactions[txn.id] = txn
                c.recorded_bytes += txn.recorded_bytes
                (<Transactions>self.s.transactions).open += 1
        there = c.listings is not None
        codec.flag(&there)
        if there:
            held = [] if codec.loading else c.listings
            c.listings = held
            for i in range(codec.count(len(held), 20)):
                listing = Listing.__new__(Listing) if codec.loading else held[i]
                self.listing(codec, listing)
                if codec.loading:
                    held.append(listing)
        self.pendings(codec, c)
        there = c.jobs is not None
        codec.flag(&there)
        if there:
            if codec.loading:
                c.jobs = deque()
            held = list(c.jobs)
            for i in range(codec.count(len(held), 21)):
                what = self.told_later(codec, None if codec.loading else held[i])
                if codec.loading:
                    c.jobs.append(what)
            codec.flag(&c.hurried)
            codec.flag(&c.waits)
            if c.waits:
                codec.u64(&c.waits_churn)
                c.waits_since = self.time(codec, c.waits_since)
        return 0

    cdef int output(self, Codec codec, OutQueue out) except -1:
        """What is to be sent, and where in it the events stand that an identical one may be
        merged with."""
        cdef uint64_t sent = out.sent, reply_end = out.reply_end, left = out.part_left
        cdef uint64_t offset, serial
        cdef bint part_event = out.part_left != 0 and out.part_event
        cdef Buffer data
        cdef size_t i, at
        cdef list remembered = []
        data.data = NULL
        data.head = data.tail = data.cap = 0
        codec.u64(&sent)
        codec.u64(&reply_end)
        codec.u64(&left)
        codec.flag(&part_event)
        if codec.loading:
            try:
                codec.buffer(&data)
                if left > buffer_len(&data):
                    raise ValueError(f"{left} bytes of a packet in {buffer_len(&data)} of output")
                out.restore(data.data, buffer_len(&data), left)
            finally:
                buffer_free(&data)
            if left and part_event:
                out.part_event = True
                out.replies -= 1
                out.events += 1
            out.sent = sent
            out.reply_end = reply_end
        else:
            at = codec.out.tail
            codec.buffer(&out.buf)
            if self.blank:
                blank_output(codec.out.data + at + 4, codec.out.tail - at - 4, left, part_event)
            if out.used:
                reply_end = max(sent, reply_end)
                for i in range(out.slots):
                    if out.queued[i].serial and out.queued[i].offset >= reply_end:
                        remembered.append((out.queued[i].offset, out.queued[i].serial))
                remembered.sort()
        for i in range(codec.count(len(remembered), 16)):
            if not codec.loading:
                offset, serial = remembered[i]
            codec.u64(&offset)
            codec.u64(&serial)
            if codec.loading:
                self.remember(out, offset, serial)
        return 0

    cdef int remember(self, OutQueue out, uint64_t offset, uint64_t serial) except -1:
        """An event that stands there in the output."""
        cdef Header head
        cdef const char *p
        cdef const char *nul
        cdef uint64_t hash
        cdef size_t at = offset - out.sent, size = buffer_len(&out.buf)
        cdef Queued *slot
        if offset < out.sent or size < HEADER_SIZE or at > size - HEADER_SIZE or serial == 0:
            raise ValueError(f"an event at byte {offset} of the output")
        p = out.buf.data + out.buf.head + at
        memcpy(&head, p, HEADER_SIZE)
        p += HEADER_SIZE
        if head.len > size - at - HEADER_SIZE:
            raise ValueError(f"an event at byte {offset} of the output")
        nul = <const char *>memchr(p, 0, head.len)
        if nul == NULL:
            raise ValueError(f"an event without a path at byte {offset} of the output")
        hash = path_hash(p, nul - p)
        if out.used * 2 >= out.slots:
            out._resize()
        slot = out._slot(serial, hash)
        out.used += slot.serial == 0
        slot.serial = serial
        slot.hash = hash
        slot.offset = offset
        return 0

    cdef Transaction transaction(self, Codec codec, Transaction txn):
        cdef uint32_t id, type_
        cdef int status
        cdef uint64_t start, epoch, digest
        cdef double since = 0
        cdef Tree base = None
        cdef bytes payload = None
        cdef bint there
        cdef size_t i, at
        if not codec.loading:
            id, start, epoch, since, base = txn.id, txn.start, txn.epoch, txn.since, txn.base
        codec.u32(&id)
        codec.u64(&start)
        codec.u64(&epoch)
        since = self.time(codec, since)
        base = self.tree(codec, base)
        if codec.loading:
            txn = Transaction(id, base, start, epoch, since)
        txn.tree = self.tree(codec, txn.tree)
        codec.u64(&txn.churn)
        codec.i64(&txn.replaced)
        codec.flag(&txn.given_up)
        codec.i64(&txn.recorded_bytes)
        codec.u32(&txn.count)
        codec.flag(&txn.quota_reached)
        there = txn.read_ancestor is not None
        codec.flag(&there)
        if there:
            txn.read_ancestor = self.path(codec, txn.read_ancestor)
        there = txn.written_ancestor is not None
        codec.flag(&there)
        if there:
            txn.written_ancestor = self.path(codec, txn.written_ancestor)
        for i in range(codec.count(len(txn.requests), 20)):
            if not codec.loading:
                type_, payload, status, digest = txn.requests[i]
            codec.u32(&type_)
            at = codec.out.tail
            payload = codec.blob(payload)
            if self.blank:
                if payload is not None:
                    blank_request(type_, codec.out.data + at + 4, len(payload))
                if type_ == XS_READ:
                    digest = 0
            codec.i32(&status)
            codec.u64(&digest)
            if codec.loading:
                # Those without a payload cannot be run again, and may be of a type that is none.
                if payload is not None and type_ >= XS_TYPES:
                    raise ValueError(f"a request of type {type_}")
                if not 0 <= status < ST_COUNT:
                    raise ValueError(f"a request with the status {status}")
                txn.requests.append((type_, payload, status, digest))
        self.changes(codec, txn.changes, 0)
        return txn

    cdef int changes(self, Codec codec, list changes, Py_ssize_t begin) except -1:
        """Those of a transaction from there on: (kind of event, path)."""
        cdef Py_ssize_t i
        cdef int event
        cdef bytes path = None
        for i in range(codec.count(len(changes) - begin, 8)):
            if not codec.loading:
                event, path = changes[begin + i]
            codec.i32(&event)
            path = self.path(codec, path)
            if codec.loading:
                if event not in (EVENT_CHANGED, EVENT_PERMS, EVENT_REMOVED):
                    raise ValueError(f"a change of kind {event}")
                changes.append((event, path))
        return 0

    cdef int listing(self, Codec codec, Listing listing) except -1:
        cdef Node *node = self.node(codec, listing.node)
        codec.u64(&listing.epoch)
        codec.u64(&listing.generation)
        listing.names = codec.blob(listing.names)
        if codec.loading:
            if node == NULL or listing.names is None:
                raise ValueError("a listing of nothing")
            listing.node = node_ref(node)
        return 0

    # -- watches and events ---------------------------------------------------

    cdef int watch_texts(self, Codec codec, Connection c) except -1:
        """The watches of a connection, oldest first; loading: they are only collected."""
        cdef Watch *watch = c.watches
        cdef Loaded one
        cdef size_t n = codec.count(c.watch_count, 20)
        while watch != NULL and watch.owner_next != NULL:
            watch = watch.owner_next
        one.owner = <void *>c
        one.watch = NULL
        for _ in range(n):
            if not codec.loading:
                one.serial = watch.serial
                one.depth = watch.depth
                one.path_len = watch.path_len
                one.token_len = watch.token_len
                one.path = watch.text
                one.token = watch.text + watch.path_len + 1
                watch = watch.owner_prev
            codec.u64(&one.serial)
            codec.u32(&one.depth)
            codec.u32(&one.path_len)
            codec.u32(&one.token_len)
            if not codec.loading:
                codec.raw(<void *>one.path, one.path_len)
                codec.raw(<void *>one.token, one.token_len)
                continue
            one.path = codec.take(one.path_len)
            one.token = codec.take(one.token_len)
            self.collect(&one)
        return 0

    cdef int collect(self, const Loaded *one) except -1:
        cdef Loaded *larger
        if self.watches_used == self.watches_room:
            larger = <Loaded *>realloc(self.watches,
                                       (2 * self.watches_room + 64) * sizeof(Loaded))
            if larger == NULL:
                raise MemoryError()
            self.watches = larger
            self.watches_room = 2 * self.watches_room + 64
        self.watches[self.watches_used] = one[0]
        self.watches_used += 1
        return 0

    cdef int make_watches(self) except -1:
        """Loading: the watches of all connections.  One comes before the older ones on its path,
        and before its owner's older ones."""
        cdef uint64_t newest = self.events.trie.serial
        cdef Connection c
        cdef Path *at = self.s.path
        cdef Loaded *one
        cdef size_t i
        if self.watches_used:
            qsort(self.watches, self.watches_used, sizeof(Loaded), _by_serial)
        for i in range(self.watches_used):
            one = &self.watches[i]
            c = <Connection>one.owner
            if i and one.serial == self.watches[i - 1].serial or not 0 < one.serial <= newest:
                raise ValueError(f"a watch with the number {one.serial}")
            if one.path_len > TEXT_MAX or one.token_len > TEXT_MAX \
                    or not path_parse(at, one.path, one.path_len, c.base, len(c.base), -1):
                raise ValueError(f"a watch on {one.path[:min(one.path_len, 64)]!r}")
            self.events.trie.serial = one.serial - 1
            one.watch = self.events.trie.add(<void *>c, &c.watches, at, one.path, one.path_len,
                                             one.token, one.token_len, one.depth, len(c.base))
            if one.watch == NULL:
                raise ValueError(f"the watch on {one.path[:min(one.path_len, 64)]!r} is there "
                                 "twice")
            c.watch_count += 1
            c.watch_bytes += watch_bytes(one.watch)
        self.events.trie.serial = newest
        return 0

    cdef Watch *watch_of(self, uint64_t serial) except NULL:
        """Loading: the watch of that number."""
        cdef Loaded key
        cdef Loaded *found = NULL
        key.serial = serial
        if self.watches_used:
            found = <Loaded *>bsearch(&key, self.watches, self.watches_used, sizeof(Loaded),
                                      _by_serial)
        if found == NULL:
            raise ValueError(f"there is no watch {serial}")
        return found.watch

    cdef int pendings(self, Codec codec, Connection c) except -1:
        """What waits behind the watches of a connection."""
        cdef Pending pending
        cdef list held = [] if codec.loading else list(c.pending.values() if c.pending else ())
        cdef uint64_t serial
        cdef size_t i
        for i in range(codec.count(len(held), 16)):
            if codec.loading:
                codec.u64(&serial)
                pending = self.new_pending(c, serial)
                c.pending[serial] = pending
            else:
                pending = held[i]
                codec.u64(&pending.serial)
            self.pending(codec, pending)
        serials = [] if codec.loading else list(c.overfull or ())
        for i in range(codec.count(len(serials), 8)):
            if not codec.loading:
                serial = serials[i]
            codec.u64(&serial)
            if codec.loading:
                c.overfull[serial] = c.pending[serial]
        return 0

    cdef Pending new_pending(self, Connection c, uint64_t serial):
        cdef Watch *watch = self.watch_of(serial)
        cdef Pending pending = Pending(c)
        c.begin_waiting()
        if <Connection>watch.owner is not c or serial in c.pending:
            raise ValueError(f"the watch {serial} is another's, or there twice")
        pending.serial = serial
        pending.watch = watch
        return pending

    cdef int pending(self, Codec codec, Pending pending) except -1:
        cdef list held = [] if codec.loading else list(pending.waiting)
        cdef uint64_t k, number, cause
        cdef Account account
        cdef bytes path = None
        cdef size_t i
        for i in range(codec.count(len(held), 12)):
            if not codec.loading:
                path, k = held[i]
            path = codec.blob(path)
            codec.u64(&k)
            if codec.loading:
                self.check_event(pending, path, k)
                self.events.wait(pending, path, k)
        held = [] if codec.loading else list(pending.overflow.items())
        for i in range(codec.count(len(held), 28)):
            if not codec.loading:
                number, (path, k, account) = held[i]
                cause = account.owner.id
            codec.u64(&number)
            path = codec.blob(path)
            codec.u64(&k)
            codec.u64(&cause)
            if codec.loading:
                self.check_event(pending, path, k)
                self.debts.append((number, pending, path, k, cause))
        return 0

    cdef int check_event(self, Pending pending, bytes path, uint64_t k) except -1:
        if path is None or k > self.events.last_event \
                or (path and len(path) < <Py_ssize_t>pending.watch.strip):
            raise ValueError(f"an event of the watch {pending.serial}")
        if k == 0:
            pending.paths.add(path)
        return 0

    cdef int owe(self, uint64_t number, Pending pending, path, k, Connection cause) except -1:
        """Loading: an event on somebody's account."""
        cdef Account account = cause.debts
        if cause.closed or number > self.events.last_debt or number in pending.overflow:
            raise ValueError(f"the event {number} on the account of connection {cause.id}")
        if account is None:
            cause.debts = account = Account(cause)
        pending.overflow[number] = (path, k, account)
        account.owed[number] = pending
        cause.overflowing += 1
        return 0

    cdef int make_debts(self) except -1:
        for number, pending, path, k, cause in sorted(self.debts, key=_number):
            self.owe(number, pending, path, k, self.by_id[cause])
        return 0

    cdef object told_later(self, Codec codec, what):
        """What a connection still has to tell watchers of: a change, or those of a commit."""
        cdef bint commit = isinstance(what, Changes)
        codec.flag(&commit)
        if commit:
            what = Changes.__new__(Changes) if codec.loading else what
            self.commit(codec, what)
        else:
            what = Job.__new__(Job) if codec.loading else what
            self.job(codec, what)
        return what

    cdef int commit(self, Codec codec, Changes changes) except -1:
        """The changes of a commit that are no jobs yet."""
        cdef Node *before
        cdef Node *after
        codec.u64(&changes.newest)
        before = self.root(codec, changes.before)
        after = self.root(codec, changes.after)
        if codec.loading:
            changes.changes = []
            if before == NULL or after == NULL:
                raise ValueError("changes between no trees")
            changes.grave = self.s.tree.grave
            changes.before = node_ref(before)
            changes.after = node_ref(after)
        return self.changes(codec, changes.changes, changes.next)

    cdef int job(self, Codec codec, Job job) except -1:
        """A change whose events are still to be delivered."""
        cdef Search *search = &job.search
        cdef uint64_t next_serial = 0, parts = search.parts
        cdef Node *before
        cdef Node *after
        if not codec.loading and job.begun and search.parked:
            # So that it stands at a watch that is still there.
            path_restore(self.events.path, job.text)
            while search.parked and search.next.owner == NULL:
                self.events.trie.resume(search, self.events.path, job.before)
                self.events.trie.park(search, self.events.path, job.before)
        job.text = self.path(codec, job.text)
        job.name = codec.blob(job.name)
        codec.flag(&job.deep)
        codec.flag(&job.below)
        codec.flag(&job.begun)
        codec.u64(&job.newest)
        before = self.root(codec, job.before)
        after = self.root(codec, job.after)
        if codec.loading:
            job.keep(self.s.tree.grave, before, after)
        if not job.begun:
            return 0
        if codec.loading:
            path_restore(self.events.path, job.text)
            if job.name is not None:
                self.events.trie.search_special(search, job.name, len(job.name))
            else:
                self.events.trie.search(search, self.events.path, job.below)
        parts = search.parts
        next_serial = 0 if codec.loading or search.done else search.next.serial
        codec.u64(&search.newest)
        codec.flag(&search.done)
        codec.flag(&search.own)
        codec.u64(&parts)
        codec.u64(&next_serial)
        if codec.loading:
            search.parts = parts
            if parts > self.events.path.parts:
                raise ValueError(f"a search behind the end of {job.text[:64]!r}")
            if not search.done:
                search.next = self.watch_of(next_serial)
                if search.own and not (job.below and self.is_below(search.next)):
                    raise ValueError(f"the watch {next_serial} is not below {job.text[:64]!r}")
                search.node = search.next.node
                search.next.held += 1
                search.parked = True
        return 0

    cdef bint is_below(self, const Watch *watch) noexcept:
        """Is the watched path below the one in events.path?"""
        cdef const Path *path = self.events.path
        cdef Path *own = self.events.look_at
        return not watch.special and watch_path(watch, own) and own.parts > path.parts \
            and memcmp(own.text, path.text, path.len if path.parts else 0) == 0 \
            and (path.parts == 0 or own.text[path.len] == c"/")

    # -- LATE -----------------------------------------------------------------

    cdef int late(self, Codec codec) except -1:
        cdef History history = self.s.history
        cdef Connection c
        cdef Transaction txn
        cdef bint owed = history.next_credit != 0.0
        cdef uint64_t id, start, commit, mark, newest = 0
        cdef uint32_t tx_id
        cdef int64_t weight
        cdef double since
        cdef Tree before, after
        cdef size_t i, k
        codec.u64(&history.commits)
        codec.u64(&history.churn)
        codec.flag(&owed)
        history.next_credit = self.time(codec, history.next_credit) if owed else 0.0
        held = [] if codec.loading else list(history.recent_transactions.values())
        for i in range(codec.count(len(held), 28)):
            if not codec.loading:
                txn = held[i]
                id, tx_id, start, since = txn.client, txn.id, txn.start, txn.since
            codec.u64(&id)
            codec.u32(&tx_id)
            codec.u64(&start)
            since = self.time(codec, since)
            if codec.loading:
                if (id, tx_id) in self.recent:
                    raise ValueError(f"the transaction {tx_id} of {id} stands there twice")
                self.recent[id, tx_id] = start
        history.paused = self.connections(codec, history.paused)
        history.penalised = self.connections(codec, history.penalised)
        held = [] if codec.loading else list(history.lost.values())
        for i in range(codec.count(len(held), 12)):
            c = None
            marks = []
            if not codec.loading:
                c, by_mark = held[i]
                marks = list(by_mark.items())
            c = self.named(codec, c)
            for k in range(codec.count(len(marks), 16)):
                if not codec.loading:
                    mark, commit = marks[k]
                codec.u64(&mark)
                codec.u64(&commit)
                if codec.loading:
                    history.note_lost(c, mark, commit)
        held = [] if codec.loading else history.changes
        for i in range(codec.count(len(held), 32)):
            c = before = after = None
            if not codec.loading:
                commit, c, before, after, weight, mark = held[i]
            codec.u64(&commit)
            c = self.named(codec, c)
            before = self.tree(codec, before)
            after = self.tree(codec, after)
            codec.i64(&weight)
            codec.u64(&mark)
            if codec.loading:
                if not 0 < weight <= WEIGHT_MAX:
                    raise ValueError(f"a change of weight {weight}")
                if not newest < commit <= history.commits:
                    raise ValueError(f"the change {commit} after the change {newest}")
                newest = commit
                history.keep(commit, c, before, after, weight, mark)
        return 0

    cdef int make_recent(self) except -1:
        """The open transactions that the changes of late are kept for, when all are there."""
        cdef Connection c
        cdef Transaction txn
        for (id, tx_id), start in self.recent.items():
            c = self.by_id.get(id)
            txn = c.transactions.get(tx_id) if c is not None else None
            if txn is not None and txn.start == start:
                self.s.history.recall(c, txn)
        return 0

    cdef object connections(self, Codec codec, by_id):
        """An OrderedDict of connections by their ids."""
        cdef list held = [] if codec.loading else list(by_id.values())
        cdef Connection c
        cdef size_t i
        for i in range(codec.count(len(held), 8)):
            c = self.named(codec, None if codec.loading else held[i])
            if codec.loading:
                by_id[c.id] = c
        return by_id

    # -- TURN -----------------------------------------------------------------

    cdef int turn(self, Codec codec) except -1:
        cdef Agenda agenda = self.server.agenda
        cdef Connection c
        cdef size_t i
        cdef int which
        cdef list held
        codec.u64(&agenda.least)
        codec.u64(&agenda.arrivals)
        for which in range(QUEUES):
            self.queue(codec, which)
        held = []
        if not codec.loading:
            for i in range(agenda.flush_count):
                c = <Connection>agenda.flushing[i]
                if not c.closed:
                    held.append(c)
        for i in range(codec.count(len(held), 8)):
            c = self.named(codec, None if codec.loading else <Connection>held[i])
            if codec.loading:
                agenda.touch(c)
        return 0

    cdef int queue(self, Codec codec, int which) except -1:
        cdef Agenda agenda = self.server.agenda
        cdef Queue *queue = &agenda.queues[which]
        cdef Connection c
        cdef Waiting one
        cdef size_t i, n
        cdef list held = []
        codec.u64(&queue.least)
        codec.u64(&queue.used)
        if not codec.loading:
            for i in range(queue.count):
                c = <Connection>queue.heap[i].connection
                if not c.closed:
                    held.append((queue.heap[i].used, queue.heap[i].order, c))
            held.sort(key=_rank)
        n = codec.count(len(held), 24)
        if codec.loading:
            agenda.make_room(which, n)
        for i in range(n):
            c = None
            if not codec.loading:
                one.used, one.order, c = held[i]
            codec.u64(&one.used)
            codec.u64(&one.order)
            c = self.named(codec, c)
            if codec.loading:
                agenda.append(which, c, one.used, one.order)
        return 0


cdef int _by_serial(const void *a, const void *b) noexcept nogil:
    cdef uint64_t one = (<const Loaded *>a).serial, other = (<const Loaded *>b).serial
    return (one > other) - (one < other)


def _rank(entry):
    return entry[:2]


def _number(debt):
    return debt[0]
