# SPDX-License-Identifier: LGPL-2.1-or-later
# One request that came over the wire: from its packet to its reply and its events.

from pyxsd._conn cimport Connection
from pyxsd._request cimport State
from pyxsd._wire cimport Header

cdef int dispatch(State s, Connection c, const Header *head, const char *payload) except -1
