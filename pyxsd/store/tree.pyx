# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of nodes (floor 0); its table of contents is _store.pxd."""

cimport cython
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove
from pyxsd.store.counts cimport (
    CountSlot, counts_add, counts_get, counts_live, counts_longest_search, counts_new,
    counts_unref,
)
from pyxsd.store.path cimport PATH_PARTS_MAX, PATH_TEXT_MAX, Path
from pyxsd.store.perms cimport (
    DOMID_ANY, Perms, mentions_new, mentions_of, mentions_ref, mentions_unref, perms_live, perms_mention,
    perms_owner, perms_parse, perms_ref, perms_simple, perms_unref, perms_without,
)

cdef enum:
    FANOUT = 32              # slots of a full page
    SPARSE = 8               # a page of fewer slots looks for a neighbour to join
    JOINED = 24              # and may hold so many afterwards

cdef int64_t _live_nodes = 0
cdef int64_t _live_pages = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"nodes": _live_nodes, "pages": _live_pages, "counts": counts_live(),
            "perms": perms_live()}


cdef extern from "malloc.h":
    int malloc_trim(size_t pad) nogil


def trim_memory():
    """Gives free memory back to the system."""
    malloc_trim(0)


# -- nodes --------------------------------------------------------------------

cdef Node *node_new(const char *name, size_t n, Perms *perms) except NULL:
    """A node without value and children, holding a new reference to perms."""
    global _live_nodes
    cdef Node *node = <Node *>malloc(sizeof(Node) + n)
    if node == NULL:
        raise MemoryError()
    node.refs = 1
    node.value_len = 0
    node.perms = perms_ref(perms)
    node.kids = NULL
    node.value = NULL
    node.name_len = <uint16_t>n
    memcpy(node.name, name, n)
    _live_nodes += 1
    return node


cdef int node_set_value(Node *node, const char *p, size_t n) except -1:
    cdef char *value
    if n == 0:
        free(node.value)
        node.value = NULL
    else:
        if node.value_len != n:
            value = <char *>realloc(node.value, n)
            if value == NULL:
                raise MemoryError()
            node.value = value
        memcpy(node.value, p, n)
    node.value_len = <uint32_t>n
    return 0


cdef Node *_page_release(Page *page, Node *dying) noexcept nogil:
    """Drops a reference to a page; nodes that die of it go onto the list."""
    global _live_pages
    cdef int i
    cdef Node *node
    page.refs -= 1
    if page.refs:
        return dying
    for i in range(page.count):
        if page.level:
            dying = _page_release(<Page *>page.slot[i], dying)
        else:
            node = <Node *>page.slot[i]
            node.refs -= 1
            if node.refs == 0:
                free(node.value)
                node.value = <char *>dying
                dying = node
    _live_pages -= 1
    free(page)
    return dying


cdef void node_unref(Node *node) noexcept nogil:
    """Drops a reference; frees the subtree without recursing into it."""
    global _live_nodes
    cdef Node *dying
    node.refs -= 1
    if node.refs:
        return
    free(node.value)
    node.value = NULL
    dying = node
    while dying != NULL:
        node = dying
        dying = <Node *>node.value
        if node.kids != NULL:
            dying = _page_release(node.kids, dying)
        perms_unref(node.perms)
        free(node)
        _live_nodes -= 1


cdef int _node_own(Node **ref) except -1:
    """Makes *ref a node that only this reference holds."""
    cdef Node *node = ref[0]
    cdef Node *copy
    if node.refs == 1:
        return 0
    copy = node_new(node.name, node.name_len, node.perms)
    node_set_value(copy, node.value, node.value_len)
    copy.kids = node.kids
    if copy.kids != NULL:
        copy.kids.refs += 1
    node.refs -= 1
    ref[0] = copy
    return 0


# -- pages --------------------------------------------------------------------

cdef inline int _compare(const char *name, size_t n, const Node *node) noexcept nogil:
    cdef size_t m = node.name_len
    cdef int c = memcmp(name, node.name, n if n < m else m)
    if c:
        return c
    return -1 if n < m else (1 if n > m else 0)


cdef inline Node *_first(void *slot, int level) noexcept nogil:
    """The first node below a slot of a page of that level."""
    while level:
        slot = (<Page *>slot).slot[0]
        level -= 1
    return <Node *>slot


