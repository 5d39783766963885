# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random requests of several clients, answered by the core and by the plain-Python model.

After every request the answers, the events (as multisets per connection), the
tree, the entry counts (of the store and of every open transaction, recounted
from the tree), the watches and the open transactions must be equal.

PYXSD_HYPOTHESIS_EXAMPLES is the number of runs of 60 steps; without it a fixed
set of about 20 seconds is run, the same each time.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyxsd.control import Control
from pyxsd.system.configuration import Config
from tests.property.model import Limits, Model, counted, walk
from tests.state.test_image import again
from tests.world import ERROR, TYPES, World

EXAMPLES = os.environ.get("PYXSD_HYPOTHESIS_EXAMPLES")
ACCESS = {"n": 0, "r": 1, "w": 2, "b": 3}
GUESTS = (1, 2, 3)
CLIENTS = ("s0", "s1", "d1", "d1", "d2", "d2", "d3")

# Few names, so that requests meet.
ABSOLUTE = [
    b"/",
    b"/a",
    b"/a",
    b"/a/b",
    b"/a/b",
    b"/a/b/c",
    b"/a/d",
    b"/e",
    b"/tool",
    b"/local/domain/1",
    b"/local/domain/1/x",
    b"/local/domain/1/x/y",
    b"/local/domain/2",
    b"/local/domain/2/x",
    b"/local/domain/3/x",
    b"/local/domain",
    b"/local",
    b"/a-/b",
]
RELATIVE = [b"x", b"x", b"x/y", b"x/y/z", b"w", b"x_/y"]
SPECIAL = [
    b"@introduceDomain",
    b"@releaseDomain",
    b"@releaseDomain/1",
    b"@x",
    b"/@x",
    b"/@x/y",
    b"/@releaseDomain",
]
ODD = [
    b"",
    b"//",
    b"/a/",
    b"/a//b",
    b"a b",
    b"/a.b",
    b"x/",
    b"/" + b"l" * 24,
    b"/" + b"l" * 23,
    b"/local/domain/1/" + b"m" * 25,
    b"/local/domain/1/" + b"m" * 24,
    b"n" * 24,
    b"n" * 25,
    b"@" + b"o" * 24,
    b"/local/domain/007/" + b"m" * 25,
]
paths = st.one_of(
    *[st.sampled_from(ABSOLUTE)] * 5,
    *[st.sampled_from(RELATIVE)] * 3,
    st.sampled_from(SPECIAL),
    st.sampled_from(ODD),
)
values = st.sampled_from([b"", b"v", b"w", b"v\0w", b"12345678", b"123456789"])
permissions = st.sampled_from(
    [
        b"n0\0",
        b"r0\0",
        b"w0\0",
        b"b0\0",
        b"n1\0",
        b"r1\0",
        b"b1\0",
        b"n2\0",
        b"n1\0r2\0",
        b"n1\0w2\0b3\0",
        b"r2\0n1\0",
        b"b2\0n1\0n3\0",
        b"n1\0r2\0n2\0",
        b"n3\0b1\0",
        b"n-1\0",
        b"",
        b"n1",
        b"x1\0",
        b"n\0",
        b"n1\0\0",
        b"n1x\0",
        b"n0\0b1\0junk",
    ]
)
tokens = st.sampled_from([b"t", b"t", b"u", b""])
depths = st.sampled_from(
    [b"", b"", b"", b"0\0", b"1\0", b"2\0", b"-1\0", b"\0", b"1", b"9" * 9 + b"\0"]
)
ONE_PATH = ("READ", "DIRECTORY", "GET_PERMS")
clients = st.sampled_from(CLIENTS)
slots = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 2, 3])

LIMITS: dict[str, Any] = {
    "quota_maxentity": 5,
    "quota_maxsize": 8,
    "quota_maxwatch": 3,
    "quota_transaction": 2,
    "quota_maxrequests": 8,
    "quota_path_max": 24,
}


