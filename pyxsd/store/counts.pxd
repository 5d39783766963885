# SPDX-License-Identifier: LGPL-2.1-or-later
# A count for each owner of nodes, shared between copies until one of them changes.

from libc.stdint cimport int64_t, uint32_t

cdef struct CountSlot:
    int64_t owner
    int64_t count            # 0: the slot is free

cdef struct Counts:
    uint32_t refs            # trees that share the table
    uint32_t used            # slots in use
    uint32_t size            # slots, a power of two; at most half of them in use
    uint32_t last            # the slot of whoever was counted last: mostly the next one, too
    CountSlot slot[1]

# An empty table of the smallest size.
cdef Counts *counts_new() except NULL
cdef void counts_unref(Counts *counts) noexcept nogil
# The count of an owner; 0 where it has none.
cdef int64_t counts_get(const Counts *counts, int64_t owner) noexcept nogil
# Adds n (which may be negative) to the count of an owner.  *ref is replaced by a
# copy where others share the table, or where it becomes too full or too empty.
cdef int counts_add(Counts **ref, int64_t owner, int64_t n) except -1
# Makes *ref a table that nobody else shares.  Taking from an owner's count cannot fail then.
cdef int counts_own(Counts **ref) except -1
# The most slots that finding one of the owners looks at: 1 where nothing collides.
cdef uint32_t counts_longest_search(const Counts *counts) noexcept nogil
cdef int64_t counts_live() noexcept
