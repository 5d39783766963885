# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real daemon where Xen, its libraries or its files fail: it lives and leaks nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.domains.standin import GONE, IDLE, Stand, guests, home, introduce, peers, works

GET_DOMAIN_PATH = 10
#: Ports and pages of a daemon whose domain 0 has no ring.
NO_DOM0 = (IDLE[0] - 1, IDLE[1] - 1)


@pytest.mark.parametrize("errno_name", ["EPERM", "EINVAL", "ENOSPC", "ENOMEM", "EAGAIN"])
@pytest.mark.parametrize("call", ["map", "bind"])
def test_introduce_fails(stand: Stand, call: str, errno_name: str) -> None:
    """EINVAL and a line with call, domain and cause; nothing held; others are
    served, and the domain too, when the cause is gone."""
    with stand.client() as client:
        sick, sound = stand.host.create(5), stand.host.create(6)
        stand.host.set_faults(f"{call} 5 {errno_name}")
        for _ in range(3):
            assert introduce(client, sick) == b"EINVAL\0"
            assert stand.held() == IDLE
        text = os.strerror(getattr(errno, errno_name))
        lines = [line for line in stand.log().splitlines() if "domain 5" in line]
        assert lines and all(text in line for line in lines), stand.log()
        assert introduce(client, sound) == b"OK\0"
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"F\0"
        stand.host.set_faults()
        assert introduce(client, sick) == b"OK\0"
        for domain in (sick, sound):
            home(client, domain.domid)
            works(domain, client)
        assert stand.held() == (IDLE[0] + 2, IDLE[1] + 2)


@pytest.mark.parametrize("domid, port", [(77, 1), (5, 12), (5, 4095), (5, 1 << 31), (0x7FF0, 1)])
def test_no_such_domain_or_port(stand: Stand, domid: int, port: int) -> None:
    """EINVAL, nothing held."""
    with stand.client() as client:
        stand.host.create(5)
        answer = client.ask("INTRODUCE", b"%d\0001\0%d\0" % (domid, port))
        assert answer == (16, b"EINVAL\0")
        assert stand.held() == IDLE


