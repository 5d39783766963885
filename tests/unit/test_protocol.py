# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every request, every error, and the order of the checks, as a table.

A case is (what, who, tx, request, payload, reply, events).  Each runs three
times on a fresh store: its packet whole, byte by byte, and in one piece with
requests before and behind it.  tx is 0, 9999 (never open) or "t", a transaction
that `who` opens first.  A reply is "OK" (a success without data), an error's
name, or the bytes of a success; events are {connection: [(path, token), ...]},
in order per connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Union

import pytest

from pyxsd._handlers import request_types
from tests.world import ERROR, EVENT, TYPES, World, packet

Events = dict[str, list[tuple[bytes, bytes]]]


class Case(NamedTuple):
    """One row."""

    what: str
    who: str
    tx: Union[int, str]
    type: Union[str, int]
    payload: bytes
    reply: Union[str, bytes]
    events: Events = {}


LONG = b"/" + b"/".join([b"abcdefg"] * 128)  # 1024 bytes
VALUE = b"v" * 2048
ENDLESS = b"/local/domain/" + b"9" * 18 + b"\0"  # digits beyond 2^58 do not count

# The store of every case, written by s0: path, value, permissions.
STORE = [
    (b"/pub", b"public", b"r0\0"),
    (b"/pub/deep", b"", b"b0\0"),
    (b"/priv", b"secret", b"n0\0"),
    (b"/priv/open", b"o", b"b0\0"),
    (b"/wonly", b"w", b"w0\0"),
    (b"/mine", b"m", b"n1\0"),
    (b"/mine/kid", b"k", b"n1\0"),
    (b"/acl", b"a", b"n0\0r1\0w2\0"),
    (b"/twice", b"2", b"n0\0n1\0b1\0"),
    (b"/theirs", b"t", b"n2\0b1\0"),
]
# Watches of every case: who, path, token, depth.
WATCHES = [
    ("s0", b"/", b"root", b""),
    ("s1", b"/pub", b"pub", b"0\0"),
    ("d1", b"/mine", b"mine", b""),
    ("d1", b"x", b"rel", b""),
    ("d1", b"/priv/open", b"po", b""),
    ("d2", b"/mine", b"blind", b""),
    ("d2", b"/", b"all", b"1\0"),
]

