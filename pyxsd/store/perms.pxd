# SPDX-License-Identifier: LGPL-2.1-or-later
# Permissions of nodes: parsing, text form, who may do what.  A permission list
# is immutable and shared by all nodes that have it.

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

# In how many entries each domid stands, in all lists of one store and its snapshots.
# Guests choose these numbers, so they are counted in a plain array: it takes the
# same time whatever they choose.  Numbers that no domain can have share one count.
cdef struct Mentions:
    size_t refs              # lists and trees
    int64_t others           # entries of numbers outside 0 to DOMIDS - 1
    uint32_t entries[DOMIDS]     # by domid

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
# The list of these entries, at least one; ValueError for an access that is none.
cdef Perms *perms_make(const PermEntry *entries, size_t count, Mentions *mentions) except NULL
cdef Perms *perms_simple(int64_t owner, int access, Mentions *mentions) except NULL
# The list without the entries of some domains; where one of them is the owner, nobody
# (domid -1) owns instead.  A new reference.
cdef Perms *perms_without(Perms *perms, const DomidSet *domids) except NULL
cdef bint perms_mention(const Perms *perms, const DomidSet *domids) noexcept nogil
# The text form, entries ended by sep ("n5\0r0\0") or only parted by it.
# It ends soon after `most` bytes: nobody wants a longer one.
cdef int perms_text(const Perms *perms, Buffer *out, char sep, bint ended,
                    size_t most) except -1

cdef inline Perms *perms_ref(Perms *perms) noexcept nogil:
    perms.refs += 1
    return perms

cdef void perms_unref(Perms *perms) noexcept nogil

cdef inline int64_t perms_owner(const Perms *perms) noexcept nogil:
    return perms.entry[0].domid

cdef bint perms_equal(const Perms *a, const Perms *b) noexcept nogil
# May this actor do what `want` says (PERM_READ or PERM_WRITE)?
cdef bint perms_allow(const Perms *perms, const Actor *who, int want) noexcept nogil
cdef bint perms_is_owner(const Perms *perms, const Actor *who) noexcept nogil
cdef int64_t perms_live() noexcept
cdef int64_t mentions_live() noexcept

cdef Mentions *mentions_new() except NULL
cdef inline Mentions *mentions_ref(Mentions *mentions) noexcept nogil:
    mentions.refs += 1
    return mentions
cdef void mentions_unref(Mentions *mentions) noexcept nogil
# In how many entries of the lists alive does the domid stand?  For a number that no
# domain can have: at most so many, since they are counted together.
cdef int64_t mentions_of(const Mentions *mentions, int64_t domid) noexcept nogil
