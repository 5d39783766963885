# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections.

A connection is passive: the server pulls packets out of its input (next_packet) and puts
replies and events into its output.  The other parts of the server keep what they need for
a client in fields of its connection, each its own and no other's.

What bounds a connection (a part of the answer to XSA-325, 326 and 416): a request is served
only where is_blocked() is false, so where its reply has room, where no event that the client
caused waits for room elsewhere, and where its conflict credit is positive.
"""

cimport cython
from collections import OrderedDict
from pyxsd._wire cimport buffer_free

cdef long long _live = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"connections": _live}


@cython.final
cdef class Connection:
    """A client: a socket with the rights of domain 0 (domid None), or a domain's ring."""

    def __cinit__(self, uint64_t id, Transport transport not None, domid):
        global _live
        _live += 1
        self.id = id
        self.transport = transport
        self.is_socket = domid is None
        self.who.domid = domid or 0
        self.who.target = -1
        self.who.privileged = self.who.domid == 0
        self.is_guest = self.who.domid != 0
        # A socket gets its label from who knows its number.
        self.base = b"/local/domain/0/" if self.is_socket else b"/local/domain/%d/" % domid
        self.label = b"DOM0" if self.is_socket else b"DOM%d" % domid
        self.out = OutQueue.__new__(OutQueue)
        self.transactions = {}
        self.debts = None
        self.jobs = None
        self.credit = 1e9
        self.most_watches = self.most_transactions = -1
        self.interest = self.registered = WANT_IN

    def __dealloc__(self):
        global _live
        _live -= 1
        buffer_free(&self.inp)

    cdef int begin_waiting(self) except -1:
        if self.pending is None:
            self.pending = OrderedDict()
            self.overfull = OrderedDict()
        return 0

    @property
    def domid(self):
        """The domain whose rights it has."""
        return self.who.domid

    @property
    def target(self):
        """The domain that it also acts for, -1 for none (SET_TARGET)."""
        return self.who.target

    @property
    def privileged(self):
        """Has it the rights of domain 0?"""
        return self.who.privileged

    @property
    def partial_input(self):
        """The bytes read and not served yet."""
        return self.inp.data[self.inp.head:self.inp.tail] if self.inp.data != NULL else b""

    @property
    def pending_output(self):
        """The bytes queued and not sent yet; the front may be inside a packet."""
        buf = &self.out.buf
        return buf.data[buf.head:buf.tail] if buf.data != NULL else b""

    @property
    def torn_output(self):
        """How many bytes of pending_output are the rest of a packet that was sent in part."""
        return self.out.part_left

    @property
    def queued(self):
        """(replies, events) in the output queue."""
        return self.out.replies, self.out.events

    @property
    def has_output(self):
        """Is there something queued?"""
        return buffer_len(&self.out.buf) > 0

    @property
    def waiting_events(self):
        """Events that wait behind this connection's watches."""
        return sum(len(pending) for pending in self.pending.values()) if self.pending else 0

    @property
    def asked_for(self):
        """(type, request id, transaction) of the request whose answer comes later (`awaits`)."""
        return self.asked.type, self.asked.req_id, self.asked.tx_id

    @property
    def has_jobs(self):
        """Are there events of its changes that are still to be delivered?"""
        return self.jobs is not None

    @property
    def blocked(self):
        """Was it found blocked: no request of it is served for now?"""
        return self.stalled

    def watch_list(self):
        """[(path as given, token, depth or None)], oldest first."""
        cdef Watch *watch = self.watches
        cdef list found = []
        while watch != NULL:
            found.append((watch.text[:watch.path_len],
                          watch.text[watch.path_len + 1:watch.path_len + 1 + watch.token_len],
                          None if watch.depth == 0xffffffff else watch.depth))
            watch = watch.owner_next
        found.reverse()
        return found