def test_a_port_that_is_bound_to_another(stand: Stand) -> None:
    """A second INTRODUCE whose port cannot be bound fails, and the domain stays served over its
    old one; it can be introduced anew."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        home(client, 5)
        stand.host.set_faults("bind 5 ENOSPC")
        assert introduce(client, domain, port=stand.host.alloc_port(5)) == b"EINVAL\0"
        assert stand.held() == (IDLE[0] + 1, IDLE[1] + 1)
        works(domain, client)
        stand.host.set_faults()
        assert introduce(client, domain, port=4095) == b"EINVAL\0"
        works(domain, client)
        other = stand.host.create(6)
        assert introduce(client, other) == b"OK\0"
        home(client, 6)
        assert introduce(client, domain, port=stand.host.reset_port(5)) == b"OK\0"
        works(domain, client)
        works(other, client)
        assert client.ask("RELEASE", b"5\0")[1] == b"OK\0"
        works(other, client)
        assert stand.held() == (IDLE[0] + 1, IDLE[1] + 1)


def test_states_cannot_be_asked(stand: Stand) -> None:
    """Nobody is taken for dead; when they can be asked again, the dead go."""
    with stand.client() as client:
        domain, other = stand.host.create(5), stand.host.create(6)
        introduce(client, domain)
        introduce(client, other)
        home(client, 6)
        stand.host.set_faults("info * EACCES")
        stand.host.set_state(5, GONE)
        works(other, client)
        works(other, client)
        assert stand.held()[1] == IDLE[1] + 2
        stand.host.set_faults()
        stand.host.create(7)
        stand.host.set_state(7, GONE)  # any interrupt
        stand.settles((IDLE[0] + 1, IDLE[1] + 1))
        works(other, client)


def test_unbind_fails(stand: Stand) -> None:
    """Logged; the domain is released all the same."""
    with stand.client() as client:
        domain = stand.host.create(5)
        introduce(client, domain)
        stand.host.set_faults("unbind * EINVAL", "unbind 0 EINVAL")
        assert client.ask("RELEASE", b"5\0")[1] == b"OK\0"
        stand.host.set_faults()
        assert "domain 5" in stand.log()
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"F\0"


# -- at the start -------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        "open-evtchn * EACCES",
        "open-evtchn * ENOENT",
        "open-gnttab * EACCES",
        "open-gnttab * ENOENT",
        "open-ctrl * EACCES",
    ],
)
def test_devices_without_permission(fault: str) -> None:
    """Sockets are served; INTRODUCE is EINVAL; the log says once what is missing."""
    with Stand() as stand:
        stand.host.set_faults(fault)
        stand.start()
        with stand.client() as client:
            assert client.ask("WRITE", b"/x\0v")[1] == b"OK\0"
            domain = stand.host.create(5)
            assert introduce(client, domain) == b"EINVAL\0"
            assert introduce(client, domain) == b"EINVAL\0"
        assert stand.log().count("serving sockets only") == 1
        assert stand.held() == (0, 0)


def test_without_xens_libraries() -> None:
    """The same where there are none, or only those of a Xen that does not run."""
    with Stand() as stand:
        stand.start(LD_LIBRARY_PATH="")
        with stand.client() as client:
            assert client.ask("WRITE", b"/x\0v")[1] == b"OK\0"
            assert introduce(client, stand.host.create(5)) == b"EINVAL\0"
        assert stand.log().count("serving sockets only") == 1
        assert "serving sockets only: " in stand.log()
        assert "xenevtchn" in stand.log()


@pytest.mark.parametrize(
    "missing, named",
    [("libxenevtchn", "xenevtchn"), ("libxengnttab", "xengnttab"), ("libxenctrl", "libxenctrl")],
)
def test_without_one_library(missing: str, named: str) -> None:
    """Each of them: the log names it, or its call where the system has one for
    a Xen that does not run."""
    with Stand() as stand:
        libs = peers.build_standin() / "lib"
        some = stand.root / "lib"
        some.mkdir()
        for path in libs.iterdir():
            if path.name.split(".so")[0] != missing:
                (some / path.name).symlink_to(path)
        stand.start(LD_LIBRARY_PATH=str(some))
        with stand.client() as client:
            assert client.ask("WRITE", b"/x\0v")[1] == b"OK\0"
            assert introduce(client, stand.host.create(5)) == b"EINVAL\0"
        assert named in stand.log()
        assert stand.log().count("serving sockets only") == 1


@pytest.mark.parametrize("name", ["libxenevtchn.so.1", "libxengnttab.so.1"])
def test_a_library_that_is_none(name: str) -> None:
    """A file of rubbish under a library's name: the log names it."""
    with Stand() as stand:
        some = stand.root / "lib"
        some.mkdir()
        for path in (peers.build_standin() / "lib").iterdir():
            (some / path.name).symlink_to(path)
        (some / name).unlink()
        (some / name).write_bytes(b"rubbish" * 1000)
        stand.start(LD_LIBRARY_PATH=str(some))
        with stand.client() as client:
            assert client.ask("WRITE", b"/x\0v")[1] == b"OK\0"
            assert introduce(client, stand.host.create(5)) == b"EINVAL\0"
        assert name in stand.log()


def test_no_virtual_interrupt() -> None:
    """Domains are served; the log says that deaths will not be seen."""
    with Stand() as stand:
        stand.host.set_faults("virq * EPERM", "virq 0 EPERM")
        stand.start()
        stand.host.set_faults()
        with stand.client() as client:
            domain = stand.host.create(5)
            assert introduce(client, domain) == b"OK\0"
            home(client, 5)
            works(domain, client)
        assert "deaths of domains will not be seen" in stand.log()


def nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def content(data: bytes) -> Callable[[Path], None]:
    """The file holds these bytes."""

    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    make.__name__ = repr(data[:24])
    return make


