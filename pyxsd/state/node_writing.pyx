# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nodes of a tree as C xenstored's stream and oxenstored's dump have them.

What the rest of such a file says is written from a `HostState` (stream_writer, database), which
can have nodes too; a host has so many that making objects of them would hold everybody up.
"""

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyxsd._wire cimport Buffer, buffer_free, buffer_reserve
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport PATH_PARTS_MAX, PATH_TEXT_MAX
from pyxsd.store.perms cimport Perms, perms_equal, perms_gone
from pyxsd.store.subtree cimport Walker, walk_begin, walk_end, walk_next
from pyxsd.store.tree cimport Tree, tree_age

cdef enum:
    NODE_RECORD = 5          # in C's stream
    HEAD = 8                 # bytes of a record before its body
    FIXED = 16               # and of a NODE before its permissions
    ENTRY = 4
    LENGTH_MAX = 0xFFFF      # of a path with its NUL, a value, and entries in a list
    LISTS = 256              # permission lists that are remembered by their place


@cython.final
@cython.no_gc
cdef class _Way:
    """A walk through a tree that knows the path of each node: "/" for the root, "/@x" for a
    special one."""

    cdef Tree held
    cdef Walker walker
    cdef char text[PATH_TEXT_MAX]
    cdef uint16_t ends[PATH_PARTS_MAX + 1]
    cdef size_t length       # of the path of the node at hand

    def __cinit__(self, Tree tree not None):
        self.held = tree.snapshot()
        walk_begin(&self.walker, self.held.root, False)

    def __dealloc__(self):
        walk_end(&self.walker)

    cdef Node *next(self) except? NULL:
        cdef Node *node = walk_next(&self.walker)
        cdef size_t at, depth
        if node == NULL:
            return NULL
        depth = self.walker.depth
        self.text[0] = c"/"
        if depth == 0:
            self.length = 1
            return node
        at = self.ends[depth - 1]
        self.text[at] = c"/"
        memcpy(self.text + at + 1, node.name, node.name_len)
        self.length = at + 1 + node.name_len
        self.ends[depth] = <uint16_t>self.length
        return node

    cdef bytes path(self):
        """As a HostState names it."""
        if self.walker.depth == 1 and self.text[1] == c"@":
            return self.text[1:self.length]
        return self.text[:self.length]


cdef list _listed(const Perms *perms, uint64_t age):
    cdef uint32_t i
    return [(perms.entry[i].domid, perms.entry[i].access)
            for i in range(perms.count) if not perms_gone(perms, i, age)]


@cython.final
cdef class _Lists:
    """What stands in the file for a permission list.  Equal lists are many objects."""

    cdef object encode
    cdef uint64_t age        # of the tree
    cdef dict known          # {entries: what stands for them}
    cdef const Perms *recent[LISTS]      # lists of the tree, each at the place of its hash
    cdef list found          # what stands for these
    cdef const Perms *last   # the list asked for last: siblings share one as a rule
    cdef object its          # what stands for it

    def __cinit__(self, encode, Tree tree):
        self.encode = encode
        self.age = tree_age(tree)
        self.known = {}
        self.found = [None] * LISTS

    cdef object of(self, const Perms *perms):
        if perms != self.last:
            self.its = self._look_up(perms)
            self.last = perms
        return self.its

    cdef object _look_up(self, const Perms *perms):
        cdef uint64_t hash = perms.count
        cdef uint32_t i, slot
        for i in range(min(perms.count, <uint32_t>4)):
            hash = hash * 31 + <uint64_t>perms.entry[i].domid * 4 + perms.entry[i].access
        slot = hash % LISTS
        if self.recent[slot] == NULL or not (
                self.recent[slot] == perms
                or perms_equal(self.recent[slot], perms, self.age)):
            entries = _listed(perms, self.age)
            made = self.known.get(tuple(entries))
            if made is None:
                made = self.known[tuple(entries)] = self.encode(entries)
            self.recent[slot] = perms
            self.found[slot] = made
        return self.found[slot]


cdef inline void _put32(char *p, uint32_t n) noexcept nogil:
    memcpy(p, &n, 4)


cdef inline void _put16(char *p, uint32_t n) noexcept nogil:
    cdef uint16_t short_ = <uint16_t>n
    memcpy(p, &short_, 2)


def records(Tree tree not None, encode not None, lose not None):
    """NODE records of all nodes, parents first, in the byte order of this machine.

    encode([(domid, access)]) gives what stands in the file for a permission list: (the entries, is
    something lost?).  For a list of which something is, lose(list, path) is called for each node
    that has it.  Nodes that are too large for a record are left out: (bytes, [their paths]).
    """
    cdef _Way way = _Way(tree)
    cdef Buffer out
    cdef Node *node
    cdef bytes entries
    cdef bint lossy, special
    cdef _Lists lists = _Lists(encode, tree)
    cdef list left_out = []
    cdef size_t size, whole, path, n
    cdef char *at
    memset(&out, 0, sizeof(out))
    try:
        while True:
            node = way.next()
            if node == NULL:
                return (out.data[:out.tail] if out.tail else b""), left_out
            entries, lossy = lists.of(node.perms)
            if lossy:
                lose(_listed(node.perms, lists.age), way.path())
            special = way.walker.depth == 1 and way.text[1] == c"@"
            path = way.length - special + 1
            n = len(entries)
            if path > LENGTH_MAX or node.value_len > LENGTH_MAX or n // ENTRY > LENGTH_MAX:
                left_out.append(way.path())
                continue
            size = FIXED + n + path + node.value_len
            whole = (size + 7) & ~<size_t>7
            at = buffer_reserve(&out, HEAD + whole)
            memset(at + HEAD, 0, FIXED)
            memset(at + HEAD + size, 0, whole - size)
            _put32(at, NODE_RECORD)
            _put32(at + 4, <uint32_t>whole)
            _put16(at + HEAD + 8, <uint32_t>path)
            _put16(at + HEAD + 10, node.value_len)
            _put16(at + HEAD + 14, <uint32_t>(n // ENTRY))
            at += HEAD + FIXED
            memcpy(at, <const char *>entries, n)
            memcpy(at + n, way.text + special, path - 1)
            at[n + path - 1] = 0
            if node.value_len:
                memcpy(at + n + path, node.value, node.value_len)
            out.tail += HEAD + whole
    finally:
        buffer_free(&out)


cdef inline void _hex(char *out, const char *p, size_t n) noexcept nogil:
    cdef size_t i
    cdef unsigned char high, low
    for i in range(n):
        high = <unsigned char>p[i] >> 4
        low = <unsigned char>p[i] & 15
        out[2 * i] = <char>(high + (c"0" if high < 10 else c"a" - 10))
        out[2 * i + 1] = <char>(low + (c"0" if low < 10 else c"a" - 10))


def lines(Tree tree not None, encode not None):
    """The lines of a dump for all nodes, parents first.  encode([(domid, access)]) gives the text
    of a permission list, in pairs of digits."""
    cdef _Way way = _Way(tree)
    cdef Buffer out
    cdef Node *node
    cdef bytes text
    cdef _Lists lists = _Lists(encode, tree)
    cdef size_t n, m
    cdef char *at
    memset(&out, 0, sizeof(out))
    try:
        while True:
            node = way.next()
            if node == NULL:
                return out.data[:out.tail] if out.tail else b""
            text = lists.of(node.perms)
            n = way.length
            m = len(text)
            at = buffer_reserve(&out, 9 + 2 * n + m + 2 * <size_t>node.value_len)
            memcpy(at, b"store,", 6)
            _hex(at + 6, way.text, n)
            at += 6 + 2 * n
            at[0] = c","
            memcpy(at + 1, <const char *>text, m)
            at[1 + m] = c","
            _hex(at + 2 + m, node.value, node.value_len)
            at[2 + m + 2 * <size_t>node.value_len] = c"\n"
            out.tail += 9 + 2 * n + m + 2 * <size_t>node.value_len
    finally:
        buffer_free(&out)


def longer(Tree tree not None, size_t most):
    """[(path, bytes of its value)] of the nodes whose value has more than `most` bytes."""
    cdef _Way way = _Way(tree)
    cdef Node *node
    cdef list found = []
    while True:
        node = way.next()
        if node == NULL:
            return found
        if node.value_len > most:
            found.append((way.path(), node.value_len))
