# SPDX-License-Identifier: LGPL-2.1-or-later
"""The event channel device that fails, connections that fail, and what is done first at a start."""

from __future__ import annotations

import errno
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from pyxsd.domains import Domains
from pyxsd.start import assembly, fresh
from pyxsd.system.configuration import Config
from pyxsd.system.options import Options
from tests.domains.standin import Stand, home, introduce, require, works
from tests.fakexen import FakeXen, Guest
from tests.rings.kit import Make, Rings, packet
from tests.unit.kit import events, watch
from tests.world import packets


class Ports:
    """A server whose pending ports are these; the rest is the real one's."""

    def __init__(self, rings: Rings, ports: list[int], error: Exception | None) -> None:
        self.real = rings.server
        self.ports = ports
        self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def on_ports(self, _channels: Any, by_port: dict[int, Any]) -> list[int] | None:
        """Takes the first, then fails."""
        if self.ports and self.ports[0] in by_port:
            self.real.serve_later(by_port[self.ports[0]])
        if self.error is not None:
            raise self.error
        return [port for port in self.ports if port not in by_port]


class Channels:
    """Event channels that have taken these ports."""

    def __init__(self, ports: list[int]) -> None:
        self.taken = ports
        self.released = 0

    def release(self) -> None:
        """Counts."""
        self.released += 1


def fails(rings: Rings, ports: list[int], error: Exception | None) -> Channels:
    """on_events() with such ports and such an end of serving them."""
    domains: Any = rings.host.domains
    channels = Channels(ports)
    real, domains.server = domains.server, Ports(rings, ports, error)
    domains.xen.channels, kept = channels, domains.xen.channels
    rings.server.begin(rings.now, rings.now)
    try:
        domains.on_events()
    finally:
        domains.server, domains.xen.channels = real, kept
        while rings.server.flush():
            pass
    return channels


@pytest.fixture
def three(make_rings: Make) -> Rings:
    """Three domains, each with a request in its ring, and a fourth that died; s1 watches."""
    rings = make_rings((1, 2, 3, 4))
    rings.host.domains.start()
    watch(rings, "s1", b"@releaseDomain")
    for domid in (1, 2, 3):
        rings.guests[domid].feed(packet("GET_DOMAIN_PATH", b"%d\0" % domid))
    rings.xen.set_state(4, "gone")
    return rings


def answered(rings: Rings) -> list[int]:
    """The domids whose request was answered."""
    found = []
    for domid in (1, 2, 3):
        if [body for _, _, _, body in packets(rings.guests[domid].take())[0]]:
            found.append(domid)
    return found


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("refused", [False, True], ids=["emptied", "cannot be emptied"])
def test_ports_that_cannot_be_read(three: Rings, number: int, refused: bool) -> None:
    """All rings are looked at, all domains asked about, all ports unmasked; one line in the log,
    however often it happens."""
    if refused:
        three.xen.fail.add("discard_events")
    for _ in range(3):
        fails(three, [], OSError(number, os.strerror(number)))
    assert answered(three) == [1, 2, 3]
    assert events(three, "s1") == [(b"@releaseDomain", b"t")]
    assert 4 not in three.server.domains
    ports = sorted([*three.host.domains.by_port, three.host.domains.virq_port])
    if not refused:
        assert three.xen.discarded[-1] == ports
    lines = [text for level, _, text in three.host.messages if level == "error"]
    assert lines == [f"event channels: {os.strerror(number)}; all rings are looked at"]


def test_a_connection_that_fails(three: Rings) -> None:
    """Those behind it are served in the same turn all the same, and all ports are released."""
    ports = [three.host.domains.table[domid].port for domid in (1, 2, 3)]
    with pytest.raises(RuntimeError):
        fails(three, ports, RuntimeError("a bug"))
    assert answered(three) == [1, 2, 3]


def test_all_is_well(three: Rings) -> None:
    """The interrupt's port is among the pending ones."""
    channels = fails(three, [three.host.domains.virq_port], None)
    assert events(three, "s1") == [(b"@releaseDomain", b"t")]
    assert channels.released == 1
    assert three.xen.discarded == []


