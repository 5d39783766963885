# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values replaced by as many x bytes, wherever they stand: `record-values = false`.

Values are what WRITE brings, behind the path and its NUL, and what READ answers.  Paths, tokens,
permissions and what domain 0 says to the daemon (CONTROL) stay.  All lengths stay, so that what is
run again with x in place of values is the same requests; whether two values were equal, which x
does not tell, is in the journal (SAME).
"""

from libc.string cimport memchr, memcpy, memset
from pyxsd._wire cimport HEADER_SIZE, PAYLOAD_MAX, Header, XS_READ, XS_WRITE


cdef void blank_value(char *p, size_t n) noexcept nogil:
    if n:
        memset(p, c"x", n)


cdef inline size_t _path(const char *p, size_t n) noexcept nogil:
    """The length of what stands before the value, as far as it is in the n bytes."""
    cdef const char *nul = <const char *>memchr(p, 0, n) if n else NULL
    return n if nul == NULL else nul + 1 - p


cdef void blank_request(uint32_t type, char *p, size_t n) noexcept nogil:
    cdef size_t path
    if type == XS_WRITE:
        path = _path(p, n)
        blank_value(p + path, n - path)


cdef void blank_input(Stream *stream, char *p, size_t n) noexcept nogil:
    cdef Header head
    cdef size_t step, path
    while n and not stream.lost:
        if stream.left == 0:
            step = min(n, HEADER_SIZE - stream.have)
            memcpy(stream.head + stream.have, p, step)
            stream.have += <uint32_t>step
            p += step
            n -= step
            if stream.have < HEADER_SIZE:
                return
            memcpy(&head, stream.head, HEADER_SIZE)
            stream.left = head.len
            stream.lost = head.len > PAYLOAD_MAX
            stream.in_value = False
            if head.len == 0:
                stream.have = 0
            continue
        memcpy(&head, stream.head, HEADER_SIZE)
        step = min(n, <size_t>stream.left)
        if head.type == XS_WRITE:
            path = 0 if stream.in_value else _path(p, step)
            stream.in_value = stream.in_value or (path and p[path - 1] == 0)
            blank_value(p + path, step - path)
        p += step
        n -= step
        stream.left -= <uint32_t>step
        if stream.left == 0:
            stream.have = 0
    blank_value(p, n)


cdef void blank_output(char *p, size_t n, size_t torn, bint torn_is_event) noexcept nogil:
    cdef Header head
    torn = min(torn, n)
    if not torn_is_event:
        # Which packet it was is not known any more.
        blank_value(p, torn)
    p += torn
    n -= torn
    while n >= HEADER_SIZE:
        memcpy(&head, p, HEADER_SIZE)
        p += HEADER_SIZE
        n -= HEADER_SIZE
        if head.len > n:
            break
        if head.type == XS_READ:
            blank_value(p, head.len)
        p += head.len
        n -= head.len
