# SPDX-License-Identifier: LGPL-2.1-or-later
"""`live-update` against the real daemon: the dialogue, and everything that can go wrong in it.

Whatever goes wrong, the old daemon goes on: it serves, it accepts, it has no descriptor and no
child more than before, and the answer says why.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.update.program import Process, Program
from tests.clients.conftest import TOOLS, require
from tests.clients.daemon import Client, wait_for
from tests.update.kit import (
    BUSY,
    OK,
    UpdatedDaemon,
    control,
    descriptors,
    is_gone,
    outcome,
    program,
    update,
    wait_for_descriptors,
)
from tests.world import packet


@pytest.fixture
def daemon() -> Iterator[UpdatedDaemon]:
    """A daemon with a node, whose log has no complaint at the end but of updates that failed."""
    running = UpdatedDaemon()
    try:
        with running.client() as client:
            assert client.ask("WRITE", b"/fake\0fake")[1] == OK
        yield running
        assert running.answers() or not running.pid_file.exists()
        # (What programs that fail have to say goes to the daemon's standard error.)
        for line in running.log():
            assert "error|" not in line and "Traceback" not in line, line
    finally:
        running.stop()


def children(pid: int) -> str:
    """The processes that it has started and not waited for."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def held(daemon: UpdatedDaemon, client: Client) -> list[str]:
    """The daemon's descriptors, when it has closed those of clients that are gone."""
    for _ in range(3):
        assert client.ask("READ", b"/fake\0")[1] == b"fake"
    return descriptors(daemon.pid)


def goes_on(daemon: UpdatedDaemon, client: Client, before: list[str], pid: int) -> None:
    """The daemon is the same process as before, and nothing of the attempt is left."""
    assert daemon.pid == pid
    assert client.ask("READ", b"/fake\0")[1] == b"fake"
    with daemon.client() as other:
        assert other.ask("WRITE", b"/after\0v")[1] == OK
    wait_for_descriptors(pid, before)
    assert children(pid) == ""
    assert control(client).endswith(b"\n\0") and b"none under way" in control(client)


def test_an_update(daemon: UpdatedDaemon) -> None:
    """Another process serves, the same connection goes on, and who asks next is told."""
    with daemon.client() as client:
        assert client.ask("WATCH", b"/fake\0t\0")[1] == OK
        assert client.event() == b"/fake\0t\0"
        pid = daemon.pid
        assert control(client, "-f", program(daemon.root)) == OK
        assert control(client, "-s", "-t", "9") == BUSY
        assert outcome(client) == b"OK"
        assert daemon.pid != pid
        assert daemon.process.wait(30) == 0
        assert client.ask("WRITE", b"/fake\0x")[1] == OK
        assert client.event() == b"/fake\0t\0"
        assert b"process %d" % daemon.pid in control(client)
    assert not (daemon.run / "db").exists()
    daemon.end_all()
    assert (daemon.run / "db").exists()


def test_the_access_log_stays_on_or_off(daemon: UpdatedDaemon) -> None:
    """As CONTROL log has switched it; nobody connects anew by an update."""
    with daemon.client() as client:
        for n, word in enumerate((b"off", b"on", b"on", b"off")):
            assert client.ask("CONTROL", b"log\0%s\0" % word)[0] == 0
            update(client)
            assert client.ask("CONTROL", b"log\0")[1].rstrip(b"\0\n").endswith(word)
            client.ask("WRITE", b"/round/%d\0v" % n)
        # Written by now: the last process but one has written all before it ended.
        update(client)
        text = daemon.access_log_file.read_text()
        assert [f"/round/{n}" in text for n in range(4)] == [False, True, True, False]
        assert "newconn" not in text.partition("/round/1")[2]


def test_a_log_that_cannot_be_opened_now(daemon: UpdatedDaemon) -> None:
    """Where CONTROL logfile has sent the log is no folder any more: the update goes well, and the
    log goes on when there is one again."""
    folder = daemon.root / "logs"
    folder.mkdir()
    with daemon.client() as client:
        assert client.ask("CONTROL", b"logfile\0%s\0" % bytes(folder / "log"))[1] == OK
        (folder / "log").unlink()
        folder.rmdir()
        pid = daemon.pid
        update(client, program(daemon.root))
        assert daemon.pid != pid
        folder.mkdir()

        def told() -> bool:
            client.ask("CONTROL", b"memreport\0")
            return (folder / "log").exists() and "resident: " in (folder / "log").read_text()

        wait_for(told, "nothing is logged")