PORT_FILES = [
    nothing,
    folder,
    fifo,
    content(b""),
    content(b"\n"),
    content(b"x1"),
    content(b"-1"),
    content(b"0"),
    content(b"1 2"),
    content(b"0x10"),
    content(b"99999"),
    content(b"4294967296"),
    content(b"4294967297"),
    content(b"99999999999999999999"),
    content(b"9" * 4000),
    content(b"\0" * 100),
    content(b"\xff\xfe1"),
    content("\u0661".encode()),
]
PAGE_FILES = [nothing, folder, fifo, content(b"")]


@pytest.mark.parametrize("make", PORT_FILES, ids=lambda make: make.__name__)
def test_port_file(make: Callable[[Path], None]) -> None:
    """Rubbish in xenstored-port: domain 0 has no ring, the log says why, all else works."""
    with Stand() as stand:
        path = stand.root / "port"
        make(path)
        stand.settings["xenstored-port"] = str(path)
        stand.start()
        check_without_domain0(stand)


@pytest.mark.parametrize("make", PAGE_FILES, ids=lambda make: make.__name__)
def test_page_file(make: Callable[[Path], None]) -> None:
    """Rubbish as xenstored-kva, one that cannot be touched included."""
    with Stand() as stand:
        path = stand.root / "kva"
        make(path)
        stand.settings["xenstored-kva"] = str(path)
        stand.start()
        check_without_domain0(stand)


def check_without_domain0(stand: Stand) -> None:
    """Sockets and guests are served, the page is not held, the log has one line."""
    with stand.client() as client:
        domain = stand.host.create(5)
        assert introduce(client, domain) == b"OK\0"
        home(client, 5)
        works(domain, client)
        assert client.ask("RELEASE", b"5\0")[1] == b"OK\0"
    assert stand.log().count("domain 0 has no ring") == 1, stand.log()
    assert stand.held() == NO_DOM0


def test_port_file_with_a_newline() -> None:
    """As the kernel writes it."""
    with Stand() as stand:
        path = stand.root / "port"
        path.write_bytes((stand.host.directory / "xsd_port").read_bytes().strip() + b"\n")
        stand.settings["xenstored-port"] = str(path)
        stand.start()
        assert stand.host.guest(0).request(GET_DOMAIN_PATH, b"0\0").payload == b"/local/domain/0\0"


def test_paths_not_configured() -> None:
    """A warning, and everything but domain 0's ring."""
    with Stand(settings={"xenstored-kva": "", "xenstored-port": ""}) as stand:
        stand.start()
        check_without_domain0(stand)


def test_no_domain_init() -> None:
    """--no-domain-init leaves out domain 0's ring only."""
    with Stand() as stand:
        stand.start("--no-domain-init")
        with stand.client() as client:
            domain = stand.host.create(5)
            assert introduce(client, domain) == b"OK\0"
            home(client, 5)
            works(domain, client)
            assert stand.held() == (NO_DOM0[0] + 1, NO_DOM0[1] + 1)
            stand.host.set_state(5, GONE)
            stand.settles(NO_DOM0)


def test_faults_that_come_and_go(stand: Stand) -> None:
    """Two hundred introductions, each third failing at its page, each fifth at its port."""
    with stand.client() as client:
        good = 0
        for n in range(1, 201):
            domain = stand.host.create(n)
            stand.host.set_faults(
                *([f"map {n} ENOMEM"] if n % 3 == 0 else []),
                *([f"bind {n} ENOSPC"] if n % 5 == 0 else []),
            )
            fails = n % 3 == 0 or n % 5 == 0
            assert introduce(client, domain) == (b"EINVAL\0" if fails else b"OK\0")
            good += not fails
        stand.host.set_faults()
        assert stand.held() == (IDLE[0] + good, IDLE[1] + good)
        load = guests.Load(type=GET_DOMAIN_PATH, len=2, payload=b"5\0", depth=1, requests=100)
        stand.host.run_load([stand.host.guest(1, 1)], load)
        for n in range(1, 201):
            stand.host.set_state(n, GONE)
        stand.settles()
