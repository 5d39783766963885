# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recording of a crash: of which deaths there is one, what it says, and that there are not
many."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd import _journal
from pyxsd.keeper.witness import FOUND, LOST, NAME
from pyxsd.record import death, files
from pyxsd.recovery import crash
from pyxsd.state.errors import StateError
from pyxsd.system.configuration import Config
from tests.clients.daemon import PROJECT, Client, wait_for
from tests.domains.standin import Stand, with_homes
from tests.keeper.test_daemon import KeptDaemon, name_of
from tests.recovery.parked import EIO
from tests.update.kit import descriptors
from tests.world import TYPES

PROGRAM = ("-m", "tests.recovery.crashing")
RECORDED, NOT_RECORDED = FOUND, LOST


class CrashingDaemon(KeptDaemon):
    """One with the command crash."""

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__(settings, program=(sys.executable, *PROGRAM), **options)

    @property
    def crashes(self) -> Path:
        """Where their recordings are."""
        return self.run / "crashes"

    def crash(self, client: Client, word: bytes = b"segv") -> None:
        """The process that serves dies of this client's request."""
        assert client.ask("CONTROL", b"crash\0" + word + b"\0") == EIO

    def told(self, count: int) -> list[str]:
        """What the log says of so many recordings, when it does."""

        def lines() -> list[str]:
            return [*self.logged(RECORDED), *self.logged(NOT_RECORDED)]

        wait_for(lambda: len(lines()) >= count, f"{count} are not told of")
        assert len(lines()) == count
        return lines()


@pytest.fixture(name="daemon")
def a_daemon() -> Iterator[CrashingDaemon]:
    running = CrashingDaemon()
    try:
        yield running
        assert "Traceback" not in "".join(running.log())
    finally:
        running.stop()


def replay(where: Path, *more: str, program: tuple[str, ...] = ("-m", "pyxsd")) -> Any:
    """`pyxsd --replay`, without any environment of the daemon."""
    return subprocess.run(
        [sys.executable, *program, "--replay", str(where), *more],
        env={
            name: os.environ[name]
            for name in ("PATH", "LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PYXSD_MUTANTS")
            if name in os.environ
        },
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )


def names(folder: Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in folder.iterdir())


#: How it dies of a request; how its death is called.
DEATHS = (
    (b"segv", "killed by SIGSEGV"),
    (b"abort", "killed by SIGABRT"),
    (b"exit", "exited with status 3"),
)


@pytest.mark.parametrize("word,cause", DEATHS, ids=[word.decode() for word, _ in DEATHS])
def test_a_request_that_ends_the_process(daemon: CrashingDaemon, word: bytes, cause: str) -> None:
    """All that was served before is shown; the request itself is named and run last."""
    with daemon.client() as client:
        client.send("WRITE", b"/a\0before")
        client.send("CONTROL", b"crash\0" + word + b"\0")
        client.send("WRITE", b"/a\0behind")
        assert [client.answer() for _ in range(3)][1] == EIO
        (line,) = daemon.told(1)
    assert line.endswith(f"{RECORDED}{daemon.crashes}/recording-000001")
    assert [f"; see {daemon.crashes}" in line for line in daemon.logged(cause)] == [True]
    assert daemon.crashes.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in daemon.crashes.iterdir()] == [0o600]
    again = replay(daemon.crashes)
    assert again.returncode == 0, again.stderr
    assert b"/a before" in again.stdout and b"/a behind" not in again.stdout
    shown = (b"crash\0" + word + b"\0").hex().encode()
    said = b"the daemon died (%s) within request 3, DOM0 (ANON CONN #2): " % cause.encode()
    assert said + b"request 0 with %d bytes, %s\n" % (len(word) + 7, shown) in again.stderr
    assert again.stderr.endswith(b"it has not ended this process\n")
    # Where it does, what was printed before is there all the same.
    status = {b"segv": -signal.SIGSEGV, b"abort": -signal.SIGABRT, b"exit": 3}[word]
    dies = replay(daemon.crashes, program=PROGRAM)
    assert dies.returncode == status and dies.stdout.endswith(b" write     /a before\n")
    # The state is that without it.
    text = replay(daemon.crashes / "recording-000001", "--as", "text", program=PROGRAM)
    assert text.returncode == 0 and b'node "/a" n0 "before"' in text.stdout
    # A number is exact, whatever the turn had in it.
    until = replay(daemon.crashes, "--until", "1", "--as", "text")
    assert until.returncode == 0 and b"/a" not in until.stdout


