# SPDX-License-Identifier: LGPL-2.1-or-later
# A new tree that is filled with the nodes of a file, parents first.

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport PATH_PARTS_MAX, PATH_TEXT_MAX, Path
from pyxsd.store.perms cimport Perms
from pyxsd.store.tree cimport Tree

cdef class Filling:
    cdef readonly Tree tree
    cdef Path *scratch
    # The way to the node that was put last: way[0] is the root, way[k] has the path text[:ends[k]].
    cdef Node *way[PATH_PARTS_MAX + 1]
    cdef uint16_t ends[PATH_PARTS_MAX + 1]
    cdef size_t depth
    cdef char text[PATH_TEXT_MAX]

    # Puts a node in whose path has components behind "/".  False, with nothing changed, where it is
    # there already, its parent is not, or the path is not such a one.
    cdef bint put(self, const char *path, size_t n, Perms *perms, const char *value,
                  size_t m) except -1
    cdef Node *_parent(self, const char *path, size_t n) noexcept
