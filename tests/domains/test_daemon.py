# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real daemon with real guests on the stand-in Xen; the first scenario on others too."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clients.daemon import wait_for
from tests.domains.standin import (
    DEAD,
    DYING,
    GONE,
    IDLE,
    RUNNING,
    SHUTDOWN,
    WATCH_EVENT,
    Stand,
    elapsed,
    guests,
    home,
    introduce,
    works,
)
from tests.world import HEADER, packet

READ, WATCH, WRITE, GET_DOMAIN_PATH = 2, 4, 11, 10
ONLY_PYXSD = 15


def test_life_of_a_domain(any_stand: Stand) -> None:
    """Introduce, talk both ways with small and large packets, shut down, die; nothing is left."""
    stand = any_stand
    stand.settings = {"quota-maxsize": "4096"}
    stand.start(*(["--entry-size", "8192"] if stand.name == "xenstored" else []))
    dom0 = stand.host.guest(0)
    assert dom0.request(WRITE, b"/kernel\0here").payload == b"OK\0"
    with stand.client() as client:
        assert client.ask("READ", b"/kernel\0")[1] == b"here"
        assert stand.held() == IDLE
        assert client.ask("WATCH", b"@releaseDomain\0t\0")[1] == b"OK\0"
        assert client.event() == b"@releaseDomain\0t\0"
        domain = stand.host.create(5)
        assert introduce(client, domain) == b"OK\0"
        assert stand.held() == (IDLE[0] + 1, IDLE[1] + 1)
        home(client, 5)
        works(domain, client)
        # Over the ring's size, in both directions.
        value = bytes(i % 250 + 1 for i in range(4000))
        assert domain.request(WRITE, b"large\0" + value).payload == b"OK\0"
        assert domain.request(READ, b"large\0").payload == value
        assert client.ask("READ", b"/local/domain/5/large\0")[1] == value
        # A guest watches what the toolstack writes, and the other way round.
        assert domain.request(WATCH, b"device\0tok\0").payload == b"OK\0"
        assert domain.packet().payload == b"device\0tok\0"
        client.ask("WRITE", b"/local/domain/5/device/vif/0\0state")
        event = domain.packet()
        assert (event.type, event.req_id, event.tx_id) == (WATCH_EVENT, 0, 0)
        assert event.payload == b"device/vif/0\0tok\0"
        assert client.ask("WATCH", b"/local/domain/5/data\0front\0")[1] == b"OK\0"
        assert client.event() == b"/local/domain/5/data\0front\0"
        domain.request(WRITE, b"data\0v")
        assert client.event() == b"/local/domain/5/data\0front\0"
        # (C xenstored would tell of the node's removal at the domain's death.)
        assert client.ask("UNWATCH", b"/local/domain/5/data\0front\0")[1] == b"OK\0"
        # A packet of 4 KiB that is refused goes through as well.
        assert domain.request(READ, b"x" * 4095 + b"\0").type == 16
        works(domain, client)
        stand.host.set_state(5, SHUTDOWN, 0)
        assert client.event() == b"@releaseDomain\0t\0"
        works(domain, client)
        stand.host.set_state(5, GONE)
        assert client.event() == b"@releaseDomain\0t\0"
        assert client.ask("READ", b"/local/domain/5\0")[1] == b"ENOENT\0"
        stand.settles()


def test_kicks_coalesce_and_none_is_lost(stand: Stand) -> None:
    """Requests kept in flight by C code, many kicks for nothing, and one request."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        load = guests.Load(type=GET_DOMAIN_PATH, len=2, payload=b"5\0", depth=16, requests=20000)
        stand.host.run_load([domain], load)
        assert (load.replies, load.errors) == (20000, 0)
        for _ in range(1000):
            domain.kick()
        assert domain.request(GET_DOMAIN_PATH, b"5\0").payload == b"/local/domain/5\0"


@pytest.mark.parametrize("size", (2, 900))
@pytest.mark.parametrize("together", (0, 1))
@pytest.mark.parametrize("spin", (0, 100000))
def test_a_guest_that_kicks_only_where_it_must(
    stand: Stand, size: int, together: int, spin: int
) -> None:
    """As Linux's driver: neither for a request behind others that were not taken, nor for room in
    a ring that was not full.  The daemon has to look again after it moved its index, or it waits
    for ever.  Small replies try the first, large ones the second, where no further request comes
    before all replies are there (together)."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        domain.request(WRITE, b"k\0" + b"v" * size)
        count = 1000000 if spin else 50000
        load = guests.Load(
            type=READ,
            len=2,
            payload=b"k\0",
            depth=16,
            spin=spin,
            frugal=1,
            in_turn=together,
            requests=count,
        )
        stand.host.run_load([domain], load)
        assert (load.replies, load.errors) == (count, 0)