def test_a_second_crash_behind_the_same_image(daemon: CrashingDaemon) -> None:
    """The request that was refused is refused in the recording, too."""
    with daemon.client() as client, daemon.client() as other:
        for n, asks in enumerate((client, other), 1):
            asks.ask("WRITE", b"/a\0%d" % n)
            daemon.crash(asks)
            assert asks.ask("READ", b"/a\0")[1] == b"%d" % n
            daemon.told(n)
    again = replay(daemon.crashes)
    assert again.returncode == 0, again.stderr
    assert b"within request 6, DOM0 (ANON CONN #3)" in again.stderr
    assert again.stderr.count(b"is answered EIO") == 1
    assert b"/a 2" in again.stdout
    first = replay(daemon.crashes / "recording-000001")
    assert first.returncode == 0 and b"within request 3," in first.stderr


def test_within_no_request(daemon: CrashingDaemon) -> None:
    with daemon.client() as client:
        client.ask("WRITE", b"/a\0b")
        daemon.kill_child(signal.SIGSEGV)
        assert client.ask("READ", b"/a\0")[1] == b"b"
        daemon.told(1)
    again = replay(daemon.crashes)
    assert again.returncode == 0 and b"/a b" in again.stdout, again.stderr
    assert again.stderr.endswith(b"here the daemon died (killed by SIGSEGV), within no request\n")


def test_sigkill_is_nobodys_fault(daemon: CrashingDaemon) -> None:
    """Of that there is none; of a fault behind it there is one."""
    with daemon.client() as client:
        daemon.kill_child()
        client.ask("READ", b"/\0")
        daemon.kill_child(signal.SIGBUS)
        client.ask("READ", b"/\0")
        daemon.told(1)
    (line,) = daemon.logged("killed by SIGKILL")
    assert "; see" not in line
    assert b"killed by SIGBUS" in replay(daemon.crashes).stderr


def test_there_are_three_at_most(daemon: CrashingDaemon) -> None:
    """The oldest stay; where the last one is older than a day the oldest goes."""
    with daemon.client() as client:
        for n in range(1, 6):
            if n == 5:
                long_ago = time.time() - crash.SERIES_SECONDS - 60
                os.utime(daemon.crashes / "recording-000003", (long_ago, long_ago))
            daemon.crash(client)
            client.ask("READ", b"/\0")
            daemon.told(n)
            assert names(daemon.crashes) == [
                f"recording-00000{k}" for k in ((2, 3, 4) if n == 5 else range(1, min(n, 3) + 1))
            ]
    (line,) = daemon.logged(NOT_RECORDED)
    assert line.endswith(f"{daemon.crashes} has 3 recordings already, the last one of the last day")


def test_without_values() -> None:
    """Values are x; whether one was overwritten by an equal one is known all the same."""
    daemon = CrashingDaemon({"record-values": "false"})
    try:
        with daemon.client() as client:
            for value in (b"secret", b"secret", b"sacred"):
                client.ask("WRITE", b"/a\0" + value)
            daemon.kill_child()
            client.ask("WRITE", b"/a\0sacred")
            client.ask("WRITE", b"/b\0hidden")
            daemon.crash(client)
            daemon.told(1)
        data = (daemon.crashes / "recording-000001").read_bytes()
        assert not re.search(rb"secret|sacred|hidden", data) and b"/b\0xxxxxx" in data
        again = replay(daemon.crashes, "--as", "text")
        assert again.returncode == 0 and b'"/b" n0 "xxxxxx"' in again.stdout, again.stderr
    finally:
        daemon.stop()


