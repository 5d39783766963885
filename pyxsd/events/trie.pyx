# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches by path.

The watched paths are in a radix tree (radix.pyx), where the watches of one path are a
list, the newest first.  A change of /a/b concerns the watches on "/", /a and /a/b: they
are found by following the path.  The removal of /a also concerns the watches on paths
below /a, each of which is told of its own path: they are found by walking through the
subtree there, which comes in the order in which the events must leave.

Following a path takes at most one step for each of its components, and fewer where the
watched paths have several names in a row; walking takes at most two steps for each
watched path.  Neither depends on how many components the watched paths have.

Whether a watcher may see the removal of its own path depends on the node that was there
and on its parent.  A search looks these up while it walks: the node of a path is
looked for below that of the path above it, so what many paths have in common is followed
once, and never further than nodes exist.

A change can concern very many watches.  So a search can be parked and gone on with later,
while watches come and go.  It keeps the watch that it has come to: where that is removed
meanwhile it stays in the list of its path, without an owner, until the searches that are
parked there have left it.  So a parked search takes the same memory however many watches
it has still to find, and keeps one removed watch at most.

A watch is found by its owner, path and token in a hash table; owners also have a list of
their own.
"""

cimport cython
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset
from pyxsd._siphash cimport hash_key, sip_word_bytes
from pyxsd.events.radix cimport (
    radix_begin, radix_drop, radix_end, radix_find, radix_live, radix_make, radix_next, radix_step,
)
from pyxsd.events.table cimport (
    table_begin, table_end, table_fit, table_put, table_settle, table_slot, table_take,
)
from pyxsd.store.path cimport PATH_PARTS_MAX, PATH_TEXT_MAX, path_parse, path_split
from pyxsd.store.subtree cimport node_at, node_child

cdef long long _live_watches = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"watches": _live_watches, "trie nodes": radix_live()}


cdef inline uint64_t _hash(const void *owner, const RadixNode *node, const char *token,
                           size_t n) noexcept nogil:
    return sip_word_bytes(&hash_key, <uintptr_t>owner ^ (<uint64_t><uintptr_t>node << 16),
                          token, n)


cdef inline bint _is_of(const Watch *watch, const void *owner, const char *token,
                        size_t n) noexcept nogil:
    return watch.owner == owner and watch.token_len == n \
        and memcmp(watch.text + watch.path_len + 1, token, n) == 0


@cython.final
@cython.no_gc
cdef class WatchTrie:
    """All watches of a server."""

    def __cinit__(self):
        radix_begin(&self.paths)
        table_begin(&self.table)

    def __dealloc__(self):
        # The owners take their watches away; what is left goes without them.
        global _live_watches
        cdef uint32_t i
        cdef Link *link
        cdef Link *next
        table_settle(&self.table)
        if self.table.slot != NULL:
            for i in range(self.table.slots):
                link = self.table.slot[i]
                while link != NULL:
                    next = link.next
                    free(<Watch *>link)
                    _live_watches -= 1
                    link = next
        table_end(&self.table)
        radix_end(&self.paths)

    # -- watches come and go --------------------------------------------------

    cdef Watch *_lookup(self, const void *owner, const RadixNode *node,
                        const char *token, size_t n, uint64_t h) noexcept nogil:
        cdef Link *link = table_slot(&self.table, h)[0]
        cdef Watch *watch
        while link != NULL:
            watch = <Watch *>link
            if link.hash == h and watch.node == node and _is_of(watch, owner, token, n):
                return watch
            link = link.next
        return NULL

    cdef Watch *find(self, const void *owner, const Path *path,
                     const char *token, size_t n) noexcept:
        cdef RadixNode *node = radix_find(&self.paths, path)
        cdef Watch *watch
        if node == NULL or node.content == NULL:
            return NULL
        watch = <Watch *>node.content
        if watch.next == NULL:
            # Most paths have one watch: no hash is needed for it.
            return watch if _is_of(watch, owner, token, n) else NULL
        return self._lookup(owner, node, token, n, _hash(owner, node, token, n))

    cdef Watch *add(self, void *owner, Watch **list, const Path *path,
                    const char *given, size_t given_len,
                    const char *token, size_t token_len,
                    uint32_t depth, size_t base_len) except? NULL:
        global _live_watches
        cdef RadixNode *node
        cdef Watch *watch
        cdef uint64_t h
        if not table_fit(&self.table, self.count + 1):
            raise MemoryError()
        node = radix_make(&self.paths, path)
        h = _hash(owner, node, token, token_len)
        # One whose path is new cannot be there.
        if node.content != NULL and self._lookup(owner, node, token, token_len, h) != NULL:
            return NULL
        # Not calloc(), which takes nothing from the thread's cache of what was freed.
        watch = <Watch *>malloc(sizeof(Watch) + given_len + token_len + 2)
        if watch == NULL:
            if node.content == NULL:
                radix_drop(&self.paths, node)
            raise MemoryError()
        memset(watch, 0, sizeof(Watch))
        self.serial += 1
        watch.owner = owner
        watch.node = node
        watch.serial = self.serial
        watch.depth = depth
        watch.strip = <uint16_t>base_len if path.relative else 0
        watch.path_len = <uint16_t>given_len
        watch.token_len = <uint16_t>token_len
        watch.special = path.special
        memcpy(watch.text, given, given_len)
        watch.text[given_len] = 0
        memcpy(watch.text + given_len + 1, token, token_len)
        watch.text[given_len + 1 + token_len] = 0
        watch.next = <Watch *>node.content
        if watch.next != NULL:
            watch.next.prev = watch
        node.content = watch
        watch.owner_next = list[0]
        if watch.owner_next != NULL:
            watch.owner_next.owner_prev = watch
        list[0] = watch
        watch.link.hash = h
        table_put(&self.table, &watch.link)
        self.count += 1
        _live_watches += 1
        return watch

    cdef void remove(self, Watch **list, Watch *watch) noexcept:
        table_take(&self.table, &watch.link)
        if watch.owner_prev != NULL:
            watch.owner_prev.owner_next = watch.owner_next
        elif list != NULL:
            list[0] = watch.owner_next
        if watch.owner_next != NULL:
            watch.owner_next.owner_prev = watch.owner_prev
        watch.owner = NULL
        self.count -= 1
        if watch.held == 0:
            self._unlink(watch)
        table_fit(&self.table, self.count)

    cdef void _unlink(self, Watch *watch) noexcept:
        """Takes a removed watch out of the list of its path, and frees it."""
        global _live_watches
        cdef RadixNode *node = watch.node
        if watch.prev != NULL:
            watch.prev.next = watch.next
        else:
            node.content = watch.next
        if watch.next != NULL:
            watch.next.prev = watch.prev
        free(watch)
        _live_watches -= 1
        if node.content == NULL:
            radix_drop(&self.paths, node)

    cdef void _let_go(self, Watch *watch) noexcept:
        watch.held -= 1
        if watch.held == 0 and watch.owner == NULL:
            self._unlink(watch)

    # -- searching ------------------------------------------------------------

    cdef bint touched(self, const Path *path) noexcept:
        cdef RadixNode *node = self.paths.root
        cdef size_t parts = 0
        cdef bint inside = False
        while node.content == NULL and parts < path.parts:
            node = radix_step(&self.paths, node, path, &parts, &inside)
            if node == NULL:
                return False
            if inside:
                return True
        return node.content != NULL or node.first != NULL

    cdef void search(self, Search *search, const Path *path, bint below) noexcept:
        search.newest = self.serial
        search.node = self.paths.root
        search.next = <Watch *>self.paths.root.content
        search.parts = 0
        search.below = below
        search.special = search.own = search.parked = search.done = False
        self.steps += 1

    cdef int search_special(self, Search *search, const char *name, size_t n) except -1:
        cdef Path path
        search.newest = self.serial
        search.special = True
        search.below = search.own = search.parked = search.done = False
        search.next = NULL
        if path_parse(&path, name, n, NULL, 0, -1):
            search.node = radix_find(&self.paths, &path)
            if search.node != NULL:
                search.next = <Watch *>search.node.content
        return 0

    cdef Watch *search_next(self, Search *search, const Path *path, Node *root,
                            int64_t *steps) noexcept:
        cdef Watch *watch
        while steps[0] > 0 and not search.done:
            steps[0] -= 1
            watch = search.next
            if watch == NULL:
                self._next_node(search, path, root)
                continue
            search.next = watch.next
            if watch.owner != NULL and watch.serial <= search.newest \
                    and (search.own or search.special
                         or path.parts - search.parts <= watch.depth):
                return watch
        return NULL

    cdef void _next_node(self, Search *search, const Path *path, Node *root) noexcept:
        """Goes on to the next path that is watched, or to one on the way there."""
        cdef RadixNode *node = search.node
        cdef size_t skip = search.parts
        cdef bint inside = False
        if search.own:
            node = radix_next(search.top, node)
        elif search.special:
            node = NULL
        elif search.parts == path.parts:
            if search.below:
                self._go_below(search, path, root, node, 0)
                return
            node = NULL
        else:
            node = radix_step(&self.paths, node, path, &search.parts, &inside)
            if inside:
                if search.below:
                    self._go_below(search, path, root, node,
                                   path.len - path.start[skip] + 1)
                    return
                node = NULL
        if node == NULL:
            search.done = True
            return
        self.steps += 1
        search.node = node
        search.next = <Watch *>node.content
        if search.own:
            search.parent = _descend(<Node *>node.parent.scratch, node, 0)
            search.found = <Node *>node.scratch

    cdef void _go_below(self, Search *search, const Path *path, Node *root, RadixNode *top,
                        size_t skip) noexcept:
        """Comes to the paths below the changed one.  top: the node of that path; or, where
        it ends within the label of a node, that one, `skip` being the bytes of the label that
        the path has, with the "/" behind them."""
        search.own = True
        search.top = search.node = top
        search.next = NULL
        search.parent = NULL
        top.scratch = node_at(root, path, path.parts)
        if skip:
            search.parent = _descend(<Node *>top.scratch, top, skip)
            search.next = <Watch *>top.content
        search.found = <Node *>top.scratch

    # -- searches that are parked ---------------------------------------------

    cdef void park(self, Search *search, const Path *path, Node *root) noexcept:
        while search.next == NULL and not search.done:
            self._next_node(search, path, root)
        if not search.done:
            search.next.held += 1
            search.parked = True

    cdef void resume(self, Search *search, const Path *path, Node *root) noexcept:
        cdef Watch *watch = search.next
        if not search.parked:
            return
        search.parked = False
        self._locate(search, path, root)
        if watch.owner != NULL:
            watch.held -= 1
            return
        # It was removed: go on behind it before it is freed, perhaps with its node.
        search.next = watch.next
        while search.next == NULL and not search.done:
            self._next_node(search, path, root)
        self._let_go(watch)
        if not search.done:
            self._locate(search, path, root)

    cdef void give_up(self, Search *search) noexcept:
        if search.parked:
            search.parked = False
            self._let_go(search.next)
        search.done = True

    cdef void _locate(self, Search *search, const Path *path, Node *root) noexcept:
        """Finds out anew where the next watch of a search stands; the nodes of the trie around
        it may be others than before."""
        cdef RadixNode *way[PATH_PARTS_MAX + 1]
        cdef RadixNode *node = self.paths.root
        cdef Watch *next = search.next
        cdef size_t parts = 0, skip = 0, count = 0
        cdef bint inside = False
        search.node = next.node
        if not search.own:
            return
        while parts < path.parts and not inside:
            skip = parts
            node = radix_step(&self.paths, node, path, &parts, &inside)
        self._go_below(search, path, root, node,
                       path.len - path.start[skip] + 1 if inside else 0)
        node = next.node
        while node != search.top:
            way[count] = node
            count += 1
            node = node.parent
        while count:
            count -= 1
            search.parent = _descend(<Node *>way[count].parent.scratch, way[count], 0)
        search.node = next.node
        search.next = next
        search.found = <Node *>next.node.scratch


cdef Node *_descend(Node *start, RadixNode *node, size_t skip) noexcept nogil:
    """Follows a label, but for its first `skip` bytes, down from a node of the store;
    the parent of what it leads to, and that itself in node.scratch; either may be NULL."""
    cdef const char *name = node.label + skip
    cdef const char *end = node.label + node.label_len
    cdef const char *slash
    cdef Node *parent = NULL
    cdef Node *at = start
    while at != NULL:
        parent = at
        slash = <const char *>memchr(name, c"/", end - name)
        if slash == NULL:
            at = node_child(parent, name, end - name)
            break
        at = node_child(parent, name, slash - name)
        name = slash + 1
        if at == NULL:
            parent = NULL
    node.scratch = at
    return parent


cdef bint watch_path(const Watch *watch, Path *out) noexcept:
    cdef const RadixNode *node = watch.node
    cdef size_t length = 0, end
    while node.parent != NULL:
        length += node.label_len + 1
        node = node.parent
    if length == 0:
        out.text[0] = c"/"
        return path_split(out, out.text, 1)
    if length > PATH_TEXT_MAX:
        return False
    node = watch.node
    end = length
    while node.parent != NULL:
        end -= node.label_len
        memcpy(out.text + end, node.label, node.label_len)
        end -= 1
        out.text[end] = c"/"
        node = node.parent
    return path_split(out, out.text, length)
