# SPDX-License-Identifier: LGPL-2.1-or-later
# Cleaning a tree of domains that are gone: the nodes that they owned, with all below
# them, and their entries in the permission lists of other nodes.

from libc.stdint cimport int64_t
from pyxsd.store.pages cimport Node
from pyxsd.store.perms cimport DomidSet, Perms
from pyxsd.store.subtree cimport Walker
from pyxsd.store.tree cimport Tree

cdef class Forgetting:
    cdef Tree tree               # what is cleaned
    cdef Tree held               # how it was at the start; None once all is done
    cdef Walker walker           # through `held`
    cdef DomidSet domids
    cdef Node **seen             # in `held`, by depth: the way to the node looked at
    cdef Node **edited           # in `tree`, by depth: the same nodes, exclusive
    cdef Py_ssize_t edited_depth     # as far down as this slice needed them; -1: none
    cdef Perms *old_list         # the list that was replaced last, and
    cdef Perms *new_list         # what it was replaced by: many nodes share one list
    cdef readonly bint done
    cdef readonly bint changed   # something was removed from the tree so far
    cdef readonly int64_t steps  # nodes and entries looked at so far

    # Goes on until that many steps are done (and the one begun is finished); True once
    # the whole tree is clean.  Other changes of the tree may come between two calls.
    cdef bint run(self, int64_t steps) except -1
    cdef int _clean(self, Py_ssize_t depth) except -1
    cdef Perms *_without(self, Perms *perms) except NULL

# Cleans a tree of all these domids (a set of numbers) in one walk, and at once.  Domids that no
# permission list mentions cost nothing.
cdef int forget_domains(Tree tree, domids) except -1
