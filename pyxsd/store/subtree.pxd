# SPDX-License-Identifier: LGPL-2.1-or-later
# A node with all that is below it: making, holding and freeing it, finding nodes in
# it, and walking through it.  Knows nothing of the tree as a whole, nor its counts.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd.store.pages cimport Dying, Node, Page
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport PermEntry, Perms

# A node without value and children, with one reference, the caller's; it holds a
# reference of its own to the permissions.
cdef Node *node_new(const char *name, size_t n, Perms *perms) except NULL
# How old the store is whose root that is; only roots have no name.
cdef inline uint64_t *node_age(Node *root) noexcept nogil:
    return <uint64_t *>(<char *>root + sizeof(Node))
cdef inline Node *node_ref(Node *node) noexcept nogil:
    node.refs += 1
    return node
# Drops a reference; with the last one the node goes, and what only it held.
cdef void node_unref(Node *node) noexcept nogil
# Frees what nobody holds any more, `most` nodes and pages at most; how many it were.  Long
# permission lists count as several nodes.
cdef int64_t free_dying(Dying *dying, int64_t most) noexcept nogil
cdef int node_set_value(Node *node, const char *p, size_t n) except -1
cdef Node *node_child(const Node *node, const char *name, size_t n) noexcept nogil
cdef inline size_t node_children(const Node *node) noexcept nogil:
    return node.children.total if node.children != NULL else 0
# The node that the first `parts` components of a path lead to, from any node as the
# root; NULL where there is none.
cdef Node *node_at(Node *root, const Path *path, size_t parts) noexcept nogil
# Makes *ref a node that only this reference holds, by copying it where it is shared.
cdef Node *node_exclusive(Node **ref) except NULL
# The same for the child of an exclusive node; it must be there.
cdef Node *node_exclusive_child(Node *parent, const char *name, size_t n) except NULL
# Nodes alive in the process, for leak tests.
cdef int64_t nodes_live() noexcept
# Bytes of what node_content() tells of nodes that had to be copied before a change, ever.
cdef int64_t content_copied() noexcept
# Bytes of what copies of a node share with it: its value, and its permission list, which other
# nodes may have as well.
cdef inline int64_t node_content(const Node *node) noexcept nogil:
    return node.value_len + sizeof(PermEntry) * node.perms.count

# A walk through a subtree: a node before what is below it, children in ascending order
# of their names (or in descending order).  It does not recurse, as clients choose how
# deep a tree is.  Begin it with zeroes in the struct, end it with walk_end() also after
# an error.  Nothing in the subtree may change meanwhile: hold a snapshot.
cdef struct Frame:
    Page *page
    int index                # of the slot that comes next
    uint32_t depth           # of the nodes in this page

cdef struct Walker:
    Frame *frame             # pages that are not finished, the deepest one last
    size_t used
    size_t capacity
    uint32_t depth           # of the node last returned; the start has 0
    Node *start              # where the walk starts; NULL once it was returned
    bint descending

cdef int walk_begin(Walker *w, Node *start, bint descending) except -1
# The next node; NULL at the end.
cdef Node *walk_next(Walker *w) except? NULL
# Leaves out what is below the node just returned.
cdef void walk_skip(Walker *w, const Node *node) noexcept
cdef void walk_end(Walker *w) noexcept
