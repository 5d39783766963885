# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL: each command's answer, byte for byte, and what it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd._accesslog import AccessLog
from pyxsd._conn import Connection
from pyxsd._wire import RequestError
from pyxsd.control import Control
from pyxsd.system.daemon_log import DaemonLog
from tests.unit.kit import begin, error, ok, watch
from tests.world import World, packet

Make = Callable[..., Any]


@pytest.fixture
def world(make_world: Make) -> World:
    """Domain 5 with a home, as an administrator would look at it."""
    world: World = make_world(domids=(5,), quota_maxwatch=100)
    for name in ("access_log", "log_file", "memory", "live_update", "trim"):
        setattr(world.host, name, Calls(name, world.host))
    return world


class Calls:
    """Stands for a method of the host; keeps what it was called with, but for connections."""

    def __init__(self, name: str, host: Any) -> None:
        self.name = name
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.calls.append(tuple(each for each in arguments if not isinstance(each, Connection)))
        return {"memory": "1 page\n", "live_update": b"OK\0", "access_log": True}.get(self.name)


def control(world: World, *words: bytes, who: str = "s0") -> bytes:
    """The answer to a command."""
    return ok(world, who, "CONTROL", b"".join(word + b"\0" for word in words))


ANSWERS = [
    ((b"print", b"hello"), b"OK\0"),
    ((b"print",), b"OK\0"),
    ((b"quota", b"5"), b"dom5 quota: 1/1000\0"),
    ((b"quota", b"9"), b"dom9 quota: not set\0"),
    ((b"quota", b"x"), b"OK\0"),
    ((b"quota", b"99999999999999999999999999"), b"OK\0"),
    ((b"mfn", b"5"), b"4660\0"),
    ((b"mfn", b"9"), b"OK\0"),
    ((b"mfn",), b"OK\0"),
    ((b"compact",), b"Compacted"),
    ((b"trim",), b"trimmed"),
    ((b"txn", b"5"), b""),
    ((b"txn", b"9"), b"OK\0"),
    ((b"watches",), b"\0"),
    ((b"check",), b"OK\0"),
    ((b"no such",), b"OK\0"),
    ((b"",), b"OK\0"),
    ((b"xenbus", b"9"), b"OK\0"),
    ((b"live-update", b"-a"), b"OK\0"),
    ((b"log", b"on"), b"OK\0"),
    ((b"quota", b"set", b"nodes", b"-1"), b"OK\0"),
    ((b"quota", b"set", b"nodes", b"99999999999999999999"), b"OK\0"),
    ((b"quota", b"set", b"\xff", b"1"), b"OK\0"),
]


@pytest.mark.parametrize("words, answer", ANSWERS, ids=repr)
def test_answers(world: World, words: tuple[bytes, ...], answer: bytes) -> None:
    assert control(world, *words) == answer
    assert ok(world, "s0", "CONTROL", b"\0".join(words)) == answer, "the last NUL may be missing"
    assert not [text for level, _, text in world.host.messages if level == "error"]


def test_watches(world: World) -> None:
    watch(world, "d5", b"device", b"tok en")
    watch(world, "s0", b"/local/domain/5", b"t", b"2\0")
    watch(world, "s0", b"@releaseDomain", b"rel")
    assert control(world, b"watches") == (
        b"watch DOM5: device tok en None\n"
        b"watch DOM0 (ANON CONN #1): /local/domain/5 t Some 2\n"
        b"watch DOM0 (ANON CONN #1): @releaseDomain rel None\n\0"
    )


def test_an_answer_too_long_for_a_packet(world: World) -> None:
    for n in range(100):
        watch(world, "d5", b"a-path-of-some-length/%d" % n)
    assert error(world, "s0", "CONTROL", b"watches\0") == "E2BIG"


