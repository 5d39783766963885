# SPDX-License-Identifier: LGPL-2.1-or-later
"""Xenstore in plain Python: what every request answers and which events it causes.

Made to be obviously right, not fast.  The store is in model_tree.py, what a
client has in model_clients.py.

Left out: queues and their limits, who pays for conflicts, logs, and answers
over 4096 bytes.  The rules are those of xenstore.txt and oxenstored's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Optional

from tests.property.model_clients import Answer, Client, Limits, Path, Transaction, Watch
from tests.property.model_tree import (
    INTEGER,
    Node,
    Parts,
    Perms,
    bury,
    common,
    counted,
    find,
    forget,
    names,
    parse_perms,
    put,
    untouched,
    walk,
)

COMPONENT = re.compile(rb"[A-Za-z0-9_@-]+\Z")
HOME = re.compile(rb"/local/domain/[+-]?[0-9]+/")
PRIVILEGED = {
    "INTRODUCE",
    "RELEASE",
    "RESUME",
    "SET_TARGET",
    "IS_DOMAIN_INTRODUCED",
    "GET_FEATURE",
    "SET_FEATURE",
    "GET_QUOTA",
    "SET_QUOTA",
}
REPLAYABLE = {
    "DIRECTORY",
    "DIRECTORY_PART",
    "READ",
    "GET_PERMS",
    "GET_DOMAIN_PATH",
    "WRITE",
    "MKDIR",
    "RM",
    "SET_PERMS",
}
READS = {"DIRECTORY", "DIRECTORY_PART", "READ", "GET_PERMS"}
OK: Answer = ("OK", b"OK\0")


def lenient(text: bytes) -> int:
    """A number as C's lenient readers take it: the first digits, or 0."""
    digits = re.search(rb"[0-9]+", text)
    return int(digits.group()) if digits else 0


