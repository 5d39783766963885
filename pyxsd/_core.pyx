# SPDX-License-Identifier: LGPL-2.1-or-later
"""The server: the table of requests and its handlers (floor 2).

A handler returns a status, an error being no exception; an exception is a bug,
logged with its trace and answered EIO.  Rare requests go up to the host:

    introduce(connection, domid, mfn, port), release(connection, domid),
    resume(connection, domid)       None, or RequestError
    control(connection, payload)    the payload of the answer
    extension(connection, type, payload)   the same, for types 23 to 26
    log(level, facility, text)      a line for the daemon log
"""

import random
import traceback
from collections import OrderedDict, deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, strlen
from pyxsd._accesslog cimport AccessLog, op_label
from pyxsd._nodes cimport (
    node_directory, node_get_perms, node_mkdir, node_read, node_rm, node_set_perms, node_write,
)
from pyxsd._path cimport path_parse
from pyxsd._perms cimport PERM_READ, perms_allow
from pyxsd._store cimport Node, node_ref, node_unref
from pyxsd._txn cimport COMMIT_CONFLICT, COMMIT_DONE, COMMIT_MERGED, path_keep, path_restore
from pyxsd._watch cimport DEPTH_ANY
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_E2BIG, ST_EACCES, ST_EAGAIN, ST_EBUSY, ST_EEXIST, ST_EINVAL, ST_EIO,
    ST_ENOENT, ST_ENOSPC, ST_ENOSYS, ST_EQUOTA, ST_OK, XS_CONTROL, XS_DIRECTORY,
    XS_DIRECTORY_PART, XS_ERROR, XS_GET_DOMAIN_PATH, XS_GET_FEATURE, XS_GET_PERMS, XS_GET_QUOTA,
    XS_INTRODUCE, XS_IS_DOMAIN_INTRODUCED, XS_MKDIR, XS_READ, XS_RELEASE, XS_RESET_WATCHES,
    XS_RESUME, XS_RM, XS_SET_FEATURE, XS_SET_PERMS, XS_SET_QUOTA, XS_SET_TARGET,
    XS_TRANSACTION_END, XS_TRANSACTION_START, XS_TYPES, XS_UNWATCH, XS_WATCH,
    XS_WATCH_EVENT, XS_WRITE,
    buffer_free, buffer_put, lenient_int, status_name,
    status_of_name, strict_int,
)

cdef enum:
    DOMID_SELF = 0x7ff0
    TX_ID_LIMIT = 1 << 30
    LISTINGS = 8             # directories whose generation a connection remembers
    HISTORY_MAX = 4096       # changes kept to find culprits in
    BLAME_BUDGET = 16384     # requests replayed to find the culprits of one conflict


class RequestError(Exception):
    """How the host says that a request failed: RequestError("EINVAL")."""


# -- payloads -----------------------------------------------------------------

cdef inline bint _cut(Slice *rest, Slice *piece) noexcept:
    """The bytes before the next NUL, which is dropped; False without a NUL."""
    cdef const char *nul
    if rest.n == 0:
        return False
    nul = <const char *>memchr(rest.p, 0, rest.n)
    if nul == NULL:
        return False
    piece.p = rest.p
    piece.n = nul - rest.p
    rest.n -= piece.n + 1
    rest.p = nul + 1
    return True


cdef inline bint _take(Slice *rest, Slice *piece) noexcept:
    """Like _cut, but the last piece may lack its NUL."""
    if _cut(rest, piece):
        return True
    if rest.n == 0:
        return False
    piece[0] = rest[0]
    rest.n = 0
    return True


cdef inline bint _strict_domid(Slice *rest, int64_t *domid) noexcept:
    cdef Slice piece
    return _take(rest, &piece) and strict_int(piece.p, piece.n, domid)


# -- handlers: nodes ----------------------------------------------------------