def test_a_configuration_that_has_changed_since_the_check(daemon: UpdatedDaemon) -> None:
    """What is wrong with it stands in the log."""
    with daemon.client() as client:
        assert control(client, "-f", program(daemon.root)) == OK
        with daemon.config.open("a") as file:
            file.write("quota-maxwatc = 1\n")
        assert outcome(client) == b"OK"
    fault = "unknown key quota-maxwatc, did you mean quota-maxwatch?"
    wait_for(lambda: any(fault in line for line in daemon.log()), "it is not told")


def test_a_mistake_in_the_configuration(daemon: UpdatedDaemon) -> None:
    """It would be a new one, so the program is refused, and the first mistake is told."""
    with daemon.config.open("a") as file:
        file.write("quota-maxwatc = 1\n")
    with daemon.client() as client:
        told = control(client, "-f", program(daemon.root))
        assert re.search(rb"exited with code 2: config: .*: unknown key quota-maxwatc, did", told)
        assert daemon.answers()


def test_a_program_is_checked_once(daemon: UpdatedDaemon) -> None:
    """With -f: what it is, whether it would start, and by a state that it writes out again; then it
    takes over at once."""
    path, starts = daemon.root / "counted", daemon.root / "starts"
    path.write_text(f'#!/bin/sh\necho start >>{starts}\nexec {program(daemon.root)} "$@"\n')
    path.chmod(0o755)
    with daemon.client() as client:
        assert control(client, "-f", str(path)) == OK
        assert starts.read_text().count("start") == 3
        update(client)
        assert starts.read_text().count("start") == 4


def test_to_its_own_program_again_and_again(daemon: UpdatedDaemon) -> None:
    """Without -f, and with the same descriptors after each."""
    with daemon.client() as client:
        update(client)
        before = held(daemon, client)
        for _ in range(3):
            update(client)
        wait_for_descriptors(daemon.pid, before)


