# SPDX-License-Identifier: LGPL-2.1-or-later
"""One request that came over the wire.

In this order: its row of the table; the transaction that it names (EIO); the quota of requests
in a transaction; the handler, which checks privilege, payload and rights; the record that the
transaction or the history keeps of it; the access log; the reply; the events.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport strlen
from pyxsd._commit cimport Transactions
from pyxsd._handlers cimport request_row
from pyxsd._limits cimport Q_TRANSACTION_NODES
from pyxsd._request cimport (
    EVENT_CHANGED, EVENT_PERMS, EVENT_REMOVED, ROW_CHANGE, ROW_DATA, ROW_NO_TRANSACTION, Request,
    prepare, log_request, run,
)
from pyxsd._wire cimport ST_EIO, ST_ENOENT, ST_OK, XS_ERROR, status_name
from pyxsd.store.transaction cimport Transaction
from pyxsd.store.tree cimport Tree


cdef int dispatch(State s, Connection c, const Header *head, const char *payload) except -1:
    cdef Request r
    cdef Transaction txn = None
    cdef int status
    prepare(&r, c, s.tree, s.path, &s.answer)
    r.row = request_row(head.type)
    r.type = head.type
    r.tx_id = head.tx_id
    r.payload.p = payload
    r.payload.n = head.len
    s.answer.head = s.answer.tail = 0
    r.effect.fires = r.effect.wrote = False
    s.events.begin()
    if r.tx_id and not r.row.flags & ROW_NO_TRANSACTION:
        txn = <Transaction>c.at_hand
        if txn is None or txn.id != r.tx_id:
            txn = c.transactions.get(r.tx_id)
            if txn is None:
                log_request(s, &r, c.label)
                return _reply(s, &r, head, ST_EIO)
            c.at_hand = txn
        r.tree = <void *>txn.tree
        r.txn = <void *>txn
    try:
        if _over_quota(s, c, txn):
            status = s.limits.refused
        else:
            status = _serve(s, &r, txn)
        if c.closed:
            # It released its own domain.
            return 0
        if s.log.active:
            log_request(s, &r, c.label)
        if c.awaits:
            c.asked = head[0]
            return 0
        _reply(s, &r, head, status)
        if r.new_watch != NULL:
            s.events.first_event(c, r.new_watch)
        elif r.effect.fires and txn is None:
            _fire(s, &r)
    finally:
        if r.before != NULL:
            s.tree.grave.bury(r.before)
    return 0


cdef bint _over_quota(State s, Connection c, Transaction txn) except -1:
    """Has a guest asked too much in this transaction?  A quota of 0 refuses all requests of a
    guest, those outside of transactions too."""
    cdef int64_t most = s.limits.most[Q_TRANSACTION_NODES]
    if c.who.privileged:
        return False
    if txn is None:
        return most == 0
    if txn.count < most and not (<Transactions>s.transactions).remembers_too_much(c):
        return False
    txn.quota_reached = True
    return True


cdef int _serve(State s, Request *r, Transaction txn) except -1:
    """Runs the handler, and records what its transaction or the history needs of it; the
    status."""
    cdef Connection c = <Connection>r.connection
    cdef Tree before = None
    cdef int64_t dropped = s.tree.dropped
    cdef int status
    if txn is None:
        if r.row.flags & ROW_CHANGE and s.history.wants(c):
            before = s.tree.snapshot()
        status = run(s, r)
        # The history keeps every request that may write, as oxenstored's does.
        if r.effect.wrote or before is not None:
            s.history.commits += 1
            if c.is_guest:
                s.history.churn += r.payload.n
                if s.tree.dropped != dropped:
                    (<Transactions>s.transactions).replaced(c, s.tree.dropped - dropped)
            if before is not None:
                s.history.record(c, before, s.tree.snapshot(), r.payload.n,
                                 r.path if r.effect.wrote else NULL)
        return status
    status = run(s, r)
    if r.effect.wrote and c.is_guest:
        s.history.churn += r.payload.n
    if c.is_guest and s.tree.dropped != dropped:
        # Its end has committed it.
        (<Transactions>s.transactions).replaced(c, s.tree.dropped - dropped)
    # oxenstored does not remember a request that failed with EIO.
    if status != ST_EIO:
        txn.count += 1
        if c.at_hand is txn:
            (<Transactions>s.transactions).note(txn, r, status)
    elif r.effect.wrote:
        # Memory ran out behind the parents that it created.  They are in the transaction's tree and
        # its counts, so a merge has to take them over.
        txn.note_write(r.path, r.effect.parts)
    return status


cdef int _reply(State s, Request *r, const Header *head, int status) except -1:
    cdef Connection c = <Connection>r.connection
    cdef uint32_t tx_id = 0 if r.row.flags & ROW_NO_TRANSACTION else head.tx_id
    cdef const char *name
    cdef size_t n
    if c.deaf:
        return 0
    if status != ST_OK:
        name = status_name(status)
        n = strlen(name) + 1
        c.out.put(XS_ERROR, head.req_id, tx_id, name, n)
        if s.log.active and (s.log.read_ops or status != ST_ENOENT):
            s.log.line(c.label, tx_id, b"error", name, n)
    elif r.row.flags & ROW_DATA:
        c.out.put(head.type, head.req_id, tx_id, r.answer.data, r.answer.tail)
    else:
        c.out.put(head.type, head.req_id, tx_id, b"OK", 3)
    return s.agenda.touch(c)


cdef int _fire(State s, Request *r) except -1:
    """The events of a change outside of transactions."""
    cdef Connection c = <Connection>r.connection
    cdef int event = r.row.event
    if event == EVENT_CHANGED:
        return s.events.fire(c, r.path, NULL, s.tree.root, False, True)
    if event == EVENT_PERMS:
        return s.events.fire(c, r.path, r.before, s.tree.root, False)
    if event == EVENT_REMOVED and r.before != NULL:
        return s.events.fire(c, r.path, r.before, NULL, True)
    return 0