cdef int _h_read(Server s, Connection c, Slice p) except -1:
    if not s._one_path(c, p):
        return ST_EINVAL
    return node_read(s.work, s.path, &c.who, &s.answer)


cdef int _h_directory(Server s, Connection c, Slice p) except -1:
    if not s._one_path(c, p):
        return ST_EINVAL
    return node_directory(s.work, s.path, &c.who, &s.answer, PAYLOAD_MAX)


cdef int _h_get_perms(Server s, Connection c, Slice p) except -1:
    if not s._one_path(c, p):
        return ST_EINVAL
    return node_get_perms(s.work, s.path, &c.who, &s.answer)


cdef int _h_write(Server s, Connection c, Slice p) except -1:
    cdef Slice path
    if not _cut(&p, &path) or not s._parse_path(c, path.p, path.n):
        return ST_EINVAL
    return node_write(s.work, s.path, &c.who, &s.limits, p, &s.effect)


cdef int _h_mkdir(Server s, Connection c, Slice p) except -1:
    if not s._one_path(c, p):
        return ST_EINVAL
    return node_mkdir(s.work, s.path, &c.who, &s.limits, &s.effect)


cdef inline int _keep_before(Server s) except -1:
    """Events of removals and of new permissions look at the tree before them."""
    if s.live and s.trie.count and s.trie.touched(s.path):
        s.before = s.tree.snapshot()
    return 0


cdef int _h_rm(Server s, Connection c, Slice p) except -1:
    if not s._one_path(c, p):
        return ST_EINVAL
    _keep_before(s)
    return node_rm(s.work, s.path, &c.who, &s.effect)


cdef int _h_set_perms(Server s, Connection c, Slice p) except -1:
    cdef Slice path
    if not _cut(&p, &path) or not s._parse_path(c, path.p, path.n):
        return ST_EINVAL
    _keep_before(s)
    return node_set_perms(s.work, s.path, &c.who, p, &s.effect)


@cython.final
@cython.no_gc
cdef class _Listing:
    """A directory as DIRECTORY_PART saw it.

    The reference keeps the node from being changed in place, so a change of it
    or of anything below makes another node of it.
    """
    cdef Node *node
    cdef uint64_t epoch      # of the store: a change of it touched every node
    cdef uint64_t gencnt
    cdef bytes names

    def __dealloc__(self):
        if self.node != NULL:
            node_unref(self.node)


cdef int _h_directory_part(Server s, Connection c, Slice p) except -1:
    cdef Slice path, number
    cdef int64_t offset
    cdef Node *node
    cdef _Listing listing
    cdef size_t room, end
    cdef char text[24]
    cdef int digits
    cdef const char *names
    if c.who.domid != 0:
        return ST_EINVAL
    if not _cut(&p, &path) or not _take(&p, &number) \
            or not strict_int(number.p, number.n, &offset) \
            or not s._parse_path(c, path.p, path.n):
        return ST_EINVAL
    node = s.work.find(s.path)
    if node == NULL:
        return ST_ENOENT
    if not perms_allow(node.perms, &c.who, PERM_READ):
        return ST_EACCES
    if offset < 0:
        return ST_EINVAL
    if c.listings is None:
        c.listings = []
    for listing in c.listings:
        if listing.node == node and listing.epoch == s.epoch:
            c.listings.remove(listing)
            break
    else:
        node_directory(s.work, s.path, &c.who, &s.answer, <size_t>-1)
        listing = _Listing.__new__(_Listing)
        listing.names = s.answer.data[s.answer.head:s.answer.tail] \
            if s.answer.data != NULL else b""
        listing.node = node_ref(node)
        listing.epoch = s.epoch
        c.gencnt += 1
        listing.gencnt = c.gencnt
        s.answer.tail = s.answer.head
    c.listings.insert(0, listing)
    del c.listings[LISTINGS:]
    digits = snprintf(text, sizeof(text), b"%llu", <unsigned long long>listing.gencnt)
    buffer_put(&s.answer, text, digits + 1)
    end = PyBytes_GET_SIZE(listing.names)
    if <size_t>offset >= end:
        return buffer_put(&s.answer, b"", 1)
    names = PyBytes_AS_STRING(listing.names) + offset
    end -= offset
    room = PAYLOAD_MAX - 2 - (digits + 1)
    if end <= room:
        buffer_put(&s.answer, names, end)
        return buffer_put(&s.answer, b"", 1)
    # Only whole names.
    while room and names[room - 1] != 0:
        room -= 1
    return buffer_put(&s.answer, names, room)


