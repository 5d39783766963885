# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree: a root node with all below it, its snapshots, and how many nodes each
# domain owns in it.  Knows paths and permission lists, nothing of requests,
# connections or watches.  tree.pyx says how it works.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd.store.counts cimport Counts
from pyxsd.store.grave cimport Grave
from pyxsd.store.pages cimport Node, Page
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport Mentions, Perms
from pyxsd.store.subtree cimport (
    Walker, node_age, node_at, node_child, node_children, node_content, node_ref, node_unref,
)

# Where a path leads.  Good until the tree changes, or a snapshot of it is made.
cdef struct Place:
    Node *node               # the deepest node on the path that exists
    Node *parent             # its parent; NULL where it is the root
    size_t parts             # how many components of the path lead to it
    bint exclusive           # neither it nor anything on the way to it is shared

# What goes with a subtree.
cdef struct Survey:
    Counts *owners           # nodes by owner
    int64_t nodes
    int64_t bytes            # as Tree.dropped counts them

cdef class Tree:
    cdef Node *root
    cdef Grave grave         # where what this tree drops is freed; its snapshots have the same
    cdef Counts *counts      # nodes by owner, without the root
    cdef Mentions *mentions  # of the permission lists of this tree and its snapshots
    cdef int64_t nodes       # below the root
    cdef readonly uint64_t steps     # nodes visited by following paths, ever; for tests
    # Nodes copied or made for changes, ever, and pages of directories as SLOTS_PER_NODE says;
    # snapshots count on
    cdef int64_t copied
    # Bytes of nodes that changes let go of and that only snapshots can still have, ever, about;
    # snapshots count on
    cdef int64_t dropped

    # It is older by one from now on, see tree_age().
    cdef int grow_older(self) except -1

    # The same tree, independent from now on.  Costs the same however large it is.
    cdef Tree snapshot(self)
    # Becomes what the other tree is.
    cdef int adopt(self, Tree other) except -1

    cdef Node *find(self, const Path *path) noexcept
    # Follows a path as far as it exists.
    cdef void look(self, const Path *path, Place *at) noexcept

    # The changes below take a path and the place where look() found that it leads.
    # Their only error is MemoryError.
    cdef int set_value(self, const Path *path, const Place *at, const char *p, size_t n) except -1
    cdef int set_perms(self, const Path *path, const Place *at, Perms *perms) except -1
    # A new child of the place, named by the next component, with its parent's permissions.
    cdef int add(self, const Path *path, const Place *at, const char *p, size_t n) except -1
    # A chain of such children, without values, until `parts` components exist; the
    # place is then that of the last one.  Costs one step for each component.
    cdef int add_chain(self, const Path *path, Place *at, size_t parts) except -1
    # Removes the node with all that is below it; of the root only what is below it.
    cdef int remove(self, const Path *path, const Place *at) except -1
    # Puts a node of another tree where the path says, in place of what is there; NULL
    # changes nothing.  The parent must exist.  The counts are count_difference()'s.
    cdef int graft(self, const Path *path, Node *node) except -1

    # The same changes for an exclusive node, or a child of one, found otherwise than by look().
    cdef int replace_perms(self, Node *node, bint counted, Perms *perms) except -1
    cdef int remove_child(self, Node *parent, Node *node) except -1

    # How many nodes a domain owns.
    cdef int64_t count_of(self, int64_t owner) noexcept
    cdef int count_add(self, int64_t owner, int64_t n) except -1
    # Bytes of the counts, as far as another tree does not share them.
    cdef int64_t counts_beside(self, Tree other) noexcept
    # Adds to the counts what `now` has more than `base`: what a transaction changed.
    cdef int count_difference(self, Tree base, Tree now) except -1
    # Would count_difference(base, now) give any owner more nodes than it has, and more
    # than it may have?  by_owner is {owner: its limit} or None; `most` is everybody
    # else's limit.  Domain 0 and nobody (a negative owner) have none.
    cdef bint exceeds(self, Tree base, Tree now, Py_ssize_t most, dict by_owner) except -1

    cdef Node *_edit(self, const Path *path, size_t parts) except NULL
    cdef Node *_edit_at(self, const Path *path, const Place *at) except NULL
    # Nodes of these owners (see owner_bits) are at or below the node of that path, which leads
    # through exclusive nodes.
    cdef void _own_below(self, const Path *path, size_t parts, uint64_t owners) noexcept
    cdef int _survey(self, Node *top, bint with_top, Survey *found) except -1
    cdef int _take_out(self, Node *parent, Node *node) except -1
    cdef int _uncount(self, Survey *gone) except -1

# How often domains were forgotten in a tree: decides which entries of its permission lists count,
# see perms.pyx.  A snapshot stays as old as it is.
cdef inline uint64_t tree_age(Tree tree) noexcept:
    return node_age(tree.root)[0]
