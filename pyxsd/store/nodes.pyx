# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests on nodes (floor 1); each returns a status."""

from libc.string cimport memcpy
from pyxsd.store.perms cimport (
    PERM_READ, PERM_WRITE, Perms, perms_allow, perms_is_owner, perms_owner, perms_parse,
    perms_text, perms_unref,
)
from pyxsd.store.tree cimport Node, Page, Place
from pyxsd._wire cimport (
    ST_E2BIG, ST_EACCES, ST_EINVAL, ST_ENOENT, ST_EQUOTA, ST_OK, buffer_len,
    buffer_put, buffer_reserve,
)


cdef inline int _readable(Tree tree, const Path *path, const Actor *who, Node **out) noexcept:
    """Existence is looked at before permission."""
    cdef Node *node = tree.find(path)
    if node == NULL:
        return ST_ENOENT
    if not perms_allow(node.perms, who, PERM_READ):
        return ST_EACCES
    out[0] = node
    return ST_OK


cdef int node_read(Tree tree, const Path *path, const Actor *who, Buffer *out) except -1:
    cdef Node *node = NULL
    cdef int status = _readable(tree, path, who, &node)
    if status == ST_OK and node.value_len:
        buffer_put(out, node.value, node.value_len)
    return status


cdef int _names(const Page *page, Buffer *out, size_t limit) except -1:
    """The names of a directory, each with its NUL, until limit is passed."""
    cdef int i
    cdef Node *node
    cdef char *at
    for i in range(page.count):
        if page.level:
            _names(<const Page *>page.slot[i], out, limit)
        else:
            node = <Node *>page.slot[i]
            at = buffer_reserve(out, node.name_len + 1)
            memcpy(at, node.name, node.name_len)
            at[node.name_len] = 0
            out.tail += node.name_len + 1
        if buffer_len(out) > limit:
            break
    return 0


cdef int node_directory(Tree tree, const Path *path, const Actor *who, Buffer *out,
                        size_t limit) except -1:
    """Stops soon after limit bytes: a longer answer is of no use."""
    cdef Node *node = NULL
    cdef int status = _readable(tree, path, who, &node)
    if status == ST_OK and node.kids != NULL:
        _names(node.kids, out, limit)
    return status


cdef int node_get_perms(Tree tree, const Path *path, const Actor *who, Buffer *out) except -1:
    cdef Node *node = NULL
    cdef int status = _readable(tree, path, who, &node)
    if status == ST_OK:
        perms_text(node.perms, out, 0, True)
    return status


cdef inline bint _over_quota(Tree tree, const Node *ancestor, const Actor *who,
                             const NodeLimits *limits) except -1:
    """May no more be created below?  The owner of the deepest existing
    ancestor pays; nobody pays for domain 0, nor where it owns."""
    cdef long long owner = perms_owner(ancestor.perms)
    cdef Py_ssize_t most = limits.entries
    if not limits.active or who.privileged or owner <= 0:
        return False
    if limits.by_owner != NULL:
        most = (<dict>limits.by_owner).get(owner, most)
    return tree.count_of(owner) >= most


cdef int _create(Tree tree, Path *path, Place *at, const Actor *who,
                 const NodeLimits *limits, Effect *effect) except -1:
    """The missing parents of a path; at is where they begin, then the last of them.

    They stay where a later check fails: a fault of oxenstored's that clients
    can see, and so kept.
    """
    cdef size_t parts = path.parts, length = path.len
    cdef int status = ST_OK
    while at.parts + 1 < parts:
        if _over_quota(tree, at.node, who, limits):
            status = ST_EQUOTA
            break
        if not perms_allow(at.node.perms, who, PERM_WRITE):
            status = ST_EACCES
            break
        if not effect.wrote:
            effect.wrote = True
            effect.parts = at.parts
        path.parts = at.parts + 1
        tree.add(path, at, NULL, 0)
        tree.look(path, at)
    path.parts = parts
    path.len = length
    return status


cdef int node_write(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Slice value, Effect *effect) except -1:
    cdef Place at
    cdef int status
    tree.look(path, &at)
    if at.parts + 1 < path.parts:
        status = _create(tree, <Path *>path, &at, who, limits, effect)
        if status != ST_OK:
            return status
    if limits.active and value.n > <size_t>limits.value:
        return ST_E2BIG
    if at.parts < path.parts and _over_quota(tree, at.node, who, limits):
        return ST_EQUOTA
    if not perms_allow(at.node.perms, who, PERM_WRITE):
        return ST_EACCES
    if at.parts == path.parts:
        tree.set_value(path, &at, value.p, value.n)
    else:
        tree.add(path, &at, value.p, value.n)
    if not effect.wrote:
        effect.wrote = True
        effect.parts = at.parts
    effect.fires = True
    return ST_OK


cdef int node_mkdir(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Effect *effect) except -1:
    cdef Place at
    cdef int status
    if path.parts == 0:
        # For everybody; in a transaction it counts as a change of "/".
        effect.fires = effect.wrote = True
        effect.parts = 0
        return ST_OK
    tree.look(path, &at)
    if at.parts == path.parts:
        return ST_OK if perms_allow(at.node.perms, who, PERM_WRITE) else ST_EACCES
    status = _create(tree, <Path *>path, &at, who, limits, effect)
    if status != ST_OK:
        return status
    if _over_quota(tree, at.node, who, limits):
        return ST_EQUOTA
    if not perms_allow(at.node.perms, who, PERM_WRITE):
        return ST_EACCES
    tree.add(path, &at, NULL, 0)
    if not effect.wrote:
        effect.wrote = True
        effect.parts = at.parts
    effect.fires = True
    return ST_OK


cdef int node_rm(Tree tree, const Path *path, const Actor *who, Effect *effect) except -1:
    cdef Place at
    tree.look(path, &at)
    if at.parts < path.parts:
        return ST_OK if at.parts + 1 == path.parts else ST_ENOENT
    if not perms_allow(at.node.perms, who, PERM_WRITE):
        return ST_EACCES
    tree.remove(path, &at)
    effect.fires = effect.wrote = True
    effect.parts = path.parts - 1 if path.parts else 0
    return ST_OK


cdef int node_set_perms(Tree tree, const Path *path, const Actor *who, Slice text,
                        Effect *effect) except -1:
    cdef Perms *perms = perms_parse(text.p, text.n, tree.mentions)
    cdef Place at
    cdef int status = ST_OK
    if perms == NULL:
        return ST_EINVAL
    tree.look(path, &at)
    if at.parts < path.parts:
        status = ST_ENOENT
    elif perms_owner(at.node.perms) != perms_owner(perms) and not who.privileged:
        # Only domain 0 gives a node away (XSA-352).
        status = ST_EACCES
    elif not perms_is_owner(at.node.perms, who) or not perms_allow(at.node.perms, who, PERM_WRITE):
        status = ST_EACCES
    else:
        tree.set_perms(path, &at, perms)
        effect.fires = effect.wrote = True
        effect.parts = path.parts
    perms_unref(perms)
    return status