cdef inline int _find(const Page *page, const char *name, size_t n, bint *exact) noexcept nogil:
    """In a leaf the slot where name is or belongs; else the slot to go down."""
    cdef int lo = 0, hi = page.count, mid, c
    exact[0] = False
    while lo < hi:
        mid = (lo + hi) >> 1
        c = _compare(name, n, _first(page.slot[mid], page.level))
        if c == 0:
            exact[0] = True
            return mid
        if c < 0:
            hi = mid
        else:
            lo = mid + 1
    if page.level and lo:
        return lo - 1
    return lo


cdef Page *_page_new(int level, int cap) except NULL:
    global _live_pages
    cdef Page *page = <Page *>malloc(sizeof(Page) + (cap - 1) * sizeof(void *))
    if page == NULL:
        raise MemoryError()
    page.refs = 1
    page.total = 0
    page.count = 0
    page.cap = <uint16_t>cap
    page.level = <uint8_t>level
    _live_pages += 1
    return page


cdef inline void _slot_ref(const Page *page, int i) noexcept nogil:
    if page.level:
        (<Page *>page.slot[i]).refs += 1
    else:
        (<Node *>page.slot[i]).refs += 1


cdef inline uint32_t _slot_total(const Page *page, int i) noexcept nogil:
    return (<Page *>page.slot[i]).total if page.level else 1


cdef Page *_page_own(Page **ref) except NULL:
    """Makes *ref a page that only this reference holds."""
    cdef Page *page = ref[0]
    cdef Page *copy
    cdef int i
    if page.refs == 1:
        return page
    copy = _page_new(page.level, page.cap)
    copy.total = page.total
    copy.count = page.count
    for i in range(page.count):
        copy.slot[i] = page.slot[i]
        _slot_ref(page, i)
    page.refs -= 1
    ref[0] = copy
    return copy


cdef Page *_page_room(Page **ref, int cap) except NULL:
    """Grows an owned page to at least cap slots."""
    cdef Page *page = ref[0]
    cdef int size = page.cap
    if size >= cap:
        return page
    while size < cap:
        size *= 2
    page = <Page *>realloc(page, sizeof(Page) + (size - 1) * sizeof(void *))
    if page == NULL:
        raise MemoryError()
    page.cap = <uint16_t>size
    ref[0] = page
    return page


cdef Page *_page_put(Page **ref, int at, void *item) except? NULL:
    """Puts an item into slot `at` of an owned page.

    A full page is split and its right part returned, else NULL.
    """
    cdef Page *page = ref[0]
    cdef Page *right = NULL
    cdef int keep, i
    if page.count == FANOUT:
        # Ascending insertion, which is how names mostly come, leaves full pages.
        keep = FANOUT if at == FANOUT else FANOUT // 2
        right = _page_new(page.level, FANOUT)
        for i in range(keep, FANOUT):
            right.slot[right.count] = page.slot[i]
            right.count += 1
            right.total += _slot_total(page, i)
        page.count = <uint16_t>keep
        page.total -= right.total
        if at >= keep:
            at -= keep
            page = right
    else:
        page = _page_room(ref, page.count + 1)
    memmove(&page.slot[at + 1], &page.slot[at], (page.count - at) * sizeof(void *))
    page.slot[at] = item
    page.count += 1
    page.total += _slot_total(page, at)
    return right


cdef Page *_page_insert(Page **ref, Node *node) except? NULL:
    """Inserts a node whose name is not there; returns what _page_put does."""
    cdef Page *page = _page_own(ref)
    cdef Page *split
    cdef bint exact
    cdef int at = _find(page, node.name, node.name_len, &exact)
    cdef uint32_t before
    if page.level == 0:
        return _page_put(ref, at, node)
    before = (<Page *>page.slot[at]).total
    split = _page_insert(<Page **>&page.slot[at], node)
    # What was split off is counted when it is put into its own slot.
    page.total += (<Page *>page.slot[at]).total - before
    if split == NULL:
        return NULL
    return _page_put(ref, at + 1, split)


cdef void _page_cut(Page *page, int at) noexcept:
    """Takes slot `at` out of an owned page; its content is the caller's."""
    page.count -= 1
    memmove(&page.slot[at], &page.slot[at + 1], (page.count - at) * sizeof(void *))


