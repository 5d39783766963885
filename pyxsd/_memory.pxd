# SPDX-License-Identifier: LGPL-2.1-or-later
# Memory that outlives the process which serves: images, the journal since then, and what was
# under way.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t
from pyxsd._wire cimport Doubt

cdef enum:
    PAGE = 4096
    AREAS = 4                # two of the journal, then two of images

# The first page.  What is one word is changed with one store.
cdef struct Header:
    char magic[8]
    uint32_t version
    uint32_t size            # of this struct
    uint64_t limit           # bytes of an area, and of all together
    uint64_t valid           # number of the image to begin with, counted from 1; 0: there is none
    uint64_t current         # of the segment that grows: that of the image, or the next one
    uint64_t begins[2]       # by number modulo 2: where a segment begins in the journal
    uint64_t lengths[2]      # and how long an image is
    uint64_t at              # where the journal ends: every record before it is whole
    uint64_t begun           # requests whose serving has begun, counted from the daemon's start
    uint64_t begun_at        # where the journal ended then
    uint64_t served          # and those of them that were served
    uint64_t suspect         # the request within which the last process died
    uint64_t deaths          # how many processes have died within it, one after the other
    uint64_t logged[2]       # by number modulo 2: bytes of the access log written since an image
    int32_t cause            # the signal that the last process died of; 0: not known
    uint32_t entered         # not 0: who died had begun `begun`, and not only something before it
    uint64_t allocated[AREAS]    # bytes of an area that the kernel has given
    Doubt doubt
    uint64_t held            # the number of an image that somebody copies; 0: nobody does
    double instants[2]       # by number modulo 2: seconds since 1970 when the image was begun

cdef class Memory:
    cdef int fd
    cdef char *base          # of the header's page; the areas stand behind it
    cdef size_t mapped
    cdef Header *header
    cdef readonly object kept    # descriptors that whoever goes on must not close

    cdef char *area(self, int number) noexcept
    # Sees to it that an area has memory for so many bytes; how many it has then.
    cdef size_t reserve(self, int number, size_t n) noexcept
    cdef size_t _foldable(self, int number, size_t n) noexcept
    # Nobody can go on from here any more.
    cdef void void(self) noexcept
