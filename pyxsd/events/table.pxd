# SPDX-License-Identifier: LGPL-2.1-or-later
# A hash table that grows and shrinks a little at a time.  Knows the hash of what is in it, and
# nothing else of that.  table.pyx says how it works.

from libc.stdint cimport uint32_t, uint64_t

# The beginning of whatever stands in a table.
cdef struct Link:
    Link *next               # of the same slot
    uint64_t hash            # set by the caller

cdef struct Table:
    Link **slot
    Link **old               # the slots before, while their links are moved; else NULL
    uint32_t slots           # a power of two
    uint32_t old_slots
    uint32_t moved           # the first old slots, which are empty now

cdef int table_begin(Table *table) except -1
# Frees the table; what stands in it is the caller's.
cdef void table_end(Table *table) noexcept
# There will be so many links: moves a few, or begins to move to a table of the right size.  To be
# called once for each one or two that come or go.  False where memory runs out for more slots.
cdef bint table_fit(Table *table, uint32_t count) noexcept
# Moves all that is still to be moved.
cdef void table_settle(Table *table) noexcept
# How many slots are still to be moved.
cdef inline uint32_t table_unmoved(const Table *table) noexcept nogil:
    return table.old_slots - table.moved if table.old != NULL else 0
# The slot where a link of that hash stands, if it is there.
cdef inline Link **table_slot(const Table *table, uint64_t hash) noexcept nogil:
    cdef uint32_t i
    if table.old != NULL:
        i = <uint32_t>hash & (table.old_slots - 1)
        if i >= table.moved:
            return &table.old[i]
    return &table.slot[<uint32_t>hash & (table.slots - 1)]
cdef inline void table_put(Table *table, Link *link) noexcept nogil:
    cdef Link **slot = table_slot(table, link.hash)
    link.next = slot[0]
    slot[0] = link
# The link must be in the table.
cdef inline void table_take(Table *table, Link *link) noexcept nogil:
    cdef Link **at = table_slot(table, link.hash)
    while at[0] != link:
        at = &at[0].next
    at[0] = link.next
