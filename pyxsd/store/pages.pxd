# SPDX-License-Identifier: LGPL-2.1-or-later
# Directories: the children of a node, ordered by name, in pages of a B+ tree.
# Knows what a node looks like, for its name and its counting of references, and
# nothing of paths, permissions or trees.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcmp
from pyxsd.store.perms cimport Perms

cdef struct Node:
    uint32_t refs            # directories, trees and others that hold this node
    uint32_t value_len       # bytes of the value
    Perms *perms
    Page *children           # the top page of its directory; NULL where it has none
    char *value              # see value_new(); NULL where it is empty
    uint64_t owners          # who owns it and what is below it, see owner_bits(); or more
    uint16_t name_len        # bytes of the name
    char name[1]             # name_len bytes, without a NUL; behind a root: see node_age()

cdef struct Page:
    uint32_t refs            # pages, nodes and others that hold this page
    uint32_t total           # nodes in this page and in the pages below it
    uint16_t count           # slots in use
    uint16_t capacity        # slots allocated
    uint8_t level            # 0: a leaf, slots are nodes; else they are pages of level - 1
    void *slot[1]

# Four of 64 bits that stand for an owner, none for domain 0.  Where one of them is missing in
# Node.owners, he owns nothing there; where all are there, he may.  They are the four digits of his
# domid to the base of 16, so below one guest's directory no other one may own something: with two
# bits 31 guests could have those of the same victim, as 5, 1029, 2053 and so on.
cdef inline uint64_t owner_bits(int64_t owner) noexcept nogil:
    if owner == 0:
        return 0
    return <uint64_t>1 << (owner & 15) | <uint64_t>1 << (16 + ((owner >> 4) & 15)) \
        | <uint64_t>1 << (32 + ((owner >> 8) & 15)) | <uint64_t>1 << (48 + ((owner >> 12) & 15))

# A name as it compares to a node's: negative, 0 or positive, byte by byte; of two
# names that begin alike the shorter one comes first.
cdef inline int page_compare(const char *name, size_t n, const Node *node) noexcept nogil:
    cdef size_t m = node.name_len
    cdef int c
    if n and m:
        # Most names differ in their first byte already, and calling memcmp costs more.
        c = <int><unsigned char>name[0] - <int><unsigned char>node.name[0]
        if c == 0 and n > 1 and m > 1:
            c = memcmp(name + 1, node.name + 1, (n if n < m else m) - 1)
        if c:
            return c
    return -1 if n < m else (1 if n > m else 0)

# The node with the smallest name in a slot of a page of that level.
cdef inline Node *page_first(void *slot, int level) noexcept nogil:
    while level:
        slot = (<Page *>slot).slot[0]
        level -= 1
    return <Node *>slot

# In a leaf: the slot where a name is (*exact) or where it would be put.  In a page of
# pages: the slot to go down.
cdef inline int page_slot(const Page *page, const char *name, size_t n,
                          bint *exact) noexcept nogil:
    cdef int low = 0, high = page.count, level = page.level, middle, c
    exact[0] = False
    while low < high:
        middle = (low + high) >> 1
        c = page_compare(name, n, page_first(page.slot[middle], level))
        if c == 0:
            exact[0] = True
            return middle
        if c < 0:
            high = middle
        else:
            low = middle + 1
    if page.level and low:
        return low - 1
    return low

# What is known of the names below a page without looking at them.
cdef struct Names:
    uint64_t digest          # the sum of the hashes of all names, whatever their order
    uint64_t bytes           # of all names, one more for each

# Those of a directory; NULL: of none.
cdef Names page_names(const Page *top) noexcept nogil

# The functions below take the reference to the top page of a directory, which they
# replace where a page has to be copied, split or freed.

# The node of that name; NULL where there is none.
cdef Node *page_get(const Page *top, const char *name, size_t n) noexcept nogil
# The slot of the node of that name, which must be there, in a page that nobody else
# holds: what is in the slot may be replaced.
cdef Node **page_exclusive_slot(Page **top, const char *name, size_t n) except NULL
# Puts a node in whose name is not there; takes over the caller's reference to it.  MemoryError:
# nothing has changed, and the reference is still the caller's.
cdef int page_insert(Page **top, Node *node) except -1
# Takes out the node of that name, which must be there; its reference is the caller's.
# *top becomes NULL with the last one.  MemoryError: it is still there.
cdef Node *page_remove(Page **top, const char *name, size_t n) except NULL

# What nobody holds any more and is still to be freed.  Freeing one thing can add others to
# these lists, and never recurses.
cdef struct Dying:
    Node *nodes              # linked by their values, which are freed already
    Page *pages              # linked by what was their first two fields

# Drops a reference to a node or a page; with the last one it is put on the lists.
cdef void node_drop(Node *node, Dying *dying) noexcept nogil
cdef void page_drop(Page *page, Dying *dying) noexcept nogil
# Frees one of the dying pages, of which there must be one, and drops what was in it.
cdef void page_bury(Dying *dying) noexcept nogil

# A value of n bytes (not 0), with one reference, the caller's.  Copies of a node share
# its value, so that copying a path costs the same however much is stored along it.
cdef char *value_new(const char *p, size_t n) except NULL
cdef inline uint32_t *value_refs(char *value) noexcept nogil:
    # They are counted in front of the bytes.
    return <uint32_t *>value - 1
cdef inline char *value_ref(char *value) noexcept nogil:
    if value != NULL:
        value_refs(value)[0] += 1
    return value
cdef void value_unref(char *value) noexcept nogil
# Pages alive in the process, for leak tests.
cdef int64_t pages_live() noexcept
# Room for slots in pages that had to be copied before a change, ever, and PAGE_SLOTS more for each
# page.
cdef int64_t slots_copied() noexcept
# Sparse pages that were not joined with a neighbour for want of memory, ever.
cdef int64_t pages_left_sparse() noexcept
# A page of the given slots (nodes, or pages of level - 1), with one reference, the caller's;
# it takes a reference of its own to each of them.  ValueError where they are no page: none or
# too many, of another level, or not in ascending order of their names.  For readers of images.
cdef Page *page_make(int level, int count, void **slots) except NULL