def test_where_it_cannot_be_written(daemon: CrashingDaemon) -> None:
    """One line, and all goes on; so it does where there is something half written."""
    daemon.crashes.write_text("not a folder")
    with daemon.client() as client:
        daemon.crash(client)
        client.ask("WRITE", b"/a\0b")
        (line,) = daemon.told(1)
        assert line.endswith(f"{NOT_RECORDED}{daemon.crashes}: File exists")
        daemon.crashes.unlink()
        daemon.crashes.mkdir()
        (daemon.crashes / "recording-000001#").write_text("half")
        daemon.crash(client)
        assert client.ask("READ", b"/a\0")[1] == b"b"
        daemon.told(2)
    assert names(daemon.crashes) == ["recording-000001"]
    assert replay(daemon.crashes).returncode == 0


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it stays, and the oldest has not given its place."""
    real = files.Writer.add

    def add(self: files.Writer, kind: bytes, body: bytes) -> None:
        if kind == files.DEATH:
            raise OSError(28, "No space left on device")
        real(self, kind, body)

    monkeypatch.setattr(files.Writer, "add", add)
    with pytest.raises(OSError, match="No space"):
        crash._write(str(tmp_path), [], (b"a", b"b", b"c"), Config())
    assert names(tmp_path) == []
    known = ["recording-000001", "recording-000002", "recording-000003"]
    for name in known:
        (tmp_path / name).touch()
    with pytest.raises(OSError, match="No space"):
        crash._write(str(tmp_path), [1, 2, 3], (b"a", b"b", b"c"), Config())
    assert names(tmp_path) == known


def test_a_writer_that_is_late() -> None:
    """The next image waits for it, but not for ever; all is served meanwhile.  What comes too late
    is told, and is not written."""
    env = {"PYXSD_SLOW_COPY": "3", "PYXSD_FULL_BYTES": "65536"}
    daemon = CrashingDaemon(env=env)
    try:
        with daemon.client() as client:
            with daemon.client():
                daemon.crash(client)
                (writer,) = [pid for pid in daemon.children() if pid != daemon.child]
                wait_for(lambda: name_of(writer) == NAME, "it has no name")
                # Nobody's socket is open there.
                assert len(found := descriptors(writer)) == 3 and "socket" not in found
            for n in range(4000):
                assert client.ask("WRITE", b"/a\0%d" % n)[1] == b"OK\0"
            (line,) = daemon.told(1)
            assert line.endswith("the next image was begun before that was copied")
            assert names(daemon.crashes) == []
            daemon.kill_child()
            assert client.ask("READ", b"/a\0")[1] == b"3999"
    finally:
        daemon.stop()


def test_a_writer_that_is_killed() -> None:
    """It is told; the next crash is recorded."""
    daemon = CrashingDaemon(env={"PYXSD_SLOW_COPY": "2"})
    try:
        with daemon.client() as client:
            daemon.crash(client)
            (writer,) = [pid for pid in daemon.children() if pid != daemon.child]
            os.kill(writer, signal.SIGKILL)
            (line,) = daemon.told(1)
            assert line.endswith(f"{LOST}the process that was to do so was killed by SIGKILL")
            daemon.crash(client)
            client.ask("READ", b"/\0")
            daemon.told(2)
        assert b"within request 3," in replay(daemon.crashes).stderr
    finally:
        daemon.stop()


def test_beside_recordings(tmp_path: Path) -> None:
    """With record-directory they lie in a folder there, which --replay of that one leaves out."""
    daemon = CrashingDaemon({"record-directory": str(tmp_path / "recorded")})
    try:
        with daemon.client() as client:
            daemon.crash(client)
            client.ask("WRITE", b"/a\0b")
            (line,) = daemon.told(1)
            assert f"{tmp_path}/recorded/crashes/recording-000001" in line
        assert daemon.end() == 0
    finally:
        daemon.stop()
    assert not daemon.crashes.exists()
    again = replay(tmp_path / "recorded")
    assert again.returncode == 0 and b"/a b" in again.stdout, again.stderr


def test_guests_on_rings() -> None:
    """A guest's request that ends the process, behind those of others."""
    with Stand(settings={"allow-debug": "true", "crash-recovery": "true"}) as stand:
        stand.program = PROGRAM
        stand.start()
        with stand.client() as client:
            domains = with_homes(stand, client, 5, 6)
            for domain in domains:
                assert domain.request(TYPES["WRITE"], b"a\0b").payload == b"OK\0"
            answer = domains[0].request(TYPES["CONTROL"], b"crash\0segv\0")
            assert (answer.type, answer.payload) == EIO
            assert domains[1].request(TYPES["READ"], b"a\0").payload == b"b"
            wait_for(lambda: RECORDED in stand.log(), "it is not told of")
        crashes = stand.root / "run" / "crashes"
        again = replay(crashes)
        assert again.returncode == 0, again.stderr
        assert re.search(rb"within request \d+, DOM5: request 0 with 11 bytes", again.stderr)
        assert b"DOM6         write     a b\n" in again.stdout
        text = replay(crashes, "--as", "text").stdout
        assert b'node "/local/domain/5/a" ' in text


