# SPDX-License-Identifier: LGPL-2.1-or-later
"""Permission lists of nodes: parsing, text form, who may do what.

When a domain is gone its entries count no more, and nobody looks for them: each guest that
names it in all of its nodes could make that long.  Instead each entry says which life of its
domid it names, that of the domain that had it when the list was made.  The end of a life is
noted once, whatever the number of entries, and whoever reads a list leaves out those whose life
is over (perms_gone).  The domid's next domain is another life, so its entries are not those.

Snapshots of before must not change.  So a store has an age, which grows each time domains are
forgotten (tree.pyx), a life is over from an age on, and who reads a list says how old the store
is that he reads it in.  Example: the list n0 r5 was made in a store of age 3, and domain 5 dies,
which makes the age 4.  The store shows n0 from then on, a transaction that began before shows
n0 r5.

What a list allows does not depend on the age: whoever asks lives.  Who acts for the next domain 5
may not read that node, in the transaction of before either.  Who is told of a change is another
matter: as in oxenstored that goes by what was then.

A life is forgotten with the last entry that names it.  So there are never more of them than
there are entries, and a domain that no list names leaves nothing.  Entries that count no more
take the place that they had until their list goes.

Numbers that no domain can have have no lives; only domain 0 can end them, see forget.pyx.
"""

from libc.stdint cimport UINT32_MAX, UINT64_MAX
from libc.stdlib cimport calloc, free, malloc, realloc
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
        free(mentions.lives)
        free(mentions)


cdef int64_t mentions_of(const Mentions *mentions, int64_t domid) noexcept nogil:
    cdef uint32_t life
    if not 0 <= domid < DOMIDS:
        return mentions.others
    life = mentions.life[domid]
    return mentions.lives[life].entries if life else 0


cdef uint32_t mentions_lives(const Mentions *mentions) noexcept nogil:
    cdef uint32_t free_ = mentions.free, count = max(mentions.used, <uint32_t>1) - 1
    while free_:
        count -= 1
        free_ = <uint32_t>mentions.lives[free_].died
    return count


cdef uint32_t _begin_life(Mentions *mentions) noexcept nogil:
    """A life that no entry names yet; 0 where memory runs out."""
    cdef uint32_t life = mentions.free, room
    cdef Life *more
    if life:
        mentions.free = <uint32_t>mentions.lives[life].died
    else:
        if mentions.used >= mentions.room:
            if mentions.room > UINT32_MAX // 2:
                return 0
            room = max(2 * mentions.room, <uint32_t>32)
            more = <Life *>realloc(mentions.lives, room * sizeof(Life))
            if more == NULL:
                return 0
            mentions.lives = more
            mentions.room = room
        life = max(mentions.used, <uint32_t>1)
        mentions.used = life + 1
    mentions.lives[life].entries = 0
    mentions.lives[life].died = 0
    return life


cdef void mentions_end(Mentions *mentions, int64_t domid, uint64_t age) noexcept nogil:
    if 0 <= domid < DOMIDS and mentions.life[domid]:
        mentions.lives[mentions.life[domid]].died = age
        mentions.life[domid] = 0


cdef uint32_t mentions_past(Mentions *mentions, int64_t domid, uint64_t age) except 0:
    cdef uint32_t life
    if not 0 <= domid < DOMIDS or age == 0:
        raise ValueError(f"the end of domain {domid} at the age {age}")
    life = _begin_life(mentions)
    if life == 0:
        raise MemoryError()
    mentions.lives[life].died = age
    return life


cdef void _name_no_more(Perms *perms) noexcept nogil:
    """Takes the entries of a list out of the lives that they name."""
    cdef Mentions *mentions = perms.mentions
    cdef uint32_t i, life
    for i in range(perms.count):
        life = perms.entry[i].life
        if life == 0:
            mentions.others -= 1
            continue
        mentions.lives[life].entries -= 1
        if mentions.lives[life].entries == 0:
            if mentions.lives[life].died == 0:
                mentions.life[perms.entry[i].domid] = 0
            mentions.lives[life].died = mentions.free
            mentions.free = life


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


cdef Perms *_counted(Perms *perms, Mentions *mentions) except NULL:
    """The list, from now on counted; MemoryError, and there is no list."""
    cdef uint32_t i, life
    cdef int64_t domid
    perms.mentions = mentions_ref(mentions)
    for i in range(perms.count):
        domid = perms.entry[i].domid
        if not 0 <= domid < DOMIDS:
            perms.entry[i].life = 0
            mentions.others += 1
            continue
        life = perms.entry[i].life
        if life == 0:
            life = mentions.life[domid]
        if life == 0:
            life = _begin_life(mentions)
            if life == 0:
                perms.count = i
                perms_unref(perms)
                raise MemoryError()
            mentions.life[domid] = life
        perms.entry[i].life = life
        mentions.lives[life].entries += 1
    return perms


