# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks on the tree: long paths, long permission lists, wide directories."""

from __future__ import annotations

from .. import wire
from ..program import Program
from .model import (
    NODES,
    PATH,
    Attack,
    Role,
    Team,
    deep,
    end,
    longest_list,
    mkdir,
    permissions,
    rm,
    text,
    try_,
    watch,
    write,
)

CHILDREN = 780  # their names just fit into one reply of 4096 bytes
LONG = 1000  # entries of a permission list that just fits into one request
LISTED = 60
SLOTS = 1 << 14  # of the table that COLLIDING is made for


def _colliding() -> list[int]:
    """Domids that pile up in a quarter of a hash table.

    They are chosen for the multiplicative hash that C programs take most often (by 2^64 divided by
    the golden ratio, the bits from 33 on) and a table with open addressing of SLOTS slots.
    """
    chosen = [
        domid
        for domid in range(1, 32752)
        if (domid * 0x9E3779B97F4A7C15 % 2**64 >> 33) % SLOTS < SLOTS // 4
    ]
    return chosen[: SLOTS // 2 - 2]


def _deep_write(team: Team) -> Program:
    return rm(write(Program(), deep("d")), "d")


def _one_by_one(team: Team) -> Program:
    """Each second request is a cheap one, so that those of the guest are cheap on average."""
    program = try_(mkdir(Program(), deep("d", PATH // 5)), wire.READ, text("x"))
    return try_(rm(program, "d"), wire.READ, text("x"))


def _deep_mkdir(team: Team) -> Program:
    return rm(mkdir(Program(), deep("d")), "d")


def _deep_transaction(team: Team) -> Program:
    program = Program().start()
    for _ in range(10):
        rm(write(program, deep("d")), "d")
    return end(program)


def _deep_reads(team: Team) -> Program:
    program = Program()
    for kind in (wire.READ, wire.DIRECTORY, wire.GET_PERMS):
        try_(program, kind, text(deep("missing", PATH // 2)))
    return program


def _collide_set_up(team: Team) -> Program:
    program, domids = write(Program(), "small"), _colliding()
    for i in range(0, len(domids), LISTED):
        longest_list(program, f"c{i}", team.domids[0], domids[i : i + LISTED])
    return program


def _collide(team: Team) -> Program:
    program, own = Program(), f"n{team.domids[0]}"
    domids = _colliding()
    for entries in (domids[:1], domids[-LISTED:], domids[LISTED : 2 * LISTED]):
        try_(program, wire.SET_PERMS, text("small") + permissions(own, entries))
    return program


def _children(team: Team) -> Program:
    program = Program()
    for i in range(CHILDREN):
        write(program, f"w/{i:04d}")
    return program


def _listing(team: Team) -> Program:
    return try_(Program(), wire.DIRECTORY, text("w"))


def _churn(team: Team) -> Program:
    return rm(write(Program(), "w/new"), "w/new")


def _listed_churn(team: Team) -> Program:
    return try_(_churn(team), wire.DIRECTORY, text("w"))


def _wide_rm(team: Team) -> Program:
    program = Program()
    for i in range(CHILDREN // 10):
        write(program, f"r/{i}")
    return rm(program, "r")


def _parts(team: Team) -> Program:
    """A listing in parts, and a change between two parts so that it starts again."""
    program = Program()
    for offset in ("0", "2000", "4000"):
        try_(program, wire.DIRECTORY_PART, text("w", offset))
        rm(write(program, "w/new"), "w/new")
    return program


def _parts_socket(team: Team) -> Program:
    """In the home of the guest beside, as dom0: guests may not list in parts in all daemons."""
    home = team.home()
    program = try_(Program(), wire.DIRECTORY_PART, text(f"{home}/w", "0"))
    rm(write(program, f"{home}/w/new"), f"{home}/w/new")
    return try_(program, wire.DIRECTORY_PART, text(f"{home}/w", "1000"))


def _long_lists(team: Team) -> Program:
    program = Program()
    for i in range(8):
        longest_list(program, f"p{i}", team.domids[0], [-1] * LONG)
    return program


def _get_lists(team: Team) -> Program:
    program = Program()
    for i in range(8):
        try_(program, wire.GET_PERMS, text(f"p{i}"))
    return program


def _storm_watched(team: Team) -> Program:
    program = Program()
    for i in range(100):
        watch(program, f"{team.home()}/s", f"{i}")
    return program


def _storm(team: Team) -> Program:
    """The list forbids and allows the watcher in turn."""
    owner, watcher = team.domids
    program = Program()
    for entries in ([2] * LISTED, [2] * (LISTED - 1) + [watcher]):
        try_(program, wire.SET_PERMS, text("s") + permissions(f"n{owner}", entries))
    return program


ATTACKS = (
    Attack(
        "deep-write",
        f"WRITE {NODES} levels deep, and RM",
        "Missing parents are created on the way: one request of 2 KB makes 900 nodes.",
        (Role(_deep_write),),
    ),
    Attack(
        "deep-mkdir",
        f"MKDIR {NODES} levels deep, and RM",
        "The same by MKDIR.",
        (Role(_deep_mkdir),),
    ),
    Attack(
        "deep-one-by-one",
        f"MKDIR {PATH // 5} levels deep, READ, RM, READ, one at a time",
        "Who waits for each answer is served soon, as long as it asks for little.",
        (Role(_one_by_one, lambda team: write(Program(), "x"), window=1),),
    ),
    Attack(
        "deep-transaction",
        "WRITE and RM of deep paths in transactions",
        "The tree of a transaction is another one, and its commit merges or repeats all of it.",
        (Role(_deep_transaction),),
    ),
    Attack(
        "deep-missing",
        "READ, DIRECTORY and GET_PERMS of a deep path that does not exist",
        "Permissions are looked up at the nearest parent that exists: a walk for each component.",
        (Role(_deep_reads),),
    ),
    Attack(
        "colliding-domids",
        "Permission lists with domids that collide in a hash table",
        "Who may choose the keys of a table of fixed hash makes each access a walk.",
        (Role(_collide, _collide_set_up),),
        most=200,
    ),
    Attack(
        "long-lists",
        f"GET_PERMS of the longest lists that are accepted, up to {LONG} entries",
        "A request of 20 bytes with a reply that is formatted for it, and may not fit.",
        (Role(_get_lists, _long_lists),),
    ),
    Attack(
        "set-perms-storm",
        "SET_PERMS of a node that 100 watches are on",
        "Each change of rights asks for each watch whether its owner may see it.",
        (Role(_storm, lambda team: write(Program(), "s")), Role(None, _storm_watched)),
    ),
    Attack(
        "wide-listing",
        f"DIRECTORY of {CHILDREN} children",
        "A request of 20 bytes that lists a whole directory.",
        (Role(_listing, _children),),
    ),
    Attack(
        "wide-churn",
        f"One child comes and goes among {CHILDREN}",
        "A directory that is copied for each change costs its width.",
        (Role(_churn, _children),),
    ),
    Attack(
        "wide-listing-churn",
        f"DIRECTORY of {CHILDREN} children after each change",
        "A listing that is kept for the next one is of no use if a child comes between.",
        (Role(_listed_churn, _children),),
    ),
    Attack(
        "wide-rm",
        "RM of a tree, again and again",
        "Removing costs the size of the tree, building it a request for each node.",
        (Role(_wide_rm),),
    ),
    Attack(
        "directory-part",
        "DIRECTORY_PART with a change between the parts",
        "A listing that is kept for the next part is made anew after each change.",
        (Role(_parts, _children),),
    ),
    Attack(
        "directory-part-sockets",
        "50 sockets that each hold the listing of an old directory",
        "What is kept per connection for the next part is memory.",
        (Role(None, _children), Role(_parts_socket, via="socket", conns=50)),
        most=20,
    ),
)
