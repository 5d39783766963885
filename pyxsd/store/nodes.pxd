# SPDX-License-Identifier: LGPL-2.1-or-later
# The requests on nodes, as functions of a tree, a path and an actor: which checks are
# made, in which order, and what changes.  Each returns a status, ST_*.  Knows nothing
# of connections and transactions.

from libc.stddef cimport size_t
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport Path
from pyxsd.store.perms cimport Actor
from pyxsd.store.tree cimport Tree
from pyxsd._wire cimport Buffer, Slice

cdef struct NodeLimits:
    Py_ssize_t entries       # quota-maxentity
    Py_ssize_t value         # quota-maxsize, bytes
    bint active              # quota-activate
    void *by_owner           # a dict of owner: entries that go before; or NULL

# What a request changed, also where it failed in the end.
cdef struct Effect:
    bint fires               # it counts as a change of its path, which watchers are told
    bint wrote               # something changed at or below the node that ...
    size_t parts             # ... so many components of the path lead to

cdef int node_read(Tree tree, const Path *path, const Actor *who, Buffer *out) except -1
# The names of the children, each with its NUL; stops soon after `limit` bytes.
cdef int node_directory(Tree tree, const Path *path, const Actor *who, Buffer *out,
                        size_t limit) except -1
# The names of the children, each with its NUL, from byte `before` of all of them on; stops soon
# after `limit` bytes.  How many names were looked at.
cdef int node_names(const Node *node, size_t before, Buffer *out, size_t limit) except -1
cdef int node_get_perms(Tree tree, const Path *path, const Actor *who, Buffer *out) except -1
cdef int node_write(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Slice value, Effect *effect) except -1
cdef int node_mkdir(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Effect *effect) except -1
cdef int node_rm(Tree tree, const Path *path, const Actor *who, Effect *effect) except -1
cdef int node_set_perms(Tree tree, const Path *path, const Actor *who, Slice text,
                        Effect *effect) except -1
