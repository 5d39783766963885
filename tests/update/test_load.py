# SPDX-License-Identifier: LGPL-2.1-or-later
"""Updates under load: no client sees an error, and no byte is lost or comes twice.

Sockets that ask one thing at a time and some that pipeline, rings of guests that kick only where
they must, watches, open transactions, watchers that do not read, connects and closes, while the
daemon is replaced again and again.  Every reply is checked by its id and its content, every event
by its number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.daemon import Client, wait_for
from tests.domains.standin import GONE, IDLE, guests, home, introduce, require, works
from tests.update.kit import (
    UpdatedStand,
    control,
    descriptors,
    program,
    update,
    wait_for_descriptors,
)
from tests.world import EVENT, packet

UPDATES = 20


@pytest.fixture
def stand() -> Iterator[UpdatedStand]:
    """A daemon on a pretended host; skips where the stand-in cannot be built."""
    try:
        made = UpdatedStand()
    except RuntimeError as error:
        require(str(error))
    with made:
        made.start()
        yield made


class Load:
    """Clients in threads of their own, which go on until the end and keep what went wrong."""

    def __init__(self, stand: UpdatedStand) -> None:
        self.stand = stand
        self.over = threading.Event()
        self.faults: list[str] = []
        self.counts: dict[str, int] = {}
        self.threads: list[threading.Thread] = []

    def run(self, name: str, once: Callable[[int], None]) -> None:
        """Calls once(n) for n = 0, 1, 2, ... in a thread."""

        def forever() -> None:
            n = 0
            try:
                while not self.over.is_set():
                    once(n)
                    n += 1
                    self.counts[name] = n
            except Exception as error:
                self.faults.append(f"{name} {n}: {type(error).__name__}: {error}")

        self.threads.append(threading.Thread(target=forever, name=name, daemon=True))
        self.threads[-1].start()

    def goes_on(self) -> None:
        """Waits until every one has done something more."""
        done = dict(self.counts)
        wait_for(
            lambda: (
                self.faults
                or (
                    len(self.counts) == len(self.threads)
                    and all(count > done.get(name, 0) for name, count in self.counts.items())
                )
            ),
            "they stand still",
        )
        assert not self.faults, self.faults

    def end(self) -> None:
        """Ends them; every one must have done something, and none may have a fault."""
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        assert not self.faults, self.faults
        assert len(self.counts) == len(self.threads) and all(self.counts.values()), self.counts


def one_at_a_time(client: Client, path: bytes) -> Callable[[int], None]:
    """Writes a number and reads it back."""

    def once(n: int) -> None:
        text = b"%d" % n
        assert client.ask("WRITE", path + b"\0" + text) == (11, b"OK\0")
        assert client.ask("READ", path + b"\0") == (2, text)

    return once


def pipelined(client: Client, path: bytes, depth: int = 32) -> Callable[[int], None]:
    """So many requests in one piece, which is cut in two at another place each time."""

    def once(n: int) -> None:
        first = client.serial + 1
        data = b""
        for i in range(depth):
            client.serial += 1
            data += packet("WRITE", path + b"\0%d" % (n * depth + i), 0, client.serial)
            client.serial += 1
            data += packet("READ", path + b"\0", 0, client.serial)
        cut = n * 37 % len(data)
        client.sock.sendall(data[:cut])
        client.sock.sendall(data[cut:])
        for i in range(depth):
            assert client.packet() == (11, first + 2 * i, 0, b"OK\0")
            assert client.packet() == (2, first + 2 * i + 1, 0, b"%d" % (n * depth + i))

    return once


def watched(watcher: Client, writer: Client, name: bytes) -> Callable[[int], None]:
    """Each change brings one event, with the number of the change in its path, in order."""
    assert watcher.ask("WATCH", name + b"\0token\0") == (4, b"OK\0")
    assert watcher.event() == name + b"\0token\0"

    def once(n: int) -> None:
        for i in range(8):
            writer.send("MKDIR", name + b"/%d\0" % (8 * n + i))
        for _ in range(8):
            assert writer.answer() == (12, b"OK\0")
        for i in range(8):
            type_, _, _, payload = watcher.packet()
            assert (type_, payload) == (EVENT, name + b"/%d\0token\0" % (8 * n + i))
        assert writer.ask("RM", name + b"\0") == (13, b"OK\0")
        seen: list[bytes] = []
        while not seen or seen[-1] != name + b"\0token\0":
            seen.append(watcher.packet()[3])
        assert len(seen) == 1, seen

    return once


def transacting(client: Client, path: bytes) -> Callable[[int], None]:
    """Counts up in a transaction, one of which is open at any time, and gives up every third."""

    def begin() -> int:
        return int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))

    assert client.ask("WRITE", path + b"\x000") == (11, b"OK\0")
    state = [begin(), 0]

    def once(n: int) -> None:
        tx, count = state
        ends = n % 3 < 2
        assert client.ask("READ", path + b"\0", tx) == (2, b"%d" % count)
        assert client.ask("WRITE", path + b"\0%d" % (count + 1), tx) == (11, b"OK\0")
        assert client.ask("READ", path + b"\0", tx) == (2, b"%d" % (count + 1))
        assert client.ask("READ", path + b"\0") == (2, b"%d" % count)
        assert client.ask("TRANSACTION_END", b"T\0" if ends else b"F\0", tx) == (7, b"OK\0")
        state[:] = [begin(), count + ends]

    return once


def lazy(watcher: Client, writer: Client, name: bytes) -> Callable[[int], None]:
    """A watcher that reads only when very much waits for it: first in its output, then behind the
    watch, then on the account of who writes, who is not served then."""
    token = b"t" * 1000
    assert watcher.ask("WATCH", name + b"\0" + token + b"\0") == (4, b"OK\0")
    assert watcher.event() == name + b"\0" + token + b"\0"
    many = 2500

    def once(n: int) -> None:
        paths = [name + b"/%d\0" % (many * n + i) for i in range(many)]
        writer.sock.sendall(
            b"".join(packet("WRITE", path, req_id=i) for i, path in enumerate(paths))
        )
        for i in range(2000):
            assert writer.packet() == (11, i, 0, b"OK\0")
        for path in paths:
            assert watcher.packet() == (EVENT, 0, 0, path + token + b"\0")
        for i in range(2000, many):
            assert writer.packet() == (11, i, 0, b"OK\0")
        assert writer.ask("RM", name + b"\0") == (13, b"OK\0")
        assert watcher.packet() == (EVENT, 0, 0, name + b"\0" + token + b"\0")

    return once


def come_and_go(stand: UpdatedStand) -> Callable[[int], None]:
    """Connects, asks, and closes."""

    def once(n: int) -> None:
        with stand.client() as client:
            assert client.ask("WRITE", b"/tool/visit\0%d" % n) == (11, b"OK\0")
            assert client.ask("READ", b"/tool/visit\0") == (2, b"%d" % n)

    return once


def frugal(stand: UpdatedStand, domains: list[Any]) -> Callable[[int], None]:
    """Guests with several requests in their rings, which kick only a ring that was empty."""

    def once(_n: int) -> None:
        load = guests.Load(type=2, len=6, payload=b"alive\0", depth=8, requests=400, frugal=1)
        stand.host.run_load(domains, load)
        assert (load.replies, load.errors) == (400, 0)

    return once


def test_updates_under_load(stand: UpdatedStand) -> None:
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in range(5, 13)]
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
            home(client, domain.domid)
            works(domain, client)
        update(client, program(stand.root))
        before = descriptors(stand.pid)
        load = Load(stand)
        clients = [stand.client() for _ in range(12)]
        for i in range(2):
            load.run(f"one at a time {i}", one_at_a_time(clients[i], b"/tool/one%d" % i))
            load.run(f"pipelined {i}", pipelined(clients[2 + i], b"/tool/many%d" % i))
            load.run(
                f"watched {i}", watched(clients[4 + 2 * i], clients[5 + 2 * i], b"/tool/seen%d" % i)
            )
            load.run(f"transacting {i}", transacting(clients[8 + i], b"/tool/counted%d" % i))
        load.run("lazy", lazy(clients[10], clients[11], b"/tool/lazy"))
        load.run("come and go", come_and_go(stand))
        load.run("frugal", frugal(stand, domains))
        pids = {stand.pid}
        for _ in range(UPDATES):
            update(client)
            pids.add(stand.pid)
            load.goes_on()
        load.end()
        assert len(pids) == UPDATES + 1
        for each in clients:
            each.close()
        wait_for_descriptors(stand.pid, before)
        stand.settles((IDLE[0] + len(domains), IDLE[1] + len(domains)))
        # Deaths are still noticed, and nobody has two ports.
        client.ask("WATCH", b"@releaseDomain\0t\0")
        client.event()
        for domain in domains:
            works(domain, client)
            stand.host.set_state(domain.domid, GONE)
        assert client.event() == b"@releaseDomain\0t\0"
        stand.settles()


@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_half_a_request_in_a_ring(stand: UpdatedStand, cut: int) -> None:
    """What was taken out of the ring travels; its rest completes it."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        works(domain, client)
        request = packet("READ", b"alive\0", req_id=9)
        domain.write(request[:cut])
        domain.kick()
        wait_for(lambda: domain.get("req_cons") == domain.get("req_prod"), "it is not taken")
        update(client)
        domain.write(request[cut:])
        domain.kick()
        answer = domain.packet()
        assert (answer.type, answer.req_id, answer.payload) == (2, 9, b"enif")


