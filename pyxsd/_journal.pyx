# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal of a server: all that came from outside, so that it can be run again.

What a server knows is a function of an image of it (state.image) and of what came from outside
since then: who was ready, the bytes that were read, how many of those to be written were taken,
what the clock said, what Xen and the system answered.  Where one of these comes in there is a
seam: it gives what it got a place here while the journal is RECORDING, and takes it from here
while it is REPLAYING.  LIVE, it costs a comparison where there is no way around it, and nothing
else.  Nothing is recorded that the server makes of it: replies, events, the tree.

A record has 16 bytes: kind (1 byte), 0 (1), check (2), result (4, signed), subject (8); and a
payload of `result` bytes, up to the next multiple of 8, where a kind has one and the result is
positive.  Numbers are those of this machine.

    TURN        a turn begins: subject the monotonic seconds and payload the seconds since 1970,
                both as doubles
    READY       epoll tells of the socket of connection `subject`; result: 1 where it hung up
    WORK        whoever is ready is served, and output is sent; subject: the monotonic nanoseconds
                at which the turn begins, where a clock need not be read for it, else 0
    CONNECT     a socket was accepted: connection `subject`
    DISCONNECT  connection `subject` cannot be waited for
    TICK        credit and the like at monotonic seconds (subject, a double)
    ANSWER      the late answer (payload) to the CONTROL request of connection `subject`
    SCAN        all rings are looked at
    SERVE       connection `subject` is served at once; result: 1 where only what was read before is
    HOLD_STARTS TRANSACTION_START is held back from now on (result 1), or is not any more (0)
    READ_ON     `result` bytes, at most, of connection `subject` are to wait, and nothing is served
    INTERRUPT   the interrupt for domains that change state is bound (result 1) or let go of (0)
    SHUT        the page of domain `subject` cannot be had for now
    LOOK        domains (payload: 4 bytes each) are asked about, for whom there was no time before
                (subject 0), or once more by whoever goes on (1)
    SETTLE      an image is about to be made: those that were closed while they waited are left out
    HOLD        the trees of now are held, since somebody writes them down in slices
    RELEASE     and no longer
    PORTS       the ports that are pending (payload: 4 bytes each); result < 0: -errno

    CLOCK       monotonic nanoseconds (subject)
    READ        what Transport.read() got (payload); result <= 0: IO_*
    WRITE       what Transport.write() said (result); check: how much was to be written, modulo
                2^16, since output that differs differs in length as a rule
    RESTART     what Transport.asks_restart() said (result)
    HOST        what Xen or the system answered (payload, see pyxsd.record.host); subject: which
                call
    SAME        whether two values of the same length were equal (result), where `without_values`
                is set: what is kept of the journal has no values then (pyxsd.record.blanked), and
                the server that it is replayed for cannot compare them
    REFUSE      request `subject`, counted from the daemon's start, is answered EIO, since a
                process has died of it

The check of READ is 1 for the first one of a connection.  The subject of READ, WRITE and RESTART
is the number of the connection, or 2^63 and the domid of a ring.

A record is complete when what it tells of has happened: read() receives into the room that its
record has here already, and the record counts with the number of bytes that were received.  A
journal that is asked for another record than the next one says so, in `fault`, with the place;
it answers as if nobody had anything to say then, so that whoever serves comes to an end.

In memory that outlives the process (_memory.pyx) the records are there for whoever comes next
when it has died: record_in().  again() lets a second server take its answers from them, and where
they end, be it within a request, they come from outside and are recorded again: resume().  That
nothing is lost between the two, or done twice, is what `doubt` is for.  It says what is under way
and at which place of the journal its record will stand, so that it means nothing any more
once that is there.

- Bytes of a socket: the kernel stores how many were moved before it ends the call, see _sock.pyx.
  If some were, whoever comes next completes the record, whose bytes are there; else the
  call is made once more.
- Bytes of a ring: the index that tells the guest is written down before it is stored, and stored
  once more by whoever comes next.
