# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories as B+ trees of pages.

A directory of up to FANOUT children is one page, a leaf, whose slots are nodes in
ascending order of their names.  A larger one has pages above its leaves, whose slots
are pages; a page is found by the smallest name in it, so nothing is stored twice.

A page has room for no more slots than it needs, about: twice as many as there were when it was
copied, and four times as many as are left.  A guest could make a thousand of them large else, by
putting children into each of its nodes and taking them out.

A full page is split when something is put in.  Names mostly come in ascending order
(disks 1, 2, 3; domains 10, 11, 12), so a page that is full at its end stays full and a
new one begins.  A page that has become sparse is joined with a neighbour.

Pages are shared by counting references, as nodes are.  A page that somebody else
holds is copied before it changes, together with the pages above it; the copy shares
the slots, so that each of them has one more holder.

A page of pages also knows how long all names below it are together, and a digest of them, so
that a directory can be given piece by piece without a look at each of its names.  A leaf does not:
it has few names, and most directories are one leaf.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove
from pyxsd._siphash cimport hash_key, sip_bytes

cdef enum:
    FANOUT = 32              # slots of a full page
    SPARSE = 8               # a page with fewer slots is joined with a neighbour
    JOINED = 24              # where both together have at most so many
    PAGE_SLOTS = 3           # a page takes as much memory beside its slots as so many of them
    LEVELS_MAX = 32          # of a directory: more than memory can hold

cdef int64_t _live = 0
cdef int64_t _copied = 0
cdef int64_t _left_sparse = 0


cdef int64_t pages_live() noexcept:
    return _live


cdef int64_t slots_copied() noexcept:
    return _copied


cdef int64_t pages_left_sparse() noexcept:
    return _left_sparse


cdef inline Names *_names(const Page *page) noexcept nogil:
    """Of a page of pages: they stand in front of it, so that a leaf has none."""
    return <Names *>page - 1


cdef inline size_t _front(int level) noexcept nogil:
    """Bytes in front of a page."""
    return sizeof(Names) if level else 0


cdef Page *_new(int level, int capacity) except NULL:
    global _live
    cdef char *start = <char *>malloc(_front(level) + sizeof(Page)
                                      + (capacity - 1) * sizeof(void *))
    cdef Page *page
    if start == NULL:
        raise MemoryError()
    page = <Page *>(start + _front(level))
    page.refs = 1
    page.total = 0
    page.count = 0
    page.capacity = <uint16_t>capacity
    page.level = <uint8_t>level
    if level:
        _names(page).digest = _names(page).bytes = 0
    _live += 1
    return page


cdef void _free(Page *page) noexcept nogil:
    global _live
    _live -= 1
    free(<char *>page - _front(page.level))


cdef char *value_new(const char *p, size_t n) except NULL:
    cdef uint32_t *value = <uint32_t *>malloc(sizeof(uint32_t) + n)
    if value == NULL:
        raise MemoryError()
    value[0] = 1
    memcpy(&value[1], p, n)
    return <char *>&value[1]


cdef void value_unref(char *value) noexcept nogil:
    if value == NULL:
        return
    value_refs(value)[0] -= 1
    if value_refs(value)[0] == 0:
        free(value_refs(value))


cdef void node_drop(Node *node, Dying *dying) noexcept nogil:
    node.refs -= 1
    if node.refs == 0:
        value_unref(node.value)
        node.value = <char *>dying.nodes
        dying.nodes = node


cdef void page_drop(Page *page, Dying *dying) noexcept nogil:
    page.refs -= 1
    if page.refs == 0:
        # Its first two fields mean nothing any more, and are as long as a pointer.
        memcpy(page, &dying.pages, sizeof(Page *))
        dying.pages = page


cdef void page_bury(Dying *dying) noexcept nogil:
    cdef Page *page = dying.pages
    cdef int i
    memcpy(&dying.pages, page, sizeof(Page *))
    for i in range(page.count):
        if page.level:
            page_drop(<Page *>page.slot[i], dying)
        else:
            node_drop(<Node *>page.slot[i], dying)
    _free(page)