class CoreAndModel(RuleBasedStateMachine):
    """Steps that go to both."""

    world: World
    model: Model
    config: Config

    @initialize(
        merge=st.sampled_from([True, True, False]),
        perms=st.sampled_from([True, True, True, False]),
        watch_perms=st.sampled_from([True, True, True, False]),
        quota=st.sampled_from([True, True, True, False]),
    )
    def start(self, merge: bool, perms: bool, watch_perms: bool, quota: bool) -> None:
        given = dict(
            LIMITS,
            merge_activate=merge,
            perms_activate=perms,
            perms_watch_activate=watch_perms,
            quota_activate=quota,
        )
        self.config = Config(**given)
        self.world = World(self.config)
        self.model = Model(Limits(**given))
        self.model.connect("d0", 0)
        for name in ("s0", "s1"):
            self.world.connection(name)
            self.model.connect(name)
        for domid in (1, 2):
            self.world.introduce(domid)
            self.model.introduce(domid)
            home = b"/local/domain/%d\0" % domid
            self.both("s0", "MKDIR", home)
            self.both("s0", "SET_PERMS", home + b"n%d\0" % domid)
        self.both("s0", "WRITE", b"/a/b\0v")
        self.both("s0", "SET_PERMS", b"/a\0b0\0")

    def both(self, name: str, type_: str, payload: bytes, slot: int = 0) -> None:
        """One request: equal answers, equal events."""
        client = self.model.clients.get(name)
        if client is None:
            return
        open_ = sorted(client.transactions)
        tx_id = 0 if slot == 0 else open_[slot - 1] if slot <= len(open_) else 0
        # No transaction is young enough for anybody to pay for conflicts.
        self.world.now += 10.0
        (got, reply_tx, body), events = self.world.step(name, type_, payload, tx_id)
        status, data = self.model.request(name, type_, payload, tx_id)
        what = f"{name} {type_} {payload!r} tx {tx_id}"
        assert reply_tx == (0 if type_ in ("WATCH", "UNWATCH") else tx_id), what
        if status == "OK" and data.startswith(b"digest\0") and type_ == "DIRECTORY_PART":
            body = b"digest\0" + body.split(b"\0", 1)[1]
        if status == "OK":
            assert (got, body) == (TYPES[type_], data), what
        else:
            assert (got, body) == (ERROR, status.encode() + b"\0"), what
        self.same_events(events, what)

    def same_events(self, got: dict[str, list[bytes]], what: str) -> None:
        want = self.model.take_events()
        assert {k: Counter(v) for k, v in got.items()} == {
            k: Counter(v) for k, v in want.items()
        }, what

    # -- requests -------------------------------------------------------------

    @rule(name=clients, type_=st.sampled_from(ONE_PATH), path=paths, slot=slots)
    def reads(self, name: str, type_: str, path: bytes, slot: int) -> None:
        self.both(name, type_, path + b"\0", slot)

    @rule(name=clients, path=paths, value=values, slot=slots)
    def writes(self, name: str, path: bytes, value: bytes, slot: int) -> None:
        self.both(name, "WRITE", path + b"\0" + value, slot)

    @rule(name=clients, type_=st.sampled_from(["MKDIR", "RM"]), path=paths, slot=slots)
    def makes_or_removes(self, name: str, type_: str, path: bytes, slot: int) -> None:
        self.both(name, type_, path + b"\0", slot)

    @rule(name=clients, path=paths, perms=permissions, slot=slots)
    def sets_perms(self, name: str, path: bytes, perms: bytes, slot: int) -> None:
        self.both(name, "SET_PERMS", path + b"\0" + perms, slot)

    @rule(
        name=clients,
        path=paths,
        slot=slots,
        offset=st.sampled_from([b"0", b"0", b"2", b"99", b"-1", b"x", b""]),
    )
    def lists_in_parts(self, name: str, path: bytes, slot: int, offset: bytes) -> None:
        self.both(name, "DIRECTORY_PART", path + b"\0" + offset + b"\0", slot)

    @rule(name=clients, path=paths, token=tokens, depth=depths, slot=slots)
    def watches(self, name: str, path: bytes, token: bytes, depth: bytes, slot: int) -> None:
        self.both(name, "WATCH", path + b"\0" + token + b"\0" + depth, slot)

    @rule(name=clients, path=paths, token=tokens)
    def unwatches(self, name: str, path: bytes, token: bytes) -> None:
        self.both(name, "UNWATCH", path + b"\0" + token + b"\0")

    @rule(name=clients, which=st.integers(0, 3))
    def unwatches_own(self, name: str, which: int) -> None:
        client = self.model.clients.get(name)
        if client and which < len(client.watches):
            watch = client.watches[which]
            self.both(
                name, "UNWATCH", watch.path.text[watch.path.special :] + b"\0" + watch.token + b"\0"
            )

    @rule(name=clients)
    def begins(self, name: str) -> None:
        self.both(name, "TRANSACTION_START", b"\0")

    @rule(
        name=clients,
        slot=st.sampled_from([1, 1, 1, 2, 2, 3, 0]),
        how=st.sampled_from([b"T\0"] * 6 + [b"F\0", b"F\0", b"T", b"X\0", b""]),
    )
    def ends(self, name: str, slot: int, how: bytes) -> None:
        self.both(name, "TRANSACTION_END", how, slot)

    @rule(
        name=clients,
        slot=slots,
        what=st.sampled_from(
            [
                ("CONTROL", b"nothing\0"),
                ("GET_DOMAIN_PATH", b"dom 12x\0"),
                ("GET_DOMAIN_PATH", b"7"),
                ("IS_DOMAIN_INTRODUCED", b"1\0"),
                ("IS_DOMAIN_INTRODUCED", b"3"),
                ("TRANSACTION_START", b"\0"),
                ("WATCH_EVENT", b""),
                ("READ", b"/a"),
                ("WRITE", b"/a"),
                ("RESET_WATCHES", b""),
            ]
        ),
    )
    def asks_something_else(self, name: str, slot: int, what: tuple[str, bytes]) -> None:
        self.both(name, *what, slot)

    @rule(
        name=st.sampled_from(["s0", "s0", "d1"]),
        domid=st.sampled_from([1, 2, 3, 9]),
        other=st.sampled_from([0, 1, 2, 3]),
    )
    def sets_target(self, name: str, domid: int, other: int) -> None:
        self.both(name, "SET_TARGET", b"%d\0%d\0" % (domid, other))

    @rule(name=clients)
    def names_no_transaction(self, name: str) -> None:
        if name in self.model.clients:
            world, model = self.world, self.model
            (got, _, body), events = world.step(name, "READ", b"/a\0", 9999)
            assert (got, body, events) == (ERROR, b"EIO\0", {})
            assert model.request(name, "READ", b"/a\0", 9999)[0] == "EIO"

    # -- connections come and go ----------------------------------------------

    @rule(domid=st.sampled_from(GUESTS))
    def introduces(self, domid: int) -> None:
        if f"d{domid}" not in self.model.clients:
            payload = b"%d\x004660\x007\0" % domid
            (got, _, _), events = self.world.step("s0", "INTRODUCE", payload)
            assert got == TYPES["INTRODUCE"]
            self.model.introduce(domid)
            self.same_events(events, f"INTRODUCE {domid}")

    @rule(domid=st.sampled_from((1, 2, 3)))
    def releases(self, domid: int) -> None:
        known = f"d{domid}" in self.model.clients
        (got, _, body), events = self.world.step("s0", "RELEASE", b"%d\0" % domid)
        assert (got, body) == ((TYPES["RELEASE"], b"OK\0") if known else (ERROR, b"EINVAL\0"))
        if known:
            self.model.release(domid)
        else:
            self.model.forget(domid)
        self.same_events(events, f"RELEASE {domid}")

    @rule(domids=st.sampled_from([(1, 2), (3,), (3, 2, 9)]))
    def are_gone_at_once(self, domids: tuple[int, ...]) -> None:
        """Those that are connected stay so, as others that come next with their domids."""
        self.world.server.forget_domains(domids)
        for domid in domids:
            self.model.forget(domid)

    @rule()
    def another_server_goes_on(self) -> None:
        """Made of the image of this one; what is remembered of those who are gone is in there."""
        before, self.world = self.world, again(self.world, config=self.config)
        self.world.host.commands = Control(self.world.server, self.world.host)
        before.close()

    @rule()
    def reconnects_a_socket(self) -> None:
        self.world.server.disconnect(self.world.connection("s1")[0])
        del self.world.sockets["s1"]
        self.world.connection("s1")
        self.model.disconnect("s1")
        self.model.connect("s1")

    # -- what must always be equal --------------------------------------------

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def same_state(self) -> None:
        assert_same_tree(self.world.server.tree, self.model.root)
        for name, client in self.model.clients.items():
            connection = self.world.connection(name)[0]
            assert sorted(connection.transactions) == sorted(client.transactions), name
            assert connection.target == client.target
            assert [
                (w.given, w.token, w.depth) for w in client.watches
            ] == connection.watch_list(), name
            for tx_id, txn in client.transactions.items():
                assert_same_tree(connection.transactions[tx_id].tree, txn.root)
        assert self.world.server.watch_total == sum(
            len(c.watches) for c in self.model.clients.values()
        )
        assert self.world.server.open_transactions == sum(
            len(c.transactions) for c in self.model.clients.values()
        )
        errors = [text for level, _, text in self.world.host.messages if level == "error"]
        assert not errors, errors[0]

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()


def assert_same_tree(tree: Any, root: Any) -> None:
    """Nodes, values and permissions; and the entry counts, counted anew."""
    want = [
        (path, [(domid, ACCESS[a]) for domid, a in node.perms], node.value)
        for path, node in walk(root)
    ]
    assert list(tree.walk()) == want
    assert tree.all_entries() == counted(root) and tree.owners_hold()
    assert tree.size == len(want) - 1


fixed = settings(
    max_examples=int(EXAMPLES or 500),
    stateful_step_count=60,
    deadline=None,
    database=None,
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
CoreAndModel.TestCase.settings = fixed
TestCoreAndModel = CoreAndModel.TestCase
