# SPDX-License-Identifier: LGPL-2.1-or-later
"""A hash table that grows and shrinks a little at a time.

Links of the same slot are a list.  Where there are more links than slots the table is to have twice
as many slots, and half as many where less than an eighth of them would be used.  Moving 131,072
links at once takes 20 milliseconds, in which nobody else is served.  So the old slots stay beside
the new ones, and each link that comes or goes moves a few of the others: MOVED_LINKS of them, or
what stands in MOVED_SLOTS slots.  A slot of the old table is moved as a whole, from the first one
on, so the hash says in which table a link stands.

    old   [ - - - - | a b c d ]     moved = 4: slots 0 to 3 are empty now
    slot  [ . . . . . . . . . . . . . . . . ]

A table of n slots that grows is moved when n / MOVED_LINKS links have come, and wants to grow again
when n have; one that shrinks is moved when n / MOVED_SLOTS have gone, and wants to shrink again
when n / 16 have.  While links are moved no other size is looked at.
"""

from libc.stdlib cimport calloc, free

cdef enum:
    SLOTS_MIN = 64           # of the smallest table
    MOVED_LINKS = 8
    MOVED_SLOTS = 64


cdef int table_begin(Table *table) except -1:
    table.slots = SLOTS_MIN
    table.slot = <Link **>calloc(table.slots, sizeof(Link *))
    table.old = NULL
    table.old_slots = table.moved = 0
    if table.slot == NULL:
        raise MemoryError()
    return 0


cdef void table_end(Table *table) noexcept:
    free(table.old)
    free(table.slot)


cdef void _move(Table *table, uint32_t links, uint32_t slots) noexcept:
    """Moves the next slots, until so many links or slots are moved."""
    cdef Link *link
    cdef Link **slot
    cdef uint32_t moved = 0, end = table.old_slots
    if end - table.moved > slots:
        end = table.moved + slots
    while table.moved < end and moved < links:
        while table.old[table.moved] != NULL:
            link = table.old[table.moved]
            table.old[table.moved] = link.next
            slot = &table.slot[<uint32_t>link.hash & (table.slots - 1)]
            link.next = slot[0]
            slot[0] = link
            moved += 1
        table.moved += 1
    if table.moved == table.old_slots:
        free(table.old)
        table.old = NULL


cdef bint _resize(Table *table, uint32_t slots) noexcept:
    """Begins to move to that many slots; False where memory runs out."""
    cdef Link **slot = <Link **>calloc(slots, sizeof(Link *))
    if slot == NULL:
        return False
    table.old = table.slot
    table.old_slots = table.slots
    table.moved = 0
    table.slot = slot
    table.slots = slots
    return True


cdef bint table_fit(Table *table, uint32_t count) noexcept:
    if table.old != NULL:
        _move(table, MOVED_LINKS, MOVED_SLOTS)
    elif count > table.slots:
        return _resize(table, table.slots * 2)
    elif table.slots > SLOTS_MIN and count * 8 < table.slots:
        # Without memory it stays as it is, which is as good for everything else.
        _resize(table, table.slots // 2)
    return True


cdef void table_settle(Table *table) noexcept:
    if table.old != NULL:
        _move(table, <uint32_t>-1, <uint32_t>-1)