READS = [
    Case("value", "s0", 0, "READ", b"/pub\0", b"public"),
    Case("empty value", "s0", 0, "READ", b"/pub/deep\0", b""),
    Case("root", "s0", 0, "READ", b"/\0", b""),
    Case("relative", "d1", 0, "READ", b"name\0", b"one"),
    Case("relative, other spelling", "d1", 0, "READ", b"/local/domain/1/name\0", b"one"),
    Case("relative of a socket", "s0", 0, "READ", b"name\0", b"zero"),
    Case("public for a guest", "d1", 0, "READ", b"/pub\0", b"public"),
    Case("below a private node", "d1", 0, "READ", b"/priv/open\0", b"o"),
    Case("private", "d1", 0, "READ", b"/priv\0", "EACCES"),
    Case("write-only", "d1", 0, "READ", b"/wonly\0", "EACCES"),
    Case("by an entry", "d1", 0, "READ", b"/acl\0", b"a"),
    Case("the write entry does not read", "d2", 0, "READ", b"/acl\0", "EACCES"),
    Case("the first matching entry counts", "d1", 0, "READ", b"/twice\0", "EACCES"),
    Case("missing", "s0", 0, "READ", b"/none\0", "ENOENT"),
    Case("missing below private", "d1", 0, "READ", b"/priv/none\0", "ENOENT"),
    Case("no NUL", "s0", 0, "READ", b"/pub", "EINVAL"),
    Case("two strings", "s0", 0, "READ", b"/pub\0x\0", "EINVAL"),
    Case("two NULs", "s0", 0, "READ", b"/pub\0\0", "EINVAL"),
    Case("nothing", "s0", 0, "READ", b"", "EINVAL"),
    Case("empty path", "s0", 0, "READ", b"\0", "EINVAL"),
    Case("trailing slash", "s0", 0, "READ", b"/pub/\0", "EINVAL"),
    Case("double slash", "s0", 0, "READ", b"//pub\0", "EINVAL"),
    Case("bad byte", "s0", 0, "READ", b"/p.b\0", "EINVAL"),
    Case("path too long", "s0", 0, "READ", LONG + b"x\0", "EINVAL"),
    Case("longest path", "s0", 0, "READ", LONG + b"\0", "ENOENT"),
    Case(
        "only the rest of a home counts",
        "d1",
        0,
        "READ",
        b"/local/domain/1" + LONG + b"xx\0",
        "EINVAL",
    ),
    Case("longest path in a home", "d1", 0, "READ", LONG[1:] + b"x\0", "ENOENT"),
    Case("special", "s0", 0, "READ", b"@releaseDomain\0", b""),
    Case("special, its other name", "s0", 0, "READ", b"/@releaseDomain\0", b""),
    Case("special for a guest", "d1", 0, "READ", b"@releaseDomain\0", "EACCES"),
    Case("special, any bytes", "s0", 0, "READ", b"@a/b. c\0", "ENOENT"),
    Case("directory", "s0", 0, "DIRECTORY", b"/priv\0", b"open\0"),
    Case(
        "directory, ordered",
        "s0",
        0,
        "DIRECTORY",
        b"/\0",
        b"@introduceDomain\0@releaseDomain\0acl\0local\0mine\0priv\0pub\0theirs\0tool\0"
        b"twice\0wide\0wonly\0",
    ),
    Case("empty directory", "s0", 0, "DIRECTORY", b"/acl\0", b""),
    Case("directory, private", "d1", 0, "DIRECTORY", b"/priv\0", "EACCES"),
    Case("directory, missing", "d1", 0, "DIRECTORY", b"/none/x\0", "ENOENT"),
    Case("directory too long", "s0", 0, "DIRECTORY", b"/wide\0", "E2BIG"),
    Case("directory, no NUL", "s0", 0, "DIRECTORY", b"/priv", "EINVAL"),
    Case("perms", "s0", 0, "GET_PERMS", b"/acl\0", b"n0\0r1\0w2\0"),
    Case("perms of root", "s0", 0, "GET_PERMS", b"/\0", b"n0\0"),
    Case("perms of a special node", "s0", 0, "GET_PERMS", b"@introduceDomain\0", b"n0\0"),
    Case("perms need read access", "d1", 0, "GET_PERMS", b"/priv\0", "EACCES"),
    Case("perms, missing", "s0", 0, "GET_PERMS", b"/none\0", "ENOENT"),
    Case("perms, two strings", "s0", 0, "GET_PERMS", b"/acl\0n0\0", "EINVAL"),
    Case("part, all", "s0", 0, "DIRECTORY_PART", b"/priv\x000\0", b"1\0open\0\0"),
    Case("part, last NUL missing", "s0", 0, "DIRECTORY_PART", b"/priv\x000", b"1\0open\0\0"),
    Case("part, more strings", "s0", 0, "DIRECTORY_PART", b"/priv\x000\0x\0", b"1\0open\0\0"),
    Case("part, inside a name", "s0", 0, "DIRECTORY_PART", b"/priv\x002\0", b"1\0en\0\0"),
    Case("part, at the end", "s0", 0, "DIRECTORY_PART", b"/priv\x005\0", b"1\0\0"),
    Case("part, past the end", "s0", 0, "DIRECTORY_PART", b"/priv\x0099\0", b"1\0\0"),
    Case("part, empty", "s0", 0, "DIRECTORY_PART", b"/acl\x000\0", b"1\0\0"),
    Case("part, no offset", "s0", 0, "DIRECTORY_PART", b"/priv\0", "EINVAL"),
    Case("part, bad offset", "s0", 0, "DIRECTORY_PART", b"/priv\x000x1\0", "EINVAL"),
    Case("part, missing", "s0", 0, "DIRECTORY_PART", b"/none\x000\0", "ENOENT"),
    Case("part, guest, not readable", "d1", 0, "DIRECTORY_PART", b"/priv\x000\0", "EACCES"),
    Case("part, guest, bad offset", "d1", 0, "DIRECTORY_PART", b"/mine\x00-1\0", "EINVAL"),
]

