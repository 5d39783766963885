# SPDX-License-Identifier: LGPL-2.1-or-later
"""Filling a new tree with the nodes of a file, parents first.

Files have the nodes in the order of a walk, so the next node's parent is mostly the last node or
above it: its way is kept, and only its name is looked for.  Nobody else holds anything of the tree
until it is full, so its nodes stay where they are.

What is not ordinary is left to whoever can say what is wrong with it, and may put it in by
Tree.load(); only removing is not allowed.
"""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy
from pyxsd.store.pages cimport page_get, page_insert
from pyxsd.store.path cimport path_split
from pyxsd.store.perms cimport perms_owner
from pyxsd.store.subtree cimport node_new, node_set_value, node_unref


@cython.final
@cython.no_gc
cdef class Filling:
    """A tree in the making."""

    def __cinit__(self):
        self.tree = Tree()
        self.way[0] = self.tree.root
        self.scratch = <Path *>malloc(sizeof(Path))
        if self.scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.scratch)

    cdef Node *_parent(self, const char *path, size_t n) noexcept:
        """The node of that path (n = 0: the root), which is the last of the way then; NULL where it
        is not there."""
        cdef size_t k = self.depth
        cdef const Path *scratch = self.scratch
        cdef Node *node
        while k and self.ends[k] > n:
            k -= 1
        if self.ends[k] != n or (n and memcmp(self.text, path, n) != 0):
            if not path_split(self.scratch, path, n):
                return NULL
            k = 0
            node = self.tree.root
            memcpy(self.text, path, n)
            while k < scratch.parts:
                if node.children == NULL:
                    break
                node = page_get(node.children, scratch.text + scratch.start[k], scratch.size[k])
                if node == NULL:
                    break
                k += 1
                self.way[k] = node
                self.ends[k] = scratch.start[k - 1] + scratch.size[k - 1]
            if k < scratch.parts:
                self.depth = k
                return NULL
        self.depth = k
        return self.way[k]

    cdef bint put(self, const char *path, size_t n, Perms *perms, const char *value,
                  size_t m) except -1:
        cdef size_t start = n
        cdef Tree tree = self.tree
        cdef Node *parent
        cdef Node *node
        cdef size_t k
        cdef bint counted = False
        if n < 2 or n >= PATH_TEXT_MAX or path[0] != c"/" or path[1] == c"@":
            return False
        while path[start - 1] != c"/":
            start -= 1
        if start == n or memchr(path, 0, n) != NULL or (start > 1 and path[start - 2] == c"/"):
            return False
        parent = self._parent(path, start - 1)
        if parent == NULL or self.depth >= PATH_PARTS_MAX or (
                parent.children != NULL
                and page_get(parent.children, path + start, n - start) != NULL):
            return False
        node = node_new(path + start, n - start, perms)
        try:
            node_set_value(node, value, m)
            tree.count_add(perms_owner(perms), 1)
            counted = True
            page_insert(&parent.children, node)
        except MemoryError:
            if counted:
                # This cannot fail: the table has room, and is not shared any more.
                tree.count_add(perms_owner(perms), -1)
            node_unref(node)
            raise
        k = self.depth
        while self.way[k].owners & node.owners != node.owners:
            # Where they are known, they are above, too.
            self.way[k].owners |= node.owners
            if k:
                k -= 1
        tree.nodes += 1
        memcpy(self.text + start - 1, path + start - 1, n - start + 1)
        self.depth += 1
        self.way[self.depth] = node
        self.ends[self.depth] = <uint16_t>n
        return True