cdef int _page_join(Page *page, int at) except -1:
    """Joins slots at and at + 1 of an owned page of pages."""
    global _live_pages
    cdef Page *right = <Page *>page.slot[at + 1]
    cdef Page *left
    cdef int i
    _page_own(<Page **>&page.slot[at])
    left = <Page *>page.slot[at]
    left = _page_room(<Page **>&page.slot[at], left.count + right.count)
    for i in range(right.count):
        left.slot[left.count] = right.slot[i]
        left.count += 1
        if right.refs > 1:
            _slot_ref(right, i)
    left.total += right.total
    right.refs -= 1
    if right.refs == 0:
        _live_pages -= 1
        free(right)
    _page_cut(page, at + 1)
    return 0


cdef Node *_page_remove(Page **ref, const char *name, size_t n) except NULL:
    """Removes the node of that name, which must be there; its reference is returned."""
    global _live_pages
    cdef Page *page = _page_own(ref)
    cdef Page *kid
    cdef Node *node
    cdef bint exact
    cdef int at = _find(page, name, n, &exact)
    page.total -= 1
    if page.level == 0:
        node = <Node *>page.slot[at]
        _page_cut(page, at)
        return node
    node = _page_remove(<Page **>&page.slot[at], name, n)
    kid = <Page *>page.slot[at]
    if kid.count == 0:
        _live_pages -= 1
        free(kid)
        _page_cut(page, at)
    elif kid.count < SPARSE:
        if at + 1 < page.count and kid.count + (<Page *>page.slot[at + 1]).count <= JOINED:
            _page_join(page, at)
        elif at and kid.count + (<Page *>page.slot[at - 1]).count <= JOINED:
            _page_join(page, at - 1)
    return node


# -- children of a node -------------------------------------------------------

cdef Node *node_child(const Node *node, const char *name, size_t n) noexcept nogil:
    cdef const Page *page = node.kids
    cdef bint exact
    cdef int at
    if page == NULL:
        return NULL
    while page.level:
        page = <const Page *>page.slot[_find(page, name, n, &exact)]
    at = _find(page, name, n, &exact)
    return <Node *>page.slot[at] if exact else NULL


cdef Node **_own_child(Node *parent, const char *name, size_t n) except NULL:
    """The slot of a child that must be there, made the parent's alone."""
    cdef Page **ref = &parent.kids
    cdef Page *page
    cdef Node **slot
    cdef bint exact
    cdef int at
    while True:
        page = _page_own(ref)
        at = _find(page, name, n, &exact)
        if page.level == 0:
            slot = <Node **>&page.slot[at]
            _node_own(slot)
            return slot
        ref = <Page **>&page.slot[at]


cdef int _insert_child(Node *parent, Node *node) except -1:
    """Gives an owned parent one more child and the reference to it."""
    cdef Page *split
    cdef Page *top
    if parent.kids == NULL:
        parent.kids = _page_new(0, 2)
    split = _page_insert(&parent.kids, node)
    if split != NULL:
        top = _page_new(split.level + 1, 4)
        top.slot[0] = parent.kids
        top.slot[1] = split
        top.count = 2
        top.total = parent.kids.total + split.total
        parent.kids = top
    return 0


cdef Node *_remove_child(Node *parent, const char *name, size_t n) except NULL:
    global _live_pages
    cdef Node *node = _page_remove(&parent.kids, name, n)
    cdef Page *page = parent.kids
    while page.level and page.count == 1:
        parent.kids = <Page *>page.slot[0]
        _live_pages -= 1
        free(page)
        page = parent.kids
    if page.count == 0:
        _live_pages -= 1
        free(page)
        parent.kids = NULL
    return node


cdef Node *node_at(Node *root, const Path *path, size_t parts) noexcept nogil:
    cdef size_t i
    cdef Node *node = root
    for i in range(parts):
        node = node_child(node, path.text + path.start[i], path.size[i])
        if node == NULL:
            return NULL
    return node


# -- walking ------------------------------------------------------------------

cdef int _walk_push(Walker *w, Page *page, uint32_t depth) except -1:
    cdef Frame *frame
    if w.used == w.cap:
        frame = <Frame *>realloc(w.frame, (w.cap * 2 + 16) * sizeof(Frame))
        if frame == NULL:
            raise MemoryError()
        w.frame = frame
        w.cap = w.cap * 2 + 16
    w.frame[w.used].page = page
    w.frame[w.used].index = page.count - 1 if w.descending else 0
    w.frame[w.used].depth = depth
    w.used += 1
    return 0