CHANGES = [
    Case(
        "write",
        "s0",
        0,
        "WRITE",
        b"/mine\0new",
        "OK",
        {"s0": [(b"/mine", b"root")], "d1": [(b"/mine", b"mine")]},
    ),
    Case(
        "write, equal value",
        "s0",
        0,
        "WRITE",
        b"/mine\0m",
        "OK",
        {"s0": [(b"/mine", b"root")], "d1": [(b"/mine", b"mine")]},
    ),
    Case(
        "write, NULs in the value",
        "s0",
        0,
        "WRITE",
        b"/theirs\0a\0b\0",
        "OK",
        {"s0": [(b"/theirs", b"root")], "d2": [(b"/theirs", b"all")]},
    ),
    Case(
        "write, empty value",
        "s0",
        0,
        "WRITE",
        b"/priv/open\0",
        "OK",
        {"s0": [(b"/priv/open", b"root")], "d1": [(b"/priv/open", b"po")]},
    ),
    Case(
        "write, relative event path",
        "d1",
        0,
        "WRITE",
        b"/local/domain/1/x/y\0v",
        "OK",
        {"d1": [(b"x/y", b"rel")], "s0": [(b"/local/domain/1/x/y", b"root")]},
    ),
    Case(
        "write, parents fire nothing",
        "s0",
        0,
        "WRITE",
        b"/p/q/r\0v",
        "OK",
        {"s0": [(b"/p/q/r", b"root")]},
    ),
    Case(
        "write, deeper than the depth",
        "s0",
        0,
        "WRITE",
        b"/pub/new\0v",
        "OK",
        {"s0": [(b"/pub/new", b"root")]},
    ),
    Case(
        "write, at the depth",
        "s0",
        0,
        "WRITE",
        b"/pub\0v",
        "OK",
        {"s0": [(b"/pub", b"root")], "s1": [(b"/pub", b"pub")], "d2": [(b"/pub", b"all")]},
    ),
    Case("write, root fires nothing", "s0", 0, "WRITE", b"/\0v", "OK"),
    Case(
        "write, special fires as a path",
        "s0",
        0,
        "WRITE",
        b"@releaseDomain\0v",
        "OK",
        {"s0": [(b"/@releaseDomain", b"root")]},
    ),
    Case("write, no NUL", "s0", 0, "WRITE", b"/mine", "EINVAL"),
    Case("write, bad path", "s0", 0, "WRITE", b"mine/\0v", "EINVAL"),
    Case("write, bad path before size", "s0", 0, "WRITE", b"mine/\0" + VALUE + b"v", "EINVAL"),
    Case("write, largest", "s1", 0, "WRITE", b"/acl\0" + VALUE, "OK", {"s0": [(b"/acl", b"root")]}),
    Case("write, too large", "s0", 0, "WRITE", b"/acl\0" + VALUE + b"v", "E2BIG"),
    Case("write, size before access", "d1", 0, "WRITE", b"/priv\0" + VALUE + b"v", "E2BIG"),
    Case(
        "write, parent's access before size",
        "d1",
        0,
        "WRITE",
        b"/priv/a/b\0" + VALUE + b"v",
        "EACCES",
    ),
    Case("write, read access is not enough", "d1", 0, "WRITE", b"/pub\0v", "EACCES"),
    Case("write, write-only", "d1", 0, "WRITE", b"/wonly\0v", "OK", {"s0": [(b"/wonly", b"root")]}),
    Case("write, by an entry", "d2", 0, "WRITE", b"/acl\0v", "OK", {"s0": [(b"/acl", b"root")]}),
    Case("write, create needs the parent", "d1", 0, "WRITE", b"/priv/new\0v", "EACCES"),
    Case(
        "write, create in the home",
        "d1",
        0,
        "WRITE",
        b"new\0v",
        "OK",
        {"s0": [(b"/local/domain/1/new", b"root")]},
    ),
    Case("write, own quota", "d1", 0, "WRITE", b"/full/more\0v", "EQUOTA"),
    Case(
        "write, own quota, no creation",
        "d1",
        0,
        "WRITE",
        b"/full/a\0v",
        "OK",
        {"s0": [(b"/full/a", b"root")]},
    ),
    Case("write, size before quota", "d1", 0, "WRITE", b"/full/more\0" + VALUE + b"v", "E2BIG"),
    Case(
        "write, quota of the parents before size",
        "d1",
        0,
        "WRITE",
        b"/full/more/more\0" + VALUE + b"v",
        "EQUOTA",
    ),
    Case("write, quota of the owner, whoever writes", "d2", 0, "WRITE", b"/full/more\0v", "EQUOTA"),
    Case(
        "write, quota is not for domain 0",
        "s0",
        0,
        "WRITE",
        b"/full/more\0v",
        "OK",
        {"s0": [(b"/full/more", b"root")]},
    ),
    Case(
        "mkdir",
        "s0",
        0,
        "MKDIR",
        b"/mine/new\0",
        "OK",
        {"s0": [(b"/mine/new", b"root")], "d1": [(b"/mine/new", b"mine")]},
    ),
    Case("mkdir, exists", "s0", 0, "MKDIR", b"/mine\0", "OK"),
    Case("mkdir, exists, no access", "d1", 0, "MKDIR", b"/pub\0", "EACCES"),
    Case("mkdir, root", "d1", 0, "MKDIR", b"/\0", "OK"),
    Case("mkdir, no access", "d1", 0, "MKDIR", b"/pub/new\0", "EACCES"),
    Case("mkdir, quota before access", "d2", 0, "MKDIR", b"/full/more\0", "EQUOTA"),
    Case("mkdir, no NUL", "s0", 0, "MKDIR", b"/new", "EINVAL"),
    Case("mkdir, data behind", "s0", 0, "MKDIR", b"/new\0x", "EINVAL"),
    Case(
        "rm",
        "s0",
        0,
        "RM",
        b"/mine/kid\0",
        "OK",
        {"s0": [(b"/mine/kid", b"root")], "d1": [(b"/mine/kid", b"mine")]},
    ),
    Case(
        "rm, watches below",
        "s0",
        0,
        "RM",
        b"/priv\0",
        "OK",
        {"s0": [(b"/priv", b"root")], "d1": [(b"/priv/open", b"po")]},
    ),
    Case("rm, missing", "s0", 0, "RM", b"/none\0", "OK"),
    Case("rm, missing, for a guest too", "d1", 0, "RM", b"/priv/none\0", "OK"),
    Case("rm, missing parent", "s0", 0, "RM", b"/none/x\0", "ENOENT"),
    Case(
        "rm, needs the node, not the parent",
        "d1",
        0,
        "RM",
        b"/priv/open\0",
        "OK",
        {"s0": [(b"/priv/open", b"root")], "d1": [(b"/priv/open", b"po")]},
    ),
    Case("rm, no access", "d1", 0, "RM", b"/pub\0", "EACCES"),
    Case("rm, root, guest", "d1", 0, "RM", b"/\0", "EACCES"),
    Case(
        "rm, root",
        "s0",
        0,
        "RM",
        b"/\0",
        "OK",
        {
            "s1": [(b"/pub", b"pub")],
            "d1": [(b"/mine", b"mine"), (b"/priv/open", b"po"), (b"x", b"rel")],
        },
    ),
    Case("rm, bad path", "s0", 0, "RM", b"/a b\0", "EINVAL"),
    Case(
        "set perms",
        "s0",
        0,
        "SET_PERMS",
        b"/priv\0r0\0",
        "OK",
        {"s0": [(b"/priv", b"root")], "d2": [(b"/priv", b"all")]},
    ),
    Case(
        "set perms, readable before is enough",
        "s0",
        0,
        "SET_PERMS",
        b"/pub\0n0\0",
        "OK",
        {"s0": [(b"/pub", b"root")], "s1": [(b"/pub", b"pub")], "d2": [(b"/pub", b"all")]},
    ),
    Case(
        "set perms, rest dropped",
        "s0",
        0,
        "SET_PERMS",
        b"/acl\0n0\0r1",
        "OK",
        {"s0": [(b"/acl", b"root")]},
    ),
    Case("set perms, none", "s0", 0, "SET_PERMS", b"/acl\0", "EINVAL"),
    Case("set perms, no NUL behind", "s0", 0, "SET_PERMS", b"/acl\0n0", "EINVAL"),
    Case("set perms, no path", "s0", 0, "SET_PERMS", b"\0n0\0", "EINVAL"),
    Case("set perms, bad letter", "s0", 0, "SET_PERMS", b"/acl\0N0\0", "EINVAL"),
    Case("set perms, no number", "s0", 0, "SET_PERMS", b"/acl\0n\0", "EINVAL"),
    Case("set perms, bad number", "s0", 0, "SET_PERMS", b"/acl\0n0x1\0", "EINVAL"),
    Case("set perms, 20 digits", "s0", 0, "SET_PERMS", b"/acl\0n18446744073709551617\0", "EINVAL"),
    Case(
        "set perms, largest number",
        "s0",
        0,
        "SET_PERMS",
        b"/acl\0n4611686018427387903\0",
        "OK",
        {"s0": [(b"/acl", b"root")]},
    ),
    Case("set perms, larger", "s0", 0, "SET_PERMS", b"/acl\0n4611686018427387904\0", "EINVAL"),
    Case("set perms, empty entry", "s0", 0, "SET_PERMS", b"/acl\0n0\0\0", "EINVAL"),
    Case("set perms, malformed before missing", "s0", 0, "SET_PERMS", b"/none\0q0\0", "EINVAL"),
    Case("set perms, missing", "d1", 0, "SET_PERMS", b"/none\0n1\0", "ENOENT"),
    Case(
        "set perms, owner",
        "d1",
        0,
        "SET_PERMS",
        b"/mine\0n1\0r2\0",
        "OK",
        {
            "s0": [(b"/mine", b"root")],
            "d1": [(b"/mine", b"mine")],
            "d2": [(b"/mine", b"blind"), (b"/mine", b"all")],
        },
    ),
    Case("set perms, given away", "d1", 0, "SET_PERMS", b"/mine\0n2\0", "EACCES"),
    Case("set perms, taken", "d1", 0, "SET_PERMS", b"/pub\0n1\0", "EACCES"),
    Case(
        "set perms, write access is not ownership", "d1", 0, "SET_PERMS", b"/theirs\0n2\0", "EACCES"
    ),
    Case("set perms, root, guest", "d1", 0, "SET_PERMS", b"/\0b0\0", "EACCES"),
    Case("set perms, root", "s0", 0, "SET_PERMS", b"/\0r0\0", "OK"),
    Case(
        "set perms, special",
        "s0",
        0,
        "SET_PERMS",
        b"@introduceDomain\0r0\0",
        "OK",
        {"s0": [(b"/@introduceDomain", b"root")], "d2": [(b"/@introduceDomain", b"all")]},
    ),
]

