# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image: all that a server knows, at one instant.

A server made of an image answers every later request with the same bytes as the one that the
image was made of, and sends the same events in the same order; and the image made of it is the
same image.  So it holds more than a client could ask for: requests half read, replies half
sent, events that wait and the order in which they do, what open transactions have read and
written, the changes of late and who may be blamed for them, the generation counts of listings,
and which nodes of all these trees are one node (graph.pyx).

It does not hold what belongs to the process: descriptors, rings and event channels (load() is
given a Transport for each connection), the configuration, the access log's lines and its
switches.  Quotas are in it, since they may have been changed at run time.

The records, beside those of graph.pyx; each has a dict (values.py) with a key for each field:

    SERV  the server: numbers that count on, quotas, the store
    CONN  a connection, in the order in which they were made; also those that are closed and
          still named by the history
    LATE  the changes of late (`_history`), and who has less than full credit
    TURN  who waits to be served, and whose output waits to be sent

Times are those of the server's monotonic clock; load() moves them by what its own clock differs.
The counts that a hash makes (DIRECTORY_PART for guests, the digests of transactions) are made
with the key of the process, so that the image has it, and a process can take it over before it
makes its first server (_siphash.use_key).
"""

from collections import OrderedDict, deque

from cpython.ref cimport Py_INCREF
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy
from pyxsd._agenda cimport Agenda, Waiting
from pyxsd._commit cimport Transactions
from pyxsd._conn cimport WANT_IN, WANT_OUT, Connection
from pyxsd._core cimport Server
from pyxsd._history cimport History
from pyxsd._limits cimport Q_COUNT, UNLIMITED, Limits
from pyxsd._listing cimport Listing
from pyxsd._outq cimport OutQueue, Queued, path_hash
from pyxsd._request cimport EVENT_CHANGED, EVENT_PERMS, EVENT_REMOVED, State
from pyxsd._siphash cimport hash_key as the_key
from pyxsd._wire cimport (
    HEADER_SIZE, ST_COUNT, XS_TYPES, Header, Transport, buffer_free, buffer_put,
)
from pyxsd.events.events cimport Account, Changes, Events, Job, Pending
from pyxsd.events.trie cimport Search, Watch, watch_path
from pyxsd.state.graph cimport GraphReader, GraphWriter
from pyxsd.store.path cimport Path, path_parse
from pyxsd.store.subtree cimport node_ref
from pyxsd.store.transaction cimport Transaction, path_restore
from pyxsd.store.tree cimport Tree

from pyxsd.state import records, values
from pyxsd.state.host_state import StateError

#: What content that makes no sense is met with when it is taken apart.
_SENSELESS = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)

#: The records of an image: those of graph.pyx, then its own.
TYPES = frozenset((b"PERM", b"CNTS", b"PAGE", b"NODE", b"SERV", b"CONN", b"LATE", b"TURN"))


cdef bytes _process_key():
    return (<const char *>&the_key)[:sizeof(the_key)]


# -- saving -------------------------------------------------------------------

def save(Server server not None):
    """The image of a server, as the bytes of a file.

    Between two turns, never inside of a request: RuntimeError.  What the server has put off of
    its own housekeeping is done first.
    """
    if server.serving is not None:
        raise RuntimeError("an image inside of a request")
    while server._has_remains():
        server._clear_away()
    return _Saver(server).save()


cdef class _Saver:
    """One image in the making."""

    cdef Server server
    cdef State s
    cdef Events events
    cdef object out
    cdef GraphWriter graph

    def __init__(self, Server server):
        self.server = server
        self.s = server.s
        self.events = server.s.events
        self.out = records.Writer()
        self.graph = GraphWriter(self.out.add)

    def save(self):
        cdef Connection c
        cdef dict closed = {}
        self._add(b"SERV", self._server())
        self._add(b"CONN", self._connection(self.server.kernel))
        for c in self.s.connections.values():
            self._add(b"CONN", self._connection(c))
        for c in self._named_by_history():
            if c.closed and c.id not in closed:
                closed[c.id] = c
                self._add(b"CONN", {"id": c.id, "domid": _domid(c), "label": c.label,
                                    "closed": True})
        self._add(b"LATE", self._history())
        self._add(b"TURN", self._turn())
        return self.out.finish()

    cdef int _add(self, bytes type_, dict row) except -1:
        self.out.add(type_, values.encode(row))
        return 0

    def _server(self):
        cdef Transactions transactions = self.s.transactions
        cdef Limits limits = self.server.limits
        return {
            "hash_key": _process_key(),
            "tree": self.graph.tree(self.s.tree),
            "epoch": self.s.epoch,
            "last_id": self.server.last_id,
            "last_anonymous": self.server.last_anonymous,
            "ops": self.server.ops,
            "failures": self.server.failures,
            "quotas": [limits.most[i] for i in range(Q_COUNT)],
            "owners": [[owner, most] for owner, most in limits.owners.items()],
            "last_serial": self.events.trie.serial,
            "last_event": self.events.last_event,
            "last_debt": self.events.last_debt,
            "queued": self.events.queued,
            "merged_events": self.events.merged,
            "refused": self.events.refused,
            "failed": transactions.failed,
            "no_culprit": transactions.no_culprit,
            "merged": transactions.merged,
            "done": transactions.done,
        }

    def _connection(self, Connection c):
        cdef Listing listing
        cdef Pending pending
        row = {
            "id": c.id,
            "domid": _domid(c),
            "label": c.label,
            "closed": False,
            "target": c.who.target,
            "features": c.features,
            "ops": c.ops,
            "bad": bool(c.bad),
            "ended": bool(c.ended),
            "deaf": bool(c.deaf),
            "hung_up": bool(c.hung_up),
            "stalled": bool(c.stalled),
            "used": c.used,
            "interest": c.interest,
            "credit": c.credit,
            "last_tx": c.last_tx,
            "replaced": c.replaced,
            "most_watches": c.most_watches,
            "most_transactions": c.most_transactions,
            "input": c.partial_input,
            "output": self._output(c.out),
            "watches": self._watches(c),
            "pending": [self._pending(pending) for pending in c.pending.values()],
            "overfull": list(c.overfull),
            "jobs": None if c.jobs is None else self._jobs(c),
            "transactions": [self._transaction(txn) for txn in c.transactions.values()],
            "generation": c.generation,
            "listings": None,
        }
        if c.listings is not None:
            row["listings"] = [[self.graph.node((<Listing>listing).node), listing.epoch,
                                listing.generation, listing.names] for listing in c.listings]
        return row

    def _output(self, OutQueue out):
        cdef uint32_t i
        cdef uint64_t first = max(out.sent, out.reply_end)
        remembered = sorted((out.queued[i].offset, out.queued[i].serial)
                            for i in range(out.slots)
                            if out.queued[i].serial and out.queued[i].offset >= first)
        data = b"" if out.buf.data == NULL else out.buf.data[out.buf.head:out.buf.tail]
        return {"data": data, "sent": out.sent, "reply_end": out.reply_end,
                "part_left": out.part_left,
                "part_event": bool(out.part_left and out.part_event),
                # Where the events stand that an identical one may be merged with.
                "events": remembered}

    def _watches(self, Connection c):
        """[serial, path, token, depth], oldest first."""
        cdef Watch *watch = c.watches
        cdef list found = []
        while watch != NULL:
            found.append([watch.serial, watch.text[:watch.path_len],
                          watch.text[watch.path_len + 1:watch.path_len + 1 + watch.token_len],
                          watch.depth])
            watch = watch.owner_next
        found.reverse()
        return found

    def _pending(self, Pending pending):
        cdef Account account
        overflow = []
        for number, (path, k, account) in pending.overflow.items():
            overflow.append([number, path, k, account.owner.id])
        return [pending.serial, list(pending.waiting), overflow]

    def _jobs(self, Connection c):
        """Changes of a commit as the jobs that they would become."""
        cdef Changes changes
        cdef Py_ssize_t at
        rows = []
        for what in c.jobs:
            if isinstance(what, Changes):
                changes = what
                rows += [self._job(changes.job(at))
                         for at in range(changes.next, len(changes.changes))]
            else:
                rows.append(self._job(what))
        return rows

    def _job(self, Job job):
        cdef Search *search = &job.search
        if job.begun and search.parked:
            # So that it stands at a watch that is still there.
            path_restore(self.events.path, job.text)
            while search.parked and search.next.owner == NULL:
                self.events.trie.resume(search, self.events.path, job.before)
                self.events.trie.park(search, self.events.path, job.before)
        row = {"text": job.text, "name": job.name, "deep": bool(job.deep),
               "below": bool(job.below), "begun": bool(job.begun), "newest": job.newest,
               "before": self.graph.node(job.before), "after": self.graph.node(job.after)}
        if job.begun:
            row["search"] = {"newest": search.newest, "done": bool(search.done),
                             "next": 0 if search.done else search.next.serial,
                             "parts": search.parts, "own": bool(search.own)}
        return row

    def _transaction(self, Transaction txn):
        return {
            "id": txn.id,
            "base": self.graph.tree(txn.base),
            "tree": self.graph.tree(txn.tree),
            "start": txn.start,
            "epoch": txn.epoch,
            "since": txn.since,
            "churn": txn.churn,
            "replaced": txn.replaced,
            "given_up": bool(txn.given_up),
            "dropped": txn.tree.dropped - txn.base.dropped,
            "requests": txn.requests,
            "recorded_bytes": txn.recorded_bytes,
            "changes": txn.changes,
            "count": txn.count,
            "quota_reached": bool(txn.quota_reached),
            "read": txn.read_ancestor,
            "written": txn.written_ancestor,
        }

    def _named_by_history(self):
        cdef History history = self.s.history
        yield from (change[1] for change in history.changes)
        yield from (lost[0] for lost in history.lost.values())
        yield from history.paused.values()
        yield from history.penalised.values()

    def _history(self):
        cdef History history = self.s.history
        cdef Connection c
        changes = []
        for commit, c, before, after, weight, mark in history.changes:
            changes.append([commit, c.id, self.graph.tree(before), self.graph.tree(after), weight,
                            mark])
        return {
            "now": history.now,
            "commits": history.commits,
            "churn": history.churn,
            "next_credit": history.next_credit,
            "transactions": list(history.recent_transactions),
            "paused": list(history.paused),
            "penalised": list(history.penalised),
            "changes": changes,
            "lost": [[id, mark, commit] for id, (_, marks) in history.lost.items()
                     for mark, commit in marks.items()],
        }

    def _turn(self):
        cdef Agenda agenda = self.server.agenda
        cdef Connection c
        cdef size_t i
        waiting = []
        for i in range(agenda.count):
            c = <Connection>agenda.heap[i].connection
            if not c.closed:
                waiting.append([agenda.heap[i].used, agenda.heap[i].order, c.id])
        waiting.sort()
        flushing = []
        for i in range(agenda.flush_count):
            c = <Connection>agenda.flushing[i]
            if not c.closed:
                flushing.append(c.id)
        return {"least": agenda.least, "arrivals": agenda.arrivals, "waiting": waiting,
                "flushing": flushing}


cdef object _domid(Connection c):
    """None for a socket, else the domain whose ring it is."""
    return None if c.is_socket else c.who.domid


# -- loading ------------------------------------------------------------------

def hash_key(bytes data not None):
    """The key that an image was made with; StateError."""
    for record in records.read(data, TYPES):
        if record.type == b"SERV":
            try:
                key = values.decode(record.body)["hash_key"]
            except (KeyError, TypeError, ValueError) as error:
                raise StateError(f"{record.place}: {_told(error)}") from None
            if isinstance(key, bytes) and len(key) == sizeof(the_key):
                return key
            raise StateError(f"{record.place}: the key {key!r}")
    raise StateError("the image has no server")


def load(bytes data not None, Server server not None, double now, transport_of,
         bint any_key=False):
    """Makes a new server what the image says.

    now: the monotonic time, in seconds.  transport_of(id, domid) gives the Transport of a
    connection, domid being None for a socket.  The loop finds in take_changed() the connections
    for which it has to wait in another way than for input.

    StateError where the image is cut, altered, of another version or makes no sense, or was made
    with another hash key; it names record and byte.  The server is of no use after that.
    any_key: the key may be another one, for a server that is only looked at.
    """
    loader = _Loader(server, now, transport_of, any_key)
    for record in records.read(data, TYPES):
        try:
            loader.take(record.type, record.body)
        except _SENSELESS as error:
            raise StateError(f"{record.place}: {_told(error)}") from None
    try:
        loader.finish()
    except _SENSELESS as error:
        raise StateError(f"the image as a whole: {_told(error)}") from None


def waiting_events(Connection c not None):
    """[(path, token)] of the events that wait for a client behind its output, watch by watch."""
    cdef Pending pending
    cdef list found = []
    for pending in c.pending.values():
        for path, *_ in (*pending.waiting, *pending.overflow.values()):
            found.append((path[pending.strip:] if path else pending.own_path, pending.token))
    return found


def _told(error):
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


cdef object _unsigned(number):
    """The number, which must be a whole one of 64 bits that is not negative."""
    if not isinstance(number, int) or not 0 <= number <= UINT64_MAX:
        raise ValueError(f"the number {number!r}")
    return number


cdef int _restore(Path *out, bytes kept) except -1:
    """path_restore() of what a file says."""
    if kept[:1] not in (b"/", b"@"):
        raise ValueError(f"not a path: {kept[:64]!r}")
    return path_restore(out, kept)


cdef class _Loader:
    """A server that an image is being loaded into."""

    cdef Server server
    cdef State s
    cdef Events events
    cdef double now
    cdef object transport_of
    cdef bint any_key
    cdef GraphReader graph
    cdef dict rows            # id: the CONN record of a connection
    cdef dict by_id           # id: Connection, those that are closed included
    cdef dict serials         # serial: (Connection, address of the Watch)
    cdef object late
    cdef object turn
    cdef object row

    def __init__(self, Server server, double now, transport_of, bint any_key):
        self.server = server
        self.s = server.s
        self.events = server.s.events
        self.now = now
        self.transport_of = transport_of
        self.any_key = any_key
        self.graph = GraphReader(self.s.tree)
        self.rows = {}
        self.by_id = {}
        self.serials = {}
        if self.s.connections:
            raise ValueError("the server has connections already")

    def take(self, bytes type_, bytes body):
        """The next record."""
        if type_ not in (b"SERV", b"CONN", b"LATE", b"TURN"):
            self.graph.take(type_, body)
            return
        row = values.decode(body)
        if type_ == b"CONN":
            if row["id"] in self.rows:
                raise ValueError(f"the connection {row['id']} stands there twice")
            self.rows[row["id"]] = row
            self._identity(row)
        elif type_ == b"SERV":
            self.row = row
            if row["hash_key"] != _process_key() and not self.any_key:
                raise ValueError("it was made with another hash key")
        elif type_ == b"LATE":
            self.late = row
        else:
            self.turn = row

    def _identity(self, row):
        """The connection itself, so that others can name it."""
        cdef Connection c
        # Numbers that do not fit must be found before the object is made.
        cdef uint64_t id = row["id"]
        cdef int64_t number = 0 if row["domid"] is None else row["domid"]
        domid = None if row["domid"] is None else number
        if not self.by_id:
            # The first one stands for the kernel of domain 0.
            c = self.server.kernel
            c.id = id
        else:
            c = Connection(id, Transport() if row["closed"] else self.transport_of(id, domid),
                           domid)
            c.who.unchecked = not self.server.perms_active
            c.closed = row["closed"]
            if not c.closed:
                self.s.connections[c.id] = c
                if domid is not None:
                    if domid in self.s.domains:
                        raise ValueError(f"domain {domid} has two rings")
                    self.s.domains[domid] = c
        c.label = row["label"]
        self.by_id[id] = c

    def finish(self):
        """All records are there."""
        for what, name in ((self.row, "SERV"), (self.late, "LATE"), (self.turn, "TURN"),
                           (self.rows or None, "CONN")):
            if what is None:
                raise ValueError(f"there is no record {name}")
        self._server()
        self._history()
        watches = []
        for id, row in self.rows.items():
            if not row["closed"]:
                for serial, path, token, depth in row["watches"]:
                    watches.append((serial, id, path, token, depth))
        # A watch comes before the older ones on its path, and before its owner's older ones.
        for serial, id, path, token, depth in sorted(watches):
            self._watch(self.by_id[id], serial, path, token, depth)
        self.events.trie.serial = self.row["last_serial"]
        for id, row in self.rows.items():
            if not row["closed"]:
                self._connection(self.by_id[id], row)
        debts = []
        for id, row in self.rows.items():
            if not row["closed"]:
                self._pendings(self.by_id[id], row, debts)
        for number, pending, path, k, cause in sorted(debts, key=lambda debt: debt[0]):
            self._debt(number, pending, path, k, self.by_id[cause])
        self._turn()

    def _server(self):
        cdef Transactions transactions = self.s.transactions
        cdef Limits limits = self.server.limits
        cdef Tree tree
        row = self.row
        tree = self.graph.tree(row["tree"])
        self.s.tree.adopt(tree)
        self.s.tree.copied = tree.copied
        self.s.epoch = row["epoch"]
        self.server.last_id = row["last_id"]
        self.server.last_anonymous = row["last_anonymous"]
        self.server.ops = row["ops"]
        self.server.failures = row["failures"]
        if len(row["quotas"]) != Q_COUNT:
            raise ValueError(f"{len(row['quotas'])} quotas")
        for i, most in enumerate(row["quotas"]):
            limits.most[i] = most
        for owner, most in row["owners"]:
            # As Limits.set_owner() keeps it.
            limits.owners[owner] = min(_unsigned(most), UNLIMITED)
        limits._follow()
        self.events.last_event = row["last_event"]
        self.events.last_debt = row["last_debt"]
        self.events.queued = row["queued"]
        self.events.merged = row["merged_events"]
        self.events.refused = row["refused"]
        transactions.failed = row["failed"]
        transactions.no_culprit = row["no_culprit"]
        transactions.merged = row["merged"]
        transactions.done = row["done"]

    cdef double _moved(self, double time) except *:
        """A time of the image on this server's clock."""
        cdef double then = self.late["now"]
        return time if then == self.now else time - then + self.now

    def _history(self):
        cdef History history = self.s.history
        cdef Connection c
        late = self.late
        newest = 0
        history.now = self.now
        history.commits = late["commits"]
        history.churn = late["churn"]
        history.next_credit = self._moved(late["next_credit"]) if late["next_credit"] else 0.0
        for id, tx_id, start, since in late["transactions"]:
            history.recent_transactions.append(
                (_unsigned(id), _unsigned(tx_id), _unsigned(start), self._moved(since)))
        history.paused = OrderedDict((id, self.by_id[id]) for id in late["paused"])
        history.penalised = OrderedDict((id, self.by_id[id]) for id in late["penalised"])
        for id, mark, commit in late["lost"]:
            history.note_lost(self.by_id[id], mark, commit)
        for commit, id, before, after, weight, mark in late["changes"]:
            c = self.by_id[id]
            if not 0 < weight <= UINT32_MAX:
                raise ValueError(f"a change of weight {weight}")
            if not newest < commit <= history.commits:
                raise ValueError(f"the change {commit} after the change {newest}")
            newest = commit
            history.keep(commit, c, self.graph.tree(before), self.graph.tree(after), weight, mark)

    cdef int _watch(self, Connection c, serial, bytes path, bytes token, depth) except -1:
        cdef Watch *watch
        cdef Path *at = self.s.path
        if not path_parse(at, path, len(path), c.base, len(c.base), -1):
            raise ValueError(f"a watch on {path[:64]!r}")
        self.events.trie.serial = serial - 1
        watch = self.events.trie.add(<void *>c, &c.watches, at, path, len(path), token,
                                     len(token), depth, len(c.base))
        if watch == NULL or serial in self.serials:
            raise ValueError(f"the watch on {path[:64]!r} or its number {serial} is there twice")
        c.watch_count += 1
        self.serials[serial] = (c, <size_t>watch)
        return 0

    cdef Watch *_of_serial(self, serial) except NULL:
        found = self.serials.get(serial)
        if found is None:
            raise ValueError(f"there is no watch {serial}")
        return <Watch *><size_t>found[1]

    def _connection(self, Connection c, row):
        cdef Transaction txn
        self.s.set_target(c, row["target"])
        c.features = row["features"]
        c.ops = row["ops"]
        c.bad = row["bad"]
        c.ended = row["ended"]
        c.deaf = row["deaf"]
        c.hung_up = row["hung_up"]
        c.stalled = row["stalled"]
        c.used = row["used"]
        if row["interest"] not in (-1, 0, WANT_IN, WANT_OUT, WANT_IN | WANT_OUT):
            raise ValueError(f"the connection {c.id} waits for {row['interest']}")
        c.interest = row["interest"]
        c.credit = row["credit"]
        c.last_tx = row["last_tx"]
        c.replaced = row["replaced"]
        c.most_watches = row["most_watches"]
        c.most_transactions = row["most_transactions"]
        c.generation = row["generation"]
        buffer_free(&c.inp)
        if row["input"]:
            buffer_put(&c.inp, <const char *>(<bytes>row["input"]), len(row["input"]))
        self._output(c.out, row["output"])
        for entry in row["transactions"]:
            txn = self._transaction(entry)
            c.transactions[txn.id] = txn
            c.recorded_bytes += txn.recorded_bytes
            (<Transactions>self.s.transactions).open += 1
        if row["listings"] is not None:
            c.listings = [self._listing(*entry) for entry in row["listings"]]
        if row["jobs"] is not None:
            c.jobs = deque(self._job(entry) for entry in row["jobs"])
        if c.interest != WANT_IN and c is not self.server.kernel:
            c.changed = True
            self.server.agenda.changed.append(c)

    def _output(self, OutQueue out, row):
        cdef bytes data = row["data"]
        cdef Header head
        cdef const char *p
        cdef const char *nul
        cdef uint64_t offset, serial, hash
        cdef size_t at
        cdef Queued *slot
        if len(data) < row["part_left"]:
            raise ValueError(f"{row['part_left']} bytes of a packet in {len(data)} of output")
        out.restore(data, len(data), row["part_left"])
        if row["part_left"] and row["part_event"]:
            out.part_event = True
            out.replies -= 1
            out.events += 1
        out.sent = row["sent"]
        out.reply_end = row["reply_end"]
        for offset, serial in row["events"]:
            at = offset - out.sent
            if offset < out.sent or len(data) - HEADER_SIZE < <int64_t>at or serial == 0:
                raise ValueError(f"an event at byte {offset} of the output")
            memcpy(&head, <const char *>data + at, HEADER_SIZE)
            p = <const char *>data + at + HEADER_SIZE
            if head.len > len(data) - at - HEADER_SIZE:
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

    def _pendings(self, Connection c, row, debts):
        cdef Pending pending
        cdef Watch *watch
        for serial, waiting, overflow in row["pending"]:
            watch = self._of_serial(serial)
            if <Connection>watch.owner is not c:
                raise ValueError(f"the watch {serial} is another's")
            pending = Pending(c)
            pending.serial = serial
            pending.token = watch.text[watch.path_len + 1:
                                       watch.path_len + 1 + watch.token_len]
            pending.own_path = watch.text[:watch.path_len]
            pending.strip = watch.strip
            for path, k in waiting:
                self._check_event(pending, path, k)
                self.events._wait(pending, path, k)
            for number, path, k, cause in overflow:
                self._check_event(pending, path, k)
                debts.append((number, pending, path, k, cause))
            c.pending[serial] = pending
        for serial in row["overfull"]:
            c.overfull[serial] = c.pending[serial]

    def _check_event(self, Pending pending, path, k):
        if not isinstance(path, bytes) or not 0 <= k <= self.events.last_event \
                or (path and len(path) < <Py_ssize_t>pending.strip):
            raise ValueError(f"an event of the watch {pending.serial}")
        if k == 0:
            pending.paths.add(path)

    def _debt(self, uint64_t number, Pending pending, path, k, Connection cause):
        cdef Account account = cause.debts
        if cause.closed or number > self.events.last_debt or number in pending.overflow:
            raise ValueError(f"the event {number} on the account of connection {cause.id}")
        if account is None:
            cause.debts = account = Account(cause)
        pending.overflow[number] = (path, k, account)
        account.owed[number] = pending
        cause.overflowing += 1

    def _transaction(self, row):
        # Numbers that do not fit must be found before the object is made.
        cdef uint32_t id = row["id"]
        cdef uint64_t start = row["start"], epoch = row["epoch"]
        cdef Transaction txn = Transaction(id, self.graph.tree(row["base"]), start, epoch,
                                           self._moved(row["since"]))
        txn.tree = self.graph.tree(row["tree"])
        txn.churn = row["churn"]
        txn.replaced = row["replaced"]
        txn.given_up = row["given_up"]
        txn.tree.dropped = txn.base.dropped + row["dropped"]
        for type_, payload, status, digest in row["requests"]:
            # Those without a payload cannot be run again, and may be of a type that is none.
            if not 0 <= type_ <= (UINT32_MAX if payload is None else XS_TYPES - 1) \
                    or not isinstance(payload, (bytes, type(None))):
                raise ValueError(f"a request of type {type_}")
            if not 0 <= status < ST_COUNT:
                raise ValueError(f"a request with the status {status}")
            txn.requests.append((type_, payload, status, _unsigned(digest)))
        txn.recorded_bytes = row["recorded_bytes"]
        for event, path in row["changes"]:
            _restore(self.s.path, path)
            if event not in (EVENT_CHANGED, EVENT_PERMS, EVENT_REMOVED):
                raise ValueError(f"a change of kind {event}")
            txn.changes.append((event, path))
        txn.count = row["count"]
        txn.quota_reached = row["quota_reached"]
        txn.read_ancestor = row["read"]
        txn.written_ancestor = row["written"]
        for path in (txn.read_ancestor, txn.written_ancestor):
            if path is not None:
                _restore(self.s.path, path)
        return txn

    def _listing(self, number, epoch, generation, names):
        cdef Listing listing = Listing.__new__(Listing)
        listing.epoch = epoch
        listing.generation = generation
        listing.names = names
        if self.graph.node(number) == NULL:
            raise ValueError("a listing of nothing")
        listing.node = node_ref(self.graph.node(number))
        return listing

    def _job(self, row):
        cdef Job job = Job.__new__(Job)
        cdef Search *search = &job.search
        job.text = row["text"]
        job.name = row["name"]
        job.deep = row["deep"]
        job.below = row["below"]
        job.begun = row["begun"]
        job.newest = row["newest"]
        _restore(self.events.path, job.text)
        if job.begun:
            found = row["search"]
            if job.name is not None:
                self.events.trie.search_special(search, job.name, len(job.name))
            else:
                self.events.trie.search(search, self.events.path, job.below)
            search.newest = found["newest"]
            search.done = found["done"]
            search.parts = found["parts"]
            search.own = found["own"]
            if search.parts > self.events.path.parts:
                raise ValueError(f"a search behind the end of {job.text[:64]!r}")
            if not search.done:
                search.next = self._of_serial(found["next"])
                if search.own and not (job.below and self._is_below(search.next)):
                    raise ValueError(f"the watch {found['next']} is not below {job.text[:64]!r}")
                search.node = search.next.node
                search.next.held += 1
                search.parked = True
        job.keep(self.s.tree.grave, self.graph.node(row["before"]), self.graph.node(row["after"]))
        return job

    cdef bint _is_below(self, const Watch *watch) noexcept:
        """Is the watched path below the one in events.path?"""
        cdef const Path *path = self.events.path
        cdef Path *own = self.events.look_at
        return not watch.special and watch_path(watch, own) and own.parts > path.parts \
            and memcmp(own.text, path.text, path.len if path.parts else 0) == 0 \
            and (path.parts == 0 or own.text[path.len] == c"/")

    def _turn(self):
        cdef Agenda agenda = self.server.agenda
        cdef Connection c
        cdef Waiting *heap
        cdef size_t i = 0
        row = self.turn
        agenda.least = row["least"]
        agenda.arrivals = row["arrivals"]
        waiting = sorted((used, order, id) for used, order, id in row["waiting"])
        heap = <Waiting *>malloc((len(waiting) + 16) * sizeof(Waiting))
        if heap == NULL:
            raise MemoryError()
        free(agenda.heap)
        agenda.heap = heap
        agenda.room = len(waiting) + 16
        for used, order, id in waiting:
            c = self.by_id[id]
            if c.is_ready or c.closed:
                raise ValueError(f"the connection {id} waits twice, or is closed")
            # What is sorted is a heap.
            heap[i].used = used
            heap[i].order = order
            heap[i].connection = <void *>c
            Py_INCREF(c)
            c.is_ready = True
            i += 1
            agenda.count = i
        for id in row["flushing"]:
            agenda.touch(self.by_id[id])
