# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions: start, end, commit, replay, blame.

The requests of a transaction run on a snapshot.  Its end commits what they changed: at once
where the store is as it was at the start; by merging where others changed other parts; else by
replaying its requests on the store as it is now.  Where one of them is answered in another way
now, the client has to begin anew (EAGAIN).  For the replay each request is remembered with its
status and a digest of its answer.

All of that is bounded, since guests choose what a transaction does:

- The requests that a guest's open transactions remember take not more than RECORDED_BYTES.
- Running requests again is counted in units of work, about what reading one node takes (see
  _cost).  A commit may spend WORK_REPLAY of them on the replay; what is left of them, and
  WORK_BLAME more, on finding out whose changes were in the way.  That is about a millisecond at
  most.  A transaction that needs more is answered EAGAIN; nobody is blamed for what was not
  looked at.
- An open transaction keeps the store as it was at its start, so what is replaced since then stays
  in memory.  A guest may open a third one only while all that guests wrote since the starts of its
  open ones is less than PINNED_BYTES.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from pyxsd._request cimport (
    ROW_DATA, ROW_READ, ROW_REPLAY, prepare, log_request, run,
)
from pyxsd._limits cimport PINNED_BYTES
from pyxsd._outq cimport path_hash
from pyxsd._wire cimport ST_E2BIG, ST_EAGAIN, ST_EINVAL, ST_OK, buffer_free
from pyxsd.store.transaction cimport (
    COMMIT_CONFLICT, COMMIT_DONE, COMMIT_MERGED, path_keep,
)

cdef enum:
    TX_ID_LIMIT = 1 << 30
    WORK_REPLAY = 8192
    WORK_BLAME = 2048
    REQUEST_COST = 120       # bytes that a remembered request takes beside its payload


cdef inline int64_t _cost(const Request *r) noexcept:
    """The work of a request that was run, in units of about 0.1 microseconds."""
    return 4 + r.path.parts // 2 + r.payload.n // 64 + (r.answer.tail + r.listed) // 64


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
cdef class Transactions:
    """The transactions of one server.  config has merge_activate and test_eagain."""

    def __cinit__(self, State s not None, config):
        self.s = s
        self.merge = config.merge_activate
        if config.test_eagain:
            # Here, since hardly any daemon needs it.
            from random import randrange
            self.randrange = randrange
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
        c.transactions[id] = txn
        self.open += 1
        s.history.note_start(c, id)
        if s.log.txn_ops:
            s.log.line(c.label, id, b"t start", NULL, 0)
        return id

    cdef bint pins_too_much(self, Connection c) except -1:
        cdef Transaction txn
        cdef uint64_t pinned = 0
        if not c.is_guest or len(c.transactions) < 2:
            return False
        for txn in c.transactions.values():
            pinned += self.s.history.churn - txn.churn
        return pinned > PINNED_BYTES

    cdef int close(self, Connection c, Transaction txn) except -1:
        del c.transactions[txn.id]
        c.recorded_bytes -= txn.recorded_bytes
        self.open -= 1
        return 0

    cdef int drop(self, Connection c) except -1:
        self.open -= len(c.transactions)
        c.transactions.clear()
        c.recorded_bytes = 0
        return 0

    cdef int note(self, Transaction txn, Request *r, int status) except -1:
        cdef Connection c = <Connection>r.connection
        cdef bytes payload = None
        cdef int64_t size = REQUEST_COST
        note_effect(txn, r, status)
        if r.row.flags & ROW_REPLAY:
            payload = PyBytes_FromStringAndSize(r.payload.p, r.payload.n)
            size += r.payload.n
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
            s.history.record(c, before, s.tree.snapshot(), txn.recorded_bytes)
        s.events.fire_kept(c, txn.changes, txn.base.root, txn.tree.root)
        return ST_OK

    cdef int _attempt(self, Connection c, bytes label, Transaction txn) except -1:
        """One attempt without a replay; COMMIT_*."""
        cdef State s = self.s
        cdef int how = COMMIT_CONFLICT
        cdef bytes text
        if self.randrange is None or self.randrange(3) != 0:
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
            if now != status or digest != _digest(&r, now):
                same = RERUN_DIFFERS
                break
        return same

    # -- blame ----------------------------------------------------------------

    cdef int _blame(self, Connection c, Transaction txn, bytes label) except -1:
        """Punishes those whose changes made a transaction fail; a status.

        Guilty is who changed the store so that the transaction's requests went through before
        and not after; and who made so heavy changes since the transaction's start that the
        history had to forget some.
        """
        cdef State s = self.s
        cdef Connection other
        cdef Tree before, after
        cdef Tree tried = None       # the store of the last trial, and how it ended
        cdef int same = RERUN_DIFFERS
        cdef set guilty = set()
        s.host.log("debug", "process",
                   f"Apportioning blame for EAGAIN in txn {txn.id}, domain={c.label.decode()}")
        self.work += WORK_BLAME
        for other, commit in s.history.lost.values():
            if commit > txn.start and other is not c:
                self._punish(c, txn, other)
                guilty.add(other.id)
        for commit, other, before, after, _ in s.history.changes:
            self.work -= 1
            if self.work <= 0:
                break
            if commit <= txn.start or other is c or other.id in guilty:
                continue
            # Mostly one change begins where the one before it has ended.
            if tried is None or tried.root != before.root:
                same = self._rerun(c, txn, before.snapshot(), None, None)
                tried = before
            if same == RERUN_SAME:
                same = self._rerun(c, txn, after.snapshot(), None, None)
                tried = after
                if same == RERUN_SAME:
                    continue
            elif same == RERUN_DIFFERS:
                continue
            if same == RERUN_TOO_LONG:
                break
            if same == RERUN_CANNOT:
                # oxenstored's trial fails of it, and so does the request.
                return ST_EINVAL
            self._punish(c, txn, other)
            guilty.add(other.id)
        if not guilty:
            self.no_culprit += 1
            s.host.log("debug", "process", f"Found no culprit for conflict in "
                       f"{label.decode()}: must be self or not in history.")
        return ST_EAGAIN

    cdef int _punish(self, Connection c, Transaction txn, Connection guilty) except -1:
        self.s.host.log("debug", "process",
                        f"Blaming domain {guilty.label.decode()} for conflict with domain "
                        f"{c.label.decode()} txn {txn.id}")
        return self.s.history.punish(guilty)


cdef bytes _shown(bytes kept):
    """A kept path as the log shows it."""
    return kept if kept[:1] == b"/" else b"/" + kept
