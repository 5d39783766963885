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

from libc.stdint cimport int64_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp
from pyxsd._accesslog cimport AccessLog
from pyxsd._hub cimport Connection
from pyxsd._listing cimport h_directory_part
from pyxsd.store.forget cimport forget_domains
from pyxsd.store.nodes cimport (
    node_directory, node_get_perms, node_mkdir, node_read, node_rm, node_set_perms, node_write,
)
from pyxsd.store.path cimport Path, path_parse
from pyxsd._requests cimport (
    ROW_CHANGE, ROW_DATA, ROW_LOG_NEVER, ROW_LOG_READ, ROW_LOG_SPECIAL, ROW_PRIVILEGED, ROW_READ,
    ROW_REPLAY, Row, handler_fn,
)
from pyxsd._requests import RequestError
from pyxsd.store.tree cimport Tree
from pyxsd.store.transaction cimport Transaction
from pyxsd.events.trie cimport DEPTH_ANY, Watch
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_EBUSY, ST_EEXIST, ST_EINVAL, ST_EIO, ST_ENOENT, ST_EQUOTA, ST_OK, XS_CONTROL,
    XS_DIRECTORY, XS_DIRECTORY_PART, XS_ERROR, XS_GET_DOMAIN_PATH, XS_GET_FEATURE, XS_GET_PERMS,
    XS_GET_QUOTA, XS_INTRODUCE, XS_IS_DOMAIN_INTRODUCED, XS_MKDIR, XS_READ, XS_RELEASE,
    XS_RESET_WATCHES, XS_RESUME, XS_RM, XS_SET_FEATURE, XS_SET_PERMS, XS_SET_QUOTA, XS_SET_TARGET,
    XS_TRANSACTION_END, XS_TRANSACTION_START, XS_TYPES, XS_UNWATCH, XS_WATCH, XS_WATCH_EVENT,
    XS_WRITE, Slice, buffer_put, lenient_int, slice_cut, slice_take, strict_int,
)

cdef enum:
    DOMID_SELF = 0x7ff0


cdef inline bint _strict_domid(Slice *rest, int64_t *domid) noexcept:
    cdef Slice piece
    return slice_take(rest, &piece) and strict_int(piece.p, piece.n, domid)


# -- handlers: nodes ----------------------------------------------------------

cdef int _h_read(Requests s, Connection c, Slice p) except -1:
    if not s.one_path(c, p):
        return ST_EINVAL
    return node_read(s.work, s.path, &c.who, &s.answer)


cdef int _h_directory(Requests s, Connection c, Slice p) except -1:
    if not s.one_path(c, p):
        return ST_EINVAL
    return node_directory(s.work, s.path, &c.who, &s.answer, PAYLOAD_MAX)


cdef int _h_get_perms(Requests s, Connection c, Slice p) except -1:
    if not s.one_path(c, p):
        return ST_EINVAL
    return node_get_perms(s.work, s.path, &c.who, &s.answer)


cdef int _h_write(Requests s, Connection c, Slice p) except -1:
    cdef Slice path
    if not slice_cut(&p, &path) or not s.parse_path(c, path.p, path.n):
        return ST_EINVAL
    return node_write(s.work, s.path, &c.who, &s.limits, p, &s.effect)


cdef int _h_mkdir(Requests s, Connection c, Slice p) except -1:
    if not s.one_path(c, p):
        return ST_EINVAL
    return node_mkdir(s.work, s.path, &c.who, &s.limits, &s.effect)


cdef inline int _keep_before(Requests s) except -1:
    """Events of removals and of new permissions look at the tree before them."""
    if s.live and s.trie.count and s.trie.touched(s.path):
        s.before = s.tree.snapshot()
    return 0


cdef int _h_rm(Requests s, Connection c, Slice p) except -1:
    if not s.one_path(c, p):
        return ST_EINVAL
    _keep_before(s)
    return node_rm(s.work, s.path, &c.who, &s.effect)


