# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real daemon with crash-recovery = true, from outside: it looks like one without."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd.keeper import keeping
from pyxsd.keeper.keeper import End
from pyxsd.keeper.report import STARTING
from pyxsd.keeper.witness import NAME
from pyxsd.system.background import STATUS_FATAL
from pyxsd.system.configuration import Config
from tests.clients.daemon import DEADLINE, PROJECT, wait_for
from tests.keeper import refuse
from tests.update.kit import (
    OK,
    UpdatedDaemon,
    control,
    descriptors,
    is_gone,
    program,
    update,
    wait_for_descriptors,
)
from tests.world import packet

ON = {"crash-recovery": "true"}
#: What stands in the log of one that has died and come back.
RECOVERED = "crash recovery: the daemon was "


def name_of(pid: int) -> str:
    """Of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class KeptDaemon(UpdatedDaemon):
    """One that may be killed.  pid: the keeper's."""

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__({**ON, **(settings or {})}, **options)

    @property
    def child(self) -> int:
        """The daemon proper; 0 where there is none at the moment."""
        # Who writes the recording of a crash is made behind the next child, and has a name.
        found = [pid for pid in self.children() if name_of(pid) != NAME]
        return found[0] if found else 0

    def children(self) -> list[int]:
        """All of the keeper's, in the order in which they were made."""
        pid = self.pid
        try:
            words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return []
        return [int(word) for word in words]

    def kill_child(self, number: int = signal.SIGKILL) -> int:
        """It dies; its pid."""
        pid = int(wait_for(lambda: self.child, "no child"))
        os.kill(pid, number)
        wait_for(lambda: self.child not in (0, pid), "no other child")
        return pid

    def logged(self, text: str) -> list[str]:
        """The lines with that text."""
        return [line for line in self.log() if text in line]

    def stop(self) -> None:
        """Whoever is there ends."""
        try:
            pid, child = self.pid, self.child
            os.kill(pid, signal.SIGKILL)
            if child:
                os.kill(child, signal.SIGKILL)
        except (OSError, ValueError):
            pass
        super().stop()


@pytest.fixture
def daemon() -> Iterator[KeptDaemon]:
    """One with a node."""
    running = KeptDaemon()
    try:
        with running.client() as client:
            assert client.ask("WRITE", b"/fake\0fake")[1] == OK
        yield running
        for line in running.log():
            assert "Traceback" not in line, line
        assert "Traceback" not in running.output()
    finally:
        running.stop()


def test_who_is_who(daemon: KeptDaemon) -> None:
    """The process that was started is the one of the pid file; its child has the same descriptors,
    the same oom_score_adj, and serves."""
    assert daemon.pid == daemon.process.pid
    child = daemon.child
    # Each opens a file for a moment now and then, which the other has for that moment, too.
    wait_for(
        lambda: descriptors(daemon.pid) == descriptors(child), "the descriptors are not the same"
    )
    with daemon.client() as client:
        assert b"process %d\n" % child in control(client)
        assert b"by process %d, 0 deaths" % daemon.pid in control(client)


def test_the_score_of_the_keeper_is_the_childs(daemon: KeptDaemon) -> None:
    """A start script sets it for the process of the pid file, when that is ready."""
    Path(f"/proc/{daemon.pid}/oom_score_adj").write_text("321")
    wait_for(
        lambda: Path(f"/proc/{daemon.child}/oom_score_adj").read_text() == "321\n",
        "the child's is another one",
    )
    daemon.kill_child()
    assert Path(f"/proc/{daemon.child}/oom_score_adj").read_text() == "321\n"


DEATHS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGKILL)


