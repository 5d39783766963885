# SPDX-License-Identifier: LGPL-2.1-or-later
"""The quotas of a server.

QUOTAS has one row per quota.  Whoever shows, sets or documents quotas reads that table:
the configuration, CONTROL quota, GET_QUOTA and SET_QUOTA.  Whoever checks one reads
Limits.most by its number.

A quota that is switched off is UNLIMITED in here and 0 outside (Xen's
docs/misc/xenstore.txt: "a value of 0 disables the quota check").  Some keys of oxenstored's
configuration read 0 in another way, as none at all; the columns least and unlimited say so.
"""

cimport cython
from pyxsd._wire cimport ST_ENOSPC, ST_EQUOTA

UNLIMITED = <int64_t>1 << 61

#: The largest value that a request may set.
QUOTA_MAX = 0x7FFFFFFF


@cython.final
cdef class Quota:
    """One quota.

    scope: "server" (one number for all), "connection" or "owner" (a domain can have a
    number of its own).  least: what a smaller value in the configuration becomes.
    unlimited: the values at and below which the configuration switches the check off.
    """

    cdef readonly str name       # C xenstored's: CONTROL quota, GET_QUOTA, SET_QUOTA
    cdef readonly str key        # attribute of the Config
    cdef readonly str scope
    cdef readonly int64_t least
    cdef readonly int64_t unlimited
    cdef readonly str meaning

    def __init__(self, str name, str key, str scope, int64_t least, int64_t unlimited,
                 str meaning):
        self.name = name
        self.key = key
        self.scope = scope
        self.least = least
        self.unlimited = unlimited
        self.meaning = meaning


NEVER = -1 << 63

QUOTAS = (
    Quota("nodes", "quota_maxentity", "owner", 0, NEVER,
          "nodes that a domain owns"),
    Quota("node-size", "quota_maxsize", "server", 0, -1,
          "bytes of a value"),
    Quota("node-permissions", "quota_maxperms", "server", 1, 0,
          "entries of a permission list"),
    Quota("path-max", "quota_path_max", "server", 0, -1,
          "bytes of a path"),
    Quota("watches", "quota_maxwatch", "connection", 1, 0,
          "watches of a domain"),
    Quota("watch-events", "quota_maxwatchevents", "server", 1, NEVER,
          "events that wait for a domain, and as many behind each watch"),
    Quota("outstanding", "quota_maxoutstanding", "server", 1, NEVER,
          "replies that wait for a domain"),
    Quota("transactions", "quota_transaction", "connection", 1, 0,
          "open transactions of a domain"),
    Quota("transaction-nodes", "quota_maxrequests", "server", 0, -1,
          "requests in one transaction"),
)
NAMES = {quota.name: number for number, quota in enumerate(QUOTAS)}
assert len(QUOTAS) == Q_COUNT


cdef int64_t _configured(object quota, object value) except? -2:
    """A value of the configuration as it is kept."""
    if value <= quota.unlimited:
        return UNLIMITED
    return min(max(value, quota.least), QUOTA_MAX)


cdef object _shown(int64_t most):
    """A limit for a person, see Limits.shown()."""
    if most == UNLIMITED:
        return "0"
    return str(most) if most else "none"


cdef class Limits:
    """The numbers of one server.  config has the attributes named in QUOTAS, and
    quota_activate and quota_errno."""

    def __cinit__(self, config):
        for number, quota in enumerate(QUOTAS):
            self.most[number] = _configured(quota, getattr(config, quota.key))
        self.active = config.quota_activate
        self.refused = ST_ENOSPC if config.quota_errno == "ENOSPC" else ST_EQUOTA
        self.owners = {}
        self._follow()

    cdef int _follow(self) except -1:
        self.node.entries = self.most[Q_NODES]
        self.node.value = self.most[Q_NODE_SIZE]
        self.node.active = self.active
        self.node.by_owner = <void *>self.owners if self.owners else NULL
        return 0

    def get(self, str name not None):
        """The limit of that name, 0 for none; KeyError."""
        cdef int64_t most = self.most[NAMES[name]]
        return 0 if most == UNLIMITED else most

    def shown(self, str name not None):
        """The limit of that name for a person: a number, 0 where the check is off, `none` where the
        configuration allows nothing at all; KeyError."""
        return _shown(self.most[NAMES[name]])

    def set(self, str name not None, value):
        """Sets a limit, 0 for none; KeyError, or ValueError where it is out of range."""
        cdef int number = NAMES[name]
        if not 0 <= value <= QUOTA_MAX:
            raise ValueError(f"quota {name}: {value}")
        self.most[number] = value or UNLIMITED
        self._follow()

    def of_owner(self, int64_t owner):
        """The nodes that one owner may have, 0 for no limit."""
        most = self.owners.get(owner, self.most[Q_NODES])
        return 0 if most == UNLIMITED else most

    def shown_of_owner(self, int64_t owner):
        """The same number as shown() writes it."""
        return _shown(self.owners.get(owner, self.most[Q_NODES]))

    def set_owner(self, int64_t owner, value):
        """Gives an owner a limit of its own, 0 for none, -1 for that of all again;
        ValueError."""
        if not -1 <= value <= QUOTA_MAX:
            raise ValueError(f"quota of domain {owner}: {value}")
        if value < 0:
            self.owners.pop(owner, None)
        else:
            self.owners[owner] = value or UNLIMITED
        self._follow()
