# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trees as numbered parts.

The store, the trees of transactions, those of the changes of late and the directories of
listings share most of their nodes, and it is by comparing the addresses of nodes that the
server finds out what was touched.  So what is one node before must be one node after: each
node and each page is written once, gets the next number, and is named by that number wherever
it is held.  Parts come before what holds them, so a reader makes each of a record and of parts
that it has already.

The records, numbers being little-endian of 8 bytes where nothing else is said:

    PERM  a permission list: domid (signed) and access (1 byte) of each entry; numbered from 1
    CNTS  how many nodes each owner has: owner, count (signed), by owner; numbered from 1
    PAGE  its level (1 byte), then the numbers of its slots, which are nodes in level 0 and
          pages of the next lower level else
    NODE  the number of its permissions, that of the top page of its directory or 0, the length
          of its name (2 bytes), the name, the value; numbered together with the pages from 1
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy
from pyxsd._wire cimport buffer_free, buffer_put
from pyxsd.store.counts cimport CountSlot, counts_add, counts_new, counts_unref
from pyxsd.store.pages cimport Dying, page_drop, page_make
from pyxsd.store.perms cimport (
    PermEntry, mentions_ref, mentions_unref, perms_make, perms_unref,
)
from pyxsd.store.subtree cimport free_dying, node_new, node_ref, node_set_value, node_unref

cdef enum:
    SLOTS_MAX = 32           # numbers that a page's record can have
    ENTRY_BYTES = 9          # of one entry of a permission list


cdef void *_grown(void *array, size_t used, size_t *room, size_t item) except? NULL:
    """The array with room for one more item; MemoryError."""
    cdef void *larger
    if used < room[0]:
        return array
    larger = realloc(array, (2 * room[0] + 64) * item)
    if larger == NULL:
        raise MemoryError()
    room[0] = 2 * room[0] + 64
    return larger


# -- writing ------------------------------------------------------------------

@cython.final
cdef class GraphWriter:
    """Writes the parts of trees.  add(type, body) takes a record.  Nothing may change in the
    trees while it is used."""

    def __cinit__(self, add):
        self.add = add
        self.perms = {}
        self.items = {}
        self.counts = {}

    def __dealloc__(self):
        buffer_free(&self.body)
        free(self.steps)
        free(self.numbers)

    cdef int _push(self, void *item, bint is_page) except -1:
        """The next to be written; or its number, where it is written already."""
        cdef Step *step
        known = self.items.get(<uintptr_t>item)
        if known is not None:
            return self._number(known)
        self.steps = <Step *>_grown(self.steps, self.steps_used, &self.steps_room, sizeof(Step))
        step = &self.steps[self.steps_used]
        step.item = item
        step.is_page = is_page
        step.next = 0
        self.steps_used += 1
        return 0

    cdef int _number(self, uint64_t number) except -1:
        self.numbers = <uint64_t *>_grown(self.numbers, self.numbers_used, &self.numbers_room,
                                          sizeof(uint64_t))
        self.numbers[self.numbers_used] = number
        self.numbers_used += 1
        return 0

    cdef int _done(self, void *item, uint64_t refs) except -1:
        """The part at the end of the steps is written, and has so many holders."""
        self.steps_used -= 1
        self.last_item += 1
        if refs > 1:
            # What has one holder is never met again.
            self.items[<uintptr_t>item] = self.last_item
        return self._number(self.last_item)

    cdef uint64_t node(self, Node *node) except? 0:
        cdef Step *step
        cdef Node *at
        cdef Page *page
        if node == NULL:
            return 0
        self.steps_used = self.numbers_used = 0
        self._push(node, False)
        while self.steps_used:
            step = &self.steps[self.steps_used - 1]
            if step.is_page:
                page = <Page *>step.item
                if step.next < page.count:
                    step.next += 1
                    self._push(page.slot[step.next - 1], page.level > 0)
                else:
                    self._write_page(page)
                    self._done(page, page.refs)
            else:
                at = <Node *>step.item
                if at.children != NULL and step.next == 0:
                    step.next = 1
                    self._push(at.children, True)
                else:
                    self._write_node(at)
                    self._done(at, at.refs)
        return self.numbers[0]

    cdef int _write_node(self, const Node *node) except -1:
        cdef uint64_t number = self._perms(node.perms)
        self.body.head = self.body.tail = 0
        buffer_put(&self.body, &number, 8)
        number = 0
        if node.children != NULL:
            self.numbers_used -= 1
            number = self.numbers[self.numbers_used]
        buffer_put(&self.body, &number, 8)
        buffer_put(&self.body, &node.name_len, 2)
        buffer_put(&self.body, node.name, node.name_len)
        if node.value_len:
            buffer_put(&self.body, node.value, node.value_len)
        self.add(b"NODE", self.body.data[:self.body.tail])
        return 0

    cdef int _write_page(self, const Page *page) except -1:
        self.numbers_used -= page.count
        self.body.head = self.body.tail = 0
        buffer_put(&self.body, &page.level, 1)
        buffer_put(&self.body, &self.numbers[self.numbers_used], page.count * sizeof(uint64_t))
        self.add(b"PAGE", self.body.data[:self.body.tail])
        return 0

    cdef uint64_t _perms(self, const Perms *perms) except 0:
        cdef uint32_t i
        cdef uint8_t access
        number = self.perms.get(<uintptr_t>perms)
        if number is None:
            number = len(self.perms) + 1
            self.perms[<uintptr_t>perms] = number
            self.body.head = self.body.tail = 0
            for i in range(perms.count):
                access = <uint8_t>perms.entry[i].access
                buffer_put(&self.body, &perms.entry[i].domid, 8)
                buffer_put(&self.body, &access, 1)
            self.add(b"PERM", self.body.data[:self.body.tail])
        return number

    cdef uint64_t _counts(self, const Counts *counts) except 0:
        cdef const CountSlot *slot
        cdef uint32_t i
        cdef dict found = {}
        cdef int64_t pair[2]
        number = self.counts.get(<uintptr_t>counts)
        if number is None:
            number = len(self.counts) + 1
            self.counts[<uintptr_t>counts] = number
            for i in range(counts.size):
                slot = &counts.slot[i]
                if slot.count:
                    found[slot.owner] = slot.count
            self.body.head = self.body.tail = 0
            for owner in sorted(found):
                pair[0] = owner
                pair[1] = found[owner]
                buffer_put(&self.body, pair, 16)
            self.add(b"CNTS", self.body.data[:self.body.tail] if found else b"")
        return number

    cdef list tree(self, Tree tree):
        return [self.node(tree.root), tree.nodes, self._counts(tree.counts), tree.copied]


