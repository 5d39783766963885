# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole tree as bytes, and back, fast: 100,000 nodes take some 20 ms each way.

For a live update, during which nobody is served.  The bytes are for a process of the same
machine, so numbers are in its byte order:

    u32 count of permission lists, and for each: u32 length, the text ("n0\\0r5\\0")
    u64 count of nodes, and for each, parents first and siblings in ascending order:
        u32 depth (the root has 0), u32 number of its permission list,
        u32 length of the name, u32 length of the value, the name, the value
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy
from pyxsd._wire cimport Buffer, buffer_free, buffer_put
from pyxsd.store.pages cimport Node, page_compare, page_insert
from pyxsd.store.perms cimport Perms, perms_owner, perms_parse, perms_ref, perms_text, perms_unref
from pyxsd.store.subtree cimport (
    Walker, node_new, node_set_value, node_unref, walk_begin, walk_end, walk_next,
)
from pyxsd.store.tree cimport Tree

cdef struct Head:
    uint32_t depth
    uint32_t perms
    uint32_t name_len
    uint32_t value_len

cdef enum:
    NAME_MAX = 0xFFFF


def pack(Tree tree not None):
    """The tree as bytes."""
    cdef Tree held = tree.copy()
    cdef Buffer lists, nodes
    cdef Walker walker
    cdef Head head
    cdef Node *node
    cdef Perms *last = NULL
    cdef dict numbers = {}       # address of a list: its number
    cdef dict texts = {}         # the text of a list: its number
    cdef bytes text
    cdef uint64_t count = 0
    cdef uint32_t number = 0, size, count_lists = 0
    cdef size_t at
    lists.data = nodes.data = NULL
    lists.head = lists.tail = lists.cap = nodes.head = nodes.tail = nodes.cap = 0
    walk_begin(&walker, held.root, False)
    try:
        while True:
            node = walk_next(&walker)
            if node == NULL:
                break
            if node.perms != last:
                last = node.perms
                known = numbers.get(<size_t>last)
                if known is None:
                    at = lists.tail
                    perms_text(last, &lists, c"\0", True, <size_t>-1)
                    text = lists.data[at:lists.tail]
                    lists.tail = at
                    known = texts.setdefault(text, len(texts))
                    numbers[<size_t>last] = known
                    if known == count_lists:
                        size = len(text)
                        buffer_put(&lists, <const char *>&size, sizeof(size))
                        buffer_put(&lists, <const char *>text, size)
                        count_lists += 1
                number = known
            head.depth = walker.depth
            head.perms = number
            head.name_len = node.name_len
            head.value_len = node.value_len
            buffer_put(&nodes, <const char *>&head, sizeof(head))
            buffer_put(&nodes, node.name, node.name_len)
            if node.value_len:
                buffer_put(&nodes, node.value, node.value_len)
            count += 1
        return ((<const char *>&count_lists)[:sizeof(count_lists)] + lists.data[:lists.tail]
                + (<const char *>&count)[:sizeof(count)] + nodes.data[:nodes.tail])
    finally:
        walk_end(&walker)
        buffer_free(&lists)
        buffer_free(&nodes)


cdef class _Reader:
    """Takes numbers and texts from bytes, and refuses to read behind their end."""

    cdef const unsigned char[::1] data
    cdef size_t at

    cdef const char *take(self, size_t n) except NULL:
        cdef size_t at = self.at
        if n > <size_t>self.data.shape[0] - at:
            raise ValueError(f"offset {at}: {n} bytes are missing")
        self.at += n
        return <const char *>&self.data[0] + at


cdef class _Builder:
    """The permission lists, and the last node of each depth on the way to where we are."""

    cdef Perms **lists
    cdef uint32_t count
    cdef Node **line
    cdef size_t room

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            perms_unref(self.lists[i])
        free(self.lists)
        free(self.line)

    cdef int read_lists(self, _Reader reader, Tree tree) except -1:
        cdef uint32_t count, i, n
        cdef const char *text
        cdef void *room
        memcpy(&count, reader.take(sizeof(count)), sizeof(count))
        if count > <size_t>reader.data.shape[0] // sizeof(n):
            raise ValueError(f"{count} permission lists are too many")
        room = realloc(NULL, (count + 1) * sizeof(Perms *))
        if room == NULL:
            raise MemoryError()
        self.lists = <Perms **>room
        for i in range(count):
            memcpy(&n, reader.take(sizeof(n)), sizeof(n))
            text = reader.take(n)
            self.lists[i] = perms_parse(text, n, tree.mentions)
            if self.lists[i] == NULL:
                raise ValueError(f"offset {reader.at}: malformed permissions")
            self.count += 1
        return 0

    cdef int put(self, Tree tree, const Head *head, const char *name, const char *value,
                 size_t depth) except -1:
        """Makes a node below the last one of the depth above; depth: that of the node before."""
        cdef Node *node
        cdef Node *parent
        cdef void *room
        if head.depth == 0 or head.depth > depth + 1:
            raise ValueError(f"a node of depth {head.depth} behind one of depth {depth}")
        if head.name_len == 0 or head.name_len > NAME_MAX:
            raise ValueError(f"a name of {head.name_len} bytes")
        if head.depth >= self.room:
            room = realloc(self.line, 2 * (head.depth + 16) * sizeof(Node *))
            if room == NULL:
                raise MemoryError()
            self.line = <Node **>room
            self.room = 2 * (head.depth + 16)
        self.line[0] = tree.root
        if head.depth <= depth and page_compare(name, head.name_len, self.line[head.depth]) <= 0:
            raise ValueError(f"{name[:head.name_len]!r}: the names are not in ascending order")
        parent = self.line[head.depth - 1]
        node = node_new(name, head.name_len, self.lists[head.perms])
        try:
            node_set_value(node, value, head.value_len)
            page_insert(&parent.children, node)
        except BaseException:
            node_unref(node)
            raise
        self.line[head.depth] = node
        tree.nodes += 1
        return tree.count_add(perms_owner(node.perms), 1)


def unpack(data):
    """The tree of which pack() made the bytes, as (tree, how many bytes it took); ValueError
    where they are something else, with the offset in bytes."""
    cdef Tree tree = Tree()
    cdef _Reader reader = _Reader()
    cdef _Builder builder = _Builder()
    cdef Head head
    cdef uint64_t count, i
    cdef size_t depth = 0
    cdef const char *name
    cdef const char *value
    reader.data = data
    builder.read_lists(reader, tree)
    memcpy(&count, reader.take(sizeof(count)), sizeof(count))
    for i in range(count):
        memcpy(&head, reader.take(sizeof(head)), sizeof(head))
        name = reader.take(head.name_len)
        value = reader.take(head.value_len)
        if head.perms >= builder.count:
            raise ValueError(f"offset {reader.at}: there is no permission list {head.perms}")
        if i == 0:
            if head.depth:
                raise ValueError("the first node is not the root")
            node_set_value(tree.root, value, head.value_len)
            perms_unref(tree.root.perms)
            tree.root.perms = perms_ref(builder.lists[head.perms])
        else:
            try:
                builder.put(tree, &head, name, value, depth)
            except ValueError as error:
                raise ValueError(f"offset {reader.at}: {error}") from None
        depth = head.depth
    return tree, reader.at
