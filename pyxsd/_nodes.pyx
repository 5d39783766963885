# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests on nodes (floor 1); each returns a status."""

from libc.string cimport memcpy
from pyxsd._perms cimport (
    PERM_READ, PERM_WRITE, Perms, perms_allow, perms_is_owner, perms_owner, perms_parse,
    perms_text, perms_unref,
)
from pyxsd._store cimport Node, Page, node_at
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


cdef int _create(Tree tree, Path *path, size_t have, const Actor *who,
                 const NodeLimits *limits, Effect *effect) except -1:
    """The missing parents of a path of which `have` components exist.

    They stay where a later check fails: a fault of oxenstored's that clients
    can see, and so kept.
    """
    cdef size_t parts = path.parts, length = path.len
    cdef Node *parent
    cdef int status = ST_OK
    while have + 1 < parts:
        parent = node_at(tree.root, path, have)
        if _over_quota(tree, parent, who, limits):
            status = ST_EQUOTA
            break
        if not perms_allow(parent.perms, who, PERM_WRITE):
            status = ST_EACCES
            break
        if not effect.wrote:
            effect.wrote = True
            effect.parts = have
        have += 1
        path.parts = have
        tree.add(path, NULL, 0)
    path.parts = parts
    path.len = length
    return status


cdef int node_write(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Slice value, Effect *effect) except -1:
    cdef size_t have
    cdef Node *node = tree.deepest(path, &have)
    cdef int status
    if have + 1 < path.parts:
        status = _create(tree, <Path *>path, have, who, limits, effect)
        if status != ST_OK:
            return status
        have = path.parts - 1
        node = node_at(tree.root, path, have)
    if limits.active and value.n > <size_t>limits.value:
        return ST_E2BIG
    if have < path.parts and _over_quota(tree, node, who, limits):
        return ST_EQUOTA
    if not perms_allow(node.perms, who, PERM_WRITE):
        return ST_EACCES
    if have == path.parts:
        tree.set_value(path, value.p, value.n)
    else:
        tree.add(path, value.p, value.n)
    if not effect.wrote:
        effect.wrote = True
        effect.parts = have
    effect.fires = True
    return ST_OK


cdef int node_mkdir(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Effect *effect) except -1:
    cdef size_t have
    cdef Node *node = tree.deepest(path, &have)
    cdef int status
    if path.parts == 0:
        # For everybody; in a transaction it counts as a change of "/".
        effect.fires = effect.wrote = True
        effect.parts = 0
        return ST_OK
    if have == path.parts:
        return ST_OK if perms_allow(node.perms, who, PERM_WRITE) else ST_EACCES
    status = _create(tree, <Path *>path, have, who, limits, effect)
    if status != ST_OK:
        return status
    node = node_at(tree.root, path, path.parts - 1)
    if _over_quota(tree, node, who, limits):
        return ST_EQUOTA
    if not perms_allow(node.perms, who, PERM_WRITE):
        return ST_EACCES
    tree.add(path, NULL, 0)
    if not effect.wrote:
        effect.wrote = True
        effect.parts = path.parts - 1
    effect.fires = True
    return ST_OK


cdef int node_rm(Tree tree, const Path *path, const Actor *who, Effect *effect) except -1:
    cdef size_t have
    cdef Node *node = tree.deepest(path, &have)
    if have < path.parts:
        return ST_OK if have + 1 == path.parts else ST_ENOENT
    if not perms_allow(node.perms, who, PERM_WRITE):
        return ST_EACCES
    tree.remove(path)
    effect.fires = effect.wrote = True
    effect.parts = path.parts - 1 if path.parts else 0
    return ST_OK


cdef int node_set_perms(Tree tree, const Path *path, const Actor *who, Slice text,
                        Effect *effect) except -1:
    cdef Perms *perms = perms_parse(text.p, text.n, tree.mentions)
    cdef Node *node
    cdef int status = ST_OK
    if perms == NULL:
        return ST_EINVAL
    node = tree.find(path)
    if node == NULL:
        status = ST_ENOENT
    elif perms_owner(node.perms) != perms_owner(perms) and not who.privileged:
        # Only domain 0 gives a node away (XSA-352).
        status = ST_EACCES
    elif not perms_is_owner(node.perms, who) or not perms_allow(node.perms, who, PERM_WRITE):
        status = ST_EACCES
    else:
        tree.set_perms(path, perms)
        effect.fires = effect.wrote = True
        effect.parts = path.parts
    perms_unref(perms)
    return status
