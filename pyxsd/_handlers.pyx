# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of requests, and their handlers.

A handler looks at its payload and works on the tree of its request; it returns a status, an
error being no exception (see _request).  Rare requests go up to the host:

    introduce(connection, domid, mfn, port), release(connection, domid),
    resume(connection, domid)              None, or RequestError
    control(connection, payload)           the payload of the answer; None: see Server.answer
    feature_or_quota(connection, type, payload)    the same, for types 23 to 26

What the host does must not serve anybody: see Server.serve_later.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp
from pyxsd._commit cimport Transactions
from pyxsd._conn cimport Connection
from pyxsd._limits cimport Q_NODE_PERMS, Q_TRANSACTIONS, Q_WATCHES, WATCH_BYTES
from pyxsd._listing cimport directory_part
from pyxsd._request cimport (
    EVENT_CHANGED, EVENT_NONE, EVENT_PERMS, EVENT_REMOVED, ROW_CHANGE, ROW_DATA, ROW_LOG_NEVER,
    ROW_LOG_READ, ROW_LOG_SPECIAL, ROW_NO_TRANSACTION, ROW_PRIVILEGED, ROW_READ, ROW_REPLAY,
    Request, State, client, handler_fn, keep_before, one_path, parse_path,
)
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_EACCES, ST_EAGAIN, ST_EBUSY, ST_EEXIST, ST_EINVAL, ST_EIO, ST_ENOENT, ST_EQUOTA,
    ST_OK,
    XS_CONTROL, XS_DIRECTORY, XS_DIRECTORY_PART, XS_ERROR, XS_GET_DOMAIN_PATH, XS_GET_FEATURE,
    XS_GET_PERMS, XS_GET_QUOTA, XS_INTRODUCE, XS_IS_DOMAIN_INTRODUCED, XS_MKDIR, XS_READ,
    XS_RELEASE, XS_RESET_WATCHES, XS_RESUME, XS_RM, XS_SET_FEATURE, XS_SET_PERMS, XS_SET_QUOTA,
    XS_SET_TARGET, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_TYPES, XS_UNWATCH, XS_WATCH,
    XS_WATCH_EVENT, XS_WRITE, Slice, buffer_put, decimal, lenient_int, slice_cut, slice_take,
    strict_int,
)
from pyxsd.events.trie cimport DEPTH_ANY, Watch, watch_bytes
from pyxsd.store.nodes cimport (
    node_directory, node_get_perms, node_mkdir, node_read, node_rm, node_set_perms, node_write,
)
from pyxsd.store.path cimport Path, path_parse
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.tree cimport Tree

from pyxsd._wire import RequestError

cdef enum:
    DOMID_SELF = 0x7ff0


cdef inline Tree _tree(Request *r):
    return <Tree>r.tree


cdef inline bint _strict_domid(Slice *rest, int64_t *domid) noexcept:
    cdef Slice piece
    return slice_take(rest, &piece) and strict_int(piece.p, piece.n, domid)


cdef inline int64_t _most(State s, int64_t own, int quota) noexcept:
    """A quota that a connection may have of its own."""
    return own if own >= 0 else s.limits.most[quota]


# -- nodes --------------------------------------------------------------------

cdef int _read(State s, Request *r) except -1:
    if not one_path(s, r):
        return ST_EINVAL
    return node_read(_tree(r), r.path, &client(r).who, r.answer)


cdef int _directory(State s, Request *r) except -1:
    if not one_path(s, r):
        return ST_EINVAL
    return node_directory(_tree(r), r.path, &client(r).who, r.answer, PAYLOAD_MAX)


cdef int _get_perms(State s, Request *r) except -1:
    if not one_path(s, r):
        return ST_EINVAL
    return node_get_perms(_tree(r), r.path, &client(r).who, r.answer)


cdef int _write(State s, Request *r) except -1:
    cdef Slice path, value = r.payload
    if not slice_cut(&value, &path) or not parse_path(s, r, path.p, path.n):
        return ST_EINVAL
    return node_write(_tree(r), r.path, &client(r).who, &s.limits.node, value, &r.effect)


cdef int _mkdir(State s, Request *r) except -1:
    if not one_path(s, r):
        return ST_EINVAL
    return node_mkdir(_tree(r), r.path, &client(r).who, &s.limits.node, &r.effect)