def test_watches_that_no_packet_can_hold_are_not_looked_at() -> None:
    """A guest may ask for them (allow-debug), and there may be a hundred thousand."""
    looked_at: list[int] = []

    def client(number: int) -> Any:
        def watch_list() -> list[tuple[bytes, bytes, None]]:
            looked_at.append(number)
            return [(b"/a" * 100, b"t", None)] * 10

        return SimpleNamespace(id=number, is_socket=True, label=b"A", watch_list=watch_list)

    server = SimpleNamespace(connections={number: client(number) for number in range(50)})
    answer = Control(server, None).watches(None, [])
    assert len(answer) > 4096
    assert looked_at == [0, 1]


def test_txn(world: World) -> None:
    tx_id = begin(world, "d5")
    ok(world, "d5", "WRITE", b"x\0v", tx_id)
    ok(world, "d5", "READ", b"x\0", tx_id)
    begin(world, "d5")
    assert control(world, b"txn", b"5") == (
        b"paths: 1, operations: 2, quota_reached: false\n"
        b"paths: 0, operations: 0, quota_reached: false\n"
    )


def test_xenbus(world: World) -> None:
    assert control(world, b"xenbus", b"5") == (
        b"xenbus: XenBus state: partial_in: 16 needed, partial_out: 0 bytes, pkt_out: 0 packets, "
        b"BoundedQueue capacity: 2048, used: {\twatch_event: 0\tcommand_reply: 0}; "
        b"overflow queue length: 0, can_input: true, has_more_input: false, "
        b"has_old_output: false, has_new_output: false, has_more_work: false."
    )


def test_xenbus_shows_what_is_queued(world: World) -> None:
    world.connection("d5")[1].room = 0
    world.feed("d5", packet("WATCH", b"x\0t\0") + packet("READ", b"xyz\0")[:17])
    text = control(world, b"xenbus", b"5")
    assert b"partial_in: " in text and b"has_more_input: true" in text
    assert b"pkt_out: 2 packets" in text
    assert b"used: {\twatch_event: 1\tcommand_reply: 1}" in text


def test_quota_shows_and_sets(world: World) -> None:
    shown = control(world, b"quota").decode()
    assert "nodes             : 1000\n" in shown and "node-size         : 2048\n" in shown
    assert control(world, b"quota", b"set", b"nodes", b"2") == b"OK\0"
    assert control(world, b"quota", b"5") == b"dom5 quota: 1/2\0"
    ok(world, "d5", "MKDIR", b"a\0")
    assert error(world, "d5", "MKDIR", b"b\0") == "EQUOTA"
    assert control(world, b"quota", b"max") == b"nodes             : 2\nwatches           : 0\n\0"


# key, value in the configuration, quota, what is shown: 0 is a check that is off
CONFIGURED = [
    ("quota_maxentity", 0, "nodes", "none"),
    ("quota_maxentity", -1, "nodes", "none"),
    ("quota_maxsize", 0, "node-size", "none"),
    ("quota_maxsize", -1, "node-size", "0"),
    ("quota_path_max", 0, "path-max", "none"),
    ("quota_path_max", -1, "path-max", "0"),
    ("quota_maxrequests", 0, "transaction-nodes", "none"),
    ("quota_maxrequests", -1, "transaction-nodes", "0"),
    ("quota_maxwatch", 0, "watches", "0"),
    ("quota_maxwatch", -1, "watches", "0"),
    ("quota_transaction", -1, "transactions", "0"),
    ("quota_maxoutstanding", -1, "outstanding", "1"),
    ("quota_maxwatchevents", 0, "watch-events", "1"),
]


@pytest.mark.parametrize(("key", "value", "name", "said"), CONFIGURED)
def test_quota_tells_none_at_all_from_no_limit(
    make_world: Make, key: str, value: int, name: str, said: str
) -> None:
    shown = dict(
        line.split(":")
        for line in control(make_world(**{key: value}), b"quota").decode().splitlines()[:-1]
    )
    assert shown[f"{name:<18}"].strip() == said


