# SPDX-License-Identifier: LGPL-2.1-or-later
# Cleaning a tree of domains that are gone: the nodes that they owned, with all below
# them, and their entries in the permission lists of other nodes.

from libc.stdint cimport int64_t, uint64_t
from pyxsd.store.pages cimport Node
from pyxsd.store.perms cimport DomidSet, Perms
from pyxsd.store.subtree cimport Walker
from pyxsd.store.tree cimport Tree

cdef enum:
    SOUGHT_MAX = 64          # owners that are looked for by their bits

cdef class Forgetting:
    cdef Tree tree               # what is cleaned
    cdef Tree held               # how it was at the start; None where no node is looked for
    cdef Walker walker           # through `held`
    cdef list domids             # who is gone
    cdef DomidSet owners         # those of them who may own nodes
    cdef DomidSet others         # numbers that no domain can have, which stand in lists
    cdef uint64_t sought[SOUGHT_MAX]     # the bits of the owners, see owner_bits()
    cdef int sought_used
    cdef bint everywhere         # all nodes are looked at
    cdef Node **seen             # in `held`, by depth: the way to the node looked at
    cdef Node **edited           # in `tree`, by depth: the same nodes, exclusive
    cdef int64_t edited_depth    # as far down as they were needed so far; -1: none
    cdef Perms *old_list         # the list that was replaced last, and
    cdef Perms *new_list         # what it was replaced by: many nodes share one list
    cdef readonly int64_t steps  # nodes looked at

    cdef int run(self) except -1
    cdef int _seek(self, int64_t domid) except -1
    cdef bint _may_own(self, const Node *node) noexcept
    cdef int _walk(self) except -1
    cdef int _clean(self, int64_t depth) except -1
    cdef int _clean_list(self, Node *node, bint counted) except -1
    cdef Perms *_without(self, Perms *perms) except NULL

# Cleans a tree of all these domids (a set of numbers), at once.  The tree is the one that all
# others with the same permission lists are older copies of.
cdef int forget_domains(Tree tree, domids) except -1
