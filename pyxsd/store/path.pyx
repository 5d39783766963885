# SPDX-License-Identifier: LGPL-2.1-or-later
"""The syntax of paths."""

from libc.string cimport memcmp, memcpy

# 1 where a byte may stand in a component: a-z A-Z 0-9 - _ @
cdef const char *_legal = (
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\1\1\1\1\1\1\1\1\1\1\0\0\0\0\0\0"
    b"\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\0\0\0\0\1"
    b"\0\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\0\0\0\0\0"
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
)


cdef size_t _counted(const char *p, size_t n) noexcept nogil:
    """The bytes that the length limit looks at.

    Of "/local/domain/<number>/rest" only the rest: a path stays legal when a
    guest migrates to a domid with more digits.
    """
    cdef size_t i = 14
    if n <= 14 or memcmp(p, b"/local/domain/", 14) != 0:
        return n
    if p[i] == c"-" or p[i] == c"+":
        i += 1
    if i == n or p[i] < c"0" or p[i] > c"9":
        return n
    while i < n and c"0" <= p[i] <= c"9":
        i += 1
    if i == n or p[i] != c"/":
        return n
    return n - i - 1


cdef bint _split_rest(Path *out, size_t begin, size_t k) noexcept nogil:
    """Splits the text from a component on that `k` others stand before."""
    cdef const char *legal = _legal
    cdef size_t i = begin, n = out.len
    out.text[n] = 0          # not legal, so that no loop needs to look for the end
    while True:
        while legal[<unsigned char>out.text[i]]:
            i += 1
        if i == begin or k == PATH_PARTS_MAX or (i < n and out.text[i] != c"/"):
            return False
        out.start[k] = <uint16_t>begin
        out.size[k] = <uint16_t>(i - begin)
        k += 1
        if i == n:
            break
        i += 1
        begin = i
    out.parts = k
    return True


cdef bint path_split(Path *out, const char *p, size_t n) noexcept nogil:
    if n == 0 or n > PATH_TEXT_MAX or p[0] != c"/":
        return False
    if out.text != p:
        memcpy(out.text, p, n)
    out.len = n
    out.special = False
    out.relative = False
    if n == 1:
        out.parts = 0
        return True
    return _split_rest(out, 1, 0)


cdef bint path_parse(Path *out, const char *p, size_t n,
                     const char *base, size_t base_len, Py_ssize_t limit) noexcept nogil:
    if n == 0 or n + base_len + 1 > PATH_TEXT_MAX:
        return False
    if p[0] == c"@":
        if limit >= 0 and n > <size_t>limit:
            return False
        out.text[0] = c"/"
        memcpy(out.text + 1, p, n)
        out.len = n + 1
        out.parts = 1
        out.start[0] = 1
        out.size[0] = <uint16_t>n
        out.special = True
        out.relative = False
        return True
    if p[0] == c"/":
        if limit >= 0 and _counted(p, n) > <size_t>limit:
            return False
        return path_split(out, p, n)
    if base_len == 0 or (limit >= 0 and n > <size_t>limit):
        return False
    memcpy(out.text, base, base_len)
    memcpy(out.text + base_len, p, n)
    out.len = base_len + n
    out.special = False
    out.relative = True
    # "local", "domain" and the number need not be looked for.
    out.start[0] = 1
    out.size[0] = 5
    out.start[1] = 7
    out.size[1] = 6
    out.start[2] = 14
    out.size[2] = <uint16_t>(base_len - 15)
    return _split_rest(out, base_len, 3)


cdef void path_up(Path *path) noexcept nogil:
    path.parts -= 1
    path.len = path_prefix(path, path.parts)


cdef size_t path_prefix(const Path *path, size_t parts) noexcept nogil:
    if parts == 0:
        return 1
    return path.start[parts - 1] + path.size[parts - 1]


cdef int path_join(Path *out, list names) except -1:
    cdef bytes name
    out.len = 1
    out.text[0] = c"/"
    out.parts = 0
    out.special = False
    out.relative = False
    for name in names:
        if out.parts:
            out.text[out.len] = c"/"
            out.len += 1
        if out.len + len(name) >= PATH_TEXT_MAX or out.parts >= PATH_PARTS_MAX:
            raise ValueError("path too long")
        memcpy(out.text + out.len, <const char *>name, len(name))
        out.start[out.parts] = <uint16_t>out.len
        out.size[out.parts] = <uint16_t>len(name)
        out.parts += 1
        out.len += len(name)
    return 0