WATCH_CASES = [
    Case("watch", "s1", 0, "WATCH", b"/a\0t\0", "OK", {"s1": [(b"/a", b"t")]}),
    Case("watch, relative", "d1", 0, "WATCH", b"a\0t\0", "OK", {"d1": [(b"a", b"t")]}),
    Case("watch, not readable", "d1", 0, "WATCH", b"/priv\0t\0", "OK", {"d1": [(b"/priv", b"t")]}),
    Case("watch, empty token", "s1", 0, "WATCH", b"/a\0\0", "OK", {"s1": [(b"/a", b"")]}),
    Case("watch, tx ignored", "s1", 9999, "WATCH", b"/a\0t\0", "OK", {"s1": [(b"/a", b"t")]}),
    Case("watch, depth", "s1", 0, "WATCH", b"/a\0t\x007\0", "OK", {"s1": [(b"/a", b"t")]}),
    Case(
        "watch, long path",
        "s1",
        0,
        "WATCH",
        LONG + LONG + b"\0t\0",
        "OK",
        {"s1": [(LONG + LONG, b"t")]},
    ),
    Case(
        "watch, special",
        "d1",
        0,
        "WATCH",
        b"@introduceDomain\0t\0",
        "OK",
        {"d1": [(b"@introduceDomain", b"t")]},
    ),
    Case(
        "watch, special, depth 1",
        "d1",
        0,
        "WATCH",
        b"@releaseDomain\0t\x001\0",
        "OK",
        {"d1": [(b"@releaseDomain", b"t")]},
    ),
    Case("watch, special, depth 0", "d1", 0, "WATCH", b"@releaseDomain\0t\x000\0", "EINVAL"),
    Case(
        "watch, one release",
        "d1",
        0,
        "WATCH",
        b"@releaseDomain/4\0t\0",
        "OK",
        {"d1": [(b"@releaseDomain/4", b"t")]},
    ),
    Case("watch, one release, depth", "d1", 0, "WATCH", b"@releaseDomain/4\0t\x001\0", "EINVAL"),
    Case("watch, no token", "s1", 0, "WATCH", b"/a\0", "EINVAL"),
    Case("watch, token without NUL", "s1", 0, "WATCH", b"/a\0t", "EINVAL"),
    Case("watch, no path", "s1", 0, "WATCH", b"\0t\0", "EINVAL"),
    Case("watch, bad path", "s1", 0, "WATCH", b"/a/\0t\0", "EINVAL"),
    Case("watch, negative depth", "s1", 0, "WATCH", b"/a\0t\0-1\0", "EINVAL"),
    Case("watch, empty depth", "s1", 0, "WATCH", b"/a\0t\0\0", "EINVAL"),
    Case("watch, depth no number", "s1", 0, "WATCH", b"/a\0t\0x\0", "EINVAL"),
    Case(
        "watch, depth of 20 digits", "s1", 0, "WATCH", b"/a\0t\x0018446744073709551615\0", "EINVAL"
    ),
    Case("watch, depth without NUL", "s1", 0, "WATCH", b"/a\0t\x001", "EINVAL"),
    Case("watch, four strings", "s1", 0, "WATCH", b"/a\0t\x001\0x\0", "EINVAL"),
    Case("watch, twice", "s0", 0, "WATCH", b"/\0root\0", "EEXIST"),
    Case("watch, twice with another depth", "s0", 0, "WATCH", b"/\0root\x001\0", "EEXIST"),
    Case("watch, twice by another name", "d1", 0, "WATCH", b"/local/domain/1/x\0rel\0", "EEXIST"),
    Case(
        "watch, same path, other token",
        "s0",
        0,
        "WATCH",
        b"/\0other\0",
        "OK",
        {"s0": [(b"/", b"other")]},
    ),
    Case(
        "watch, same of another connection",
        "s1",
        0,
        "WATCH",
        b"/\0root\0",
        "OK",
        {"s1": [(b"/", b"root")]},
    ),
    Case("watch, quota before twice", "d2", 0, "WATCH", b"/\0all\0", "EQUOTA"),
    Case("watch, bad path before quota", "d2", 0, "WATCH", b"/a/\0t\0", "EINVAL"),
    Case("unwatch", "s0", 0, "UNWATCH", b"/\0root\0", "OK"),
    Case("unwatch, other name", "d1", 0, "UNWATCH", b"/local/domain/1/x\0rel\0", "OK"),
    Case("unwatch, tx ignored", "s0", 9999, "UNWATCH", b"/\0root\0", "OK"),
    Case("unwatch, unknown token", "s0", 0, "UNWATCH", b"/\0t\0", "ENOENT"),
    Case("unwatch, somebody else's", "s1", 0, "UNWATCH", b"/\0root\0", "ENOENT"),
    Case("unwatch, ill-formed path", "s0", 0, "UNWATCH", b"/a b/\0t\0", "ENOENT"),
    Case("unwatch, empty path", "s0", 0, "UNWATCH", b"\0t\0", "EINVAL"),
    Case("unwatch, no token", "s0", 0, "UNWATCH", b"/\0", "EINVAL"),
    Case("unwatch, with depth", "s1", 0, "UNWATCH", b"/pub\0pub\x000\0", "EINVAL"),
    Case("reset watches", "d1", 0, "RESET_WATCHES", b"", "OK"),
    Case("reset watches, any payload", "d1", 0, "RESET_WATCHES", b"anything", "OK"),
    Case("reset watches, unknown tx", "d1", 9999, "RESET_WATCHES", b"\0", "EIO"),
    Case("reset watches in a transaction", "d1", "t", "RESET_WATCHES", b"\0", "OK"),
]