cdef int _rm(State s, Request *r) except -1:
    if not one_path(s, r):
        return ST_EINVAL
    keep_before(s, r)
    return node_rm(_tree(r), r.path, &client(r).who, &r.effect)


cdef inline int64_t _entries(Slice perms) noexcept:
    """How many entries a permission list has."""
    cdef int64_t count = 0
    cdef size_t i
    for i in range(perms.n):
        count += perms.p[i] == 0
    return count


cdef int _set_perms(State s, Request *r) except -1:
    cdef Slice path, perms = r.payload
    if not slice_cut(&perms, &path) or not parse_path(s, r, path.p, path.n):
        return ST_EINVAL
    if s.limits.active and not client(r).who.privileged \
            and _entries(perms) > s.limits.most[Q_NODE_PERMS]:
        return ST_EQUOTA
    keep_before(s, r)
    return node_set_perms(_tree(r), r.path, &client(r).who, perms, &r.effect)


# -- watches ------------------------------------------------------------------

cdef bint _one_release(const Path *path) noexcept:
    """Is it "@releaseDomain/<domid>", which is watched itself and takes no depth?"""
    cdef size_t i
    if path.size[0] < 16 or memcmp(path.text + 1, b"@releaseDomain/", 15) != 0:
        return False
    for i in range(16, path.len):
        if path.text[i] < c"0" or path.text[i] > c"9":
            return False
    return True


cdef int _watch(State s, Request *r) except -1:
    cdef Connection c = client(r)
    cdef Slice path, token, number, rest = r.payload
    cdef int64_t depth = 0
    cdef bint deep = False
    if not slice_cut(&rest, &path) or not slice_cut(&rest, &token):
        return ST_EINVAL
    if rest.n:
        deep = True
        if not slice_cut(&rest, &number) or rest.n or number.n == 0 or number.p[0] < c"0" \
                or not strict_int(number.p, number.n, &depth):
            return ST_EINVAL
    if not path_parse(r.path, path.p, path.n, c.base, len(c.base), -1):
        return ST_EINVAL
    if r.path.special and deep and (depth != 1 or _one_release(r.path)):
        return ST_EINVAL
    if s.limits.active and not c.who.privileged \
            and (c.watch_count > _most(s, c.most_watches, Q_WATCHES)
                 or c.watch_bytes >= WATCH_BYTES):
        return ST_EQUOTA
    r.new_watch = s.events.trie.add(
        <void *>c, &c.watches, r.path, path.p, path.n, token.p, token.n,
        <uint32_t>min(depth, 0xfffffffe) if deep else DEPTH_ANY, len(c.base))
    if r.new_watch == NULL:
        return ST_EEXIST
    c.watch_count += 1
    c.watch_bytes += watch_bytes(r.new_watch)
    return ST_OK


cdef int _unwatch(State s, Request *r) except -1:
    cdef Connection c = client(r)
    cdef Slice path, token, rest = r.payload
    cdef Watch *watch
    if not slice_cut(&rest, &path) or not slice_cut(&rest, &token) or rest.n or path.n == 0:
        return ST_EINVAL
    if not path_parse(r.path, path.p, path.n, c.base, len(c.base), -1):
        return ST_ENOENT
    watch = s.events.trie.find(<void *>c, r.path, token.p, token.n)
    if watch == NULL:
        return ST_ENOENT
    s.events.remove_watch(c, watch)
    return ST_OK


cdef int _reset_watches(State s, Request *r) except -1:
    cdef Connection c = client(r)
    s.events.drop_watches(c)
    (<Transactions>s.transactions).drop(c)
    c.listings = None
    return ST_OK


# -- transactions -------------------------------------------------------------

cdef int _transaction_start(State s, Request *r) except -1:
    cdef Connection c = client(r)
    cdef char text[16]
    cdef char *begin
    if r.tx_id:
        return ST_EBUSY
    if not c.who.privileged \
            and <int64_t>len(c.transactions) > _most(s, c.most_transactions, Q_TRANSACTIONS):
        return ST_EQUOTA
    if (<Transactions>s.transactions).pins_too_much(c):
        return ST_EQUOTA
    text[15] = 0
    begin = decimal(text + 15, (<Transactions>s.transactions).start(c))
    return buffer_put(r.answer, begin, text + 16 - begin)


