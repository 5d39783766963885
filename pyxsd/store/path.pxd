# SPDX-License-Identifier: LGPL-2.1-or-later
# Paths: their syntax, their length rule, and their absolute form split into
# components.  Knows nothing of nodes.

from libc.stdint cimport uint16_t
from libc.stddef cimport size_t

cdef enum:
    PATH_TEXT_MAX = 4352     # a payload's worth and the prefix of a relative path
    PATH_PARTS_MAX = 2176    # components of the longest text

# An absolute path.  Component i is text[start[i] : start[i] + size[i]].
# A special path "@name" has the text "/@name" and is one component.
cdef struct Path:
    size_t len               # bytes of text
    size_t parts             # components; 0 is "/"
    bint special             # written as "@...": taken whole, unchecked
    bint relative            # written relative to the connection's own folder
    char text[PATH_TEXT_MAX + 1]     # room for a mark behind the longest one
    uint16_t start[PATH_PARTS_MAX]
    uint16_t size[PATH_PARTS_MAX]

# Reads a path as a client wrote it.  base is the folder of relative paths, always of the form
# "/local/domain/<domid>/" (base_len 0: there are none); limit is quota-path-max in bytes, -1 for
# none.
# False where the path is malformed or too long; the path is undefined then.
cdef bint path_parse(Path *out, const char *p, size_t n,
                     const char *base, size_t base_len, Py_ssize_t limit) noexcept nogil

# Splits an absolute text that is known to be well formed.
cdef bint path_split(Path *out, const char *p, size_t n) noexcept nogil

# Builds a path of components (bytes), which are taken as they are.  ValueError where
# the path would be too long.
cdef int path_join(Path *out, list names) except -1

# Drops the last component.
cdef void path_up(Path *path) noexcept nogil

# How many bytes of text the first parts components take; 1 for none.
cdef size_t path_prefix(const Path *path, size_t parts) noexcept nogil
