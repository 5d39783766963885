# SPDX-License-Identifier: LGPL-2.1-or-later
# The watch trie: who watches which path, and what an event matches.  Knows
# paths; of the watching connection only an opaque pointer.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd.store.path cimport Path

cdef enum:
    DEPTH_ANY = 0xffffffff

cdef struct TrieNode:
    TrieNode *parent
    TrieNode *kids           # first child
    TrieNode *next           # siblings
    TrieNode *prev
    TrieNode *hash_next      # edges of one hash slot
    Watch *watches           # on exactly this path
    uint32_t hash            # of (parent, name)
    uint32_t name_len
    char name[1]

cdef struct Watch:
    void *owner              # the watching connection, borrowed
    TrieNode *node
    Watch *next              # at the node
    Watch *prev
    Watch *owner_next        # the owner's watches, newest first
    Watch *owner_prev
    Watch *hash_next         # watches of one hash slot
    uint64_t serial          # never used twice
    uint32_t hash            # of (owner, node, token)
    uint32_t depth           # levels below that still match; DEPTH_ANY
    uint16_t strip           # bytes that a relative watch drops from event paths
    uint16_t path_len
    uint16_t token_len
    bint special             # on "@..."
    char text[1]             # path NUL token NUL, as given: its first event

# Called for each match: the path of the event, and whether it is the watch's
# own path (a removal above it) rather than the changed one.
ctypedef int (*fire_fn)(void *context, Watch *watch,
                        const char *path, size_t n, bint own) except -1

cdef class WatchTrie:
    cdef TrieNode *root      # of paths
    cdef TrieNode *specials  # of "@..." names
    cdef TrieNode **edges    # hash table of trie nodes by (parent, name)
    cdef uint32_t edge_slots
    cdef uint32_t edge_count
    cdef Watch **table       # hash table of watches by (owner, node, token)
    cdef uint32_t table_slots
    cdef readonly uint32_t count    # watches
    cdef uint64_t serial
    cdef uint64_t seed

    cdef TrieNode *_step(self, TrieNode *at, const char *name, size_t n) noexcept nogil
    cdef TrieNode *_make(self, TrieNode *at, const char *name, size_t n) except NULL
    cdef void _prune(self, TrieNode *node) noexcept
    cdef TrieNode *_node(self, const Path *path) noexcept nogil
    cdef Watch *_lookup(self, const void *owner, const TrieNode *node,
                        const char *token, size_t n) noexcept nogil
    cdef int _grow(self) except -1

    # A new watch at the head of the owner's list; NULL where it exists already.
    cdef Watch *add(self, void *owner, Watch **list, const Path *path,
                    const char *given, size_t given_len,
                    const char *token, size_t token_len,
                    uint32_t depth, size_t base_len) except? NULL
    cdef Watch *find(self, const void *owner, const Path *path,
                     const char *token, size_t n) noexcept nogil
    cdef void remove(self, Watch **list, Watch *watch) noexcept
    # Does anybody watch this path or something above or below it?
    cdef bint touched(self, const Path *path) noexcept nogil
    cdef int match(self, const Path *path, bint below, fire_fn fire, void *context) except -1
    cdef int match_special(self, const char *name, size_t n,
                           fire_fn fire, void *context) except -1

# The absolute path of a node of the trie.
cdef bint watch_path(const Watch *watch, Path *out) noexcept