TRANSACTIONS = [
    Case("start", "s1", 0, "TRANSACTION_START", b"\0", b"1\0"),
    Case("start, any payload", "s1", 0, "TRANSACTION_START", b"", b"1\0"),
    Case("start in one", "s1", "t", "TRANSACTION_START", b"\0", "EBUSY"),
    Case("start, unknown tx", "s1", 9999, "TRANSACTION_START", b"\0", "EIO"),
    Case("commit", "s1", "t", "TRANSACTION_END", b"T\0", "OK"),
    Case("commit, no NUL", "s1", "t", "TRANSACTION_END", b"T", "OK"),
    Case("commit, more behind", "s1", "t", "TRANSACTION_END", b"T\0xyz", "OK"),
    Case("drop", "s1", "t", "TRANSACTION_END", b"F\0", "OK"),
    Case("neither", "s1", "t", "TRANSACTION_END", b"t\0", "EINVAL"),
    Case("two letters", "s1", "t", "TRANSACTION_END", b"TF\0", "EINVAL"),
    Case("no letter", "s1", "t", "TRANSACTION_END", b"", "EINVAL"),
    Case("end of none", "s1", 0, "TRANSACTION_END", b"T\0", "ENOENT"),
    Case("end of none, bad letter", "s1", 0, "TRANSACTION_END", b"X\0", "EINVAL"),
    Case("end of an unknown one", "s1", 9999, "TRANSACTION_END", b"T\0", "EIO"),
    Case("read in one", "d1", "t", "READ", b"name\0", b"one"),
    Case("read, unknown tx", "s1", 9999, "READ", b"/pub\0", "EIO"),
    Case("unknown tx before access", "d1", 9999, "RELEASE", b"2\0", "EIO"),
    Case("unknown tx before payload", "s1", 9999, "READ", b"", "EIO"),
    Case("unknown type, unknown tx", "s1", 9999, 99, b"", "EIO"),
    Case("write in one fires nothing", "s0", "t", "WRITE", b"/mine\0v", "OK"),
]

