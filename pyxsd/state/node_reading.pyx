# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nodes of C xenstored's stream and of oxenstored's dump, straight into a tree.

A file has 100,000 nodes and a handful of other things.  So whoever reads one record by record
(stream_reader, database) lets this take the ordinary nodes that come next, and looks itself at what
it leaves: the first record or line that is something else, or that is damaged or makes no sense.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr, memcmp
from pyxsd.store.filling cimport Filling
from pyxsd.store.perms cimport PermEntry, Perms, perms_make, perms_parse, perms_unref

from pyxsd.state.host_state import is_node_path

cdef enum:
    NODE_RECORD = 5          # in C's stream
    HEAD = 8                 # bytes of a record before its body
    FIXED = 16               # and of a NODE before its permissions
    ENTRY = 4
    STALE = 1
    ENTRIES_MAX = 64         # a list with more is not ordinary
    LINE_MAX = 16384         # nor is a dump's line with more bytes in one field


cdef inline uint32_t _u32(const unsigned char *p, bint big) noexcept nogil:
    if big:
        return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]
    return <uint32_t>p[3] << 24 | <uint32_t>p[2] << 16 | <uint32_t>p[1] << 8 | p[0]


cdef inline uint32_t _u16(const unsigned char *p, bint big) noexcept nogil:
    return (<uint32_t>p[0] << 8 | p[1]) if big else (<uint32_t>p[1] << 8 | p[0])


cdef inline int _access(unsigned char letter) noexcept nogil:
    return (0 if letter == c"n" else 1 if letter == c"r" else 2 if letter == c"w"
            else 3 if letter == c"b" else -1)


cdef inline int _digit(unsigned char c) noexcept nogil:
    if c"0" <= c <= c"9":
        return c - c"0"
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    return c - c"A" + 10 if c"A" <= c <= c"F" else -1