def test_the_tool(daemon: UpdatedDaemon) -> None:
    """Debian's xenstore-control, which sends -f, -c and -s one after the other."""
    found = sorted(Path("/").glob(f"{TOOLS[1:]}/xenstore-control"))
    if not found:
        require("xenstore-control is not installed")
    pid = daemon.pid
    done = subprocess.run(
        [found[-1], "live-update", "-c", "--no-access-log", program(daemon.root)],
        env=daemon.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert daemon.pid != pid
    with daemon.client() as client:
        assert b"--no-access-log" in control(client)
    done = subprocess.run(
        [found[-1], "live-update", "/bin/false"],
        env=daemon.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "exited with code 1" in done.stdout


#: Words and the answer (a pattern for the whole), on a daemon that is not being updated.
ANSWERS = (
    (["-a"], rb"OK\0"),
    (["-x", "y"], rb"Unknown arguments: -x,y"),
    (["-f"], rb"Unknown arguments: -f"),
    (["-f", "relative"], rb"relative: not an absolute path"),
    (["-f", "/none/such"], rb"/none/such: No such file or directory"),
    (["-f", "/etc"], rb"/etc: not a program"),
    (["-f", "/etc/passwd"], rb"/etc/passwd: not a program"),
    (["-f", "/bin/true"], rb"/bin/true is no xenstored: .*"),
    (["-f", "/bin/false"], rb"Command '/bin/false --help' exited with code 1"),
    (
        ["-c", "--bogus"],
        rb"Command '.* --bogus --help' exited with code 2: pyxsd: unknown option '--bogus'\.",
    ),
    (["-s", "-t", "x"], rb"live-update -s: wrong argument 'x'; option '-t' expects an integer\."),
    (
        ["-s", "-t", "\u00b2"],
        b"live-update -s: wrong argument '\\xc2\\xb2'; option '-t' expects an integer\\.",
    ),
    (["-c", "--bogus" + "y" * 4000], rb"Command '.*y{3000}.{0,900}"),
    (["-s", "-z"], rb"live-update -s: unknown option '-z'\."),
)


def test_answers(daemon: UpdatedDaemon) -> None:
    with daemon.client() as client:
        before = held(daemon, client)
        for words, pattern in ANSWERS:
            answer = control(client, *words)
            assert re.fullmatch(pattern, answer, re.DOTALL), (words, answer)
        assert b"bogus" not in control(client), "arguments that were refused are kept"
        goes_on(daemon, client, before, daemon.pid)


def test_a_program_that_writes_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at what it has written takes what a pipe holds, and ends: others are served."""
    process = Process(Program("/bin/true"), os.environ, converse=False)
    looks: list[int] = []

    def endless(fd: int, n: int) -> bytes:
        looks.append(fd)
        assert len(looks) <= 2
        return b"x" * n

    try:
        monkeypatch.setattr(os, "read", endless)
        for _ in range(2):
            assert process.output() == "x" * 65536
    finally:
        monkeypatch.undo()
        process.kill()


@pytest.mark.parametrize("name", ["oxenstored", "xenstored"])
def test_other_xenstoreds(daemon: UpdatedDaemon, name: str) -> None:
    """On a host without Xen none of them can take over; tests/switch has those with it."""
    found = sorted(Path("/").glob(f"{TOOLS[1:]}/{name}"))
    if not found:
        require(f"{name} is not installed")
    with daemon.client() as client:
        told = control(client, "-f", str(found[-1]))
        if name == "xenstored":
            assert told == OK
            assert b"domain 0 has no ring" in control(client, "-s")
        else:  # Debian's does not even start where it may not raise the file limit
            assert re.search(rb"exited with code 2(: Fatal error: .*setrlimit.*)?\Z", told)
        assert daemon.answers()


#: (point, fault), and what the answer to -f, or that to -s, says.
FAULTS = (
    ("help", "hangs", b"did not end within 15 seconds"),
    ("help", "exits", b"exited with code 3"),
    ("help", "is killed", b"was killed by signal 9"),
    ("start", "hangs", b"did not say `ready` within 15 seconds"),
    ("start", "exits", b"exited with code 3 before it said `ready`"),
    ("start", "says nonsense", b"says `nonsense` where `ready` was expected"),
    ("start", "closes", b"before it said `ready`"),
    ("start", "gives", b"exited with code 3 before it said `written`"),
    ("try", "hangs", b"did not say `written` within 3 seconds"),
    ("try", "exits", b"exited with code 3 before it said `written`"),
    ("try", "says nonsense", b"says `nonsense` where `written` was expected"),
    ("try", "writes nothing", b"the program has written no state"),
    ("try", "writes what it can cut", b"no state: a state that is not sealed"),
    ("try", "writes no file", b"the program has written no state: "),
    ("try", "writes two", b"the program has written no state"),
    ("take", "gives", b"exited with code 3 before it said `taken`"),
    ("take", "hangs", b"did not say `built` within 3 seconds"),
    ("take", "exits", b"exited with code 3 before it said `built`"),
    ("take", "is killed", b"was killed by signal 9 before it said `built`"),
    ("take", "says nonsense", b"says `nonsense` where `built` was expected"),
    ("go", "hangs", b"did not say `taken` within 3 seconds"),
    ("go", "exits", b"exited with code 3 before it said `taken`"),
    ("go", "closes", b"before it said `taken`"),
    # Its pid stands in the pid file then.
    ("taken", "hangs", b"did not say `taken` within 3 seconds"),
    ("taken", "exits", b"exited with code 3 before it said `taken`"),
)


@pytest.mark.parametrize("point,fault,told", FAULTS, ids=[f"{p} {f}" for p, f, _ in FAULTS])
def test_a_program_that_fails(daemon: UpdatedDaemon, point: str, fault: str, told: bytes) -> None:
    pid = daemon.pid
    with daemon.client() as client, daemon.client() as other:
        before = held(daemon, client)
        answer = control(client, "-f", program(daemon.root, point, fault))
        if point in ("take", "go", "taken"):
            assert answer == OK
            # What is under way meanwhile is answered once, by the old daemon.
            other.send("WRITE", b"/half\0way")
            answer = outcome(client)
            assert other.answer() == (11, OK)
        assert told in answer, answer
        goes_on(daemon, client, before, pid)
        # And the next one works.
        update(client, program(daemon.root))
        assert client.ask("READ", b"/fake\0")[1] == b"fake"


def test_a_program_that_lies_about_its_state(daemon: UpdatedDaemon) -> None:
    """It has written another path than it was given."""
    with daemon.client() as client:
        assert client.ask("WATCH", b"/fake\0t\0")[1] == OK
        client.event()
        before = held(daemon, client)
        answer = control(client, "-f", program(daemon.root, "try", "lies"))
        assert b"another state than it was given: offset" in answer
        goes_on(daemon, client, before, daemon.pid)


@pytest.mark.parametrize("words", [(), ("-t", "0"), ("-t", "60", "-F")])
def test_open_transactions_travel(daemon: UpdatedDaemon, words: tuple[str, ...]) -> None:
    """One commits, one is in conflict, one is given up; their numbers count on."""
    with daemon.client() as client, daemon.client() as other:
        assert other.ask("WRITE", b"/seen\0old")[1] == OK
        numbers = [int(other.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0")) for _ in range(3)]
        good, late, dropped = numbers
        for number in (good, dropped):
            assert other.ask("WRITE", b"/in%d\0v" % number, number)[1] == OK
        assert other.ask("READ", b"/seen\0", late)[1] == b"old"
        assert other.ask("WRITE", b"/in%d\0v" % late, late)[1] == OK
        assert client.ask("WRITE", b"/seen\0new")[1] == OK
        pid = daemon.pid
        update(client, "", *words)
        assert daemon.pid != pid
        assert other.ask("READ", b"/in%d\0" % good, good)[1] == b"v"
        assert other.ask("READ", b"/in%d\0" % good) == (16, b"ENOENT\0")
        assert other.ask("TRANSACTION_END", b"T\0", good)[1] == OK
        assert other.ask("TRANSACTION_END", b"T\0", late) == (16, b"EAGAIN\0")
        assert other.ask("TRANSACTION_END", b"F\0", dropped)[1] == OK
        assert client.ask("READ", b"/in%d\0" % good)[1] == b"v"
        assert client.ask("READ", b"/in%d\0" % late) == (16, b"ENOENT\0")
        assert client.ask("READ", b"/in%d\0" % dropped) == (16, b"ENOENT\0")
        assert int(other.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0")) > max(numbers)


def test_a_listing_in_the_middle_goes_on(daemon: UpdatedDaemon) -> None:
    """The count that says whether the directory has changed is the same."""
    with daemon.client() as client:
        for n in range(400):
            assert client.ask("MKDIR", b"/many/name-of-some-length-%03d\0" % n)[1] == OK
        first = client.ask("DIRECTORY_PART", b"/many\x000\0")[1]
        count, names = first.split(b"\0", 1)
        update(client)
        assert client.ask("DIRECTORY_PART", b"/many\0%d\0" % len(names))[1].split(b"\0")[0] == count
        assert client.ask("MKDIR", b"/many/more\0")[1] == OK
        assert client.ask("DIRECTORY_PART", b"/many\0%d\0" % len(names))[1].split(b"\0")[0] != count


def test_events_that_wait_travel(daemon: UpdatedDaemon) -> None:
    """More than find room in the output and behind the watch: each comes, once and in order, and
    who caused those that found no room is served again when they have gone."""
    token = b"t" * 1000
    sent = 3000
    with daemon.client() as client, daemon.client() as slow, daemon.client() as writer:
        assert slow.ask("WATCH", b"/w\0" + token + b"\0")[1] == OK
        slow.event()
        writer.sock.sendall(
            b"".join(packet("WRITE", b"/w/%05d\0v" % n, req_id=n) for n in range(sent))
        )
        # It is not served any more once it is to pay for what found no room.
        for n in range(2049):
            assert writer.packet() == (11, n, 0, OK)
        update(client)
        for n in range(sent):
            assert slow.packet()[3] == b"/w/%05d\0%s\0" % (n, token)
        for n in range(2049, sent):
            assert writer.packet() == (11, n, 0, OK)
        for each in (slow, writer):
            assert each.ask("READ", b"/fake\0")[1] == b"fake"


def test_counters_and_numbers_go_on(daemon: UpdatedDaemon) -> None:
    """Of sockets, as the access log has them, and a quota that was set."""
    with daemon.client() as client:
        for _ in range(20):
            daemon.client().close()
        assert client.ask("CONTROL", b"quota\0set\0watches\x0077\0")[1] == OK
        quotas = client.ask("CONTROL", b"quota\0")[1]
        update(client)
        assert client.ask("CONTROL", b"quota\0")[1] == quotas
        with daemon.client() as late:
            assert late.ask("WRITE", b"/late\0v")[1] == OK
            update(client)  # so that the lines are written
        lines = [
            line for line in daemon.access_log_file.read_text().splitlines() if "newconn" in line
        ]
        assert len(lines) > 20 and len(set(map(_who, lines))) == len(lines), lines


def _who(line: str) -> str:
    """Whom a line of the access log is about."""
    return line[line.index("(") : line.index(")")]


def test_asked_twice_and_called_off(daemon: UpdatedDaemon) -> None:
    """While one is under way others are told so; -a ends it, from any connection."""
    with daemon.client() as client, daemon.client() as other, daemon.client() as third:
        third.ask("TRANSACTION_START", b"\0")
        pid, before = daemon.pid, held(daemon, client)
        assert control(client, "-s") == BUSY
        assert control(other, "-s", "-t", "1", "-F") == BUSY
        assert control(other, "-f", program(daemon.root)) == b"a live update is under way"
        assert b"under way" in control(other)
        wait_for(lambda: children(pid), "no program was started")
        assert control(other, "-a") == OK
        assert daemon.pid == pid
        goes_on(daemon, client, before, pid)


@pytest.mark.parametrize("point", ["help", "start", "try"])
def test_a_check_that_is_called_off(daemon: UpdatedDaemon, point: str) -> None:
    """By another connection, while the program hangs; who asked for the check is told."""
    with daemon.client() as client, daemon.client() as other:
        pid, before = daemon.pid, held(daemon, client)
        words = ["live-update", "-f", program(daemon.root, point, "hangs")]
        client.send("CONTROL", "\0".join(words).encode() + b"\0")
        # Its next request is served behind the check, and nobody else waits for it.
        client.send("READ", b"/fake\0")
        wait_for(lambda: children(pid), "no program was started")
        assert other.ask("READ", b"/fake\0")[1] == b"fake"
        assert control(other, "-s") == b"a live update is under way"
        assert control(other, "-a") == OK
        assert client.answer() == (0, b"live update was called off")
        assert client.answer() == (2, b"fake")
        goes_on(daemon, client, before, pid)


@pytest.mark.parametrize("when", ["check", "update"])
def test_the_asking_client_goes(daemon: UpdatedDaemon, when: str) -> None:
    """As with oxenstored that changes nothing: the next client is told."""
    pid = daemon.pid
    path = program(daemon.root)
    client = daemon.client()
    if when == "update":
        assert control(client, "-f", path) == OK
    words = ["live-update", "-f", path] if when == "check" else ["live-update", "-s"]
    client.send("CONTROL", "\0".join(words).encode() + b"\0")
    wait_for(lambda: children(pid) or daemon.pid != pid, "no program was started")
    client.close()
    with daemon.client() as other:
        if when == "check":
            wait_for(lambda: path.encode() in control(other), "the program was not taken")
        assert outcome(other) == b"OK"
        assert daemon.pid != pid


def test_sigterm_while_a_program_hangs(daemon: UpdatedDaemon) -> None:
    """The daemon ends, and so does the program."""
    pid = daemon.pid
    with daemon.client() as client:
        words = ["live-update", "-f", program(daemon.root, "start", "hangs")]
        client.send("CONTROL", "\0".join(words).encode() + b"\0")
        wait_for(lambda: children(pid), "no program was started")
        child = int(children(pid).split()[0])
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: daemon.process.poll() is not None, "it does not end")
        wait_for(lambda: is_gone(child), "the program stays")


def test_sockets_keep_their_bytes(daemon: UpdatedDaemon) -> None:
    """Half a request, and replies that the client has not taken."""
    with daemon.client() as client, daemon.client() as half, daemon.client() as slow:
        half.sock.sendall(b"\2\0\0\0\5\0")
        for n in range(200):
            assert client.ask("WRITE", b"/many/%d\0" % n)[1] == OK
        # More replies than the kernel keeps for one who does not read.
        for _ in range(1000):
            slow.send("DIRECTORY", b"/many\0")
        update(client)
        half.sock.sendall(b"\0\0\0\0\0\0\6\0\0\0" + b"/fake\0")
        assert half.packet() == (2, 5, 0, b"fake")
        for n in range(1000):
            type_, number, _, payload = slow.packet()
            assert (type_, number, payload.count(b"\0")) == (1, n + 1, 200)