DOMAINS = [
    Case("domain path", "d1", 0, "GET_DOMAIN_PATH", b"7\0", b"/local/domain/7\0"),
    Case("domain path, lenient", "d1", 0, "GET_DOMAIN_PATH", b"a1b2\0", b"/local/domain/1\0"),
    Case("domain path, digits", "d1", 0, "GET_DOMAIN_PATH", b"1907\0", b"/local/domain/1907\0"),
    Case("domain path, beside", "d1", 0, "GET_DOMAIN_PATH", b"/:9:8\0", b"/local/domain/9\0"),
    Case("domain path, endless", "d1", 0, "GET_DOMAIN_PATH", b"9" * 40 + b"\0", ENDLESS),
    Case("domain path, no digits", "d1", 0, "GET_DOMAIN_PATH", b"x\0", b"/local/domain/0\0"),
    Case("domain path, empty", "d1", 0, "GET_DOMAIN_PATH", b"\0", b"/local/domain/0\0"),
    Case("domain path, no NUL", "d1", 0, "GET_DOMAIN_PATH", b"7", "EINVAL"),
    Case("domain path, two", "d1", 0, "GET_DOMAIN_PATH", b"7\x008\0", "EINVAL"),
    Case("introduced", "s0", 0, "IS_DOMAIN_INTRODUCED", b"1\0", b"T\0"),
    Case("introduced, no NUL", "s0", 0, "IS_DOMAIN_INTRODUCED", b"1", b"T\0"),
    Case("introduced, more", "s0", 0, "IS_DOMAIN_INTRODUCED", b"1\0x", b"T\0"),
    Case("not introduced", "s0", 0, "IS_DOMAIN_INTRODUCED", b"9\0", b"F\0"),
    Case("introduced, self", "s0", 0, "IS_DOMAIN_INTRODUCED", b"32752\0", b"T\0"),
    Case("introduced, no number", "s0", 0, "IS_DOMAIN_INTRODUCED", b"x\0", "EINVAL"),
    Case("introduced, hexadecimal", "s0", 0, "IS_DOMAIN_INTRODUCED", b"0x1\0", "EINVAL"),
    Case("introduced, guest", "d1", 0, "IS_DOMAIN_INTRODUCED", b"1\0", "EACCES"),
    Case("introduced, access before payload", "d1", 0, "IS_DOMAIN_INTRODUCED", b"x", "EACCES"),
    Case("target", "s0", 0, "SET_TARGET", b"1\x002\0", "OK"),
    Case("target, lenient", "s0", 0, "SET_TARGET", b"dom1\0y2\0", "OK"),
    Case("target, not introduced", "s0", 0, "SET_TARGET", b"9\x002\0", "ENOENT"),
    Case("target, no last NUL", "s0", 0, "SET_TARGET", b"1\x002", "EINVAL"),
    Case("target, one", "s0", 0, "SET_TARGET", b"1\0", "EINVAL"),
    Case("target, three", "s0", 0, "SET_TARGET", b"1\x002\x003\0", "EINVAL"),
    Case("target, guest", "d1", 0, "SET_TARGET", b"1\x000\0", "EACCES"),
    Case("introduce, port first", "s0", 0, "INTRODUCE", b"x\0y\0z\0", "EINVAL"),
    Case("introduce, then mfn", "s0", 0, "INTRODUCE", b"x\0y\x007\0", "EIO"),
    Case("introduce, then domid", "s0", 0, "INTRODUCE", b"x\x001\x007\0", "EINVAL"),
    Case("introduce, two", "s0", 0, "INTRODUCE", b"5\x001\0", "EINVAL"),
    Case("introduce, guest", "d1", 0, "INTRODUCE", b"5\x001\x007\0", "EACCES"),
    Case("introduce, other mfn", "s0", 0, "INTRODUCE", b"1\x001\x007\0", "EINVAL"),
    Case("introduce again", "s0", 0, "INTRODUCE", b"1\x004660\x008\0", "OK"),
    Case("introduce, last NUL missing", "s0", 0, "INTRODUCE", b"1\x004660\x008", "OK"),
    Case("release, not introduced", "s0", 0, "RELEASE", b"9\0", "EINVAL"),
    Case("release, no NUL", "s0", 0, "RELEASE", b"2", "EINVAL"),
    Case("release, two", "s0", 0, "RELEASE", b"2\0x\0", "EINVAL"),
    Case("release, no number", "s0", 0, "RELEASE", b"2x\0", "EINVAL"),
    Case("release, domain 0", "s0", 0, "RELEASE", b"0\0", "EINVAL"),
    Case("release, 20 digits", "s0", 0, "RELEASE", b"18446744073709551618\0", "EINVAL"),
    Case(
        "introduced, 20 digits",
        "s0",
        0,
        "IS_DOMAIN_INTRODUCED",
        b"18446744073709551617\0",
        "EINVAL",
    ),
    Case("release, guest", "d1", 0, "RELEASE", b"1\0", "EACCES"),
    Case("release", "s0", 0, "RELEASE", b"2\0", "OK"),
    Case("resume", "s0", 0, "RESUME", b"1\0", "OK"),
    Case("resume, no NUL, more", "s0", 0, "RESUME", b"1", "OK"),
    Case("resume, not introduced", "s0", 0, "RESUME", b"9\0", "EINVAL"),
    Case("resume, guest", "d1", 0, "RESUME", b"1\0", "EACCES"),
]