#: Sizes of those that are there, of the new one, free bytes; what is said, and which stay.
ROOM = (
    ((), 100, 400, "", (1,)),
    ((), 101, 400, "are too many for a disk with 400 free", ()),
    ((100,), 100, 1 << 30, "", (1, 2)),
    ((1 << 19, 1 << 18), 1 << 18, 1 << 30, "", (1, 2, 3)),
    ((1 << 19, 1 << 18), (1 << 18) + 1, 1 << 30, "are more than record-size allows", (1, 2)),
    # The oldest would go.
    ((1 << 20, 1, 1), 100, 1 << 30, "", (2, 3, 4)),
    ((1, 1 << 20, 1), 100, 1 << 30, "are more than record-size allows", (1, 2, 3)),
)


@pytest.mark.parametrize("there,size,free,said,stay", ROOM)
def test_how_much_room_they_take(
    there: tuple[int, ...],
    size: int,
    free: int,
    said: str,
    stay: tuple[int, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, length in enumerate(there, 1):
        Path(files.path_of(str(tmp_path), number)).write_bytes(bytes(length))

    class Disk:
        """As statvfs tells of one."""

        f_bavail, f_frsize = free, 1

    monkeypatch.setattr(os, "statvfs", lambda _path: Disk)
    bodies = (bytes(size - 20), bytes(10), bytes(10))
    try:
        crash._write(str(tmp_path), list(range(1, len(there) + 1)), bodies, Config(record_size=1))
    except crash.NotRecorded as error:
        assert said and said in str(error)
    else:
        assert not said
    assert files.numbers(str(tmp_path)) == list(stay)


#: Requests begun and served as they were counted; the number of the one that it died of.
COUNTS = (
    (0, 0, 0),
    (7, 7, 0),
    (7, 6, 7),
    # Counting has begun with it, as behind a live update.
    (1001, 0, 1001),
)


@pytest.mark.parametrize("begun,served,request_", COUNTS)
def test_which_request_it_was(begun: int, served: int, request_: int) -> None:
    found = death.read(death.write(death.of("killed by SIGSEGV", begun, served)))
    assert (found.request, found.begun) == (request_, begun)


#: Of the dict, what is not as it should be.
NO_DEATHS = (
    {"cause": 1},
    {"begun": "1"},
    {"served": -1, "begun": 0},
    {"served": 4, "begun": 3},
    {"served": 1, "begun": 3},
    {"more": 1},
)


@pytest.mark.parametrize("change", NO_DEATHS, ids=repr)
def test_what_is_no_death(change: dict[str, Any]) -> None:
    from pyxsd.state import values

    row = {"cause": "killed by SIGSEGV", "begun": 3, "served": 2}
    assert death.read(values.encode(row)).request == 3
    with pytest.raises(StateError):
        death.read(values.encode({**row, **change}))
    with pytest.raises(StateError):
        death.read(b"")


GUESTS_OWN = struct.pack("=d", 4e9)  # what could be taken for a time


@pytest.mark.parametrize(
    ("notes", "wall"),
    [
        ([], 0.0),
        ([(_journal.READ, 1, GUESTS_OWN)], 0.0),
        ([(_journal.TURN, 7, struct.pack("=d", 1.5e9))], 1.5e9),
        ([(_journal.READ, 1, GUESTS_OWN), (_journal.TURN, 7, struct.pack("=d", 1.5e9))], 1.5e9),
    ],
)
def test_its_time_is_that_of_the_first_turn(
    notes: list[tuple[int, int, bytes]], wall: float
) -> None:
    """Eight bytes that a guest has sent are none."""
    journal = _journal.Journal()
    journal.record(lambda: None)
    for kind, subject, payload in notes:
        journal.note(kind, subject, 0, payload)
    assert crash._wall(journal.take()) == wall


def test_the_next_image_waits_for_no_writer_that_has_failed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    released: list[bool] = []
    memory: Any = SimpleNamespace(release=lambda: released.append(True))
    with pytest.raises(crash.NotRecorded, match="Not a directory"):
        crash.record(memory, (b"", b""), "", str(tmp_path / "file" / "crashes"), Config())
    assert released == [True]