cdef int _transaction_end(State s, Request *r) except -1:
    cdef Connection c = client(r)
    cdef Transactions transactions = <Transactions>s.transactions
    cdef Slice p = r.payload
    cdef const char *nul = <const char *>memchr(p.p, 0, p.n) if p.n else NULL
    cdef Transaction txn
    if nul != NULL:
        p.n = nul - p.p
    if p.n != 1 or (p.p[0] != c"T" and p.p[0] != c"F"):
        return ST_EINVAL
    if r.txn == NULL:
        return ST_ENOENT
    txn = <Transaction>r.txn
    transactions.close(c, txn)
    if s.log.txn_ops:
        s.log.line(c.label, txn.id, b"t end", NULL, 0)
    if p.p[0] == c"T" and txn.given_up:
        transactions.failed += 1
        return ST_EAGAIN
    if p.p[0] == c"F" or not txn.changes:
        return ST_OK
    return transactions.commit(c, txn)


# -- domains ------------------------------------------------------------------

cdef int _get_domain_path(State s, Request *r) except -1:
    cdef Slice number, rest = r.payload
    cdef char text[24]
    cdef char *begin
    cdef int64_t domid
    if not slice_cut(&rest, &number) or rest.n:
        return ST_EINVAL
    domid = lenient_int(number.p, number.n)
    text[23] = 0
    begin = decimal(text + 23, <uint64_t>domid if domid >= 0 else -<uint64_t>domid)
    if domid < 0:
        begin -= 1
        begin[0] = c"-"
    buffer_put(r.answer, b"/local/domain/", 14)
    return buffer_put(r.answer, begin, text + 24 - begin)


cdef int _is_introduced(State s, Request *r) except -1:
    cdef Slice rest = r.payload
    cdef int64_t domid
    if not _strict_domid(&rest, &domid):
        return ST_EINVAL
    return buffer_put(r.answer, b"T" if domid == DOMID_SELF or domid in s.domains else b"F", 2)


cdef int _introduce(State s, Request *r) except -1:
    cdef Slice domid_text, mfn_text, rest = r.payload
    cdef int64_t domid, mfn, port
    if not slice_cut(&rest, &domid_text) or not slice_cut(&rest, &mfn_text) \
            or not _strict_domid(&rest, &port):
        return ST_EINVAL
    if not strict_int(mfn_text.p, mfn_text.n, &mfn):
        return ST_EIO
    if not strict_int(domid_text.p, domid_text.n, &domid):
        return ST_EINVAL
    s.host.introduce(client(r), domid, mfn, port)
    return ST_OK


cdef int _release(State s, Request *r) except -1:
    cdef Slice number, rest = r.payload
    cdef int64_t domid
    if not slice_cut(&rest, &number) or rest.n or not strict_int(number.p, number.n, &domid):
        return ST_EINVAL
    s.host.release(client(r), domid)
    return ST_OK


cdef int _resume(State s, Request *r) except -1:
    cdef Slice rest = r.payload
    cdef int64_t domid
    if not _strict_domid(&rest, &domid):
        return ST_EINVAL
    s.host.resume(client(r), domid)
    return ST_OK


cdef int _set_target(State s, Request *r) except -1:
    cdef Slice first, second, rest = r.payload
    cdef Connection to
    if not slice_cut(&rest, &first) or not slice_cut(&rest, &second) or rest.n:
        return ST_EINVAL
    to = s.domains.get(lenient_int(first.p, first.n))
    if to is None:
        return ST_ENOENT
    s.set_target(to, lenient_int(second.p, second.n))
    return ST_OK


cdef int _control(State s, Request *r) except -1:
    cdef bytes answer = b"OK\0"
    if client(r).who.privileged or s.allow_debug:
        try:
            answer = s.host.control(client(r), r.payload.p[:r.payload.n])
        except RequestError:
            pass
        if answer is None:
            client(r).awaits = True
            return ST_OK
    return buffer_put(r.answer, <const char *>answer, len(answer))


cdef int _feature_or_quota(State s, Request *r) except -1:
    cdef bytes answer
    # A guest may ask for its own features, without naming a domain.
    if not client(r).who.privileged \
            and (r.type != XS_GET_FEATURE or r.payload.n > 1
                 or (r.payload.n and r.payload.p[0] != 0)):
        return ST_EACCES
    answer = s.host.feature_or_quota(client(r), r.type, r.payload.p[:r.payload.n])
    return buffer_put(r.answer, <const char *>answer, len(answer))


# -- the table ----------------------------------------------------------------

cdef Row _rows[XS_TYPES]
cdef Row _no_row
_no_row.type = XS_TYPES
_no_row.name = b"INVALID"
_no_row.label = b"invalid"


