# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions: start, end, commit, replay, blame.

The requests of a transaction run on a snapshot.  Its end commits what they changed: at once
where the store is as it was at the start; by merging where others changed other parts; else by
replaying its requests on the store as it is now.  Where one of them is answered in another way
now, the client has to begin anew (EAGAIN).  For the replay each request is remembered with its
status and a digest of its answer.

All of that is bounded, since guests choose what a transaction does:

- The requests that a guest's open transactions remember, and the nodes that these copied for them,
  take not more than RECORDED_BYTES.
- Running requests again is counted in units of work, about what reading one node takes (see
  _cost).  A commit may spend WORK_REPLAY of them on the replay; what is left of them, and
  WORK_BLAME more, on finding out whose changes were in the way.  That is about a millisecond at
  most.  A transaction that needs more is answered EAGAIN; nobody is blamed for what was not
  looked at, and nobody without a change that made the difference.
- An open transaction keeps the store as it was at its start, so what is replaced since then stays
  in memory.  Where a guest itself has replaced more than PINNED_BYTES since the start of one of its
  own, that one is given up: its end is EAGAIN, and it keeps nothing of then.  What others replace
  must not make it fail; but a guest may open a third one only while all that guests wrote and
  replaced since the starts of its open ones is less than PINNED_BYTES.  And guests that act
  together could keep, with two each, twice as many old stores as they are.  So where all of them
  together have replaced more than PINNED_BYTES, and as much again for each guest that has one open,
  since the start of the oldest one, that is given up, too, once it is older than KEPT_MS: whoever
  is at work on one takes far less.  (For each domain would be too much: ten guests of a thousand
  could keep a hundred times as much each.)
  Changes whose events are still to be told keep the store, too, as it was before and behind them:
  for long where very many watches match, or where a watcher does not read.  By the same rule those
  are hurried, whoever made them: they keep the store of now, whose permissions decide then, and
  wait for no watcher that does not read.