cdef int _h_set_perms(Requests s, Connection c, Slice p) except -1:
    cdef Slice path
    if not slice_cut(&p, &path) or not s.parse_path(c, path.p, path.n):
        return ST_EINVAL
    _keep_before(s)
    return node_set_perms(s.work, s.path, &c.who, p, &s.effect)


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


cdef int _h_watch(Requests s, Connection c, Slice p) except -1:
    cdef Slice path, token, number
    cdef int64_t depth = 0
    cdef bint deep = False
    cdef Watch *watch
    if not slice_cut(&p, &path) or not slice_cut(&p, &token):
        return ST_EINVAL
    if p.n:
        deep = True
        if not slice_cut(&p, &number) or p.n or number.n == 0 or number.p[0] < c"0" \
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


cdef int _h_unwatch(Requests s, Connection c, Slice p) except -1:
    cdef Slice path, token
    cdef Watch *watch
    if not slice_cut(&p, &path) or not slice_cut(&p, &token) or p.n or path.n == 0:
        return ST_EINVAL
    if not path_parse(s.path, path.p, path.n, c.base, len(c.base), -1):
        return ST_ENOENT
    watch = s.trie.find(<void *>c, s.path, token.p, token.n)
    if watch == NULL:
        return ST_ENOENT
    s.remove_watch(c, watch)
    return ST_OK


cdef int _h_reset_watches(Requests s, Connection c, Slice p) except -1:
    s.drop_watches(c)
    s.drop_transactions(c)
    c.listings = None
    return ST_OK


# -- handlers: transactions ---------------------------------------------------

cdef int _h_transaction_start(Requests s, Connection c, Slice p) except -1:
    cdef uint32_t id = 0
    cdef char text[16]
    if s.tx_id:
        return ST_EBUSY
    if c.max_transactions > 0 and not c.who.privileged \
            and len(c.transactions) > c.max_transactions:
        return ST_EQUOTA
    s.start(c, &id)
    buffer_put(&s.answer, text, snprintf(text, sizeof(text), b"%u", id) + 1)
    return ST_OK


cdef int _h_transaction_end(Requests s, Connection c, Slice p) except -1:
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
    return s.end(c, txn)


# -- handlers: domains --------------------------------------------------------

cdef int _h_get_domain_path(Requests s, Connection c, Slice p) except -1:
    cdef Slice number
    cdef char text[48]
    if not slice_cut(&p, &number) or p.n:
        return ST_EINVAL
    buffer_put(&s.answer, text, 1 + snprintf(
        text, sizeof(text), b"/local/domain/%lld", <long long>lenient_int(number.p, number.n)))
    return ST_OK


cdef int _h_is_introduced(Requests s, Connection c, Slice p) except -1:
    cdef int64_t domid
    if not _strict_domid(&p, &domid):
        return ST_EINVAL
    return buffer_put(&s.answer, b"T" if domid == DOMID_SELF or domid in s.domains else b"F", 2)


cdef int _h_introduce(Requests s, Connection c, Slice p) except -1:
    cdef Slice domid_text, mfn_text
    cdef int64_t domid, mfn, port
    if not slice_cut(&p, &domid_text) or not slice_cut(&p, &mfn_text) \
            or not _strict_domid(&p, &port):
        return ST_EINVAL
    if not strict_int(mfn_text.p, mfn_text.n, &mfn):
        return ST_EIO
    if not strict_int(domid_text.p, domid_text.n, &domid):
        return ST_EINVAL
    s.host.introduce(c, domid, mfn, port)
    return ST_OK


cdef int _h_release(Requests s, Connection c, Slice p) except -1:
    cdef Slice number
    cdef int64_t domid
    if not slice_cut(&p, &number) or p.n or not strict_int(number.p, number.n, &domid):
        return ST_EINVAL
    s.host.release(c, domid)
    return ST_OK


