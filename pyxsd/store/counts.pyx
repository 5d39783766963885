# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counts by owner, such as how many nodes each domain owns.

A hash table with linear probing: an owner stands in the first free slot behind the
one that its hash names.  The hash has a secret key (see _siphash), so owners cannot
be chosen to stand behind each other.  At most half of the slots are in use, so every
search ends at a free slot soon; where less than an eighth is in use, the table is
halved.  A count that comes back to 0 gives its slot back.

Who makes one node mostly makes more of them, so the slot that was changed last is looked at
before anything is hashed.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from pyxsd._siphash cimport hash_key, sip_word

cdef enum:
    SLOTS_MIN = 16           # of the smallest table

cdef int64_t _live = 0                   # tables alive, for leak tests


cdef int64_t counts_live() noexcept:
    return _live


cdef Counts *_new(uint32_t size) noexcept nogil:
    """An empty table; NULL where memory runs out."""
    global _live
    cdef Counts *counts = <Counts *>calloc(1, sizeof(Counts) + (size - 1) * sizeof(CountSlot))
    if counts != NULL:
        counts.refs = 1
        counts.size = size
        _live += 1
    return counts


cdef Counts *counts_new() except NULL:
    cdef Counts *counts = _new(SLOTS_MIN)
    if counts == NULL:
        raise MemoryError()
    return counts


cdef void counts_unref(Counts *counts) noexcept nogil:
    global _live
    counts.refs -= 1
    if counts.refs == 0:
        _live -= 1
        free(counts)


cdef inline uint32_t _home(const Counts *counts, int64_t owner) noexcept nogil:
    """The slot where the search for an owner begins."""
    return <uint32_t>sip_word(&hash_key, <unsigned long long>owner) & (counts.size - 1)


cdef inline uint32_t _slot(const Counts *counts, int64_t owner) noexcept nogil:
    """The slot of an owner, or the free one where it would go."""
    cdef uint32_t i = counts.last
    if counts.slot[i].count != 0 and counts.slot[i].owner == owner:
        return i
    i = _home(counts, owner)
    while counts.slot[i].count != 0 and counts.slot[i].owner != owner:
        i = (i + 1) & (counts.size - 1)
    return i


cdef int64_t counts_get(const Counts *counts, int64_t owner) noexcept nogil:
    return counts.slot[_slot(counts, owner)].count


cdef uint32_t counts_longest_search(const Counts *counts) noexcept nogil:
    cdef uint32_t i, distance, longest = 0
    for i in range(counts.size):
        if counts.slot[i].count:
            distance = (i - _home(counts, counts.slot[i].owner)) & (counts.size - 1)
            longest = max(longest, distance + 1)
    return longest


cdef Counts *_copy(const Counts *counts, uint32_t size) noexcept nogil:
    """The same counts in a table of its own with that many slots; NULL without memory."""
    cdef Counts *copy = _new(size)
    cdef uint32_t i
    if copy == NULL:
        return NULL
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
    if (counts.used + 1) * 2 > size and counts_get(counts, owner) == 0:
        size *= 2
    elif size > SLOTS_MIN and counts.used * 8 < size:
        size //= 2
    if counts.refs > 1 or size != counts.size:
        copy = _copy(counts, size)
        if copy != NULL:
            counts_unref(counts)
            ref[0] = counts = copy
        elif counts.refs > 1 or size > counts.size:
            raise MemoryError()
    _change(counts, owner, n)
    return 0


cdef int counts_own(Counts **ref) except -1:
    cdef Counts *counts = ref[0]
    cdef Counts *copy
    if counts.refs > 1:
        copy = _copy(counts, counts.size)
        if copy == NULL:
            raise MemoryError()
        counts_unref(counts)
        ref[0] = copy
    return 0


cdef void _change(Counts *counts, int64_t owner, int64_t n) noexcept nogil:
    cdef uint32_t i = _slot(counts, owner)
    cdef CountSlot moved
    counts.last = i
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