# -- reading ------------------------------------------------------------------

@cython.final
cdef class GraphReader:
    """Makes trees of their parts, for the store of which `store` is a tree.

    Every number and length is checked, so that no content of a file can do harm; that what a
    file counts is true is for its checksum to say.
    """

    def __cinit__(self, Tree store not None):
        self.store = store
        self.mentions = mentions_ref(store.mentions)

    def __dealloc__(self):
        cdef size_t i
        cdef Dying dying
        dying.nodes = NULL
        dying.pages = NULL
        for i in range(self.items_used):
            if self.is_page[i]:
                page_drop(<Page *>self.items[i], &dying)
            else:
                node_unref(<Node *>self.items[i])
        free_dying(&dying, <int64_t>1 << 62)
        for i in range(self.perms_used):
            perms_unref(self.perms[i])
        for i in range(self.counts_used):
            counts_unref(self.counts[i])
        free(self.items)
        free(self.is_page)
        free(self.sizes)
        free(self.perms)
        free(self.counts)
        if self.mentions != NULL:
            mentions_unref(self.mentions)

    cdef int take(self, bytes type_, bytes body) except -1:
        if type_ == b"NODE":
            return self._take_node(body)
        if type_ == b"PAGE":
            return self._take_page(body)
        if type_ == b"PERM":
            return self._take_perms(body)
        return self._take_counts(body)

    cdef int _take_perms(self, bytes body) except -1:
        cdef const char *p = body
        cdef size_t count = len(body) // ENTRY_BYTES, i
        cdef PermEntry *entries
        self.perms = <Perms **>_grown(self.perms, self.perms_used, &self.perms_room,
                                      sizeof(Perms *))
        if count == 0 or len(body) % ENTRY_BYTES:
            raise ValueError(f"permissions of {len(body)} bytes")
        entries = <PermEntry *>malloc(count * sizeof(PermEntry))
        if entries == NULL:
            raise MemoryError()
        try:
            for i in range(count):
                memcpy(&entries[i].domid, p + ENTRY_BYTES * i, 8)
                entries[i].access = <unsigned char>p[ENTRY_BYTES * i + 8]
            self.perms[self.perms_used] = perms_make(entries, count, self.mentions)
        finally:
            free(entries)
        self.perms_used += 1
        return 0

    cdef int _take_counts(self, bytes body) except -1:
        cdef const char *p = body
        cdef size_t i
        cdef int64_t pair[2]
        self.counts = <Counts **>_grown(self.counts, self.counts_used, &self.counts_room,
                                        sizeof(Counts *))
        if len(body) % 16:
            raise ValueError(f"counts of {len(body)} bytes")
        self.counts[self.counts_used] = counts_new()
        self.counts_used += 1
        for i in range(len(body) // 16):
            memcpy(pair, p + 16 * i, 16)
            if pair[1] <= 0:
                raise ValueError(f"domain {pair[0]} owns {pair[1]} nodes")
            counts_add(&self.counts[self.counts_used - 1], pair[0], pair[1])
        return 0

    cdef int _take_node(self, bytes body) except -1:
        cdef const char *p = body
        cdef size_t n = len(body), index
        cdef uint64_t number[2]
        cdef uint64_t size = 1
        cdef uint16_t name_len
        cdef Node *node
        if n < 18:
            raise ValueError(f"a node of {n} bytes")
        memcpy(number, p, 16)
        memcpy(&name_len, p + 16, 2)
        if name_len > n - 18:
            raise ValueError("a name that is longer than its record")
        if memchr(p + 18, 0, name_len) != NULL:
            raise ValueError("a name with a NUL in it")
        if not 0 < number[0] <= self.perms_used:
            raise ValueError(f"there are no permissions {number[0]}")
        node = node_new(p + 18, name_len, self.perms[number[0] - 1])
        try:
            if n - 18 - name_len:
                node_set_value(node, p + 18 + name_len, n - 18 - name_len)
            if number[1]:
                index = self._index(number[1], True)
                node.children = <Page *>self.items[index]
                node.children.refs += 1
                size += self.sizes[index]
            self._add_item(node, False, size)
        except Exception:
            node_unref(node)
            raise
        return 0

    cdef int _take_page(self, bytes body) except -1:
        cdef const char *p = body
        cdef size_t n = len(body), i, index
        cdef uint64_t number, size = 0
        cdef void *slots[SLOTS_MAX]
        cdef int level = <unsigned char>p[0] if n else 0
        cdef Page *page
        cdef Dying dying
        if n % 8 != 1 or n // 8 > SLOTS_MAX:
            raise ValueError(f"a page of {n} bytes")
        for i in range(n // 8):
            memcpy(&number, p + 1 + 8 * i, 8)
            index = self._index(number, level > 0)
            slots[i] = self.items[index]
            size += self.sizes[index]
            if level == 0 and (<Node *>slots[i]).name_len == 0:
                raise ValueError("a node without a name in a directory")
        page = page_make(level, <int>(n // 8), slots)
        try:
            self._add_item(page, True, size)
        except Exception:
            dying.nodes = NULL
            dying.pages = NULL
            page_drop(page, &dying)
            free_dying(&dying, <int64_t>1 << 62)
            raise
        return 0

    cdef int _add_item(self, void *item, bint is_page, uint64_t size) except -1:
        cdef size_t room = self.items_room
        if size >= <uint64_t>1 << 32:
            raise ValueError("more nodes than there can be")
        self.items = <void **>_grown(self.items, self.items_used, &room, sizeof(void *))
        room = self.items_room
        self.is_page = <uint8_t *>_grown(self.is_page, self.items_used, &room, 1)
        room = self.items_room
        self.sizes = <uint64_t *>_grown(self.sizes, self.items_used, &room, sizeof(uint64_t))
        self.items_room = room
        self.items[self.items_used] = item
        self.is_page[self.items_used] = is_page
        self.sizes[self.items_used] = size
        self.items_used += 1
        return 0

    cdef size_t _index(self, uint64_t number, bint is_page) except? 0:
        if not 0 < number <= self.items_used or self.is_page[number - 1] != is_page:
            raise ValueError(f"there is no {'page' if is_page else 'node'} {number}")
        return number - 1

    cdef Node *node(self, number) except? NULL:
        if number == 0:
            return NULL
        return <Node *>self.items[self._index(number, False)]

    cdef Tree tree(self, row):
        cdef Tree tree
        cdef Node *root
        root_number, nodes, counts_number, copied = row
        root = self.node(root_number)
        if root == NULL or root.name_len:
            raise ValueError(f"the node {root_number} is no root")
        if nodes != self.sizes[root_number - 1] - 1:
            raise ValueError(f"a tree of {self.sizes[root_number - 1] - 1} nodes, not {nodes}")
        if not 0 < counts_number <= self.counts_used:
            raise ValueError(f"there are no counts {counts_number}")
        tree = self.store.snapshot()
        tree.grave.bury(tree.root)
        tree.root = node_ref(root)
        counts_unref(tree.counts)
        tree.counts = self.counts[counts_number - 1]
        tree.counts.refs += 1
        tree.nodes = nodes
        tree.copied = copied
        return tree
