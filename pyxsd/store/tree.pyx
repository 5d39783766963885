# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of nodes, its snapshots and its counts.

A Tree is a reference to a root node.  A node has a name, a value, a permission list
and the top page of its directory (pages.pyx); pages hold nodes.  Nodes, pages and
permission lists count their holders: each knows how many references to it there are.

A snapshot is a second Tree with a reference to the same root.  So it takes the same
time on any store, and two trees share every node that is equal in both; who has kept a
node can see by comparing pointers whether anything at or below it was touched.

A change must not be seen in snapshots.  A node is changed in place only if no node and
no page on its path, from the root down to it, is shared; otherwise the path is copied:
the copy of a node shares the children of the original, and each of them has one holder
more.  Two examples with the path /a/b:

    no snapshot      WRITE /a/b changes the value of b where it stands.
    a snapshot       "/", its page, a, its page and b are copied.  The snapshot keeps
                     the old ones; all other nodes are now held twice.  The next WRITE
                     of /a/b is in place again: nobody else holds the copies.

look() follows a path once and says where it ends and whether changes may be in place
there (Place.exclusive); what changes the tree takes that place.  "Exclusive" always
means: only one reference, and the same for all that leads there.

Once a snapshot goes, what only it held is freed, without recursion, since clients
choose how deep a tree is.

The root knows the age of its tree (perms.pyx), which a copy of it has, too.  Each node knows which
owners there may be at or below it, as a few bits, so that the nodes of a domain that has died are
found without a look at all others (forget.pyx).  A node that is made belongs to its parent's owner,
so only new owners and grafts have to be told upwards; what goes is not, so it may be too many.