def test_the_kernel_is_kicked_at_the_start(rings: Rings, tmp_path: Path) -> None:
    """It may have asked before anybody listened, and wait for room or for an answer."""
    rings.server.disconnect(rings.server.domains[0])
    (tmp_path / "port").write_text("3")
    kernel = Guest(rings.xen.pages.setdefault(0, bytearray(4096)))
    kernel.feed(packet("GET_DOMAIN_PATH", b"0\0"))
    rings.xen.channels.notified.clear()
    rings.host.domains.start_domain0("page", str(tmp_path / "port"))
    assert rings.xen.channels.notified == [rings.host.domains.table[0].port]
    rings.turn()
    assert [body for _, _, _, body in packets(kernel.take())[0]] == [b"/local/domain/0\0"]


class Order(FakeXen):
    """A Xen on which domain 5 dies as soon as its page was mapped; it tells so to whoever has
    bound the interrupt then."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.listens = False
        self.pending = False
        self.tells = True

    def bind_virq(self) -> int:
        self.calls.append("virq")
        self.listens = True
        self.news = [domid for domid, state in self.states.items() if state != "gone"]
        return 1

    def map_file(self, path: str) -> Any:
        self.calls.append("kernel")
        return super().map_file(path)

    def map_page(self, domid: int) -> Any:
        self.calls.append(f"map {domid}")
        page = super().map_page(domid)
        self.states[domid] = "gone"
        if self.listens:
            self.pending = True
            self.news.append(domid)
        return page

    def fileno(self) -> int:
        return self.wake

    def source(self) -> str:
        return "test"

    wake = -1


class Log:
    """A daemon log that nobody reads."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


def test_the_interrupt_is_bound_before_domains_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At --restart: a domain that dies right after it was taken over is seen dead."""
    xen = Order()
    xen.guest(5)
    (tmp_path / "port").write_text("3")
    (tmp_path / "db").write_bytes(
        b"$xenstored-dump-format\ndom,5,1,1\nstore,2f,6e30,\nstore,2f61,6e35,\n"
    )
    monkeypatch.setenv("XENSTORED_RUNDIR", str(tmp_path))
    monkeypatch.setattr(assembly, "open_xen", lambda _log: xen)
    xen.wake, writer = os.pipe()
    options = Options(restart=True, daemonize=False, access_log=False)
    log: Any = Log()
    daemon = fresh.build(
        Config(xenstored_kva="x", xenstored_port=str(tmp_path / "port")), options, -1, log
    )
    domains: Domains = daemon.domains
    try:
        assert xen.calls == ["virq", "kernel", "map 5"]
        assert 5 in domains.table
        assert xen.pending
        domains.on_virq()
        assert 5 not in domains.table
        assert daemon.server.tree.size == 0
    finally:
        domains.stop()
        daemon.close()
        os.close(xen.wake)
        os.close(writer)


@pytest.fixture(scope="session")
def refusal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of refusal.c, to be loaded before all others."""
    path = tmp_path_factory.mktemp("refusal") / "refusal.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    try:
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                "-o",
                str(path),
                str(Path(__file__).with_name("refusal.c")),
                "-ldl",
            ],
            check=True,
        )
    except FileNotFoundError:
        require("no C compiler")
    return path


@pytest.mark.parametrize("times", [1, 2, 20])
def test_a_device_that_refuses_to_be_read(refusal: Path, times: int) -> None:
    """As Linux does when its queue has overflowed: sockets and rings are served all the while,
    nothing is lost, and the log has one line."""
    with Stand().start(LD_PRELOAD=str(refusal)) as stand, stand.client() as client:
        domains = [stand.host.create(domid) for domid in (3, 5)]
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
            home(client, domain.domid)
            works(domain, client)
        (stand.host.directory / "refuse").write_text(str(times))
        for round_ in range(20):
            works(domains[round_ % 2], client)
        assert not (stand.host.directory / "refuse").exists()
        assert stand.log().count("File too large; all rings are looked at") == 1
        for domain in domains:
            works(domain, client)


def test_a_death_is_known_before_the_next_request() -> None:
    """A toolstack's request in the turn of the interrupt finds the dead domain gone: the event
    channels come first."""
    with Stand().start() as stand, stand.client() as client:
        for domid in range(1, 6):
            introduce(client, stand.host.create(domid))
            home(client, domid)
        for domid in range(1, 6):
            stand.pause()
            client.send("READ", b"/local/domain/%d\0" % domid)
            stand.host.set_state(domid, 0)
            stand.resume()
            assert client.answer()[1] == b"ENOENT\0"
