# SPDX-License-Identifier: LGPL-2.1-or-later
"""The radix tree of paths.

A node stands for a path on which something stands, or for one where paths part.  What
leads from a parent to a node is its label: one name, or several where nothing parts in
between.  With the paths /a/b/c, /a/b/d/e and /x:

    root --- "a/b" --- "c"
         |         `-- "d/e"
         `-- "x"

So there are at most twice as many nodes as paths, however many components these have,
and all labels together are not longer than the paths.  (A label has its room in its node, and
one of its own once nodes were joined; so they take twice that memory at most.)  A path that
is added may cut a label (/a splits "a/b" into "a" and "b"); when a path goes, a node that is
left with one child and nothing on it is joined with the child.

Children of a node differ in the first name of their labels.  They are found in three
ways, each for its own purpose:

- a hash table of all nodes, by parent and first name: one step down costs the same
  however many children there are;
- a list in ascending order of names, for walks, which must come in that order;
- a balanced search tree (a treap: ordered by name, and like a heap by hash), which finds
  the place in that list for a new child.

Guests choose the names.  The hash has a secret key (see _siphash), and so have the
priorities of the treap, so nobody can make a slot or a branch of the tree long.
"""

from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset
from pyxsd._siphash cimport hash_key, sip_word_bytes
from pyxsd.events.table cimport (
    table_begin, table_end, table_fit, table_put, table_settle, table_slot, table_take,
)
from pyxsd.store.path cimport path_prefix

cdef enum:
    ROOM = 64                # of a label that stands in its node

cdef long long _live = 0


cdef long long radix_live() noexcept:
    return _live


cdef int radix_begin(Radix *radix) except -1:
    radix.count = 0
    table_begin(&radix.table)
    radix.root = <RadixNode *>calloc(1, sizeof(RadixNode))
    radix.specials = <RadixNode *>calloc(1, sizeof(RadixNode))
    if radix.root == NULL or radix.specials == NULL:
        raise MemoryError()
    return 0


cdef void radix_end(Radix *radix) noexcept:
    cdef uint32_t i
    cdef Link *link
    cdef Link *next
    table_settle(&radix.table)
    if radix.table.slot != NULL:
        for i in range(radix.table.slots):
            link = radix.table.slot[i]
            while link != NULL:
                next = link.next
                _free(radix, <RadixNode *>link)
                link = next
    table_end(&radix.table)
    free(radix.root)
    free(radix.specials)


cdef RadixNode *_new(const char *label, size_t n, size_t first, size_t parts) except NULL:
    global _live
    # Not calloc(), which takes nothing from the thread's cache of what was freed.
    cdef RadixNode *node = <RadixNode *>malloc(sizeof(RadixNode) + (n if n <= ROOM else 0))
    if node == NULL:
        raise MemoryError()
    memset(node, 0, sizeof(RadixNode))
    node.label = node.room
    if n > ROOM:
        # By itself, so that it goes when the node gets another one and keeps its address.
        node.label = <char *>malloc(n)
        if node.label == NULL:
            free(node)
            raise MemoryError()
    memcpy(node.label, label, n)
    node.label_len = <uint16_t>n
    node.first_len = <uint16_t>first
    node.parts = <uint16_t>parts
    _live += 1
    return node


cdef void _free(Radix *radix, RadixNode *node) noexcept:
    global _live
    if node.label != node.room:
        free(node.label)
    free(node)
    radix.count -= 1
    _live -= 1


# -- the hash table -----------------------------------------------------------

cdef inline uint64_t _hash(const RadixNode *parent, const char *name, size_t n) noexcept nogil:
    return sip_word_bytes(&hash_key, <uintptr_t>parent, name, n)


# -- siblings: the treap and the list -----------------------------------------

cdef inline int _compare(const RadixNode *a, const RadixNode *b) noexcept nogil:
    """By their first names."""
    cdef size_t n = a.first_len, m = b.first_len
    cdef int c = memcmp(a.label, b.label, n if n < m else m)
    if c:
        return c
    return -1 if n < m else (1 if n > m else 0)