# -- handlers: watches --------------------------------------------------------

cdef bint _one_release(const Path *path) noexcept:
    """"@releaseDomain/<domid>": watched itself, not by depth."""
    cdef size_t i
    if path.size[0] < 16 or memcmp(path.text + 1, b"@releaseDomain/", 15) != 0:
        return False
    for i in range(16, path.len):
        if path.text[i] < c"0" or path.text[i] > c"9":
            return False
    return True


cdef int _h_watch(Server s, Connection c, Slice p) except -1:
    cdef Slice path, token, number
    cdef int64_t depth = 0
    cdef bint deep = False
    cdef Watch *watch
    if not _cut(&p, &path) or not _cut(&p, &token):
        return ST_EINVAL
    if p.n:
        deep = True
        if not _cut(&p, &number) or p.n or number.n == 0 or number.p[0] < c"0" \
                or not strict_int(number.p, number.n, &depth):
            return ST_EINVAL
    if not path_parse(s.path, path.p, path.n, c.base, len(c.base), -1):
        return ST_EINVAL
    if s.path.special and deep and (depth != 1 or _one_release(s.path)):
        return ST_EINVAL
    if s.limits.active and c.max_watches > 0 and not c.who.privileged \
            and <Py_ssize_t>c.watch_count > c.max_watches:
        return ST_EQUOTA
    watch = s.trie.add(<void *>c, &c.watches, s.path, path.p, path.n, token.p, token.n,
                       <uint32_t>min(depth, 0xfffffffe) if deep else DEPTH_ANY, len(c.base))
    if watch == NULL:
        return ST_EEXIST
    c.watch_count += 1
    s.fresh = watch
    return ST_OK


cdef int _h_unwatch(Server s, Connection c, Slice p) except -1:
    cdef Slice path, token
    cdef Watch *watch
    if not _cut(&p, &path) or not _cut(&p, &token) or p.n or path.n == 0:
        return ST_EINVAL
    if not path_parse(s.path, path.p, path.n, c.base, len(c.base), -1):
        return ST_ENOENT
    watch = s.trie.find(<void *>c, s.path, token.p, token.n)
    if watch == NULL:
        return ST_ENOENT
    s.remove_watch(c, watch)
    return ST_OK


cdef int _h_reset_watches(Server s, Connection c, Slice p) except -1:
    s.drop_watches(c)
    s.forget_connection(c)
    return ST_OK


# -- handlers: transactions ---------------------------------------------------

cdef int _h_transaction_start(Server s, Connection c, Slice p) except -1:
    cdef uint32_t id = 0
    cdef char text[16]
    if s.tx_id:
        return ST_EBUSY
    if c.max_transactions > 0 and not c.who.privileged \
            and len(c.transactions) > c.max_transactions:
        return ST_EQUOTA
    s._start(c, &id)
    buffer_put(&s.answer, text, snprintf(text, sizeof(text), b"%u", id) + 1)
    return ST_OK


cdef int _h_transaction_end(Server s, Connection c, Slice p) except -1:
    cdef const char *nul = <const char *>memchr(p.p, 0, p.n) if p.n else NULL
    cdef Transaction txn = s.txn
    if nul != NULL:
        p.n = nul - p.p
    if p.n != 1 or (p.p[0] != c"T" and p.p[0] != c"F"):
        return ST_EINVAL
    if txn is None:
        return ST_ENOENT
    del c.transactions[txn.id]
    s.open_transactions -= 1
    if s.log.txn_ops:
        s.log.line(c.label, txn.id, b"t end", NULL, 0)
    if p.p[0] == c"F" or not txn.changes:
        return ST_OK
    return s._end(c, txn)


