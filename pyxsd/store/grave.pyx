# SPDX-License-Identifier: LGPL-2.1-or-later
"""Freeing what is left of trees, in slices.

The last reference to an old version of a tree can go at any time: a transaction ends, a
connection is closed, the history forgets a change.  What only that version held may be very
much: a guest that replaces 50,000 nodes while a transaction is open makes the end of that
transaction free 50,000 nodes, which takes some milliseconds.

So all trees of a server share one Grave.  It frees up to AT_ONCE nodes and pages between two
calls of dig(), about as many as 50 microseconds allow, and keeps the rest on a list.  dig(),
called once in a turn of the server, frees SLICE of them.  Making a node takes longer than
freeing it, and both of them get their share of each turn, so the list does not grow for ever.
"""

cimport cython
from pyxsd.store.subtree cimport free_dying
from pyxsd.store.pages cimport node_drop

cdef enum:
    AT_ONCE = 512
    SLICE = 2048


@cython.final
@cython.no_gc
cdef class Grave:
    """What the trees of one server have dropped.  sliced: somebody calls dig(); without
    that, everything is freed at once."""

    def __cinit__(self, bint sliced=False):
        self.sliced = sliced
        self.at_once = AT_ONCE

    def __dealloc__(self):
        free_dying(&self.dying, 1 << 62)

    cdef void bury(self, Node *node) noexcept:
        node_drop(node, &self.dying)
        if not self.sliced:
            free_dying(&self.dying, 1 << 62)
        elif self.at_once > 0:
            self.at_once -= free_dying(&self.dying, self.at_once)

    cdef bint has_work(self) noexcept:
        return self.dying.nodes != NULL or self.dying.pages != NULL

    cdef void dig(self) noexcept:
        self.at_once = AT_ONCE
        free_dying(&self.dying, SLICE)
