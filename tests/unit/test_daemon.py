# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon around the server: timers, signals, statistics, its host and the database.

All in this process, on a loop that only runs where a test lets it.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd import daemon as daemon_module
from pyxsd.daemon import Daemon
from pyxsd.host import Host, resident_bytes
from pyxsd.state import restore
from pyxsd.system.configuration import Config
from pyxsd.system.daemon_log import DaemonLog
from pyxsd.system.log import Log
from tests.unit.kit import begin, end, ok, watch
from tests.unit.test_log_moments import signals
from tests.world import World, packet

__all__ = ["signals"]  # a fixture

Make = Callable[..., Any]
FAR = 1e9  # monotonic seconds


class Domains:
    """Domains that cannot be asked."""

    def __init__(self) -> None:
        self.table: dict[int, Any] = {}
        self.scans = 0
        self.restored: list[tuple[Any, ...]] = []
        self.gone: set[int] = set()

    def scan(self) -> int:
        self.scans += 1
        return 0

    def restore_ring(self, domid: int, ring: Any) -> None:
        self.restored.append((domid, ring))

    def restore(self, domid: int, mfn: int, port: int, ring: Any) -> bool:
        self.restored.append((domid, mfn, port, ring))
        return domid not in self.gone


def said(folder: Path) -> list[str]:
    """The lines of the log behind its first one, without times and levels."""
    lines = (folder / "daemon.log").read_text().splitlines()
    return [line.partition("] ")[2] for line in lines[1:]]


class Running:
    """A daemon, its server, and what it says in its log."""

    def __init__(self, world: World, folder: Path, listener: int, **config: Any) -> None:
        self.world = world
        self.folder = folder
        self.domains = Domains()
        self.log = DaemonLog(str(folder / "daemon.log"), "debug", 2, 1000)
        self.access = Log()
        self.daemon = Daemon(
            Config(**config),
            world.server,
            self.domains,
            self.log,
            self.access,
            str(folder),
            listener,
        )

    def lines(self) -> list[str]:
        """What the log says."""
        return said(self.folder)

    def close(self) -> None:
        self.daemon.close()
        self.log.close()
        vars(self.daemon).clear()  # pytest keeps it, and with it the server


@pytest.fixture
def running(make_world: Make, tmp_path: Path) -> Iterator[Make]:
    """running(listener, **configuration)."""
    made: list[Running] = []

    def make(listener: int = -1, **config: Any) -> Running:
        made.append(Running(make_world(**config), tmp_path, listener, **config))
        return made[-1]

    yield make
    for one in made:
        one.close()


# -- timers -------------------------------------------------------------------


