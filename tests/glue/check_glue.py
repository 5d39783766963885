# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the glue on the stand-in; run by test_glue.py with the loader's path set."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guest
import pytest

sys.path.insert(0, os.environ["GLUE_CHECK_DIR"])
MANAGE = os.environ["GLUE_CHECK_MANAGE"]

import _glue_check  # type: ignore[import-not-found]

ffi, lib = _glue_check.ffi, _glue_check.lib
api = lib.xsd_glue_api()
UNKNOWN, RUNNING, SHUTDOWN, DEAD = range(4)
PARTS = ["open_evtchn", "open_gnttab", "open_domains"]
VIRQ_DOM_EXC = 3


@pytest.fixture
def host(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[guest.Host]:
    """An empty host, which this process is dom0 of."""
    monkeypatch.setenv("XSD_STANDIN_DIR", str(root / "host"))
    with guest.Host(root / "host") as host:
        yield host


@pytest.fixture
def bare(host: guest.Host) -> Iterator[Any]:
    """A glue handle with nothing open."""
    glue = api.create()
    yield glue
    api.destroy(glue)
    assert host.ports_in_use() == 0, "ports leaked"
    assert guest.count_mappings(os.getpid(), host.directory) == len(host.guests), "pages leaked"


@pytest.fixture
def glue(bare: Any) -> Any:
    """A glue handle with all parts open."""
    for part in PARTS:
        ok(bare, getattr(api, part)(bare))
    return bare


def ok(glue: Any, result: int) -> int:
    """The result, or the handle's error text as a failure."""
    assert result >= 0, ffi.string(api.last_text(glue)).decode()
    return result


def error(glue: Any, result: int) -> tuple[int, str]:
    """errno and call of a failure."""
    assert result < 0
    call, text = (ffi.string(f(glue)).decode() for f in (api.last_call, api.last_text))
    assert text.startswith(call) and os.strerror(-result) in text
    return -result, call


def pending(glue: Any, room: int = 64) -> list[int]:
    """The pending ports, left masked."""
    ports = ffi.new("uint32_t[]", room)
    return sorted(ports[0 : ok(glue, api.pending(glue, ports, room))])


def unmask(glue: Any, ports: list[int]) -> None:
    """Unmask all of them."""
    ok(glue, api.unmask(glue, ffi.new("uint32_t[]", ports), len(ports)))


def bind(glue: Any, domain: guest.Guest) -> int:
    """Bind a guest's port and take the event that every bind leaves."""
    port = ok(glue, api.bind_interdomain(glue, domain.domid, domain.port))
    assert pending(glue) == [port]
    unmask(glue, [port])
    assert pending(glue) == []
    return port


def test_table() -> None:
    """Version, size and address of the table."""
    assert api.version == lib.XSD_GLUE_VERSION == 2
    assert api.size == ffi.sizeof("struct xsd_glue_api")
    assert int(ffi.cast("uintptr_t", api)) == lib.xsd_glue_api_address()


FAULTS = [
    ("open_evtchn", "open-evtchn * EACCES", errno.EACCES, "xenevtchn_open"),
    ("open_gnttab", "open-gnttab * ENOENT", errno.ENOENT, "xengnttab_open"),
    ("open_domains", "open-ctrl * EPERM\nopen-manage * EPERM", errno.EPERM, "xc_interface_open"),
    ("open_domains", "info * EACCES", errno.EACCES, "xc_domain_getinfolist"),
]


@pytest.mark.parametrize("part,fault,number,call", FAULTS)
def test_open_fails(
    host: guest.Host, bare: Any, part: str, fault: str, number: int, call: str
) -> None:
    """Each part fails by itself, tells why, and can be opened later."""
    host.set_faults(fault)
    assert error(bare, getattr(api, part)(bare)) == (number, call)
    for other in PARTS:
        if other != part:
            ok(bare, getattr(api, other)(bare))
    host.set_faults()
    ok(bare, getattr(api, part)(bare))
    assert error(bare, getattr(api, part)(bare))[0] == errno.EBUSY


def test_no_xen(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hypervisor below: every part says ENOENT, of the library's open and not of the loader."""
    monkeypatch.delenv("XSD_STANDIN_DIR")
    calls = ["xenevtchn_open", "xengnttab_open", "xc_interface_open"]
    for part, call in zip(PARTS, calls):
        assert error(bare, getattr(api, part)(bare)) == (errno.ENOENT, call)


def test_nothing_open(bare: Any) -> None:
    """Every call on a part that is not open is EBADF, not a crash."""
    page, out = ffi.new("void **"), ffi.new("struct xsd_glue_domain *")
    ports = ffi.new("uint32_t[1]")
    for result in (
        api.evtchn_fd(bare),
        api.bind_interdomain(bare, 1, 1),
        api.discard_pending(bare),
        api.bind_virq(bare, 3),
        api.unbind(bare, 1),
        api.notify(bare, 1),
        api.pending(bare, ports, 1),
        api.unmask(bare, ports, 1),
        api.map_page(bare, 1, page),
        api.unmap_page(bare, ffi.NULL),
        api.domain_state(bare, 1, out),
        api.changed_domain(bare, out),
        api.remote_port(bare, 1, ports, ports),
        api.hvm_param(bare, 1, 1, ffi.new("uint64_t *")),
    ):
        assert error(bare, result)[0] == errno.EBADF
    assert ffi.string(api.domains_source(bare)) == b""
    for close in (api.close_evtchn, api.close_gnttab, api.close_domains):
        assert close(bare) == 0


def test_source_of_states(glue: Any) -> None:
    """libxenmanage where there is one, else libxenctrl."""
    source = ffi.string(api.domains_source(glue)).decode()
    assert source.startswith("libxenmanage.so.1" if MANAGE else "libxenctrl.so.4.")


def test_manage_without_hypervisor_support(host: guest.Host, bare: Any) -> None:
    """A libxenmanage that the hypervisor does not serve gives way to libxenctrl."""
    host.set_faults("open-manage * EOPNOTSUPP")
    ok(bare, api.open_domains(bare))
    assert ffi.string(api.domains_source(bare)).decode().startswith("libxenctrl.so.4.")


def test_event_channels(host: guest.Host, glue: Any) -> None:
    """Kicks in both directions; coalescing; delivery after unmask."""
    domain = host.create(5)
    port = bind(glue, domain)
    assert host.wait(0) == []
    for _ in range(3):
        ok(glue, api.notify(glue, port))
    assert host.wait(0) == [5]
    for _ in range(3):
        domain.kick()
    assert pending(glue) == [port]
    domain.kick()
    assert pending(glue) == [], "delivered while masked"
    unmask(glue, [port])
    assert pending(glue) == [port], "an event that came while masked is lost"
    unmask(glue, [port])
    assert pending(glue) == []
    ok(glue, api.unbind(glue, port))
    assert error(glue, api.notify(glue, port)) == (errno.ENOTCONN, "xenevtchn_notify")


def test_batches(host: guest.Host, glue: Any) -> None:
    """Hundreds of pending ports in batches, no port twice."""
    domains = [host.create(domid) for domid in range(1, 301)]
    ports = [ok(glue, api.bind_interdomain(glue, d.domid, d.port)) for d in domains]
    for round_ in range(3):
        for domain in domains:
            domain.kick()
        seen: list[int] = []
        while len(seen) < 300:
            batch = pending(glue, 128)
            assert 0 < len(batch) <= 128
            seen += batch
        assert sorted(seen) == sorted(ports), round_
        assert pending(glue) == []
        unmask(glue, ports)
        if round_ == 0:  # the kicks came behind the event that each bind had left
            assert sorted(pending(glue, 512)) == sorted(ports)
            unmask(glue, ports)
        assert pending(glue) == []
    for port in ports:
        ok(glue, api.unbind(glue, port))


BAD_BINDS = [
    ("no such domain", 9, 1, errno.ESRCH),
    ("no such port", 5, 9, errno.EINVAL),
    ("port 0", 5, 0, errno.EINVAL),
    ("port out of range", 5, 4095, errno.EINVAL),
]


@pytest.mark.parametrize("name,domid,port,number", BAD_BINDS, ids=[r[0] for r in BAD_BINDS])
def test_bad_binds(
    host: guest.Host, glue: Any, name: str, domid: int, port: int, number: int
) -> None:
    """A refused bind tells why and holds no port."""
    host.create(5)
    result = api.bind_interdomain(glue, domid, port)
    assert error(glue, result) == (number, "xenevtchn_bind_interdomain")
    assert host.ports_in_use() == 0


def test_bind_again(host: guest.Host, glue: Any) -> None:
    """A port that is bound cannot be bound a second time, until it is unbound."""
    domain = host.create(5)
    port = bind(glue, domain)
    assert error(glue, api.bind_interdomain(glue, 5, domain.port))[0] == errno.EINVAL
    ok(glue, api.unbind(glue, port))
    bind(glue, domain)
    assert host.ports_in_use() == 1


def test_discard_pending(host: guest.Host, glue: Any) -> None:
    """The queue is empty then; its ports are masked until unmask(), and are told again when they
    were kicked meanwhile."""
    domains = [host.create(domid) for domid in (5, 6, 7)]
    ports = [bind(glue, domain) for domain in domains]
    for domain in domains:
        domain.kick()
    ok(glue, api.discard_pending(glue))
    assert pending(glue) == []
    domains[0].kick()
    assert pending(glue) == [], "delivered while masked"
    unmask(glue, ports)
    assert pending(glue) == [ports[0]]
    unmask(glue, ports)
    domains[1].kick()
    assert pending(glue) == [ports[1]]


def test_dead_domain(host: guest.Host, glue: Any) -> None:
    """A dying domain cannot be bound or mapped; what is bound can be unbound."""
    port = bind(glue, host.create(5))
    host.create(6)
    host.set_state(5, guest.DYING)
    host.set_state(6, guest.DYING)
    assert api.notify(glue, port) == 0, "Xen drops events for nobody in silence"
    ok(glue, api.unbind(glue, port))
    page = ffi.new("void **")
    assert error(glue, api.bind_interdomain(glue, 6, 1))[0] == errno.EINVAL
    assert error(glue, api.map_page(glue, 6, page)) == (errno.EINVAL, "xengnttab_map_grant_ref")


def test_pages(host: guest.Host, glue: Any) -> None:
    """The page is the guest's; unknown domains and faults are errors; unmap drops it."""
    domain, page = host.create(5), ffi.new("void **")
    ok(glue, api.map_page(glue, 5, page))
    domain.poke(100, b"hello")
    assert bytes(ffi.buffer(page[0], 4096)[100:105]) == b"hello"
    ffi.buffer(page[0], 4096)[1024:1027] = b"abc"
    assert bytes(domain.page[1024:1027]) == b"abc"
    ok(glue, api.unmap_page(glue, page[0]))
    assert error(glue, api.map_page(glue, 6, page)) == (errno.EINVAL, "xengnttab_map_grant_ref")
    host.set_faults("map 5 EPERM")
    assert error(glue, api.map_page(glue, 5, page))[0] == errno.EPERM
    assert b"domain 5" in ffi.string(api.last_text(glue))


def test_file_of_dom0(host: guest.Host, bare: Any, tmp_path: Path) -> None:
    """dom0's page by file, which needs no part open."""
    page = ffi.new("void **")
    ok(bare, api.map_file(bare, os.fsencode(host.directory / "xsd_kva"), page))
    host.guest(0).poke(3, b"z")
    assert bytes(ffi.buffer(page[0], 4096)[3:4]) == b"z"
    ok(bare, api.unmap_file(bare, page[0]))


def test_bad_files(bare: Any, tmp_path: Path) -> None:
    """Files that are no page are errors, never a SIGBUS."""
    empty, fifo = tmp_path / "empty", tmp_path / "fifo"
    empty.touch()
    os.mkfifo(fifo)
    page = ffi.new("void **")
    table: dict[str, tuple[int, str]] = {
        str(tmp_path / "none"): (errno.ENOENT, "open"),
        str(tmp_path): (errno.EISDIR, "open"),
        str(empty): (errno.EFAULT, "mmap"),
        str(fifo): (errno.ENODEV, "mmap"),
    }
    for path, expected in table.items():
        assert error(bare, api.map_file(bare, os.fsencode(path), page)) == expected, path
        assert path.encode() in ffi.string(api.last_text(bare))


#: The states that a domain goes through, the last shutdown code, what is told and with which code.
STATES = [
    ((guest.RUNNING,), 0, RUNNING, -1),
    ((guest.SHUTDOWN,), 0, SHUTDOWN, 0),
    ((guest.SHUTDOWN,), 1, SHUTDOWN, 1),
    ((guest.SHUTDOWN,), 2, SHUTDOWN, 2),
    ((guest.SHUTDOWN,), 3, SHUTDOWN, 3),
    ((guest.DYING,), 0, RUNNING, -1),
    ((guest.SHUTDOWN, guest.DYING), 1, SHUTDOWN, 1),
    ((guest.DEAD,), 0, DEAD, -1),
    ((guest.SHUTDOWN, guest.DYING, guest.DEAD), 0, DEAD, -1),
    ((guest.GONE,), 0, UNKNOWN, -1),
]


@pytest.mark.parametrize("states,code,expected,told", STATES)
def test_states(
    host: guest.Host, glue: Any, states: tuple[int, ...], code: int, expected: int, told: int
) -> None:
    """Each state with its shutdown code; being destroyed is not dead yet; a neighbour with a
    higher domid is no answer."""
    host.create(5)
    host.create(7)
    for state in states:
        host.set_state(5, state, code)
    out = ffi.new("struct xsd_glue_domain *")
    ok(glue, api.domain_state(glue, 5, out))
    assert (out.domid, out.state, out.code) == (5, expected, -1 if MANAGE else told)
    for domid in (4, 6, 8, 0x7FF0, 0x7FF4, 1 << 31):
        ok(glue, api.domain_state(glue, domid, out))
        assert (out.domid, out.state, out.unique_id) == (domid, UNKNOWN, 0)


def test_unique_ids(host: guest.Host, glue: Any) -> None:
    """With libxenmanage a domid used again is another domain; libxenctrl cannot tell (0)."""
    out, seen = ffi.new("struct xsd_glue_domain *"), []
    for _ in range(3):
        host.create(5)
        ok(glue, api.domain_state(glue, 5, out))
        seen.append(out.unique_id)
        host.set_state(5, guest.GONE)
    assert len(set(seen)) == 3 and 0 not in seen if MANAGE else seen == [0, 0, 0]


def test_virq_and_changes(host: guest.Host, glue: Any) -> None:
    """VIRQ_DOM_EXC on a change of state, once bound; which domain, where the source tells."""
    host.create(4)
    virq = ok(glue, api.bind_virq(glue, VIRQ_DOM_EXC))
    assert changes(glue) == [(0, RUNNING), (4, RUNNING)], "at first everybody is told of"
    host.create(5)
    assert changes(glue) == [(5, RUNNING)]
    for state in (guest.SHUTDOWN, guest.DYING, guest.DEAD, guest.GONE):
        host.set_state(5, state)
        assert pending(glue) == [virq]
        unmask(glue, [virq])
    assert changes(glue) == [(5, UNKNOWN)]
    assert changes(glue) == []
    other = api.create()
    ok(other, api.open_evtchn(other))
    assert error(other, api.bind_virq(other, VIRQ_DOM_EXC)) == (errno.EEXIST, "xenevtchn_bind_virq")
    api.destroy(other)
    ok(glue, api.unbind(glue, virq))


def changes(glue: Any) -> list[tuple[int, int]]:
    """What is told of changed domains, as (domid, state)."""
    out, told = ffi.new("struct xsd_glue_domain *"), []
    while ok(glue, api.changed_domain(glue, out)):
        told.append((out.domid, out.state))
    return told


def test_changes_among_many(host: guest.Host, glue: Any) -> None:
    """Only those that changed are told, whatever their place in a list longer than one call's;
    nothing of a domain that came and went between two rounds, unless the hypervisor notes it."""
    domids = [*range(1, 200), 32751]
    for domid in domids:
        host.create(domid)
    told = [row for row in changes(glue) if row[0]]
    assert told == [(domid, RUNNING) for domid in domids]
    assert changes(glue) == []
    for domid, state in (
        (63, guest.SHUTDOWN),
        (64, guest.GONE),
        (65, guest.DEAD),
        (130, guest.DYING),
        (32751, guest.SHUTDOWN),
    ):
        host.set_state(domid, state, 3 if state == guest.SHUTDOWN else 0)
    host.create(300)
    host.set_state(300, guest.GONE)
    told = changes(glue)
    assert [row for row in told if row[0] not in (130, 300)] == [
        (63, SHUTDOWN),
        (64, UNKNOWN),
        (65, DEAD),
        (32751, SHUTDOWN),
    ]
    assert ((130, RUNNING) in told, (300, UNKNOWN) in told) == (bool(MANAGE), bool(MANAGE))
    host.set_state(63, guest.SHUTDOWN, 1)
    assert changes(glue) == [(63, SHUTDOWN)], "another shutdown code is a change"
    host.set_faults("info * EPERM")
    if not MANAGE:
        out = ffi.new("struct xsd_glue_domain *")
        assert error(glue, api.changed_domain(glue, out)) == (errno.EPERM, "xc_domain_getinfolist")
    host.set_faults()
    assert changes(glue) == []


def test_close_unbinds(host: guest.Host, glue: Any) -> None:
    """Closing the device frees its ports, and the guest's may be bound again."""
    domain = host.create(5)
    bind(glue, domain)
    assert api.close_evtchn(glue) == 0
    assert host.ports_in_use() == 0
    ok(glue, api.open_evtchn(glue))
    bind(glue, domain)


STAGE = """
import os, sys
sys.path.insert(0, os.environ["GLUE_CHECK_DIR"])
from _glue_check import lib, ffi
api = lib.xsd_glue_api()
g = api.create()
if sys.argv[1] == "first":
    assert api.open_evtchn(g) == api.open_gnttab(g) == 0
    port = api.bind_interdomain(g, 5, 1)
    assert port > 0
    if sys.argv[2] == "keep":
        assert api.keep_over_exec(g, 1) == 0
    fd = str(api.evtchn_fd(g))
    os.execv(sys.executable, [sys.executable, "-c", os.environ["STAGE"], "second", fd, str(port)])
result = api.fdopen_evtchn(g, int(sys.argv[2]))
if result == 0:
    result = api.notify(g, int(sys.argv[3]))
print(result, ffi.string(api.last_text(g)).decode() if result else "served", flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("keep", ["keep", "drop"])
def test_exec(host: guest.Host, keep: str) -> None:
    """The event channel device with its bindings goes through an exec when asked, else not."""
    domain = host.create(5)
    child = subprocess.Popen(
        [sys.executable, "-c", STAGE, "first", keep],
        env={**os.environ, "STAGE": STAGE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdin is not None
    line = child.stdout.readline()
    if keep == "keep":
        assert line == "0 served\n"
        assert host.wait(guest.DEADLINE) == [5]
        assert host.ports_in_use() == 1
    else:
        assert line.startswith(f"{-errno.EBADF} xenevtchn_fdopen")
        assert host.ports_in_use() == 0
    child.stdin.close()
    child.wait()
    child.stdout.close()
    assert host.ports_in_use() == 0
    domain.kick()


def test_close_on_exec_flags(glue: Any) -> None:
    """keep_over_exec can be taken back (a live update that was called off)."""
    fd = api.evtchn_fd(glue)
    flags = []
    for keep in (None, 1, 0):
        if keep is not None:
            ok(glue, api.keep_over_exec(glue, keep))
        flags.append(bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC))
    assert flags == [True, False, True]


def test_inherited_rubbish(bare: Any) -> None:
    """Descriptors that are no event channel device, or not open."""
    with open(os.devnull) as file:
        assert error(bare, api.fdopen_evtchn(bare, file.fileno()))[1] == "xenevtchn_fdopen"
        os.fstat(file.fileno())
    assert error(bare, api.fdopen_evtchn(bare, 19999)) == (errno.EBADF, "xenevtchn_fdopen")


def test_killed_owner(host: guest.Host, glue: Any) -> None:
    """What a killed process had bound is free again."""
    domain = host.create(5)
    code = STAGE.split("if sys.argv")[0] + (
        "assert api.open_evtchn(g) == 0 and api.bind_interdomain(g, 5, 1) > 0\n"
        "print('bound', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "bound\n"
    assert error(glue, api.bind_interdomain(glue, 5, 1))[0] == errno.EINVAL
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert host.ports_in_use() == 0
    bind(glue, domain)


def test_questions_of_libxenctrl_alone(glue: Any, host: guest.Host) -> None:
    """A second handle answers them, beside one that has its domain states from elsewhere."""
    domain = host.create(5)
    port = bind(glue, domain)
    virq = ok(glue, api.bind_virq(glue, VIRQ_DOM_EXC))
    control = api.create()
    domid, remote = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    frame = ffi.new("uint64_t *")
    ok(control, api.open_control(control))
    assert ffi.string(api.domains_source(control)).startswith(b"libxenctrl.so.4.")
    assert error(control, api.open_control(control))[0] == errno.EBUSY
    ok(control, api.remote_port(control, port, domid, remote))
    assert (domid[0], remote[0]) == (5, domain.port)
    for other in (virq, 4000):  # no domain is behind these
        assert error(control, api.remote_port(control, other, domid, remote)) == (
            errno.ENOTCONN,
            "xc_evtchn_status",
        )
    assert error(control, api.remote_port(control, 0, domid, remote))[0] == errno.EINVAL
    ok(control, api.hvm_param(control, 5, 1, frame))
    assert frame[0]
    host.set_faults("param 5 EINVAL")
    assert error(control, api.hvm_param(control, 5, 1, frame))[0] == errno.EINVAL
    assert error(control, api.hvm_param(control, 6, 1, frame))[0] == errno.ESRCH
    api.destroy(control)
    for given in (port, virq):
        ok(glue, api.unbind(glue, given))