cdef Py_ssize_t _unhex(const unsigned char *p, size_t n, char *out) noexcept nogil:
    """The bytes that pairs of digits stand for: how many; -1 where they are none."""
    cdef size_t i
    cdef int high, low
    if n % 2 or n > 2 * LINE_MAX:
        return -1
    for i in range(0, n, 2):
        high = _digit(p[i])
        low = _digit(p[i + 1])
        if high < 0 or low < 0:
            return -1
        out[i // 2] = <char>(high << 4 | low)
    return n // 2


@cython.final
@cython.no_gc
cdef class NodesOfFile:
    """The tree that a file's nodes are put into.

    add() and load() stand for what the readers put nodes into where they keep them one by one
    (host_state.NodeChecker, Tree): they take what is not ordinary, and refuse the same.
    """

    cdef readonly Filling filling
    cdef readonly int64_t count      # nodes that were put in
    cdef set special         # what replaced one of those that are there from the start
    cdef Perms *perms        # of the last node
    cdef bytes entries       # and how the file writes them
    cdef char path[LINE_MAX]
    cdef char value[LINE_MAX]

    def __cinit__(self, Filling filling not None):
        self.filling = filling
        self.special = set()

    def __dealloc__(self):
        if self.perms != NULL:
            perms_unref(self.perms)

    cdef bint _same(self, const unsigned char *p, size_t n) noexcept:
        return self.perms != NULL and <size_t>len(self.entries) == n \
            and memcmp(<const char *>self.entries, p, n) == 0

    cdef int _keep(self, Perms *perms, const unsigned char *p, size_t n) except -1:
        if self.perms != NULL:
            perms_unref(self.perms)
        self.perms = perms
        self.entries = (<const char *>p)[:n]
        return 0

    # -- C's stream -----------------------------------------------------------

    cdef bint _entries(self, const unsigned char *p, size_t count, bint big) except -1:
        """The permission list of so many entries; False where it is not an ordinary one.  What
        grants nothing any more is left out: it would grant it to the next domain with that
        domid."""
        cdef PermEntry made[ENTRIES_MAX]
        cdef size_t i, used = 0
        if self._same(p, count * ENTRY):
            return True
        if not 0 < count <= ENTRIES_MAX:
            return False
        for i in range(count):
            made[used].access = _access(p[i * ENTRY])
            made[used].domid = _u16(p + i * ENTRY + 2, big)
            made[used].life = 0
            if made[used].access < 0:
                return False
            if i == 0 or not p[i * ENTRY + 1] & STALE:
                used += 1
        self._keep(perms_make(made, used, self.filling.tree.mentions), p, count * ENTRY)
        return True

    def take_records(self, const unsigned char[::1] data not None, size_t at, bint big_endian):
        """Takes the ordinary NODE records from there on: (where the next one begins, how many were
        taken)."""
        cdef const unsigned char *body
        cdef size_t n = data.shape[0], length, path, value, count, whole
        cdef int64_t before = self.count
        while at + HEAD + FIXED <= n:
            if _u32(&data[at], big_endian) != NODE_RECORD:
                break
            length = _u32(&data[at + 4], big_endian)
            if length % 8 or length < FIXED or length > n - at - HEAD:
                break
            body = &data[at + HEAD]
            path = _u16(body + 8, big_endian)
            value = _u16(body + 10, big_endian)
            count = _u16(body + 14, big_endian)
            whole = FIXED + count * ENTRY + path + value
            if _u32(body, big_endian) or _u32(body + 4, big_endian) or whole > length \
                    or length - whole >= 8 or path == 0:
                break
            if not self._entries(body + FIXED, count, big_endian):
                break
            body += FIXED + count * ENTRY
            if body[path - 1] != 0 or not self.filling.put(
                    <const char *>body, path - 1, self.perms, <const char *>body + path, value):
                break
            self.count += 1
            at += HEAD + length
        return at, self.count - before

    # -- oxenstored's dump ----------------------------------------------------

    def take_lines(self, const unsigned char[::1] data not None, size_t at):
        """Takes the ordinary lines of nodes from there on: (where the next one begins, how many
        were taken)."""
        cdef const unsigned char *start
        cdef const unsigned char *end
        cdef const unsigned char *perms
        cdef const unsigned char *value
        cdef size_t n = data.shape[0]
        cdef Py_ssize_t path, m
        cdef int64_t before = self.count
        while at + 6 < n:
            start = &data[at]
            if memcmp(start, b"store,", 6) != 0:
                break
            end = <const unsigned char *>memchr(start, c"\n", n - at)
            if end == NULL:
                break
            start += 6
            perms = <const unsigned char *>memchr(start, c",", end - start)
            if perms == NULL:
                break
            value = <const unsigned char *>memchr(perms + 1, c",", end - perms - 1)
            if value == NULL or memchr(value + 1, c",", end - value - 1) != NULL:
                break
            if not self._list(perms + 1, value - perms - 1):
                break
            path = _unhex(start, perms - start, self.path)
            m = _unhex(value + 1, end - value - 1, self.value)
            if path < 0 or m < 0 or not self.filling.put(self.path, path, self.perms, self.value,
                                                         m):
                break
            self.count += 1
            at = end - &data[0] + 1
        return at, self.count - before

    cdef bint _list(self, const unsigned char *p, size_t n) except -1:
        """The permission list of these digits; False where it is not an ordinary one."""
        cdef char text[ENTRIES_MAX * 8 + 1]
        cdef Py_ssize_t length
        cdef Perms *perms
        if self._same(p, n):
            return True
        if n > 2 * ENTRIES_MAX * 8:
            return False
        length = _unhex(p, n, text)
        if length < 2 or text[length - 1] == 0:
            return False
        text[length] = 0
        perms = perms_parse(text, length + 1, self.filling.tree.mentions)
        if perms == NULL:
            return False
        self._keep(perms, p, n)
        return True

    # -- what is not ordinary -------------------------------------------------

    def load(self, list names not None, bytes perms not None, bytes value not None):
        """One node of a dump, which may replace one that came before, as Tree.load() takes it;
        ValueError."""
        special = len(names) == 1 and names[0].startswith(b"@")
        path = names[0] if special else b"/" + b"/".join(names)
        if not is_node_path(path):
            raise ValueError(f"not a path: {path[:64]!r}")
        self.filling.tree.load(names, perms, value)
        self.count += 1

    def add(self, node not None, bint replace):
        """One node (host_state.Node) of a stream; ValueError as NodeChecker.add() has it, or where
        it is none that a tree can have."""
        path = node.path
        names = [path] if path[:1] == b"@" else path[1:].split(b"/") if path != b"/" else []
        if not is_node_path(path):
            raise ValueError(f"not a path: {path[:64]!r}")
        if not node.permissions:
            raise ValueError(f"{path[:64]!r} has no permissions")
        if not replace:
            self._refuse_twice(path, names)
        owner, *others = node.permissions
        kept = [owner, *(entry for entry in others if not entry.stale)]
        text = b"\0".join([b"%c%d" % (b"nrwb"[entry.access], entry.domid) for entry in kept])
        self.filling.tree.load(names, text + b"\0", node.value)
        self.count += 1

    cdef int _refuse_twice(self, bytes path, list names) except -1:
        """Was it in the file before?  The root and special nodes are there from the start."""
        if names and path[:1] != b"@" and path[:2] != b"/@":
            if self.filling.tree.get(names) is not None:
                raise ValueError(f"{path[:64]!r} stands there twice")
            return 0
        if path in self.special:
            raise ValueError(f"{path[:64]!r} stands there twice")
        self.special.add(path)
        return 0

    @property
    def tree(self):
        """The tree as it is now."""
        return self.filling.tree