cdef int walk_begin(Walker *w, Node *start, bint descending) except -1:
    w.frame = NULL
    w.used = w.cap = 0
    w.depth = 0
    w.start = start
    w.descending = descending
    return 0


cdef Node *walk_next(Walker *w) except? NULL:
    """The next node, or NULL at the end.  The tree must not change meanwhile."""
    cdef Frame *frame
    cdef Node *node
    cdef int at
    if w.start != NULL:
        node = w.start
        w.start = NULL
        w.depth = 0
        if node.kids != NULL:
            _walk_push(w, node.kids, 1)
        return node
    while w.used:
        frame = &w.frame[w.used - 1]
        at = frame.index
        if at < 0 or at >= frame.page.count:
            w.used -= 1
            continue
        frame.index += -1 if w.descending else 1
        if frame.page.level:
            _walk_push(w, <Page *>frame.page.slot[at], frame.depth)
            continue
        node = <Node *>frame.page.slot[at]
        w.depth = frame.depth
        if node.kids != NULL:
            _walk_push(w, node.kids, frame.depth + 1)
        return node
    return NULL


cdef inline void _walk_skip(Walker *w, Node *node) noexcept:
    """Leaves out what is below the node just returned."""
    if node.kids != NULL:
        w.used -= 1


cdef void walk_end(Walker *w) noexcept:
    free(w.frame)
    w.frame = NULL