OTHERS = [
    Case("control", "s0", 0, "CONTROL", b"print\0hello\0", b"OK\0"),
    Case("control, guest", "d1", 0, "CONTROL", b"quota\x001\0", b"OK\0"),
    Case("control, unknown", "s0", 0, "CONTROL", b"no such\0", b"OK\0"),
    Case("control, empty", "s0", 0, "CONTROL", b"", b"OK\0"),
    Case("restrict", "s0", 0, 20, b"1\0", "ENOSYS"),
    Case("event from a client", "s0", 0, "WATCH_EVENT", b"/a\0t\0", "ENOSYS"),
    Case("error from a client", "s0", 0, "ERROR", b"EIO\0", "ENOSYS"),
    Case("unknown", "d1", 0, max(TYPES.values()) + 1, b"", "ENOSYS"),
    Case("far unknown", "d1", 0, 0xFFFFFFFF, b"x" * 4096, "ENOSYS"),
    Case("unknown in a transaction", "d1", "t", 99, b"", "ENOSYS"),
    Case("feature, guest", "d1", 0, "GET_FEATURE", b"1\0", "EACCES"),
    Case("set feature, guest", "d1", 0, "SET_FEATURE", b"1\x001\0", "EACCES"),
    Case("quota, guest", "d1", 0, "GET_QUOTA", b"", "EACCES"),
    Case("set quota, guest", "d1", 0, "SET_QUOTA", b"nodes\x001\0", "EACCES"),
]

CASES = READS + CHANGES + WATCH_CASES + TRANSACTIONS + DOMAINS + OTHERS


def prepare(make_world: Callable[..., Any], case: Case) -> tuple[World, int]:
    """The store and watches of a case, and its transaction's id."""
    world: World = make_world(quota_maxentity=8, quota_maxwatch=1, quota_path_max=1024)
    nodes = list(STORE)
    if case.payload.startswith(b"/full"):
        # Domain 1 has all the entries that it may have: its home, name, /mine and kid are 4.
        nodes += [(b"/full", b"", b"b1\0"), *((b"/full/%c" % c, b"", b"b1\0") for c in b"abc")]
    for path, value, perms in nodes:
        assert world.ask("s0", "WRITE", path + b"\0" + value) == (TYPES["WRITE"], b"OK\0")
        assert world.ask("s0", "SET_PERMS", path + b"\0" + perms)[0] == TYPES["SET_PERMS"]
    if case.type == "DIRECTORY":
        for n in range(410):
            world.ask("s0", "MKDIR", b"/wide/name-%04d\0" % n)
    for path, value in ((b"/local/domain/0/name", b"zero"), (b"/local/domain/1/name", b"one")):
        world.ask("s0", "WRITE", path + b"\0" + value)
    for connection in (world.connection(name)[0] for name in ("s0", "s1", "d1", "d2")):
        world.server.set_quota("watches", 0, connection)
    for who, path, token, depth in WATCHES:
        assert world.ask(who, "WATCH", path + b"\0" + token + b"\0" + depth)[1] == b"OK\0"
    world.server.set_quota("watches", 1, world.connection("d2")[0])
    tx_id = case.tx if isinstance(case.tx, int) else 0
    if case.tx == "t":
        tx_id = int(world.ask(case.who, "TRANSACTION_START", b"\0")[1][:-1])
    world.turn()
    for name in world.names():
        world.drain(name)
    return world, tx_id


