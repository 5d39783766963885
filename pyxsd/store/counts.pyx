# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counts by domid, such as the entries of each owner (floor 0).

A hash table with linear probing; a count of 0 takes no slot.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef int64_t _live = 0                   # tables alive, for leak tests


cdef int64_t counts_live() noexcept:
    return _live


cdef Counts *counts_new(uint32_t size) except NULL:
    global _live
    cdef Counts *counts = <Counts *>calloc(1, sizeof(Counts) + (size - 1) * sizeof(CountSlot))
    if counts == NULL:
        raise MemoryError()
    counts.refs = 1
    counts.size = size
    _live += 1
    return counts


cdef void counts_unref(Counts *counts) noexcept nogil:
    global _live
    counts.refs -= 1
    if counts.refs == 0:
        _live -= 1
        free(counts)


cdef inline uint32_t _slot(const Counts *counts, int64_t owner) noexcept nogil:
    """The slot of an owner, or the free one where it would go."""
    cdef uint32_t mask = counts.size - 1
    cdef uint32_t i = <uint32_t>((<unsigned long long>owner
                                  * <unsigned long long>0x9E3779B97F4A7C15) >> 33) & mask
    while counts.slot[i].count != 0 and counts.slot[i].owner != owner:
        i = (i + 1) & mask
    return i


cdef int64_t counts_get(const Counts *counts, int64_t owner) noexcept nogil:
    return counts.slot[_slot(counts, owner)].count


cdef Counts *_copy(const Counts *counts, uint32_t size) except NULL:
    cdef Counts *copy = counts_new(size)
    cdef uint32_t i
    if size == counts.size:
        memcpy(copy.slot, counts.slot, size * sizeof(CountSlot))
    else:
        for i in range(counts.size):
            if counts.slot[i].count:
                copy.slot[_slot(copy, counts.slot[i].owner)] = counts.slot[i]
    copy.used = counts.used
    return copy


cdef int counts_add(Counts **ref, int64_t owner, int64_t n) except -1:
    cdef Counts *counts = ref[0]
    cdef Counts *copy
    cdef uint32_t size = counts.size
    if n == 0:
        return 0
    if counts.used * 2 >= size:
        size *= 2
    if counts.refs > 1 or size != counts.size:
        copy = _copy(counts, size)
        counts_unref(counts)
        ref[0] = counts = copy
    _change(counts, owner, n)
    return 0


cdef void counts_take(Counts *counts, int64_t owner, int64_t n) noexcept nogil:
    _change(counts, owner, -n)


cdef void _change(Counts *counts, int64_t owner, int64_t n) noexcept nogil:
    cdef uint32_t i = _slot(counts, owner)
    cdef CountSlot moved
    if counts.slot[i].count == 0:
        counts.slot[i].owner = owner
        counts.used += 1
    counts.slot[i].count += n
    if counts.slot[i].count == 0:
        # Close the gap: what was pushed behind this slot is placed again.
        counts.used -= 1
        while True:
            i = (i + 1) & (counts.size - 1)
            if counts.slot[i].count == 0:
                break
            moved = counts.slot[i]
            counts.slot[i].count = 0
            counts.slot[_slot(counts, moved.owner)] = moved