# -- the tree -----------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Tree:
    """A tree of nodes with its entry counts; see snapshot()."""

    def __cinit__(self, bint empty=False):
        cdef Perms *perms
        if empty:
            return
        self.mentions = mentions_new()
        perms = perms_simple(0, 0, self.mentions)
        self.root = node_new(b"", 0, perms)
        perms_unref(perms)
        self.counts = counts_new()

    def __dealloc__(self):
        if self.root != NULL:
            node_unref(self.root)
        if self.counts != NULL:
            counts_unref(self.counts)
        if self.mentions != NULL:
            mentions_unref(self.mentions)

    cdef Tree snapshot(self):
        """The same tree, apart from now on.  Costs the same on any tree."""
        cdef Tree copy = Tree.__new__(Tree, True)
        copy.root = node_ref(self.root)
        copy.counts = self.counts
        copy.counts.refs += 1
        copy.mentions = mentions_ref(self.mentions)
        copy.nodes = self.nodes
        return copy

    cdef Node *find(self, const Path *path) noexcept nogil:
        return node_at(self.root, path, path.parts)

    cdef void look(self, const Path *path, Place *at) noexcept nogil:
        cdef Node *node = self.root
        cdef const Page *page
        cdef size_t i
        cdef bint own = node.refs == 1, exact
        cdef int slot
        at.node = node
        at.above = NULL
        at.parts = 0
        at.own = own
        for i in range(path.parts):
            page = node.kids
            if page == NULL:
                return
            while page.level:
                own = own and page.refs == 1
                page = <const Page *>page.slot[
                    _find(page, path.text + path.start[i], path.size[i], &exact)]
            slot = _find(page, path.text + path.start[i], path.size[i], &exact)
            if not exact:
                return
            at.above = node
            node = <Node *>page.slot[slot]
            own = own and page.refs == 1 and node.refs == 1
            at.node = node
            at.parts = i + 1
            at.own = own

    cdef Node *_edit_at(self, const Path *path, const Place *at) except NULL:
        """The node at a place, safe to change in place."""
        return at.node if at.own else self._edit(path, at.parts)

    cdef Node *_edit(self, const Path *path, size_t parts) except NULL:
        """The node at the first parts components, safe to change in place."""
        cdef size_t i
        cdef Node *node
        _node_own(&self.root)
        node = self.root
        for i in range(parts):
            node = _own_child(node, path.text + path.start[i], path.size[i])[0]
        return node

    cdef int set_value(self, const Path *path, const Place *at, const char *p, size_t n) except -1:
        cdef const Node *node = at.node
        # An equal value touches the way to the node, not the node itself:
        # transactions that looked at it can still be merged.
        if node.value_len == n and (n == 0 or memcmp(node.value, p, n) == 0):
            if path.parts and not at.own:
                self._edit(path, path.parts - 1)
            return 0
        return node_set_value(self._edit_at(path, at), p, n)

    cdef int set_perms(self, const Path *path, const Place *at, Perms *perms) except -1:
        cdef Node *node = self._edit_at(path, at)
        cdef int64_t old = perms_owner(node.perms), new = perms_owner(perms)
        perms_ref(perms)
        perms_unref(node.perms)
        node.perms = perms
        if old != new and path.parts:
            self.count_add(old, -1)
            self.count_add(new, 1)
        return 0

    cdef int add(self, const Path *path, const Place *at, const char *p, size_t n) except -1:
        cdef Node *parent = self._edit_at(path, at)
        cdef Node *node = node_new(path.text + path.start[at.parts], path.size[at.parts],
                                   parent.perms)
        node_set_value(node, p, n)
        _insert_child(parent, node)
        self.count_add(perms_owner(node.perms), 1)
        self.nodes += 1
        return 0

    cdef int _uncount(self, Node *top, bint with_top) except -1:
        """Takes a subtree out of the counts."""
        cdef Walker w
        cdef Node *node
        walk_begin(&w, top, False)
        try:
            node = walk_next(&w)
            if not with_top:
                node = walk_next(&w)
            while node != NULL:
                self.count_add(perms_owner(node.perms), -1)
                self.nodes -= 1
                node = walk_next(&w)
        finally:
            walk_end(&w)
        return 0

    cdef int remove(self, const Path *path, const Place *at) except -1:
        cdef Node *parent
        cdef Node *node
        cdef Page *kids
        if path.parts == 0:
            self._uncount(self.root, False)
            node = self._edit(path, 0)
            kids = node.kids
            node.kids = NULL
            if kids != NULL:
                # A node to hang the children on, so that one way frees them all.
                node = node_new(b"", 0, self.root.perms)
                node.kids = kids
                node_unref(node)
            return 0
        parent = at.above if at.own else self._edit(path, path.parts - 1)
        node = _remove_child(parent, path.text + path.start[path.parts - 1],
                             path.size[path.parts - 1])
        self._uncount(node, True)
        node_unref(node)
        return 0

    cdef int graft(self, const Path *path, Node *node) except -1:
        cdef Node *parent
        cdef Node **slot
        cdef size_t last
        if node == NULL:
            return 0
        if path.parts == 0:
            node_ref(node)
            node_unref(self.root)
            self.root = node
            return 0
        last = path.parts - 1
        parent = self._edit(path, last)
        if node_child(parent, path.text + path.start[last], path.size[last]) == NULL:
            return _insert_child(parent, node_ref(node))
        slot = _own_child(parent, path.text + path.start[last], path.size[last])
        node_ref(node)
        node_unref(slot[0])
        slot[0] = node
        return 0

    cdef int64_t count_of(self, int64_t owner) noexcept nogil:
        return counts_get(self.counts, owner)

    cdef int count_add(self, int64_t owner, int64_t n) except -1:
        return counts_add(&self.counts, owner, n)

    cdef int adopt(self, Tree other) except -1:
        """Becomes what the other tree is."""
        node_ref(other.root)
        node_unref(self.root)
        self.root = other.root
        other.counts.refs += 1
        counts_unref(self.counts)
        self.counts = other.counts
        mentions_ref(other.mentions)
        mentions_unref(self.mentions)
        self.mentions = other.mentions
        self.nodes = other.nodes
        return 0

    cdef int count_difference(self, Tree base, Tree now) except -1:
        cdef uint32_t i
        cdef CountSlot *slot
        self.nodes += now.nodes - base.nodes
        if base.counts == now.counts:
            return 0
        for i in range(now.counts.size):
            slot = &now.counts.slot[i]
            if slot.count:
                self.count_add(slot.owner, slot.count - base.count_of(slot.owner))
        for i in range(base.counts.size):
            slot = &base.counts.slot[i]
            if slot.count and now.count_of(slot.owner) == 0:
                self.count_add(slot.owner, -slot.count)
        return 0

    cdef bint forget(self, int64_t domid) except -1:
        cdef Walker w
        cdef Node *node
        cdef Node *above[PATH_PARTS_MAX + 1]     # the nodes on the way down
        cdef Perms *perms
        cdef Path *path
        cdef Place at
        cdef uint32_t i
        cdef list names, owned = [], mentioned = []
        if domid == DOMID_ANY or mentions_of(self.mentions, domid) == 0:
            return False
        walk_begin(&w, self.root, False)
        try:
            while True:
                node = walk_next(&w)
                if node == NULL:
                    break
                above[w.depth] = node
                if not perms_mention(node.perms, domid):
                    continue
                names = [above[i].name[:above[i].name_len] for i in range(1, w.depth + 1)]
                if w.depth and perms_owner(node.perms) == domid:
                    owned.append(names)
                    _walk_skip(&w, node)
                else:
                    mentioned.append(names)
        finally:
            walk_end(&w)
        path = <Path *>malloc(sizeof(Path))
        if path == NULL:
            raise MemoryError()
        try:
            for names in owned:
                _path_of(path, names)
                self.look(path, &at)
                self.remove(path, &at)
            for names in mentioned:
                _path_of(path, names)
                self.look(path, &at)
                perms = perms_without(at.node.perms, domid)
                self.set_perms(path, &at, perms)
                perms_unref(perms)
        finally:
            free(path)
        return bool(owned or mentioned)

    # -- the Python face: dumps, tests ----------------------------------------

    @property
    def size(self):
        """Nodes below the root."""
        return self.nodes

    def entries(self, int64_t owner):
        """The entry count of a domid."""
        return self.count_of(owner)

    def mentions_of(self, int64_t domid):
        """In how many entries of permission lists a domid stands; lists that only
        snapshots still have count, one that many nodes share counts once."""
        return mentions_of(self.mentions, domid)

    def count_table(self):
        """(slots, slots in use, most slots that a search looks at) of the table of
        entry counts, for tests."""
        return self.counts.size, self.counts.used, counts_longest_search(self.counts)

    def all_entries(self):
        """{domid: entry count} of all owners."""
        cdef uint32_t i
        return {self.counts.slot[i].owner: self.counts.slot[i].count
                for i in range(self.counts.size) if self.counts.slot[i].count}

    def walk(self, bint descending=False):
        """Yields (components, permissions, value) of every node, parents first.

        permissions is [(domid, access)], access being 1 read | 2 write.  The
        generator holds a snapshot: the tree may change meanwhile.
        """
        cdef Tree held = self.snapshot()
        return _Walk(held, descending)

    def load(self, list names, bytes perms not None, bytes value not None):
        """Puts a node back: components, permissions as joined text, value.

        The parent must be there.  For the readers of state files.  ValueError
        where the permissions are malformed or the parent is missing.
        """
        cdef Path *path = <Path *>malloc(sizeof(Path))
        cdef Perms *parsed = NULL
        cdef Place at
        try:
            parsed = perms_parse(perms, len(perms), self.mentions)
            if parsed == NULL:
                raise ValueError("malformed permissions")
            _path_of(path, names)
            self.look(path, &at)
            if at.parts + 1 < path.parts:
                raise ValueError("the parent is missing")
            if at.parts == path.parts:
                self.set_value(path, &at, value, len(value))
            else:
                self.add(path, &at, value, len(value))
            self.look(path, &at)
            self.set_perms(path, &at, parsed)
        finally:
            if parsed != NULL:
                perms_unref(parsed)
            free(path)


