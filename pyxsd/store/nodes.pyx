# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests on nodes; each returns a status, ST_*."""

from libc.string cimport memcpy
from pyxsd.store.path cimport PATH_PARTS_MAX
from pyxsd.store.perms cimport (
    PERM_READ, PERM_WRITE, Perms, perms_allow, perms_is_owner, perms_owner, perms_parse,
    perms_text, perms_unref,
)
from pyxsd.store.pages cimport Node, Page, page_names
from pyxsd.store.tree cimport Place, tree_age
from pyxsd._wire cimport (
    PAYLOAD_MAX, ST_E2BIG, ST_EACCES, ST_EINVAL, ST_ENOENT, ST_EQUOTA, ST_OK, buffer_len,
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


cdef int _names(const Page *page, size_t *before, Buffer *out, size_t limit) except -1:
    """node_names() of a page; *before is counted down by what is left out."""
    cdef int i, looked_at = 0
    cdef const Page *below
    if page.level == 0:
        return _names_here(page, before, out, limit)
    for i in range(page.count):
        below = <const Page *>page.slot[i]
        if below.level and page_names(below).bytes <= before[0]:
            before[0] -= page_names(below).bytes
            looked_at += 1
        else:
            looked_at += _names(below, before, out, limit)
        if buffer_len(out) > limit:
            break
    return looked_at


cdef int _names_here(const Page *page, size_t *before, Buffer *out, size_t limit) except -1:
    """The same of a page of nodes."""
    cdef int i = 0
    cdef size_t n, skipped
    cdef const Node *node
    cdef char *at
    while i < page.count:
        node = <const Node *>page.slot[i]
        i += 1
        n = node.name_len + 1
        skipped = before[0]
        if skipped:
            if n <= skipped:
                before[0] -= n
                continue
            n -= skipped
            before[0] = 0
        at = buffer_reserve(out, n)
        memcpy(at, node.name + skipped, n - 1)
        at[n - 1] = 0
        out.tail += n
        if buffer_len(out) > limit:
            break
    return i


cdef int node_names(const Node *node, size_t before, Buffer *out, size_t limit) except -1:
    if node.children == NULL:
        return 0
    return _names(node.children, &before, out, limit)


cdef int node_directory(Tree tree, const Path *path, const Actor *who, Buffer *out,
                        size_t limit) except -1:
    """Stops soon after limit bytes: a longer answer is of no use."""
    cdef Node *node = NULL
    cdef int status = _readable(tree, path, who, &node)
    if status == ST_OK:
        node_names(node, 0, out, limit)
    return status


cdef int node_get_perms(Tree tree, const Path *path, const Actor *who, Buffer *out) except -1:
    cdef Node *node = NULL
    cdef int status = _readable(tree, path, who, &node)
    if status == ST_OK:
        perms_text(node.perms, tree_age(tree), out, 0, True, PAYLOAD_MAX)
    return status


cdef inline Py_ssize_t _room(Tree tree, const Node *ancestor, const Actor *who,
                             const NodeLimits *limits) except? -1:
    """How many nodes may still be created below a node, at most PATH_PARTS_MAX.

    The owner of the deepest existing ancestor pays for all of them, as each takes its
    parent's permissions.  Nobody pays for domain 0, nor where it owns.
    """
    cdef long long owner = perms_owner(ancestor.perms)
    cdef Py_ssize_t most = limits.entries
    if not limits.active or who.privileged or owner <= 0:
        return PATH_PARTS_MAX
    if limits.by_owner != NULL:
        most = (<dict>limits.by_owner).get(owner, most)
    return max(0, min(most - tree.count_of(owner), PATH_PARTS_MAX))


cdef inline int _may_create(Tree tree, const Place *at, const Actor *who,
                            const NodeLimits *limits) except -1:
    """May a child of the place be created?  The quota is looked at before permission."""
    if _room(tree, at.node, who, limits) == 0:
        return ST_EQUOTA
    return ST_OK if perms_allow(at.node.perms, who, PERM_WRITE) else ST_EACCES


cdef inline void _wrote(Effect *effect, size_t parts) noexcept:
    """Something was written below so many components; the first time counts."""
    if not effect.wrote:
        effect.wrote = True
        effect.parts = parts


cdef int _create_parents(Tree tree, const Path *path, Place *at, const Actor *who,
                         const NodeLimits *limits, Effect *effect) except -1:
    """Creates the missing parents of a path; `at` is then the last of them.

    They stay where a later check fails: a fault of oxenstored's that clients can see,
    and so kept.  Where the quota is reached on the way, those before it stay too.  They
    all have the permissions of the first existing one, so one check is enough.
    """
    cdef size_t missing, n
    cdef int status
    if at.parts + 1 >= path.parts:
        return ST_OK
    status = _may_create(tree, at, who, limits)
    if status != ST_OK:
        return status
    missing = path.parts - 1 - at.parts
    n = min(missing, <size_t>_room(tree, at.node, who, limits))
    _wrote(effect, at.parts)
    tree.add_chain(path, at, at.parts + n)
    return ST_OK if n == missing else ST_EQUOTA


cdef int node_write(Tree tree, const Path *path, const Actor *who, const NodeLimits *limits,
                    Slice value, Effect *effect) except -1:
    cdef Place at
    cdef int status
    tree.look(path, &at)
    status = _create_parents(tree, path, &at, who, limits, effect)
    if status != ST_OK:
        return status
    if limits.active and value.n > <size_t>limits.value:
        return ST_E2BIG
    if at.parts < path.parts:
        status = _may_create(tree, &at, who, limits)
    elif not perms_allow(at.node.perms, who, PERM_WRITE):
        status = ST_EACCES
    if status != ST_OK:
        return status
    if at.parts < path.parts:
        tree.add(path, &at, value.p, value.n)
    else:
        tree.set_value(path, &at, value.p, value.n)
    _wrote(effect, at.parts)
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
    status = _create_parents(tree, path, &at, who, limits, effect)
    if status == ST_OK:
        status = _may_create(tree, &at, who, limits)
    if status != ST_OK:
        return status
    tree.add(path, &at, NULL, 0)
    _wrote(effect, at.parts)
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
    elif not perms_is_owner(at.node.perms, who) \
            or not perms_allow(at.node.perms, who, PERM_WRITE):
        status = ST_EACCES
    else:
        try:
            tree.set_perms(path, &at, perms)
        except MemoryError:
            perms_unref(perms)
            raise
        effect.fires = effect.wrote = True
        effect.parts = path.parts
    perms_unref(perms)
    return status
