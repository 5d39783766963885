# SPDX-License-Identifier: LGPL-2.1-or-later
"""One request: from the packet to the reply and its events (floor 2).

Looks up the row of the table, checks transaction, quota and privilege, runs the
handler, answers, remembers the request where a transaction may need it again, and
fires what was changed.  Which requests there are is told from above (rows).

A handler returns a status, an error being no exception; an exception is a bug,
logged with its trace and answered EIO.
"""

import traceback

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, strlen
from pyxsd._accesslog cimport AccessLog, op_label
from pyxsd._conflict cimport RERUN_CANNOT, RERUN_DIFFERS, RERUN_SAME
from pyxsd.store.path cimport path_parse
from pyxsd.store.tree cimport Node
from pyxsd.store.transaction cimport path_keep
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_E2BIG, ST_EACCES, ST_EIO, ST_ENOSPC, ST_ENOSYS, ST_EQUOTA, ST_OK, XS_ERROR,
    XS_RM, XS_SET_PERMS, XS_TYPES, XS_UNWATCH, XS_WATCH, buffer_free, status_name, status_of_name,
)

cdef Row _unknown            # of a type that the table does not have


class RequestError(Exception):
    """How the host says that a request failed: RequestError("EINVAL")."""


cdef class Requests(Transactions):
    """The frame around the handlers, and the state of the request being served."""

    def __cinit__(self, *args, **kwargs):
        self.owner_limits = {}

    def __dealloc__(self):
        buffer_free(&self.answer)

    def configure(self, config, AccessLog log not None):
        """Takes over the limits of a Config."""
        Transactions.configure(self, config, log)
        self.limits.entries = config.quota_maxentity
        self.limits.value = config.quota_maxsize
        self.limits.active = config.quota_activate
        self.limits.by_owner = NULL
        self.max_requests = config.quota_maxrequests
        self.path_max = config.quota_path_max
        self.quota_status = ST_ENOSPC if config.quota_errno == "ENOSPC" else ST_EQUOTA
        self.allow_debug = config.allow_debug

    def close(self):
        """Ends all connections, so that nothing of the server stays behind."""
        Transactions.close(self)
        self.txn = None
        self.work = None
        self.before = None

    cdef int reset(self, Connection c) except -1:
        c.listings = None
        return Transactions.reset(self, c)

    # -- for the handlers -----------------------------------------------------

    cdef bint parse_path(self, Connection c, const char *p, size_t n) noexcept:
        return path_parse(self.path, p, n, c.base, PyBytes_GET_SIZE(c.base), self.path_max)

    cdef bint one_path(self, Connection c, Slice p) noexcept:
        """Exactly one path with its NUL and nothing behind it."""
        if p.n == 0 or <const char *>memchr(p.p, 0, p.n) != p.p + p.n - 1:
            return False
        return self.parse_path(c, p.p, p.n - 1)

    # -- serving --------------------------------------------------------------

    cdef const Row *row(self, uint32_t type) noexcept:
        return &self.rows[type] if type < XS_TYPES else &_unknown

    cdef int run(self, const Row *row, Connection c, Slice p) except -1:
        """Runs a handler on self.work; the status.  See answer and effect."""
        self.answer.head = self.answer.tail = 0
        self.effect.fires = self.effect.wrote = False
        if row.handler == NULL:
            return ST_ENOSYS
        if row.flags & ROW_PRIVILEGED and not c.who.privileged:
            return ST_EACCES
        try:
            return row.handler(self, c, p)
        except RequestError as error:
            name = str(error).encode()
            return status_of_name(name, len(name))
        except Exception:
            self.host.log("error", "process", "request failed:\n" + traceback.format_exc())
            return ST_EIO

    cdef int request(self, Connection c, const Header *head, const char *payload) except -1:
        cdef uint32_t type = head.type
        cdef const Row *row = self.row(type)
        cdef Transaction txn = None
        cdef Tree before = None
        cdef Slice p
        cdef int status = ST_OK
        p.p = payload
        p.n = head.len
        self.tx_id = head.tx_id
        self.work = self.tree
        self.live = True
        self.fresh = NULL
        self.effect.fires = self.effect.wrote = False
        if self.tx_id and type != XS_WATCH and type != XS_UNWATCH:
            txn = c.transactions.get(self.tx_id)
            if txn is None:
                status = ST_EIO
            else:
                self.work = txn.tree
                self.live = False
        if self.max_requests >= 0 and not c.who.privileged and status == ST_OK \
                and (self.max_requests == 0 or
                     (txn is not None and <Py_ssize_t>txn.count >= self.max_requests)):
            status = self.quota_status
            if txn is not None:
                txn.quota_reached = True
        if status == ST_OK:
            if self.young and txn is None and row.flags & ROW_CHANGE and not c.socket \
                    and c.who.domid != 0:
                before = self.tree.snapshot()
            self.txn = txn
            status = self.run(row, c, p)
            self.txn = None
            if status == ST_EQUOTA:
                status = self.quota_status
            if txn is not None and status != ST_EIO:
                # oxenstored does not remember a request that failed with EIO.
                txn.count += 1
                if c.transactions.get(txn.id) is txn:
                    self._note(txn, row, type, status)
                    txn.requests.append((
                        type, PyBytes_FromStringAndSize(payload, head.len)
                        if row.flags & ROW_REPLAY else None, status,
                        PyBytes_FromStringAndSize(self.answer.data, self.answer.tail)
                        if row.flags & ROW_DATA and self.answer.tail else None))
            elif txn is None and (self.effect.wrote or before is not None):
                # The history keeps every request that may write, as oxenstored's.
                self.commits += 1
                self.writes += self.effect.wrote
                if before is not None:
                    self.record(c, before)
        if c.closed:
            # It released its own domain.
            self.work = self.tree
            return 0
        self._log_request(row, c.label, self.tx_id, type, payload, head.len)
        self._answer(c, row, head, status)
        if self.fresh != NULL:
            self.first_event(c, self.fresh)
        elif txn is None and self.effect.fires and self.live:
            self.effect.fires = False
            self._fire_change(c, type)
        # Nothing of a finished request, or of its transaction, is kept alive.
        self.before = None
        self.work = self.tree
        return 0

    cdef int _answer(self, Connection c, const Row *row, const Header *head, int status) except -1:
        cdef uint32_t tx_id = head.tx_id
        cdef const char *name
        if head.type == XS_WATCH or head.type == XS_UNWATCH:
            tx_id = 0
        if status == ST_OK and row.flags & ROW_DATA and self.answer.tail > PAYLOAD_MAX:
            status = ST_E2BIG
        if status != ST_OK:
            name = status_name(status)
            return self.reply(c, XS_ERROR, head.req_id, tx_id, name, strlen(name) + 1)
        if row.flags & ROW_DATA:
            return self.reply(c, head.type, head.req_id, tx_id, self.answer.data, self.answer.tail)
        return self.reply(c, head.type, head.req_id, tx_id, b"OK", 3)

    cdef int _log_request(self, const Row *row, bytes label, uint32_t tx_id, uint32_t type,
                          const char *p, size_t n) except -1:
        if not self.log.active or row.flags & ROW_LOG_NEVER \
                or (row.flags & ROW_LOG_READ and not self.log.read_ops) \
                or (row.flags & ROW_LOG_SPECIAL and not self.log.special_ops):
            return 0
        return self.log.line(label, tx_id, op_label(type if row.handler != NULL else XS_TYPES),
                             p, n)

    cdef int _note(self, Transaction txn, const Row *row, uint32_t type, int status) except -1:
        """What a request in a transaction read and wrote."""
        if row.flags & ROW_READ and status == ST_OK:
            txn.note_read(self.path)
        if self.effect.wrote:
            txn.note_write(self.path, self.effect.parts)
        if self.effect.fires:
            txn.changes.append((type, path_keep(self.path)))
        return 0

    cdef int _fire_change(self, Connection c, uint32_t type) except -1:
        """The events of a change outside a transaction."""
        cdef Tree before = self.before
        cdef Node *old = before.root if before is not None else NULL
        if type == XS_RM:
            return self.fire(c, self.path, old, NULL, True) if old != NULL else 0
        if type == XS_SET_PERMS:
            return self.fire(c, self.path, old, self.tree.root, False)
        return self.fire(c, self.path, NULL, self.tree.root, False)

    # -- serving again --------------------------------------------------------

    cdef int rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                   bytes label) except -1:
        cdef Tree work = self.work
        cdef const Row *row
        cdef uint32_t type
        cdef bytes payload, reply
        cdef int status, now
        cdef Slice p
        cdef int same = RERUN_SAME
        self.work = tree
        self.live = False
        for type, payload, status, reply in txn.requests:
            if payload is None:
                same = RERUN_CANNOT
                break
            p.p = PyBytes_AS_STRING(payload)
            p.n = PyBytes_GET_SIZE(payload)
            row = self.row(type)
            if label is not None:
                self._log_request(row, label, into.id, type, p.p, p.n)
            now = self.run(row, c, p)
            if now == ST_EQUOTA:
                now = self.quota_status
            if into is not None:
                self._note(into, row, type, now)
            if now != status or not self._same_answer(row, status, reply):
                same = RERUN_DIFFERS
                break
        self.work = work
        self.effect.fires = self.effect.wrote = False
        self.answer.tail = 0
        return same

    cdef bint _same_answer(self, const Row *row, int status, bytes reply) noexcept:
        cdef size_t n
        if not row.flags & ROW_DATA or status != ST_OK:
            return True
        n = 0 if reply is None else PyBytes_GET_SIZE(reply)
        return self.answer.tail == n \
            and (n == 0 or memcmp(self.answer.data, PyBytes_AS_STRING(reply), n) == 0)
