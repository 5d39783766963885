# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transactions: what they saw and changed, and their commit.

A transaction begins with two snapshots of the store: `base`, which stays as it was, and
`tree`, on which its requests run.  Taking them costs the same on any store.  Of what the
requests read and wrote only two paths are kept: the deepest common ancestor of all paths
that were read, and that of all that were written.  After READ /a/b/x and READ /a/b/y the
first one is /a/b.

Its end commits in one of three ways:

- The store is still the tree that it was at the start: it becomes the transaction's tree.
- The nodes at both ancestors are untouched since the start, and so are the permissions
  above them: the transaction's node at the ancestor of all writes is put into the store
  (grafted), with all that is below it, and the counts of nodes by owner are moved on by
  what the transaction changed.  "Untouched" is "the same node": whoever changes a node
  that a snapshot holds has to copy it.
- Else the transaction is in conflict, and its requests have to run again on the store as
  it is now; that is the work of whoever can serve requests.
"""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp
from pyxsd.store.path cimport path_parse, path_prefix, path_up
from pyxsd.store.perms cimport perms_equal
from pyxsd.store.tree cimport node_age, node_at, node_child

cdef long long _live = 0


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"transactions": _live}


cdef bytes path_keep(const Path *path):
    if path.special:
        return path.text[1:path.len]
    return path.text[:path.len]


cdef int path_restore(Path *out, bytes text) except -1:
    if not path_parse(out, text, len(text), NULL, 0, -1):
        raise ValueError(f"not a path: {text!r}")
    return 0


cdef bytes _first_name(bytes kept):
    """The first component of a kept path; empty for "/"."""
    return kept if kept[:1] == b"@" else kept[1:].split(b"/", 1)[0]


cdef bytes _common(bytes ancestor, const Path *path, size_t parts):
    """The deepest common ancestor of a kept path (None: there is none yet) and of the
    first components of another."""
    cdef const char *text
    cdef size_t n, i, k
    if ancestor is None:
        if path.special and parts:
            return path_keep(path)
        return path.text[:path_prefix(path, parts)]
    text = ancestor
    n = len(ancestor)
    if text[0] == c"@" or path.special:
        # "@x" and "/@x" are one node, and it has the name "@x" in either form.
        top = _first_name(ancestor)
        if parts == 0 or top != path.text[path.start[0]:path.start[0] + path.size[0]]:
            return b"/"
        return ancestor if len(ancestor) == len(top) else b"/" + top
    if n == 1 or parts == 0:
        return b"/"
    # How many whole components does the kept text share?  /a has none in common with /ab.
    for k in range(parts):
        i = path.start[k] + path.size[k]
        if i > n or memcmp(text, path.text, i) != 0 or (i < n and text[i] != c"/"):
            parts = k
            break
    i = path_prefix(path, parts)
    return ancestor if i == n else ancestor[:i]


@cython.final
@cython.no_gc
cdef class Transaction:
    """One open transaction of a connection."""

    def __cinit__(self, uint32_t id, Tree current not None, uint64_t start,
                  uint64_t epoch, double now):
        global _live
        self.id = id
        self.base = current.snapshot()
        self.tree = current.snapshot()
        self.start = start
        self.epoch = epoch
        self.since = now
        self.requests = []
        self.changes = []
        _live += 1

    def __dealloc__(self):
        global _live
        _live -= 1

    cdef int give_up(self, Tree current) except -1:
        self.given_up = True
        self.requests.clear()
        self.changes.clear()
        self.base = current.snapshot()
        self.tree = current.snapshot()
        return 0

    cdef int note_read(self, const Path *path) except -1:
        self.read_ancestor = _common(self.read_ancestor, path, path.parts)
        return 0

    cdef int note_write(self, const Path *path, size_t parts) except -1:
        self.written_ancestor = _common(self.written_ancestor, path, parts)
        return 0

    cdef int commit(self, Tree current, uint64_t epoch, bint merge,
                    const NodeLimits *limits) except -1:
        """Commits to the current tree where that needs no replay.

        A merge that would give somebody more nodes than allowed is a conflict: what was within
        the quota at the start need not be so on top of what others created meanwhile.
        """
        cdef Path *path
        cdef bint clean
        if epoch == self.epoch and current.root == self.base.root:
            # A replay may find nothing left to change; then what its failed
            # requests created on the way is lost.
            if self.changes:
                current.adopt(self.tree)
            return COMMIT_DONE
        if not merge or epoch != self.epoch:
            return COMMIT_CONFLICT
        path = <Path *>malloc(sizeof(Path))
        if path == NULL:
            raise MemoryError()
        try:
            clean = _untouched(self.base.root, current.root, self.read_ancestor, path) \
                and _untouched(self.base.root, current.root, self.written_ancestor, path)
            if not clean or (limits != NULL and limits.active and current.exceeds(
                    self.base, self.tree, limits.entries,
                    <dict>limits.by_owner if limits.by_owner != NULL else None)):
                return COMMIT_CONFLICT
            if self.written_ancestor is not None:
                path_restore(path, self.written_ancestor)
                current.graft(path, node_at(self.tree.root, path, path.parts))
                current.count_difference(self.base, self.tree)
        finally:
            free(path)
        return COMMIT_MERGED


cdef int _untouched(Node *old, Node *new, bytes ancestor, Path *path) except -1:
    """Is the node at a kept path the same in both trees, with the same permissions above
    it?  Where it is in neither: does its parent exist now?  path is scratch space."""
    cdef size_t i
    cdef bint same = True
    cdef uint64_t age = node_age(new)[0]     # of both: no domain was forgotten in between
    if ancestor is None:
        return True
    path_restore(path, ancestor)
    if node_at(old, path, path.parts) == NULL and node_at(new, path, path.parts) == NULL:
        path_up(path)
        return node_at(new, path, path.parts) != NULL
    for i in range(path.parts):
        same = same and perms_equal(old.perms, new.perms, age)
        old = node_child(old, path.text + path.start[i], path.size[i])
        new = node_child(new, path.text + path.start[i], path.size[i])
        if old == NULL or new == NULL:
            return False
    return same and old == new
