# SPDX-License-Identifier: LGPL-2.1-or-later
# Permissions of nodes: parsing, text form, who may do what.  A permission list
# is immutable and shared by all nodes that have it.  perms.pyx says what becomes of
# the entries of domains that are gone.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer

cdef enum:
    PERM_NONE = 0
    PERM_READ = 1
    PERM_WRITE = 2

cdef enum:
    DOMIDS = 0x7FF0          # a domain's domid is below; the numbers above are reserved
    DOMID_ANY = 0x7FF5       # reserved: as an entry behind the first it means everybody

cdef struct PermEntry:
    int64_t domid
    int access               # PERM_READ | PERM_WRITE
    uint32_t life            # of the domid; 0 where that is no number that a domain can have

# One of the domains that have a domid one after the other, as far as lists name it.
cdef struct Life:
    int64_t entries          # that name it, in all lists of one store and its snapshots
    # The age of the store from which on it is gone, 0 while it is not; of a place that is free:
    # the next one that is, or 0
    uint64_t died

# The lives that the lists of one store and its snapshots name.  Guests choose the numbers, so
# they are looked up in a plain array: it takes the same time whatever they choose.  Numbers that
# no domain can have share one count.
cdef struct Mentions:
    size_t refs              # lists and trees
    int64_t others           # entries of numbers outside 0 to DOMIDS - 1
    uint32_t life[DOMIDS]    # the present one of each domid; 0: no list names it
    Life *lives              # by number; 0 is none
    uint32_t used            # places in use or free, the one of number 0 with them
    uint32_t room
    uint32_t free            # the first free one of them; 0: there is none

# The first entry names the owner and the access of everybody not listed.
cdef struct Perms:
    uint32_t refs
    uint32_t count           # entries, at least 1
    Mentions *mentions       # where they are counted
    PermEntry entry[1]

# A set of domids, looked up in one step.  Begin it with zeroes.
cdef enum:
    DOMID_WORDS = 512        # words of 64 bits that hold DOMIDS bits
    OTHERS_MAX = 8

cdef struct DomidSet:
    uint64_t bits[DOMID_WORDS]       # bit d % 64 of word d // 64 stands for domid d
    size_t others
    int64_t other[OTHERS_MAX]        # numbers that no domain can have

# False where it already has OTHERS_MAX numbers that no domain can have.
cdef bint domids_add(DomidSet *set, int64_t domid) noexcept nogil

cdef inline bint domids_have(const DomidSet *set, int64_t domid) noexcept nogil:
    cdef size_t i
    if 0 <= domid < DOMIDS:
        return (set.bits[domid >> 6] >> (domid & 63)) & 1
    for i in range(set.others):
        if set.other[i] == domid:
            return True
    return False

# On whose behalf a request is served.
cdef struct Actor:
    int64_t domid
    int64_t target           # the domain it also acts for (SET_TARGET); -1 for none
    bint privileged          # domid or target is 0
    bint unchecked           # perms-activate = false: node checks are off

# Reads "n5\0r0\0..."; what follows the last NUL is dropped.  NULL where it is
# malformed or empty (and with MemoryError set where memory ran out).
cdef Perms *perms_parse(const char *p, size_t n, Mentions *mentions) except? NULL
# The list of these entries, at least one; ValueError for an access that is none.  Where the life
# of one is 0 it is the present one of its domid.
cdef Perms *perms_make(const PermEntry *entries, size_t count, Mentions *mentions) except NULL
cdef Perms *perms_simple(int64_t owner, int access, Mentions *mentions) except NULL
# The list without the entries of some domains, and without those that count no more at that age;
# where one of these domains is the owner, nobody (domid -1) owns instead.  A new reference.
cdef Perms *perms_without(Perms *perms, const DomidSet *domids, uint64_t age) except NULL
cdef bint perms_mention(const Perms *perms, const DomidSet *domids) noexcept nogil
# From which age of the store on it is gone; 0: it is not.
cdef inline uint64_t perms_died(const Perms *perms, uint32_t i) noexcept nogil:
    cdef uint32_t life = perms.entry[i].life
    return perms.mentions.lives[life].died if life else 0

# In a store of that age: is the life over that an entry names?
cdef inline bint perms_over(const Perms *perms, uint32_t i, uint64_t age) noexcept nogil:
    cdef uint64_t died = perms_died(perms, i)
    return died != 0 and died <= age

# Is the entry to be left out there?  Never the owner's: no store has nodes of owners who are gone.
cdef inline bint perms_gone(const Perms *perms, uint32_t i, uint64_t age) noexcept nogil:
    return i != 0 and perms_over(perms, i, age)

# The text form in a store of that age, entries ended by sep ("n5\0r0\0") or only parted by it.
# It ends soon after `most` bytes: nobody wants a longer one.
cdef int perms_text(const Perms *perms, uint64_t age, Buffer *out, char sep, bint ended,
                    size_t most) except -1

cdef inline Perms *perms_ref(Perms *perms) noexcept nogil:
    perms.refs += 1
    return perms

cdef void perms_unref(Perms *perms) noexcept nogil

cdef inline int64_t perms_owner(const Perms *perms) noexcept nogil:
    return perms.entry[0].domid

# Do they have the same entries in stores of the same age?
cdef bint perms_equal(const Perms *a, const Perms *b, uint64_t age) noexcept nogil
# May this actor do what `want` says (PERM_READ or PERM_WRITE), is it the owner?  However old the
# store is: who asks lives, so no life that is over is his.
cdef bint perms_allow(const Perms *perms, const Actor *who, int want) noexcept nogil
cdef bint perms_is_owner(const Perms *perms, const Actor *who) noexcept nogil
# Might it read that in a store of that age?
cdef bint perms_showed(const Perms *perms, const Actor *who, uint64_t age) noexcept nogil
cdef int64_t perms_live() noexcept
cdef int64_t mentions_live() noexcept

cdef Mentions *mentions_new() except NULL
cdef inline Mentions *mentions_ref(Mentions *mentions) noexcept nogil:
    mentions.refs += 1
    return mentions
cdef void mentions_unref(Mentions *mentions) noexcept nogil
# In how many entries of the lists alive does the domid stand, as that of its present life?  For a
# number that no domain can have: at most so many, since they are counted together.
cdef int64_t mentions_of(const Mentions *mentions, int64_t domid) noexcept nogil
# The present life of a domid ends: in stores from that age on.  Whoever names the domid from now
# on names the next one.
cdef void mentions_end(Mentions *mentions, int64_t domid, uint64_t age) noexcept nogil
# A life of the domid that has ended so, for entries that are made anew; it must get some.
# ValueError where there can be none.
cdef uint32_t mentions_past(Mentions *mentions, int64_t domid, uint64_t age) except 0
# How many lives are named, and how many places there are for them, for tests.
cdef uint32_t mentions_lives(const Mentions *mentions) noexcept nogil