# -- handlers: domains --------------------------------------------------------

cdef int _h_get_domain_path(Server s, Connection c, Slice p) except -1:
    cdef Slice number
    cdef char text[48]
    if not _cut(&p, &number) or p.n:
        return ST_EINVAL
    buffer_put(&s.answer, text, 1 + snprintf(
        text, sizeof(text), b"/local/domain/%lld", <long long>lenient_int(number.p, number.n)))
    return ST_OK


cdef int _h_is_introduced(Server s, Connection c, Slice p) except -1:
    cdef int64_t domid
    if not _strict_domid(&p, &domid):
        return ST_EINVAL
    return buffer_put(&s.answer, b"T" if domid == DOMID_SELF or domid in s.domains else b"F", 2)


cdef int _h_introduce(Server s, Connection c, Slice p) except -1:
    cdef Slice domid_text, mfn_text
    cdef int64_t domid, mfn, port
    if not _cut(&p, &domid_text) or not _cut(&p, &mfn_text) or not _strict_domid(&p, &port):
        return ST_EINVAL
    if not strict_int(mfn_text.p, mfn_text.n, &mfn):
        return ST_EIO
    if not strict_int(domid_text.p, domid_text.n, &domid):
        return ST_EINVAL
    s.host.introduce(c, domid, mfn, port)
    return ST_OK


cdef int _h_release(Server s, Connection c, Slice p) except -1:
    cdef Slice number
    cdef int64_t domid
    if not _cut(&p, &number) or p.n or not strict_int(number.p, number.n, &domid):
        return ST_EINVAL
    s.host.release(c, domid)
    return ST_OK


cdef int _h_resume(Server s, Connection c, Slice p) except -1:
    cdef int64_t domid
    if not _strict_domid(&p, &domid):
        return ST_EINVAL
    s.host.resume(c, domid)
    return ST_OK


cdef int _h_set_target(Server s, Connection c, Slice p) except -1:
    cdef Slice first, second
    cdef Connection to
    if not _cut(&p, &first) or not _cut(&p, &second) or p.n:
        return ST_EINVAL
    to = s.domains.get(lenient_int(first.p, first.n))
    if to is None:
        return ST_ENOENT
    s.set_target(to, lenient_int(second.p, second.n))
    return ST_OK


cdef int _h_control(Server s, Connection c, Slice p) except -1:
    cdef bytes answer = b"OK\0"
    if c.who.privileged or s.allow_debug:
        try:
            answer = s.host.control(c, p.p[:p.n])
        except RequestError:
            pass
    return buffer_put(&s.answer, <const char *>answer, len(answer))


cdef int _extension(Server s, Connection c, uint32_t type, Slice p) except -1:
    cdef bytes answer = s.host.extension(c, type, p.p[:p.n])
    return buffer_put(&s.answer, <const char *>answer, len(answer))


cdef int _h_get_feature(Server s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_GET_FEATURE, p)


cdef int _h_set_feature(Server s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_SET_FEATURE, p)


cdef int _h_get_quota(Server s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_GET_QUOTA, p)


cdef int _h_set_quota(Server s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_SET_QUOTA, p)


# -- the table ----------------------------------------------------------------

cdef Row _rows[XS_TYPES]
cdef Row _unknown


cdef void _row_set(uint32_t type, handler_fn handler, int flags) noexcept:
    _rows[type].handler = handler
    _rows[type].flags = flags


cdef enum:
    _READS = ROW_DATA | ROW_REPLAY | ROW_READ
    _CHANGES = ROW_REPLAY | ROW_CHANGE
    _SPECIAL = ROW_PRIVILEGED | ROW_LOG_SPECIAL

