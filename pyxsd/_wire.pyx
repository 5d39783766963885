# SPDX-License-Identifier: LGPL-2.1-or-later
"""Framing, statuses, buffers and the Transport interface."""

cimport cython
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

cdef enum:
    LARGE = 65536            # a buffer grows from here on by quarters
    KEEP = 4096              # a drained buffer of more than this is given back

cdef const char **_names = [
    b"OK", b"EINVAL", b"ENOENT", b"EACCES", b"EEXIST", b"EAGAIN", b"EBUSY",
    b"E2BIG", b"EQUOTA", b"ENOSYS", b"EIO", b"ENOSPC",
]


cdef const char *status_name(int status) noexcept:
    """The name that goes into an ERROR packet."""
    if 0 <= status < ST_COUNT:
        return _names[status]
    return b"EIO"


class RequestError(Exception):
    """A request failed, as whoever is asked by the core says it: RequestError("EINVAL").

    status is the error's number.  ValueError for a name that no client would know.
    """

    def __init__(self, str name):
        cdef int i
        super().__init__(name)
        for i in range(1, ST_COUNT):
            if _names[i].decode() == name:
                self.status = i
                return
        raise ValueError(f"no error of the protocol: {name}")


# -- buffers ------------------------------------------------------------------

cdef char *buffer_enlarge(Buffer *b, size_t n) except NULL:
    cdef size_t used = b.tail - b.head
    cdef size_t cap
    cdef char *data
    if b.data != NULL and b.cap - used >= n and b.head >= used:
        # Enough is free in front, and moving costs less than was consumed.
        memmove(b.data, b.data + b.head, used)
    else:
        cap = b.cap if b.cap else 256
        while cap - used < n:
            cap += cap if cap < LARGE else cap // 4
        if b.head:
            memmove(b.data, b.data + b.head, used)
        b.tail = used
        b.head = 0
        data = <char *>realloc(b.data, cap)
        if data == NULL:
            raise MemoryError()
        b.data = data
        b.cap = cap
        return b.data + b.tail
    b.head = 0
    b.tail = used
    return b.data + b.tail


cdef int buffer_put(Buffer *b, const void *src, size_t n) except -1:
    memcpy(buffer_reserve(b, n), src, n)
    b.tail += n
    return 0


cdef void buffer_consume(Buffer *b, size_t n) noexcept:
    """Drops n bytes from the front; an emptied large buffer is given back."""
    b.head += n
    if b.head >= b.tail:
        b.head = b.tail = 0
        if b.cap > KEEP:
            buffer_free(b)


cdef void buffer_free(Buffer *b) noexcept:
    free(b.data)
    b.data = NULL
    b.head = b.tail = b.cap = 0


# -- numbers ------------------------------------------------------------------

cdef bint strict_int(const char *p, size_t n, int64_t *out) noexcept:
    """A plain decimal number with an optional sign, below 2^62 in size."""
    cdef size_t i = 0
    cdef int64_t value = 0
    cdef bint negative = False
    if n and (p[0] == c"-" or p[0] == c"+"):
        negative = p[0] == c"-"
        i = 1
    if i == n:
        return False
    while i < n:
        if p[i] < c"0" or p[i] > c"9":
            return False
        if value > ((<int64_t>1 << 62) - 1 - (p[i] - c"0")) // 10:
            return False
        value = value * 10 + (p[i] - c"0")
        i += 1
    out[0] = -value if negative else value
    return True


cdef int64_t lenient_int(const char *p, size_t n) noexcept:
    """Skips to the first digit and reads digits; none is 0."""
    cdef size_t i = 0
    cdef int64_t value = 0
    while i < n and (p[i] < c"0" or p[i] > c"9"):
        i += 1
    while i < n and c"0" <= p[i] <= c"9":
        if value >= (<int64_t>1 << 58):
            break
        value = value * 10 + (p[i] - c"0")
        i += 1
    return value


# -- transports ---------------------------------------------------------------

cdef class Transport:
    """Where the bytes of one connection come from and go to.

    Sockets and rings implement it; the connection above knows no difference.
    """

    cdef int descriptor(self) noexcept:
        return -1

    cdef void expect(self) noexcept:
        pass

    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept:
        return IO_CLOSED

    cdef Py_ssize_t write(self, const char *src, size_t n) noexcept:
        return IO_CLOSED

    cdef void finish(self) noexcept:
        pass

    cdef void fail(self, int reason) noexcept:
        pass

    cdef bint asks_restart(self) noexcept:
        return False

    cdef void restart(self) noexcept:
        pass


@cython.final
cdef class MemoryTransport(Transport):
    """A transport whose other side is the caller: feed() and take()."""

    def __cinit__(self):
        self.room = -1

    def __dealloc__(self):
        buffer_free(&self.inp)
        buffer_free(&self.out)

    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept:
        cdef size_t n = buffer_len(&self.inp)
        if n == 0:
            return IO_CLOSED if self.eof else IO_NONE
        if n > cap:
            n = cap
        memcpy(dst, self.inp.data + self.inp.head, n)
        buffer_consume(&self.inp, n)
        return n

    cdef Py_ssize_t write(self, const char *src, size_t n) noexcept:
        if self.eof:
            return IO_CLOSED
        if self.room >= 0:
            if n > <size_t>self.room:
                n = self.room
            self.room -= n
        if n == 0:
            return IO_NONE
        try:
            buffer_put(&self.out, src, n)
        except MemoryError:
            return IO_NONE
        return n

    cdef void fail(self, int reason) noexcept:
        self.failed = reason

    def feed(self, bytes data not None):
        """Bytes for the connection to read."""
        buffer_put(&self.inp, <const char *>data, len(data))

    def take(self):
        """All bytes that the connection wrote since the last take()."""
        data = self.out.data[self.out.head:self.out.tail] if self.out.data != NULL else b""
        buffer_consume(&self.out, buffer_len(&self.out))
        return data

    @property
    def unread(self):
        """How many bytes are fed and not read yet."""
        return buffer_len(&self.inp)

    @property
    def content(self):
        """The bytes fed and not read yet."""
        return self.inp.data[self.inp.head:self.inp.tail] if self.inp.data != NULL else b""
