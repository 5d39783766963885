# SPDX-License-Identifier: LGPL-2.1-or-later
"""The watches of one owner without a server, for tests of how they are stored and matched."""

cimport cython
from pyxsd.events.trie cimport DEPTH_ANY, Watch, WatchTrie, watch_path
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


cdef int _on_match(void *context, Watch *watch, const char *path, size_t n, bint own) except -1:
    (<list>context).append((*_named(watch), path[:n], bool(own)))
    return 0


cdef int _on_below(void *context, Watch *watch, Node *parent, Node *node) except -1:
    (<list>context).append((*_named(watch),
                            None if parent == NULL else parent.name[:parent.name_len],
                            None if node == NULL else node.name[:node.name_len]))
    return 0


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

    def match(self, bytes path not None, bint below=False):
        """[(watched path, token, path of the event, is it the watched one)] in order."""
        cdef Path parsed
        cdef list found = []
        _parse(&parsed, path)
        self.trie.match(&parsed, below, _on_match, <void *>found)
        return found

    def below(self, bytes path not None, Tree tree not None):
        """[(watched path, token, name of its parent, name of its node)] in order."""
        cdef Path parsed
        cdef list found = []
        _parse(&parsed, path)
        self.trie.match_below(&parsed, tree.root, _on_below, <void *>found)
        return found

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
        return self.trie.paths.slots, self.trie.table_slots

    @property
    def steps(self):
        """Nodes visited by matching so far."""
        return self.trie.steps
