# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real daemon that records into a directory, and `pyxsd --replay` of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.clients.daemon import PROJECT, Client, Daemon, wait_for
from tests.domains.standin import DEAD, SHUTDOWN, Stand, home, introduce, works
from tests.world import TYPES, packet

KEPT = ("PATH", "PYXSD_MUTANTS")  # of the environment
ASKED = 1  # requests of Daemon.wait_ready()
PERSISTED = (b"store,", b"watch,")


def replay(
    directory: Path | str, *more: str, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """The command, without any environment of the daemon."""
    return subprocess.run(
        [sys.executable, "-m", "pyxsd", "--replay", str(directory), *more],
        env={
            "PYTHONPATH": str(PROJECT),
            **{name: os.environ[name] for name in KEPT if name in os.environ},
        },
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("recording-*"))


def is_gone(client: Client, domid: int) -> bool:
    """Is no domain with this domid introduced?"""
    return client.ask("IS_DOMAIN_INTRODUCED", b"%d\0" % domid)[1] == b"F\0"


def busy(client: Client, number: int) -> None:
    """Transactions that meet those of others, watches, directories, requests that fail."""
    client.ask("WATCH", b"/busy\0t%d\0" % number)
    for n in range(60):
        tx = int(client.ask("TRANSACTION_START", b"\0")[1][:-1])
        client.ask("READ", b"/busy/count\0", tx)
        client.ask("WRITE", b"/busy/count\0%d" % n, tx)
        client.ask("TRANSACTION_END", b"T\0", tx)
        client.ask("WRITE", b"/busy/%d/%d\0x" % (number, n % 7))
        client.ask("DIRECTORY_PART", b"/busy\0000\0")
        client.ask("RM", b"/busy/%d\0" % (n % 5))
        client.ask("READ", b"/none\0")


def rough(path: Path) -> None:
    """Clients that ask for much at once and read late or never, that go within a request, that
    close one side."""
    for n in range(12):
        client = Client(path)
        client.sock.sendall(
            b"".join(packet("WRITE", b"/rough/%d\0" % (i % 5) + b"v" * i) for i in range(200))
        )
        if n % 4 == 0:
            for _ in range(200):
                assert client.answer()[0] == TYPES["WRITE"]
        elif n % 4 == 1:
            client.sock.sendall(packet("WRITE", b"/rough/half\0" + b"v" * 100)[:50])
        elif n % 4 == 2:
            client.sock.shutdown(socket.SHUT_WR)
            for _ in range(200):
                assert client.answer()[0] == TYPES["WRITE"]
        else:
            # More events than its socket takes.
            client.send("WATCH", b"/\0everything\0")
            client.sock.sendall(
                b"".join(packet("WRITE", b"/rough/%d/%d\0v" % (n, i)) for i in range(1500))
            )
        client.close()


def test_a_host_is_run_again() -> None:
    """Guests on rings come, work, shut down and die, clients compete, the daemon ends: the replay
    has the same store, and says so with exit status 0."""
    with Stand() as stand:
        directory = stand.root / "recorded"
        stand.settings = {
            "record-directory": str(directory),
            "ring-scan-interval": "0",
            "test-eagain": "true",
        }
        stand.start()
        with stand.client() as client:
            domains = [stand.host.create(domid) for domid in (5, 6, 7)]
            for domain in domains:
                assert introduce(client, domain) == b"OK\0"
                home(client, domain.domid)
                works(domain, client)
            assert client.ask("CONTROL", b"memreport\0")[1] == b"OK\0"
            assert client.ask("CONTROL", b"logfile\0/no/such/folder\0")[1].startswith(b"cannot")
            for word in (b"off", b"on"):
                client.ask("CONTROL", b"log\0" + word + b"\0")
                assert client.ask("CONTROL", b"log\0")[1] == b"Log is " + word + b"\n\0"
            threads = []
            for number in range(4):
                other = stand.client()
                threads.append(threading.Thread(target=busy, args=(other, number)))
                threads[-1].start()
            threads.append(threading.Thread(target=rough, args=(stand.peer.socket,)))
            threads[-1].start()
            for _ in range(30):
                works(domains[0], client)
                works(domains[1], client)
            for thread in threads:
                thread.join()
            client.ask("WATCH", b"@releaseDomain\0t\0")
            stand.host.set_state(5, SHUTDOWN, 0)
            assert client.event() == b"@releaseDomain\0t\0"
            stand.host.set_state(6, DEAD, 0)
            wait_for(partial(is_gone, client, 6), "it lives")
            assert client.ask("RELEASE", b"7\0")[1] == b"OK\0"
            crowd = [stand.host.create(domid) for domid in range(100, 180)]
            for domain in crowd:
                assert introduce(client, domain) == b"OK\0"
            for domain in crowd:
                stand.host.set_state(domain.domid, DEAD, 0)
            for domain in crowd:
                wait_for(partial(is_gone, client, domain.domid), "it lives")
            client.ask("WRITE", b"/last\0\0\xff")
            assert b"recording-000001" in client.ask("CONTROL", b"record\0")[1]
        stand.terminate()
        assert [path.stat().st_mode & 0o777 for path in files(directory)] == [0o600]
        stored = (stand.root / "run" / "db").read_bytes().splitlines()
        again = replay(directory, "--as", "db")
        assert again.returncode == 0, again.stderr
        shown = again.stdout.splitlines()
        for kind in PERSISTED:
            assert sorted(
                line for line in shown if line.startswith(kind) and b"/" in line
            ) == sorted(line for line in stored if line.startswith(kind) and b"/" in line)
        assert sum(line.startswith(b"store,") for line in shown) > 10


@pytest.fixture(scope="module", name="made")
def a_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of 40 writes and 10 reads, one at a time, by a client that stays."""
    directory = tmp_path_factory.mktemp("recordings")
    with Daemon({"record-directory": str(directory / "new")}) as daemon:
        with Client(daemon.socket) as client:
            for n in range(40):
                client.ask("WRITE", b"/n%d\0%d" % (n % 10, n))
            for n in range(10):
                client.ask("READ", b"/n%d\0" % n)
            daemon.process.terminate()
            assert daemon.process.wait(30) == 0
    return directory / "new"


def test_requests_are_shown_one_by_one(made: Path) -> None:
    again = replay(made)
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert [line.split(b"write")[1].strip() for line in lines if b" write " in line] == [
        b"/n%d %d" % (n % 10, n) for n in range(40)
    ]
    assert all(re.match(rb"\[\d{8}T\d\d:\d\d:\d\d\.\d{3}Z\]", line) for line in lines)
    assert sum(b" read " in line for line in lines) == 10
    assert b"51 requests were run again, up to number 51 at " in again.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_nowhere_to_write(made: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        again = replay(made, stdout=full)
    finally:
        os.close(full)
    assert again.returncode == 1
    assert again.stderr.endswith(b"\npyxsd: standard output: No space left on device\n")


@pytest.mark.parametrize("n", [1, 17, 40])
def test_until_a_request(made: Path, n: int) -> None:
    again = replay(made, "--until", str(ASKED + n), "--as", "text")
    assert again.returncode == 0, again.stderr
    value = (n - 1) % 10
    assert b'node "/n%d" n0 "%d"\n' % (value, n - 1) in again.stdout
    if n < 40:
        assert b' "%d"\n' % n not in again.stdout


@pytest.mark.parametrize("end", ["999999", "29990101T00:00:00Z"])
def test_until_what_never_came(made: Path, end: str) -> None:
    again = replay(made, "--until", end)
    assert again.returncode == 0 and again.stderr.endswith(b", where the recording ends\n")
    assert b"where the recording ends" not in replay(made).stderr


def test_the_newest_recording_is_damaged(made: Path, tmp_path: Path) -> None:
    """The one before it is run; that it is not the newest is said, and the exit status is 1."""
    for path in files(made):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "recording-000901").write_bytes(b"x" * 500)
    again = replay(tmp_path)
    assert again.returncode == 1 and b"recording-000901: no recording\n" in again.stderr
    assert again.stdout == replay(made).stdout


def test_until_a_time(made: Path) -> None:
    shown = re.findall(rb"\[(\S+)\] .* write ", replay(made).stdout)
    first = replay(made, "--until", shown[0].decode())
    assert first.returncode == 0 and first.stdout.count(b" write ") >= 1
    before = replay(made, "--until", "20200101T00:00:00Z")
    assert before.returncode == 1 and b"begin later" in before.stderr
    wrong = replay(made, "--until", "tomorrow")
    assert wrong.returncode == 1 and b"neither a number" in wrong.stderr


def test_a_damaged_recording(made: Path, tmp_path: Path) -> None:
    """What is whole is run; then the place is said, and the exit status is 1."""
    data = files(made)[0].read_bytes()
    copy = tmp_path / "recording-000001"
    for changed, said in (
        (data[:-1], b"1 bytes are missing"),
        (data[:-1] + bytes([data[-1] ^ 1]), b"the checksum is wrong"),
        (data[:20], b"the file ends within its head"),
        (data[:16], b"the recording is empty"),
        (b"x" + data[1:], b"no recording"),
        (data[:8] + b"\xff" + data[9:], b"version 255"),
        (b"", b"no recording"),
    ):
        copy.write_bytes(changed)
        again = replay(tmp_path)
        assert again.returncode == 1
        assert said in again.stderr and b"recording-000001: " in again.stderr, again.stderr
        assert b"Traceback" not in again.stderr


def test_no_recordings(tmp_path: Path) -> None:
    assert b"no recording in it" in replay(tmp_path).stderr
    assert b"No such file" in replay(tmp_path / "none").stderr
    assert replay(tmp_path).returncode == 1


def test_switched_on_and_off(tmp_path: Path) -> None:
    """Each time a recording of its own; the first was begun at the start."""
    directory = tmp_path / "recorded"
    with Daemon({"record-directory": str(directory)}) as daemon, Client(daemon.socket) as client:

        def says(word: bytes) -> bool:
            return client.ask("CONTROL", b"record\0")[1].startswith(b"Recording is " + word)

        assert says(b"on, ")
        client.ask("WRITE", b"/one\0")
        assert client.ask("CONTROL", b"record\0off\0")[1] == b"OK\0"
        wait_for(lambda: says(b"off"), "it goes on")
        client.ask("WRITE", b"/two\0")
        assert client.ask("CONTROL", b"record\0on\0")[1] == b"OK\0"
        wait_for(lambda: says(b"on"), "it does not begin")
        client.ask("WRITE", b"/three\0")
        daemon.process.terminate()
        assert daemon.process.wait(30) == 0
    assert len(files(directory)) == 2
    one = replay(directory, "--until", str(ASKED + 2))
    assert b"/one" in one.stdout and b"/two" not in one.stdout
    last = replay(directory)
    assert b"/three" in last.stdout and b"/two" not in last.stdout
    assert b'"/two"' in replay(directory, "--as", "text").stdout
    # Up to the last request before a recording began it is that one, with nothing to run.
    ran = re.search(rb"(\d+) requests were run again, up to number (\d+)", last.stderr)
    assert ran is not None
    none = replay(directory, "--until", str(int(ran[2]) - int(ran[1])))
    assert b"recording-000002: 0 requests were run again" in none.stderr


def test_without_a_directory() -> None:
    with Daemon() as daemon, Client(daemon.socket) as client:
        for word in (b"", b"on\0", b"off\0"):
            assert (
                client.ask("CONTROL", b"record\0" + word)[1]
                == b"record-directory is not configured\0"
            )


def serves_and_complains(daemon: Daemon, complaint: str) -> None:
    """It has said why it does not record, and goes on."""
    try:
        with Client(daemon.socket) as client:
            assert client.ask("WRITE", b"/a\0b")[1] == b"OK\0"
            assert client.ask("READ", b"/a\0")[1] == b"b"
            assert client.ask("CONTROL", b"record\0")[1] == b"Recording is off\n\0"
        assert daemon.end() == 0
        assert complaint in daemon.log_file.read_text()
        daemon.check_logs("recording has ended: ")
    finally:
        daemon.stop()


@pytest.mark.parametrize("where", ["/proc/pyxsd", "/dev/null/x"])
def test_a_directory_that_cannot_be_made(where: str) -> None:
    serves_and_complains(
        Daemon({"record-directory": where}), f"recording has ended: cannot record into {where}: "
    )


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """No file may have more than 400 KiB: what was written before that can be run again."""
    directory = tmp_path / "recorded"
    daemon = Daemon({"record-directory": str(directory)}, prefix=("prlimit", "--fsize=409600"))
    with Client(daemon.socket) as client:
        for n in range(300):
            client.ask("WRITE", b"/n\0%d" % n + b"v" * 2000)
        wait_for(
            lambda: client.ask("CONTROL", b"record\0")[1] == b"Recording is off\n\0",
            "it does not end",
        )
    serves_and_complains(daemon, "recording-000001: File too large")
    again = replay(directory, "--as", "text")
    assert again.returncode == 0 and b"vvvvvv" in again.stdout


def test_all_recordings_together_are_bounded(tmp_path: Path) -> None:
    """1 MiB: the oldest go; the last one alone says how the state is now."""
    directory = tmp_path / "recorded"
    with Daemon({"record-directory": str(directory), "record-size": "1"}) as daemon:
        with Client(daemon.socket) as client:
            value = b"v" * 2000
            for n in range(1500):
                client.ask("WRITE", b"/n%d\0" % (n % 3) + value + b"%d" % n)
            daemon.process.terminate()
            assert daemon.process.wait(30) == 0
    left = files(directory)
    assert len(left) >= 2 and left[0].name != "recording-000001"
    # The present one is looked at each time that 64 KiB of journal are there.
    assert sum(path.stat().st_size for path in left) < (1 << 20) + (1 << 19)
    again = replay(directory, "--as", "text")
    assert again.returncode == 0 and again.stdout.count(b"vvvv1499") == 1
