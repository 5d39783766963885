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

The records of the file (records.py), with fields as codec.pyx writes them:

    SERV  the server: the key of its hashes, numbers that count on, quotas, the store
    CONN  some connections, each a part, in the order in which they were made; also those that
          are closed and still named by the history
    LATE  the changes of late (`_history`), and who has less than full credit
    TURN  who waits to be served, and whose output waits to be sent
    GRPH  some parts of the trees and nodes that the others name by numbers

and those of whoever has the image made (ALSO), which this file does not look into.  The fields of
the first four are in passage.pyx.

An image is made in slices, see Saving: everything but GRPH at one instant, and the nodes of the
trees as they were at that instant between later turns.

Times are those of the server's monotonic clock; load() can move them to another one.
The counts that a hash makes (DIRECTORY_PART for guests, the digests of transactions) are made
with the key of the process, so that the image has it, and a process can take it over before it
makes its first server (_siphash.use_key).
"""

cimport cython
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from pyxsd._commit cimport Transactions
from pyxsd._conn cimport WANT_IN, Connection
from pyxsd._core cimport Server
from pyxsd._history cimport History
from pyxsd._journal cimport pyxsd_clock
from pyxsd._request cimport State
from pyxsd._siphash cimport hash_key as the_key
from pyxsd._wire cimport Transport
from pyxsd.events.backlog cimport Pending
from pyxsd.events.trie cimport Watch
from pyxsd.state.codec cimport Codec
from pyxsd.state.graph cimport GraphReader, GraphWriter
from pyxsd.state.passage cimport Passage

from pyxsd.state import records
from pyxsd.state.errors import StateError

#: What content that makes no sense is met with when it is taken apart.
_SENSELESS = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)

#: The records of a server.
OWN = frozenset((b"SERV", b"CONN", b"LATE", b"TURN", b"GRPH"))
#: Those of the daemon around it (surroundings.py).
ALSO = frozenset((b"HOST", b"DOMS", b"SOCK"))
TYPES = OWN | ALSO

cdef enum:
    RECORD_BYTES = 32768     # of a record of several connections or nodes, about
    CLEARED = 512            # events that are gone, freed in one step before the image begins
    WAITS = 1000             # such steps at most

# How far a Saving is.
cdef enum:
    WAITING = 0
    WRITING = 1
    OVER = 2


cdef bytes _process_key():
    return (<const char *>&the_key)[:sizeof(the_key)]


def _told(error):
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


# -- saving -------------------------------------------------------------------

@cython.final
cdef class Saving:
    """An image in the making.

    put(bytes) takes the next bytes of the file.  around() gives [(type, body)], records of ALSO;
    it is called at the instant that the image is of, when its first bytes are put.  blank: values
    are replaced by x (blank.pyx).
    """

    cdef Passage passage
    cdef object out
    cdef object around
    cdef int stage
    cdef object hold         # while the nodes are written
    cdef int waited          # steps in which what has gone was cleared away

    def __init__(self, Server server not None, put, around=None, bint blank=False):
        self.passage = Passage(server)
        self.passage.blank = blank
        self.passage.writer = GraphWriter(server.s.tree.grave)
        self.passage.writer.blank = blank
        self.out = records.Writer(put)
        self.around = around

    def step(self, double seconds):
        """Goes on for about so long; True when the file is whole.

        Between two turns, never inside of a request: RuntimeError.  What the server has put off
        of its own housekeeping is done first.
        """
        cdef Server server = self.passage.server
        cdef GraphWriter writer = self.passage.writer
        cdef uint64_t until = UINT64_MAX
        cdef bint over
        if server.serving is not None:
            raise RuntimeError("an image inside of a request")
        if seconds < 1e9:
            until = pyxsd_clock() + <uint64_t>(seconds * 1e9)
        if self.stage == WAITING:
            while self.passage.events.has_remains():
                self.passage.events.clear_away(CLEARED)
                if self.waited < WAITS and pyxsd_clock() >= until:
                    self.waited += 1
                    return False
            self._instant()
            self.hold = server.hold()
            self.stage = WRITING
            if pyxsd_clock() >= until:
                return False
        while self.stage == WRITING:
            over = writer.write(until, RECORD_BYTES)
            if writer.out.tail and (over or writer.out.tail >= RECORD_BYTES):
                self.out.add(b"GRPH", writer.written())
            if over:
                self.out.finish()
                self.stage = OVER
                self.hold = None
            elif pyxsd_clock() >= until:
                return False
        return True

    cdef int _instant(self) except -1:
        """Everything but the nodes."""
        cdef Passage passage = self.passage
        cdef Codec codec = Codec()
        cdef Connection c
        cdef set closed = set()
        passage.now = passage.then = passage.s.history.now
        passage.serv(codec)
        self.out.add(b"SERV", codec.written())
        self._connection(codec, passage.server.kernel)
        for c in passage.s.connections.values():
            self._connection(codec, c)
        for c in _named_by_history(passage.s.history):
            if c.closed and c.id not in closed:
                closed.add(c.id)
                self._connection(codec, c)
        self.out.add(b"CONN", codec.written())
        passage.late(codec)
        self.out.add(b"LATE", codec.written())
        passage.turn(codec)
        self.out.add(b"TURN", codec.written())
        if self.around is not None:
            for type_, body in self.around():
                self.out.add(type_, body)
        return 0

    cdef int _connection(self, Codec codec, Connection c) except -1:
        cdef size_t at = codec.open()
        cdef int64_t domid = -1 if c.is_socket else c.who.domid
        codec.u64(&c.id)
        codec.i64(&domid)
        codec.flag(&c.closed)
        codec.blob(c.label)
        if not c.closed:
            self.passage.watch_texts(codec, c)
            self.passage.connection(codec, c)
        codec.close(at)
        if codec.out.tail >= RECORD_BYTES:
            self.out.add(b"CONN", codec.written())
        return 0


def _named_by_history(History history):
    yield from (change[1] for change in history.changes)
    yield from (lost[0] for lost in history.lost.values())
    yield from history.paused.values()
    yield from history.penalised.values()


def save(Server server not None, around=None, bint blank=False):
    """The image of a server, as the bytes of a file.  See Saving."""
    cdef list parts = []
    Saving(server, parts.append, around, blank).step(1e9)
    return b"".join(parts)


# -- loading ------------------------------------------------------------------

def read(data not None):
    """The records of an image, as load() wants them; StateError where it is cut, altered, or of
    another version."""
    return records.read(data, TYPES)


def hash_key(found not None):
    """The key that an image was made with; StateError.  found: see read()."""
    for record in found:
        if record.type == b"SERV":
            if len(record.body) < sizeof(the_key):
                raise StateError(f"{record.place}: it is too short")
            return bytes(record.body[:sizeof(the_key)])
    raise StateError("the image has no server")


def load(found not None, Server server not None, now, transport_of, bint any_key=False):
    """Makes a new server what the image says.

    found: see read(); the records of ALSO are left alone.  now: the monotonic time in seconds,
    which the times of the image are moved to; None where it is of the same clock.
    transport_of(id, domid) gives the Transport of a connection, domid being None for a socket.
    The loop finds in take_changed() the connections for which it has to wait in another way than
    for input.

    StateError where the image makes no sense, or was made with another hash key; it names record
    and byte.  The server is of no use after that.  any_key: the key may be another one, for a
    server that is only looked at.
    """
    if server.s.connections:
        raise ValueError("the server has connections already")
    if not any_key and hash_key(found) != _process_key():
        raise StateError("the image was made with another hash key")
    _Loading(server, now, transport_of).load(found)


@cython.final
cdef class _Loading:
    """A server that an image is being loaded into."""

    cdef Passage passage
    cdef Server server
    cdef State s
    cdef object transport_of
    cdef list parts          # (record, Connection, Codec behind its watches) of the open ones

    def __init__(self, Server server, now, transport_of):
        self.passage = Passage(server)
        if now is None:
            self.passage.same_clock = True
        else:
            self.passage.now = now
        self.passage.reader = GraphReader(server.s.tree)
        self.server = server
        self.s = server.s
        self.transport_of = transport_of
        self.parts = []

    def load(self, found):
        cdef dict once = {}
        cdef Passage passage = self.passage
        cdef Connection c
        cdef Codec codec
        # The nodes first, which the others name.
        for record in found:
            if record.type == b"GRPH":
                self._do(record.place, self._nodes, record.body)
            elif record.type in (b"SERV", b"LATE", b"TURN"):
                if record.type in once:
                    raise StateError(f"{record.place}: there are two of them")
                once[record.type] = record
        for type_ in (b"SERV", b"LATE", b"TURN"):
            if type_ not in once:
                raise StateError(f"the image as a whole: there is no record {type_.decode()}")
        self._do(once[b"SERV"].place, self._server, once[b"SERV"].body)
        for record in found:
            if record.type == b"CONN":
                self._do(record.place, self._connections, record)
        if not passage.by_id:
            raise StateError("the image as a whole: there is no record CONN")
        self._do(once[b"LATE"].place, self._late, once[b"LATE"].body)
        self._do("the image as a whole", self._watches, None)
        for record, c, codec in self.parts:
            try:
                self._rest(c, codec)
            except _SENSELESS as error:
                raise StateError(f"{record.place}, connection {c.id}: {_told(error)}") from None
        (<Transactions>self.s.transactions).restored()
        self._do("the image as a whole", self._debts, None)
        self._do("the image as a whole", self._recent, None)
        self._do(once[b"TURN"].place, self._turn, once[b"TURN"].body)

    def _do(self, place, what, argument):
        """Does it; StateError with the place where that cannot be done."""
        try:
            what(argument)
        except _SENSELESS as error:
            raise StateError(f"{place}: {_told(error)}") from None

    def _nodes(self, body):
        cdef const unsigned char[::1] view = body
        if view.shape[0]:
            self.passage.reader.take(<const char *>&view[0], view.shape[0])

    def _server(self, body):
        cdef Codec codec = Codec(body)
        self.passage.serv(codec)
        codec.end()
        self.s.history.now = self.passage.now

    def _connections(self, record):
        """Who they are, so that others can name them, and what they watch."""
        cdef Codec codec = Codec(record.body), part
        while codec.at < codec.size:
            part = codec.part()
            c = self._identity(part)
            if c.closed:
                part.end()
            else:
                self.passage.watch_texts(part, c)
                self.parts.append((record, c, part))

    cdef Connection _identity(self, Codec codec):
        cdef Connection c
        cdef uint64_t id
        cdef int64_t domid
        cdef bint closed = False
        codec.u64(&id)
        codec.i64(&domid)
        codec.flag(&closed)
        label = codec.blob(None)
        if id in self.passage.by_id:
            raise ValueError(f"the connection {id} stands there twice")
        if label is None or not (label.isascii() and label.decode().isprintable()):
            # It stands in front of log lines.
            raise ValueError(f"the connection {id} is called {label!r}")
        if domid < -1:
            raise ValueError(f"the domain {domid}")
        if not self.passage.by_id:
            # The first one stands for the kernel of domain 0.
            c = self.server.kernel
            c.id = id
        else:
            number = None if domid < 0 else domid
            if not closed and number in self.s.domains:
                raise ValueError(f"domain {domid} has two rings")
            c = Connection(id, Transport() if closed else self.transport_of(id, number), number)
            c.who.unchecked = not self.server.perms_active
            c.closed = closed
            if not closed:
                self.s.connections[id] = c
                if number is not None:
                    self.s.domains[number] = c
        c.label = label
        self.passage.by_id[id] = c
        return c

    def _late(self, body):
        cdef Codec codec = Codec(body)
        self.passage.late(codec)
        codec.end()

    def _watches(self, _):
        self.passage.make_watches()

    cdef int _rest(self, Connection c, Codec codec) except -1:
        self.passage.connection(codec, c)
        codec.end()
        if c.interest != WANT_IN and c is not self.server.kernel:
            c.changed = True
            self.server.agenda.changed.append(c)
        return 0

    def _debts(self, _):
        self.passage.make_debts()

    def _recent(self, _):
        self.passage.make_recent()

    def _turn(self, body):
        cdef Codec codec = Codec(body)
        self.passage.turn(codec)
        codec.end()


def waiting_events(Connection c not None):
    """[(path, token)] of the events that wait for a client behind its output, watch by watch."""
    cdef Pending pending
    cdef list found = []
    cdef const Watch *watch
    for pending in c.pending.values() if c.pending else ():
        watch = pending.watch
        token = watch.text[watch.path_len + 1:watch.path_len + 1 + watch.token_len]
        for path, *_ in (*pending.waiting, *pending.overflow.values()):
            found.append((path[watch.strip:] if path else watch.text[:watch.path_len], token))
    return found