The counts say how many nodes each domain owns, the root not included.  Snapshots share
them until one of the trees changes them.  The mentions say which domains the permission
lists name, snapshots included.
"""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp
from pyxsd._journal cimport journal_same
from pyxsd.store.counts cimport (
    CountSlot, counts_add, counts_get, counts_live, counts_longest_search, counts_new, counts_own,
    counts_unref,
)
from pyxsd.store.pages cimport (
    owner_bits, page_exclusive_slot, page_insert, page_remove, page_slot, pages_left_sparse,
    pages_live, slots_copied,
)
from pyxsd.store.path cimport PATH_PARTS_MAX, path_join, path_prefix
from pyxsd.store.perms cimport (
    mentions_live, mentions_lives, mentions_new, mentions_of, mentions_ref, mentions_unref,
    perms_gone, perms_live, perms_owner, perms_parse, perms_ref, perms_simple, perms_unref,
)
from pyxsd.store.subtree cimport (
    content_copied, node_exclusive, node_exclusive_child, node_new, node_set_value, nodes_live,
    walk_begin, walk_end, walk_next,
)


def live_counts():
    """Objects alive in the process by kind, for leak tests."""
    return {"nodes": nodes_live(), "pages": pages_live(), "counts": counts_live(),
            "perms": perms_live(), "mentions": mentions_live()}


cdef extern from "malloc.h":
    int malloc_trim(size_t pad) nogil


def trim_memory():
    """Gives free memory back to the system."""
    malloc_trim(0)


cdef enum:
    SLOTS_PER_NODE = 16      # of a copied page that take as much memory as a node
    NODE_COST = 128          # bytes that a node takes beside its name and its value, about


cdef inline int64_t _bytes(const Node *node) noexcept nogil:
    return NODE_COST + node.name_len + node_content(node)


cdef inline bint _same_slot(const Counts *a, const Counts *b, uint32_t i) noexcept nogil:
    """Do both tables have the same owner and count in this slot?  Of two tables of which
    one began as a copy of the other, most have."""
    return i < a.size and a.slot[i].owner == b.slot[i].owner and a.slot[i].count == b.slot[i].count


@cython.final
@cython.no_gc
cdef class Tree:
    """A tree of nodes; a new one has only the root, owned by domain 0."""

    def __cinit__(self, bint empty=False, Grave grave=None):
        # empty: the caller fills in the fields.
        cdef Perms *perms
        if empty:
            return
        self.grave = Grave() if grave is None else grave
        self.mentions = mentions_new()
        perms = perms_simple(0, 0, self.mentions)
        self.root = node_new(b"", 0, perms)
        perms_unref(perms)
        self.counts = counts_new()

    def __dealloc__(self):
        if self.root != NULL:
            self.grave.bury(self.root)
        if self.counts != NULL:
            counts_unref(self.counts)
        if self.mentions != NULL:
            mentions_unref(self.mentions)

    cdef int grow_older(self) except -1:
        cdef uint64_t *age = node_age(node_exclusive(&self.root))
        age[0] += 1
        return 0

    cdef Tree snapshot(self):
        cdef Tree copy = Tree.__new__(Tree, True)
        copy.root = node_ref(self.root)
        copy.grave = self.grave
        copy.counts = self.counts
        copy.counts.refs += 1
        copy.mentions = mentions_ref(self.mentions)
        copy.nodes = self.nodes
        copy.copied = self.copied
        copy.dropped = self.dropped
        return copy

    cdef int adopt(self, Tree other) except -1:
        node_ref(other.root)
        self.grave.bury(self.root)
        self.root = other.root
        other.counts.refs += 1
        counts_unref(self.counts)
        self.counts = other.counts
        mentions_ref(other.mentions)
        mentions_unref(self.mentions)
        self.mentions = other.mentions
        self.nodes = other.nodes
        self.copied = max(self.copied, other.copied)
        self.dropped = max(self.dropped, other.dropped)
        return 0

    # -- finding --------------------------------------------------------------

    cdef Node *find(self, const Path *path) noexcept:
        return node_at(self.root, path, path.parts)

    cdef void look(self, const Path *path, Place *at) noexcept:
        cdef Node *node = self.root
        cdef const Page *page
        cdef size_t i
        cdef bint exclusive = node.refs == 1, exact
        cdef int slot
        at.node = node
        at.parent = NULL
        at.parts = 0
        at.exclusive = exclusive
        for i in range(path.parts):
            page = node.children
            if page == NULL:
                return
            while page.level:
                exclusive = exclusive and page.refs == 1
                page = <const Page *>page.slot[
                    page_slot(page, path.text + path.start[i], path.size[i], &exact)]
            slot = page_slot(page, path.text + path.start[i], path.size[i], &exact)
            if not exact:
                return
            at.parent = node
            node = <Node *>page.slot[slot]
            exclusive = exclusive and page.refs == 1 and node.refs == 1
            at.node = node
            at.parts = i + 1
            at.exclusive = exclusive
            self.steps += 1

    cdef Node *_edit(self, const Path *path, size_t parts) except NULL:
        """The node that the first components lead to, made exclusive."""
        cdef size_t i
        cdef int64_t before = nodes_live(), slots = slots_copied(), content = content_copied()
        cdef Node *node = node_exclusive(&self.root)
        for i in range(parts):
            node = node_exclusive_child(node, path.text + path.start[i], path.size[i])
        self.copied += nodes_live() - before + (slots_copied() - slots) // SLOTS_PER_NODE
        # What a copy shares with its node is the node's alone once the copy is changed in place.
        self.dropped += path_prefix(path, parts) + NODE_COST * (parts + 1) \
            + content_copied() - content
        self.steps += parts
        return node

    cdef Node *_edit_at(self, const Path *path, const Place *at) except NULL:
        """The node of a place, made exclusive."""
        return at.node if at.exclusive else self._edit(path, at.parts)

    cdef void _own_below(self, const Path *path, size_t parts, uint64_t owners) noexcept:
        cdef Node *node = self.root
        cdef size_t i
        node.owners |= owners
        for i in range(parts):
            node = node_child(node, path.text + path.start[i], path.size[i])
            node.owners |= owners

    # -- changing -------------------------------------------------------------

    cdef int set_value(self, const Path *path, const Place *at, const char *p, size_t n) except -1:
        cdef const Node *node = at.node
        # An equal value touches the way to the node, not the node itself:
        # transactions that looked at it can still be merged.
        if node.value_len == n and (n == 0 or journal_same(self.grave.journal,
                                                           memcmp(node.value, p, n) == 0)):
            if path.parts and not at.exclusive:
                self._edit(path, path.parts - 1)
            return 0
        return node_set_value(self._edit_at(path, at), p, n)

    cdef int set_perms(self, const Path *path, const Place *at, Perms *perms) except -1:
        cdef Node *node = self._edit_at(path, at)
        cdef uint64_t owners = owner_bits(perms_owner(perms))
        cdef bint known = node.owners & owners == owners     # so it is above, too
        self.replace_perms(node, path.parts != 0, perms)
        if not known:
            self._own_below(path, path.parts, owners)
        return 0

    cdef int replace_perms(self, Node *node, bint counted, Perms *perms) except -1:
        cdef int64_t old = perms_owner(node.perms), new = perms_owner(perms)
        if old != new and counted:
            # What can fail comes first.
            counts_own(&self.counts)
            self.count_add(old, -1)
            try:
                self.count_add(new, 1)
            except MemoryError:
                # This cannot fail: the table had room for the owner a moment ago.
                self.count_add(old, 1)
                raise
        perms_ref(perms)
        perms_unref(node.perms)
        node.perms = perms
        node.owners |= owner_bits(new)
        return 0

    cdef int add(self, const Path *path, const Place *at, const char *p, size_t n) except -1:
        cdef Node *parent = self._edit_at(path, at)
        cdef Node *node = node_new(path.text + path.start[at.parts], path.size[at.parts],
                                   parent.perms)
        cdef bint counted = False
        try:
            node_set_value(node, p, n)
            self.count_add(perms_owner(node.perms), 1)
            counted = True
            page_insert(&parent.children, node)
        except MemoryError:
            if counted:
                # This cannot fail: the table has room, and is not shared any more.
                self.count_add(perms_owner(node.perms), -1)
            node_unref(node)
            raise
        self.nodes += 1
        return 0

    cdef int add_chain(self, const Path *path, Place *at, size_t parts) except -1:
        cdef Node *parent
        cdef Node *top = NULL
        cdef Node *last = NULL
        cdef Node *node
        cdef size_t i = parts
        cdef bint counted = False
        if i == at.parts:
            return 0
        parent = self._edit_at(path, at)
        try:
            # From the end to the beginning, so that one insertion puts all of it in.
            while i > at.parts:
                i -= 1
                node = node_new(path.text + path.start[i], path.size[i], parent.perms)
                if last == NULL:
                    last = node
                else:
                    try:
                        page_insert(&node.children, top)
                    except MemoryError:
                        node_unref(node)
                        raise
                    if top == last:
                        at.parent = node
                top = node
            self.count_add(perms_owner(parent.perms), parts - at.parts)
            counted = True
            page_insert(&parent.children, top)
        except MemoryError:
            if counted:
                self.count_add(perms_owner(parent.perms), <int64_t>at.parts - <int64_t>parts)
            if top != NULL:
                node_unref(top)
            raise
        self.nodes += parts - at.parts
        self.copied += parts - at.parts
        if top == last:
            at.parent = parent
        at.node = last
        at.parts = parts
        at.exclusive = True
        return 0

    cdef int remove(self, const Path *path, const Place *at) except -1:
        cdef Node *parent
        cdef Node *node
        cdef Survey gone
        cdef size_t last = path.parts - 1
        if path.parts == 0:
            # A node without children in its place.
            node = node_new(b"", 0, self.root.perms)
            try:
                node_set_value(node, self.root.value, self.root.value_len)
                node_age(node)[0] = tree_age(self)
                counts_own(&self.counts)
                self._survey(self.root, False, &gone)
            except MemoryError:
                node_unref(node)
                raise
            self._uncount(&gone)
            self.grave.bury(self.root)
            self.root = node
            return 0
        # Another version of the parent has the same child.
        parent = at.parent if at.exclusive else self._edit(path, last)
        return self.remove_child(parent, at.node)

    cdef int remove_child(self, Node *parent, Node *node) except -1:
        cdef int64_t sparse = pages_left_sparse()
        self._take_out(parent, node)
        if sparse != pages_left_sparse() and self.grave.journal is not None:
            # Whoever does it once more has other pages, and counts other copies of them later.
            self.grave.journal.lacks_memory()
        return 0

    cdef int _take_out(self, Node *parent, Node *node) except -1:
        cdef Survey gone
        # What can fail comes first; taking out of a table that is not shared cannot.
        counts_own(&self.counts)
        if node.children == NULL:
            page_remove(&parent.children, node.name, node.name_len)
            self.count_add(perms_owner(node.perms), -1)
            self.nodes -= 1
            self.dropped += _bytes(node)
            self.grave.bury(node)
            return 0
        self._survey(node, True, &gone)
        try:
            page_remove(&parent.children, node.name, node.name_len)
        except MemoryError:
            counts_unref(gone.owners)
            raise
        self._uncount(&gone)
        self.grave.bury(node)
        return 0

    cdef int graft(self, const Path *path, Node *node) except -1:
        cdef Node *parent
        cdef Node **slot
        cdef const char *name
        cdef size_t n, last
        if node == NULL:
            return 0
        if path.parts == 0:
            node_ref(node)
            self.grave.bury(self.root)
            self.root = node
            return 0
        last = path.parts - 1
        parent = self._edit(path, last)
        self._own_below(path, last, node.owners)
        name = path.text + path.start[last]
        n = path.size[last]
        if node_child(parent, name, n) == NULL:
            page_insert(&parent.children, node_ref(node))
            return 0
        slot = page_exclusive_slot(&parent.children, name, n)
        node_ref(node)
        self.grave.bury(slot[0])
        slot[0] = node
        return 0

    # -- counts ---------------------------------------------------------------

    cdef int64_t count_of(self, int64_t owner) noexcept:
        return counts_get(self.counts, owner)

    cdef int64_t counts_beside(self, Tree other) noexcept:
        return 0 if self.counts == other.counts else sizeof(CountSlot) * self.counts.size

    cdef int count_add(self, int64_t owner, int64_t n) except -1:
        return counts_add(&self.counts, owner, n)

    cdef int _survey(self, Node *top, bint with_top, Survey *found) except -1:
        """What a subtree takes; MemoryError, with nothing changed."""
        cdef Walker w
        cdef Node *node
        cdef int64_t owner = 0, run = 0      # so many nodes of this owner in a row
        found.nodes = found.bytes = 0
        found.owners = counts_new()
        walk_begin(&w, top, False)
        try:
            node = walk_next(&w)
            if not with_top:
                node = walk_next(&w)
            while node != NULL:
                if perms_owner(node.perms) != owner:
                    counts_add(&found.owners, owner, run)
                    owner = perms_owner(node.perms)
                    run = 0
                run += 1
                found.nodes += 1
                found.bytes += _bytes(node)
                node = walk_next(&w)
            counts_add(&found.owners, owner, run)
        except MemoryError:
            counts_unref(found.owners)
            raise
        finally:
            walk_end(&w)
        return 0

    cdef int _uncount(self, Survey *gone) except -1:
        """Takes a subtree out of the counts, which are not shared; the survey goes."""
        cdef uint32_t i
        for i in range(gone.owners.size):
            if gone.owners.slot[i].count:
                self.count_add(gone.owners.slot[i].owner, -gone.owners.slot[i].count)
        counts_unref(gone.owners)
        self.nodes -= gone.nodes
        self.dropped += gone.bytes
        return 0

    cdef int count_difference(self, Tree base, Tree now) except -1:
        cdef uint32_t i
        cdef const CountSlot *slot
        self.nodes += now.nodes - base.nodes
        self.copied += now.copied - base.copied
        self.dropped += now.dropped - base.dropped
        if base.counts == now.counts:
            return 0
        for i in range(now.counts.size):
            slot = &now.counts.slot[i]
            if slot.count and not _same_slot(base.counts, now.counts, i):
                self.count_add(slot.owner, slot.count - base.count_of(slot.owner))
        for i in range(base.counts.size):
            slot = &base.counts.slot[i]
            if slot.count and now.count_of(slot.owner) == 0:
                self.count_add(slot.owner, -slot.count)
        return 0

    cdef bint exceeds(self, Tree base, Tree now, Py_ssize_t most, dict by_owner) except -1:
        cdef uint32_t i
        cdef const CountSlot *slot
        cdef int64_t more
        cdef Py_ssize_t limit
        if base.counts == now.counts:
            return False
        for i in range(now.counts.size):
            slot = &now.counts.slot[i]
            if slot.count == 0 or slot.owner <= 0 or _same_slot(base.counts, now.counts, i):
                continue
            more = slot.count - base.count_of(slot.owner)
            if more <= 0:
                continue
            limit = most
            if by_owner is not None:
                limit = by_owner.get(slot.owner, most)
            if self.count_of(slot.owner) + more > limit:
                return True
        return False

    # -- the Python face: dumps, tests ----------------------------------------

    @property
    def size(self):
        """Nodes below the root."""
        return self.nodes

    def entries(self, int64_t owner):
        """How many nodes a domain owns."""
        return self.count_of(owner)

    def mentions_of(self, int64_t domid):
        """In how many entries of permission lists a domid stands, as that of the domain that has it
        now or gets it next.

        Lists that only snapshots still have count too, one that many nodes share counts
        once, and numbers that no domain can have are counted together.
        """
        return mentions_of(self.mentions, domid)

    def lives(self):
        """How many domains all lists name, those that are gone included; for tests."""
        return mentions_lives(self.mentions)

    def owners_hold(self):
        """Is every owner of a node known to all nodes above it?  For tests."""
        cdef Walker w
        cdef Node *node
        cdef uint64_t owners[PATH_PARTS_MAX + 1]
        walk_begin(&w, self.root, False)
        try:
            while True:
                node = walk_next(&w)
                if node == NULL:
                    return True
                owners[w.depth] = node.owners
                if (node.owners | owner_bits(perms_owner(node.perms))) & ~(
                        owners[w.depth - 1] if w.depth else node.owners):
                    return False
        finally:
            walk_end(&w)

    def count_table(self):
        """(slots, slots in use, most slots that a search looks at) of the table of
        counts, for tests."""
        return self.counts.size, self.counts.used, counts_longest_search(self.counts)

    def all_entries(self):
        """{domid: how many nodes it owns} of all owners."""
        cdef uint32_t i
        return {self.counts.slot[i].owner: self.counts.slot[i].count
                for i in range(self.counts.size) if self.counts.slot[i].count}

    def would_exceed(self, Tree base not None, Tree now not None, Py_ssize_t most, by_owner=None):
        """exceeds(), for tests."""
        return self.exceeds(base, now, most, by_owner)

    def copy(self):
        """snapshot(), for tests."""
        return self.snapshot()

    def walk(self, bint descending=False):
        """Yields (components, permissions, value) of every node, parents first.

        permissions is [(domid, access)], access being 1 read | 2 write.  The
        generator holds a snapshot: the tree may change meanwhile.
        """
        cdef Tree held = self.snapshot()
        return _Walk(held, descending)

    def get(self, list names not None):
        """(permissions, value) of a node by its components, as walk() has them; None where there
        is none."""
        cdef Node *node = self.root
        cdef bytes name
        for name in names:
            node = node_child(node, name, len(name))
            if node == NULL:
                return None
        return (_listed(node.perms, tree_age(self)),
                node.value[:node.value_len] if node.value != NULL else b"")

    def load(self, list names, bytes perms not None, bytes value not None):
        """Puts a node back: components, permissions as joined text, value.

        The parent must be there.  For the readers of state files.  ValueError
        where the permissions are malformed or the parent is missing.
        """
        cdef Path *path = <Path *>malloc(sizeof(Path))
        cdef Perms *parsed = NULL
        cdef Place at
        if path == NULL:
            raise MemoryError()
        try:
            parsed = perms_parse(perms, len(perms), self.mentions)
            if parsed == NULL:
                raise ValueError(f"malformed permissions {perms[:32]!r}")
            path_join(path, names)
            self.look(path, &at)
            if at.parts + 1 < path.parts:
                raise ValueError(
                    f"{path.text[:min(path.len, <size_t>64)]!r}: the parent is missing")
            if at.parts == path.parts:
                self.set_value(path, &at, value, len(value))
            else:
                self.add(path, &at, value, len(value))
            self.look(path, &at)
            self.set_perms(path, &at, parsed)
        finally:
            if parsed != NULL:
                perms_unref(parsed)
            free(path)


cdef list _listed(const Perms *perms, uint64_t age):
    """A list as walk() has it."""
    cdef uint32_t i
    return [(perms.entry[i].domid, perms.entry[i].access)
            for i in range(perms.count) if not perms_gone(perms, i, age)]


@cython.final
cdef class _Walk:
    """The iterator behind Tree.walk."""

    cdef Tree held
    cdef Walker w
    cdef list names

    def __cinit__(self, Tree held, bint descending):
        self.held = held
        self.names = []
        walk_begin(&self.w, held.root, descending)

    def __dealloc__(self):
        walk_end(&self.w)

    def __iter__(self):
        return self

    def __next__(self):
        cdef Node *node = walk_next(&self.w)
        if node == NULL:
            raise StopIteration
        del self.names[self.w.depth:]
        self.names.append(node.name[:node.name_len])
        perms = _listed(node.perms, tree_age(self.held))
        value = node.value[:node.value_len] if node.value != NULL else b""
        return tuple(self.names[1:]), perms, value
