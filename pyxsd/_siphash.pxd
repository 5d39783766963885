# SPDX-License-Identifier: LGPL-2.1-or-later
# SipHash-1-3, a hash under a secret key, for every hash table whose keys a guest
# can choose: names, paths, domids.  Without the key nobody can find keys that
# collide, so a lookup takes a few steps whatever the guests store.
#
# Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; 1-3 (one round
# for each word, three at the end) is the variant that hash tables use.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcpy

cdef struct HashKey:
    uint64_t low
    uint64_t high

# The key of this process.  It is set when the module is imported, and once more at most, before
# the first server is made.
cdef HashKey hash_key

cdef struct SipState:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3

cdef inline uint64_t _rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))

cdef inline void _sip_round(SipState *s) noexcept nogil:
    s.v0 += s.v1
    s.v2 += s.v3
    s.v1 = _rotate(s.v1, 13) ^ s.v0
    s.v3 = _rotate(s.v3, 16) ^ s.v2
    s.v0 = _rotate(s.v0, 32)
    s.v2 += s.v1
    s.v0 += s.v3
    s.v1 = _rotate(s.v1, 17) ^ s.v2
    s.v3 = _rotate(s.v3, 21) ^ s.v0
    s.v2 = _rotate(s.v2, 32)

cdef inline void _sip_begin(SipState *s, const HashKey *key) noexcept nogil:
    s.v0 = key.low ^ <uint64_t>0x736f6d6570736575
    s.v1 = key.high ^ <uint64_t>0x646f72616e646f6d
    s.v2 = key.low ^ <uint64_t>0x6c7967656e657261
    s.v3 = key.high ^ <uint64_t>0x7465646279746573

cdef inline void _sip_word(SipState *s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    _sip_round(s)
    s.v0 ^= word

cdef inline uint64_t _sip_end(SipState *s) noexcept nogil:
    s.v2 ^= 0xff
    _sip_round(s)
    _sip_round(s)
    _sip_round(s)
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3

# The hash of n bytes.
cdef inline uint64_t sip_bytes(const HashKey *key, const char *p, size_t n) noexcept nogil:
    cdef SipState s
    _sip_begin(&s, key)
    return _sip_rest(&s, p, n, n)

# The hash of a word and n bytes: of a name below a node, for example.
cdef inline uint64_t sip_word_bytes(const HashKey *key, uint64_t word, const char *p,
                                    size_t n) noexcept nogil:
    cdef SipState s
    _sip_begin(&s, key)
    _sip_word(&s, word)
    return _sip_rest(&s, p, n, n + 8)

# The hash of one word.  Words are only compared with words, so no length is added.
cdef inline uint64_t sip_word(const HashKey *key, uint64_t word) noexcept nogil:
    cdef SipState s
    _sip_begin(&s, key)
    _sip_word(&s, word)
    return _sip_end(&s)

cdef inline uint64_t _sip_rest(SipState *s, const char *p, size_t n,
                               size_t length) noexcept nogil:
    cdef uint64_t word
    cdef uint32_t four
    cdef uint16_t two
    cdef int at = 0
    while n >= 8:
        memcpy(&word, p, 8)
        _sip_word(s, word)
        p += 8
        n -= 8
    word = <uint64_t>length << 56
    # What is left, up to 7 bytes, in as few pieces as its length has bits.
    if n & 4:
        memcpy(&four, p, 4)
        word |= four
        at = 4
    if n & 2:
        memcpy(&two, p + at, 2)
        word |= <uint64_t>two << (8 * at)
        at += 2
    if n & 1:
        word |= <uint64_t><unsigned char>p[at] << (8 * at)
    _sip_word(s, word)
    return _sip_end(s)
