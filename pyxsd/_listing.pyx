# SPDX-License-Identifier: LGPL-2.1-or-later
"""DIRECTORY_PART: the listing of a directory over several requests.

The client asks for the names from an offset on and gets a generation count with them; another
count with a later piece tells it that the directory changed meanwhile, and to begin anew.

Domain 0 gets oxenstored's counts: a counter of the connection, of which a directory takes the
next value when it or anything below it was touched since it was asked for.  That needs the last
directories to be kept.  A guest could make that keep large and old parts of the store, so for
guests nothing is kept: the count is a digest of the names.  What a directory's pages know of the
names below them (store.pages) gives that digest, and the way to the first name of a piece, so no
piece looks at more than about a thousand names, however wide the directory is.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from pyxsd._conn cimport Connection
from pyxsd._request cimport client, parse_path
from pyxsd._siphash cimport hash_key, sip_word
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_EACCES, ST_EINVAL, ST_ENOENT, Buffer, Slice, buffer_put, buffer_len, slice_cut,
    slice_take, strict_int,
)
from pyxsd.store.nodes cimport node_directory, node_names
from pyxsd.store.perms cimport PERM_READ, perms_allow
from pyxsd.store.pages cimport Names, Node, page_names
from pyxsd.store.subtree cimport node_ref, node_unref
from pyxsd.store.tree cimport Tree

cdef enum:
    LISTINGS = 8             # directories whose generation a connection remembers
    NAME_COST = 16           # looking at a name takes as long as so many of its bytes


@cython.final
@cython.no_gc
cdef class Listing:
    """A directory as DIRECTORY_PART saw it.

    The reference keeps the node from being changed in place, so a change of it
    or of anything below makes another node of it.
    """
    def __dealloc__(self):
        if self.node != NULL:
            node_unref(self.node)


cdef Listing _listing_of(State s, Request *r, Connection c, Node *node):
    """The listing of a directory that domain 0 asked for, now the last used one."""
    cdef Listing listing
    if c.listings is None:
        c.listings = []
    for listing in c.listings:
        if listing.node == node and listing.epoch == s.epoch:
            c.listings.remove(listing)
            break
    else:
        node_directory(<Tree>r.tree, r.path, &c.who, r.answer, <size_t>-1)
        listing = Listing.__new__(Listing)
        listing.names = r.answer.data[r.answer.head:r.answer.tail] \
            if r.answer.data != NULL else b""
        listing.node = node_ref(node)
        listing.epoch = s.epoch
        c.generation += 1
        listing.generation = c.generation
        r.answer.tail = r.answer.head
    c.listings.insert(0, listing)
    del c.listings[LISTINGS:]
    return listing


cdef int directory_part(State s, Request *r) except -1:
    cdef Connection c = client(r)
    cdef Slice path, number, rest = r.payload
    cdef int64_t offset
    cdef Node *node
    cdef Listing listing
    if not slice_cut(&rest, &path) or not slice_take(&rest, &number) \
            or not strict_int(number.p, number.n, &offset) \
            or not parse_path(s, r, path.p, path.n):
        return ST_EINVAL
    node = (<Tree>r.tree).find(r.path)
    if node == NULL:
        return ST_ENOENT
    if not perms_allow(node.perms, &c.who, PERM_READ):
        return ST_EACCES
    if offset < 0:
        return ST_EINVAL
    if c.is_guest:
        return _piece_of_guest(r, node, offset)
    listing = _listing_of(s, r, c, node)
    r.listed = PyBytes_GET_SIZE(listing.names)
    return _piece(r.answer, listing.names, listing.generation, offset)


cdef int _piece_of_guest(Request *r, Node *node, int64_t offset) except -1:
    """_piece() of the names as they stand in the store."""
    cdef Buffer *answer = r.answer
    cdef Names names = page_names(node.children)
    # Hashed, since whoever knew the sums could look for other names with the same one.
    cdef size_t room = _begin_piece(answer, sip_word(&hash_key, names.digest))
    cdef size_t begin = answer.tail
    r.listed = NAME_COST * node_names(node, <size_t>offset, answer, buffer_len(answer) + room)
    r.listed += answer.tail - begin
    if answer.tail - begin <= room:
        # All names from there on.
        return buffer_put(answer, b"", 1)
    answer.tail = begin + _whole(answer.data + begin, room)
    return 0


cdef inline size_t _whole(const char *names, size_t room) noexcept nogil:
    """How many bytes the names take that are whole within the room."""
    while room and names[room - 1] != 0:
        room -= 1
    return room


cdef size_t _begin_piece(Buffer *answer, uint64_t generation) except 0:
    """Writes the count; the room for names that is left then."""
    cdef char text[24]
    cdef int digits = snprintf(text, sizeof(text), b"%llu", <unsigned long long>generation)
    buffer_put(answer, text, digits + 1)
    return PAYLOAD_MAX - 2 - (digits + 1)


cdef int _piece(Buffer *answer, bytes names, uint64_t generation, int64_t offset) except -1:
    """The count, then as many whole names from an offset on as fit into a packet, and an
    empty name at the end of the list."""
    cdef size_t room = _begin_piece(answer, generation)
    cdef size_t end = PyBytes_GET_SIZE(names)
    cdef const char *at
    if <size_t>offset >= end:
        return buffer_put(answer, b"", 1)
    at = PyBytes_AS_STRING(names) + offset
    end -= offset
    if end <= room:
        buffer_put(answer, at, end)
        return buffer_put(answer, b"", 1)
    return buffer_put(answer, at, _whole(at, room))