"""

cimport cython
from bisect import bisect_left
from collections import OrderedDict

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from pyxsd._request cimport (
    ROW_DATA, ROW_READ, ROW_REPLAY, prepare, log_request, run,
)
from pyxsd._history cimport History, node_mark
from pyxsd._journal cimport journal_same
from pyxsd._limits cimport PINNED_BYTES, RECORDED_BYTES
from pyxsd._outq cimport path_hash
from pyxsd._wire cimport (
    ST_E2BIG, ST_EAGAIN, ST_EINVAL, ST_OK, XS_DIRECTORY, XS_GET_PERMS, XS_READ, XS_SET_PERMS,
    buffer_free,
)
from pyxsd.store.perms cimport PermEntry
from pyxsd.store.transaction cimport (
    COMMIT_CONFLICT, COMMIT_DONE, COMMIT_MERGED, path_keep, path_restore,
)

cdef enum:
    TX_ID_LIMIT = 1 << 30
    WORK_REPLAY = 8192
    WORK_BLAME = 2048
    SIFTED = 2048            # changes that are looked at one by one at most
    REQUEST_COST = 280       # bytes that a remembered request takes beside its payload, about
    CHANGE_COST = 112        # and a change beside its path
    COPY_COST = 128          # and a node that a transaction has copied
    KEPT_MS = 250            # a transaction that is younger is not given up for what others do


cdef inline int64_t _cost(const Request *r) noexcept:
    """The work of a request that was run, in units of about 0.1 microseconds."""
    cdef int64_t cost = 4 + r.path.parts // 2 + r.payload.n // 64 + (r.answer.tail + r.listed) // 64
    if r.type == XS_GET_PERMS or r.type == XS_SET_PERMS:
        # Each entry is a number, which is read or written, and counted.
        cost += (r.payload.n + r.answer.tail) // 16
    elif r.type == XS_DIRECTORY:
        # Of names of two bytes each takes as long as twice as many bytes.
        cost += r.answer.tail // 64
    return cost


cdef inline int64_t _tree_work(Tree tree) noexcept:
    """A number whose growth is the work, in the same units, that a request has made of the
    nodes that it copied on its path and those that it removed."""
    return 2 * tree.copied - tree.nodes // 8


cdef inline uint64_t _digest(const Request *r, int status) noexcept:
    """What a replay compares of an answer; see path_hash."""
    if not r.row.flags & ROW_DATA or (status != ST_OK and status != ST_E2BIG) \
            or r.answer.tail == 0:
        return 0
    return path_hash(r.answer.data, r.answer.tail)


cdef int note_effect(Transaction txn, Request *r, int status) except -1:
    # A reply too long to be sent was read all the same.
    if r.row.flags & ROW_READ and (status == ST_OK or status == ST_E2BIG):
        txn.note_read(r.path)
    if r.effect.wrote:
        txn.note_write(r.path, r.effect.parts)
    if r.effect.fires:
        txn.changes.append((r.row.event, path_keep(r.path)))
    return 0


@cython.final
cdef class Search:
    """A search for those who made a transaction fail."""

    def __cinit__(self, Connection victim not None, Transaction txn not None):
        self.victim = victim
        self.txn = txn
        self.guilty = set()


@cython.final
cdef class Transactions:
    """The transactions of one server.  config has merge_activate and test_eagain."""

    def __cinit__(self, State s not None, config):
        self.s = s
        self.merge = config.merge_activate
        self.test_eagain = config.test_eagain
        self.keeping = OrderedDict()
        self.waiting = OrderedDict()
        self.path = <Path *>malloc(sizeof(Path))
        if self.path == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.path)
        buffer_free(&self.answer)

    # -- life -----------------------------------------------------------------

    cdef uint32_t _next_id(self, Connection c) except 0:
        """Ids count up from 1, stay below 2^30, and skip those in use."""
        while True:
            c.last_tx = c.last_tx % (TX_ID_LIMIT - 1) + 1
            if c.last_tx not in c.transactions:
                return c.last_tx

    cdef uint32_t start(self, Connection c) except 0:
        cdef State s = self.s
        cdef uint32_t id = self._next_id(c)
        cdef Transaction txn = Transaction(id, s.tree, s.history.commits, s.epoch,
                                           s.history.now)
        txn.churn = s.history.churn
        txn.replaced = c.replaced
        c.transactions[id] = txn
        self.open += 1
        if c.is_guest:
            self.keeping[c.id, id] = txn
            self.keepers += len(c.transactions) == 1
        s.history.note_start(c, txn)
        if s.log.txn_ops:
            s.log.line(c.label, id, b"t start", NULL, 0)
        return id

    cdef int replaced(self, Connection c, int64_t bytes) except -1:
        cdef Transaction txn
        c.replaced += bytes
        self.s.history.churn += bytes
        for txn in c.transactions.values():
            if c.replaced - txn.replaced > PINNED_BYTES:
                self._give_up(c, txn)
        return self._give_up_oldest()

    cdef int _give_up(self, Connection c, Transaction txn) except -1:
        """It keeps the store as it is now from now on, and fails at its end."""
        txn.give_up(self.s.tree)
        c.recorded_bytes -= txn.recorded_bytes
        txn.recorded_bytes = 0
        txn.replaced = c.replaced
        txn.churn = self.s.history.churn
        self.keeping.move_to_end((c.id, txn.id))
        return 0

    cdef int _give_up_oldest(self) except -1:
        """What guests have replaced since the start of the oldest transaction is the most that all
        of them keep, whoever wrote it: the guests together as much as each of them by itself.
        Bytes count twice in `churn`, when they are written and when they are replaced."""
        cdef Transaction txn
        cdef Connection c
        if self.waiting:
            c = next(iter(self.waiting.values()))
            if self._keeps_too_much(c.waits_churn, c.waits_since):
                # What it keeps from now on counts from the next slice of them on.
                self.waits_no_more(c)
                self.s.events.hurry(c, self.s.tree.root)
        if self.keeping:
            key = next(iter(self.keeping))
            txn = self.keeping[key]
            if self._keeps_too_much(txn.churn, txn.since):
                self._give_up(self.s.connections[key[0]], txn)
        return 0

    cdef bint _keeps_too_much(self, uint64_t churn, double since) noexcept:
        cdef History history = self.s.history
        return history.now - since > KEPT_MS * 0.001 and <int64_t>(history.churn - churn) \
            > 2 * PINNED_BYTES * <int64_t>(1 + self.keepers + len(self.waiting))

    cdef int must_wait(self, Connection c) except -1:
        if not c.waits:
            c.waits = True
            c.waits_churn = self.s.history.churn
            c.waits_since = self.s.history.now
            self.waiting[c.id] = c
        return 0

    cdef int waits_no_more(self, Connection c) except -1:
        if c.waits:
            c.waits = False
            self.waiting.pop(c.id, None)
        return 0

    cdef int restored(self) except -1:
        cdef Connection c
        cdef Transaction txn
        cdef list found = []
        self.waiting.clear()
        for _, _, _, c in sorted([(c.waits_churn, c.waits_since, c.id, c)
                                  for c in [*self.s.connections.values(), self.s.events.kernel]
                                  if c.waits]):
            self.waiting[c.id] = c
        for c in self.s.connections.values():
            if c.is_guest:
                for txn in c.transactions.values():
                    found.append((txn.churn, txn.since, c.id, txn.id, txn))
        self.keeping.clear()
        for _, _, id, tx_id, txn in sorted(found):
            self.keeping[id, tx_id] = txn
        self.keepers = len({id for id, _ in self.keeping})
        return 0

    cdef bint pins_too_much(self, Connection c) except -1:
        cdef Transaction txn
        cdef uint64_t pinned = 0
        if not c.is_guest or len(c.transactions) < 2:
            return False
        for txn in c.transactions.values():
            pinned += self.s.history.churn - txn.churn
        return pinned > PINNED_BYTES

    cdef bint remembers_too_much(self, Connection c) except -1:
        cdef Transaction txn
        cdef int64_t bytes = c.recorded_bytes
        if not c.is_guest:
            return False
        for txn in c.transactions.values():
            bytes += COPY_COST * (txn.tree.copied - txn.base.copied)
            bytes += txn.tree.counts_beside(txn.base) + txn.base.counts_beside(self.s.tree)
        return bytes >= RECORDED_BYTES

    cdef int close(self, Connection c, Transaction txn) except -1:
        del c.transactions[txn.id]
        c.at_hand = None
        if c.is_guest:
            self.keeping.pop((c.id, txn.id), None)
            self.keepers -= not c.transactions
        self.s.history.note_end(txn)
        c.recorded_bytes -= txn.recorded_bytes
        self.open -= 1
        return 0

    cdef int drop(self, Connection c) except -1:
        cdef Transaction txn
        self.open -= len(c.transactions)
        self.keepers -= c.is_guest and len(c.transactions) != 0
        for txn in c.transactions.values():
            if c.is_guest:
                self.keeping.pop((c.id, txn.id), None)
            self.s.history.note_end(txn)
        c.transactions.clear()
        c.at_hand = None
        c.recorded_bytes = 0
        self.waits_no_more(c)
        return 0

    cdef int note(self, Transaction txn, Request *r, int status) except -1:
        cdef Connection c = <Connection>r.connection
        cdef bytes payload = None
        cdef int64_t size = REQUEST_COST
        cdef size_t i
        note_effect(txn, r, status)
        if r.row.flags & ROW_REPLAY:
            payload = PyBytes_FromStringAndSize(r.payload.p, r.payload.n)
            size += r.payload.n
        if r.effect.wrote:
            # What it wrote is in the transaction's tree, too.
            size += COPY_COST + r.payload.n
            if r.type == XS_SET_PERMS:
                # And each entry as a number.
                for i in range(r.payload.n):
                    if r.payload.p[i] == 0:
                        size += sizeof(PermEntry)
        if r.effect.fires:
            size += CHANGE_COST + r.path.len
        txn.recorded_bytes += size
        c.recorded_bytes += size
        txn.requests.append((r.type, payload, status, _digest(r, status)))
        return 0

    # -- commit ---------------------------------------------------------------

    cdef int commit(self, Connection c, Transaction txn) except -1:
        cdef State s = self.s
        cdef Tree before = s.tree.snapshot() if s.history.wants(c) else None
        cdef int status
        if self._attempt(c, c.label, txn) == COMMIT_CONFLICT:
            s.log.line(c.label, txn.id, b"conflict", NULL, 0)
            status = self._replay(c, txn)
            if status != ST_OK:
                self.failed += 1
                return status
        s.history.commits += 1
        self.done += 1
        if before is not None:
            s.history.record(c, before, s.tree.snapshot(), txn.recorded_bytes,
                             self._only_node(txn))
        s.events.fire_kept(c, txn.changes, txn.base.root, txn.tree.root)
        return ST_OK

    cdef const Path *_only_node(self, Transaction txn) except? NULL:
        """The path of the node that a transaction changed, where it changed one only."""
        if len(txn.changes) != 1:
            return NULL
        path_restore(self.path, txn.changes[0][1])
        return self.path

    cdef int _attempt(self, Connection c, bytes label, Transaction txn) except -1:
        """One attempt without a replay; COMMIT_*."""
        cdef State s = self.s
        cdef int how = COMMIT_CONFLICT
        cdef bytes text
        if not (self.test_eagain and self._is_to_fail(txn)):
            how = txn.commit(s.tree, s.epoch, self.merge,
                             NULL if c.who.privileged else &s.limits.node)
        if how == COMMIT_DONE:
            s.log.line(label, txn.id, b"commit", NULL, 0)
        elif how == COMMIT_MERGED:
            self.merged += 1
            if txn.written_ancestor is not None:
                text = b"write " + _shown(txn.written_ancestor)
                s.log.line(label, txn.id, b"coalesce", text, len(text))
            if txn.read_ancestor is not None and s.log.read_ops:
                text = b"read " + _shown(txn.read_ancestor)
                s.log.line(label, txn.id, b"coalesce", text, len(text))
        return how

    cdef bint _is_to_fail(self, Transaction txn) noexcept:
        """For test-eagain: one of three, as if at random; yet a server with the same state chooses
        the same."""
        cdef uint64_t seen[3]
        seen[0] = self.failed
        seen[1] = self.s.history.commits
        seen[2] = txn.id
        return path_hash(<const char *>seen, sizeof(seen)) % 3 == 0

    # -- replay ---------------------------------------------------------------

    cdef int _replay(self, Connection c, Transaction txn) except -1:
        """Runs the transaction's requests on the store as it is now; commits them if each is
        answered as it was."""
        cdef State s = self.s
        cdef Transaction again
        cdef uint32_t id = self._next_id(c)
        cdef bytes label = b"r(%d):" % txn.id + c.label
        cdef int status = ST_EAGAIN, same
        if s.log.txn_ops:
            s.log.line(c.label, id, b"t start", NULL, 0)
            s.log.line(label, id, b"t start", NULL, 0)
        again = Transaction(id, s.tree, s.history.commits, s.epoch, s.history.now)
        self.work = WORK_REPLAY
        same = self._rerun(c, txn, again.tree, again, label)
        if same == RERUN_SAME:
            if s.log.txn_ops:
                s.log.line(label, id, b"t end", NULL, 0)
            if self._attempt(c, label, again) == COMMIT_CONFLICT:
                s.log.line(label, id, b"conflict", NULL, 0)
            else:
                status = ST_OK
        elif same == RERUN_DIFFERS:
            status = self._blame(c, txn, label)
        if s.log.txn_ops:
            s.log.line(c.label, id, b"t end", NULL, 0)
        return status

    cdef int _rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                    bytes label) except -1:
        """Are the transaction's requests answered on `tree` as they were?  RERUN_*.  What they
        change there is noted in `into`; label names the log lines.  Without both it is a
        trial."""
        cdef State s = self.s
        cdef Request r
        cdef bytes payload
        cdef int status, now
        cdef uint64_t digest
        cdef int64_t before
        cdef bint alike
        cdef int same = RERUN_SAME
        prepare(&r, c, tree, self.path, &self.answer)
        r.trial = True
        for r.type, payload, status, digest in txn.requests:
            if payload is None:
                return RERUN_CANNOT
            if self.work <= 0:
                return RERUN_TOO_LONG
            r.row = &self.rows[r.type]
            r.tx_id = into.id if into is not None else 0
            r.payload.p = PyBytes_AS_STRING(payload)
            r.payload.n = PyBytes_GET_SIZE(payload)
            r.path.parts = 0
            if label is not None:
                log_request(s, &r, label)
            before = _tree_work(tree)
            now = run(s, &r)
            self.work -= _cost(&r) + max(_tree_work(tree) - before, 0)
            if into is not None:
                note_effect(into, &r, now)
            alike = digest == _digest(&r, now)
            if r.type == XS_READ and now == status:
                alike = journal_same(s.agenda.journal, alike)
            if now != status or not alike:
                same = RERUN_DIFFERS
                break
        return same

    # -- blame ----------------------------------------------------------------

    cdef int _blame(self, Connection c, Transaction txn, bytes label) except -1:
        """Punishes those whose changes made a transaction fail; a status.

        Guilty is who changed the store so that the transaction's requests went through before
        and not after.  Where the changes are so many that there is not enough work for trying each,
        the search looks for one that made the difference, by halves.  Where that is too much, and
        of changes that the history had to forget, the marks are looked at (see _history).
        """
        cdef State s = self.s
        cdef Connection other
        cdef Search search
        cdef Py_ssize_t count
        cdef int64_t cost
        cdef uint64_t mark = 0
        cdef int same = RERUN_SAME
        s.host.log("debug", "process",
                   f"Apportioning blame for EAGAIN in txn {txn.id}, domain={c.label.decode()}")
        search = Search(c, txn)
        if self.path.parts:
            # The replay ended at the request whose answer differs.
            mark = node_mark(self.path)
            for other in s.history.who_changed(mark, txn.start):
                self._accuse(search, other)
        self.work += WORK_BLAME - len(s.history.lost)
        count = self._suspect(search)
        if count:
            cost = self.work
            same = self._try(search, search.changes[search.first][2])
            cost -= self.work
            if same == RERUN_SAME and cost * count > self.work:
                same = self._by_halves(search)
            else:
                same = self._one_by_one(search)
        if same == RERUN_TOO_LONG and not search.guilty and mark:
            self._by_mark(search, mark)
        if same == RERUN_CANNOT:
            # oxenstored's trial fails of it, and so does the request.
            return ST_EINVAL
        if not search.guilty:
            self.no_culprit += 1
            s.host.log("debug", "process", f"Found no culprit for conflict in "
                       f"{label.decode()}: must be self or not in history.")
        return ST_EAGAIN

    cdef Py_ssize_t _suspect(self, Search search) except -1:
        """Finds the changes of others since the transaction's start, oldest first; where there are
        very many, all of them, where they are: to copy the list of those of a thousand guests takes
        milliseconds.  How many there are."""
        cdef list changes = self.s.history.changes
        cdef Py_ssize_t first = bisect_left(changes, (search.txn.start + 1,))
        cdef Py_ssize_t count = len(changes) - first
        if count > SIFTED:
            search.changes = changes
            search.first = first
            return count
        # About 50 nanoseconds each.
        self.work -= count // 2
        search.changes = [change for change in changes[first:]
                          if (<Connection>change[1]) is not search.victim
                          and (<Connection>change[1]).id not in search.guilty]
        return len(search.changes)

    cdef int _try(self, Search search, Tree tree) except -1:
        """Are the transaction's requests answered on that store as they were?  RERUN_*."""
        # Mostly one change begins where the one before it has ended.
        if search.tried is None or search.tried.root != tree.root:
            search.same = self._rerun(search.victim, search.txn, tree.snapshot(), None, None)
            search.tried = tree
        return search.same

    cdef int _one_by_one(self, Search search) except -1:
        """Accuses everybody whose change made a difference; RERUN_*, how the last trial ended."""
        cdef Connection other
        cdef Tree before, after
        cdef Py_ssize_t at
        cdef int same = RERUN_SAME
        for at in range(search.first, len(search.changes)):
            _, other, before, after, _, _ = search.changes[at]
            self.work -= 1
            if self.work <= 0:
                return RERUN_TOO_LONG
            if other is search.victim or other.id in search.guilty:
                continue
            same = self._try(search, before)
            if same == RERUN_SAME:
                same = self._try(search, after)
                if same == RERUN_DIFFERS:
                    self._accuse(search, other)
            if same != RERUN_SAME and same != RERUN_DIFFERS:
                break
        return same

    cdef int _by_halves(self, Search search) except -1:
        """Accuses one whose change made a difference, if it is a change that is kept.  The requests
        are answered as they were before the first one; RERUN_*, how the last trial ended."""
        cdef list changes = search.changes
        cdef Py_ssize_t low = search.first, high = len(changes), middle
        cdef int same
        while high - low > 1:
            middle = (low + high) // 2
            same = self._try(search, changes[middle][2])
            if same == RERUN_SAME:
                low = middle
            elif same == RERUN_DIFFERS:
                high = middle
            else:
                return same
        same = self._try(search, changes[low][3])
        if same == RERUN_DIFFERS:
            self._accuse(search, changes[low][1])
        return same

    cdef int _by_mark(self, Search search, uint64_t mark) except -1:
        """Accuses the first one who changed the node of which the transaction was told something
        else now, where trials would take too long."""
        cdef Connection other
        for _, other, _, _, _, its in search.changes[search.first:search.first + SIFTED]:
            if its == mark:
                return self._accuse(search, other)
        return 0

    cdef int _accuse(self, Search search, Connection other) except -1:
        if other is not search.victim and other.id not in search.guilty:
            search.guilty.add(other.id)
            self._punish(search.victim, search.txn, other)
        return 0

    cdef int _punish(self, Connection c, Transaction txn, Connection guilty) except -1:
        self.s.host.log("debug", "process",
                        f"Blaming domain {guilty.label.decode()} for conflict with domain "
                        f"{c.label.decode()} txn {txn.id}")
        return self.s.history.punish(guilty)


cdef bytes _shown(bytes kept):
    """A kept path as the log shows it."""
    return kept if kept[:1] == b"/" else b"/" + kept