class Model:
    """The store and its clients."""

    def __init__(self, limits: Limits, executable: bytes = b"/usr/sbin/pyxsd") -> None:
        self.limits = limits
        mine: Perms = ((0, "n"),)
        empty = {
            name: Node(b"", mine, {}) for name in (b"@introduceDomain", b"@releaseDomain", b"local")
        }
        tool = Node(b"", mine, {b"xenstored": Node(executable, mine, {})})
        self.root = Node(b"", mine, {**empty, b"tool": tool})
        self.epoch = 0
        self.clients: dict[str, Client] = {}
        self.events: list[tuple[str, Watch, bytes]] = []
        # The request being served.
        self.client: Client
        self.work: Node = self.root
        self.txn: Optional[Transaction] = None
        self.wrote: Optional[Parts] = None  # the deepest node that existed and changed
        self.changed = False  # it counts as a change, for watches
        self.path = Path(())

    # -- clients --------------------------------------------------------------

    def connect(self, name: str, domid: int = 0) -> None:
        """A new connection."""
        self.clients[name] = Client(name, domid)

    def disconnect(self, name: str) -> None:
        """Its watches and transactions go with it."""
        del self.clients[name]

    def introduce(self, domid: int) -> None:
        """A domain gets its connection."""
        self.connect(f"d{domid}", domid)
        self.fire_special(b"@introduceDomain", domid)

    def release(self, domid: int) -> None:
        """A domain goes, with its nodes and rights."""
        self.forget(domid)
        self.disconnect(f"d{domid}")
        self.fire_special(b"@releaseDomain", domid)

    def forget(self, domid: int) -> None:
        """The store is cleaned of a domain; every node counts as touched."""
        self.root = forget(self.root, domid)
        self.epoch += 1
        for txn in [
            txn for client in self.clients.values() for txn in client.transactions.values()
        ]:
            txn.base, txn.root = bury(txn.base, domid), bury(txn.root, domid)
        for client in self.clients.values():
            if client.target == domid:
                client.target = -1

    def take_events(self) -> dict[str, list[bytes]]:
        """The events of the last step; of identical ones that were not on a special
        path only one is left, as all were still queued."""
        bodies: dict[str, list[bytes]] = {}
        seen = set()
        for name, watch, text in self.events:
            if watch.path.special or (id(watch), text) not in seen:
                seen.add((id(watch), text))
                bodies.setdefault(name, []).append(text + b"\0" + watch.token + b"\0")
        self.events = []
        return bodies

    # -- rights ---------------------------------------------------------------

    def is_owner(self, perms: Perms, client: Client) -> bool:
        """Domain 0, the owner, and everybody where permissions are off."""
        return (
            not self.limits.perms_activate
            or client.privileged
            or any(names(perms[0][0], domid) for domid in client.ids)
        )

    def allowed(self, perms: Perms, client: Client, want: str) -> bool:
        """Any of a client's domains may be the one with the right."""
        if self.is_owner(perms, client):
            return True
        for domid in client.ids:
            letter = next((a for who, a in perms[1:] if names(who, domid)), perms[0][1])
            if letter in (want, "b"):
                return True
        return False

    def no_room(self, root: Node, ancestor: Node) -> bool:
        """Has the owner of a node as many entries as it may have?"""
        owner = ancestor.perms[0][0]
        if not self.limits.quota_activate or self.client.privileged or owner <= 0:
            return False
        return counted(root).get(owner, 0) >= self.limits.quota_maxentity

    # -- watches --------------------------------------------------------------

    def seen(self, root: Optional[Node], path: Parts) -> list[Perms]:
        """The permissions that decide about an event: of the parent and the node."""
        if root is None or not path:
            return []
        parent, node = find(root, path[:-1]), find(root, path)
        return [there.perms for there in (parent, node) if there]

    def deliver(self, client: Client, watch: Watch, text: bytes, perms: list[Perms]) -> None:
        """One event, to whom may see it; by domids alone, of which life they ever were."""
        then = [tuple((int(who), letter) for who, letter in p) for p in perms]
        if not self.limits.perms_watch_activate or any(self.allowed(p, client, "r") for p in then):
            self.events.append((client.name, watch, text))

    def fire(self, path: Path, before: Optional[Node], after: Optional[Node], below: bool) -> None:
        """A change at a path; below: watches below it are told of their own paths."""
        look = tuple(path.text[1:].split(b"/")) if path.parts else ()
        perms = self.seen(before, look) + self.seen(after, look)
        for client in self.clients.values():
            for watch in client.watches:
                at = watch.path.parts
                if watch.path.special:
                    continue
                if path.parts[: len(at)] == at:
                    if watch.depth is None or len(path.parts) - len(at) <= watch.depth:
                        text = path.text
                        if watch.path.relative:
                            text = text[len(client.base) :]
                        self.deliver(client, watch, text, perms)
                elif below and at[: len(path.parts)] == path.parts:
                    self.deliver(client, watch, watch.given, self.seen(before, at))

    def fire_change(self, type_: str, path: Path, before: Node, after: Node) -> None:
        """The event of one request that changed the store."""
        if type_ == "RM":
            self.fire(path, before, None, True)
        elif type_ == "SET_PERMS":
            self.fire(path, before, after, False)
        else:
            self.fire(path, None, after, False)

    def fire_special(self, name: bytes, domid: int) -> None:
        """The generic event, and the ones for just this domain."""
        each = name + b"/%d" % domid
        for watched, event, depth in ((name, name, None), (name, each, 1), (each, each, None)):
            for client in self.clients.values():
                for watch in client.watches:
                    if (
                        watch.path.special
                        and watch.path.parts == (watched,)
                        and watch.depth == depth
                    ):
                        self.deliver(client, watch, event, self.seen(self.root, (event,)))

    # -- requests -------------------------------------------------------------

    def request(self, name: str, type_: str, payload: bytes, tx_id: int = 0) -> Answer:
        """What a client is answered; the events are in take_events()."""
        client = self.client = self.clients[name]
        txn: Optional[Transaction] = None
        if tx_id and type_ not in ("WATCH", "UNWATCH"):
            txn = client.transactions.get(tx_id)
            if txn is None:
                return "EIO", b""
        most = self.limits.quota_maxrequests
        if (
            not client.privileged
            and most >= 0
            and (most == 0 or (txn is not None and txn.count >= most))
        ):
            return "EQUOTA", b""
        before = self.root
        self.txn = txn
        self.work = txn.root if txn else self.root
        answer = self.run(type_, payload)
        if txn is None:
            if type_ not in ("TRANSACTION_END", "RESET_WATCHES"):
                self.root = self.work
            if self.changed:
                self.fire_change(type_, self.path, before, self.root)
            return answer
        txn.count += 1
        if txn in client.transactions.values():
            txn.root = self.work
            self.note(txn, type_, payload, answer)
        return answer

    def note(self, txn: Transaction, type_: str, payload: bytes, answer: Answer) -> None:
        """What a request in a transaction read and wrote."""
        txn.requests.append((type_, payload, answer))
        if type_ in READS and answer[0] == "OK":
            txn.read_low = common(txn.read_low, self.path.parts)
        if self.wrote is not None:
            txn.write_low = common(txn.write_low, self.wrote)
        if self.changed:
            txn.changes.append((type_, self.path))

    def run(self, type_: str, payload: bytes) -> Answer:
        """One request on self.work."""
        self.wrote = None
        self.changed = False
        if type_ in PRIVILEGED and not self.client.privileged:
            return "EACCES", b""
        handler: Optional[Callable[[bytes], Answer]] = getattr(self, "do_" + type_.lower(), None)
        return handler(payload) if handler else ("ENOSYS", b"")

    def parse(self, text: bytes, limit: bool = True) -> Optional[Path]:
        """A path as a client wrote it; None where it is malformed."""
        most = self.limits.quota_path_max if limit else 1 << 20
        if not text:
            return None
        if text[:1] == b"@":
            return Path((text,), special=True) if len(text) <= most else None
        whole = text if text[:1] == b"/" else self.client.base + text
        home = HOME.match(whole)
        if len(whole) - (home.end() if home else 0) > most:
            return None
        if whole == b"/":
            return Path(())
        parts = whole[1:].split(b"/")
        if not all(COMPONENT.match(part) for part in parts):
            return None
        return Path(tuple(parts), relative=whole != text)

    def one_path(self, payload: bytes) -> Optional[Path]:
        """The path that is the whole payload."""
        if payload.find(b"\0") != len(payload) - 1:
            return None
        path = self.parse(payload[:-1])
        self.path = path or self.path
        return path

    def read_node(self, payload: bytes) -> tuple[str, Node]:
        """The node that a reading request is about."""
        path = self.one_path(payload)
        node = find(self.work, path.parts) if path else None
        if path is None:
            return "EINVAL", self.root
        if node is None:
            return "ENOENT", self.root
        if not self.allowed(node.perms, self.client, "r"):
            return "EACCES", self.root
        return "OK", node

    def do_read(self, payload: bytes) -> Answer:
        status, node = self.read_node(payload)
        return status, node.value if status == "OK" else b""

    def do_directory(self, payload: bytes) -> Answer:
        status, node = self.read_node(payload)
        names = b"".join(name + b"\0" for name in sorted(node.kids))
        return status, names if status == "OK" else b""

    def do_get_perms(self, payload: bytes) -> Answer:
        status, node = self.read_node(payload)
        # oxenstored prints its 63-bit numbers as unsigned ones.
        text = b"".join(b"%c%d\0" % (ord(a), domid & (1 << 63) - 1) for domid, a in node.perms)
        return status, text if status == "OK" else b""

    def do_directory_part(self, payload: bytes) -> Answer:
        client = self.client
        fields = payload.split(b"\0")
        if len(fields) < 2 or not INTEGER.match(fields[1]):
            return "EINVAL", b""
        status, node = self.read_node(fields[0] + b"\0")
        if status != "OK":
            return status, b""
        offset = int(fields[1])
        if offset < 0:
            return "EINVAL", b""
        if client.domid != 0:
            # The count is a digest of the names.
            names = b"".join(name + b"\0" for name in sorted(node.kids))[offset:]
            return "OK", b"digest\0" + names + b"\0"
        for entry in client.listings:
            if entry[0] is node:
                client.listings.remove(entry)
                break
        else:
            client.generations += 1
            entry = node, client.generations
        client.listings = [entry, *client.listings[:7]]
        names = b"".join(name + b"\0" for name in sorted(node.kids))[offset:]
        return "OK", b"%d\0" % entry[1] + names + b"\0"

    def create_above(self, path: Parts) -> str:
        """The missing nodes above a path; "OK" or the error at the first refusal."""
        for n in range(1, len(path)):
            if find(self.work, path[:n]) is not None:
                continue
            status = self.create(path[:n], b"")
            if status != "OK":
                return status
        return "OK"

    def create(self, path: Parts, value: bytes) -> str:
        """A node whose parent exists; it takes the parent's permissions."""
        parent = find(self.work, path[:-1])
        assert parent is not None
        if self.no_room(self.work, parent):
            return "EQUOTA"
        if not self.allowed(parent.perms, self.client, "w"):
            return "EACCES"
        self.work = put(self.work, path, Node(value, parent.perms, {}))
        if self.wrote is None:
            self.wrote = path[:-1]
        return "OK"

    def do_write(self, payload: bytes) -> Answer:
        text, nul, value = payload.partition(b"\0")
        path = self.parse(text)
        if not nul or path is None:
            return "EINVAL", b""
        self.path = path
        status = self.create_above(path.parts)
        if status != "OK":
            return status, b""
        if self.limits.quota_activate and len(value) > self.limits.quota_maxsize:
            return "E2BIG", b""
        node = find(self.work, path.parts)
        if node is None:
            status = self.create(path.parts, value)
        elif not self.allowed(node.perms, self.client, "w"):
            status = "EACCES"
        else:
            # An equal value touches what is above the node, not the node.
            new = node
            if value != node.value:
                new = Node(value, node.perms, node.kids)
            self.work = put(self.work, path.parts, new)
            self.wrote = path.parts
        self.changed = status == "OK"
        return OK if status == "OK" else (status, b"")

    def do_mkdir(self, payload: bytes) -> Answer:
        path = self.one_path(payload)
        if path is None:
            return "EINVAL", b""
        if not path.parts:
            self.changed = True
            self.wrote = ()
            return OK
        node = find(self.work, path.parts)
        if node is not None:
            return OK if self.allowed(node.perms, self.client, "w") else ("EACCES", b"")
        status = self.create_above(path.parts)
        if status == "OK":
            status = self.create(path.parts, b"")
        self.changed = status == "OK"
        return OK if status == "OK" else (status, b"")

    def do_rm(self, payload: bytes) -> Answer:
        path = self.one_path(payload)
        if path is None:
            return "EINVAL", b""
        node = find(self.work, path.parts)
        if node is None:
            parent = find(self.work, path.parts[:-1])
            return OK if parent is not None else ("ENOENT", b"")
        if not self.allowed(node.perms, self.client, "w"):
            return "EACCES", b""
        if path.parts:
            self.work = put(self.work, path.parts, None)
        else:
            self.work = Node(node.value, node.perms, {})
        self.wrote = path.parts[:-1]
        self.changed = True
        return OK

    def do_set_perms(self, payload: bytes) -> Answer:
        text, nul, rest = payload.partition(b"\0")
        path, perms = self.parse(text), parse_perms(rest)
        if not nul or path is None or perms is None:
            return "EINVAL", b""
        self.path = path
        node = find(self.work, path.parts)
        if node is None:
            return "ENOENT", b""
        if node.perms[0][0] != perms[0][0] and not self.client.privileged:
            return "EACCES", b""
        if not self.is_owner(node.perms, self.client):
            return "EACCES", b""
        self.work = put(self.work, path.parts, Node(node.value, perms, node.kids))
        self.wrote = path.parts
        self.changed = True
        return OK

    def do_watch(self, payload: bytes) -> Answer:
        fields = payload.split(b"\0")
        if len(fields) not in (3, 4) or fields[-1]:
            return "EINVAL", b""
        given, token = fields[:2]
        depth: Optional[int] = None
        if len(fields) == 4:
            if not re.match(rb"[0-9]+\Z", fields[2]):
                return "EINVAL", b""
            depth = int(fields[2])
        path = self.parse(given, limit=False)
        if path is None:
            return "EINVAL", b""
        if (
            path.special
            and depth is not None
            and (depth != 1 or re.match(rb"@releaseDomain/[0-9]+\Z", given))
        ):
            return "EINVAL", b""
        client, most = self.client, self.limits.quota_maxwatch
        if self.limits.quota_activate and not client.privileged and 0 < most < len(client.watches):
            return "EQUOTA", b""
        if self.watch_of(path, token):
            return "EEXIST", b""
        watch = Watch(path, given, token, depth)
        client.watches.append(watch)
        self.events.append((client.name, watch, given))
        return OK

    def watch_of(self, path: Path, token: bytes) -> Optional[Watch]:
        """The client's watch of that path and token."""
        for watch in self.client.watches:
            if (watch.path.parts, watch.path.special, watch.token) == (
                path.parts,
                path.special,
                token,
            ):
                return watch
        return None

    def do_unwatch(self, payload: bytes) -> Answer:
        fields = payload.split(b"\0")
        if len(fields) != 3 or fields[2] or not fields[0]:
            return "EINVAL", b""
        path = self.parse(fields[0], limit=False)
        watch = self.watch_of(path, fields[1]) if path else None
        if watch is None:
            return "ENOENT", b""
        self.client.watches.remove(watch)
        return OK

    def do_reset_watches(self, payload: bytes) -> Answer:
        self.client.watches.clear()
        self.client.transactions.clear()
        self.client.listings.clear()
        return OK

    def do_control(self, payload: bytes) -> Answer:
        assert payload == b"nothing\0", "only an unknown command is in this model"
        return OK

    def do_get_domain_path(self, payload: bytes) -> Answer:
        if payload.find(b"\0") != len(payload) - 1 or not payload:
            return "EINVAL", b""
        return "OK", b"/local/domain/%d\0" % lenient(payload)

    def do_is_domain_introduced(self, payload: bytes) -> Answer:
        text = payload.split(b"\0")[0]
        if not INTEGER.match(text):
            return "EINVAL", b""
        known = int(text) in (0, 32752) or f"d{int(text)}" in self.clients
        return "OK", b"T\0" if known else b"F\0"

    def do_set_target(self, payload: bytes) -> Answer:
        fields = payload.split(b"\0")
        if len(fields) != 3 or fields[2]:
            return "EINVAL", b""
        client = self.clients.get(f"d{lenient(fields[0])}")
        if client is None:
            return "ENOENT", b""
        client.target = lenient(fields[1])
        return OK

    # -- transactions ---------------------------------------------------------

    def do_transaction_start(self, payload: bytes) -> Answer:
        client, most = self.client, self.limits.quota_transaction
        if self.txn:
            return "EBUSY", b""
        if not client.privileged and 0 < most < len(client.transactions):
            return "EQUOTA", b""
        tx_id = client.next_tx()
        client.transactions[tx_id] = Transaction(self.root, self.root, self.epoch)
        return "OK", b"%d\0" % tx_id

    def do_transaction_end(self, payload: bytes) -> Answer:
        txn, client = self.txn, self.client
        letter = payload.split(b"\0")[0]
        if letter not in (b"T", b"F"):
            return "EINVAL", b""
        if txn is None:
            return "ENOENT", b""
        client.transactions = {k: t for k, t in client.transactions.items() if t is not txn}
        if letter == b"F" or not txn.changes:
            return OK
        if not self.commit(txn):
            return "EAGAIN", b""
        for type_, path in txn.changes:
            self.fire_change(type_, path, txn.base, txn.root)
        return OK

    def commit(self, txn: Transaction) -> bool:
        """Takes over, merges, or replays a transaction."""
        if txn.epoch == self.epoch and self.root is txn.base:
            self.root = txn.root
            return True
        if (
            self.limits.merge_activate
            and txn.epoch == self.epoch
            and untouched(txn.base, self.root, txn.read_low)
            and untouched(txn.base, self.root, txn.write_low)
            and not self.exceeds(txn)
        ):
            if txn.write_low is not None:
                self.root = put(self.root, txn.write_low, find(txn.root, txn.write_low))
            return True
        self.client.next_tx()
        self.work, changed = self.root, False
        for type_, payload, answer in txn.requests:
            if type_ not in REPLAYABLE or self.run(type_, payload) != answer:
                self.wrote, self.changed = None, False
                return False
            changed |= self.changed
        self.wrote, self.changed = None, False
        if changed:
            self.root = self.work
        return True

    def exceeds(self, txn: Transaction) -> bool:
        """Would a merge give somebody more nodes than allowed?"""
        if not self.limits.quota_activate or self.client.privileged:
            return False
        base, now, current = counted(txn.base), counted(txn.root), counted(self.root)
        return any(
            now[owner] > base.get(owner, 0)
            and current.get(owner, 0) + now[owner] - base.get(owner, 0)
            > self.limits.quota_maxentity
            for owner in now
            if owner > 0
        )


__all__ = ["Answer", "Limits", "Model", "counted", "walk"]
