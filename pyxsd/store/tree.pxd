# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree: nodes, directories, snapshots, entry counts by owner.  Knows paths
# and permission lists, nothing of requests, connections or watches.
#
# Everything below is shared by counting references.  A node or page may be
# changed in place exactly where every reference on the way to it from the root
# is the only one; otherwise the way is copied.  A snapshot is one more
# reference to the root, so it costs the same on any tree, and once it is gone
# changes happen in place again.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stddef cimport size_t
from pyxsd.store.counts cimport Counts
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport Mentions, Perms

cdef struct Node:
    uint32_t refs
    uint32_t value_len
    Perms *perms
    Page *kids               # NULL where there are none
    char *value              # NULL where it is empty; the next node while dying
    uint16_t name_len
    char name[1]             # name_len bytes, no NUL

# A page of a directory: an ordered B+ tree of the children by name.
cdef struct Page:
    uint32_t refs
    uint32_t total           # nodes below
    uint16_t count           # slots in use
    uint16_t cap             # slots allocated
    uint8_t level            # 0: slots are nodes, else pages one level down
    void *slot[1]

# Entry counts by owner; shared and copied on change like nodes.
cdef Node *node_new(const char *name, size_t n, Perms *perms) except NULL
cdef inline Node *node_ref(Node *node) noexcept nogil:
    node.refs += 1
    return node
cdef void node_unref(Node *node) noexcept nogil
cdef int node_set_value(Node *node, const char *p, size_t n) except -1
cdef Node *node_child(const Node *node, const char *name, size_t n) noexcept nogil
cdef inline size_t node_children(const Node *node) noexcept nogil:
    return node.kids.total if node.kids != NULL else 0
# Lookups below any root; NULL where there is no such node.
cdef Node *node_at(Node *root, const Path *path, size_t parts) noexcept nogil

# Walks a subtree, parents before children, children in ascending order (or
# descending), without recursing: depth is chosen by clients.
cdef struct Frame:
    Page *page
    int index
    uint32_t depth           # of the nodes in this page

cdef struct Walker:
    Frame *frame
    size_t used
    size_t cap
    uint32_t depth           # of the node last returned; the start has 0
    Node *start
    bint descending

cdef int walk_begin(Walker *w, Node *start, bint descending) except -1
cdef Node *walk_next(Walker *w) except? NULL
cdef void walk_end(Walker *w) noexcept

# Where a path leads, good until the tree or a snapshot of it changes or is made.
cdef struct Place:
    Node *node               # the deepest node on the path that exists
    Node *above              # its parent; NULL above the root
    size_t parts             # how many components lead to it
    bint own                 # nobody else holds it, or what is on the way to it

cdef class Tree:
    cdef Node *root
    cdef Counts *counts      # entries by owner
    cdef Mentions *mentions  # of the permission lists of this tree and its snapshots
    cdef int64_t nodes       # below the root

    cdef Tree snapshot(self)
    cdef Node *_edit(self, const Path *path, size_t parts) except NULL
    cdef int _uncount(self, Node *top, bint with_top) except -1
    cdef Node *find(self, const Path *path) noexcept nogil
    cdef Node *_edit_at(self, const Path *path, const Place *at) except NULL
    # As far as the path exists.
    cdef void look(self, const Path *path, Place *at) noexcept nogil
    # The changes below take the path and where look() found that it leads.
    cdef int set_value(self, const Path *path, const Place *at, const char *p, size_t n) except -1
    cdef int set_perms(self, const Path *path, const Place *at, Perms *perms) except -1
    # A new child at path with its parent's permissions; the parent must exist.
    cdef int add(self, const Path *path, const Place *at, const char *p, size_t n) except -1
    # Removes the node at path with all below; of the root only what is below.
    cdef int remove(self, const Path *path, const Place *at) except -1
    # Puts another tree's node (may be NULL: nothing) where path says.
    cdef int graft(self, const Path *path, Node *node) except -1
    cdef int64_t count_of(self, int64_t owner) noexcept nogil
    cdef int count_add(self, int64_t owner, int64_t n) except -1
    cdef int adopt(self, Tree other) except -1
    # Adds to the counts what `now` has more than `base`.
    cdef int count_difference(self, Tree base, Tree now) except -1
    # Removes a domain's nodes with their subtrees, and its entries elsewhere.
    cdef bint forget(self, int64_t domid) except -1
