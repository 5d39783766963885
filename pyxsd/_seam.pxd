# SPDX-License-Identifier: LGPL-2.1-or-later
# The seam between a connection and its transport.

from libc.stdint cimport uint64_t
from pyxsd._journal cimport Journal
from pyxsd._wire cimport Transport

cdef extern from *:
    """
    #define PYXSD_RING ((uint64_t)1 << 63)
    """
    # Beside a domid: the subject of the records of a ring.
    const uint64_t RING "PYXSD_RING"

cdef class Seam(Transport):
    cdef readonly Transport inner    # the bytes of the outside
    cdef Journal journal
    cdef uint64_t subject
    cdef bint fresh          # nothing was read of this connection yet
    cdef int failed                  # while it was replayed: the last reason given to fail()

# What is behind a seam, or the transport itself.
cdef Transport without_seam(Transport transport)
