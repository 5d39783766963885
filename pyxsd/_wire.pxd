# SPDX-License-Identifier: LGPL-2.1-or-later
# The wire: message types, statuses, packet framing, byte buffers, and the
# Transport that bytes come from and go to.  Knows nothing above it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memchr

cdef extern from *:
    """
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len     # bytes moved; the kernel stores it before the call returns
    # What stands before it is in memory before what stands behind it, for whoever looks after the
    # death of this process.
    void fence "__atomic_signal_fence"(int order) noexcept nogil
    enum:
        FENCED "__ATOMIC_SEQ_CST"

cdef enum:
    HEADER_SIZE = 16         # four native-endian uint32: type, req_id, tx_id, len
    PAYLOAD_MAX = 4096       # bytes behind the header
    PACKET_MAX = 4112

# A number in decimal whose last digit stands before `end`; where its first one stands.  (snprintf
# takes ten times as long, and guests ask for numbers by the thousand.)
cdef inline char *decimal(char *end, uint64_t number) noexcept nogil:
    while True:
        end -= 1
        end[0] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            return end

# Message types, with the names of the protocol document.
cdef enum:
    XS_CONTROL = 0
    XS_DIRECTORY = 1
    XS_READ = 2
    XS_GET_PERMS = 3
    XS_WATCH = 4
    XS_UNWATCH = 5
    XS_TRANSACTION_START = 6
    XS_TRANSACTION_END = 7
    XS_INTRODUCE = 8
    XS_RELEASE = 9
    XS_GET_DOMAIN_PATH = 10
    XS_WRITE = 11
    XS_MKDIR = 12
    XS_RM = 13
    XS_SET_PERMS = 14
    XS_WATCH_EVENT = 15
    XS_ERROR = 16
    XS_IS_DOMAIN_INTRODUCED = 17
    XS_RESUME = 18
    XS_SET_TARGET = 19
    XS_RESET_WATCHES = 21
    XS_DIRECTORY_PART = 22
    XS_GET_FEATURE = 23
    XS_SET_FEATURE = 24
    XS_GET_QUOTA = 25
    XS_SET_QUOTA = 26
    XS_TYPES = 27            # one past the last

# What a request came to.  Expected outcomes are statuses; an exception is a bug.
cdef enum:
    ST_OK = 0
    ST_EINVAL = 1
    ST_ENOENT = 2
    ST_EACCES = 3
    ST_EEXIST = 4
    ST_EAGAIN = 5
    ST_EBUSY = 6
    ST_E2BIG = 7
    ST_EQUOTA = 8
    ST_ENOSYS = 9
    ST_EIO = 10
    ST_ENOSPC = 11
    ST_COUNT = 12

cdef struct Header:
    uint32_t type
    uint32_t req_id
    uint32_t tx_id
    uint32_t len

# A borrowed run of bytes; valid while the request is served.
cdef struct Slice:
    const char *p
    size_t n

cdef inline bint slice_cut(Slice *rest, Slice *piece) noexcept:
    """The bytes before the next NUL, which is dropped; False without a NUL."""
    cdef const char *nul
    if rest.n == 0:
        return False
    nul = <const char *>memchr(rest.p, 0, rest.n)
    if nul == NULL:
        return False
    piece.p = rest.p
    piece.n = nul - rest.p
    rest.n -= piece.n + 1
    rest.p = nul + 1
    return True

cdef inline bint slice_take(Slice *rest, Slice *piece) noexcept:
    """Like slice_cut, but the last piece may lack its NUL."""
    if slice_cut(rest, piece):
        return True
    if rest.n == 0:
        return False
    piece[0] = rest[0]
    rest.n = 0
    return True

# Owned bytes: the content is data[head:tail], cap is what is allocated.
cdef struct Buffer:
    char *data
    size_t head
    size_t tail
    size_t cap

# Moves the content, or makes the buffer larger: for buffer_reserve() alone.
cdef char *buffer_enlarge(Buffer *b, size_t n) except NULL

# Room for n more bytes behind the content; where they go.
cdef inline char *buffer_reserve(Buffer *b, size_t n) except NULL:
    if b.data != NULL and b.cap - b.tail >= n:
        return b.data + b.tail
    return buffer_enlarge(b, n)

cdef int buffer_put(Buffer *b, const void *src, size_t n) except -1
cdef void buffer_consume(Buffer *b, size_t n) noexcept
cdef void buffer_free(Buffer *b) noexcept

cdef inline size_t buffer_len(const Buffer *b) noexcept nogil:
    return b.tail - b.head

cdef const char *status_name(int status) noexcept

cdef bint strict_int(const char *p, size_t n, int64_t *out) noexcept
cdef int64_t lenient_int(const char *p, size_t n) noexcept

# What Transport.read and write return beside a count of bytes.
cdef enum:
    IO_NONE = 0              # nothing to read, or no room to write, for now
    IO_CLOSED = -1           # the other side is gone
    IO_BAD = -2              # the other side broke the rules of the transport
    IO_RESET = -3            # the other side asks for a fresh start (rings)

# Why a stream is broken, with the numbers of the ring page's error field.
cdef enum:
    FAIL_INDICES = 2
    FAIL_LENGTH = 3          # a packet claims more than PAYLOAD_MAX


# The operation on the outside that is under way, in memory that outlives the process: if it dies
# within it, whoever comes next reads here how far it got.  See pyxsd/_journal.pyx.
cdef struct Doubt:
    uint64_t at              # where in the journal its record will stand
    uint64_t subject         # as in that record
    uint8_t kind
    uint8_t zero
    uint16_t check
    uint64_t moved           # of a ring: bytes moved so far << 32 | the index that says so
    mmsghdr message          # of a socket
    iovec piece

cdef inline void doubt_moved(Doubt *doubt, size_t n, uint32_t index) noexcept nogil:
    """So much of a ring's bytes have moved when the index that is stored next is there."""
    fence(FENCED)
    doubt.moved = <uint64_t>n << 32 | index
    fence(FENCED)


cdef class Transport:
    # Where moved bytes are counted at the very moment; NULL: nowhere.
    cdef Doubt *doubt
    # The descriptor of a socket; -1: it has none.
    cdef int descriptor(self) noexcept
    # It is going to be read from soon: what is far from the processor may be fetched.
    cdef void expect(self) noexcept
    # Bytes in: at most cap of them to dst; a count, or IO_*.
    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept
    # Bytes out: how many of the n were taken; a count, or IO_*.
    cdef Py_ssize_t write(self, const char *src, size_t n) noexcept
    # The end of a turn in which bytes went in or out.
    cdef void finish(self) noexcept
    # The stream is broken: FAIL_*.
    cdef void fail(self, int reason) noexcept
    # Does the other side of a broken stream ask for a fresh start?
    cdef bint asks_restart(self) noexcept
    # After IO_RESET: all that was under way is dropped, start afresh.
    cdef void restart(self) noexcept


cdef class MemoryTransport(Transport):
    cdef Buffer inp          # fed, not read yet
    cdef Buffer out          # written, not taken yet
    cdef public bint eof     # reading past what was fed says IO_CLOSED
    cdef public Py_ssize_t room   # bytes that writing still takes; -1: no limit
    cdef public int failed   # the last reason given to fail(), 0 for none