@pytest.mark.parametrize(("value", "said"), [(7, "7"), (0, "none"), (-1, "none")])
def test_quota_of_a_domain_tells_none_at_all_from_no_limit(
    make_world: Make, value: int, said: str
) -> None:
    """The domain owns one node, which the test's toolstack made."""
    world: World = make_world(domids=(5,), quota_maxentity=value)
    assert control(world, b"quota", b"5") == f"dom5 quota: 1/{said}\0".encode()
    control(world, b"quota", b"set", b"nodes", b"0")
    assert control(world, b"quota", b"5") == b"dom5 quota: 1/0\0"
    world.server.set_quota("nodes", 3, world.connection("d5")[0])
    assert control(world, b"quota", b"5") == b"dom5 quota: 1/3\0"


def test_quota_max_without_domains(make_world: Make) -> None:
    """Domain 0's own nodes do not count."""
    world: World = make_world(domids=())
    assert control(world, b"quota", b"max") == b"nodes             : 0\nwatches           : 0\n\0"


def test_quota_set_counts_at_once(world: World) -> None:
    """For the connections that are there too."""
    control(world, b"quota", b"set", b"watches", b"1")
    control(world, b"quota", b"set", b"transactions", b"1")
    for n in range(2):
        watch(world, "d5", b"x", b"%d" % n)
        begin(world, "d5")
    assert error(world, "d5", "WATCH", b"x\0z\0") == "EQUOTA"
    assert error(world, "d5", "TRANSACTION_START", b"\0") == "EQUOTA"


def test_check_finds_wrong_counts(world: World) -> None:
    control(world, b"check")
    assert world.host.messages == []


def test_print_goes_into_the_access_log(make_world: Make) -> None:
    world: World = make_world(log=AccessLog(True))
    world.server.log.take()
    control(world, b"print", b"hello \xff")
    lines = world.server.log.take()[0].splitlines()
    assert [line.split(b"]  ", 1)[1] for line in lines] == [
        b"=======>     debug     hello \\255",
        b"DOM0 (ANON CONN #1) debug     print hello \\255 ",
    ]


def test_host_commands(world: World, tmp_path: Path) -> None:
    host: Any = world.host
    assert control(world, b"log") == b"Log is on\n\0"
    control(world, b"log", b"off")
    assert host.access_log.calls == [(None,), (False,)]
    control(world, b"logfile", b"/some/where")
    assert host.log_file.calls == [("/some/where",)]
    control(world, b"live-update", b"-s", b"-t", b"60")
    assert host.live_update.calls == [(["-s", "-t", "60"],)]
    report = tmp_path / "report"
    control(world, b"memreport", bytes(report))
    assert report.read_text() == "1 page\n"


@pytest.mark.parametrize("fault", [ValueError, LookupError, OSError, RequestError])
def test_a_live_update_that_fails_is_not_ok(world: World, fault: type[Exception]) -> None:
    """OK is the word for an update that is done, as an outcome of -s."""

    def fails(_connection: Any, _words: list[str]) -> bytes:
        raise fault("EINVAL")

    host: Any = world.host
    host.live_update = fails
    answer = control(world, b"live-update", b"-s")
    assert answer == f"live-update failed: {fault.__name__}: EINVAL".encode()
    assert host.messages == [("error", "control", answer.decode())]
    host.messages.clear()


#: What stands at the path, and why a report cannot be written there.
UNWRITABLE: list[tuple[Callable[[Path], object], bytes]] = [
    (os.mkfifo, b"not a regular file"),
    (lambda path: path.symlink_to("/dev/tty"), b""),
    (lambda path: path.symlink_to("/dev/zero"), b"not a regular file"),
    (lambda path: path.mkdir(), b"Is a directory"),
    (lambda path: path.symlink_to(path / "no" / "such"), b""),
]