def test_a_death_while_nobody_serves(stand: UpdatedStand) -> None:
    """A domain that dies between the state and its loading is found dead by the new daemon."""
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in (5, 6)]
        for domain in domains:
            introduce(client, domain)
            home(client, domain.domid)
        client.ask("WATCH", b"@releaseDomain/5\0t\0")
        client.event()
        # Its page cannot be mapped any more, but the old daemon was not told of its death.
        update(client)
        stand.host.set_faults("map 5 ENOENT")
        update(client)
        assert "domain 5 is not served for now" in stand.log()
        stand.host.set_state(5, GONE)
        assert client.event() == b"@releaseDomain/5\0t\0"
        stand.host.set_faults()
        works(domains[1], client)
        stand.settles((IDLE[0] + 1, IDLE[1] + 1))


def test_a_domain_that_shut_down_is_told_once(stand: UpdatedStand) -> None:
    """The new daemon does not tell of it again by itself."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        client.ask("WATCH", b"@releaseDomain\0t\0")
        client.event()
        stand.host.set_state(5, 2)
        assert client.event() == b"@releaseDomain\0t\0"
        update(client)
        assert client.ask("READ", b"/tool\0")[0] == 2
        assert client.events == []


def test_a_refusal_leaves_the_host_as_it_was(stand: UpdatedStand) -> None:
    """The new program has mapped all rings and is told to go; it dies, and the old one serves."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        for point in ("take", "go"):
            assert control(client, "-f", program(stand.root, point, "exits")) == b"OK\0"
            answer = b""
            while answer in (b"", b"BUSY"):
                answer = control(client, "-s")
            assert b"exited with code 3" in answer
            assert stand.pid == int(stand.peer.pid)
            works(domain, client)
            stand.settles((IDLE[0] + 1, IDLE[1] + 1))
        os.stat(stand.root / "run" / "pid")
