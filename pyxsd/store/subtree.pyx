# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nodes, and walks through what is below them; tree.pyx says how they are shared."""

from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy
from pyxsd.store.pages cimport (
    node_drop, owner_bits, page_bury, page_drop, page_exclusive_slot, page_get, value_new,
    value_ref, value_refs, value_unref,
)
from pyxsd.store.perms cimport perms_owner, perms_ref, perms_unref

cdef enum:
    LIST_ENTRIES = 8         # of a permission list that are freed while one node is, or a few

cdef int64_t _live = 0
cdef int64_t _copied = 0


cdef int64_t nodes_live() noexcept:
    return _live


cdef int64_t content_copied() noexcept:
    return _copied


# -- nodes --------------------------------------------------------------------

cdef Node *node_new(const char *name, size_t n, Perms *perms) except NULL:
    global _live
    cdef Node *node = <Node *>malloc(sizeof(Node) + (n if n else sizeof(uint64_t)))
    if node == NULL:
        raise MemoryError()
    node.refs = 1
    node.value_len = 0
    node.perms = perms_ref(perms)
    node.children = NULL
    node.value = NULL
    node.owners = owner_bits(perms_owner(perms))
    node.name_len = <uint16_t>n
    memcpy(node.name, name, n)
    if n == 0:
        node_age(node)[0] = 0
    _live += 1
    return node


cdef void node_unref(Node *node) noexcept nogil:
    cdef Dying dying
    dying.nodes = NULL
    dying.pages = NULL
    node_drop(node, &dying)
    free_dying(&dying, 1 << 62)


cdef int64_t free_dying(Dying *dying, int64_t most) noexcept nogil:
    global _live
    cdef Node *node
    cdef int64_t freed = 0
    while freed < most:
        node = dying.nodes
        if node != NULL:
            dying.nodes = <Node *>node.value
            if node.children != NULL:
                page_drop(node.children, dying)
            if node.perms.refs == 1:
                # Its entries are taken out of the mentions one by one.
                freed += node.perms.count // LIST_ENTRIES
            perms_unref(node.perms)
            free(node)
            _live -= 1
        elif dying.pages != NULL:
            page_bury(dying)
        else:
            break
        freed += 1
    return freed


cdef int node_set_value(Node *node, const char *p, size_t n) except -1:
    cdef char *value = NULL
    if n and n == node.value_len and value_refs(node.value)[0] == 1:
        memcpy(node.value, p, n)
        return 0
    if n:
        value = value_new(p, n)
    value_unref(node.value)
    node.value = value
    node.value_len = <uint32_t>n
    return 0


cdef Node *node_child(const Node *node, const char *name, size_t n) noexcept nogil:
    return page_get(node.children, name, n)


cdef Node *node_at(Node *root, const Path *path, size_t parts) noexcept nogil:
    cdef size_t i
    cdef Node *node = root
    for i in range(parts):
        node = page_get(node.children, path.text + path.start[i], path.size[i])
        if node == NULL:
            return NULL
    return node


cdef Node *node_exclusive(Node **ref) except NULL:
    global _copied
    cdef Node *node = ref[0]
    cdef Node *copy
    if node.refs == 1:
        return node
    _copied += node_content(node)
    copy = node_new(node.name, node.name_len, node.perms)
    copy.value = value_ref(node.value)
    copy.value_len = node.value_len
    copy.owners = node.owners
    if node.name_len == 0:
        node_age(copy)[0] = node_age(node)[0]
    copy.children = node.children
    if copy.children != NULL:
        copy.children.refs += 1
    node.refs -= 1
    ref[0] = copy
    return copy


cdef Node *node_exclusive_child(Node *parent, const char *name, size_t n) except NULL:
    return node_exclusive(page_exclusive_slot(&parent.children, name, n))


# -- walking ------------------------------------------------------------------

cdef int _push(Walker *w, Page *page, uint32_t depth) except -1:
    cdef Frame *frame
    if w.used == w.capacity:
        frame = <Frame *>realloc(w.frame, (w.capacity * 2 + 16) * sizeof(Frame))
        if frame == NULL:
            raise MemoryError()
        w.frame = frame
        w.capacity = w.capacity * 2 + 16
    frame = &w.frame[w.used]
    frame.page = page
    frame.index = page.count - 1 if w.descending else 0
    frame.depth = depth
    w.used += 1
    return 0


cdef int walk_begin(Walker *w, Node *start, bint descending) except -1:
    w.frame = NULL
    w.used = w.capacity = 0
    w.depth = 0
    w.start = start
    w.descending = descending
    return 0


cdef Node *walk_next(Walker *w) except? NULL:
    cdef Frame *frame
    cdef Node *node
    cdef int at
    if w.start != NULL:
        node = w.start
        w.start = NULL
        if node.children != NULL:
            _push(w, node.children, 1)
        return node
    while w.used:
        frame = &w.frame[w.used - 1]
        at = frame.index
        if at < 0 or at >= frame.page.count:
            w.used -= 1
            continue
        frame.index += -1 if w.descending else 1
        if frame.page.level:
            _push(w, <Page *>frame.page.slot[at], frame.depth)
            continue
        node = <Node *>frame.page.slot[at]
        w.depth = frame.depth
        if node.children != NULL:
            _push(w, node.children, frame.depth + 1)
        return node
    return NULL


cdef void walk_skip(Walker *w, const Node *node) noexcept:
    # The page of its children is the one that was put there last.
    if node.children != NULL:
        w.used -= 1


cdef void walk_end(Walker *w) noexcept:
    free(w.frame)
    w.frame = NULL
