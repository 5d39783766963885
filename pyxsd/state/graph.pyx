# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trees as numbered parts.

The store, the trees of transactions, those of the changes of late and the directories of
listings share most of their nodes, and it is by comparing the addresses of nodes that the
server finds out what was touched.  So what is one node before must be one node after: each
node and each page is written once, gets the next number, and is named by that number wherever
else it is held.

Parts come before what holds them.  A reader puts each node and each page that it makes on a
stack; a page takes its slots from there, and a node the top page of its directory.  So numbers
are needed only for what has several holders.

A part begins with 8 bytes: its kind (1 byte), a (1), b (2), c (4), in the byte order of the
machine.

    kind      a                 b              c               behind it
    1 perms   0                 0              entries         domid (8, signed) and access (1) of
                                                               each
      perms   1: some name      0              entries         the same, and the age of the
              domains that                                     store from which on it is gone (8;
              are gone                                         0: it is not) of each
    2 counts  0                 0              owners          owner and count (8 each, signed), by
                                                               owner
    3 node    has a directory   bytes of name  bytes of value  number of its perms (4), the name,
                                                               the value
      node    2 more: a shared  bytes of name  number of the   number of its perms (4), the name
              value                            other node
      node    4 more: a root    0              as above        how old its store is (8), where that
              with an age                                      is not 0, and the rest as above
    4 page    level             slots          0
    5 again   0 node, 1 page    0              its number
    6 tree    0                 0              its counts      nodes below its root, nodes copied
                                                               and bytes dropped so far (8 each)
    7 root    0                 0              0

perms, counts, and nodes with pages are numbered from 1 each in the order in which they come.  The
last two kinds take a node off the stack: the next tree, or the next node that is held without one.
These are numbered together from 1, and others name them by that number.

A copy of a node shares its value, so the value is written once, and other nodes say whose it is.  A
guest can have eleven transactions that have copied the same 480 nodes with 2 KB each.

A part stands once below each of these.  So a reader refuses a second use of it there: trees whose
levels hold the same page twice would be made of 4 KB and have no end.

