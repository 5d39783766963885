# SPDX-License-Identifier: LGPL-2.1-or-later
# Fields to bytes and back: one function for both ways.  codec.pyx says how it is used.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer

cdef class Codec:
    cdef readonly bint loading       # else saving
    cdef Buffer out          # saving: what was written
    cdef object source       # loading: keeps the bytes alive
    cdef const char *data
    cdef size_t size
    cdef readonly size_t at  # how many of them were taken

    # Each of these writes the field, or replaces it by what was read; ValueError where the
    # bytes end before it, or where it is none.  n bytes as they are:
    cdef int raw(self, void *field, size_t n) except -1
    cdef int u32(self, uint32_t *field) except -1
    cdef int i32(self, int *field) except -1
    cdef int u64(self, uint64_t *field) except -1
    cdef int i64(self, int64_t *field) except -1
    cdef int f64(self, double *field) except -1
    # 0 or 1
    cdef int flag(self, bint *field) except -1
    # Bytes, or None; what to keep is returned.
    cdef bytes blob(self, bytes field)
    # How many items follow, each of `least` bytes or more.
    cdef size_t count(self, size_t n, size_t least) except? 0
    # The content of a buffer.
    cdef int buffer(self, Buffer *field) except -1
    # Saving: a part begins; where.  It ends with close().
    cdef size_t open(self) except? 0
    cdef int close(self, size_t at) except -1
    # Loading: the fields of the next part.
    cdef Codec part(self)
    # Loading: the next n bytes, which are skipped.
    cdef const char *take(self, size_t n) except? NULL
    # Loading: everything must have been taken.
    cdef int end(self) except -1
    # Saving: what was written, which is forgotten.
    cdef bytes written(self)