- A call of the host is made once more; pyxsd.recovery.host knows what that means for each.
- Ports that were asked for may be known to nobody: all rings and all domains are looked at.
"""

cimport cython
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy
from posix.unistd cimport _exit
from pyxsd._wire cimport FENCED, fence

from pyxsd._memory import MemoryFault

_NAMES = {
    J_TURN: "TURN", J_READY: "READY", J_WORK: "WORK", J_CONNECT: "CONNECT",
    J_DISCONNECT: "DISCONNECT", J_TICK: "TICK", J_ANSWER: "ANSWER", J_SCAN: "SCAN",
    J_PORTS: "PORTS", J_SERVE: "SERVE", J_CLOCK: "CLOCK", J_READ: "READ", J_WRITE: "WRITE",
    J_RESTART: "RESTART", J_HOST: "HOST", J_SAME: "SAME",
    J_SETTLE: "SETTLE", J_HOLD: "HOLD", J_RELEASE: "RELEASE", J_REFUSE: "REFUSE",
    J_HOLD_STARTS: "HOLD_STARTS", J_READ_ON: "READ_ON", J_INTERRUPT: "INTERRUPT",
    J_SHUT: "SHUT", J_LOOK: "LOOK",
}

#: The kinds of records by name.
TURN, READY, WORK, CONNECT, DISCONNECT, TICK, ANSWER, SCAN, PORTS, SERVE, HOST, HOLD, RELEASE = (
    J_TURN, J_READY, J_WORK, J_CONNECT, J_DISCONNECT, J_TICK, J_ANSWER, J_SCAN, J_PORTS, J_SERVE,
    J_HOST, J_HOLD, J_RELEASE)
#: And those of a journal in memory that outlives the process.
SETTLE, READ, WRITE = J_SETTLE, J_READ, J_WRITE
#: And those of a daemon that becomes another one.
HOLD_STARTS, READ_ON, INTERRUPT = J_HOLD_STARTS, J_READ_ON, J_INTERRUPT
#: And that of a daemon that has gone on without all pages.
SHUT = J_SHUT
#: And that of many domains that may have changed.
LOOK = J_LOOK

# Far in the future: who asks for the time finds that it is over.
cdef uint64_t NEVER = <uint64_t>1 << 62

cdef enum:
    # Processes that are killed within one request, one behind the other, until it is not run any
    # more: it may be what makes the kernel kill them.  Two are so by chance, once in many thousand.
    KILLS_MOST = 5
    # The exit status of a process that has run out of memory: sysexits' "system error".
    NO_MEMORY = 71


def seconds(uint64_t subject):
    """The time that the subject of a TURN or TICK stands for."""
    cdef double time
    memcpy(&time, &subject, sizeof(time))
    return time


def _name(int kind):
    return _NAMES.get(kind, f"kind {kind}")


@cython.final
cdef class Journal:
    """One server's journal.  It is LIVE until record() or replay()."""

    def __cinit__(self):
        self.full = <size_t>-1
        self.last = UINT64_MAX

    def __dealloc__(self):
        # The garbage collector may have taken `memory` away before.
        if self.header == NULL:
            free(self.data)

    # -- recording ------------------------------------------------------------

    cdef char *room(self, size_t n) noexcept:
        cdef size_t need = self.at + RECORD_SIZE + journal_filled(n), cap
        cdef char *data
        if need > self.cap:
            if self.memory is not None:
                return self.more(need)
            cap = max(2 * self.cap, journal_filled(need))
            data = <char *>realloc(self.data, cap)
            if data == NULL:
                self.mode = LIVE
                self.fault = "there is no memory for the recording"
                return NULL
            self.data = data
            self.cap = cap
        return self.data + self.at + RECORD_SIZE

    cdef void add(self, int kind, int check, int32_t result, uint64_t subject) noexcept:
        cdef Record *record = <Record *>(self.data + self.at)
        record.kind = kind
        record.zero = 0
        record.check = check
        record.result = result
        record.subject = subject
        self.at += RECORD_SIZE + journal_filled(journal_payload(record))
        if self.header != NULL:
            fence(FENCED)
            self.header.at = self.before + self.at
            fence(FENCED)

    cdef int hand_over(self) except -1:
        self.take_away()
        return 0

    def record(self, take_away not None, size_t full=J_FULL, bint without_values=False):
        """Records from now on.  take_away() is called by the loop, between two turns, where
        there are `full` bytes or more, or the recording has ended for want of memory."""
        if self.mode != LIVE:
            raise ValueError("the journal is in use")
        self.at = 0
        self.before = 0
        self.full = full
        self.fault = None
        self.take_away = take_away
        self.without_values = without_values
        self.numbers = False
        self.mode = RECORDING

    def stop(self):
        """Records no more; what was not taken is gone."""
        if self.mode == RECORDING:
            self.mode = LIVE
        self.take_away = self.resumed = None
        self.full = <size_t>-1
        self.at = 0
        if self.memory is None:
            free(self.data)
        else:
            self.memory.void()
            self.memory = None
            self.header = NULL
            self.doubt = NULL
            self.numbers = False
        self.data = NULL
        self.cap = 0

    def behind(self, uint64_t offset):
        """The records behind so many bytes of the journal, which must be in this segment."""
        if not self.before <= offset <= self.before + self.at:
            raise ValueError(f"byte {offset} of the journal is not here")
        return self.data[offset - self.before:self.at]

    def take(self):
        """The records since the last call, as bytes."""
        data = self.data[:self.at]
        self.before += self.at
        self.at = 0
        return data

    @property
    def is_recording(self):
        """Is everything from outside written down?"""
        return self.mode == RECORDING

    @property
    def is_replaying(self):
        """Is everything from outside read from here?"""
        return self.mode == REPLAYING

    @property
    def size(self):
        """Recording: bytes that were not taken yet."""
        return self.at

    def note(self, int kind, uint64_t subject=0, int32_t result=0, bytes payload=b""):
        """Where it is recorded: one record; `result` counts where there is no payload."""
        cdef char *at
        if self.mode != RECORDING:
            return
        at = self.room(len(payload))
        if at == NULL:
            return
        memcpy(at, <const char *>payload, len(payload))
        self.add(kind, 0, len(payload) if payload else result, subject)

    cdef void turn(self, double wall, double now) noexcept:
        cdef char *at = self.room(sizeof(wall))
        if at != NULL:
            memcpy(at, &wall, sizeof(wall))
            self.add(J_TURN, 0, sizeof(wall), journal_time(now))

    # -- in memory that outlives the process ----------------------------------

    def _use(self, Memory memory not None):
        free(self.data)
        self.memory = memory
        self.header = memory.header
        self.doubt = &memory.header.doubt
        self.numbers = True
        self.fault = None

    def record_in(self, Memory memory not None, uint64_t number, take_away not None):
        """Records there from now on, behind the image of that number, which must be written
        before any record is.  take_away(): see record() and is_full_at."""
        if self.mode != LIVE or self.memory is not None:
            raise ValueError("the journal is in use")
        self.data = NULL
        self._use(memory)
        memory.header.entered = 1
        self.take_away = take_away
        self.mode = RECORDING
        self.next_segment(number)

    def next_segment(self, uint64_t number):
        """The segment of the image of that number begins, which is that of now."""
        cdef Header *header = self.header
        header.begins[number & 1] = header.at
        fence(FENCED)
        header.current = number
        fence(FENCED)
        self.data = self.memory.area(number & 1)
        self.cap = self.memory.reserve(number & 1, 0)
        self.before = header.at
        self.at = 0

    def _take_segment(self, uint64_t number):
        cdef Header *header = self.header
        self.data = self.memory.area(number & 1)
        self.cap = header.allocated[number & 1]
        self.before = header.begins[number & 1]
        self.end = header.at - self.before

    def fold(self):
        """There will be no image of this segment: it is put behind the one before it.  False where
        that has no room; then nobody can go on from here."""
        cdef Header *header = self.header
        cdef int first = header.valid & 1, second = header.current & 1
        cdef size_t n = header.begins[second] - header.begins[first]
        cdef size_t more = header.at - header.begins[second]
        if header.current != header.valid:
            # The image in the making gives its room; reserve() has seen to it that this is enough.
            self.memory.drop(2 + second)
            if self.memory.reserve(first, n + more) < n + more:
                return False
            memcpy(self.memory.area(first) + n, self.memory.area(second), more)
            fence(FENCED)
            header.current = header.valid
            fence(FENCED)
        self.data = self.memory.area(first)
        self.cap = header.allocated[first]
        self.before = header.begins[first]
        self.at = header.at - self.before
        return True

    @property
    def is_full_at(self):
        """From how many bytes of the segment on take_away() is called, behind each turn."""
        return self.full

    @is_full_at.setter
    def is_full_at(self, size_t n):
        self.full = n

    cdef char *more(self, size_t need) noexcept:
        if self.mode == RECORDING:
            self.cap = self.memory.reserve(self.header.current & 1, need)
            if self.cap >= need:
                return self.data + self.at + RECORD_SIZE
            self._lose("there is no room for the journal")
        return NULL

    cdef void begin_doubt(self, int kind, int check, uint64_t subject) noexcept:
        cdef Doubt *doubt = self.doubt
        if doubt == NULL:
            return
        doubt.at = <uint64_t>-1
        fence(FENCED)
        doubt.kind = kind
        doubt.check = check
        doubt.subject = subject
        doubt.moved = 0
        doubt.message.msg_len = 0
        fence(FENCED)
        doubt.at = self.before + self.at
        fence(FENCED)

    def doubts(self, int kind, uint64_t subject):
        """A call of the host begins, whose record will say what it has answered."""
        if self.mode == RECORDING:
            self.begin_doubt(kind, 0, subject)

    def again(self, Memory memory not None, resumed not None, take_away not None, int cause):
        """Answers from the records there; where they end resumed() is called, and from then on they
        are recorded behind them.  What was under way: (kind, subject, index, bytes), the last two
        of a ring, where it must be made sure that the index is stored; or None.  cause: of the
        death of who recorded last.  MemoryFault where the memory makes no sense."""
        cdef Header *header = memory.header
        self.take_away = take_away
        under_way = self._find(memory)
        if header.begun == header.served:
            header.deaths = 0
        else:
            if header.suspect != header.begun:
                header.suspect = header.begun
                header.deaths = 0
            if header.entered:
                header.deaths += 1
            if header.deaths >= KILLS_MOST or (header.deaths and cause != 0):
                self.refused = header.begun
        header.entered = 0
        self.at = 0
        self.resumed = resumed
        self.mode = REPLAYING
        return under_way

    def _find(self, Memory memory not None):
        """All records since the image, in one segment; what was under way: see again()."""
        if self.mode != LIVE or self.memory is not None:
            raise ValueError("the journal is in use")
        memory.check()
        self.data = NULL
        self._use(memory)
        # In the segment where it was under way: its bytes stand behind the journal's end there.
        self._take_segment(memory.header.current)
        under_way = self._complete()
        if not self.fold():
            raise MemoryFault("the journal has no room")
        self.end = self.at
        self._walk()
        return under_way

    def found_in(self, Memory memory not None):
        """All records there since the image, as bytes; MemoryFault.  Nobody goes on from there."""
        self._find(memory)
        return self.data[:self.end]

    def _complete(self):
        """Writes the record of bytes that were moved without it."""
        cdef Doubt *doubt = self.doubt
        cdef uint64_t n, at = doubt.at - self.before
        cdef bint of_ring = doubt.subject >> 63
        cdef Record *record
        if doubt.at < self.before or at > self.end:
            return None
        if doubt.kind not in (J_READ, J_WRITE):
            return (doubt.kind, doubt.subject, 0, 0) if at == self.end else None
        n = doubt.moved >> 32 if of_ring else doubt.message.msg_len
        if at == self.end and n:
            record = <Record *>(self.data + at)
            # What was sent is not in the journal.
            if at + RECORD_SIZE + (n if doubt.kind == J_READ else 0) > self.cap:
                raise MemoryFault(f"{n} bytes were moved at byte {doubt.at} of the journal")
            record.kind = doubt.kind
            record.zero = 0
            record.check = doubt.check
            record.result = n
            record.subject = doubt.subject
            self.end += RECORD_SIZE + journal_filled(journal_payload(record))
            fence(FENCED)
            self.header.at = self.before + self.end
            fence(FENCED)
        if of_ring and n and at + RECORD_SIZE <= self.end:
            record = <Record *>(self.data + at)
            if at + RECORD_SIZE + journal_filled(journal_payload(record)) == self.end:
                # It is the last one; was its index stored?
                return doubt.kind, doubt.subject, doubt.moved & 0xffffffff, n
        return doubt.kind, doubt.subject, 0, 0

    def _walk(self):
        """MemoryFault where the records make no sense."""
        cdef size_t at = 0, size
        cdef const Record *record
        if self.end > self.cap:
            raise MemoryFault(f"the journal has {self.end} bytes")
        while at < self.end:
            record = <const Record *>(self.data + at)
            if self.end - at < RECORD_SIZE:
                raise MemoryFault(f"the journal ends within the record at byte {at}")
            size = RECORD_SIZE + journal_filled(journal_payload(record))
            if size > self.end - at:
                raise MemoryFault(f"the journal ends within the record at byte {at}")
            if record.zero != 0 or record.kind not in _NAMES:
                raise MemoryFault(f"there is no record {record.kind}, as at byte {at}")
            at += size

    cdef bint resume(self) noexcept:
        if self.resumed is None or self.fault is not None:
            return False
        resumed, self.resumed = self.resumed, None
        self.refused = 0
        self.mode = RECORDING
        # What that costs is not the fault of a request.
        self.header.entered = 0
        try:
            resumed()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
        self.header.entered = 1
        return True

    def go_on_from_here(self):
        """The records have ended between two turns; see again().  False where they had ended
        before."""
        return self.mode == REPLAYING and self.at == self.end and self.resume()

    def has_ended(self):
        """Do the answers come from outside by now?  To be asked by whoever asks the host."""
        return not journal_replays(self)

    cdef int refuses_at_desk(self, uint64_t number) noexcept:
        cdef const Record *record
        if self.at < self.end:
            record = <const Record *>(self.data + self.at)
            if record.kind == J_REFUSE and record.subject == number:
                self.at += RECORD_SIZE
                return REFUSES
        if number <= self.last:
            return SERVES
        if self.fault is None:
            self.fault = f"behind request {self.last} none is served"
            self.is_short = True
        self.at = self.end
        return STOPS

    cdef int refuses(self, uint64_t number) noexcept:
        cdef Header *header = self.header
        cdef const Record *record
        if self.mode != REPLAYING:
            return SERVES
        if header == NULL:
            return self.refuses_at_desk(number)
        if number > header.begun:
            header.begun_at = self.before + self.at
            fence(FENCED)
            header.begun = number
            fence(FENCED)
        if number == header.begun:
            header.entered = 1
        if self.at < self.end:
            record = <const Record *>(self.data + self.at)
            if record.kind == J_REFUSE and record.subject == number:
                self.at += RECORD_SIZE
                return REFUSES
        if self.refused != number or self.before + self.at != header.begun_at:
            return SERVES
        # What it has asked and was answered before the process died is as if it had not been.
        self.has_refused = self.at != self.end
        self.end = self.at
        header.at = self.before + self.at
        fence(FENCED)
        if self.resume() and self.room(0) != NULL:
            self.add(J_REFUSE, 0, 0, number)
            return REFUSES
        return SERVES

    # -- replaying ------------------------------------------------------------

    def replay(self, bytes data not None, uint64_t before=0):
        """Answers from these records from now on; they stand behind `before` bytes of the
        journal.  ValueError where the last one is cut."""
        cdef size_t at = 0, n = len(data), size
        cdef const char *p = data
        while at < n:
            if n - at < RECORD_SIZE:
                raise ValueError(f"the journal ends within the record at byte {before + at}")
            size = RECORD_SIZE + journal_filled(journal_payload(<const Record *>(p + at)))
            if size > n - at:
                raise ValueError(f"the journal ends within the record at byte {before + at}")
            at += size
        if self.mode == RECORDING or self.memory is not None:
            raise ValueError("the journal is in use")
        free(self.data)
        self.data = <char *>malloc(n + 1)
        if self.data == NULL:
            raise MemoryError()
        memcpy(self.data, p, n)
        self.at = 0
        self.end = self.cap = n
        self.before = before
        self.numbers = True
        self.mode = REPLAYING

    def go_on(self):
        """Ends the replay: what is asked for from now on is answered from outside."""
        if self.mode == REPLAYING:
            self.mode = LIVE
            self.at = self.end = 0

    def met(self, error):
        """An exception was met while something was done that is recorded, or is run again.  Memory
        that lacks here need not lack in the other process: what is done from now on is not what
        would be done there.  So this process ends, where another one goes on in its place; else the
        journal does."""
        if isinstance(error, MemoryError):
            self.lacks_memory()

    cdef void lacks_memory(self) noexcept:
        if self.mode == REPLAYING:
            self.differs("there is no memory")
        elif self.mode == RECORDING:
            if self.expendable and self.header != NULL and self.header.valid != 0:
                _exit(NO_MEMORY)
            self._lose("memory has run out within something that is recorded")

    cdef void _lose(self, str why) noexcept:
        """Nothing may happen that is not written down, or would happen in another way."""
        if self.memory is not None:
            self.memory.void()
        self.mode = LIVE
        self.fault = why
        self.full = 0

    def differs(self, str text not None):
        """What the last record says cannot be: the replay ends, and the fault says why."""
        if self.fault is None:
            self.fault = f"before byte {self.before + self.at} of the journal: {text}"
        self.at = self.end

    @property
    def next_kind(self):
        """The kind of the next record; 0 at the end, and behind a fault."""
        if self.mode != REPLAYING or self.at == self.end:
            return 0
        return (<const Record *>(self.data + self.at)).kind

    @property
    def offset(self):
        """Where the next record begins, in bytes from the beginning of the journal."""
        return self.before + self.at

    def expect(self, int kind):
        """(subject, result, payload) of the next record, of whatever subject."""
        cdef const Record *record
        cdef const char *at = self.data + self.at
        if self.mode == REPLAYING and self.at < self.end:
            record = self.next(kind, (<const Record *>at).subject)
            if record != NULL:
                return record.subject, record.result, at[RECORD_SIZE:
                                                         RECORD_SIZE + journal_payload(record)]
        elif self.mode == REPLAYING:
            self.fail(NULL, kind, 0)
        return None

    def answer(self, int kind, uint64_t subject):
        """(result, payload) of the next record, which must be of that kind and about that
        subject; None where it is not."""
        cdef const char *at = self.data + self.at
        cdef const Record *record = self.next(kind, subject)
        if record == NULL:
            return None
        return record.result, at[RECORD_SIZE:RECORD_SIZE + journal_payload(record)]

    cdef const Record *next(self, int kind, uint64_t subject) noexcept:
        cdef const Record *record = <const Record *>(self.data + self.at)
        if self.at == self.end:
            self.fail(NULL, kind, subject)
            return NULL
        if record.kind != kind or record.subject != subject:
            self.fail(record, kind, subject)
            return NULL
        self.at += RECORD_SIZE + journal_filled(journal_payload(record))
        return record

    cdef void fail(self, const Record *found, int kind, uint64_t subject) noexcept:
        if self.fault is None:
            if found == NULL:
                self.is_short = True
                self.fault = (f"the journal ends at byte {self.before + self.end}, where "
                              f"{_name(kind)} {subject:#x} is asked for")
            else:
                self.fault = (f"at byte {self.before + (<const char *>found - self.data)} of the "
                              f"journal stands {_name(found.kind)} {found.subject:#x} with "
                              f"{found.result}, and {_name(kind)} {subject:#x} is asked for")
        self.at = self.end

    cdef uint64_t clock(self) noexcept:
        cdef uint64_t now
        cdef const Record *record = NULL
        if not journal_replays(self):
            now = pyxsd_clock()
            if self.room(0) != NULL:
                self.add(J_CLOCK, 0, 0, now)
            return now
        if self.at < self.end:
            record = <const Record *>(self.data + self.at)
            if record.kind == J_CLOCK:
                self.at += RECORD_SIZE
                return record.subject
        self.fail(record, J_CLOCK, 0)
        return NEVER

    cdef bint same(self, bint same) noexcept:
        cdef const Record *record
        if self.mode == REPLAYING:
            record = self.next(J_SAME, 0)
            return record != NULL and record.result != 0
        journal_note(self, J_SAME, same, 0)
        return same
