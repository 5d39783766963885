# SPDX-License-Identifier: LGPL-2.1-or-later
"""Access log lines."""

cimport cython
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset, strlen
from posix.time cimport time_t
from pyxsd._wire cimport buffer_consume, buffer_free, buffer_len, buffer_reserve, decimal

cdef extern from "time.h":
    struct tm:
        int tm_year
        int tm_mon
        int tm_mday
        int tm_hour
        int tm_min
        int tm_sec
    tm *gmtime_r(const time_t *when, tm *out) nogil

cdef enum:
    BLOCK = 16               # bytes that are looked at together

# What a byte of data becomes: 0 itself, 1 a decimal escape, else the letter of
# a short one.  NUL is printed as a space.
cdef unsigned char _how[256]


cdef void _prepare() noexcept:
    cdef int i
    for i in range(256):
        _how[i] = 0 if 32 <= i < 127 else 1
    _how[0] = 2
    _how[c"\\"] = c"\\"
    _how[c'"'] = c'"'
    _how[c"\n"] = c"n"
    _how[c"\t"] = c"t"
    _how[c"\r"] = c"r"
    _how[c"\b"] = c"b"


_prepare()


cdef inline bint _is_plain(const char *p) noexcept nogil:
    """Are these BLOCK bytes printed as they are?  Without a branch: compilers look at all of them
    at once."""
    cdef unsigned char ch, other = 0
    cdef int i
    for i in range(BLOCK):
        ch = p[i]
        other |= (<unsigned char>(ch - 32) > 94) | (ch == c'"') | (ch == c"\\")
    return other == 0


cdef inline char *_sane(char *at, const char *p, size_t n) noexcept nogil:
    cdef size_t i = 0, tried = 0
    cdef unsigned char ch, how
    while i < n:
        if i >= tried and n - i >= BLOCK:
            if _is_plain(p + i):
                memcpy(at, p + i, BLOCK)
                at += BLOCK
                i += BLOCK
                continue
            tried = i + BLOCK
        ch = p[i]
        i += 1
        how = _how[ch]
        if how == 0:
            at[0] = ch
            at += 1
        elif how == 2:
            at[0] = c" "
            at += 1
        elif how == 1:
            at[0] = c"\\"
            at[1] = c"0" + ch // 100
            at[2] = c"0" + ch // 10 % 10
            at[3] = c"0" + ch % 10
            at += 4
        else:
            at[0] = c"\\"
            at[1] = how
            at += 2
    return at


cdef inline char *_padded(char *at, const char *p, size_t n, size_t width) noexcept nogil:
    memcpy(at, p, n)
    at += n
    while n < width:
        at[0] = c" "
        at += 1
        n += 1
    return at


@cython.final
@cython.no_gc
cdef class AccessLog:
    """Collects lines; a log that is not active formats nothing."""

    def __cinit__(self, bint active=False, Py_ssize_t nb_chars=-1, bint read_ops=False,
                  bint txn_ops=False, bint special_ops=False):
        self.active = active
        self.nb_chars = nb_chars
        self.read_ops = read_ops
        self.txn_ops = txn_ops
        self.special_ops = special_ops
        self.stamp_ms = <uint64_t>-1

    def __dealloc__(self):
        buffer_free(&self.buf)

    cdef size_t longest(self) noexcept:
        return self.nb_chars if self.nb_chars >= 3 else <size_t>1 << 20

    cdef void set_time(self, double now) noexcept:
        self.now_ms = <uint64_t>(now * 1000.0)

    cdef int line(self, bytes who, uint32_t tid, const char *label,
                  const char *p, size_t n) except -1:
        cdef size_t who_len, label_len
        cdef size_t tid_len
        cdef char number[16]
        cdef char *digits
        cdef char *begin
        cdef char *at
        cdef time_t seconds
        cdef tm parts
        if not self.active:
            return 0
        if self.now_ms != self.stamp_ms:
            self.stamp_ms = self.now_ms
            seconds = <time_t>(self.now_ms // 1000)
            if gmtime_r(&seconds, &parts) == NULL:
                memset(&parts, 0, sizeof(parts))
            self.stamp_len = snprintf(
                self.stamp, sizeof(self.stamp), b"[%04d%02d%02dT%02d:%02d:%02d.%03dZ]  ",
                parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                parts.tm_min, parts.tm_sec, <int>(self.now_ms % 1000))
        if n > self.longest():
            # No byte becomes less than one character, so the rest would be cut off.
            n = self.longest()
        who_len = len(who)
        label_len = strlen(label)
        begin = buffer_reserve(&self.buf, self.stamp_len + who_len + label_len + 48 + 4 * n)
        memcpy(begin, self.stamp, self.stamp_len)
        at = begin + self.stamp_len
        if tid:
            memcpy(at, <const char *>who, who_len)
            digits = decimal(number + sizeof(number), tid) - 1
            digits[0] = c"."
            tid_len = number + sizeof(number) - digits
            at = _padded(at + who_len, digits, tid_len, 12 - who_len if who_len < 12 else 0)
        else:
            at = _padded(at, <const char *>who, who_len, 12)
        at[0] = c" "
        at = _padded(at + 1, label, label_len, 9)
        at[0] = c" "
        at = _sane(at + 1, p, n)
        if 3 <= self.nb_chars < at - begin + 1:
            at = begin + self.nb_chars - 3
            at[0] = at[1] = c"."
            at += 2
        at[0] = c"\n"
        self.buf.tail += at + 1 - begin
        self.lines += 1
        return 0

    def note(self, bytes who not None, bytes label not None, bytes data not None):
        """One line from outside the core (CONTROL print)."""
        self.line(who, 0, label, data, len(data))

    @property
    def size(self):
        """Bytes in the buffer."""
        return buffer_len(&self.buf)

    def switch(self, bint on):
        """Formats lines from now on, or does not."""
        self.active = on

    def take(self):
        """(bytes, lines) collected since the last take()."""
        if not self.lines:
            return b"", 0
        data = self.buf.data[self.buf.head:self.buf.tail]
        lines = self.lines
        buffer_consume(&self.buf, buffer_len(&self.buf))
        self.lines = 0
        return data, lines