cdef void perms_unref(Perms *perms) noexcept nogil:
    global _live
    perms.refs -= 1
    if perms.refs:
        return
    if perms.mentions != NULL:
        _name_no_more(perms)
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
        perms.entry[i].life = 0
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
    perms.entry[0].life = 0
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


cdef inline bint _stays(const Perms *perms, uint32_t i, const DomidSet *domids,
                        uint64_t age) noexcept nogil:
    return not domids_have(domids, perms.entry[i].domid) and not perms_gone(perms, i, age)


cdef Perms *perms_without(Perms *perms, const DomidSet *domids, uint64_t age) except NULL:
    cdef uint32_t i, kept = 1
    cdef Perms *copy
    for i in range(1, perms.count):
        kept += _stays(perms, i, domids, age)
    copy = _new(kept)
    copy.entry[0] = perms.entry[0]
    if domids_have(domids, copy.entry[0].domid):
        copy.entry[0].domid = -1
    kept = 1
    for i in range(1, perms.count):
        if _stays(perms, i, domids, age):
            copy.entry[kept] = perms.entry[i]
            kept += 1
    return _counted(copy, perms.mentions)


cdef inline uint32_t _next(const Perms *perms, uint32_t i, uint64_t age) noexcept nogil:
    """The first entry from that one on that counts; their count where there is none."""
    while i < perms.count and perms_gone(perms, i, age):
        i += 1
    return i


cdef bint perms_equal(const Perms *a, const Perms *b, uint64_t age) noexcept nogil:
    cdef uint32_t i = 0, k = 0
    if a == b:
        return True
    while True:
        i = _next(a, i, age)
        k = _next(b, k, age)
        if i == a.count or k == b.count:
            return i == a.count and k == b.count
        if a.entry[i].domid != b.entry[k].domid or a.entry[i].access != b.entry[k].access:
            return False
        i += 1
        k += 1


cdef int perms_text(const Perms *perms, uint64_t age, Buffer *out, char sep, bint ended,
                    size_t most) except -1:
    cdef char text[32]
    cdef uint32_t i
    cdef char *at
    cdef size_t begin = buffer_len(out)
    text[31] = sep
    for i in range(perms.count):
        if buffer_len(out) - begin > most:
            break
        if perms_gone(perms, i, age):
            continue
        if not ended and buffer_len(out) > begin:
            buffer_put(out, text + 31, 1)
        # oxenstored prints its 63-bit numbers as unsigned ones.
        at = decimal(text + 31, <uint64_t>perms.entry[i].domid & <uint64_t>0x7fffffffffffffff) - 1
        at[0] = _letters[perms.entry[i].access]
        buffer_put(out, at, text + 31 - at + ended)
    return 0


cdef inline bint _is_of(const Perms *perms, uint32_t i, int64_t domid,
                        uint64_t age) noexcept nogil:
    """Does an entry name the domain that has the domid, and lives in a store of that age?"""
    return perms.entry[i].domid == domid and not perms_over(perms, i, age)


cdef inline bint _grants(const Perms *perms, int64_t domid, int want,
                         uint64_t age) noexcept nogil:
    """Behind the owner's entry, the first one of this domain or of everybody counts
    (n0 r32757 w5: domain 5 may read and not write).  Without any it is the access of
    the owner's entry.  An owner of DOMID_ANY is nobody, as no domain has that number.
    """
    cdef uint32_t i
    for i in range(1, perms.count):
        if perms.entry[i].domid == DOMID_ANY or _is_of(perms, i, domid, age):
            return perms.entry[i].access & want != 0
    return perms.entry[0].access & want != 0


cdef inline bint _owns(const Perms *perms, const Actor *who, uint64_t age) noexcept nogil:
    return who.privileged or who.unchecked or _is_of(perms, 0, who.domid, age) \
        or (who.target >= 0 and _is_of(perms, 0, who.target, age))


cdef inline bint _allow(const Perms *perms, const Actor *who, int want,
                        uint64_t age) noexcept nogil:
    if _owns(perms, who, age):
        return True
    if _grants(perms, who.domid, want, age):
        return True
    return who.target >= 0 and _grants(perms, who.target, want, age)


cdef bint perms_is_owner(const Perms *perms, const Actor *who) noexcept nogil:
    return _owns(perms, who, UINT64_MAX)


cdef bint perms_allow(const Perms *perms, const Actor *who, int want) noexcept nogil:
    return _allow(perms, who, want, UINT64_MAX)


cdef bint perms_showed(const Perms *perms, const Actor *who, uint64_t age) noexcept nogil:
    return _allow(perms, who, PERM_READ, age)
