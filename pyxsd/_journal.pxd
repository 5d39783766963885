# SPDX-License-Identifier: LGPL-2.1-or-later
# The journal: all that comes from outside while a server is served, in order.  Knows nothing
# of what it means.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy
from pyxsd._memory cimport Header, Memory
from pyxsd._wire cimport FENCED, Doubt, fence

cdef extern from *:
    """
    #include <time.h>
    #include <stdint.h>
    static inline uint64_t pyxsd_clock(void)
    {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
    }
    """
    # Monotonic nanoseconds.
    uint64_t pyxsd_clock() noexcept nogil

# What a record tells.  The head of _journal.pyx has their fields.
cdef enum:
    # Somebody comes from outside
    J_TURN = 1
    J_READY = 2
    J_WORK = 3
    J_CONNECT = 4
    J_DISCONNECT = 5
    J_TICK = 6
    J_ANSWER = 7
    J_SCAN = 8
    J_PORTS = 9
    J_SERVE = 10
    J_SETTLE = 11
    J_HOLD = 12
    J_RELEASE = 13
    J_HOLD_STARTS = 14
    J_READ_ON = 15
    # The server asks, and is answered
    J_CLOCK = 16
    J_READ = 17
    J_WRITE = 18
    J_RESTART = 19
    J_HOST = 20
    J_SAME = 21
    J_REFUSE = 22
    J_INTERRUPT = 23
    J_SHUT = 24
    J_LOOK = 25
    J_KINDS = 26

# A record without its payload.
cdef struct Record:
    uint8_t kind
    uint8_t zero
    uint16_t check
    int32_t result
    uint64_t subject

cdef enum:
    RECORD_SIZE = 16
    J_FULL = 262144          # bytes of a segment

cdef enum Mode:      # of a journal
    LIVE = 0
    RECORDING = 1
    REPLAYING = 2

# What becomes of a request
cdef enum Verdict:
    SERVES = 0
    REFUSES = 1              # a process has died of it: EIO
    STOPS = 2                # it is not served, nor is any other one

cdef class Journal:
    cdef Mode mode
    cdef char *data          # a segment: RECORDING what is in it, REPLAYING what is still to come
    cdef size_t at           # RECORDING: its length; REPLAYING: where the next record begins
    cdef size_t end          # REPLAYING: its length
    cdef size_t cap
    cdef size_t full         # `at` from which on the segment is to be taken away
    cdef uint64_t before     # bytes of the journal before this segment
    cdef readonly str fault  # why it ended before its time, or None
    cdef object take_away    # RECORDING: called where the segment is full
    cdef public bint without_values  # what is recorded tells no values: see SAME
    # Where the records are in memory that outlives the process; else None and NULL
    cdef Memory memory
    cdef Header *header
    cdef Doubt *doubt
    cdef object resumed      # REPLAYING: called where the records end, and all goes on from there
    cdef uint64_t refused    # REPLAYING: the request that is not run again; 0: none
    cdef readonly bint has_refused   # records of `refused` were dropped
    cdef public bint expendable  # does another process go on where this one ends?
    cdef bint numbers        # is it told which request begins? see journal_refuses()
    # REPLAYING what is not in such memory: behind request `last` none is served any more
    cdef public uint64_t last
    cdef public object stopped   # the one that would have been next: whatever the server says of it
    cdef readonly bint is_short      # the fault is that the records have ended, and no other one

    # Room for a record with so many bytes of payload: where the payload goes.  NULL: there is
    # no memory, and the recording has ended.
    cdef char *room(self, size_t n) noexcept
    # The record whose payload was written there.
    cdef void add(self, int kind, int check, int32_t result, uint64_t subject) noexcept
    # The next record, which must be of that kind and about that subject.  NULL: it is not, or
    # there is none; a fault says so, and there will be none any more.
    cdef const Record *next(self, int kind, uint64_t subject) noexcept
    # The record, or the end of the journal where it is NULL, is not what was asked for.
    cdef void fail(self, const Record *found, int kind, uint64_t subject) noexcept
    cdef uint64_t clock(self) noexcept
    cdef bint same(self, bint same) noexcept
    cdef char *more(self, size_t need) noexcept
    # The records have ended: does it go on from there?
    cdef bint resume(self) noexcept
    # What is under way from now on, until its record is there.
    cdef void begin_doubt(self, int kind, int check, uint64_t subject) noexcept
    # What becomes of that request, whose serving begins: a Verdict.  Not while it is recorded.
    cdef int refuses(self, uint64_t number) noexcept
    cdef int refuses_at_desk(self, uint64_t number) noexcept
    # Memory has run out within something that is recorded or replayed: see met().
    cdef void lacks_memory(self) noexcept
    cdef int hand_over(self) except -1
    cdef void _lose(self, str why) noexcept
    cdef void turn(self, double wall, double now) noexcept

cdef inline int journal_refuses(Journal journal, uint64_t number) noexcept:
    """The serving of that request begins, where `numbers` is set: a Verdict."""
    if journal.mode != RECORDING:
        return journal.refuses(number)
    journal.header.begun_at = journal.header.at
    fence(FENCED)
    journal.header.begun = number
    return SERVES

cdef inline void journal_served(Journal journal, uint64_t number) noexcept:
    """It was served.  Where it is run again, it was before."""
    if journal.header != NULL and number >= journal.header.begun:
        journal.header.served = number

cdef inline bint journal_replays(Journal journal) noexcept:
    """Is the answer in the journal?  Where the records end and the journal goes on from there, it
    is not."""
    return journal.mode == REPLAYING and not (journal.at == journal.end and journal.resume())

cdef inline uint64_t journal_clock(Journal journal) noexcept:
    """Monotonic nanoseconds, or what they were."""
    return pyxsd_clock() if journal.mode == LIVE else journal.clock()

cdef inline bint journal_same(Journal journal, bint same) noexcept:
    """Are two values of the same length equal, or were they?  journal: None where there is none."""
    return journal.same(same) if journal is not None and journal.without_values else same

cdef inline uint64_t journal_time(double seconds) noexcept:
    """A time as the subject of a record."""
    cdef uint64_t bits
    memcpy(&bits, &seconds, sizeof(bits))
    return bits

cdef inline void journal_note(Journal journal, int kind, int32_t result,
                              uint64_t subject) noexcept:
    """Where it is recorded: that somebody came from outside."""
    if journal.mode == RECORDING and journal.room(0) != NULL:
        journal.add(kind, 0, result, subject)

cdef inline size_t journal_payload(const Record *record) noexcept:
    """The length of a record's payload, without what fills it up."""
    if record.result > 0 and (record.kind == J_TURN or record.kind == J_READ
                              or record.kind == J_ANSWER or record.kind == J_PORTS
                              or record.kind == J_HOST or record.kind == J_LOOK):
        return record.result
    return 0

cdef inline size_t journal_filled(size_t n) noexcept:
    """The room that a payload takes."""
    return (n + 7) & ~<size_t>7