def test_features_and_reconnect(stand: Stand) -> None:
    """A guest finds the features, breaks its ring, is told so, and comes back."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        assert domain.get("server_features") == ONLY_PYXSD
        domain.send(HEADER.pack(READ, 1, 0, 4097))
        wait_for(lambda: domain.get("error") == 3, "no error indicator")
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"T\0"
        domain.reconnect()
        assert domain.get("error") == 0
        works(domain, client)
        domain.set("req_prod", domain.get("req_cons") + 5000)
        domain.kick()
        wait_for(lambda: domain.get("error") == 2, "no error indicator")
        domain.reconnect()
        works(domain, client)


def test_a_toolstack_that_lets_the_guest_wait(stand: Stand) -> None:
    """connection is 1 before INTRODUCE, as a domain builder leaves it: it is
    cleared and the guest notified without its kick."""
    with stand.client() as client:
        domain = stand.host.create(5)
        domain.set("connection", 1)
        assert introduce(client, domain) == b"OK\0"
        wait_for(lambda: domain.get("connection") == 0, "never connected")
        wait_for(lambda: 5 in stand.host.wait(0.05), "never notified")


def test_introduce_again_binds_another_port(stand: Stand) -> None:
    """The domain is served over the new one, the old one is free."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        works(domain, client)
        for _ in range(5):
            assert introduce(client, domain, port=stand.host.reset_port(5)) == b"OK\0"
            works(domain, client)
            assert stand.held() == (IDLE[0] + 1, IDLE[1] + 1)


def test_release(stand: Stand) -> None:
    """Of a domain that lives on; and it may be introduced again."""
    with stand.client() as client:
        domain = stand.host.create(5)
        for n in range(5):
            assert introduce(client, domain, mfn=n) == b"OK\0"
            home(client, 5)
            works(domain, client)
            assert client.ask("RELEASE", b"5\0")[1] == b"OK\0"
            assert stand.held() == IDLE
            domain.host.reset_port(5)


def test_guests_as_processes(stand: Stand) -> None:
    """Six processes ask, watch and answer over their rings while a toolstack
    writes to what they watch."""
    script = Path(__file__).with_name("guest_process.py")
    with stand.client() as client:
        processes = []
        for domid in range(1, 7):
            domain = stand.host.create(domid)
            assert introduce(client, domain) == b"OK\0"
            home(client, domid)
            domain.close()
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        str(script),
                        str(stand.host.directory),
                        str(domid),
                        str(domain.port),
                        "200",
                    ],
                    env=stand.peer.env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
        try:

            def there(name: str) -> bool:
                return all(
                    client.ask("READ", b"/local/domain/%d/%s\0" % (n, name.encode()))[0] == READ
                    for n in range(1, 7)
                )

            wait_for(lambda: there("ready"), "the guests do not come up")
            n = 0
            while not there("done"):
                assert all(process.poll() in (None, 0) for process in processes)
                for domid in range(1, 7):
                    client.ask("WRITE", b"/local/domain/%d/in\0%d" % (domid, n))
                n += 1
            for domid in range(1, 7):
                client.ask("WRITE", b"/local/domain/%d/in\0last" % domid)
            for process in processes:
                output, _ = process.communicate(timeout=60)
                assert process.returncode == 0, output.decode()
            for domid in range(1, 7):
                assert client.ask("READ", b"/local/domain/%d/echo\0" % domid)[1] == b"last"
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
        for domid in range(1, 7):
            stand.host.set_state(domid, GONE)
        stand.settles()