cdef Node *page_get(const Page *top, const char *name, size_t n) noexcept nogil:
    cdef const Page *page = top
    cdef bint exact
    cdef int at
    if page == NULL:
        return NULL
    while page.level:
        page = <const Page *>page.slot[page_slot(page, name, n, &exact)]
    at = page_slot(page, name, n, &exact)
    return <Node *>page.slot[at] if exact else NULL


cdef inline void _slot_ref(const Page *page, int i) noexcept nogil:
    if page.level:
        (<Page *>page.slot[i]).refs += 1
    else:
        (<Node *>page.slot[i]).refs += 1


cdef inline uint32_t _slot_total(const Page *page, int i) noexcept nogil:
    return (<Page *>page.slot[i]).total if page.level else 1


cdef inline Names _of_name(const char *name, size_t n) noexcept nogil:
    cdef Names its
    its.digest = sip_bytes(&hash_key, name, n)
    its.bytes = n + 1
    return its


cdef inline void _more(Names *names, const Names *others) noexcept nogil:
    names.digest += others.digest
    names.bytes += others.bytes


cdef inline void _less(Names *names, const Names *others) noexcept nogil:
    names.digest -= others.digest
    names.bytes -= others.bytes


cdef Names page_names(const Page *top) noexcept nogil:
    cdef Names names, its
    cdef Node *node
    cdef int i
    if top != NULL and top.level:
        return _names(top)[0]
    names.digest = names.bytes = 0
    if top != NULL:
        for i in range(top.count):
            node = <Node *>top.slot[i]
            its = _of_name(node.name, node.name_len)
            _more(&names, &its)
    return names


cdef inline int _fitting(int count) noexcept nogil:
    """The capacity of a page that is made for so many slots."""
    cdef int size = 1
    while size < count:
        size *= 2
    return size


cdef Page *_exclusive(Page **ref) except NULL:
    """Makes *ref a page that only this reference holds."""
    global _copied
    cdef Page *page = ref[0]
    cdef Page *copy
    cdef int i, capacity
    if page.refs == 1:
        return page
    capacity = _fitting(page.count)
    copy = _new(page.level, capacity)
    _copied += PAGE_SLOTS + capacity
    copy.total = page.total
    copy.count = page.count
    if page.level:
        _names(copy)[0] = _names(page)[0]
    for i in range(page.count):
        copy.slot[i] = page.slot[i]
        _slot_ref(page, i)
    page.refs -= 1
    ref[0] = copy
    return copy


cdef Page *_room(Page **ref, int capacity) except NULL:
    """Grows an exclusive page to at least that many slots."""
    cdef Page *page = ref[0]
    cdef size_t front = _front(page.level)
    cdef char *start
    cdef int size
    if page.capacity >= capacity:
        return page
    size = _fitting(capacity)
    start = <char *>realloc(<char *>page - front, front + sizeof(Page)
                            + (size - 1) * sizeof(void *))
    if start == NULL:
        raise MemoryError()
    page = <Page *>(start + front)
    page.capacity = <uint16_t>size
    ref[0] = page
    return page


cdef Node **page_exclusive_slot(Page **top, const char *name, size_t n) except NULL:
    cdef Page **ref = top
    cdef Page *page
    cdef bint exact
    cdef int at
    while True:
        page = _exclusive(ref)
        at = page_slot(page, name, n, &exact)
        if page.level == 0:
            return <Node **>&page.slot[at]
        ref = <Page **>&page.slot[at]


# -- putting in ---------------------------------------------------------------

# Pages for those that must be split, by their level, taken before anything is changed.
cdef struct Spares:
    Page *page[LEVELS_MAX + 2]
    int top                  # level of the top page of the directory