The writer holds what it is to write (snapshots cost the same however large a tree is), so that it
can stop anywhere, and trees can change before it goes on.  What permission lists say of domains
that go meanwhile is left out.
"""

cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy
from pyxsd._journal cimport pyxsd_clock
from pyxsd._wire cimport buffer_free, buffer_put, buffer_reserve
from pyxsd.state.blank cimport blank_value
from pyxsd.store.counts cimport CountSlot, counts_add, counts_new, counts_unref
from pyxsd.store.pages cimport Dying, page_drop, page_make, value_ref, value_refs
from pyxsd.store.path cimport PATH_TEXT_MAX
from pyxsd.store.perms cimport (
    PermEntry, mentions_past, mentions_ref, mentions_unref, perms_died, perms_make, perms_unref,
)
from pyxsd.store.subtree cimport (
    free_dying, node_age, node_new, node_ref, node_set_value, node_unref,
)
from pyxsd.store.tree cimport tree_age

cdef enum:
    PERMS = 1
    COUNTS = 2
    NODE = 3
    PAGE = 4
    AGAIN = 5
    TREE = 6
    ROOT = 7

# What holds of a node.
cdef enum:
    DIRECTORY = 1
    SHARED = 2
    AGED = 4

# What is said of the entries of a permission list.
cdef enum:
    ENTRIES = 0
    LIVES = 1

cdef enum:
    SLOTS_MAX = 32           # of a page
    ENTRY_BYTES = 9          # of one entry of a permission list
    AGE_BYTES = 8
    LOOKED = 8               # steps, of up to SLOTS_MAX nodes, between two looks at the clock


# What a part begins with.
cdef struct Part:
    uint8_t kind
    uint8_t a
    uint16_t b
    uint32_t c


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


@cython.final
@cython.no_gc
cdef class Held:
    """A node with a reference of its own."""

    def __dealloc__(self):
        if self.node != NULL:
            self.grave.bury(self.node)


cdef Held _held(Grave grave, Node *node):
    cdef Held held = Held.__new__(Held)
    held.grave = grave
    held.node = node_ref(node)
    return held


# -- writing ------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class GraphWriter:
    """Writes the parts of trees; what the writer drops goes into the grave."""

    def __cinit__(self, Grave grave not None):
        self.grave = grave
        self.roots = []
        self.perms = {}
        self.items = {}
        self.values = {}
        self.counts = {}

    def __dealloc__(self):
        buffer_free(&self.out)
        free(self.steps)

    cdef uint32_t tree(self, Tree tree) except 0:
        self.roots.append(tree.snapshot())
        self.age = max(self.age, tree_age(tree))
        return <uint32_t>len(self.roots)

    cdef uint32_t node(self, Node *node) except? 0:
        if node == NULL:
            return 0
        self.roots.append(_held(self.grave, node))
        return <uint32_t>len(self.roots)

    cdef bytes written(self):
        cdef bytes made = b"" if self.out.data == NULL else self.out.data[:self.out.tail]
        self.out.head = self.out.tail = 0
        return made

    cdef bint write(self, uint64_t until, size_t most) except -1:
        cdef int looked = 0
        while self.out.tail < most:
            if self.steps_used == 0:
                if self.begun:
                    self._finish(self.roots[self.begun - 1])
                if self.begun == len(self.roots):
                    # They are told apart by addresses; what has gone must not be held any more.
                    self.roots = []
                    self.begun = 0
                    return True
                self._begin(self.roots[self.begun])
                self.begun += 1
                continue
            self._step()
            looked += 1
            if looked >= LOOKED:
                looked = 0
                if pyxsd_clock() >= until:
                    break
        return False

    cdef int _begin(self, root) except -1:
        """The next root."""
        cdef Node *node = (<Tree>root).root if isinstance(root, Tree) else (<Held>root).node
        return self._push(node, False, node.refs)

    cdef int _finish(self, root) except -1:
        """All of a root is written."""
        cdef Tree tree
        cdef Part part
        cdef int64_t numbers[3]
        part.a = part.b = 0
        if isinstance(root, Tree):
            tree = root
            part.kind = TREE
            part.c = self._counts(tree.counts)
            numbers[0] = tree.nodes
            numbers[1] = tree.copied
            numbers[2] = tree.dropped
            buffer_put(&self.out, &part, sizeof(part))
            buffer_put(&self.out, numbers, sizeof(numbers))
        else:
            part.kind = ROOT
            part.c = 0
            buffer_put(&self.out, &part, sizeof(part))
        return 0

    cdef int _step(self) except -1:
        """Goes on with the part at the end of the steps."""
        cdef Step *step = &self.steps[self.steps_used - 1]
        cdef Page *page
        cdef Node *node
        cdef Part part
        cdef void *slot
        if step.is_page:
            page = <Page *>step.item
            while step.next < page.count:
                slot = page.slot[step.next]
                step.next += 1
                if page.level:
                    return self._push(slot, True, (<Page *>slot).refs)
                node = <Node *>slot
                if node.children != NULL or node.refs > 1:
                    return self._push(slot, False, node.refs)
                # Most nodes are such.
                self._write_node(node)
                self.last_item += 1
            part.kind = PAGE
            part.a = page.level
            part.b = page.count
            part.c = 0
            buffer_put(&self.out, &part, sizeof(part))
            return self._done(page, page.refs)
        node = <Node *>step.item
        if node.children != NULL and step.next == 0:
            step.next = 1
            return self._push(node.children, True, node.children.refs)
        self._write_node(node)
        return self._done(node, node.refs)

    cdef int _push(self, void *item, bint is_page, uint32_t refs) except -1:
        """The next to be written; where it is written already, its number is."""
        cdef Step *step
        cdef Part part
        if refs > 1:
            # What has one holder is never met again.
            known = self.items.get(<uintptr_t>item)
            if known is not None:
                part.kind = AGAIN
                part.a = is_page
                part.b = 0
                part.c = known
                return buffer_put(&self.out, &part, sizeof(part))
        self.steps = <Step *>_grown(self.steps, self.steps_used, &self.steps_room, sizeof(Step))
        step = &self.steps[self.steps_used]
        step.item = item
        step.is_page = is_page
        step.next = 0
        self.steps_used += 1
        return 0

    cdef int _done(self, void *item, uint32_t refs) except -1:
        """The part at the end of the steps is written, and has so many holders."""
        self.steps_used -= 1
        self.last_item += 1
        if self.last_item > UINT32_MAX:
            raise OverflowError("more nodes than an image can have")
        if refs > 1:
            self.items[<uintptr_t>item] = self.last_item
        return 0

    cdef int _write_node(self, Node *node) except -1:
        cdef Part part
        cdef uint32_t perms = self.last_number
        cdef uint32_t value_len = node.value_len
        cdef uint64_t age = 0 if node.name_len else node_age(node)[0]
        cdef char *at
        if node.perms != self.last_perms:
            perms = self._perms(node.perms)
        part.kind = NODE
        part.a = DIRECTORY if node.children != NULL else 0
        part.b = node.name_len
        part.c = value_len
        if value_len and value_refs(node.value)[0] > 1:
            known = self.values.setdefault(<uintptr_t>node.value, self.last_item + 1)
            if known != self.last_item + 1:
                part.a |= SHARED
                part.c = known
                value_len = 0
        if age:
            part.a |= AGED
        at = buffer_reserve(&self.out, sizeof(part) + AGE_BYTES + 4 + node.name_len + value_len)
        memcpy(at, &part, sizeof(part))
        if age:
            memcpy(at + sizeof(part), &age, AGE_BYTES)
            self.out.tail += AGE_BYTES
            at += AGE_BYTES
        memcpy(at + sizeof(part), &perms, 4)
        memcpy(at + sizeof(part) + 4, node.name, node.name_len)
        if value_len:
            memcpy(at + sizeof(part) + 4 + node.name_len, node.value, value_len)
            if self.blank:
                blank_value(at + sizeof(part) + 4 + node.name_len, value_len)
        self.out.tail += sizeof(part) + 4 + node.name_len + value_len
        return 0

    cdef uint64_t _died(self, const Perms *perms, uint32_t i) noexcept:
        """From which age on the domain of an entry is gone; 0: it was not at the instant that is
        written."""
        cdef uint64_t died = perms_died(perms, i)
        return died if died <= self.age else 0

    cdef uint32_t _perms(self, const Perms *perms) except 0:
        cdef Part part
        cdef uint32_t i
        cdef uint64_t died
        cdef uint8_t access
        number = self.perms.get(<uintptr_t>perms)
        if number is None:
            number = len(self.perms) + 1
            self.perms[<uintptr_t>perms] = number
            part.kind = PERMS
            part.a = ENTRIES
            part.b = 0
            part.c = perms.count
            for i in range(perms.count):
                if self._died(perms, i):
                    part.a = LIVES
            buffer_put(&self.out, &part, sizeof(part))
            for i in range(perms.count):
                access = <uint8_t>perms.entry[i].access
                buffer_put(&self.out, &perms.entry[i].domid, 8)
                buffer_put(&self.out, &access, 1)
                if part.a == LIVES:
                    died = self._died(perms, i)
                    buffer_put(&self.out, &died, AGE_BYTES)
        self.last_perms = perms
        self.last_number = number
        return self.last_number

    cdef uint32_t _counts(self, const Counts *counts) except 0:
        cdef const CountSlot *slot
        cdef Part part
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
            part.kind = COUNTS
            part.a = part.b = 0
            part.c = <uint32_t>len(found)
            buffer_put(&self.out, &part, sizeof(part))
            for owner in sorted(found):
                pair[0] = owner
                pair[1] = found[owner]
                buffer_put(&self.out, pair, sizeof(pair))
        return number


# -- reading ------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class GraphReader:
    """Makes trees of their parts, for the store of which `store` is a tree.

    Every number and length is checked, so that no content of a file can do harm; that what a
    file counts is true is for its checksum to say.  Walks and frees take no longer than the file
    is: below one root there are not more nodes than were read, and no deeper than paths reach.
    """

    def __cinit__(self, Tree store not None):
        self.store = store
        self.mentions = mentions_ref(store.mentions)
        self.roots = []
        self.past = {}

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
        free(self.reach)
        free(self.owners)
        free(self.used)
        free(self.stack)
        free(self.perms)
        free(self.counts)
        if self.mentions != NULL:
            mentions_unref(self.mentions)

    cdef int take(self, const char *p, size_t n) except -1:
        cdef size_t at = 0
        try:
            while at < n:
                at += self._take_part(p + at, n - at)
        except ValueError as error:
            raise ValueError(f"part at byte {at} of the body: {error}") from None
        return 0

    cdef size_t _take_part(self, const char *p, size_t n) except 0:
        cdef Part part
        cdef size_t used = 0
        if n < sizeof(part):
            raise ValueError(f"a part of {n} bytes")
        memcpy(&part, p, sizeof(part))
        p += sizeof(part)
        n -= sizeof(part)
        if part.kind == NODE:
            used = self._take_node(p, n, part.a, part.b, part.c)
        elif part.kind == PAGE:
            self._take_page(part.a, part.b)
        elif part.kind == AGAIN:
            self._take_again(part.a, part.c)
        elif part.kind == PERMS:
            used = self._take_perms(p, n, part.a, part.c)
        elif part.kind == COUNTS:
            used = self._take_counts(p, n, part.c)
        elif part.kind == TREE:
            used = self._take_tree(p, n, part.c)
        elif part.kind == ROOT:
            self._end_root(<object>_held(self.store.grave, <Node *>self.items[self._pop(False)]))
        else:
            raise ValueError(f"a part of kind {part.kind}")
        return sizeof(part) + used

    cdef int _take_again(self, bint is_page, uint32_t number) except -1:
        cdef uint64_t root = len(self.roots) + 1
        if not 0 < number <= self.items_used or self.is_page[number - 1] != is_page:
            raise ValueError(f"there is no {'page' if is_page else 'node'} {number}")
        if number > self.begun or self.used[number - 1] == root:
            raise ValueError(f"the {'page' if is_page else 'node'} {number} stands twice below one "
                             "root")
        self._push(number - 1)
        self.used[number - 1] = root
        return 0

    cdef int _end_root(self, root) except -1:
        """A tree or a held node is whole, and what follows is part of the next."""
        if self.stack_used:
            raise ValueError(f"{self.stack_used} parts that nothing holds")
        self.roots.append(root)
        self.begun = self.items_used
        return 0

    cdef uint32_t _past(self, int64_t domid, uint64_t died) except 0:
        """The life of the domid that ended then; one for all entries that name it."""
        life = self.past.get((domid, died))
        if life is None:
            life = self.past[domid, died] = mentions_past(self.mentions, domid, died)
        return life

    cdef size_t _take_perms(self, const char *p, size_t n, int what, uint32_t count) except 0:
        cdef size_t i, size = ENTRY_BYTES + (AGE_BYTES if what == LIVES else 0)
        cdef uint64_t died = 0
        cdef PermEntry *entries
        self.perms = <Perms **>_grown(self.perms, self.perms_used, &self.perms_room,
                                      sizeof(Perms *))
        if what not in (ENTRIES, LIVES):
            raise ValueError(f"permissions that are {what}")
        if count == 0 or count > n // size:
            raise ValueError(f"permissions of {count} entries")
        entries = <PermEntry *>malloc(count * sizeof(PermEntry))
        if entries == NULL:
            raise MemoryError()
        try:
            for i in range(count):
                memcpy(&entries[i].domid, p + size * i, 8)
                entries[i].access = <unsigned char>p[size * i + 8]
                if what == LIVES:
                    memcpy(&died, p + size * i + ENTRY_BYTES, AGE_BYTES)
                entries[i].life = self._past(entries[i].domid, died) if died else 0
            self.perms[self.perms_used] = perms_make(entries, count, self.mentions)
        finally:
            free(entries)
        self.perms_used += 1
        return size * count

    cdef size_t _take_counts(self, const char *p, size_t n, uint32_t count) except? 0:
        cdef size_t i
        cdef int64_t pair[2]
        self.counts = <Counts **>_grown(self.counts, self.counts_used, &self.counts_room,
                                        sizeof(Counts *))
        if count > n // sizeof(pair):
            raise ValueError(f"counts of {count} owners")
        self.counts[self.counts_used] = counts_new()
        self.counts_used += 1
        for i in range(count):
            memcpy(pair, p + sizeof(pair) * i, sizeof(pair))
            if pair[1] <= 0:
                raise ValueError(f"domain {pair[0]} owns {pair[1]} nodes")
            counts_add(&self.counts[self.counts_used - 1], pair[0], pair[1])
        return sizeof(pair) * count

    cdef Node *_with_value(self, uint32_t number) except NULL:
        """The node of that number, which has a value."""
        cdef Node *node
        if not 0 < number <= self.items_used or self.is_page[number - 1]:
            raise ValueError(f"there is no node {number}")
        node = <Node *>self.items[number - 1]
        if node.value == NULL:
            raise ValueError(f"the node {number} has no value")
        return node

    cdef size_t _take_node(self, const char *p, size_t n, int what, size_t name_len,
                           size_t value_len) except 0:
        cdef Node *other = NULL
        cdef uint32_t perms
        cdef uint64_t size = 1, reach = 1 + name_len, age = 0
        cdef size_t index, before = 0
        cdef Node *node
        if what & ~(DIRECTORY | SHARED | AGED) or (what & AGED and name_len):
            raise ValueError(f"a node that is {what}")
        if what & AGED:
            if n < AGE_BYTES:
                raise ValueError("a node that is longer than its record")
            memcpy(&age, p, AGE_BYTES)
            before = AGE_BYTES
            p += before
            n -= before
        if what & SHARED:
            other = self._with_value(<uint32_t>value_len)
            value_len = 0
        if n < 4 or name_len > n - 4 or value_len > n - 4 - name_len:
            raise ValueError("a node that is longer than its record")
        memcpy(&perms, p, 4)
        p += 4
        if memchr(p, 0, name_len) != NULL:
            raise ValueError("a name with a NUL in it")
        if not 0 < perms <= self.perms_used:
            raise ValueError(f"there are no permissions {perms}")
        node = node_new(p, name_len, self.perms[perms - 1])
        if age:
            node_age(node)[0] = age
        try:
            if value_len:
                node_set_value(node, p + name_len, value_len)
            if other != NULL:
                node.value = value_ref(other.value)
                node.value_len = other.value_len
            if what & DIRECTORY:
                index = self._pop(True)
                node.children = <Page *>self.items[index]
                node.children.refs += 1
                size += self.sizes[index]
                reach += self.reach[index]
                node.owners |= self.owners[index]
            self._add_item(node, False, size, reach, node.owners)
        except Exception:
            node_unref(node)
            raise
        return before + 4 + name_len + value_len

    cdef int _take_page(self, int level, size_t count) except -1:
        cdef size_t i
        cdef uint32_t index
        cdef uint64_t size = 0, reach = 0, owners = 0
        cdef void *slots[SLOTS_MAX]
        cdef Page *page
        cdef Dying dying
        if count > SLOTS_MAX or count > self.stack_used:
            raise ValueError(f"a page of {count} slots")
        self.stack_used -= count
        for i in range(count):
            index = self.stack[self.stack_used + i]
            if self.is_page[index] != (level > 0):
                raise ValueError(f"a page of level {level} with another thing in it")
            slots[i] = self.items[index]
            size += self.sizes[index]
            reach = max(reach, <uint64_t>self.reach[index])
            owners |= self.owners[index]
            if level == 0 and (<Node *>slots[i]).name_len == 0:
                raise ValueError("a node without a name in a directory")
        page = page_make(level, <int>count, slots)
        try:
            self._add_item(page, True, size, reach, owners)
        except Exception:
            dying.nodes = NULL
            dying.pages = NULL
            page_drop(page, &dying)
            free_dying(&dying, <int64_t>1 << 62)
            raise
        return 0

    cdef int _add_item(self, void *item, bint is_page, uint64_t size,
                       uint64_t reach, uint64_t owners) except -1:
        cdef size_t room = self.items_room
        if size > self.items_used + 1:
            raise ValueError(f"{size} nodes of {self.items_used + 1} parts: some stand twice")
        if reach > PATH_TEXT_MAX:
            raise ValueError(f"nodes with paths of {reach} bytes, more than {PATH_TEXT_MAX}")
        if size >= UINT32_MAX or self.items_used >= UINT32_MAX:
            raise ValueError("more nodes than there can be")
        if self.items_used == room:
            self.items = <void **>_grown(self.items, self.items_used, &room, sizeof(void *))
            room = self.items_room
            self.is_page = <uint8_t *>_grown(self.is_page, self.items_used, &room, 1)
            room = self.items_room
            self.sizes = <uint32_t *>_grown(self.sizes, self.items_used, &room,
                                            sizeof(uint32_t))
            room = self.items_room
            self.reach = <uint16_t *>_grown(self.reach, self.items_used, &room,
                                            sizeof(uint16_t))
            room = self.items_room
            self.owners = <uint64_t *>_grown(self.owners, self.items_used, &room,
                                             sizeof(uint64_t))
            room = self.items_room
            self.used = <uint64_t *>_grown(self.used, self.items_used, &room,
                                           sizeof(uint64_t))
            self.items_room = room
        # Nothing may fail behind the next line: the item would be freed twice.
        self._push(<uint32_t>self.items_used)
        self.items[self.items_used] = item
        self.is_page[self.items_used] = is_page
        self.sizes[self.items_used] = <uint32_t>size
        self.reach[self.items_used] = <uint16_t>reach
        self.owners[self.items_used] = owners
        self.used[self.items_used] = 0
        self.items_used += 1
        return 0

    cdef int _push(self, uint32_t index) except -1:
        self.stack = <uint32_t *>_grown(self.stack, self.stack_used, &self.stack_room,
                                        sizeof(uint32_t))
        self.stack[self.stack_used] = index
        self.stack_used += 1
        return 0

    cdef uint32_t _pop(self, bint is_page) except? 0:
        """The index of what was made last, which must be a page or a node."""
        if self.stack_used == 0 or self.is_page[self.stack[self.stack_used - 1]] != is_page:
            raise ValueError(f"a {'page' if is_page else 'node'} is missing")
        self.stack_used -= 1
        return self.stack[self.stack_used]

    cdef size_t _take_tree(self, const char *p, size_t n, uint32_t counts) except 0:
        cdef Tree tree
        cdef Node *root
        cdef uint32_t index = self._pop(False)
        cdef int64_t numbers[3]
        if n < sizeof(numbers):
            raise ValueError("a tree that is longer than its record")
        memcpy(numbers, p, sizeof(numbers))
        root = <Node *>self.items[index]
        if root.name_len:
            raise ValueError(f"the node {index + 1} is no root")
        if numbers[0] != <int64_t>self.sizes[index] - 1:
            raise ValueError(f"a tree of {self.sizes[index] - 1} nodes, not {numbers[0]}")
        if not 0 < counts <= self.counts_used:
            raise ValueError(f"there are no counts {counts}")
        tree = self.store.snapshot()
        tree.grave.bury(tree.root)
        tree.root = node_ref(root)
        counts_unref(tree.counts)
        tree.counts = self.counts[counts - 1]
        tree.counts.refs += 1
        tree.nodes = numbers[0]
        tree.copied = numbers[1]
        tree.dropped = numbers[2]
        self._end_root(tree)
        return sizeof(numbers)

    cdef Tree tree(self, uint32_t number):
        if not 0 < number <= len(self.roots) or not isinstance(self.roots[number - 1], Tree):
            raise ValueError(f"there is no tree {number}")
        found = self.roots[number - 1]
        # Two of them must not be one: each changes by itself.
        self.roots[number - 1] = None
        return <Tree>found

    cdef Node *node(self, uint32_t number) except? NULL:
        if number == 0:
            return NULL
        if number > len(self.roots) or not isinstance(self.roots[number - 1], Held):
            raise ValueError(f"there is no node {number}")
        return (<Held>self.roots[number - 1]).node
