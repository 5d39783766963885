# SPDX-License-Identifier: LGPL-2.1-or-later
"""Freeing what is left of trees, in slices.

The last reference to an old version of a tree can go at any time: a transaction ends, a
connection is closed, the history forgets a change.  What only that version held may be very
much: a guest that replaces 50,000 nodes while a transaction is open makes the end of that
transaction free 50,000 nodes, which takes some milliseconds.

So all trees of a server share one Grave.  It frees up to AT_ONCE nodes and pages between two
calls of dig(), about as many as 50 microseconds allow, and keeps the rest on a list.  dig(),
called once in a turn of the server, frees SLICE of them.  A node whose long permission list goes
with it counts as several.

That alone would let the list grow for ever: a WRITE below 1,000 nodes, while somebody has a
transaction open, copies them and their pages and drops as many, and a turn has room for several of
those.  So whoever is served pays for it: as many nodes and pages as there are more of when a
client has been served are freed in that client's time, served().  While anything is still to be
freed there are no more nodes and pages than there were.  Making one takes longer than freeing one.
"""

cimport cython
from pyxsd.store.subtree cimport free_dying, nodes_live
from pyxsd.store.pages cimport node_drop, pages_live

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

    cdef void begin_anew(self) noexcept:
        self.at_once = AT_ONCE

    cdef bint has_work(self) noexcept:
        return self.dying.nodes != NULL or self.dying.pages != NULL

    cdef void serving(self) noexcept:
        self.before = nodes_live() + pages_live()

    cdef void served(self) noexcept:
        if self.has_work():
            free_dying(&self.dying, nodes_live() + pages_live() - self.before)

    cdef void dig(self) noexcept:
        self.at_once = AT_ONCE
        free_dying(&self.dying, SLICE)


@cython.final
@cython.no_gc
cdef class Hold:
    """See Server.hold(); it ends where nobody refers to it any more."""

    def __cinit__(self, Grave grave not None):
        self.grave = grave
        grave.holds += 1

    def __dealloc__(self):
        self.grave.holds -= 1
