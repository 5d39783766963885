# SPDX-License-Identifier: LGPL-2.1-or-later
"""DIRECTORY_PART: the listing of a directory over several requests (floor 2).

The client asks for the names from an offset on and gets a generation count with
them; another count with a later piece tells it that the directory changed
meanwhile, and to begin anew.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from pyxsd.store.nodes cimport node_directory
from pyxsd.store.perms cimport PERM_READ, perms_allow
from pyxsd.store.tree cimport Node, node_ref, node_unref
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_EACCES, ST_EINVAL, ST_ENOENT, buffer_put, slice_cut, slice_take, strict_int,
)

cdef enum:
    LISTINGS = 8             # directories whose generation a connection remembers


@cython.final
@cython.no_gc
cdef class _Listing:
    """A directory as DIRECTORY_PART saw it.

    The reference keeps the node from being changed in place, so a change of it
    or of anything below makes another node of it.
    """
    cdef Node *node
    cdef uint64_t epoch      # of the store: a change of it touched every node
    cdef uint64_t gencnt
    cdef bytes names

    def __dealloc__(self):
        if self.node != NULL:
            node_unref(self.node)


cdef int h_directory_part(Requests s, Connection c, Slice p) except -1:
    cdef Slice path, number
    cdef int64_t offset
    cdef Node *node
    cdef _Listing listing
    cdef size_t room, end
    cdef char text[24]
    cdef int digits
    cdef const char *names
    if c.who.domid != 0:
        return ST_EINVAL
    if not slice_cut(&p, &path) or not slice_take(&p, &number) \
            or not strict_int(number.p, number.n, &offset) \
            or not s.parse_path(c, path.p, path.n):
        return ST_EINVAL
    node = s.work.find(s.path)
    if node == NULL:
        return ST_ENOENT
    if not perms_allow(node.perms, &c.who, PERM_READ):
        return ST_EACCES
    if offset < 0:
        return ST_EINVAL
    if c.listings is None:
        c.listings = []
    for listing in c.listings:
        if listing.node == node and listing.epoch == s.epoch:
            c.listings.remove(listing)
            break
    else:
        node_directory(s.work, s.path, &c.who, &s.answer, <size_t>-1)
        listing = _Listing.__new__(_Listing)
        listing.names = s.answer.data[s.answer.head:s.answer.tail] \
            if s.answer.data != NULL else b""
        listing.node = node_ref(node)
        listing.epoch = s.epoch
        c.gencnt += 1
        listing.gencnt = c.gencnt
        s.answer.tail = s.answer.head
    c.listings.insert(0, listing)
    del c.listings[LISTINGS:]
    digits = snprintf(text, sizeof(text), b"%llu", <unsigned long long>listing.gencnt)
    buffer_put(&s.answer, text, digits + 1)
    end = PyBytes_GET_SIZE(listing.names)
    if <size_t>offset >= end:
        return buffer_put(&s.answer, b"", 1)
    names = PyBytes_AS_STRING(listing.names) + offset
    end -= offset
    room = PAYLOAD_MAX - 2 - (digits + 1)
    if end <= room:
        buffer_put(&s.answer, names, end)
        return buffer_put(&s.answer, b"", 1)
    # Only whole names.
    while room and names[room - 1] != 0:
        room -= 1
    return buffer_put(&s.answer, names, room)
