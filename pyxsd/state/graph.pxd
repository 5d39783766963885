# SPDX-License-Identifier: LGPL-2.1-or-later
# Trees as numbered parts, to bytes and back.  graph.pyx says how they are written.

from libc.stdint cimport uint8_t, uint64_t
from libc.stddef cimport size_t
from pyxsd._wire cimport Buffer
from pyxsd.store.counts cimport Counts
from pyxsd.store.pages cimport Node, Page
from pyxsd.store.perms cimport Mentions, Perms
from pyxsd.store.tree cimport Tree

# A node or a page on the way of the writer.
cdef struct Step:
    void *item
    bint is_page
    int next                 # the slot of a page that comes next; of a node 1: its page is written

cdef class GraphWriter:
    cdef object add          # takes a record: add(type, body)
    cdef dict perms          # address of a permission list: its number
    cdef dict items          # the same of nodes and pages that have several holders
    cdef dict counts         # and of tables of counts
    cdef uint64_t last_item  # numbers given so far
    cdef Buffer body         # scratch
    cdef Step *steps
    cdef size_t steps_used
    cdef size_t steps_room
    cdef uint64_t *numbers   # of what is written and not yet named by a page or a node
    cdef size_t numbers_used
    cdef size_t numbers_room

    # The number of a node; 0 for NULL.  What it consists of and was not written yet is written.
    cdef uint64_t node(self, Node *node) except? 0
    # [number of the root, nodes, number of the counts, nodes copied so far]
    cdef list tree(self, Tree tree)

    cdef int _push(self, void *item, bint is_page) except -1
    cdef int _number(self, uint64_t number) except -1
    cdef int _done(self, void *item, uint64_t refs) except -1
    cdef int _write_node(self, const Node *node) except -1
    cdef int _write_page(self, const Page *page) except -1
    cdef uint64_t _perms(self, const Perms *perms) except 0
    cdef uint64_t _counts(self, const Counts *counts) except 0

cdef class GraphReader:
    cdef Mentions *mentions  # of the store that the parts are made for
    cdef Tree store
    cdef Perms **perms       # all of these by number - 1, each a reference of its own
    cdef size_t perms_used
    cdef size_t perms_room
    cdef Counts **counts
    cdef size_t counts_used
    cdef size_t counts_room
    cdef void **items
    cdef uint8_t *is_page
    cdef uint64_t *sizes     # nodes in each, itself included
    cdef size_t items_used
    cdef size_t items_room

    # Takes a record of one of these types; ValueError.
    cdef int take(self, bytes type_, bytes body) except -1
    # The node of a number, borrowed; NULL for 0.  ValueError.
    cdef Node *node(self, number) except? NULL
    # The tree that GraphWriter.tree() described; ValueError.
    cdef Tree tree(self, row)

    cdef int _take_perms(self, bytes body) except -1
    cdef int _take_counts(self, bytes body) except -1
    cdef int _take_node(self, bytes body) except -1
    cdef int _take_page(self, bytes body) except -1
    cdef int _add_item(self, void *item, bint is_page, uint64_t size) except -1
    cdef size_t _index(self, uint64_t number, bint is_page) except? 0
