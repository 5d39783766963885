# SPDX-License-Identifier: LGPL-2.1-or-later
"""The watches of one owner without a server, for tests of how they are stored and matched."""

cimport cython
from libc.stdint cimport int64_t
from pyxsd.events.table cimport table_unmoved
from pyxsd.events.trie cimport DEPTH_ANY, Search, Watch, WatchTrie, watch_path
from pyxsd.store.pages cimport Node
from pyxsd.store.path cimport Path, path_parse
from pyxsd.store.tree cimport Tree


cdef int _parse(Path *path, bytes text) except -1:
    if not path_parse(path, text, len(text), NULL, 0, -1):
        raise ValueError(f"not a path: {text!r}")
    return 0


cdef tuple _named(Watch *watch):
    return (watch.text[:watch.path_len],
            watch.text[watch.path_len + 1:watch.path_len + 1 + watch.token_len])


cdef tuple _all(WatchTrie trie, Path *path, bint below, Node *root, int64_t at_once):
    """(watches with their path of the event, those below) that a search finds; it is parked
    each time that at_once steps are done."""
    cdef Search search
    cdef Watch *watch
    cdef int64_t steps = at_once
    cdef list found = [], under = []
    trie.search(&search, path, below)
    while not search.done:
        watch = trie.search_next(&search, path, root, &steps)
        if watch == NULL:
            trie.park(&search, path, root)
            trie.resume(&search, path, root)
            steps = at_once
            continue
        found.append((*_named(watch),
                      watch.text[:watch.path_len] if search.own
                      else path.text[watch.strip:path.len], bool(search.own)))
        if search.own:
            under.append((*_named(watch),
                          None if search.parent == NULL
                          else search.parent.name[:search.parent.name_len],
                          None if search.found == NULL
                          else search.found.name[:search.found.name_len]))
    return found, under


@cython.final
cdef class Probe:
    """A WatchTrie and its only owner."""

    cdef WatchTrie trie
    cdef Watch *watches

    def __cinit__(self):
        self.trie = WatchTrie()

    def add(self, bytes path not None, bytes token not None=b"t"):
        """Sets a watch; False where it is there already."""
        cdef Path parsed
        _parse(&parsed, path)
        return self.trie.add(<void *>self, &self.watches, &parsed, path, len(path),
                             token, len(token), DEPTH_ANY, 0) != NULL

    def remove(self, bytes path not None, bytes token not None=b"t"):
        """Removes a watch; False where there is none."""
        cdef Path parsed
        cdef Watch *watch
        _parse(&parsed, path)
        watch = self.trie.find(<void *>self, &parsed, token, len(token))
        if watch != NULL:
            self.trie.remove(&self.watches, watch)
        return watch != NULL

    def match(self, bytes path not None, bint below=False, int64_t at_once=1 << 60):
        """[(watched path, token, path of the event, is it the watched one)] in order."""
        cdef Path parsed
        cdef Tree empty = Tree()
        _parse(&parsed, path)
        return _all(self.trie, &parsed, below, empty.root, at_once)[0]

    def below(self, bytes path not None, Tree tree not None, int64_t at_once=1 << 60):
        """[(watched path, token, name of its parent, name of its node)] in order."""
        cdef Path parsed
        _parse(&parsed, path)
        return _all(self.trie, &parsed, True, tree.root, at_once)[1]

    def touched(self, bytes path not None):
        """Does a watch stand on the path, or above or below it?"""
        cdef Path parsed
        _parse(&parsed, path)
        return bool(self.trie.touched(&parsed))

    def paths(self):
        """The paths of all watches but special ones, as the trie has them, newest first."""
        cdef Path path
        cdef Watch *watch = self.watches
        cdef list found = []
        while watch != NULL:
            if not watch.special and watch_path(watch, &path):
                found.append(path.text[:path.len])
            watch = watch.owner_next
        return found

    @property
    def count(self):
        """Watches."""
        return self.trie.count

    @property
    def nodes(self):
        """Nodes of the radix tree, without its roots."""
        return self.trie.paths.count

    @property
    def slots(self):
        """Slots of the hash tables: (of nodes, of watches)."""
        return self.trie.paths.table.slots, self.trie.table.slots

    @property
    def moving(self):
        """Slots of these that are still to be moved to their successors."""
        return table_unmoved(&self.trie.paths.table), table_unmoved(&self.trie.table)

    @property
    def steps(self):
        """Nodes visited by matching so far."""
        return self.trie.steps