@pytest.mark.parametrize(("make", "reason"), UNWRITABLE)
@pytest.mark.parametrize("command", [b"memreport", b"logfile"])
def test_files_that_cannot_be_written(
    world: World, tmp_path: Path, command: bytes, make: Callable[[Path], object], reason: bytes
) -> None:
    """The answer says why, and nothing is waited for."""
    log = DaemonLog(str(tmp_path / "log"), "info", 2, 100)
    host: Any = world.host
    host.log_file = log.redirect
    path = tmp_path / "path"
    make(path)
    answer = control(world, command, bytes(path))
    assert answer.startswith(b"cannot write %s: %s" % (bytes(path), reason))
    log.info("xenstored", "here")
    assert "here" in (tmp_path / "log").read_text()
    log.close()


def test_a_fifo_with_a_reader_is_no_file(world: World, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    before = len(os.listdir("/proc/self/fd"))
    assert b"not a regular file" in control(world, b"memreport", bytes(fifo))
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(reader)


def test_a_report_replaces_what_stood_there(world: World, tmp_path: Path) -> None:
    report, link = tmp_path / "report", tmp_path / "link"
    report.write_text("x" * 10000)
    link.symlink_to(report)
    assert control(world, b"memreport", bytes(link)) == b"OK\0"
    assert report.read_text() == "1 page\n"


GUEST_COMMANDS = [
    (b"print", b"x"),
    (b"quota", b"5"),
    (b"watches",),
    (b"mfn", b"5"),
    (b"quota", b"set", b"nodes", b"1"),
    (b"logfile", b"/x"),
    (b"trim",),
]


@pytest.mark.parametrize("words", GUEST_COMMANDS, ids=repr)
def test_a_guest_is_answered_ok_and_nothing_is_done(world: World, words: tuple[bytes, ...]) -> None:
    assert control(world, *words, who="d5") == b"OK\0"
    host: Any = world.host
    assert not host.log_file.calls and not host.trim.calls
    assert world.server.quota("nodes") == 1000


def test_allow_debug(make_world: Make) -> None:
    world: World = make_world(domids=(5,), allow_debug=True)
    assert control(world, b"quota", b"5", who="d5") == b"dom5 quota: 1/1000\0"


@pytest.mark.parametrize(
    "words",
    [
        (b"logfile", b"/x"),
        (b"memreport", b"FILE"),
        (b"log", b"off"),
        (b"quota", b"set", b"nodes", b"9"),
        (b"live-update", b"-s"),
    ],
    ids=repr,
)
def test_allow_debug_opens_no_dangerous_command(
    make_world: Make, tmp_path: Path, words: tuple[bytes, ...]
) -> None:
    world: World = make_world(domids=(5,), allow_debug=True)
    host: Any = world.host
    for name in ("access_log", "log_file", "memory", "live_update"):
        setattr(host, name, Calls(name, host))
    report = tmp_path / "report"
    control(world, *(bytes(report) if word == b"FILE" else word for word in words), who="d5")
    assert (
        not (
            host.log_file.calls
            or host.access_log.calls
            or host.live_update.calls
            or report.exists()
        )
        and world.server.quota("nodes") == 1000
    )


def test_control_by_a_domain_whose_target_is_0(world: World) -> None:
    ok(world, "s0", "SET_TARGET", b"5\x000\0")
    assert control(world, b"mfn", b"5", who="d5") == b"4660\0"


def test_logfile_takes_a_facility_of_syslog(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`syslog:daemon` is no file's name, as in the configuration."""
    monkeypatch.chdir(tmp_path)
    log = DaemonLog(str(tmp_path / "log"), "info", 2, 100)
    host: Any = world.host
    host.log_file = log.redirect
    assert (
        control(world, b"logfile", b"syslog:nobody")
        == b"cannot write syslog:nobody: unknown syslog facility\0"
    )
    log.info("xenstored", "still in the file")
    assert control(world, b"logfile", b"syslog:daemon") == b"OK\0"
    log.info("xenstored", "not in the file")
    assert control(world, b"logfile", b"back") == b"OK\0"
    log.info("xenstored", "in the new file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "log"]
    text = (tmp_path / "log").read_text()
    assert "still in the file" in text and "not in the file" not in text
    assert "|xenstored] in the new file\n" in (tmp_path / "back").read_text()
    log.close()
