# SPDX-License-Identifier: LGPL-2.1-or-later
# A set of paths as a radix tree: something stands on each path, and the paths above
# and below another one are found quickly.  Knows paths; of what stands on them only
# an opaque pointer.  radix.pyx says how it works.

from libc.stdint cimport uint16_t, uint32_t
from libc.stddef cimport size_t
from pyxsd.events.table cimport Link, Table
from pyxsd.store.path cimport Path

cdef struct RadixNode:
    Link link                # in the hash table; its hash is of the parent and the first name
    RadixNode *parent        # NULL for a root
    RadixNode *first         # children, as a list in ascending order
    RadixNode *next          # siblings in that list
    RadixNode *prev
    RadixNode *top           # the same children as a balanced search tree
    RadixNode *left          # siblings in that tree
    RadixNode *right
    void *content            # what stands on exactly this path; NULL: nothing
    void *scratch            # for whoever walks through the tree
    char *label              # the names that lead here from the parent, joined by "/"
    uint16_t label_len       # bytes; 0 for a root
    uint16_t first_len       # bytes of the first name
    uint16_t parts           # names in the label
    char room[1]             # of its first label, where that is short; else it has room of its own

cdef struct Radix:
    RadixNode *root          # of paths
    RadixNode *specials      # of "@..." names, each one name whatever is in it
    Table table              # of the nodes, by parent and first name
    uint32_t count           # nodes, without the two roots

cdef int radix_begin(Radix *radix) except -1
# Frees everything; what stands on the paths is the caller's.
cdef void radix_end(Radix *radix) noexcept

# The node of exactly this path; NULL where there is none.
cdef RadixNode *radix_find(const Radix *radix, const Path *path) noexcept nogil
# The same, made where there is none.  The caller lets something stand on it, or
# calls radix_drop().
cdef RadixNode *radix_make(Radix *radix, const Path *path) except NULL
# Nothing stands on a node any more: frees what is not needed without it.
cdef void radix_drop(Radix *radix, RadixNode *node) noexcept

# The child of a node on the way of a path, whose first *parts components lead to the
# node; *parts is moved on by the child's.  NULL where no path of the set goes this way.
# *inside: the path ends within the child's label, so the child is below the path; the
# last components are then part of the label.
cdef RadixNode *radix_step(const Radix *radix, RadixNode *at, const Path *path,
                           size_t *parts, bint *inside) noexcept nogil

# The next node at or below `top`: a node before what is below it, children in ascending
# order of their names, byte by byte.  NULL at the end.
cdef inline RadixNode *radix_next(const RadixNode *top, RadixNode *node) noexcept nogil:
    if node.first != NULL:
        return node.first
    while node != top and node.next == NULL:
        node = node.parent
    return NULL if node == top else node.next

# Nodes alive in the process, without roots, for leak tests.
cdef long long radix_live() noexcept