def test_the_rest_is_loaded_piece_by_piece(running: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a pause."""
    daemon = running().daemon
    loaded: list[int] = []

    def pieces(_reserve: Any, _failed: Any) -> Iterator[None]:
        for piece in range(3):
            loaded.append(piece)
            yield

    monkeypatch.setattr(daemon_module, "load_rest", pieces)
    before = time.monotonic()
    daemon.after(2 * FAR, lambda: None)
    daemon.load_rest()
    (due, _), _ = daemon.timers
    assert not loaded and due >= before + daemon_module.LOAD_PAUSE
    daemon._do_what_is_due(FAR)
    assert loaded == [0, 1, 2]
    assert len(daemon.timers) == 1


def test_what_was_left_out_of_the_log_is_told_from_time_to_time(
    running: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = running()
    told: list[bool] = []
    monkeypatch.setattr(one.log, "tell_left_out", lambda: told.append(True))
    one.daemon._periodic()
    assert told == [True]


def test_timers_run_when_they_are_due_in_their_order(running: Make) -> None:
    """At their very time, too; the loop sleeps until the next one."""
    daemon = running().daemon
    called: list[str] = []
    for seconds, name in ((30, "c"), (10, "a"), (20, "b"), (40, "d")):
        daemon.after(seconds, lambda name=name: called.append(name))
    first, second, third, last = (deadline for deadline, _ in daemon.timers)
    assert daemon.due <= first < second < third < last
    daemon._do_what_is_due(first - 0.001)
    assert called == [] and daemon.due == first
    daemon._do_what_is_due(first)
    assert called == ["a"] and daemon.due == second
    daemon._do_what_is_due(third)
    assert called == ["a", "b", "c"] and daemon.due == last


def test_a_timer_that_is_due_sooner_ends_the_sleep_sooner(running: Make) -> None:
    daemon = running().daemon
    daemon.after(50, lambda: None)
    daemon._do_what_is_due(0.0)
    late = daemon.due
    daemon.after(60, lambda: None)
    assert daemon.due == late
    daemon.after(5, lambda: None)
    assert daemon.due < late


def test_credit_comes_back(running: Make) -> None:
    """The server is asked what time changes, and the loop wakes for it, and only then."""
    one = running(conflict_burst_limit=1.0)
    world, daemon = one.world, one.daemon
    daemon.after(1000, lambda: None)
    daemon._do_what_is_due(world.now)
    assert daemon.due == daemon.timers[0][0]
    for who in ("s0", "d1"):
        ok(world, who, "WRITE", b"/local/domain/1/x\0old")
    tx_id = begin(world, "s0")
    ok(world, "s0", "READ", b"/local/domain/1/x\0", tx_id)
    ok(world, "s0", "WRITE", b"/y\0v", tx_id)
    ok(world, "d1", "WRITE", b"/local/domain/1/x\0new")
    assert end(world, "s0", tx_id) == "EAGAIN"
    connection, _ = world.connection("d1")
    assert connection.credit <= 0 and world.server.wants_time
    daemon._do_what_is_due(world.now)
    due = daemon.due
    assert world.now < due < daemon.timers[0][0]
    daemon._do_what_is_due(due)
    assert connection.credit > 0


def test_the_store_is_written_after_each_commit_where_it_is_persistent(running: Make) -> None:
    one = running(persistent=True)
    one.daemon.after(1000, lambda: None)
    path = one.folder / "db"
    one.daemon._do_what_is_due(0.0)
    assert not path.exists()
    tx_id = begin(one.world, "s0")
    ok(one.world, "s0", "WRITE", b"/kept\0word", tx_id)
    assert end(one.world, "s0", tx_id) == "OK"
    one.daemon._do_what_is_due(0.0)
    one.daemon._do_what_is_due(one.daemon.timers[0][0])
    assert b"/kept".hex().encode() in path.read_bytes()
    assert b"word".hex().encode() in path.read_bytes()
    path.unlink()
    for _ in range(2):
        one.daemon._do_what_is_due(0.0)
        assert len(one.daemon.timers) == 1 and not path.exists(), "nothing was committed since"


# -- what is done now and then ------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "passed", "scans"),
    [(20, 19, 0), (20, 20, 1), (20, 100, 1), (0, 0, 1), (-1, 1000, 0)],
)
def test_rings_are_looked_at(
    running: Make, interval: int, passed: int, scans: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ring-scan-interval seconds; never where it is negative."""
    one = running(ring_scan_interval=interval)
    now = one.daemon.last_scan + passed
    monkeypatch.setattr(daemon_module, "time", SimpleNamespace(monotonic=lambda: now))
    one.daemon._periodic()
    one.daemon._periodic()
    assert one.domains.scans == (2 if interval == 0 else scans)
    assert [deadline - now for deadline, _ in one.daemon.timers] == [15.0, 15.0]


def test_statistics(running: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every two minutes: what failed since the last time, and what there is now."""
    one = running()
    world = one.world
    watch(world, "d1", b"x")
    watch(world, "s0", b"/a")
    watch(world, "s0", b"/b")
    sockets = sum(world.connection(name)[0].ops for name in ("s0", "s1"))
    now = [one.daemon.last_statistics + 119]
    monkeypatch.setattr(daemon_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one.daemon._periodic()
    assert one.lines() == []
    for count, passed, failed in ((1, 240, 1), (2, 121, 0)):
        if failed:
            tx_id = begin(world, "s1")
            ok(world, "s1", "READ", b"/local/domain/1\0", tx_id)
            ok(world, "s1", "WRITE", b"/c\0v", tx_id)
            ok(world, "s0", "WRITE", b"/local/domain/1\0other")
            assert end(world, "s1", tx_id) == "EAGAIN"
        now[0] += 121
        one.daemon._periodic()
        one.daemon._periodic()
        lines = one.lines()[-5:]
        assert len(one.lines()) == 5 * count
        assert lines[0] == f"Transaction conflict statistics for last {passed}.00 seconds:"
        assert lines[1] == (
            f"{failed} failed transactions; of these no culprit was found for {failed}"
        )
        assert lines[2] == (
            f"store stat: nodes({world.server.tree.size + 1}) t-abort(1) t-coalesce(0)"
        )
        assert lines[3].strip() == (
            f"con stat: anonymous(2, {sockets + 5} o, 2 w) domains(3, 1 o, 1 w)"
        )
        assert re.fullmatch(r" *mem stat: resident\([1-9]\d{6,} b\)", lines[4])


# -- connections and handlers -------------------------------------------------


def test_new_connections(running: Make, tmp_path: Path) -> None:
    """They are taken, served, and stand in the log at level debug."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen(5)
    one = running(listener.detach())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
        client.sendall(packet("READ", b"/tool\0"))
        while len(one.daemon.loop.connections) == 0:
            one.daemon.loop.run(FAR, True)
        one.daemon.loop.run(time.monotonic(), True)
        one.world.server.flush()
        assert len(client.recv(100)) == 16
        assert one.lines() == ["new connection through socket"]
        [connection] = one.daemon.loop.connections.values()
        one.world.server.disconnect(connection)
        one.daemon.loop.run(0.0, True)


def test_without_descriptors_nobody_is_refused(
    running: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener rests for a moment; one line in the log, however often it happens."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen(5)
    one = running(listener.detach())
    daemon = one.daemon
    loop, answers = daemon.loop, [-errno.EMFILE, -errno.ENFILE, -errno.EAGAIN, 3]
    daemon.loop = SimpleNamespace(accept=lambda fd: answers.pop(0))
    for _ in range(2):
        assert daemon._on_accept() is True
        deadline, again = daemon.timers.pop()
        assert 0 < deadline - time.monotonic() < 1
        with pytest.raises(FileNotFoundError):
            daemon.epoll.modify(daemon.listener, 1)
        again()
        daemon.epoll.modify(daemon.listener, 1)
    assert daemon._on_accept() is False and daemon._on_accept() is False
    assert sum("cannot accept: Too many open files" in line for line in one.lines()) == 1
    assert sum("new connection through socket" in line for line in one.lines()) == 3
    daemon.loop = loop


def test_an_epoll_that_refuses_the_listener(running: Make, tmp_path: Path) -> None:
    """It is tried again: else nobody would be accepted any more."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen(5)
    one = running(listener.detach())
    daemon = one.daemon
    epoll = daemon.epoll
    epoll.unregister(daemon.listener)

    def refuse(*_arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    daemon.epoll = SimpleNamespace(register=refuse)
    daemon._accept_again()
    daemon.epoll = epoll
    _, again = daemon.timers.pop()
    again()
    epoll.modify(daemon.listener, 1)


def test_a_handler_that_fails_rests_for_a_while(running: Make) -> None:
    """So it does not fail in every turn; it is told with its trace, and comes back."""
    one = running()
    daemon = one.daemon
    reading, writing = os.pipe()
    calls = []

    def fails() -> None:
        calls.append(1)
        raise ZeroDivisionError("for a test")

    daemon.loop.add_handler(reading, fails)
    os.write(writing, b"x")
    for _ in range(5):
        daemon.loop.run(0.0, True)
    assert calls == [1]
    told = [text for level, _, text in one.world.host.messages if level == "warn"]
    assert len(told) == 1 and "ZeroDivisionError: for a test" in told[0] and "fails" in told[0]
    [(deadline, again)] = daemon.timers
    assert 0 < deadline - time.monotonic() < 1
    again()
    daemon.loop.run(0.0, True)
    assert calls == [1, 1]
    del daemon.loop.handlers[reading]
    again()  # whose handler has gone
    daemon.reraise = True
    daemon.loop.handlers[reading] = fails
    daemon.epoll.modify(reading, 1)
    with pytest.raises(ZeroDivisionError):
        daemon.loop.run(0.0, True)
    del daemon.loop.handlers[reading]
    os.close(reading)
    os.close(writing)


# -- signals ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "stops", "told"),
    [
        (signal.SIGTERM, True, ["Received SIGTERM"]),
        (signal.SIGINT, True, ["Received SIGINT"]),
        (signal.SIGHUP, False, []),
        (signal.SIGUSR1, False, []),
    ],
)
def test_signals(running: Make, signals: None, number: int, stops: bool, told: list[str]) -> None:
    one = running()
    one.daemon.install_signals()
    os.kill(os.getpid(), number)
    if number == signal.SIGHUP:
        (one.folder / "daemon.log").rename(one.folder / "moved")
    one.daemon.loop.run(FAR, False)
    assert one.daemon.stopping is stops
    if number != signal.SIGHUP:
        assert one.lines() == told
    one.log.info("xenstored", "behind it")
    assert (one.folder / "daemon.log").exists(), "as logrotate has moved the old one"
    assert (one.folder / "db.debug").exists() == (number == signal.SIGUSR1)
    assert one.daemon._on_signal() is False, "none is left"


def test_a_signal_that_comes_often(
    running: Make, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came until now is done once: the tree of a large store takes a second each time."""
    one = running()
    one.daemon.install_signals()
    written: list[str] = []
    monkeypatch.setattr(one.daemon, "_write", lambda name, rows: written.append(name))
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
    one.daemon.loop.run(FAR, False)
    assert written == ["db.debug"] and one.daemon.stopping
    assert one.lines() == ["Received SIGTERM"]


# -- the host -----------------------------------------------------------------


@pytest.fixture
def host(world: World, tmp_path: Path) -> Iterator[Host]:
    log = DaemonLog(str(tmp_path / "daemon.log"), "debug", 2, 1000)
    one = Host(log)
    one.attach(world.server, SimpleNamespace(table={5: SimpleNamespace(mfn=77)}))
    yield one
    log.close()
    vars(one).clear()


def test_what_the_host_answers(host: Host, tmp_path: Path) -> None:
    assert host.access_log(None) is False
    assert host.access_log(True) is True and host.access_log(None) is True
    assert host.access_log(False) is False and host.access_log(None) is False
    assert host.mfn(5) == 77
    host.updates = SimpleNamespace(command=lambda connection, words: connection + words[0].encode())
    assert host.live_update(b"client ", ["-a"]) == b"client -a"
    host.complain("kind", "said by complain")
    host.log("info", "facility", "said by log")
    text = (tmp_path / "daemon.log").read_text()
    assert "said by complain" in text and "said by log" in text
    host.log_file(str(tmp_path / "other.log"))
    host.log("info", "facility", "said elsewhere")
    assert "said elsewhere" in (tmp_path / "other.log").read_text()


def test_the_report_of_memory(host: Host) -> None:
    """A line each, and a newline behind the last."""
    text = host.memory()
    rows = dict(row.split(": ") for row in text.splitlines())
    assert text.endswith("\n")
    resident = int(rows.pop("resident").split(" ")[0])
    assert resident > 1_000_000 and resident % os.sysconf("SC_PAGE_SIZE") == 0
    assert abs(resident - resident_bytes()) < resident // 2
    assert {"nodes", "pages", "perms", "counts", "transactions", "connections"} <= set(rows)
    assert int(rows["connections"]) > 0


# -- the database -------------------------------------------------------------


@pytest.fixture
def reading(world: World, tmp_path: Path) -> Iterator[Callable[..., tuple[Domains, list[str]]]]:
    """reading(text of the database or None, required, gone): what became of it."""
    log = DaemonLog(str(tmp_path / "daemon.log"), "debug", 2, 1000)

    def read(
        text: str | None, required: bool = True, gone: set[int] | None = None
    ) -> tuple[Domains, list[str]]:
        path = tmp_path / "db"
        if text is not None:
            path.write_text(text)
        domains = Domains()
        domains.gone = gone or set()
        restore.from_file(str(path), world.server, domains, Config(), log, required)
        return domains, said(tmp_path)

    yield read
    log.close()


@pytest.mark.parametrize(
    ("text", "required", "told"),
    [
        (None, True, "no database, starting with an empty store"),
        (None, False, ""),
        ("nonsense\n", True, "; starting with an empty store"),
        ("nonsense\n", False, "; starting with an empty store"),
    ],
)
def test_without_a_database(
    reading: Make, world: World, text: str | None, required: bool, told: str
) -> None:
    """The server goes on with what it has."""
    before = world.server.tree.size
    domains, lines = reading(text, required)
    assert len(lines) == (1 if told else 0) and all(told in line for line in lines)
    assert world.server.tree.size == before and domains.restored == []


def hexed(*texts: bytes) -> str:
    return ",".join(text.hex() for text in texts)


def test_a_database_with_a_domain_that_is_gone(
    reading: Make, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store forgets it; what the others had comes back, their watches without a first
    event."""
    rows = [
        "$xenstored-dump-format",
        f"store,{hexed(b'/', b'n0')},",
        f"store,{hexed(b'/a', b'n1')},{hexed(b'v')}",
        f"store,{hexed(b'/b', b'n2')},",
        "dom,0,0,1",
        "dom,1,4660,7",
        "dom,2,4661,8",
        f"watch,1,{hexed(b'/a', b'tok')}",
        f"watch,2,{hexed(b'/b', b'tok')}",
        f"watch,-5,{hexed(b'/b', b'tok')}",
    ]
    world.server.disconnect(world.server.domains[2])
    monkeypatch.setattr(
        restore, "time", SimpleNamespace(time=lambda: (tmp_path / "db").stat().st_mtime + 86400)
    )
    domains, lines = reading("\n".join(rows) + "\n", gone={2})
    assert domains.restored == [(0, None), (1, 4660, 7, None), (2, 4661, 8, None)]
    assert lines == [
        "domain 2 is gone",
        f"restored 1 nodes from {tmp_path / 'db'}, written 86400 seconds ago",
    ]
    tree = world.server.tree
    assert tree.entries(1) == 1 and tree.entries(2) == 0
    assert world.server.domains[1].watch_list() == [(b"/a", b"tok", None)]
    assert world.drain("d1") == []