cdef int _take_spares(Spares *spares, int full) except -1:
    """For so many full pages above each other, a leaf being the first."""
    cdef int level = 0
    try:
        while level < full:
            spares.page[level] = _new(level, FANOUT)
            level += 1
        if full > spares.top:
            spares.page[level] = _new(level, 4)
    except MemoryError:
        while level:
            level -= 1
            _free(spares.page[level])
        raise
    return 0


cdef Page *_put(Page **ref, int at, void *item, const Spares *spares) except? NULL:
    """Puts an item into slot `at` of an exclusive page.

    Where the page was full it is split, and its right part returned; else NULL.  The names in a
    page that is put into a page count there already.
    """
    cdef Page *page = ref[0]
    cdef Page *right = NULL
    cdef Names its
    cdef int keep, i
    if page.count == FANOUT:
        keep = FANOUT if at == FANOUT else FANOUT // 2
        right = spares.page[page.level]
        for i in range(keep, FANOUT):
            right.slot[right.count] = page.slot[i]
            right.count += 1
            right.total += _slot_total(page, i)
            if page.level:
                its = page_names(<Page *>page.slot[i])
                _more(_names(right), &its)
        page.count = <uint16_t>keep
        page.total -= right.total
        if page.level:
            if at >= keep:
                its = page_names(<Page *>item)
                _more(_names(right), &its)
            _less(_names(page), _names(right))
        if at >= keep:
            at -= keep
            page = right
    else:
        page = _room(ref, page.count + 1)
    memmove(&page.slot[at + 1], &page.slot[at], (page.count - at) * sizeof(void *))
    page.slot[at] = item
    page.count += 1
    page.total += _slot_total(page, at)
    return right


cdef Page *_insert(Page **ref, Node *node, const Names *its, Spares *spares,
                   int full) except? NULL:
    """Puts a node into a page or below it; returns what _put() does.  its: its name, for pages of
    pages.  full: so many pages right above are.  Nothing fails after the first change."""
    cdef Page *page = _exclusive(ref)
    cdef Page *split
    cdef bint exact
    cdef int at = page_slot(page, node.name, node.name_len, &exact)
    cdef uint32_t before
    full = full + 1 if page.count == FANOUT else 0
    if page.level == 0:
        if full:
            _take_spares(spares, full)
        return _put(ref, at, node, spares)
    page = _room(ref, min(page.count + 1, FANOUT))
    before = (<Page *>page.slot[at]).total
    split = _insert(<Page **>&page.slot[at], node, its, spares, full)
    _more(_names(page), its)
    # What was split off is added when it is put into a slot of its own.
    page.total += (<Page *>page.slot[at]).total - before
    if split == NULL:
        return NULL
    return _put(ref, at + 1, split, spares)


cdef int page_insert(Page **top, Node *node) except -1:
    cdef Page *split
    cdef Page *above
    cdef Names its
    cdef Spares spares
    its.digest = its.bytes = 0
    if top[0] == NULL:
        top[0] = _new(0, 1)
    elif top[0].level:
        its = _of_name(node.name, node.name_len)
    spares.top = top[0].level
    split = _insert(top, node, &its, &spares, 0)
    if split != NULL:
        above = spares.page[split.level + 1]
        above.slot[0] = top[0]
        above.slot[1] = split
        above.count = 2
        above.total = top[0].total + split.total
        _names(above)[0] = page_names(top[0])
        its = page_names(split)
        _more(_names(above), &its)
        top[0] = above
    return 0


# -- taking out ---------------------------------------------------------------

cdef void _cut(Page *page, int at) noexcept:
    """Takes slot `at` out of an exclusive page; what was in it is the caller's."""
    page.count -= 1
    memmove(&page.slot[at], &page.slot[at + 1], (page.count - at) * sizeof(void *))


cdef void _shrink(Page **ref) noexcept:
    """Gives back half of an exclusive leaf where a quarter of it would do."""
    cdef Page *page = ref[0]
    cdef int size = page.capacity // 2
    if page.count == 0 or page.count > size // 2:
        return
    page = <Page *>realloc(page, sizeof(Page) + (size - 1) * sizeof(void *))
    if page != NULL:
        page.capacity = <uint16_t>size
        ref[0] = page


