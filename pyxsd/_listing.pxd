# SPDX-License-Identifier: LGPL-2.1-or-later
# DIRECTORY_PART: a directory that is too long for one packet, piece by piece.

from pyxsd._hub cimport Connection
from pyxsd._requests cimport Requests
from pyxsd._wire cimport Slice

# The handler.
cdef int h_directory_part(Requests s, Connection c, Slice p) except -1
