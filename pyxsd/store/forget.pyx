# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cleaning a tree of domains that are gone.

One walk serves any number of domains, and domains that no list mentions need none.  The
walk goes through a snapshot, so the tree may be changed by it and, between two slices,
by others.  Each node that the walk finds to mention one of the domains is looked up in
the tree, as it is now, and cleaned there: removed with all that is below it where one of
the domains owns it, else its list is replaced.  The nodes on the way down are kept for
the next one, so a chain of nodes of any depth is cleaned in one pass.

What is written between two slices is not looked at again: a living domain may name a
dead one in a list at any time, as it may name one that never was.
"""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from pyxsd.store.path cimport PATH_PARTS_MAX
from pyxsd.store.perms cimport (
    DOMID_ANY, DOMIDS, OTHERS_MAX, domids_add, domids_have, mentions_of, perms_mention, perms_owner,
    perms_ref, perms_unref, perms_without,
)
from pyxsd.store.subtree cimport (
    node_child, node_exclusive, node_exclusive_child, walk_begin, walk_end, walk_next, walk_skip,
)


@cython.final
cdef class Forgetting:
    """The cleaning of a tree of some domids, which can be done in slices.

    ValueError where more than OTHERS_MAX of the numbers are none that a domain can have.
    """

    def __cinit__(self, Tree tree not None, domids):
        cdef int64_t domid
        cdef bint mentioned = False
        self.tree = tree
        memset(&self.domids, 0, sizeof(DomidSet))
        for domid in domids:
            # DOMID_ANY stands for everybody, who does not go.
            if domid == DOMID_ANY or mentions_of(tree.mentions, domid) == 0:
                continue
            mentioned = True
            if not domids_add(&self.domids, domid):
                raise ValueError(f"more than {OTHERS_MAX} numbers outside 0 to {DOMIDS - 1}")
        self.done = not mentioned
        if self.done:
            return
        self.seen = <Node **>malloc((PATH_PARTS_MAX + 1) * sizeof(Node *))
        self.edited = <Node **>malloc((PATH_PARTS_MAX + 1) * sizeof(Node *))
        if self.seen == NULL or self.edited == NULL:
            raise MemoryError()
        self.held = tree.snapshot()
        walk_begin(&self.walker, self.held.root, False)

    def __dealloc__(self):
        walk_end(&self.walker)
        free(self.seen)
        free(self.edited)
        if self.old_list != NULL:
            perms_unref(self.old_list)
            perms_unref(self.new_list)

    cdef bint run(self, int64_t steps) except -1:
        cdef Node *node
        cdef Py_ssize_t depth
        cdef int64_t end = self.steps + steps
        self.edited_depth = -1
        while not self.done and self.steps < end:
            node = walk_next(&self.walker)
            if node == NULL:
                self.done = True
                self.held = None
                break
            depth = self.walker.depth
            self.seen[depth] = node
            self.edited_depth = min(self.edited_depth, depth - 1)
            self.steps += 1 + node.perms.count
            if perms_mention(node.perms, &self.domids):
                if depth and domids_have(&self.domids, perms_owner(node.perms)):
                    walk_skip(&self.walker, node)
                self._clean(depth)
        return self.done

    cdef int _clean(self, Py_ssize_t depth) except -1:
        """Cleans the node of the tree that corresponds to seen[depth], if it is there."""
        cdef Node *node
        cdef Node *next
        cdef Perms *perms
        if self.edited_depth < 0:
            self.edited[0] = node_exclusive(&self.tree.root)
            self.edited_depth = 0
        while self.edited_depth < depth:
            node = self.edited[self.edited_depth]
            next = self.seen[self.edited_depth + 1]
            next = node_child(node, next.name, next.name_len)
            if next == NULL:
                return 0
            if domids_have(&self.domids, perms_owner(next.perms)):
                self.tree.remove_child(node, next)
                self.changed = True
                return 0
            self.edited_depth += 1
            self.edited[self.edited_depth] = node_exclusive_child(node, next.name, next.name_len)
        node = self.edited[depth]
        if perms_mention(node.perms, &self.domids):
            perms = self._without(node.perms)
            try:
                self.tree.replace_perms(node, depth > 0, perms)
            finally:
                perms_unref(perms)
            self.changed = True
        return 0

    cdef Perms *_without(self, Perms *perms) except NULL:
        """The list without the domains' entries: a new reference."""
        cdef Perms *cleaned
        if self.old_list != perms:
            cleaned = perms_without(perms, &self.domids)
            if self.old_list != NULL:
                perms_unref(self.old_list)
                perms_unref(self.new_list)
            self.old_list = perms_ref(perms)
            self.new_list = cleaned
        return perms_ref(self.new_list)

    def step(self, int64_t steps):
        """run(), for tests."""
        return self.run(steps)


cdef int forget_domains(Tree tree, domids) except -1:
    cdef Forgetting forgetting = Forgetting(tree, domids)
    while not forgetting.run(1 << 62):
        pass
    return 0
