# SPDX-License-Identifier: LGPL-2.1-or-later
"""The records of a journal without the values in them.

What clients have sent is in READ records, cut wherever the bytes came in.  So for each client
whose last packet is not complete it is kept how far that is.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memset
from pyxsd._conn cimport Connection
from pyxsd._core cimport Server
from pyxsd._journal cimport (
    J_READ, J_RESTART, RECORD_SIZE, Record, journal_payload, journal_filled,
)
from pyxsd._seam cimport RING
from pyxsd._wire cimport IO_NONE, buffer_len
from pyxsd.state.blank cimport Stream, blank_input


@cython.final
cdef class _Client:
    """How far the bytes of one client were looked at."""

    cdef Stream stream

    def __cinit__(self):
        memset(&self.stream, 0, sizeof(self.stream))


@cython.final
cdef class Blanked:
    """Replaces values in the records from now on: between two turns, where a recording begins."""

    cdef dict clients        # subject: _Client, of those in the middle of a packet

    def __cinit__(self, Server server not None):
        cdef Connection c
        cdef bytes copy
        self.clients = {}
        for c in server.s.connections.values():
            if buffer_len(&c.inp):
                copy = c.inp.data[c.inp.head:c.inp.tail]
                self._look(c.id if c.is_socket else RING | c.who.domid, PyBytes_AS_STRING(copy),
                           len(copy))

    cdef int _look(self, uint64_t subject, char *p, size_t n) except -1:
        cdef _Client client = self.clients.get(subject)
        if client is None:
            client = _Client()
        blank_input(&client.stream, p, n)
        if client.stream.have or client.stream.lost:
            self.clients[subject] = client
        else:
            self.clients.pop(subject, None)
        return 0

    def records(self, bytes data not None):
        """The next records of the journal, whole ones, without values."""
        cdef bytes made = PyBytes_FromStringAndSize(data, len(data))
        cdef char *p = PyBytes_AS_STRING(made)
        cdef size_t at = 0, n = len(made), size
        cdef const Record *record
        while at < n:
            record = <const Record *>(p + at)
            if record.kind == J_READ:
                if record.check or (record.result <= 0 and record.result != IO_NONE):
                    # Somebody new, or it has ended.
                    self.clients.pop(record.subject, None)
                if record.result > 0:
                    self._look(record.subject, p + at + RECORD_SIZE, record.result)
            elif record.kind == J_RESTART and record.result:
                self.clients.pop(record.subject, None)
            # What fills a payload up is whatever stood there before.
            size = journal_payload(record)
            memset(p + at + RECORD_SIZE + size, 0, journal_filled(size) - size)
            at += RECORD_SIZE + journal_filled(size)
        return made