def test_deaths_under_a_client(daemon: KeptDaemon) -> None:
    """A client's connection, watch and open transaction are there as if nothing had been; the log
    has a line for each death."""
    with daemon.client() as client, daemon.client() as other:
        assert client.ask("WATCH", b"/fake\0t\0")[1] == OK
        assert client.event() == b"/fake\0t\0"
        number = int(other.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
        assert other.ask("WRITE", b"/in\0v", number)[1] == OK
        for n, death in enumerate(DEATHS, 1):
            dead = daemon.kill_child(death)
            assert client.ask("WRITE", b"/fake\0%d" % n)[1] == OK
            assert client.event() == b"/fake\0t\0"
            assert other.ask("READ", b"/in\0", number)[1] == b"v"
            assert other.ask("READ", b"/fake\0")[1] == b"%d" % n
            assert daemon.child != dead
            with daemon.client() as new:
                assert new.ask("READ", b"/fake\0")[1] == b"%d" % n
        assert other.ask("TRANSACTION_END", b"T\0", number)[1] == OK
        assert client.ask("READ", b"/in\0")[1] == b"v"
        assert b"%d deaths made up for, the last one: killed by SIGKILL" % len(DEATHS) in control(
            client
        )
    lines = daemon.logged(RECOVERED)
    assert [line.split(RECOVERED)[1].split(";")[0] for line in lines] == [
        f"killed by {death.name}" for death in DEATHS
    ]


def test_deaths_leave_no_descriptors(daemon: KeptDaemon) -> None:
    """After the second as after the first."""
    with daemon.client() as client:
        daemon.kill_child()
        client.ask("READ", b"/fake\0")
        before = descriptors(daemon.pid)
        for _ in range(3):
            daemon.kill_child()
            client.ask("READ", b"/fake\0")
            wait_for_descriptors(daemon.pid, before)


def test_ends_by_sigterm(daemon: KeptDaemon) -> None:
    """To the keeper, as to a daemon; both write nothing twice, and nothing is left."""
    daemon.kill_child()
    child = daemon.child
    assert daemon.end() == 0
    assert is_gone(child)
    assert not daemon.pid_file.exists()
    assert (daemon.run / "db").exists() and (daemon.run / "db.image").exists()
    assert len(daemon.logged("Received SIGTERM")) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_sigterm_to_a_whole_unit(daemon: KeptDaemon, order: int) -> None:
    for pid in (daemon.pid, daemon.child)[::order]:
        os.kill(pid, signal.SIGTERM)
    assert daemon.process.wait(DEADLINE) == 0
    assert not daemon.pid_file.exists() and (daemon.run / "db").exists()


def test_sigterm_while_a_child_is_made_anew(daemon: KeptDaemon) -> None:
    """It ends well, and the state is written."""
    child = daemon.child
    os.kill(child, signal.SIGSTOP)
    os.kill(daemon.pid, signal.SIGTERM)
    os.kill(child, signal.SIGKILL)
    assert daemon.process.wait(DEADLINE) == 0
    assert not daemon.pid_file.exists() and (daemon.run / "db").exists()
    assert len(daemon.logged("Received SIGTERM")) == 1


def test_other_signals(daemon: KeptDaemon) -> None:
    """SIGUSR1 writes the tree, SIGHUP opens the logs again, sent to the process of the pid file."""
    daemon.kill_child()
    os.kill(daemon.pid, signal.SIGUSR1)
    wait_for(lambda: (daemon.run / "db.debug").exists(), "no db.debug")
    daemon.log_file.rename(daemon.root / "old.log")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(daemon.log_file.exists, "the log is not opened again")
    assert daemon.answers()


def test_restart_after_all(daemon: KeptDaemon) -> None:
    """What SIGTERM has written, the next one begins with."""
    daemon.kill_child()
    daemon.end()
    again = KeptDaemon(root=daemon.root, arguments=["--no-fork", "--restart"])
    try:
        with again.client() as client:
            assert client.ask("READ", b"/fake\0")[1] == b"fake"
    finally:
        again.stop()


# -- live update --------------------------------------------------------------


def test_updates(daemon: KeptDaemon) -> None:
    """The new program is a keeper with a child from the beginning; the old two leave.  Deaths in
    between and behind."""
    with daemon.client() as client:
        assert client.ask("WATCH", b"/fake\0t\0")[1] == OK
        client.event()
        assert control(client, "-f", program(daemon.root)) == OK
        for n in range(3):
            keeper, child = daemon.pid, daemon.child
            update(client)
            assert daemon.pid != keeper and daemon.child not in (0, keeper, child)
            wait_for(lambda: is_gone(keeper) and is_gone(child), "the old ones stay")  # noqa: B023
            assert b"0 deaths made up for" in control(client)
            daemon.kill_child()
            assert client.ask("WRITE", b"/fake\0%d" % n)[1] == OK
            assert client.event() == b"/fake\0t\0"
        assert daemon.process.wait(DEADLINE) == 0
    daemon.end_all()


@pytest.mark.parametrize("point", ["take", "go", "taken"])
@pytest.mark.parametrize("fault", ["hangs", "exits"])
def test_an_update_that_fails(daemon: KeptDaemon, point: str, fault: str) -> None:
    """The old daemon goes on under its keeper; of the new one neither keeper nor child stays."""
    keeper, child = daemon.pid, daemon.child
    with daemon.client() as client:
        assert control(client, "-f", program(daemon.root, point, fault)) == OK
        before = processes_of(daemon)
        answer = b""
        while answer in (b"", b"BUSY"):
            answer = control(client, "-s")
        assert answer != b"OK", answer
        assert (daemon.pid, daemon.child) == (keeper, child)
        wait_for(lambda: processes_of(daemon) == before, "a process of the new program stays")
        daemon.kill_child()
        assert client.ask("READ", b"/fake\0")[1] == b"fake"


def processes_of(daemon: KeptDaemon) -> list[int]:
    """All that run with its configuration file."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(daemon.config) in text and not is_gone(int(name)):
            found.append(int(name))
    return sorted(found)


# -- the keeper's own death ----------------------------------------------------


def test_the_keeper_dies(daemon: KeptDaemon) -> None:
    """The daemon gets another one by an update to its own program, and the log says when."""
    with daemon.client() as client:
        assert client.ask("WATCH", b"/fake\0t\0")[1] == OK
        client.event()
        for n in range(1, 4):
            keeper = daemon.pid
            os.kill(keeper, signal.SIGKILL)
            assert client.ask("WRITE", b"/fake\0%d" % n)[1] == OK
            assert client.event() == b"/fake\0t\0"
            wait_for(lambda: len(daemon.logged("is the keeper after")) == n, "no other keeper")  # noqa: B023
            assert len(daemon.logged(f"the keeper, process {keeper}, has died")) == 1
            assert f"process {daemon.pid} is the keeper after" in daemon.logged("is the keeper")[-1]
            daemon.kill_child()
            assert client.ask("READ", b"/fake\0")[1] == b"%d" % n
    daemon.end_all()


def test_without_a_keeper_it_is_the_process_of_the_pid_file(daemon: KeptDaemon) -> None:
    """SIGTERM reaches it; where its program has gone, it goes on without."""
    child = daemon.child
    moved = daemon.config.with_suffix(".moved")
    # Its own program does not start any more.
    daemon.config.rename(moved)
    daemon.config.mkdir()
    os.kill(daemon.pid, signal.SIGKILL)
    wait_for(lambda: daemon.pid == child, "the pid file names another process")
    with daemon.client() as client:
        assert b"without a keeper for" in control(client)
        os.kill(child, signal.SIGTERM)
    wait_for(lambda: is_gone(child), "it does not end")
    assert not daemon.pid_file.exists() and (daemon.run / "db").exists()


# -- starts -------------------------------------------------------------------


def test_in_the_background(tmp_path: Path) -> None:
    """The process that was called ends with 0 when the daemon is ready; stdio is /dev/null."""
    running = KeptDaemon(arguments=(), wait=False)
    try:
        assert running.process.wait(DEADLINE) == 0
        assert running.answers()
        keeper, child = running.pid, running.child
        assert keeper != running.process.pid and child
        assert os.readlink(f"/proc/{keeper}/fd/2") == os.devnull
        assert os.getsid(child) == os.getsid(keeper) != os.getsid(0)
        running.kill_child()
        assert running.answers()
        running.end_all()
    finally:
        running.stop()


@pytest.mark.parametrize("arguments", [("--no-fork",), ()])
def test_a_second_one_is_refused(daemon: KeptDaemon, arguments: tuple[str, ...]) -> None:
    """By the pid file, whose process is alive, and by the socket."""
    daemon.kill_child()
    done = subprocess.run(
        [sys.executable, "-m", "pyxsd", "--config-file", str(daemon.config), *arguments],
        env=daemon.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"a xenstored is running: process {daemon.pid} holds the pid file" in done.stdout


@pytest.mark.parametrize("fork", [True, False])
def test_what_systemd_is_told(tmp_path: Path, fork: bool) -> None:
    """READY without a main process, since a keeper may die; all messages are the keeper's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(DEADLINE)
        running = KeptDaemon(
            arguments=() if fork else ("--no-fork",),
            wait=False,
            env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        try:
            told, sender = _message(manager)
            assert (told, sender) == (b"READY=1", running.pid)
            with running.client() as client:
                old = running.pid
                update(client)
                if not fork:
                    assert _message(manager) == (b"MAINPID=%d" % running.pid, old)
                    assert _message(manager) == (b"BARRIER=1", old)
            running.kill_child()
            assert running.answers()
            keeper = running.pid
            running.end_all()
            assert _message(manager) == (b"STOPPING=1", keeper)
        finally:
            running.stop()


def _message(manager: socket.socket) -> tuple[bytes, int]:
    """The next message, and the process that it is of; what came along is closed."""
    data, rights, _, _ = manager.recvmsg(4096, 256)
    sender = 0
    for _level, kind, packed in rights:
        if kind == socket.SCM_CREDENTIALS:
            sender = int.from_bytes(packed[:4], sys.byteorder)
        else:
            os.close(int.from_bytes(packed[:4], sys.byteorder))
    return data, sender


@pytest.mark.parametrize(
    ("call", "error"),
    [("clone", errno.ENOSYS), ("clone", errno.EPERM), ("pidfd_open", errno.ENOSYS)],
)
def test_where_a_child_cannot_be_had(call: str, error: int) -> None:
    """The daemon serves without, in one process, and says so once."""
    running = KeptDaemon(
        prefix=[sys.executable, "-m", refuse.__name__, call, str(error)],
    )
    try:
        with running.client() as client:
            assert client.ask("WRITE", b"/fake\0fake")[1] == OK
            assert running.child == 0
            assert b"crash recovery" not in control(client)
            update(client)
        told = running.logged("crash recovery is off: ")
        assert len(told) == 2, told  # once a process
        assert os.strerror(error) in told[0]
        running.end_all()
    finally:
        running.stop()


@pytest.mark.parametrize(("most", "will_do"), [(20, False), (63, False), (64, True)])
def test_how_many_descriptors_it_needs(
    most: int, will_do: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit below that the daemon serves without, and says so."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))
    told: list[str] = []
    memory = keeping.memory(Config(), told)
    if will_do:
        memory.close()
    assert (memory is not None) == will_do
    assert told == (
        []
        if will_do
        else [f"crash recovery is off: it needs 64 descriptors, and the limit is {most}"]
    )


def test_clients_have_all_descriptors(daemon: KeptDaemon) -> None:
    """Who goes on has some to open all the same, and whoever is connected is served on."""
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (64, 64))
    daemon.kill_child()
    clients = []
    try:
        for _ in range(64):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].connect(str(daemon.socket))
        wait_for(lambda: daemon.logged("cannot accept"), "all are accepted")
        held = [client for client in clients[:12] if answers(client)]
        assert len(held) == 12
        for _ in range(3):
            daemon.kill_child()
            assert [answers(client) for client in held] == [True] * len(held)
    finally:
        for client in clients:
            client.close()


def test_the_pid_file_stays_where_an_exception_ends_the_daemon() -> None:
    """Another one goes on under the same keeper, which ends it as before."""
    running = KeptDaemon(program=broken("raises"))
    try:
        with running.client() as client:
            for _ in range(2):
                keeper, child = running.pid, running.child
                os.kill(child, signal.SIGUSR1)
                wait_for(lambda: running.child not in (0, child), "no other child")  # noqa: B023
                assert client.ask("WRITE", b"/fake\0fake")[1] == OK
                assert running.pid == keeper
        os.kill(keeper, signal.SIGTERM)
        wait_for(lambda: not running.pid_file.exists(), "the pid file stays")
        assert running.process.wait(DEADLINE) == 0
    finally:
        running.stop()


def answers(client: socket.socket) -> bool:
    """Is this connection served?"""
    client.settimeout(DEADLINE)
    client.sendall(packet("READ", b"/fake\0"))
    return client.recv(64)[16:] == b"fake"


def test_off(tmp_path: Path) -> None:
    """As it is by default: one process, which has loaded nothing of it."""
    running = UpdatedDaemon()
    try:
        assert Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text() == ""
        assert "pyxsd/keeper" not in Path(f"/proc/{running.pid}/maps").read_text()
        with running.client() as client:
            assert b"crash recovery" not in control(client)
    finally:
        running.stop()


def test_from_one_to_the_other_by_an_update(daemon: KeptDaemon) -> None:
    """The configuration is read by the new program."""
    text = daemon.config.read_text()
    with daemon.client() as client:
        for word, kept in (("false", False), ("true", True), ("false", False)):
            daemon.config.write_text(text + f"crash-recovery = {word}\n")
            update(client)
            assert (daemon.child != 0) == kept
            assert (b"crash recovery" in control(client)) == kept
    daemon.end_all()


# -- the end -------------------------------------------------------------------


def broken(fault: str) -> list[str]:
    """The program that has this fault."""
    return [sys.executable, "-m", "tests.keeper.broken", fault]


def test_one_that_does_not_come_back() -> None:
    """After three deaths the keeper ends with a status of its own; the log says of what, and the
    last image is on the disk: a start with --restart begins with it."""
    running = KeptDaemon(program=broken("does-not-come-back"))
    try:
        with running.client() as client:
            assert client.ask("WRITE", b"/fake\0fake")[1] == OK
            update(client)  # its image has the node
            keeper = running.pid
            alive = time.time()
            assert client.ask("WRITE", b"/since\0then")[1] == OK
            os.kill(running.child, signal.SIGBUS)
            wait_for(lambda: is_gone(keeper), "the keeper goes on")
        # A db that was written behind that image is the newer of the two.
        assert (running.root / "run" / "db.image").stat().st_mtime < alive
        told = running.logged("crash recovery: the daemon died 3 times in a row")
        assert len(told) == 1 and "without serving a request: exited with status 1" in told[0]
        assert "RuntimeError: it cannot be built again" in running.output()
        (line,) = running.logged("the last image is in db.image")
        # What came since is in a recording, and so is the state of then.
        command = line.partition(" is recorded: ")[2].split()
        assert command[:2] == ["pyxsd", "--replay"], line
        state = subprocess.run(
            [sys.executable, "-m", *command[:-1], "text"],
            cwd=PROJECT,
            check=True,
            capture_output=True,
        )
        assert b'node "/since" n0 "then"' in state.stdout
        assert b"here the daemon died (exited with status 1), within no request" in state.stderr
        assert not running.pid_file.exists()
        again = KeptDaemon(root=running.root, arguments=["--no-fork", "--restart"])
        try:
            with again.client() as client:
                assert client.ask("READ", b"/fake\0")[1] == b"fake"
        finally:
            again.stop()
    finally:
        running.stop()


def test_told_to_end_where_no_child_can_be_made() -> None:
    """The keeper does what that would do: it ends well, and the state is written."""
    running = KeptDaemon(program=broken("has-one-child"))
    try:
        with running.client() as client:
            assert client.ask("WRITE", b"/fake\0fake")[1] == OK
            child = running.child
            os.kill(child, signal.SIGKILL)
            wait_for(lambda: is_gone(child), "it lives")
            os.kill(running.pid, signal.SIGTERM)
            assert running.process.wait(DEADLINE) == 0
        assert not running.pid_file.exists()
        assert len(running.logged("Received SIGTERM")) == 1
        assert running.logged("the keeper, process") == []
        again = KeptDaemon(root=running.root, arguments=["--no-fork", "--restart"])
        try:
            with again.client() as client:
                assert client.ask("READ", b"/fake\0")[1] == b"fake"
            assert len(again.logged("db.image")) == 1
        finally:
            again.stop()
    finally:
        running.stop()


def test_the_status_of_one_that_does_not_come_back() -> None:
    """Before any update the keeper is the process that was started."""
    running = KeptDaemon(program=broken("does-not-come-back"))
    try:
        os.kill(running.child, signal.SIGKILL)
        assert running.process.wait(DEADLINE) == 70
        assert not running.pid_file.exists()
    finally:
        running.stop()


@pytest.mark.parametrize("fork", [True, False])
def test_one_that_dies_at_its_start(fork: bool) -> None:
    """It is not tried again; socket and pid file are gone, and whoever called is told."""
    running = KeptDaemon(
        program=broken("dies-at-start"), arguments=() if fork else ("--no-fork",), wait=False
    )
    try:
        assert running.process.wait(DEADLINE) == 2
        assert "the daemon died before it served: killed by SIGSEGV" in running.output()
        assert ("the daemon ended before it was ready" in running.output()) == fork
        assert not running.pid_file.exists() and not running.socket.exists()
    finally:
        running.stop()


@pytest.mark.parametrize("fork", [True, False])
@pytest.mark.parametrize("fault", ["dies-before-ready", "dies-when-ready"])
def test_a_death_between_serving_and_being_ready(tmp_path: Path, fault: str, fork: bool) -> None:
    """Whoever has called is told, by the next one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(DEADLINE)
        running = KeptDaemon(
            program=broken(fault),
            arguments=() if fork else ("--no-fork",),
            env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
            wait=False,
        )
        try:
            if fork:
                assert running.process.wait(DEADLINE) == 0, running.output()
            wait_for(lambda: running.logged(RECOVERED), "it does not go on")
            assert running.answers()
            assert _message(manager) == (b"READY=1", running.pid)
            running.kill_child()
            assert running.answers()
            running.end_all()
            while _message(manager)[0] == b"READY=1":
                pass
        finally:
            running.stop()


def test_a_start_that_fails_where_nobody_can_be_told() -> None:
    """Its status says so all the same."""
    stderr, full = os.dup(2), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    try:
        end = End(STARTING, 0, "the daemon died before it served")
        assert keeping.status(end, Config(), False, None) == STATUS_FATAL
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(full)


def test_a_log_that_cannot_be_opened_now(daemon: KeptDaemon) -> None:
    """Where CONTROL logfile has sent the log is no folder any more: another process goes on all the
    same, and so does the log when there is a folder again."""
    folder = daemon.root / "logs"
    folder.mkdir()
    with daemon.client() as client:
        assert client.ask("CONTROL", b"logfile\0%s\0" % bytes(folder / "log"))[1] == OK
        # Until the image says it, and not the journal.
        for _ in range(30):
            for _ in range(100):
                client.send("WRITE", b"/much\0" + b"v" * 2000)
            for _ in range(100):
                client.answer()
        (folder / "log").unlink()
        folder.rmdir()
        daemon.kill_child()
        assert client.ask("READ", b"/fake\0")[1] == b"fake"
        folder.mkdir()

        def told() -> bool:
            client.ask("CONTROL", b"memreport\0")
            return (folder / "log").exists() and "resident: " in (folder / "log").read_text()

        wait_for(told, "nothing is logged")
