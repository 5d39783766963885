# SPDX-License-Identifier: LGPL-2.1-or-later
# Bytes in and out of a socket.

from pyxsd._wire cimport Transport

cdef class SocketTransport(Transport):
    cdef readonly int fd     # owned; -1 once closed
    cdef bint is_borrowed    # closing it leaves the descriptor open
    cpdef close(self)
