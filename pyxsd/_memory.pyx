# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory that outlives the process which serves, so that another one can go on.

One file in memory, mapped before the first process is made that serves, and shared by all that
come.  Its first page is the Header, behind it are four areas: two of the journal and two of
images.  An area has room for all that may be used; the kernel gives memory to what is written to,
and all areas together get `limit` bytes at most.

How it is changed, so that a process can die behind each store:

- The image with the number n is in the image area n mod 2, and the journal since then begins in the
  journal area n mod 2.  `valid` is the number of the one to begin with.
- While image n + 1 is written, `current` is n + 1: the journal goes on in the other area.  Whoever
  begins then takes image n and both segments.  When it is whole, `valid` becomes n + 1, which lets
  go of the old image and the old segment at once.
- A record is written behind the journal's end; then the end (`at`) is moved behind it.  What was
  under way and has no record yet is in `doubt` (see _journal.pyx).

Another process may copy what one that has died has left, while the next one goes on: leave() and
copy_left().  `held` is the number of the image then, and no later one is begun, so that image and
journal stay where they are; who serves may take that back at any time, and the copy is worth
nothing then.  What the next one overwrites all the same, the header and the records of a
request that is refused, leave() gives.

Nothing in there is trusted: what makes no sense is a StateError of whoever reads it.  The page of
the header is locked in memory, since the kernel stores into it while a process is killed.
"""

import fcntl
import os

cimport cython
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport ENOMEM, errno as c_errno
from libc.signal cimport SIGABRT, SIGFPE, SIGILL, SIGSEGV
from libc.string cimport memcmp, memcpy
from pyxsd._wire cimport FENCED, fence

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *address, size_t n, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t n)
    int madvise(void *address, size_t n, int advice)
    int mlock(const void *address, size_t n)
    enum:
        POPULATE "23"            # MADV_POPULATE_WRITE, since Linux 5.14
        PROT_READ
        PROT_WRITE
        MAP_SHARED
        MADV_DONTDUMP

cdef extern from "fcntl.h" nogil:
    int fallocate(int fd, int mode, long offset, long n)
    enum:
        FALLOC_FL_KEEP_SIZE
        FALLOC_FL_PUNCH_HOLE

cdef extern from *:
    """
    #include <signal.h>
    #include <stdint.h>
    #include <string.h>
    #include <unistd.h>
    static int32_t *pyxsd_cause;
    /* Writes down what the process dies of, and dies of it. */
    static void pyxsd_note_cause(int number)
    {
        *pyxsd_cause = number;
        signal(number, SIG_DFL);
        raise(number);
    }
    static int pyxsd_watch_cause(int number, int32_t *at)
    {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_handler = pyxsd_note_cause;
        action.sa_flags = SA_NODEFER | SA_ONSTACK;
        pyxsd_cause = at;
        return sigaction(number, &action, 0);
    }
    """
    int pyxsd_watch_cause(int number, int32_t *at) noexcept nogil
    enum:
        SIGBUS

_MAGIC = b"pyxsdmem"
cdef enum:
    VERSION = 2
    CHUNK = 262144           # bytes that are asked of the kernel at once
    SPARE = 2097152          # of an area, that stay with it when it is not needed


class MemoryFault(ValueError):
    """What is in the memory makes no sense."""


@cython.final
cdef class Memory:
    """See the head of the file.  create() makes one."""

    def __cinit__(self):
        self.fd = -1
        self.kept = frozenset()

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.mapped)
        # The descriptor is closed by the end of the process: others may serve with it.

    @staticmethod
    def create(size_t limit):
        """Memory of at most so many bytes; OSError where the kernel refuses."""
        cdef Memory made = Memory()
        limit = (limit + PAGE - 1) // PAGE * PAGE
        made.fd = os.memfd_create("pyxsd-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            made.mapped = PAGE + AREAS * limit
            os.ftruncate(made.fd, made.mapped)
            fcntl.fcntl(made.fd, fcntl.F_ADD_SEALS,
                        fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            made._map(limit)
        except BaseException:
            os.close(made.fd)
            raise
        made.keep()
        return made

    def _map(self, size_t limit):
        cdef void *at = mmap(NULL, self.mapped, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if at == <void *>-1:
            raise OSError(c_errno, os.strerror(c_errno))
        self.base = <char *>at
        self.header = <Header *>at
        # Not there on every kernel, and not needed.
        madvise(at, self.mapped, MADV_DONTDUMP)
        self.lock()
        memcpy(self.header.magic, <const char *>(<bytes>_MAGIC), sizeof(self.header.magic))
        self.header.version = VERSION
        self.header.size = sizeof(Header)
        self.header.limit = limit
        self.header.doubt.at = <uint64_t>-1

    def lock(self):
        """Keeps the header's page in memory; to be called by each process that serves.  OSError
        where the kernel refuses."""
        if mlock(self.base, PAGE) < 0:
            raise OSError(c_errno, f"memory cannot be locked: {os.strerror(c_errno)}")

    def keep(self, descriptors=None):
        """Whoever goes on later leaves these descriptors alone, and the memory's own; by default
        those that are open now.  To be called by the process that makes the others.  One that is
        closed later must not be among them: its number may be a client's then."""
        found = {self.fd}
        for fd in map(int, os.listdir("/proc/self/fd")) if descriptors is None else descriptors:
            try:
                os.fstat(fd)
            except OSError:
                continue  # that of the listing itself
            found.add(fd)
        self.kept = frozenset(found)

    # -- what the process that makes the others asks ------------------------------

    def progress(self):
        """Grows with each request that is served."""
        return self.header.served

    def is_begun(self):
        """Is there a state to go on from?"""
        return self.header.valid != 0

    def cause(self):
        """The signal that the last process died of, as far as it could tell; 0 else."""
        return self.header.cause

    def died(self, int cause):
        """What a process died of, as its parent knows: a signal, or -1 for an exit that nobody
        has ordered.  What the process itself has written down comes first."""
        if self.header.cause == 0:
            self.header.cause = cause

    def watch_causes(self):
        """From now on this process writes down what it dies of.  What the one before has."""
        cause = self.header.cause
        self.header.cause = 0
        for number in (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT):
            pyxsd_watch_cause(number, &self.header.cause)
        return cause

    # -- what a process that has died has left --------------------------------------

    def leave(self):
        """(header, records): what copy_left() wants; to be called before another process goes on.
        MemoryFault where there is nothing to be copied."""
        cdef Header *header = self.header
        cdef int n
        cdef uint64_t at
        self.check()
        n = header.current & 1
        at = header.at
        if header.begun > header.served and header.begins[n] <= header.begun_at <= at:
            at = header.begun_at
        header.held = header.valid
        return (self.base[:PAGE],
                (self.area(n) + (at - header.begins[n]))[:header.at - at])

    def copy_left(self, bytes first not None, bytes records not None):
        """A memory of this process alone, as it was when leave() gave these; MemoryFault where
        it has been changed too much since then, OSError."""
        cdef const Header *then = <const Header *><const char *>first
        cdef Memory made = Memory.create(self.header.limit)
        cdef uint64_t valid = then.valid
        cdef int n = then.current & 1, other = 3 - <int>(valid & 1), i
        for i in range(AREAS):
            if i == other:
                continue  # an image in the making is of no use
            if made.reserve(i, then.allocated[i]) < then.allocated[i]:
                raise OSError(ENOMEM, os.strerror(ENOMEM))
            memcpy(made.area(i), self.area(i), then.allocated[i])
        fence(FENCED)
        if self.header.held != valid:
            raise MemoryFault("the next image was begun before that was copied")
        memcpy(made.base, <const char *>first, PAGE)
        made.header.allocated[other] = 0
        memcpy(made.area(n) + (then.at - then.begins[n] - len(records)), <const char *>records,
               len(records))
        return made

    @property
    def held(self):
        """Does somebody copy the image that is valid, and the journal since then?"""
        return self.header.held != 0

    def release(self):
        """Nobody copies it, or in vain from now on."""
        self.header.held = 0
        fence(FENCED)

    @property
    def begun(self):
        """Requests whose serving has begun since the daemon's start, and how many of them were
        served."""
        return self.header.begun, self.header.served

    # -- areas --------------------------------------------------------------------

    cdef char *area(self, int number) noexcept:
        return self.base + PAGE + number * self.header.limit

    cdef size_t reserve(self, int number, size_t n) noexcept:
        cdef Header *header = self.header
        cdef size_t have = header.allocated[number], more, used = 0
        cdef int i
        if n <= have:
            return self._foldable(number, n)
        for i in range(AREAS):
            used += header.allocated[i]
        more = (n - have + CHUNK - 1) // CHUNK * CHUNK
        if more > header.limit - have:
            more = header.limit - have
        if used > header.limit or more > header.limit - used or have + more < n:
            return have
        # Written to without this it would be SIGBUS where there is none left.
        if fallocate(self.fd, 0, PAGE + number * header.limit + have, more) < 0:
            return have
        header.allocated[number] = have + more
        # Page by page, as they are written to, it would take several times as long.
        madvise(self.area(number) + have, more, POPULATE)
        return self._foldable(number, n)

    cdef size_t _foldable(self, int number, size_t n) noexcept:
        """How much of an area may be used, where n bytes of it are wanted.

        The second of two segments gets no more than could be put behind the first one, without the
        image that is in the making: else nobody could go on from both.
        """
        cdef Header *header = self.header
        cdef int first = header.valid & 1
        cdef size_t have = header.allocated[number], whole, used = 0
        cdef int i
        if number != 1 - first or header.valid == 0 or header.current == header.valid:
            return have
        for i in range(AREAS):
            if i != 2 + number:
                used += header.allocated[i]
        have = min(have, n + CHUNK)
        whole = header.begins[number] - header.begins[first] + have
        if whole > header.allocated[first]:
            used += (whole - header.allocated[first] + CHUNK - 1) // CHUNK * CHUNK
        return have if whole <= header.limit and used <= header.limit else 0

    def drop(self, int number):
        """Gives back all that an area has."""
        cdef size_t have = self.header.allocated[number]
        self.header.allocated[number] = 0
        fence(FENCED)
        if have:
            fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      PAGE + number * self.header.limit, have)

    cdef void void(self) noexcept:
        self.header.valid = 0
        fence(FENCED)

    def trim(self, int number, size_t n):
        """Gives back what an area has beyond n bytes, and some to spare where there are any."""
        cdef size_t have = self.header.allocated[number]
        n = (n + SPARE + CHUNK - 1) // CHUNK * CHUNK if n else 0
        if n < have:
            self.header.allocated[number] = n
            fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      PAGE + number * self.header.limit + n, have - n)

    @property
    def used(self):
        """Bytes that the kernel has given to it."""
        cdef size_t n = PAGE
        cdef int i
        for i in range(AREAS):
            n += self.header.allocated[i]
        return n

    @property
    def limit(self):
        """Bytes that all areas together may have."""
        return self.header.limit

    def note_logged(self, size_t n):
        """So many more bytes of the access log were written."""
        self.header.logged[0] += n
        self.header.logged[1] += n

    def forget_logged(self, uint64_t number):
        """Whatever is written to the access log from now on is behind the image of that number."""
        self.header.logged[number & 1] = 0

    def dated(self, uint64_t number, double when):
        """The image of that number is of this instant, in seconds since 1970."""
        self.header.instants[number & 1] = when

    @property
    def instant(self):
        """Of which instant the image is that is valid, in seconds since 1970."""
        return self.header.instants[self.header.valid & 1]

    @property
    def logged(self):
        """Bytes of the access log that were written since the image that is valid."""
        return self.header.logged[self.header.valid & 1]

    def close(self):
        """Closes the descriptor; nobody serves with it any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # -- images -------------------------------------------------------------------

    @property
    def number(self):
        """Of the image that is valid; 0: there is none."""
        return self.header.valid

    @property
    def current(self):
        """The number of the segment that grows."""
        return self.header.current

    @property
    def next_number(self):
        """One that no image has had."""
        return max(self.header.valid, self.header.current) + 1

    @property
    def image_size(self):
        """The bytes of the image that is valid."""
        return self.header.lengths[self.header.valid & 1] if self.header.valid else 0

    def put(self, uint64_t number, size_t at, bytes data not None):
        """Writes a part of the image of that number, at that place; MemoryError where there is no
        room."""
        cdef size_t n = len(data)
        if self.reserve(2 + (number & 1), at + n) < at + n:
            raise MemoryError("the image has no room")
        memcpy(self.area(2 + (number & 1)) + at, <const char *>data, n)

    def swap(self, uint64_t number, size_t length):
        """The image of that number is whole: it and its segment are those to begin with."""
        cdef Header *header = self.header
        header.lengths[number & 1] = length
        fence(FENCED)
        header.valid = number
        fence(FENCED)

    def image(self):
        """The bytes of the valid image, as they lie there; MemoryFault."""
        self.check()
        return PyMemoryView_FromMemory(self.area(2 + (self.header.valid & 1)),
                                       self.header.lengths[self.header.valid & 1], 0x100)

    def check(self):
        """MemoryFault where the header makes no sense."""
        cdef Header *header = self.header
        cdef int n = header.valid & 1
        if memcmp(header.magic, <const char *>(<bytes>_MAGIC), sizeof(header.magic)) != 0:
            raise MemoryFault("the memory has no header")
        if header.version != VERSION or header.size != sizeof(Header):
            raise MemoryFault(f"the memory is of version {header.version}, with "
                              f"{header.size} bytes of header")
        if header.limit != (self.mapped - PAGE) // AREAS:
            raise MemoryFault(f"the memory has a limit of {header.limit} bytes")
        if header.valid == 0:
            raise MemoryFault("the memory has no image")
        for i in range(AREAS):
            if header.allocated[i] > header.limit:
                raise MemoryFault(f"area {i} has {header.allocated[i]} bytes")
        if header.lengths[n] > header.allocated[2 + n]:
            raise MemoryFault(f"the image has {header.lengths[n]} bytes")
        if header.current not in (header.valid, header.valid + 1):
            raise MemoryFault(f"segment {header.current} follows image {header.valid}")
        self._check_segments()

    def _check_segments(self):
        cdef Header *header = self.header
        cdef int n = header.valid & 1
        cdef uint64_t end = header.at
        if header.current != header.valid:
            if (header.begins[1 - n] > end
                    or end - header.begins[1 - n] > header.allocated[1 - n]):
                raise MemoryFault("the second segment makes no sense")
            end = header.begins[1 - n]
        if header.begins[n] > end or end - header.begins[n] > header.allocated[n]:
            raise MemoryFault("the first segment makes no sense")

    # -- for tests ----------------------------------------------------------------

    def raw(self):
        """All of it, as it may be written to."""
        return PyMemoryView_FromMemory(self.base, self.mapped, 0x200)

    @staticmethod
    def copy_of(Memory other not None):
        """Another memory with the same content."""
        cdef Memory made = Memory.create(other.header.limit)
        cdef int i
        for i in range(AREAS):
            if other.header.allocated[i]:
                made.reserve(i, other.header.allocated[i])
                memcpy(made.area(i), other.area(i), other.header.allocated[i])
        memcpy(made.base, other.base, PAGE)
        return made