@pytest.mark.parametrize("manage", ["", "manage"], ids=["libxenctrl", "libxenmanage"])
def test_a_thousand_domains(manage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Introduced, all served, idle, destroyed: ports and pages as at the beginning."""
    with Stand(manage=manage).start() as stand, stand.client() as client:
        domains = [stand.host.create(domid) for domid in range(1, 1001)]
        since = time.monotonic()
        for domain in domains:
            client.send("INTRODUCE", b"%d\0%d\0%d\0" % (domain.domid, 1, domain.port))
        assert {client.answer()[1] for _ in domains} == {b"OK\0"}
        took = elapsed(since)
        assert stand.held() == (IDLE[0] + 1000, IDLE[1] + 1000)
        load = guests.Load(type=GET_DOMAIN_PATH, len=2, payload=b"5\0", depth=2, requests=4000)
        stand.host.run_load(domains, load)
        assert (load.replies, load.errors) == (4000, 0)
        since = time.monotonic()
        for domain in domains:
            stand.host.set_state(domain.domid, GONE)
        stand.settles()
        gone = elapsed(since)
        for domid in (1, 500, 1000):
            assert client.ask("IS_DOMAIN_INTRODUCED", b"%d\0" % domid)[1] == b"F\0"
        for domain in domains[:50]:  # and once more under their domids
            again = stand.host.create(domain.domid)
            assert introduce(client, again) == b"OK\0"
            stand.host.set_state(domain.domid, GONE)
        stand.settles()
    with capsys.disabled():
        print(f" [1,000 domains: introduced in {took}, destroyed in {gone}]", end="")


def test_death_of_several_while_the_daemon_is_busy(stand: Stand) -> None:
    """They die, one shuts down, while it is held: all is told when it goes on."""
    with stand.client() as client:
        domains = [stand.host.create(domid) for domid in range(1, 9)]
        for domain in domains:
            introduce(client, domain)
            home(client, domain.domid)
        client.ask("WATCH", b"@releaseDomain\0deep\0001\0")
        client.event()
        stand.pause()
        for domid in (2, 4, 6):
            stand.host.set_state(domid, GONE)
        stand.host.set_state(8, SHUTDOWN, 0)
        stand.host.set_state(7, DEAD)
        stand.resume()
        assert sorted(client.event() for _ in range(5)) == [
            b"@releaseDomain/%d\0deep\0" % domid for domid in (2, 4, 6, 7, 8)
        ]
        stand.settles((IDLE[0] + 4, IDLE[1] + 4))
        for domid in (1, 3, 5, 8):
            works(domains[domid - 1], client)


@pytest.mark.parametrize("manage", ["", "manage", "manage0"])
def test_states_of_domains(manage: str) -> None:
    """With each way in which Xen tells them."""
    with Stand(manage=manage).start() as stand, stand.client() as client:
        domain, other = stand.host.create(5), stand.host.create(6)
        for each in (domain, other):
            introduce(client, each)
            home(client, each.domid)
        client.ask("WATCH", b"@releaseDomain/5\0t\0")
        client.event()
        stand.host.set_state(5, SHUTDOWN, 3)
        assert client.event() == b"@releaseDomain/5\0t\0"
        stand.host.set_state(6, RUNNING)
        assert client.event() == b"@releaseDomain/5\0t\0"  # told again while it stays so
        stand.host.set_state(5, RUNNING)
        works(domain, client)
        assert client.events == []
        stand.host.set_state(5, DYING)
        works(other, client)
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"T\0"
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"enif"
        assert client.events == []  # being destroyed is not dead
        stand.host.set_state(5, DEAD)
        assert client.event() == b"@releaseDomain/5\0t\0"
        stand.settles((IDLE[0] + 1, IDLE[1] + 1))
        stand.host.set_state(5, GONE)
        again = stand.host.create(5)
        assert introduce(client, again) == b"OK\0"
        home(client, 5)
        works(again, client)
        works(other, client)


@pytest.mark.parametrize("mfn", [4660, 99], ids=["same mfn", "other mfn"])
@pytest.mark.parametrize("manage", ["manage", "manage0"])
def test_a_domid_reused_before_the_death_was_seen(manage: str, mfn: int) -> None:
    """Death, a new domain of that domid and its INTRODUCE come to the daemon at
    once: the new one is served, on its own page, and the death is told."""
    with Stand(manage=manage).start() as stand, stand.client() as client, stand.client() as watcher:
        old = stand.host.create(5)
        introduce(client, old)
        home(client, 5)
        works(old, client)
        watcher.ask("WATCH", b"@releaseDomain\0t\0")
        watcher.event()
        old.close()
        stand.pause()
        stand.host.set_state(5, GONE)
        new = stand.host.create(5)
        client.send("INTRODUCE", b"5\0%d\0%d\0" % (mfn, new.port))
        stand.resume()
        assert client.answer()[1] == b"OK\0"
        assert watcher.event() == b"@releaseDomain\0t\0"
        assert client.ask("READ", b"/local/domain/5\0")[1] == b"ENOENT\0"
        home(client, 5)
        works(new, client)
        assert stand.held() == (IDLE[0] + 1, IDLE[1] + 1)


@pytest.mark.parametrize("state", [GONE, DEAD, DYING], ids=["gone", "dead", "dying"])
def test_death_before_introduce(stand: Stand, state: int) -> None:
    """A domain dies while its INTRODUCE waits to be read: an error, nothing is held."""
    with stand.client() as client:
        domain = stand.host.create(5)
        stand.pause()
        client.send("INTRODUCE", b"5\0001\0%d\0" % domain.port)
        stand.host.set_state(5, state)
        stand.resume()
        client.answer()
        stand.settles()
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"F\0"


def test_a_page_that_changes_under_the_daemon(stand: Stand) -> None:
    """Guests in processes of their own scribble over their pages without end
    while others are served; nobody notices.

    They end between two calls: one that is killed inside of a kick may have taken its port's
    mark off and not told the daemon, which no guest can do to a real Xen, and then nobody is
    ever told of that port again."""
    scribble = (
        "import sys, random, signal; sys.path.insert(0, sys.argv[1]); import guest\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "host = guest.Host(sys.argv[2]); domain = host.guest(int(sys.argv[3]), int(sys.argv[4]))\n"
        "print('on', flush=True)\n"
        "while True:\n"
        "    name = random.choice(list(guest.FIELDS))\n"
        "    domain.set(name, domain.get(name) + random.choice([1, 16, -1, 1024, 4096, 1 << 31]))\n"
        "    domain.poke(random.randrange(2000), random.randbytes(16))\n"
        "    if random.random() < 0.1: domain.set('connection', 1)\n"
        "    domain.kick()\n"
    )
    folder = str(Path(guests.__file__).parent)
    with stand.client() as client:
        processes = []
        good = stand.host.create(9)
        introduce(client, good)
        home(client, 9)
        for domid in (1, 2):
            domain = stand.host.create(domid)
            introduce(client, domain)
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        scribble,
                        folder,
                        str(stand.host.directory),
                        str(domid),
                        str(domain.port),
                    ],
                    env=stand.peer.env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                )
            )
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == b"on\n"
            for n in range(300):
                works(good, client, b"%d" % n)
            for process in processes:
                assert process.poll() is None, "the scribbler has ended"
        finally:
            for process in processes:
                process.terminate()
                process.communicate()
        for domid in (1, 2):
            stand.host.guest(domid, 1).reconnect()
            stand.host.set_state(domid, GONE)
        stand.settles((IDLE[0] + 1, IDLE[1] + 1))
        works(good, client)


def test_one_floods_another_asks(stand: Stand) -> None:
    """While one keeps its ring full and never reads, and a second keeps reading,
    a third is answered each time."""
    with stand.client() as client:
        deaf, flood, calm = (stand.host.create(domid) for domid in (1, 2, 3))
        for domain in (deaf, flood, calm):
            introduce(client, domain)
            home(client, domain.domid)
        for n in range(200):
            deaf.write(packet("GET_DOMAIN_PATH", b"1\0") * 50)
            deaf.kick()
            flood.write(packet("WRITE", b"x\0" + b"v" * 40) * 16)
            flood.kick()
            flood.read()
            assert calm.request(WRITE, b"n\0%d" % n).payload == b"OK\0"
        assert client.ask("READ", b"/local/domain/3/n\0")[1] == b"199"


def test_a_lazy_ring_is_found() -> None:
    """Written without a kick: served at one of the periodic looks, 15 s apart."""
    with Stand(settings={"ring-scan-interval": "1"}).start() as stand, stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        assert domain.request(GET_DOMAIN_PATH, b"5\0").payload == b"/local/domain/5\0"
        domain.write(packet("GET_DOMAIN_PATH", b"6\0"))
        assert domain.packet(seconds=60).payload == b"/local/domain/6\0"