cdef RadixNode **_sibling_link(RadixNode *node) noexcept:
    """The pointer to a node in the treap of its parent."""
    cdef RadixNode **link = &node.parent.top
    while link[0] != node:
        link = &link[0].left if _compare(node, link[0]) < 0 else &link[0].right
    return link


cdef void _sibling_insert(RadixNode *node) noexcept:
    cdef RadixNode **link = &node.parent.top
    cdef RadixNode **less = &node.left
    cdef RadixNode **more = &node.right
    cdef RadixNode *before = NULL
    cdef RadixNode *other
    # Down to where the node belongs by its priority, the upper half of its hash.
    while link[0] != NULL and link[0].link.hash >> 32 >= node.link.hash >> 32:
        if _compare(node, link[0]) < 0:
            link = &link[0].left
        else:
            before = link[0]
            link = &link[0].right
    # What was there is split into what is less and what is more.
    other = link[0]
    link[0] = node
    while other != NULL:
        if _compare(other, node) < 0:
            before = other
            less[0] = other
            less = &other.right
            other = other.right
        else:
            more[0] = other
            more = &other.left
            other = other.left
    less[0] = more[0] = NULL
    # And the list: behind the largest one that is less.
    node.prev = before
    node.next = node.parent.first if before == NULL else before.next
    if before == NULL:
        node.parent.first = node
    else:
        before.next = node
    if node.next != NULL:
        node.next.prev = node


cdef void _sibling_remove(RadixNode *node) noexcept:
    cdef RadixNode **link = _sibling_link(node)
    cdef RadixNode *less = node.left
    cdef RadixNode *more = node.right
    while less != NULL and more != NULL:
        if less.link.hash >> 32 > more.link.hash >> 32:
            link[0] = less
            link = &less.right
            less = less.right
        else:
            link[0] = more
            link = &more.left
            more = more.left
    link[0] = less if less != NULL else more
    if node.prev == NULL:
        node.parent.first = node.next
    else:
        node.prev.next = node.next
    if node.next != NULL:
        node.next.prev = node.prev


cdef void _replace(Radix *radix, RadixNode *old, RadixNode *new) noexcept:
    """Puts a node where another one is, which has the same parent and first name."""
    table_take(&radix.table, &old.link)
    new.parent = old.parent
    new.link.hash = old.link.hash
    table_put(&radix.table, &new.link)
    _sibling_link(old)[0] = new
    new.left = old.left
    new.right = old.right
    new.prev = old.prev
    new.next = old.next
    if old.prev == NULL:
        old.parent.first = new
    else:
        old.prev.next = new
    if old.next != NULL:
        old.next.prev = new


# -- finding ------------------------------------------------------------------

cdef inline bint _begins_with(const RadixNode *node, const char *name, size_t n) noexcept nogil:
    return node.first_len == n and memcmp(node.label, name, n) == 0


cdef RadixNode *_child(const Radix *radix, const RadixNode *at, const char *name,
                       size_t n) noexcept nogil:
    """The child whose label begins with a name."""
    cdef RadixNode *node = at.first
    cdef Link *link
    cdef uint64_t h
    if node == NULL:
        return NULL
    if node.next == NULL:
        return node if _begins_with(node, name, n) else NULL
    h = _hash(at, name, n)
    link = table_slot(&radix.table, h)[0]
    while link != NULL:
        node = <RadixNode *>link
        if link.hash == h and node.parent == at and _begins_with(node, name, n):
            return node
        link = link.next
    return NULL


cdef size_t _shared(const RadixNode *node, const Path *path, size_t parts) noexcept nogil:
    """How many names of a label follow in a path behind its first components; the
    first one does."""
    cdef const char *text = path.text + path.start[parts]
    cdef size_t k, end, done = 0, most = path.parts - parts
    if most > node.parts:
        most = node.parts
    for k in range(most):
        end = path.start[parts + k] + path.size[parts + k] - path.start[parts]
        if end > node.label_len or memcmp(node.label + done, text + done, end - done) != 0 \
                or (end < node.label_len and node.label[end] != c"/"):
            return k
        done = end
    return most


