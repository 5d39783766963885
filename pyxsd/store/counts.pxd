# SPDX-License-Identifier: LGPL-2.1-or-later
# A count per domid, shared between copies until one of them changes.

from libc.stdint cimport int64_t, uint32_t

cdef struct CountSlot:
    int64_t owner
    int64_t count            # 0: the slot is free

cdef struct Counts:
    uint32_t refs
    uint32_t used
    uint32_t size            # slots, a power of two, at most half of them used
    CountSlot slot[1]

cdef Counts *counts_new(uint32_t size) except NULL
cdef void counts_unref(Counts *counts) noexcept nogil
cdef int64_t counts_get(const Counts *counts, int64_t owner) noexcept nogil
# Adds n, in a copy where others share these.
cdef int counts_add(Counts **ref, int64_t owner, int64_t n) except -1
# The same where nobody shares them and n takes from a count that is there.
cdef void counts_take(Counts *counts, int64_t owner, int64_t n) noexcept nogil
cdef int64_t counts_live() noexcept
