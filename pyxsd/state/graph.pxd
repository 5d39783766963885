# SPDX-License-Identifier: LGPL-2.1-or-later
# Trees as numbered parts, to bytes and back.  graph.pyx says how they are written.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer
from pyxsd.store.counts cimport Counts
from pyxsd.store.grave cimport Grave
from pyxsd.store.pages cimport Node, Page
from pyxsd.store.perms cimport Mentions, Perms
from pyxsd.store.tree cimport Tree

# A node or a page on the way of the writer.
cdef struct Step:
    void *item
    bint is_page
    int next                 # the slot of a page that comes next; of a node 1: its page is written

# A node that is held for the writer.
cdef class Held:
    cdef Node *node
    cdef Grave grave

cdef class GraphWriter:
    cdef Grave grave
    cdef readonly list roots  # Trees (snapshots) and Helds that are to be written, by number - 1
    cdef Py_ssize_t begun    # how many of them were begun
    cdef dict perms          # address of a permission list: its number
    cdef dict items          # the same of nodes and pages that have several holders
    cdef dict values         # address of a value that several nodes share: the number of the first
    cdef dict counts         # and of tables of counts
    cdef const Perms *last_perms
    cdef uint32_t last_number        # its number
    cdef uint64_t last_item  # numbers given so far
    cdef bint blank          # x in place of values
    cdef uint64_t age        # of the oldest tree: domains that go later are still there
    cdef Buffer out          # what is written and was not taken yet
    cdef Step *steps
    cdef size_t steps_used
    cdef size_t steps_room

    # A tree is to be written as it is now; its number.
    cdef uint32_t tree(self, Tree tree) except 0
    # The same of a node with all below it; 0 for NULL.
    cdef uint32_t node(self, Node *node) except? 0
    # Writes until that time (monotonic nanoseconds) or so many bytes; True at the end.
    cdef bint write(self, uint64_t until, size_t most) except -1
    # What was written, which is forgotten.
    cdef bytes written(self)

    cdef int _begin(self, root) except -1
    cdef int _finish(self, root) except -1
    cdef int _step(self) except -1
    cdef int _push(self, void *item, bint is_page, uint32_t refs) except -1
    cdef int _done(self, void *item, uint32_t refs) except -1
    cdef int _write_node(self, Node *node) except -1
    cdef uint64_t _died(self, const Perms *perms, uint32_t i) noexcept
    cdef uint32_t _perms(self, const Perms *perms) except 0
    cdef uint32_t _counts(self, const Counts *counts) except 0

cdef class GraphReader:
    cdef Mentions *mentions  # of the store that the parts are made for
    cdef Tree store
    cdef readonly list roots  # Trees and Helds, by number - 1
    cdef Perms **perms       # all of these by number - 1, each a reference of its own
    cdef size_t perms_used
    cdef size_t perms_room
    cdef dict past           # (domid, from which age on it is gone): its life, see perms
    cdef Counts **counts
    cdef size_t counts_used
    cdef size_t counts_room
    cdef void **items
    cdef uint8_t *is_page
    cdef uint32_t *sizes     # nodes in each, itself included
    cdef uint16_t *reach     # bytes of the longest path in each, its own name included
    cdef uint64_t *owners    # who owns what is in each, see owner_bits()
    cdef uint64_t *used      # number of the root below which it was named again last
    cdef size_t begun        # items that were made for earlier roots
    cdef size_t items_used
    cdef size_t items_room
    cdef uint32_t *stack     # indices of items that nothing holds yet but a later part
    cdef size_t stack_used
    cdef size_t stack_room

    # Takes whole parts; ValueError.
    cdef int take(self, const char *p, size_t n) except -1
    # The tree of a number, for one use each, and the node, borrowed, NULL for 0; ValueError.
    cdef Tree tree(self, uint32_t number)
    cdef Node *node(self, uint32_t number) except? NULL

    cdef size_t _take_part(self, const char *p, size_t n) except 0
    cdef int _take_again(self, bint is_page, uint32_t number) except -1
    cdef int _end_root(self, root) except -1
    cdef uint32_t _past(self, int64_t domid, uint64_t died) except 0
    cdef size_t _take_perms(self, const char *p, size_t n, int what, uint32_t count) except 0
    cdef size_t _take_counts(self, const char *p, size_t n, uint32_t count) except? 0
    cdef Node *_with_value(self, uint32_t number) except NULL
    cdef size_t _take_node(self, const char *p, size_t n, int what, size_t name_len,
                           size_t value_len) except 0
    cdef int _take_page(self, int level, size_t count) except -1
    cdef size_t _take_tree(self, const char *p, size_t n, uint32_t counts) except 0
    cdef int _add_item(self, void *item, bint is_page, uint64_t size,
                       uint64_t reach, uint64_t owners) except -1
    cdef int _push(self, uint32_t index) except -1
    cdef uint32_t _pop(self, bint is_page) except? 0
