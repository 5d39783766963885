# SPDX-License-Identifier: LGPL-2.1-or-later
"""The watch trie (floor 1).

A node of the trie for every watched path and the paths above it.  The edges
are in one hash table, so a step down costs the same however many watches there
are, and the siblings are linked, so a subtree can be walked.
"""

cimport cython
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from pyxsd.store.path cimport PATH_PARTS_MAX, path_prefix

import os

cdef long long _live_nodes = 0
cdef long long _live_watches = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"watches": _live_watches, "trie nodes": _live_nodes}


cdef inline uint32_t _hash(uint64_t seed, const void *at, const char *p, size_t n) noexcept nogil:
    cdef uint64_t h = (seed ^ <uintptr_t>at) * <uint64_t>0x9E3779B97F4A7C15
    cdef size_t i
    for i in range(n):
        h = (h ^ <unsigned char>p[i]) * <uint64_t>0x100000001B3
    h ^= h >> 29
    h *= <uint64_t>0xBF58476D1CE4E5B9
    return <uint32_t>(h >> 32)


@cython.final
@cython.no_gc
cdef class WatchTrie:
    """All watches of a server."""

    def __cinit__(self):
        self.edge_slots = self.table_slots = 64
        self.edges = <TrieNode **>calloc(self.edge_slots, sizeof(TrieNode *))
        self.table = <Watch **>calloc(self.table_slots, sizeof(Watch *))
        self.root = <TrieNode *>calloc(1, sizeof(TrieNode))
        self.specials = <TrieNode *>calloc(1, sizeof(TrieNode))
        if self.edges == NULL or self.table == NULL or self.root == NULL or self.specials == NULL:
            raise MemoryError()
        # Guests choose the names: they must not be able to choose collisions.
        self.seed = int.from_bytes(os.urandom(8), "little")

    def __dealloc__(self):
        # The owners take their watches away; what is left goes without them.
        cdef uint32_t i
        cdef Watch *watch
        for i in range(self.table_slots):
            while self.table != NULL and self.table[i] != NULL:
                watch = self.table[i]
                watch.owner_next = watch.owner_prev = NULL
                self.remove(NULL, watch)
        free(self.edges)
        free(self.table)
        free(self.root)
        free(self.specials)

    cdef TrieNode *_step(self, TrieNode *at, const char *name, size_t n) noexcept nogil:
        cdef uint32_t h
        cdef TrieNode *node
        if at.kids == NULL:
            return NULL
        h = _hash(self.seed, at, name, n)
        node = self.edges[h & (self.edge_slots - 1)]
        while node != NULL:
            if node.hash == h and node.parent == at and node.name_len == n \
                    and memcmp(node.name, name, n) == 0:
                return node
            node = node.hash_next
        return NULL

    cdef TrieNode *_make(self, TrieNode *at, const char *name, size_t n) except NULL:
        global _live_nodes
        cdef TrieNode *node = self._step(at, name, n)
        cdef uint32_t slot
        if node != NULL:
            return node
        node = <TrieNode *>calloc(1, sizeof(TrieNode) + n)
        if node == NULL:
            raise MemoryError()
        node.parent = at
        node.name_len = <uint32_t>n
        memcpy(node.name, name, n)
        node.hash = _hash(self.seed, at, name, n)
        node.next = at.kids
        if node.next != NULL:
            node.next.prev = node
        at.kids = node
        slot = node.hash & (self.edge_slots - 1)
        node.hash_next = self.edges[slot]
        self.edges[slot] = node
        self.edge_count += 1
        _live_nodes += 1
        return node

    cdef void _prune(self, TrieNode *node) noexcept:
        """Frees a node, and those above, where nothing needs it any more."""
        global _live_nodes
        cdef TrieNode *parent
        cdef TrieNode **link
        while node.parent != NULL and node.watches == NULL and node.kids == NULL:
            parent = node.parent
            link = &self.edges[node.hash & (self.edge_slots - 1)]
            while link[0] != node:
                link = &link[0].hash_next
            link[0] = node.hash_next
            if node.prev != NULL:
                node.prev.next = node.next
            else:
                parent.kids = node.next
            if node.next != NULL:
                node.next.prev = node.prev
            free(node)
            self.edge_count -= 1
            _live_nodes -= 1
            node = parent

    cdef int _grow(self) except -1:
        """Doubles a hash table that has become full."""
        cdef uint32_t i, slots
        cdef TrieNode **edges
        cdef TrieNode *node
        cdef Watch **table
        cdef Watch *watch
        if self.edge_count + PATH_PARTS_MAX // 64 > self.edge_slots:
            slots = self.edge_slots * 2
            edges = <TrieNode **>calloc(slots, sizeof(TrieNode *))
            if edges == NULL:
                raise MemoryError()
            for i in range(self.edge_slots):
                while self.edges[i] != NULL:
                    node = self.edges[i]
                    self.edges[i] = node.hash_next
                    node.hash_next = edges[node.hash & (slots - 1)]
                    edges[node.hash & (slots - 1)] = node
            free(self.edges)
            self.edges = edges
            self.edge_slots = slots
        if self.count >= self.table_slots:
            slots = self.table_slots * 2
            table = <Watch **>calloc(slots, sizeof(Watch *))
            if table == NULL:
                raise MemoryError()
            for i in range(self.table_slots):
                while self.table[i] != NULL:
                    watch = self.table[i]
                    self.table[i] = watch.hash_next
                    watch.hash_next = table[watch.hash & (slots - 1)]
                    table[watch.hash & (slots - 1)] = watch
            free(self.table)
            self.table = table
            self.table_slots = slots
        return 0

    cdef TrieNode *_node(self, const Path *path) noexcept nogil:
        cdef size_t i
        cdef TrieNode *node = self.specials if path.special else self.root
        for i in range(path.parts):
            node = self._step(node, path.text + path.start[i], path.size[i])
            if node == NULL:
                return NULL
        return node

    cdef Watch *_lookup(self, const void *owner, const TrieNode *node,
                        const char *token, size_t n) noexcept nogil:
        cdef uint32_t h = _hash(self.seed ^ <uintptr_t>owner, node, token, n)
        cdef Watch *watch = self.table[h & (self.table_slots - 1)]
        while watch != NULL:
            if watch.hash == h and watch.owner == owner and watch.node == node \
                    and watch.token_len == n \
                    and memcmp(watch.text + watch.path_len + 1, token, n) == 0:
                return watch
            watch = watch.hash_next
        return NULL

    cdef Watch *find(self, const void *owner, const Path *path,
                     const char *token, size_t n) noexcept nogil:
        cdef TrieNode *node = self._node(path)
        if node == NULL:
            return NULL
        return self._lookup(owner, node, token, n)

    cdef Watch *add(self, void *owner, Watch **list, const Path *path,
                    const char *given, size_t given_len,
                    const char *token, size_t token_len,
                    uint32_t depth, size_t base_len) except? NULL:
        global _live_watches
        cdef TrieNode *node = self.specials if path.special else self.root
        cdef Watch *watch
        cdef size_t i
        cdef uint32_t slot
        if self.find(owner, path, token, token_len) != NULL:
            return NULL
        self._grow()
        for i in range(path.parts):
            node = self._make(node, path.text + path.start[i], path.size[i])
        watch = <Watch *>calloc(1, sizeof(Watch) + given_len + token_len + 2)
        if watch == NULL:
            self._prune(node)
            raise MemoryError()
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
        watch.next = node.watches
        if watch.next != NULL:
            watch.next.prev = watch
        node.watches = watch
        watch.owner_next = list[0]
        if watch.owner_next != NULL:
            watch.owner_next.owner_prev = watch
        list[0] = watch
        watch.hash = _hash(self.seed ^ <uintptr_t>owner, node, token, token_len)
        slot = watch.hash & (self.table_slots - 1)
        watch.hash_next = self.table[slot]
        self.table[slot] = watch
        self.count += 1
        _live_watches += 1
        return watch

    cdef void remove(self, Watch **list, Watch *watch) noexcept:
        global _live_watches
        cdef TrieNode *node = watch.node
        cdef Watch **link = &self.table[watch.hash & (self.table_slots - 1)]
        while link[0] != watch:
            link = &link[0].hash_next
        link[0] = watch.hash_next
        if watch.prev != NULL:
            watch.prev.next = watch.next
        else:
            node.watches = watch.next
        if watch.next != NULL:
            watch.next.prev = watch.prev
        if watch.owner_prev != NULL:
            watch.owner_prev.owner_next = watch.owner_next
        elif list != NULL:
            list[0] = watch.owner_next
        if watch.owner_next != NULL:
            watch.owner_next.owner_prev = watch.owner_prev
        free(watch)
        self.count -= 1
        _live_watches -= 1
        self._prune(node)

    cdef bint touched(self, const Path *path) noexcept nogil:
        cdef size_t i
        cdef TrieNode *node = self.root
        if node.watches != NULL:
            return True
        for i in range(path.parts):
            node = self._step(node, path.text + path.start[i], path.size[i])
            if node == NULL:
                return False
            if node.watches != NULL:
                return True
        return node.kids != NULL

    cdef int match(self, const Path *path, bint below, fire_fn fire, void *context) except -1:
        cdef size_t i = 0, left
        cdef TrieNode *node = self.root
        cdef TrieNode *top
        cdef Watch *watch
        while True:
            left = path.parts - i
            watch = node.watches
            while watch != NULL:
                if left <= watch.depth:
                    fire(context, watch, path.text + watch.strip, path.len - watch.strip, False)
                watch = watch.next
            if i == path.parts:
                break
            node = self._step(node, path.text + path.start[i], path.size[i])
            if node == NULL:
                return 0
            i += 1
        if not below or node.kids == NULL:
            return 0
        top = node
        node = top.kids
        while node != top:
            watch = node.watches
            while watch != NULL:
                fire(context, watch, watch.text, watch.path_len, True)
                watch = watch.next
            if node.kids != NULL:
                node = node.kids
                continue
            while node != top and node.next == NULL:
                node = node.parent
            if node != top:
                node = node.next
        return 0

    cdef int match_special(self, const char *name, size_t n,
                           fire_fn fire, void *context) except -1:
        cdef TrieNode *node = self._step(self.specials, name, n)
        cdef Watch *watch
        if node == NULL:
            return 0
        watch = node.watches
        while watch != NULL:
            fire(context, watch, watch.text, watch.path_len, True)
            watch = watch.next
        return 0


cdef bint watch_path(const Watch *watch, Path *out) noexcept:
    """The absolute path that a watch on a path (not "@...") stands on."""
    cdef const TrieNode *node = watch.node
    cdef size_t parts = 0, i, at = 1
    while node.parent != NULL:
        parts += 1
        node = node.parent
    if parts > PATH_PARTS_MAX:
        return False
    node = watch.node
    out.parts = parts
    out.special = False
    out.relative = False
    i = parts
    while i:
        i -= 1
        out.size[i] = <uint16_t>node.name_len
        node = node.parent
    for i in range(parts):
        out.start[i] = <uint16_t>at
        at += out.size[i] + 1
    node = watch.node
    i = parts
    while i:
        i -= 1
        memcpy(out.text + out.start[i], node.name, node.name_len)
        out.text[out.start[i] - 1] = c"/"
        node = node.parent
    out.text[0] = c"/"
    out.len = path_prefix(out, parts)
    return True