cdef void _row(uint32_t type, const char *name, const char *label, handler_fn handler, int flags,
               int event=EVENT_NONE) noexcept:
    _rows[type].type = type
    _rows[type].name = name
    _rows[type].label = label
    _rows[type].handler = handler
    _rows[type].flags = flags
    _rows[type].event = event


cdef enum:
    _READS = ROW_DATA | ROW_REPLAY | ROW_READ
    _CHANGES = ROW_REPLAY | ROW_CHANGE
    _SPECIAL = ROW_PRIVILEGED | ROW_LOG_SPECIAL
    _WATCHES = ROW_NO_TRANSACTION

for _type in range(XS_TYPES):
    _rows[_type] = _no_row

_row(XS_CONTROL, b"CONTROL", b"debug", _control, ROW_DATA)
_row(XS_DIRECTORY, b"DIRECTORY", b"directory", _directory, _READS | ROW_LOG_READ)
_row(XS_READ, b"READ", b"read", _read, _READS | ROW_LOG_READ)
_row(XS_GET_PERMS, b"GET_PERMS", b"getperms", _get_perms, _READS | ROW_LOG_READ)
_row(XS_WATCH, b"WATCH", b"watch", _watch, _WATCHES)
_row(XS_UNWATCH, b"UNWATCH", b"unwatch", _unwatch, _WATCHES)
_row(XS_TRANSACTION_START, b"TRANSACTION_START", b"t start", _transaction_start,
     ROW_DATA | ROW_LOG_NEVER)
_row(XS_TRANSACTION_END, b"TRANSACTION_END", b"t end", _transaction_end, ROW_LOG_NEVER)
_row(XS_INTRODUCE, b"INTRODUCE", b"introduce", _introduce, _SPECIAL)
_row(XS_RELEASE, b"RELEASE", b"release", _release, _SPECIAL)
_row(XS_GET_DOMAIN_PATH, b"GET_DOMAIN_PATH", b"getdomain", _get_domain_path,
     ROW_DATA | ROW_REPLAY | ROW_LOG_SPECIAL)
_row(XS_WRITE, b"WRITE", b"write", _write, _CHANGES, EVENT_CHANGED)
_row(XS_MKDIR, b"MKDIR", b"mkdir", _mkdir, _CHANGES, EVENT_CHANGED)
_row(XS_RM, b"RM", b"rm", _rm, _CHANGES, EVENT_REMOVED)
_row(XS_SET_PERMS, b"SET_PERMS", b"setperms", _set_perms, _CHANGES, EVENT_PERMS)
_row(XS_WATCH_EVENT, b"WATCH_EVENT", b"invalid", NULL, ROW_REPLAY)
_row(XS_ERROR, b"ERROR", b"invalid", NULL, ROW_REPLAY)
_row(XS_IS_DOMAIN_INTRODUCED, b"IS_DOMAIN_INTRODUCED", b"is introduced", _is_introduced,
     _SPECIAL | ROW_DATA)
_row(XS_RESUME, b"RESUME", b"resume", _resume, _SPECIAL)
_row(XS_SET_TARGET, b"SET_TARGET", b"settarget", _set_target, ROW_PRIVILEGED)
_row(XS_RESET_WATCHES, b"RESET_WATCHES", b"reset watches", _reset_watches, 0)
_row(XS_DIRECTORY_PART, b"DIRECTORY_PART", b"directory_partial", directory_part, _READS)
_row(XS_GET_FEATURE, b"GET_FEATURE", b"get feature", _feature_or_quota, ROW_LOG_SPECIAL | ROW_DATA)
_row(XS_SET_FEATURE, b"SET_FEATURE", b"set feature", _feature_or_quota, _SPECIAL)
_row(XS_GET_QUOTA, b"GET_QUOTA", b"get quota", _feature_or_quota, _SPECIAL | ROW_DATA)
_row(XS_SET_QUOTA, b"SET_QUOTA", b"set quota", _feature_or_quota, _SPECIAL)


cdef const Row *request_row(uint32_t type) noexcept:
    return &_rows[type] if type < XS_TYPES else &_no_row


cdef const Row *request_table() noexcept:
    return _rows


def request_types():
    """{name: type} of all requests that a client may send."""
    return {_rows[type].name.decode(): type for type in range(XS_TYPES)
            if _rows[type].handler != NULL}
