# SPDX-License-Identifier: LGPL-2.1-or-later
# Watches: who watches which path, and which watches a change concerns.  Knows paths
# and nodes of the store; of the watching connection only an opaque pointer.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd.events.radix cimport Radix, RadixNode
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport Path

cdef enum:
    DEPTH_ANY = 0xffffffff

cdef struct Watch:
    void *owner              # the watching connection, borrowed; NULL once it is removed
    RadixNode *node          # of the watched path
    Watch *next              # on the same path, newest first
    Watch *prev
    Watch *owner_next        # the owner's watches, newest first
    Watch *owner_prev
    Watch *hash_next         # watches of the same slot of the hash table
    uint64_t serial          # never used twice
    uint64_t hash            # of owner, path and token
    uint32_t depth           # a change at most so many levels below matches; DEPTH_ANY
    uint16_t strip           # bytes that a relative watch drops from event paths
    uint16_t path_len        # bytes
    uint16_t token_len       # bytes
    bint special             # on "@..."
    uint32_t held            # by those who keep the pointer; see hold()
    char text[1]             # path NUL token NUL, as given: its first event

# Called for each match: the path of the event, and whether it is the watch's own path
# (a removal above it) rather than the changed one.
ctypedef int (*fire_fn)(void *context, Watch *watch,
                        const char *path, size_t n, bint own) except -1

# Called for each watch below a removed path: the parent and the node of the watched
# path in the tree given to match_below(), NULL where they are not there.
ctypedef int (*fire_below_fn)(void *context, Watch *watch, Node *parent, Node *node) except -1

cdef class WatchTrie:
    cdef Radix paths         # content: the watches of a path, newest first
    cdef Watch **table       # hash table of watches by owner, path and token
    cdef uint32_t table_slots        # of that table, a power of two
    cdef readonly uint32_t count     # watches
    cdef readonly uint64_t steps     # nodes of the trie visited by matching, ever; for tests
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
    # A held watch stays in memory until it is let go, though it may be removed meanwhile
    # (its owner is NULL then).
    cdef void hold(self, Watch *watch) noexcept
    cdef void let_go(self, Watch *watch) noexcept
    # Does anybody watch this path or something above or below it?
    cdef bint touched(self, const Path *path) noexcept
    # Calls fire() for the watches on the path and above it, from "/" down, and then, if
    # `below`, for those below it in the order of match_below().
    cdef int match(self, const Path *path, bint below, fire_fn fire, void *context) except -1
    # Calls fire() for the watches below a path: paths in ascending order of their names,
    # a path before what is below it; on one path the newest watch first.  root: the tree
    # in which their nodes are looked up, each step of a path once for all watches.
    cdef int match_below(self, const Path *path, Node *root, fire_below_fn fire,
                         void *context) except -1
    # Calls fire() for the watches on "@name".
    cdef int match_special(self, const char *name, size_t n,
                           fire_fn fire, void *context) except -1

    cdef Watch *_lookup(self, const void *owner, const RadixNode *node,
                        const char *token, size_t n, uint64_t h) noexcept nogil
    cdef bint _resize(self, uint32_t slots) noexcept

# The absolute path of a watch that is not special.
cdef bint watch_path(const Watch *watch, Path *out) noexcept
