# SPDX-License-Identifier: LGPL-2.1-or-later
# DIRECTORY_PART: a directory that is too long for one packet, piece by piece.

from libc.stdint cimport uint64_t
from pyxsd._request cimport Request, State
from pyxsd.store.pages cimport Node

# A directory as domain 0 listed it.
cdef class Listing:
    cdef Node *node          # a reference of its own
    cdef uint64_t epoch      # of the store: a change of it touched every node
    cdef uint64_t generation
    cdef bytes names

# The handler.
cdef int directory_part(State s, Request *r) except -1
