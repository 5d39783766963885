# SPDX-License-Identifier: LGPL-2.1-or-later
# Watches: who watches which path, and which watches a change concerns.  Knows paths
# and nodes of the store; of the watching connection only an opaque pointer.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd.events.radix cimport Radix, RadixNode
from pyxsd.events.table cimport Link, Table
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport Path

cdef enum:
    DEPTH_ANY = 0xffffffff

cdef struct Watch:
    Link link                # in the hash table; its hash is of owner, path and token
    void *owner              # the watching connection, borrowed; NULL once it is removed
    RadixNode *node          # of the watched path
    Watch *next              # on the same path, newest first
    Watch *prev
    Watch *owner_next        # the owner's watches, newest first
    Watch *owner_prev
    uint64_t serial          # never used twice
    uint32_t depth           # a change at most so many levels below matches; DEPTH_ANY
    uint16_t strip           # bytes that a relative watch drops from event paths
    uint16_t path_len        # bytes
    uint16_t token_len       # bytes
    bint special             # on "@..."
    uint32_t held            # parked searches that go on with this watch
    char text[1]             # path NUL token NUL, as given: its first event

# A search for the watches that a change concerns: those on its path and above it, from "/"
# down, and for a removal then those below it, paths in ascending order of their names, a path
# before what is below it; on one path the newest watch first.
cdef struct Search:
    uint64_t newest          # serial of the newest watch that can be concerned
    Watch *next              # the watch that comes next; NULL at the end of its path's list
    RadixNode *node          # of that path
    size_t parts             # components of the changed path that lead to it
    bint below               # the watches below the path are concerned, too
    bint special             # the watches of one "@name", and no others
    bint own                 # it has come below the path
    RadixNode *top           # then: the subtree that it walks through,
    Node *parent             # and the nodes of the watched path and its parent in the tree
    Node *found              # before the removal; NULL where they were not there
    bint parked
    bint done

# The bytes of a watch, beside some 200 for each: its path is in the radix tree, too.
cdef inline int64_t watch_bytes(const Watch *watch) noexcept nogil:
    return 2 * watch.path_len + watch.strip + watch.token_len

cdef class WatchTrie:
    cdef Radix paths         # content: the watches of a path, newest first
    cdef Table table         # of the watches, by owner, path and token
    cdef readonly uint32_t count     # watches
    cdef readonly uint64_t steps     # nodes of the trie visited by searches, ever; for tests
    cdef uint64_t serial     # of the newest watch

    # A new watch at the head of the owner's list; NULL where it exists already.
    # given: the path as the client wrote it; base_len: bytes of the owner's base path,
    # which a relative watch drops from the paths of its events.
    cdef Watch *add(self, void *owner, Watch **list, const Path *path,
                    const char *given, size_t given_len,
                    const char *token, size_t token_len,
                    uint32_t depth, size_t base_len) except? NULL
    cdef Watch *find(self, const void *owner, const Path *path,
                     const char *token, size_t n) noexcept
    # list: the owner's; NULL where that does not matter any more.
    cdef void remove(self, Watch **list, Watch *watch) noexcept
    # Does anybody watch this path or something above or below it?
    cdef bint touched(self, const Path *path) noexcept
    # Begins a search.  A change: path, and whether the watches below it are concerned, too.
    cdef void search(self, Search *search, const Path *path, bint below) noexcept
    # "@name": the watches on that name.
    cdef int search_special(self, Search *search, const char *name, size_t n) except -1
    # The next watch; NULL where there is none (search.done) or *steps, which is counted
    # down by what is looked at, has come to 0.  root: the tree before the removal.
    cdef Watch *search_next(self, Search *search, const Path *path, Node *root,
                            int64_t *steps) noexcept
    # Between park() and resume() watches may come and go; newer ones are not concerned.
    # A search that is not finished and not parked must not be kept.
    cdef void park(self, Search *search, const Path *path, Node *root) noexcept
    cdef void resume(self, Search *search, const Path *path, Node *root) noexcept
    # Ends a search that is parked.
    cdef void give_up(self, Search *search) noexcept

    cdef Watch *_lookup(self, const void *owner, const RadixNode *node,
                        const char *token, size_t n, uint64_t h) noexcept nogil
    cdef void _unlink(self, Watch *watch) noexcept
    cdef void _let_go(self, Watch *watch) noexcept
    cdef void _go_below(self, Search *search, const Path *path, Node *root, RadixNode *top,
                        size_t skip) noexcept
    cdef void _next_node(self, Search *search, const Path *path, Node *root) noexcept
    cdef void _locate(self, Search *search, const Path *path, Node *root) noexcept

# The absolute path of a watch that is not special.
cdef bint watch_path(const Watch *watch, Path *out) noexcept