_row_set(XS_CONTROL, _h_control, ROW_DATA)
_row_set(XS_DIRECTORY, _h_directory, _READS | ROW_LOG_READ)
_row_set(XS_READ, _h_read, _READS | ROW_LOG_READ)
_row_set(XS_GET_PERMS, _h_get_perms, _READS | ROW_LOG_READ)
_row_set(XS_WATCH, _h_watch, 0)
_row_set(XS_UNWATCH, _h_unwatch, 0)
_row_set(XS_TRANSACTION_START, _h_transaction_start, ROW_DATA | ROW_LOG_NEVER)
_row_set(XS_TRANSACTION_END, _h_transaction_end, ROW_LOG_NEVER)
_row_set(XS_INTRODUCE, _h_introduce, _SPECIAL)
_row_set(XS_RELEASE, _h_release, _SPECIAL)
_row_set(XS_GET_DOMAIN_PATH, _h_get_domain_path, ROW_DATA | ROW_REPLAY | ROW_LOG_SPECIAL)
_row_set(XS_WRITE, _h_write, _CHANGES)
_row_set(XS_MKDIR, _h_mkdir, _CHANGES)
_row_set(XS_RM, _h_rm, _CHANGES)
_row_set(XS_SET_PERMS, _h_set_perms, _CHANGES)
_row_set(XS_WATCH_EVENT, NULL, ROW_REPLAY)
_row_set(XS_ERROR, NULL, ROW_REPLAY)
_row_set(XS_IS_DOMAIN_INTRODUCED, _h_is_introduced, _SPECIAL | ROW_DATA)
_row_set(XS_RESUME, _h_resume, _SPECIAL)
_row_set(XS_SET_TARGET, _h_set_target, ROW_PRIVILEGED)
_row_set(XS_RESET_WATCHES, _h_reset_watches, 0)
_row_set(XS_DIRECTORY_PART, _h_directory_part, _READS)
_row_set(XS_GET_FEATURE, _h_get_feature, _SPECIAL | ROW_DATA)
_row_set(XS_SET_FEATURE, _h_set_feature, _SPECIAL)
_row_set(XS_GET_QUOTA, _h_get_quota, _SPECIAL | ROW_DATA)
_row_set(XS_SET_QUOTA, _h_set_quota, _SPECIAL)


# -- the server ---------------------------------------------------------------

