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
and on its parent.  match_below() looks these up while it walks: the node of a path is
looked for below that of the path above it, so what many paths have in common is followed
once, and never further than nodes exist.

A watch is found by its owner, path and token in a hash table; owners also have a list of
their own.
"""

cimport cython
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy
from pyxsd._siphash cimport hash_key, sip_word_bytes
from pyxsd.events.radix cimport (
    radix_begin, radix_drop, radix_end, radix_find, radix_live, radix_make, radix_next, radix_step,
)
from pyxsd.store.path cimport PATH_TEXT_MAX, path_parse, path_split
from pyxsd.store.subtree cimport node_at, node_child

cdef enum:
    SLOTS_MIN = 64           # of the smallest hash table

cdef long long _live_watches = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"watches": _live_watches, "trie nodes": radix_live()}


cdef inline uint64_t _hash(const void *owner, const RadixNode *node, const char *token,
                           size_t n) noexcept nogil:
    return sip_word_bytes(&hash_key, <uintptr_t>owner ^ (<uint64_t><uintptr_t>node << 16),
                          token, n)


@cython.final
@cython.no_gc
cdef class WatchTrie:
    """All watches of a server."""

    def __cinit__(self):
        radix_begin(&self.paths)
        self.table_slots = SLOTS_MIN
        self.table = <Watch **>calloc(self.table_slots, sizeof(Watch *))
        if self.table == NULL:
            raise MemoryError()

    def __dealloc__(self):
        # The owners take their watches away; what is left goes without them.
        global _live_watches
        cdef uint32_t i
        cdef Watch *watch
        if self.table != NULL:
            for i in range(self.table_slots):
                while self.table[i] != NULL:
                    watch = self.table[i]
                    self.table[i] = watch.hash_next
                    free(watch)
                    _live_watches -= 1
        free(self.table)
        radix_end(&self.paths)

    # -- watches come and go --------------------------------------------------

    cdef bint _resize(self, uint32_t slots) noexcept:
        """Gives the hash table that many slots; False where memory runs out."""
        cdef uint32_t i
        cdef Watch *watch
        cdef Watch **table = <Watch **>calloc(slots, sizeof(Watch *))
        if table == NULL:
            return False
        for i in range(self.table_slots):
            while self.table[i] != NULL:
                watch = self.table[i]
                self.table[i] = watch.hash_next
                watch.hash_next = table[watch.hash & (slots - 1)]
                table[watch.hash & (slots - 1)] = watch
        free(self.table)
        self.table = table
        self.table_slots = slots
        return True

    cdef Watch *_lookup(self, const void *owner, const RadixNode *node,
                        const char *token, size_t n, uint64_t h) noexcept nogil:
        cdef Watch *watch = self.table[h & (self.table_slots - 1)]
        while watch != NULL:
            if watch.hash == h and watch.owner == owner and watch.node == node \
                    and watch.token_len == n \
                    and memcmp(watch.text + watch.path_len + 1, token, n) == 0:
                return watch
            watch = watch.hash_next
        return NULL

    cdef Watch *find(self, const void *owner, const Path *path,
                     const char *token, size_t n) noexcept:
        cdef RadixNode *node = radix_find(&self.paths, path)
        if node == NULL or node.content == NULL:
            return NULL
        return self._lookup(owner, node, token, n, _hash(owner, node, token, n))

    cdef Watch *add(self, void *owner, Watch **list, const Path *path,
                    const char *given, size_t given_len,
                    const char *token, size_t token_len,
                    uint32_t depth, size_t base_len) except? NULL:
        global _live_watches
        cdef RadixNode *node
        cdef Watch *watch
        cdef Watch **slot
        cdef uint64_t h = 0
        node = radix_find(&self.paths, path)
        if node != NULL and node.content != NULL:
            h = _hash(owner, node, token, token_len)
            if self._lookup(owner, node, token, token_len, h) != NULL:
                return NULL
        if self.count >= self.table_slots and not self._resize(self.table_slots * 2):
            raise MemoryError()
        watch = <Watch *>calloc(1, sizeof(Watch) + given_len + token_len + 2)
        if watch == NULL:
            raise MemoryError()
        if h == 0:
            try:
                node = radix_make(&self.paths, path)
            except MemoryError:
                free(watch)
                raise
            h = _hash(owner, node, token, token_len)
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
        memcpy(watch.text + given_len + 1, token, token_len)
        watch.next = <Watch *>node.content
        if watch.next != NULL:
            watch.next.prev = watch
        node.content = watch
        watch.owner_next = list[0]
        if watch.owner_next != NULL:
            watch.owner_next.owner_prev = watch
        list[0] = watch
        watch.hash = h
        slot = &self.table[watch.hash & (self.table_slots - 1)]
        watch.hash_next = slot[0]
        slot[0] = watch
        self.count += 1
        _live_watches += 1
        return watch

    cdef void remove(self, Watch **list, Watch *watch) noexcept:
        global _live_watches
        cdef RadixNode *node = watch.node
        cdef Watch **link = &self.table[watch.hash & (self.table_slots - 1)]
        while link[0] != watch:
            link = &link[0].hash_next
        link[0] = watch.hash_next
        if watch.prev != NULL:
            watch.prev.next = watch.next
        else:
            node.content = watch.next
        if watch.next != NULL:
            watch.next.prev = watch.prev
        if watch.owner_prev != NULL:
            watch.owner_prev.owner_next = watch.owner_next
        elif list != NULL:
            list[0] = watch.owner_next
        if watch.owner_next != NULL:
            watch.owner_next.owner_prev = watch.owner_prev
        watch.owner = NULL
        if watch.held == 0:
            free(watch)
            _live_watches -= 1
        self.count -= 1
        if node.content == NULL:
            radix_drop(&self.paths, node)
        if self.table_slots > SLOTS_MIN and self.count * 8 < self.table_slots:
            self._resize(self.table_slots // 2)

    cdef void hold(self, Watch *watch) noexcept:
        watch.held += 1

    cdef void let_go(self, Watch *watch) noexcept:
        global _live_watches
        watch.held -= 1
        if watch.held == 0 and watch.owner == NULL:
            free(watch)
            _live_watches -= 1

    # -- matching -------------------------------------------------------------

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

    cdef int match(self, const Path *path, bint below, fire_fn fire, void *context) except -1:
        cdef RadixNode *node = self.paths.root
        cdef RadixNode *top
        cdef Watch *watch
        cdef size_t parts = 0
        cdef bint inside = False
        while True:
            self.steps += 1
            watch = <Watch *>node.content
            while watch != NULL:
                if path.parts - parts <= watch.depth:
                    fire(context, watch, path.text + watch.strip, path.len - watch.strip, False)
                watch = watch.next
            if parts == path.parts:
                break
            node = radix_step(&self.paths, node, path, &parts, &inside)
            if node == NULL or (inside and not below):
                return 0
            if inside:
                break
        if not below:
            return 0
        top = node
        if not inside:
            node = radix_next(top, node)
        while node != NULL:
            self.steps += 1
            watch = <Watch *>node.content
            while watch != NULL:
                fire(context, watch, watch.text, watch.path_len, True)
                watch = watch.next
            node = radix_next(top, node)
        return 0

    cdef int match_below(self, const Path *path, Node *root, fire_below_fn fire,
                         void *context) except -1:
        cdef RadixNode *node = self.paths.root
        cdef RadixNode *top
        cdef Watch *watch
        cdef Node *parent
        cdef size_t parts = 0, skip = 0
        cdef bint inside = False
        while parts < path.parts and not inside:
            skip = parts
            self.steps += 1
            node = radix_step(&self.paths, node, path, &parts, &inside)
            if node == NULL:
                return 0
        top = node
        if inside:
            # What the label has of the path, and the "/" behind it, is followed already.
            skip = path.len - path.start[skip] + 1
            parent = _descend(node_at(root, path, path.parts), node, skip)
        else:
            node.scratch = node_at(root, path, path.parts)
            node = radix_next(top, node)
        while node != NULL:
            self.steps += 1
            if node != top:
                parent = _descend(<Node *>node.parent.scratch, node, 0)
            watch = <Watch *>node.content
            while watch != NULL:
                fire(context, watch, parent, <Node *>node.scratch)
                watch = watch.next
            node = radix_next(top, node)
        return 0

    cdef int match_special(self, const char *name, size_t n,
                           fire_fn fire, void *context) except -1:
        cdef Path path
        cdef RadixNode *node
        cdef Watch *watch
        if not path_parse(&path, name, n, NULL, 0, -1):
            return 0
        node = radix_find(&self.paths, &path)
        watch = <Watch *>node.content if node != NULL else NULL
        while watch != NULL:
            fire(context, watch, watch.text, watch.path_len, True)
            watch = watch.next
        return 0


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