cdef RadixNode *radix_step(const Radix *radix, RadixNode *at, const Path *path,
                           size_t *parts, bint *inside) noexcept nogil:
    cdef size_t i = parts[0], shared
    cdef RadixNode *node = _child(radix, at, path.text + path.start[i], path.size[i])
    if node == NULL:
        return NULL
    if node.parts == 1:
        parts[0] = i + 1
        return node
    shared = _shared(node, path, i)
    if shared == node.parts:
        parts[0] = i + shared
        return node
    if i + shared < path.parts:
        return NULL
    parts[0] = path.parts
    inside[0] = True
    return node


cdef RadixNode *radix_find(const Radix *radix, const Path *path) noexcept nogil:
    cdef RadixNode *node = radix.specials if path.special else radix.root
    cdef size_t parts = 0
    cdef bint inside = False
    while parts < path.parts:
        node = radix_step(radix, node, path, &parts, &inside)
        if node == NULL or inside:
            return NULL
    return node


# -- changing -----------------------------------------------------------------

cdef RadixNode *_split(Radix *radix, RadixNode *node, size_t parts, size_t cut) except NULL:
    """Splits a label behind its first names, which have `cut` bytes; the new node that
    has these names.  The old one keeps its address, and becomes its child."""
    cdef RadixNode *upper = _new(node.label, cut, node.first_len, parts)
    cdef const char *slash
    cdef char *shorter
    radix.count += 1
    _replace(radix, node, upper)
    node.label_len -= <uint16_t>(cut + 1)
    memmove(node.label, node.label + cut + 1, node.label_len)
    if node.label != node.room:
        shorter = <char *>realloc(node.label, node.label_len)
        if shorter != NULL:
            node.label = shorter
    node.parts -= <uint16_t>parts
    slash = <const char *>memchr(node.label, c"/", node.label_len)
    node.first_len = node.label_len if slash == NULL else <uint16_t>(slash - node.label)
    _attach(radix, upper, node)
    return upper


cdef void _attach(Radix *radix, RadixNode *parent, RadixNode *node) noexcept:
    """Makes a node a child."""
    node.parent = parent
    node.left = node.right = NULL
    node.link.hash = _hash(parent, node.label, node.first_len)
    table_put(&radix.table, &node.link)
    _sibling_insert(node)


cdef void _join(Radix *radix, RadixNode *node) noexcept:
    """Joins a node with its only child, which keeps its address.  Without memory for
    the longer label all stays as it is, which is as good for everything else."""
    cdef RadixNode *child = node.first
    cdef size_t n = node.label_len + 1 + child.label_len
    cdef char *label = <char *>malloc(n)
    if label == NULL:
        return
    memcpy(label, node.label, node.label_len)
    label[node.label_len] = c"/"
    memcpy(label + node.label_len + 1, child.label, child.label_len)
    table_take(&radix.table, &child.link)
    if child.label != child.room:
        free(child.label)
    child.label = label
    child.label_len = <uint16_t>n
    child.first_len = node.first_len
    child.parts += node.parts
    _replace(radix, node, child)
    _free(radix, node)


cdef RadixNode *radix_make(Radix *radix, const Path *path) except NULL:
    cdef RadixNode *node = radix.specials if path.special else radix.root
    cdef RadixNode *child
    cdef size_t i = 0, shared
    # One path makes at most two nodes: one that cuts a label, and its own.
    if not table_fit(&radix.table, radix.count + 2):
        raise MemoryError()
    while i < path.parts:
        child = _child(radix, node, path.text + path.start[i], path.size[i])
        if child == NULL:
            try:
                child = _new(path.text + path.start[i], path.len - path.start[i], path.size[i],
                             path.parts - i)
            except MemoryError:
                radix_drop(radix, node)
                raise
            radix.count += 1
            _attach(radix, node, child)
            return child
        shared = _shared(child, path, i)
        if shared < child.parts:
            child = _split(radix, child, shared, path_prefix(path, i + shared) - path.start[i])
        node = child
        i += shared
    return node


cdef void radix_drop(Radix *radix, RadixNode *node) noexcept:
    cdef RadixNode *parent
    while node.parent != NULL and node.content == NULL:
        if node.first != NULL:
            if node.first.next == NULL:
                _join(radix, node)
            break
        parent = node.parent
        table_take(&radix.table, &node.link)
        _sibling_remove(node)
        _free(radix, node)
        node = parent
    table_fit(&radix.table, radix.count)
