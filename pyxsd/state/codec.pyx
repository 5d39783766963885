# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fields to bytes and back.

What is saved and what is loaded must be the same fields in the same order.  So there is one
function for both ways: it names each field once, and the Codec that it is given either writes
the field or replaces it by what it reads,

    codec.u64(&c.ops)
    c.label = codec.blob(c.label)

Numbers are in the byte order of the machine, of 4 or 8 bytes; a flag is one byte, 0 or 1; bytes
stand behind their length in 4 bytes, which is 0xffffffff for None; and so does a part, which a
reader can skip.  Nothing is named in the
bytes: another order or number of fields is another version of the file.
"""

cimport cython
from libc.string cimport memcpy
from pyxsd._wire cimport buffer_free, buffer_len, buffer_put

cdef enum:
    NONE = 0xFFFFFFFF        # in place of a length


@cython.final
@cython.no_gc
cdef class Codec:
    """Writes fields, or reads them from `source` (bytes or a view of some)."""

    def __cinit__(self, source=None):
        cdef const unsigned char[::1] view
        if source is not None:
            self.loading = True
            self.source = source
            view = source
            self.size = view.shape[0]
            if self.size:
                self.data = <const char *>&view[0]

    def __dealloc__(self):
        buffer_free(&self.out)

    cdef int raw(self, void *field, size_t n) except -1:
        if self.loading:
            memcpy(field, self.take(n), n)
            return 0
        return buffer_put(&self.out, field, n)

    cdef const char *take(self, size_t n) except? NULL:
        cdef size_t at = self.at
        if n > self.size - at:
            raise ValueError(f"{n - (self.size - at)} bytes are missing at byte {at}")
        self.at = at + n
        return self.data + at

    cdef int u32(self, uint32_t *field) except -1:
        return self.raw(field, 4)

    cdef int i32(self, int *field) except -1:
        return self.raw(field, 4)

    cdef int u64(self, uint64_t *field) except -1:
        return self.raw(field, 8)

    cdef int i64(self, int64_t *field) except -1:
        return self.raw(field, 8)

    cdef int f64(self, double *field) except -1:
        self.raw(field, 8)
        if field[0] != field[0]:
            raise ValueError("a number that is none")
        return 0

    cdef int flag(self, bint *field) except -1:
        cdef unsigned char byte = field[0] != 0
        self.raw(&byte, 1)
        if byte > 1:
            raise ValueError(f"a flag of {byte}")
        field[0] = byte
        return 0

    cdef bytes blob(self, bytes field):
        cdef uint32_t n = NONE
        if not self.loading:
            if field is not None:
                if len(field) >= NONE:
                    raise OverflowError(f"{len(field)} bytes in one field")
                n = <uint32_t>len(field)
            buffer_put(&self.out, &n, 4)
            if field is not None:
                buffer_put(&self.out, <const char *>field, n)
            return field
        self.raw(&n, 4)
        if n == NONE:
            return None
        return self.take(n)[:n]

    cdef size_t count(self, size_t n, size_t least) except? 0:
        cdef uint32_t found = <uint32_t>n
        if n >= NONE:
            raise OverflowError(f"{n} items")
        self.raw(&found, 4)
        if self.loading and found > (self.size - self.at) // least:
            raise ValueError(f"{found} items at byte {self.at}")
        return found

    cdef int buffer(self, Buffer *field) except -1:
        cdef uint32_t n = <uint32_t>buffer_len(field)
        self.raw(&n, 4)
        if not self.loading:
            # One that never had anything in it is NULL.
            return buffer_put(&self.out, field.data + field.head, n) if n else 0
        buffer_free(field)
        if n:
            buffer_put(field, self.take(n), n)
        return 0

    cdef size_t open(self) except? 0:
        cdef size_t at = self.out.tail
        cdef uint32_t length = 0
        buffer_put(&self.out, &length, 4)
        return at

    cdef int close(self, size_t at) except -1:
        cdef uint32_t length
        if self.out.tail - at - 4 >= NONE:
            raise OverflowError(f"a part of {self.out.tail - at - 4} bytes")
        length = <uint32_t>(self.out.tail - at - 4)
        memcpy(self.out.data + at, &length, 4)
        return 0

    cdef Codec part(self):
        cdef Codec part = Codec.__new__(Codec)
        cdef uint32_t length = 0
        self.raw(&length, 4)
        part.loading = True
        part.source = self.source
        part.data = self.take(length)
        part.size = length
        return part

    cdef int end(self) except -1:
        if self.at != self.size:
            raise ValueError(f"{self.size - self.at} bytes too many at byte {self.at}")
        return 0

    cdef bytes written(self):
        cdef bytes made = b"" if self.out.data == NULL else self.out.data[:self.out.tail]
        self.out.head = self.out.tail = 0
        return made
