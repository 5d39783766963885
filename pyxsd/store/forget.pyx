# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cleaning a tree of domains that are gone.

That takes as long as what they owned is large, whatever others did, so that no guest can make
the end of another one long:

- Their entries in permission lists stay where they are and count no more (perms.pyx).
- Their nodes are removed with all that is below them.  Each node knows a few bits of the
  owners that there are at or below it (tree.pyx), so the walk that looks for them goes down
  only where one of those who are gone may own something, and there is none where they own
  nothing; a toolstack has removed all by then.  In a store where each guest has its own
  directory, it looks at these and into one of them.

The walk goes through a snapshot, so the tree may be changed by it.  The nodes on the way down are
kept for the next one, so a chain of nodes of any depth is cleaned in one pass.

Numbers that no domain can have are forgotten, too, where domain 0 releases them.  Their entries are
looked for in all lists, which are replaced.
"""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from pyxsd.store.pages cimport owner_bits
from pyxsd.store.path cimport PATH_PARTS_MAX
from pyxsd.store.perms cimport (
    DOMID_ANY, DOMIDS, OTHERS_MAX, domids_add, domids_have, mentions_end, mentions_of,
    perms_mention, perms_owner, perms_ref, perms_unref, perms_without,
)
from pyxsd.store.subtree cimport (
    node_child, node_exclusive, node_exclusive_child, walk_begin, walk_end, walk_next, walk_skip,
)
from pyxsd.store.tree cimport tree_age


@cython.final
cdef class Forgetting:
    """The cleaning of a tree of some domids.

    ValueError where more than OTHERS_MAX of the numbers are none that a domain can have.
    """

    def __cinit__(self, Tree tree not None, domids):
        cdef int64_t domid
        self.tree = tree
        self.domids = list(domids)
        memset(&self.owners, 0, sizeof(DomidSet))
        memset(&self.others, 0, sizeof(DomidSet))
        for domid in self.domids:
            self._seek(domid)
        if self.sought_used == 0 and not self.everywhere:
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

    cdef int _seek(self, int64_t domid) except -1:
        """Says what is to be looked for because of a domid."""
        # DOMID_ANY stands for everybody, who does not go.
        if domid == DOMID_ANY:
            return 0
        if not 0 <= domid < DOMIDS:
            if mentions_of(self.tree.mentions, domid) == 0:
                return 0
            if not domids_add(&self.others, domid):
                raise ValueError(f"more than {OTHERS_MAX} numbers outside 0 to {DOMIDS - 1}")
            self.everywhere = True
        domids_add(&self.owners, domid)
        if self.tree.count_of(domid) and not self.everywhere:
            if self.sought_used == SOUGHT_MAX:
                self.everywhere = True
                return 0
            self.sought[self.sought_used] = owner_bits(domid)
            self.sought_used += 1
        return 0

    cdef int run(self) except -1:
        cdef Node *root
        cdef uint64_t age
        cdef int64_t domid
        self.tree.grow_older()
        age = tree_age(self.tree)
        for domid in self.domids:
            mentions_end(self.tree.mentions, domid, age)
        root = self.tree.root
        if domids_have(&self.owners, perms_owner(root.perms)):
            self._clean_list(root, False)
        return self._walk() if self.held is not None else 0

    cdef bint _may_own(self, const Node *node) noexcept:
        """May one who is gone own something at or below the node?"""
        cdef int i
        for i in range(self.sought_used):
            if self.sought[i] & ~node.owners == 0:
                return True
        return self.everywhere

    cdef int _walk(self) except -1:
        cdef Node *node
        cdef int64_t depth
        self.edited_depth = -1
        while True:
            node = walk_next(&self.walker)
            if node == NULL:
                self.held = None
                return 0
            self.steps += 1
            if not self._may_own(node):
                walk_skip(&self.walker, node)
                continue
            depth = self.walker.depth
            self.seen[depth] = node
            self.edited_depth = min(self.edited_depth, depth - 1)
            if depth and domids_have(&self.owners, perms_owner(node.perms)):
                walk_skip(&self.walker, node)
                self._clean(depth)
            elif self.others.others and perms_mention(node.perms, &self.others):
                self._clean(depth)

    cdef int _clean(self, int64_t depth) except -1:
        """Cleans the node of the tree that corresponds to seen[depth]."""
        cdef Node *node
        cdef Node *next
        if self.edited_depth < 0:
            self.edited[0] = node_exclusive(&self.tree.root)
            self.edited_depth = 0
        while self.edited_depth < depth:
            node = self.edited[self.edited_depth]
            next = self.seen[self.edited_depth + 1]
            next = node_child(node, next.name, next.name_len)
            if domids_have(&self.owners, perms_owner(next.perms)):
                return self.tree.remove_child(node, next)
            self.edited_depth += 1
            self.edited[self.edited_depth] = node_exclusive_child(node, next.name, next.name_len)
        return self._clean_list(self.edited[depth], depth > 0)

    cdef int _clean_list(self, Node *node, bint counted) except -1:
        """Replaces the list of an exclusive node."""
        cdef Perms *perms = self._without(node.perms)
        try:
            self.tree.replace_perms(node, counted, perms)
        finally:
            perms_unref(perms)
        return 0

    cdef Perms *_without(self, Perms *perms) except NULL:
        """The list without the domains' entries: a new reference."""
        cdef Perms *cleaned
        if self.old_list != perms:
            cleaned = perms_without(perms, &self.owners, tree_age(self.tree))
            if self.old_list != NULL:
                perms_unref(self.old_list)
                perms_unref(self.new_list)
            self.old_list = perms_ref(perms)
            self.new_list = cleaned
        return perms_ref(self.new_list)

    def clean(self):
        """run(), for tests."""
        self.run()


cdef int forget_domains(Tree tree, domids) except -1:
    cdef Forgetting forgetting = Forgetting(tree, domids)
    return forgetting.run()
