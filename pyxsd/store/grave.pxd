# SPDX-License-Identifier: LGPL-2.1-or-later
# Parts of trees that nobody holds any more, freed a little at a time.

from libc.stdint cimport int64_t
from pyxsd._journal cimport Journal
from pyxsd.store.pages cimport Dying, Node

cdef class Grave:
    cdef Dying dying         # still to be freed
    cdef bint sliced         # else everything is freed at once
    cdef int64_t at_once     # nodes and pages that bury() may still free at once
    cdef int64_t before      # nodes and pages there were when serving() was called
    cdef int holds           # Holds that there are
    cdef Journal journal     # of the server, where the trees are those of one; see set_value()

    # Drops a reference to a node; with the last one the node goes, and what only it held:
    # at once, but for what is too much.
    cdef void bury(self, Node *node) noexcept
    # From now on as in a server that is made anew, but for what is still to be freed.
    cdef void begin_anew(self) noexcept
    # Is something left to be freed?
    cdef bint has_work(self) noexcept
    # A client is served from now on,
    cdef void serving(self) noexcept
    # and no longer: frees as many nodes and pages as there are more since then.
    cdef void served(self) noexcept
    # Frees a slice of it, and gives bury() its share for the next turn.
    cdef void dig(self) noexcept

# While there is one, somebody holds old trees who is not part of the server: see Server.hold().
cdef class Hold:
    cdef Grave grave