cdef int _h_resume(Requests s, Connection c, Slice p) except -1:
    cdef int64_t domid
    if not _strict_domid(&p, &domid):
        return ST_EINVAL
    s.host.resume(c, domid)
    return ST_OK


cdef int _h_set_target(Requests s, Connection c, Slice p) except -1:
    cdef Slice first, second
    cdef Connection to
    if not slice_cut(&p, &first) or not slice_cut(&p, &second) or p.n:
        return ST_EINVAL
    to = s.domains.get(lenient_int(first.p, first.n))
    if to is None:
        return ST_ENOENT
    s.set_target(to, lenient_int(second.p, second.n))
    return ST_OK


cdef int _h_control(Requests s, Connection c, Slice p) except -1:
    cdef bytes answer = b"OK\0"
    if c.who.privileged or s.allow_debug:
        try:
            answer = s.host.control(c, p.p[:p.n])
        except RequestError:
            pass
    return buffer_put(&s.answer, <const char *>answer, len(answer))


cdef int _extension(Requests s, Connection c, uint32_t type, Slice p) except -1:
    cdef bytes answer = s.host.extension(c, type, p.p[:p.n])
    return buffer_put(&s.answer, <const char *>answer, len(answer))


cdef int _h_get_feature(Requests s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_GET_FEATURE, p)


cdef int _h_set_feature(Requests s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_SET_FEATURE, p)


cdef int _h_get_quota(Requests s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_GET_QUOTA, p)


cdef int _h_set_quota(Requests s, Connection c, Slice p) except -1:
    return _extension(s, c, XS_SET_QUOTA, p)


# -- the table ----------------------------------------------------------------

cdef Row _rows[XS_TYPES]


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
_row_set(XS_DIRECTORY_PART, h_directory_part, _READS)
_row_set(XS_GET_FEATURE, _h_get_feature, _SPECIAL | ROW_DATA)
_row_set(XS_SET_FEATURE, _h_set_feature, _SPECIAL)
_row_set(XS_GET_QUOTA, _h_get_quota, _SPECIAL | ROW_DATA)
_row_set(XS_SET_QUOTA, _h_set_quota, _SPECIAL)


# -- the server ---------------------------------------------------------------

cdef class Server(Requests):
    """A store and all its connections; see Hub for how bytes move.

    config is a Config (or has its attributes), host the interface above.  The
    loop calls begin() first in every turn, service() for each connection that
    has something, and flush() at the end.
    """

    def __cinit__(self, *args, **kwargs):
        self.rows = _rows

    def __init__(self, config, host, AccessLog log=None, bytes executable=b"/usr/sbin/pyxsd"):
        self.host = host
        self.configure(config, log if log is not None else AccessLog())
        for name, value in (([b"@introduceDomain"], b""), ([b"@releaseDomain"], b""),
                            ([b"local"], b""), ([b"tool"], b""),
                            ([b"tool", b"xenstored"], executable)):
            self.tree.load(name, b"n0\0", value)

    # -- for the floors above -------------------------------------------------

    def forget_domain(self, int64_t domid):
        """Cleans the store of a domain: its nodes, its permission entries.

        Every node counts as touched, so open transactions are replayed.
        """
        forget_domains(self.tree, {domid})
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

    def restore_watch(self, Connection c not None, bytes path not None, bytes token not None,
                      bytes depth):
        """Puts a watch of a state file back, without a first event."""
        cdef bytes payload = path + b"\0" + token + b"\0"
        cdef Slice p
        if depth is not None:
            payload += depth + b"\0"
        p.p = payload
        p.n = len(payload)
        if self.run(self.row(XS_WATCH), c, p) != ST_OK:
            self.host.log("warn", "xenstored", f"{c.label.decode()}: watch not restored: {path!r}")
        self.fresh = NULL

    def set_tree(self, Tree tree not None):
        """Takes over a tree that was read from a state file."""
        self.tree.adopt(tree)
        self.epoch += 1
