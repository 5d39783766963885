# SPDX-License-Identifier: LGPL-2.1-or-later
# The table of requests.

from libc.stdint cimport uint32_t
from pyxsd._request cimport Row

# The row of a type; one without a handler for a type that there is not.
cdef const Row *request_row(uint32_t type) noexcept
# All rows, by type.
cdef const Row *request_table() noexcept
