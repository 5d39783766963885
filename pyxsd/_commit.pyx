# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions in the server: start, end, commit, replay (floor 2).

The requests of a transaction run on a snapshot.  Its end commits what they
changed: at once where the store is as it was, by merging where others changed
other parts, else by running its requests again on the store as it is; where one
of them is answered in another way now, the client has to begin anew (EAGAIN).
"""

import random

from libc.stdlib cimport free, malloc
from pyxsd._accesslog cimport AccessLog
from pyxsd._conflict cimport RERUN_DIFFERS, RERUN_SAME
from pyxsd.store.tree cimport Tree
from pyxsd.store.transaction cimport COMMIT_CONFLICT, COMMIT_DONE, COMMIT_MERGED, path_restore
from pyxsd._wire cimport ST_EAGAIN, ST_OK, XS_RM, XS_SET_PERMS

cdef enum:
    TX_ID_LIMIT = 1 << 30


cdef class Transactions(Conflicts):
    """The open transactions of all connections."""

    def __cinit__(self, *args, **kwargs):
        self.path = <Path *>malloc(sizeof(Path))
        if self.path == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.path)

    def configure(self, config, AccessLog log not None):
        """Takes over the limits of a Config."""
        Conflicts.configure(self, config, log)
        self.merge_activate = config.merge_activate
        self.test_eagain = config.test_eagain

    cdef int reset(self, Connection c) except -1:
        self.drop_transactions(c)
        return Conflicts.reset(self, c)

    cdef int drop_transactions(self, Connection c) except -1:
        self.open_transactions -= len(c.transactions)
        c.transactions.clear()
        return 0

    cdef int start(self, Connection c, uint32_t *id) except -1:
        """Opens a transaction of c under the next free id."""
        cdef Transaction txn
        id[0] = self._next_tx_id(c)
        txn = Transaction(id[0], self.tree, self.commits, self.epoch, self.now)
        c.transactions[id[0]] = txn
        self.open_transactions += 1
        # Only numbers: an ended transaction must not be kept alive.
        self.young.append((c.id, id[0], self.commits, self.now))
        if len(self.young) > 64:
            self.trim_history()
        if self.log.txn_ops:
            self.log.line(c.label, id[0], b"t start", NULL, 0)
        return 0

    def _next_tx_id(self, Connection c):
        """Ids count up from 1, stay below 2^30, and skip those in use."""
        while True:
            c.last_tx = c.last_tx % (TX_ID_LIMIT - 1) + 1
            if c.last_tx not in c.transactions:
                return c.last_tx

    cdef int end(self, Connection c, Transaction txn) except -1:
        """Commits a transaction with writes, if need be by replaying it."""
        cdef Tree before = None
        cdef int status
        if self.young and not c.socket and c.who.domid != 0:
            before = self.tree.snapshot()
        if self._commit(c.label, txn) == COMMIT_CONFLICT:
            self.log.line(c.label, txn.id, b"conflict", NULL, 0)
            status = self._replay(c, txn)
            if status != ST_OK:
                self.transactions_failed += 1
                return status
        self.commits += 1
        self.transactions_done += 1
        if before is not None:
            self.record(c, before)
        self._fire_transaction(c, txn)
        return ST_OK

    cdef int _commit(self, bytes label, Transaction txn) except -1:
        """One attempt without a replay; COMMIT_*."""
        cdef int how = COMMIT_CONFLICT
        cdef bytes text
        if not (self.test_eagain and random.randrange(3) == 0):
            how = txn.commit(self.tree, self.epoch, self.merge_activate)
        if how == COMMIT_DONE:
            self.log.line(label, txn.id, b"commit", NULL, 0)
        elif how == COMMIT_MERGED:
            self.transactions_merged += 1
            if txn.written_ancestor is not None:
                text = b"write " + _shown(txn.written_ancestor)
                self.log.line(label, txn.id, b"coalesce", text, len(text))
            if txn.read_ancestor is not None and self.log.read_ops:
                text = b"read " + _shown(txn.read_ancestor)
                self.log.line(label, txn.id, b"coalesce", text, len(text))
        return how

    cdef int _fire_transaction(self, Connection c, Transaction txn) except -1:
        cdef uint32_t type
        if self.trie.count == 0:
            return 0
        for type, path in txn.changes:
            path_restore(self.path, path)
            if type == XS_RM:
                self.fire(c, self.path, txn.base.root, NULL, True)
            elif type == XS_SET_PERMS:
                self.fire(c, self.path, txn.base.root, txn.tree.root, False)
            else:
                self.fire(c, self.path, NULL, txn.tree.root, False)
        return 0

    cdef int _replay(self, Connection c, Transaction txn) except -1:
        """Runs the transaction's requests on the store as it is now; commits
        them if each is answered as it was."""
        cdef Transaction again
        cdef uint32_t id = self._next_tx_id(c)
        cdef bytes label = b"r(%d):" % txn.id + c.label
        cdef int status = ST_EAGAIN, same
        if self.log.txn_ops:
            self.log.line(c.label, id, b"t start", NULL, 0)
            self.log.line(label, id, b"t start", NULL, 0)
        again = Transaction(id, self.tree, self.commits, self.epoch, self.now)
        same = self.rerun(c, txn, again.tree, again, label)
        if same == RERUN_SAME:
            if self.log.txn_ops:
                self.log.line(label, id, b"t end", NULL, 0)
            if self._commit(label, again) == COMMIT_CONFLICT:
                self.log.line(label, id, b"conflict", NULL, 0)
            else:
                status = ST_OK
        elif same == RERUN_DIFFERS:
            status = self.blame(c, txn, label)
        if self.log.txn_ops:
            self.log.line(c.label, id, b"t end", NULL, 0)
        return status


cdef bytes _shown(bytes kept):
    """A kept path as the log shows it."""
    return kept if kept[:1] == b"/" else b"/" + kept
