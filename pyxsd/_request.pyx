# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests as values.

A request is a struct in the frame of whoever serves it: the dispatcher for one that came over
the wire, the replay of a transaction for one that is run again.  All that a handler needs or
finds is in there or in State; so one request can be run while another one is at hand without
either seeing the other's path, tree, answer or effect.

A handler returns a status, an error being no exception.  RequestError is how the Python side
names a status; any other exception is a bug, logged with its trace and answered EIO.
"""

cimport cython

import traceback

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memchr
from pyxsd._limits cimport Q_PATH_MAX, UNLIMITED
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_E2BIG, ST_EACCES, ST_EIO, ST_ENOSYS, ST_EQUOTA, ST_OK, buffer_free,
)
from pyxsd.store.grave cimport Grave
from pyxsd.store.path cimport path_parse
from pyxsd.store.subtree cimport node_ref

from pyxsd._wire import RequestError


@cython.final
cdef class State:
    """What handlers work on: the parts of one server, brought together."""

    def __cinit__(self):
        self.tree = Tree(False, Grave(True))
        self.connections = {}
        self.domains = {}
        self.targets = {}
        self.path = <Path *>malloc(sizeof(Path))
        if self.path == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.path)
        buffer_free(&self.answer)

    cdef int set_target(self, Connection c, int64_t target) except -1:
        cdef dict those = self.targets.get(c.who.target)
        if those is not None:
            those.pop(c.id, None)
            if not those:
                del self.targets[c.who.target]
        c.who.target = target
        c.who.privileged = c.who.domid == 0 or target == 0
        if target >= 0:
            self.targets.setdefault(target, {})[c.id] = c
        return 0


cdef bint parse_path(State s, Request *r, const char *p, size_t n) noexcept:
    cdef Connection c = client(r)
    cdef int64_t most = s.limits.most[Q_PATH_MAX]
    return path_parse(r.path, p, n, c.base, PyBytes_GET_SIZE(c.base),
                      -1 if most == UNLIMITED else most)


cdef bint one_path(State s, Request *r) noexcept:
    cdef Slice p = r.payload
    if p.n == 0 or <const char *>memchr(p.p, 0, p.n) != p.p + p.n - 1:
        return False
    return parse_path(s, r, p.p, p.n - 1)


cdef int keep_before(State s, Request *r) except -1:
    if r.txn == NULL and not r.trial and r.before == NULL and s.events.trie.count \
            and s.events.trie.touched(r.path):
        r.before = node_ref(s.tree.root)
    return 0


cdef int run(State s, Request *r) except -1:
    cdef int status
    r.answer.head = r.answer.tail = 0
    r.effect.fires = r.effect.wrote = False
    r.listed = 0
    if r.row.handler == NULL:
        return ST_ENOSYS
    if r.row.flags & ROW_PRIVILEGED and not client(r).who.privileged:
        return ST_EACCES
    try:
        status = r.row.handler(s, r)
    except RequestError as error:
        status = error.status
    except Exception as error:
        s.agenda.journal.met(error)
        s.host.log("error", "process", "request failed:\n" + traceback.format_exc())
        return ST_EIO
    if status == ST_EQUOTA:
        return s.limits.refused
    if status == ST_OK and r.answer.tail > PAYLOAD_MAX:
        return ST_E2BIG
    return status


cdef int log_request(State s, const Request *r, bytes label) except -1:
    cdef int flags = r.row.flags
    if not s.log.active or flags & ROW_LOG_NEVER \
            or (flags & ROW_LOG_READ and not s.log.read_ops) \
            or (flags & ROW_LOG_SPECIAL and not s.log.special_ops):
        return 0
    return s.log.line(label, r.tx_id, r.row.label, r.payload.p, r.payload.n)