cdef int _path_of(Path *path, list names) except -1:
    """Builds a path of components as they are."""
    cdef bytes name
    path.len = 1
    path.text[0] = c"/"
    path.parts = 0
    path.special = False
    path.relative = False
    for name in names:
        if path.parts:
            path.text[path.len] = c"/"
            path.len += 1
        if path.len + len(name) >= PATH_TEXT_MAX or path.parts >= PATH_PARTS_MAX:
            raise ValueError("path too long")
        memcpy(path.text + path.len, <const char *>name, len(name))
        path.start[path.parts] = <uint16_t>path.len
        path.size[path.parts] = <uint16_t>len(name)
        path.parts += 1
        path.len += len(name)
    return 0


@cython.final
cdef class _Walk:
    """The iterator behind Tree.walk."""

    cdef Tree held
    cdef Walker w
    cdef list names

    def __cinit__(self, Tree held, bint descending):
        self.held = held
        self.names = []
        walk_begin(&self.w, held.root, descending)

    def __dealloc__(self):
        walk_end(&self.w)

    def __iter__(self):
        return self

    def __next__(self):
        cdef uint32_t i
        cdef Node *node = walk_next(&self.w)
        if node == NULL:
            raise StopIteration
        del self.names[self.w.depth:]
        self.names.append(node.name[:node.name_len])
        perms = [(node.perms.entry[i].domid, node.perms.entry[i].access)
                 for i in range(node.perms.count)]
        value = node.value[:node.value_len] if node.value != NULL else b""
        return tuple(self.names[1:]), perms, value
