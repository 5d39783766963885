# SPDX-License-Identifier: LGPL-2.1-or-later
"""Permission lists of nodes: parsing, text form, who may do what."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr
from pyxsd._wire cimport buffer_len, buffer_put, decimal, strict_int

cdef const char *_letters = b"nrwb"      # by access

cdef int64_t _live = 0                   # lists alive, for leak tests
cdef int64_t _live_mentions = 0          # and counts of mentions


cdef int64_t perms_live() noexcept:
    return _live


cdef int64_t mentions_live() noexcept:
    return _live_mentions


cdef Mentions *mentions_new() except NULL:
    # calloc() takes so much memory from the system as zero pages: only those are
    # there that somebody wrote to.
    global _live_mentions
    cdef Mentions *mentions = <Mentions *>calloc(1, sizeof(Mentions))
    if mentions == NULL:
        raise MemoryError()
    mentions.refs = 1
    _live_mentions += 1
    return mentions


cdef void mentions_unref(Mentions *mentions) noexcept nogil:
    global _live_mentions
    mentions.refs -= 1
    if mentions.refs == 0:
        _live_mentions -= 1
        free(mentions)


cdef int64_t mentions_of(const Mentions *mentions, int64_t domid) noexcept nogil:
    return mentions.entries[domid] if 0 <= domid < DOMIDS else mentions.others


cdef void _count_entries(const Perms *perms, int n) noexcept nogil:
    """Adds n (1 or -1) for every entry of a list."""
    cdef Mentions *mentions = perms.mentions
    cdef uint32_t i
    cdef int64_t domid
    for i in range(perms.count):
        domid = perms.entry[i].domid
        if 0 <= domid < DOMIDS:
            mentions.entries[domid] += n
        else:
            mentions.others += n


cdef Perms *_new(size_t count) except NULL:
    """A list to be filled in, which nothing counts yet."""
    global _live
    cdef Perms *perms = <Perms *>malloc(sizeof(Perms) + (count - 1) * sizeof(PermEntry))
    if perms == NULL:
        raise MemoryError()
    perms.refs = 1
    perms.count = <uint32_t>count
    perms.mentions = NULL
    _live += 1
    return perms


cdef Perms *_counted(Perms *perms, Mentions *mentions) noexcept:
    """The list, from now on counted."""
    perms.mentions = mentions_ref(mentions)
    _count_entries(perms, 1)
    return perms


cdef void perms_unref(Perms *perms) noexcept nogil:
    global _live
    perms.refs -= 1
    if perms.refs:
        return
    if perms.mentions != NULL:
        _count_entries(perms, -1)
        mentions_unref(perms.mentions)
    _live -= 1
    free(perms)


cdef int _access(char letter) noexcept:
    cdef const char *at = <const char *>memchr(_letters, letter, 4)
    return -1 if at == NULL else <int>(at - _letters)


cdef Perms *perms_parse(const char *p, size_t n, Mentions *mentions) except? NULL:
    cdef size_t count = 0, i = 0
    cdef const char *end
    cdef Perms *perms
    for i in range(n):
        if p[i] == 0:
            count += 1
    if count == 0:
        return NULL
    perms = _new(count)
    for i in range(count):
        end = <const char *>memchr(p, 0, n)
        perms.entry[i].access = _access(p[0])
        if perms.entry[i].access < 0 or not strict_int(p + 1, end - p - 1, &perms.entry[i].domid):
            perms_unref(perms)
            return NULL
        n -= end - p + 1
        p = end + 1
    return _counted(perms, mentions)


cdef Perms *perms_make(const PermEntry *entries, size_t count, Mentions *mentions) except NULL:
    cdef Perms *perms
    cdef size_t i
    for i in range(count):
        if entries[i].access & ~(PERM_READ | PERM_WRITE):
            raise ValueError(f"an access of {entries[i].access}")
    perms = _new(count)
    for i in range(count):
        perms.entry[i] = entries[i]
    return _counted(perms, mentions)


cdef Perms *perms_simple(int64_t owner, int access, Mentions *mentions) except NULL:
    cdef Perms *perms = _new(1)
    perms.entry[0].domid = owner
    perms.entry[0].access = access
    return _counted(perms, mentions)


cdef bint domids_add(DomidSet *set, int64_t domid) noexcept nogil:
    if 0 <= domid < DOMIDS:
        set.bits[domid >> 6] |= <uint64_t>1 << (domid & 63)
        return True
    if set.others == OTHERS_MAX:
        return False
    set.other[set.others] = domid
    set.others += 1
    return True


cdef bint perms_mention(const Perms *perms, const DomidSet *domids) noexcept nogil:
    cdef uint32_t i
    for i in range(perms.count):
        if domids_have(domids, perms.entry[i].domid):
            return True
    return False


cdef Perms *perms_without(Perms *perms, const DomidSet *domids) except NULL:
    cdef uint32_t i, kept = 1
    cdef Perms *copy
    for i in range(1, perms.count):
        kept += not domids_have(domids, perms.entry[i].domid)
    copy = _new(kept)
    copy.entry[0] = perms.entry[0]
    if domids_have(domids, copy.entry[0].domid):
        copy.entry[0].domid = -1
    kept = 1
    for i in range(1, perms.count):
        if not domids_have(domids, perms.entry[i].domid):
            copy.entry[kept] = perms.entry[i]
            kept += 1
    return _counted(copy, perms.mentions)


cdef bint perms_equal(const Perms *a, const Perms *b) noexcept nogil:
    cdef uint32_t i
    if a == b:
        return True
    if a.count != b.count:
        return False
    for i in range(a.count):
        if a.entry[i].domid != b.entry[i].domid or a.entry[i].access != b.entry[i].access:
            return False
    return True


cdef int perms_text(const Perms *perms, Buffer *out, char sep, bint ended,
                    size_t most) except -1:
    cdef char text[32]
    cdef uint32_t i
    cdef char *at
    cdef size_t begin = buffer_len(out)
    text[31] = sep
    for i in range(perms.count):
        if buffer_len(out) - begin > most:
            break
        # oxenstored prints its 63-bit numbers as unsigned ones.
        at = decimal(text + 31, <uint64_t>perms.entry[i].domid & <uint64_t>0x7fffffffffffffff) - 1
        at[0] = _letters[perms.entry[i].access]
        buffer_put(out, at, text + 31 - at + (ended or i + 1 < perms.count))
    return 0


cdef inline bint _grants(const Perms *perms, int64_t domid, int want) noexcept nogil:
    """Behind the owner's entry, the first one of this domain or of everybody counts
    (n0 r32757 w5: domain 5 may read and not write).  Without any it is the access of
    the owner's entry.  An owner of DOMID_ANY is nobody, as no domain has that number.
    """
    cdef uint32_t i
    cdef int64_t entry
    for i in range(1, perms.count):
        entry = perms.entry[i].domid
        if entry == domid or entry == DOMID_ANY:
            return perms.entry[i].access & want != 0
    return perms.entry[0].access & want != 0


cdef bint perms_is_owner(const Perms *perms, const Actor *who) noexcept nogil:
    return who.privileged or who.unchecked or who.domid == perms.entry[0].domid \
        or (who.target >= 0 and who.target == perms.entry[0].domid)


cdef bint perms_allow(const Perms *perms, const Actor *who, int want) noexcept nogil:
    if perms_is_owner(perms, who):
        return True
    if _grants(perms, who.domid, want):
        return True
    return who.target >= 0 and _grants(perms, who.target, want)
