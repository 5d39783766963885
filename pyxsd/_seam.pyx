# SPDX-License-Identifier: LGPL-2.1-or-later
"""The seam between a connection and its transport: a Transport whose bytes go through the journal.

A connection has one only while the journal of its server is recorded or replayed.  While it is
replayed nothing is asked of the transport behind it; where the records end and the journal goes on
from there, the very call that finds no record is made.
"""

cimport cython
from libc.stdint cimport uint16_t
from libc.string cimport memcpy
from pyxsd._journal cimport (
    J_READ, J_RESTART, J_WRITE, RECORD_SIZE, RECORDING, REPLAYING, Record, journal_note,
    journal_replays,
)
from pyxsd._wire cimport IO_NONE


@cython.final
cdef class Seam(Transport):
    """What stands before `inner`; subject: see the head of _journal.pyx."""

    def __cinit__(self, Transport inner not None, Journal journal not None, uint64_t subject):
        self.inner = inner
        self.journal = journal
        self.subject = subject
        inner.doubt = journal.doubt

    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept:
        cdef Journal journal = self.journal
        cdef const Record *record
        cdef Py_ssize_t got
        cdef char *at
        if journal_replays(journal):
            record = journal.next(J_READ, self.subject)
            if record == NULL:
                return IO_NONE
            got = record.result
            if got > <Py_ssize_t>cap:
                journal.fail(record, J_READ, self.subject)
                return IO_NONE
            if got > 0:
                memcpy(dst, <const char *>record + RECORD_SIZE, got)
            return got
        at = journal.room(cap) if journal.mode == RECORDING else NULL
        if at == NULL:
            return self.inner.read(dst, cap)
        journal.begin_doubt(J_READ, 0, self.subject)
        got = self.inner.read(at, cap)
        journal.add(J_READ, self.fresh, got, self.subject)
        self.fresh = False
        if got > 0:
            memcpy(dst, at, got)
        return got

    cdef Py_ssize_t write(self, const char *src, size_t n) noexcept:
        cdef Journal journal = self.journal
        cdef const Record *record
        cdef Py_ssize_t put
        if journal_replays(journal):
            record = journal.next(J_WRITE, self.subject)
            if record == NULL:
                return IO_NONE
            if record.check != <uint16_t>n or record.result > <Py_ssize_t>n:
                journal.fail(record, J_WRITE, self.subject)
                return IO_NONE
            return record.result
        if journal.mode != RECORDING or journal.room(0) == NULL:
            return self.inner.write(src, n)
        journal.begin_doubt(J_WRITE, <uint16_t>n, self.subject)
        put = self.inner.write(src, n)
        journal.add(J_WRITE, <uint16_t>n, put, self.subject)
        return put

    cdef void finish(self) noexcept:
        if self.journal.mode != REPLAYING:
            self.inner.finish()

    cdef void fail(self, int reason) noexcept:
        if self.journal.mode != REPLAYING:
            self.inner.fail(reason)
        else:
            self.failed = reason

    cdef bint asks_restart(self) noexcept:
        cdef const Record *record
        cdef bint asks
        if journal_replays(self.journal):
            record = self.journal.next(J_RESTART, self.subject)
            return record != NULL and record.result != 0
        asks = self.inner.asks_restart()
        journal_note(self.journal, J_RESTART, asks, self.subject)
        return asks

    cdef void restart(self) noexcept:
        if self.journal.mode != REPLAYING:
            self.inner.restart()
        else:
            self.failed = 0

    def fail_again(self):
        """Whoever died may not have told the other side that its stream is broken."""
        if self.failed:
            self.inner.fail(self.failed)
            self.failed = 0

    cdef int descriptor(self) noexcept:
        return self.inner.descriptor()

    def close(self):
        """As the transport behind it does."""
        self.inner.close()

    def fileno(self):
        """As the transport behind it says."""
        return self.inner.fileno()


cdef Transport without_seam(Transport transport):
    return (<Seam>transport).inner if isinstance(transport, Seam) else transport