cdef class Server(Hub):
    """A store and all its connections; see Hub for how bytes move.

    config is a Config (or has its attributes), host the interface above.  The
    loop calls begin() first in every turn, service() for each connection that
    has something, and flush() at the end.
    """

    def __cinit__(self, *args, **kwargs):
        self.path = <Path *>malloc(sizeof(Path))
        if self.path == NULL:
            raise MemoryError()

    def __init__(self, config, host, AccessLog log=None, bytes executable=b"/usr/sbin/pyxsd"):
        self.host = host
        self.configure(config, log if log is not None else AccessLog())
        self.merge_activate = config.merge_activate
        self.test_eagain = config.test_eagain
        self.allow_debug = config.allow_debug
        self.quota_status = ST_ENOSPC if config.quota_errno == "ENOSPC" else ST_EQUOTA
        self.history_seconds = config.conflict_max_history_seconds
        self.aggregate = config.conflict_rate_limit_is_aggregate
        self.history = []
        self.young = deque()
        self.paused = OrderedDict()
        self.penalised = OrderedDict()
        for name, value in (([b"@introduceDomain"], b""), ([b"@releaseDomain"], b""),
                            ([b"local"], b""), ([b"tool"], b""),
                            ([b"tool", b"xenstored"], executable)):
            self.tree.load(name, b"n0\0", value)

    def __dealloc__(self):
        free(self.path)
        buffer_free(&self.answer)

    def close(self):
        """Ends all connections, so that nothing of the server stays behind."""
        cdef Connection c
        for c in list(self.connections.values()):
            self._close(c)
        self.take_changed()
        self.dirty = []
        self.resume = []
        self.later = []
        self.system = None
        self.history = []
        self.young.clear()
        self.paused.clear()
        self.penalised.clear()
        self.txn = None
        self.work = None
        self.before = None

    # -- time -----------------------------------------------------------------

    def begin(self, double wall, double now):
        """A turn begins: the time for the log (seconds since 1970) and the
        monotonic time of everything else (seconds)."""
        self.begin_turn(wall, now)

    cdef int begin_turn(self, double wall, double now) except -1:
        self.log.set_time(wall)
        self.now = now
        return 0

    @property
    def wants_tick(self):
        """Is there something that time will change?"""
        return self.wants_loop()

    cdef bint wants_loop(self) noexcept:
        return len(self.history) != 0 or bool(self.paused) or bool(self.penalised)

    def tick(self, double now):
        """Does what is due by now (monotonic seconds); when it wants to be
        called again, or None."""
        self.now = now
        if self.history:
            self._trim_history()
        if not self.paused and not self.penalised:
            self.next_credit = 0.0
            return now + self.history_seconds if self.history else None
        if self.next_credit == 0.0:
            self.next_credit = now + self.history_seconds
        elif now >= self.next_credit:
            self._give_credit()
            self.next_credit = now + self.history_seconds
        return self.next_credit

    # -- requests -------------------------------------------------------------

    cdef bint _parse_path(self, Connection c, const char *p, size_t n) noexcept:
        return path_parse(self.path, p, n, c.base, PyBytes_GET_SIZE(c.base), self.path_max)

    cdef bint _one_path(self, Connection c, Slice p) noexcept:
        """Exactly one path with its NUL and nothing behind it."""
        if p.n == 0 or <const char *>memchr(p.p, 0, p.n) != p.p + p.n - 1:
            return False
        return self._parse_path(c, p.p, p.n - 1)

    cdef const Row *_row(self, uint32_t type) noexcept:
        return &_rows[type] if type < XS_TYPES else &_unknown

    cdef int _run(self, const Row *row, Connection c, Slice p) except -1:
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
        cdef const Row *row = self._row(type)
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
            status = self._run(row, c, p)
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
                    self._record(c, before)
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

    # -- transactions ---------------------------------------------------------

    cdef int forget_connection(self, Connection c) except -1:
        self.open_transactions -= len(c.transactions)
        c.transactions.clear()
        c.listings = None
        return 0

    cdef int _start(self, Connection c, uint32_t *id) except -1:
        """Opens a transaction of c under the next free id."""
        cdef Transaction txn
        id[0] = self._next_tx_id(c)
        txn = Transaction(id[0], self.tree, self.commits, self.epoch, self.now)
        c.transactions[id[0]] = txn
        self.open_transactions += 1
        # Only numbers: an ended transaction must not be kept alive.
        self.young.append((c.id, id[0], self.commits, self.now))
        if len(self.young) > 64:
            self._trim_history()
        if self.log.txn_ops:
            self.log.line(c.label, id[0], b"t start", NULL, 0)
        return 0

    def _next_tx_id(self, Connection c):
        """Ids count up from 1, stay below 2^30, and skip those in use."""
        while True:
            c.last_tx = c.last_tx % (TX_ID_LIMIT - 1) + 1
            if c.last_tx not in c.transactions:
                return c.last_tx

    cdef int _end(self, Connection c, Transaction txn) except -1:
        """Commits a transaction with writes, if need be by replaying it."""
        cdef Tree before = None
        cdef int status
        if self.young and not c.socket and c.who.domid != 0:
            before = self.tree.snapshot()
        if self._commit(c, c.label, txn, txn) == COMMIT_CONFLICT:
            self.log.line(c.label, txn.id, b"conflict", NULL, 0)
            status = self._replay(c, txn)
            if status != ST_OK:
                self.transactions_failed += 1
                return status
        self.commits += 1
        self.transactions_done += 1
        if before is not None:
            self._record(c, before)
        self._fire_transaction(c, txn)
        return ST_OK

    cdef int _commit(self, Connection c, bytes label, Transaction txn, Transaction into) except -1:
        """One attempt without a replay; COMMIT_*."""
        cdef int how = COMMIT_CONFLICT
        cdef bytes text
        if not (self.test_eagain and random.randrange(3) == 0):
            how = txn.commit(self.tree, self.epoch, self.merge_activate)
        if how == COMMIT_DONE:
            self.log.line(label, txn.id, b"commit", NULL, 0)
        elif how == COMMIT_MERGED:
            self.transactions_merged += 1
            if txn.write_low is not None:
                text = b"write " + _shown(txn.write_low)
                self.log.line(label, txn.id, b"coalesce", text, len(text))
            if txn.read_low is not None and self.log.read_ops:
                text = b"read " + _shown(txn.read_low)
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
        same = self._rerun(c, txn, again.tree, again, label)
        if same == RERUN_SAME:
            if self.log.txn_ops:
                self.log.line(label, id, b"t end", NULL, 0)
            if self._commit(c, label, again, again) == COMMIT_CONFLICT:
                self.log.line(label, id, b"conflict", NULL, 0)
            else:
                status = ST_OK
        elif same == RERUN_DIFFERS:
            status = self._blame(c, txn, label)
        if self.log.txn_ops:
            self.log.line(c.label, id, b"t end", NULL, 0)
        return status

    cdef int _rerun(self, Connection c, Transaction txn, Tree tree, Transaction into,
                    bytes label) except -1:
        """Are the transaction's requests answered on `tree` as they were?  RERUN_*.

        What they change there is noted in `into`; label names the log lines.
        Without both it is a trial."""
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
            row = self._row(type)
            if label is not None:
                self._log_request(row, label, into.id, type, p.p, p.n)
            now = self._run(row, c, p)
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

    # -- who pays for conflicts -----------------------------------------------

    cdef int _trim_history(self) except -1:
        """Drops what no transaction younger than the limit began before."""
        cdef Transaction txn
        cdef Connection c
        cdef double oldest = self.now - self.history_seconds, since
        cdef uint64_t start = 0
        while self.young:
            id, tx_id, start, since = self.young[0]
            if since >= oldest:
                c = self.connections.get(id)
                txn = c.transactions.get(tx_id) if c is not None else None
                if txn is not None and txn.start == start:
                    break
            self.young.popleft()
        if not self.young:
            self.history.clear()
            return 0
        k = 0
        for entry in self.history:
            if entry[0] > start and len(self.history) - k <= HISTORY_MAX:
                break
            k += 1
        del self.history[:k]
        return 0

    cdef int _record(self, Connection c, Tree before) except -1:
        """Remembers who changed the store; before is how it was."""
        self._trim_history()
        if self.young:
            self.history.append((self.commits, c, before, self.tree.snapshot()))
        return 0

    cdef int _blame(self, Connection c, Transaction txn, bytes label) except -1:
        """Finds the domains whose changes made a transaction fail.

        Guilty is who changed the store so that the transaction's requests went
        through before and not after.  The search stops where it would cost
        more than BLAME_BUDGET requests.
        """
        cdef Connection other
        cdef Tree before, after
        cdef int64_t cost = 0
        cdef int same
        cdef set guilty = set()
        self.host.log("debug", "process",
                      f"Apportioning blame for EAGAIN in txn {txn.id}, domain={c.label.decode()}")
        for commit, other, before, after in self.history:
            if commit <= txn.start or other is c or other.id in guilty:
                continue
            cost += 2 * len(txn.requests)
            if cost > BLAME_BUDGET:
                break
            same = self._rerun(c, txn, before.snapshot(), None, None)
            if same == RERUN_SAME:
                same = self._rerun(c, txn, after.snapshot(), None, None)
                if same == RERUN_SAME:
                    continue
            elif same == RERUN_DIFFERS:
                continue
            if same == RERUN_CANNOT:
                # oxenstored's trial fails of it, and so does the request.
                return ST_EINVAL
            else:
                self.host.log("debug", "process",
                              f"Blaming domain {other.label.decode()} for conflict with domain "
                              f"{c.label.decode()} txn {txn.id}")
                guilty.add(other.id)
                self._punish(other)
        if not guilty:
            self.transactions_no_culprit += 1
            self.host.log("debug", "process", f"Found no culprit for conflict in "
                          f"{label.decode()}: must be self or not in history.")
        return ST_EAGAIN

    cdef int _punish(self, Connection c) except -1:
        if c.closed:
            return 0
        c.credit = max(c.credit - 1.0, -1.0)
        if c.credit <= 0.0:
            self.penalised.pop(c.id, None)
            self.paused.setdefault(c.id, c)
        else:
            self.penalised.setdefault(c.id, c)
        return 0

    def _give_credit(self):
        """One point back: to the longest-waiting paused domain, else the
        longest-waiting penalised one; or to every domain."""
        if self.aggregate:
            queue = self.paused or self.penalised
            self._give_point(queue, next(iter(queue)))
        else:
            for id in [*self.penalised]:
                self._give_point(self.penalised, id)
            for id in [*self.paused]:
                self._give_point(self.paused, id)

    def _give_point(self, queue, id):
        cdef Connection c = queue[id]
        if c.closed:
            del queue[id]
            return
        c.credit = min(c.credit + 1.0, self.burst)
        if c.credit <= 0.0:
            return
        del queue[id]
        if c.credit < self.burst:
            self.penalised[id] = c
        self.unblock(c)

    # -- for the floors above -------------------------------------------------

    def forget_domain(self, int64_t domid):
        """Cleans the store of a domain: its nodes, its permission entries.

        Every node counts as touched, so open transactions are replayed.
        """
        self.tree.forget(domid)
        self.commits += 1
        self.epoch += 1

    def set_owner_limit(self, int64_t owner, entries):
        """The entry quota of one owner (SET_QUOTA nodes)."""
        self.owner_limits[owner] = entries
        self.limits.by_owner = <void *>self.owner_limits

    def owner_limit(self, int64_t owner):
        """The entry quota of an owner."""
        return self.owner_limits.get(owner, self.limits.entries)

    @property
    def quota_maxentity(self):
        """Nodes that one owner may have."""
        return self.limits.entries

    @quota_maxentity.setter
    def quota_maxentity(self, Py_ssize_t value):
        self.limits.entries = value

    @property
    def quota_maxsize(self):
        """Bytes that a value may have."""
        return self.limits.value

    @quota_maxsize.setter
    def quota_maxsize(self, Py_ssize_t value):
        self.limits.value = value

    cpdef int set_target(self, Connection c, int64_t target) except -1:
        """The connection acts for that domain too (-1: for no other)."""
        c.who.target = target
        c.who.privileged = c.who.domid == 0 or target == 0
        return 0

    def restore_watch(self, Connection c not None, bytes path not None, bytes token not None,
                      bytes depth):
        """Puts a watch of a state file back, without a first event."""
        cdef bytes payload = path + b"\0" + token + b"\0"
        cdef Slice p
        if depth is not None:
            payload += depth + b"\0"
        p.p = payload
        p.n = len(payload)
        if self._run(self._row(XS_WATCH), c, p) != ST_OK:
            self.host.log("warn", "xenstored", f"{c.label.decode()}: watch not restored: {path!r}")
        self.fresh = NULL

    def set_tree(self, Tree tree not None):
        """Takes over a tree that was read from a state file."""
        self.tree.adopt(tree)
        self.epoch += 1


cdef bytes _shown(bytes kept):
    """A kept path as the log shows it."""
    return kept if kept[:1] == b"/" else b"/" + kept
