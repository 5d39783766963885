# SPDX-License-Identifier: LGPL-2.1-or-later
# DIRECTORY_PART: a directory that is too long for one packet, piece by piece.

from pyxsd._request cimport Request, State

# The handler.
cdef int directory_part(State s, Request *r) except -1
