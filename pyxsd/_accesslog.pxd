# SPDX-License-Identifier: LGPL-2.1-or-later
# The lines of the access log, formatted as oxenstored's.  Lines are collected
# in memory; who owns the file takes them once per turn.

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer

cdef class AccessLog:
    cdef Buffer buf
    cdef readonly uint32_t lines     # in the buffer
    cdef readonly bint active        # somebody writes it to somewhere
    cdef public bint read_ops        # access-log-read-ops
    cdef public bint txn_ops         # access-log-transactions-ops
    cdef public bint special_ops     # access-log-special-ops
    cdef Py_ssize_t nb_chars         # longest line with its newline; <= 0: no limit
    cdef char stamp[40]              # "[20261122T12:00:54.870Z]  "
    cdef size_t stamp_len
    cdef uint64_t stamp_ms           # the millisecond it stands for
    cdef uint64_t now_ms

    # The most bytes of data that a line shows.
    cdef size_t longest(self) noexcept
    cdef void set_time(self, double now) noexcept
    cdef int line(self, bytes who, uint32_t tid, const char *label,
                  const char *p, size_t n) except -1