cdef int _join(Page *page, int at) except -1:
    """Joins the pages in slots `at` and `at` + 1 of an exclusive page."""
    cdef Page *right = <Page *>page.slot[at + 1]
    cdef Page *left
    cdef int i
    _exclusive(<Page **>&page.slot[at])
    left = <Page *>page.slot[at]
    left = _room(<Page **>&page.slot[at], left.count + right.count)
    for i in range(right.count):
        left.slot[left.count] = right.slot[i]
        left.count += 1
        if right.refs > 1:
            _slot_ref(right, i)
    left.total += right.total
    if left.level:
        _more(_names(left), _names(right))
    right.refs -= 1
    if right.refs == 0:
        _free(right)
    _cut(page, at + 1)
    return 0


cdef int _thin_out(Page *page, int at) except -1:
    """Joins a sparse page with a neighbour, if both together are no full page."""
    if at + 1 < page.count and (<Page *>page.slot[at]).count \
            + (<Page *>page.slot[at + 1]).count <= JOINED:
        return _join(page, at)
    if at and (<Page *>page.slot[at]).count + (<Page *>page.slot[at - 1]).count <= JOINED:
        return _join(page, at - 1)
    return 0


cdef Node *_remove(Page **ref, const char *name, size_t n, const Names *its) except NULL:
    global _left_sparse
    cdef Page *page = _exclusive(ref)
    cdef Page *child
    cdef Node *node
    cdef bint exact
    cdef int at = page_slot(page, name, n, &exact)
    if page.level == 0:
        node = <Node *>page.slot[at]
        _cut(page, at)
        page.total -= 1
        _shrink(ref)
        return node
    # What can fail comes first.
    node = _remove(<Page **>&page.slot[at], name, n, its)
    page.total -= 1
    _less(_names(page), its)
    child = <Page *>page.slot[at]
    if child.count == 0:
        _free(child)
        _cut(page, at)
    elif child.count < SPARSE:
        try:
            _thin_out(page, at)
        except MemoryError:
            # It stays as it is, which is as good for everything but speed.  But where the same is
            # done once more, with memory, the pages are others: see remove_child().
            _left_sparse += 1
    return node


cdef Node *page_remove(Page **top, const char *name, size_t n) except NULL:
    cdef Names its
    cdef Node *node
    cdef Page *page
    its.digest = its.bytes = 0
    if top[0].level:
        its = _of_name(name, n)
    node = _remove(top, name, n, &its)
    page = top[0]
    while page.level and page.count == 1:
        top[0] = <Page *>page.slot[0]
        _free(page)
        page = top[0]
    if page.count == 0:
        _free(page)
        top[0] = NULL
    return node


# -- making a page from its slots ---------------------------------------------

cdef Node *_last(void *slot, int level) noexcept nogil:
    """The node with the greatest name in a slot of a page of that level."""
    cdef Page *page
    while level:
        page = <Page *>slot
        slot = page.slot[page.count - 1]
        level -= 1
    return <Node *>slot


cdef Page *page_make(int level, int count, void **slots) except NULL:
    cdef Page *page
    cdef Node *before
    cdef Names its
    cdef int i
    if not 0 < count <= FANOUT or not 0 <= level < LEVELS_MAX:
        raise ValueError(f"a page of level {level} with {count} slots")
    for i in range(count):
        if level and (<Page *>slots[i]).level != level - 1:
            raise ValueError(f"a page of level {(<Page *>slots[i]).level} in one of level {level}")
        if i:
            before = _last(slots[i - 1], level)
            if page_compare(before.name, before.name_len, page_first(slots[i], level)) >= 0:
                raise ValueError("names that are not in ascending order")
    page = _new(level, count)
    for i in range(count):
        page.slot[i] = slots[i]
        _slot_ref(page, i)
        page.total += _slot_total(page, i)
        page.count += 1
        if level:
            its = page_names(<Page *>slots[i])
            _more(_names(page), &its)
    return page