def check(case: Case, world: World, tx_id: int, req_id: int) -> None:
    """The reply to one request and all events, in their order."""
    number = case.type if isinstance(case.type, int) else TYPES[case.type]
    if case.reply == "OK":
        want = (number, req_id, b"OK\0")
    elif isinstance(case.reply, str):
        want = (ERROR, req_id, case.reply.encode() + b"\0")
    else:
        want = (number, req_id, case.reply)
    want_tx = 0 if case.type in ("WATCH", "UNWATCH") else tx_id
    events: Events = {}
    replies: list[tuple[int, int, bytes]] = []
    for name in world.names():
        for got, got_req, got_tx, body in world.drain(name):
            if got == EVENT:
                assert (got_req, got_tx) == (0, 0)
                assert name != case.who or any(r[1] == req_id for r in replies), (
                    "the event came before the reply"
                )
                path, token, rest = body.split(b"\0")
                assert rest == b""
                events.setdefault(name, []).append((path, token))
            else:
                assert name == case.who
                replies.append((got, got_req, body))
                if got_req == req_id:
                    assert got_tx == want_tx
    ours = [reply for reply in replies if reply[1] == req_id]
    assert ours == [want]
    # Different watches of one connection have no order among them.
    assert {k: sorted(v) for k, v in events.items()} == {
        k: sorted(v) for k, v in case.events.items()
    }


def identity(case: Case) -> str:
    return f"{case.type}: {case.what}"


@pytest.mark.parametrize("case", CASES, ids=identity)
@pytest.mark.parametrize("way", ["whole", "bytes", "pipelined"])
def test_request(make_world: Callable[..., Any], case: Case, way: str) -> None:
    world, tx_id = prepare(make_world, case)
    data = packet(case.type, case.payload, tx_id, req_id=0xFEDCBA98)
    if way == "bytes" and len(data) < 600:
        for n in range(len(data)):
            assert not any(world.drain(name) for name in world.names()), "answered too early"
            world.feed(case.who, data[n : n + 1])
    elif way == "pipelined":
        around = packet("GET_DOMAIN_PATH", b"5\0", req_id=0)
        world.feed(case.who, around * 2 + data + around)
    else:
        world.feed(case.who, data)
    check(case, world, tx_id, 0xFEDCBA98)


def test_every_request_and_every_error_is_in_the_table() -> None:
    types = {case.type for case in CASES}
    assert types >= set(TYPES)
    assert set(request_types().items()) <= set(TYPES.items())
    # Those with a state before them have their own tests: EAGAIN in test_transactions.
    assert {case.reply for case in CASES if isinstance(case.reply, str)} >= {
        "OK",
        "EINVAL",
        "ENOENT",
        "EACCES",
        "EEXIST",
        "EBUSY",
        "E2BIG",
        "EQUOTA",
        "ENOSYS",
        "EIO",
    }


def test_pipelined_replies_keep_their_order(make_world: Callable[..., Any]) -> None:
    """All cases of one connection without transactions, in one piece."""
    world: World = make_world()
    cases = [case for case in READS + OTHERS if case.who == "s0" and case.tx == 0]
    world.feed(
        "s0", b"".join(packet(case.type, case.payload, req_id=n) for n, case in enumerate(cases))
    )
    assert [req_id for _, req_id, _, _ in world.drain("s0")] == list(range(len(cases)))


@pytest.mark.parametrize("length", [4097, 5000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_over_4096_ends_the_connection(
    make_world: Callable[..., Any], length: int
) -> None:
    world: World = make_world()
    whole = packet("READ", b"/tool\0")
    header = whole[:12] + length.to_bytes(4, "little")
    connection, transport = world.connection("s0")
    world.feed("s0", whole + header + b"x" * 5000)
    assert connection.closed and transport.failed == 3
    # What came before it was served; the others do not notice.
    assert world.ask("s1", "READ", b"/tool\0") == (TYPES["READ"], b"")
    connection, transport = world.connection("d1")
    world.feed("d1", header + whole)
    assert connection.bad and not connection.closed and transport.failed == 3
    world.feed("d1", whole)
    assert world.drain("d1") == []
    assert world.ask("d2", "GET_DOMAIN_PATH", b"1\0")[0] == TYPES["GET_DOMAIN_PATH"]


def test_the_longest_payload_is_served(make_world: Callable[..., Any]) -> None:
    world: World = make_world(quota_maxsize=5000)
    value = b"v" * (4096 - 3)
    assert world.ask("s0", "WRITE", b"/v\0" + value) == (TYPES["WRITE"], b"OK\0")
    assert world.ask("s0", "READ", b"/v\0") == (TYPES["READ"], value)


def test_tx_id_zero_after_max_requests_zero(make_world: Callable[..., Any]) -> None:
    """quota-maxrequests = 0 refuses every request of a guest, but none of domain 0."""
    world: World = make_world(quota_maxrequests=0)
    assert world.ask("d1", "GET_DOMAIN_PATH", b"1\0") == (ERROR, b"EQUOTA\0")
    assert world.ask("s0", "GET_DOMAIN_PATH", b"1\0")[0] == TYPES["GET_DOMAIN_PATH"]


def test_quota_errno_enospc(make_world: Callable[..., Any]) -> None:
    world: World = make_world(quota_errno="ENOSPC", quota_maxentity=1)
    assert world.ask("d1", "MKDIR", b"x\0") == (ERROR, b"ENOSPC\0")
