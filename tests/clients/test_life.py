# SPDX-License-Identifier: LGPL-2.1-or-later
"""Beginning and end of the daemon, its signals, and what the machine may do to it."""

from __future__ import annotations

import importlib.metadata
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pyxsd import __version__
from pyxsd.system import descriptors, rate_limit
from pyxsd.system.daemon_log import BANNER
from tests.clients.conftest import require
from tests.clients.daemon import DEADLINE, PROJECT, Client, Daemon, wait_for
from tests.world import TYPES

WRITE_OK = (TYPES["WRITE"], b"OK\0")


def test_sigterm_saves_and_leaves(tmp_path: Path) -> None:
    """The database is written, the pid file is gone, clients do not hold it up."""
    daemon = Daemon(root=tmp_path)
    client = daemon.client()
    assert client.ask("WRITE", b"/saved\0value") == WRITE_OK
    client.ask("TRANSACTION_START", b"\0")
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
    assert daemon.end() == 0
    assert not daemon.pid_file.exists()
    lines = (daemon.run / "db").read_text().splitlines()
    assert lines[0] == "$xenstored-dump-format"
    assert f"store,{b'/saved'.hex()},{b'n0'.hex()},{b'value'.hex()}" in lines
    with pytest.raises(EOFError):
        client.answer()
    client.close()
    daemon.check_logs()
    # It comes back with its store.
    with (
        Daemon(root=tmp_path, arguments=("--no-fork", "--restart")) as again,
        again.client() as reader,
    ):
        assert reader.ask("READ", b"/saved\0") == (TYPES["READ"], b"value")


def test_the_last_request(tmp_path: Path) -> None:
    """One that comes in the same turn as SIGTERM is served, saved and logged.  The log says how
    the daemon began and why it ended; in the foreground it greets."""
    daemon = Daemon(root=tmp_path)
    client = daemon.client()
    client.ask("READ", b"/tool\0")
    os.kill(daemon.pid, signal.SIGSTOP)
    client.send("WRITE", b"/last\0word")
    os.kill(daemon.pid, signal.SIGTERM)
    os.kill(daemon.pid, signal.SIGCONT)
    assert client.answer() == WRITE_OK
    assert daemon.process.wait(DEADLINE) == 0
    assert b"/last".hex() in (daemon.run / "db").read_text()
    assert " write     /last word" in daemon.access_log_file.read_text()
    lines = [line.partition("] ")[2] for line in daemon.log()]
    assert "No live reload: regular startup" in lines and "Received SIGTERM" in lines
    assert BANNER in daemon.output()
    client.close()
    daemon.stop()


def test_the_database_is_written_when_the_access_log_rotates(tmp_path: Path) -> None:
    """As oxenstored does: after a crash there is one that is not too old."""
    settings = {"access-log-nb-files": "2", "access-log-nb-lines": "50"}
    with Daemon(settings, root=tmp_path) as daemon, daemon.client() as client:
        assert not (daemon.run / "db").exists()
        for n in range(200):
            client.ask("WRITE", b"/many/%d\0v" % n)
        wait_for((daemon.run / "db").exists, "no database")


def test_sighup_reopens_the_logs(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("WRITE", b"/before\0v")
        wait_for(lambda: "/before" in daemon.access_log_file.read_text(), "not logged")
        moved = daemon.access_log_file.with_suffix(".moved")
        daemon.access_log_file.rename(moved)
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for(daemon.access_log_file.exists, "the log is not opened again")
        client.ask("WRITE", b"/after\0v")
        wait_for(lambda: "/after" in daemon.access_log_file.read_text(), "not logged")
        assert "/after" not in moved.read_text()


def test_sigusr1_dumps_the_tree(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("WRITE", b'/dumped\0a"b\x01')
    os.kill(daemon.pid, signal.SIGUSR1)
    dump = daemon.run / "db.debug"
    wait_for(lambda: dump.exists() and "dumped" in dump.read_text(), "no dump")
    assert '/dumped{n0} = a\\"b\\001\n' in dump.read_text()


def test_many_signals_while_serving(daemon: Daemon) -> None:
    """No request is lost to a signal."""
    with daemon.client() as client:
        for k in range(300):
            os.kill(daemon.pid, (signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE)[k % 3])
            assert client.ask("WRITE", b"/k\0%d" % k) == WRITE_OK


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    """It says why and leaves the first one and its files alone."""
    listening = daemon.socket.stat().st_ino
    root = daemon.root / "second"
    root.mkdir()
    second = Daemon(
        root=root,
        config=daemon.config.read_bytes(),
        wait=False,
        env={"XENSTORED_RUNDIR": str(daemon.run)},
    )
    try:
        assert second.process.wait(DEADLINE) not in (0, None)
        assert "running" in second.output() or "in use" in second.output(), second.output()
    finally:
        second.stop()
    assert daemon.socket.stat().st_ino == listening
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"


def test_a_second_daemon_is_refused_by_the_socket_alone(daemon: Daemon) -> None:
    root = daemon.root / "second"
    root.mkdir()
    second = Daemon(root=root, wait=False, env={"XENSTORED_RUNDIR": str(daemon.run)})
    try:
        assert second.process.wait(DEADLINE) != 0
    finally:
        second.stop()
    assert daemon.answers()


def test_stale_files_are_replaced(tmp_path: Path) -> None:
    """A killed daemon's socket and pid file are no obstacle, nor is a pid in use by others."""
    daemon = Daemon(root=tmp_path)
    daemon.end(signal.SIGKILL)
    assert daemon.socket.exists() and daemon.pid_file.exists()
    again = Daemon(root=tmp_path)
    assert daemon.pid != again.pid
    assert again.pid_file.read_text() == f"{again.pid}\n"
    again.end(signal.SIGKILL)
    again.pid_file.write_text(f"{os.getpid()}\n")
    with Daemon(root=tmp_path) as third:
        assert third.pid_file.read_text() == f"{third.pid}\n"


@pytest.mark.parametrize("seed", range(6))
def test_random_configuration(seed: int, tmp_path: Path) -> None:
    """Random bytes are warnings, and it serves."""
    source = random.Random(seed)
    keys = b"quota-maxwatch merge-activate conflict-burst-limit ring-scan-interval nothing".split()
    lines = [source.randbytes(source.randrange(200)) for _ in range(50)]
    lines += [source.choice(keys) + b"=" + source.randbytes(source.randrange(8)) for _ in range(50)]
    source.shuffle(lines)
    own = (
        f"\npid-file = {tmp_path}/pid\nxenstored-log-file = {tmp_path}/log\n"
        f"access-log-file = {tmp_path}/access\n"
    ).encode()
    daemon = Daemon(root=tmp_path, config=b"\n".join(lines) + own)
    try:
        with daemon.client() as client:
            assert client.ask("WRITE", b"/a\0v") == WRITE_OK
        assert "config: " in daemon.output()
        assert daemon.end() == 0
        daemon.check_logs("config: ")
    finally:
        daemon.stop()


FULL = """
set -e
mount -t tmpfs -o size=64k none "$1"
shift
exec "$@"
"""


@pytest.fixture
def namespace() -> list[str]:
    """A command that runs another in a mount namespace of its own."""
    command = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        command += ["--map-root-user"]
    try:
        done = subprocess.run(
            [*command, "mount", "-t", "tmpfs", "none", "/mnt"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        reason = done.stdout.decode()
    except FileNotFoundError as error:
        done, reason = None, str(error)
    if done is None or done.returncode:
        require(f"no mount namespace: {reason}")
    return command


def test_full_disk_under_the_logs(tmp_path: Path, namespace: list[str]) -> None:
    """Requests are served all the same; the loss is told; logging goes on when there is space."""
    logs = tmp_path / "logs"
    logs.mkdir()
    prefix = [*namespace, "sh", "-c", FULL, "sh", str(logs)]
    daemon = Daemon(
        {
            "access-log-file": str(logs / "access.log"),
            "xenstored-log-file": str(logs / "xenstored.log"),
        },
        root=tmp_path,
        prefix=prefix,
    )
    # The daemon's view of the directory.
    inside = Path(f"/proc/{daemon.pid}/root{logs}")
    try:
        with daemon.client() as client:
            before = daemon.resident()
            for k in range(3000):
                assert client.ask("WRITE", b"/full/%d\0%s" % (k % 50, b"v" * 100)) == WRITE_OK
            full = os.statvfs(inside)
            assert full.f_bfree == 0
            assert daemon.resident() - before < 8 << 20
            assert daemon.idle_cpu() < 0.3
            os.truncate(inside / "access.log", 0)
            wait_for(
                lambda: (
                    client.ask("WRITE", b"/marker\0v") == WRITE_OK
                    and b"/marker" in (inside / "access.log").read_bytes()
                ),
                "it logs no more",
            )
        assert "No space left" in (inside / "xenstored.log").read_text() + daemon.output()
        assert daemon.end() == 0
    finally:
        daemon.stop()


def launched_pid(daemon: Daemon) -> int:
    """The pid of a daemon that has put itself into the background."""
    return int(daemon.pid_file.read_text())


def test_daemonizing(tmp_path: Path) -> None:
    """The command returns when the daemon is ready; it has its own session and /dev/null."""
    extra = tmp_path / "extra.pid"
    daemon = Daemon(root=tmp_path, arguments=("--pid-file", str(extra)), wait=False)
    pid = 0
    try:
        assert daemon.process.wait(DEADLINE) == 0, daemon.output()
        # Ready at once: no waiting here.
        with Client(daemon.socket) as client:
            assert client.ask("WRITE", b"/a\0v") == WRITE_OK
        pid = launched_pid(daemon)
        assert extra.read_text() == f"{pid}\n"
        assert os.getsid(pid) != os.getsid(0)
        for number in range(3):
            assert os.readlink(f"/proc/{pid}/fd/{number}") == "/dev/null"
        os.kill(pid, signal.SIGTERM)
        wait_for(
            lambda: (
                not Path(f"/proc/{pid}").exists()
                or "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
            ),
            "it does not end",
        )
        assert not extra.exists() and not daemon.pid_file.exists()
        pid = 0
        daemon.check_logs()
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        daemon.stop()


NO_FORK = """
import errno, os, sys
def refused():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
os.fork = refused
from pyxsd.cli import main
sys.exit(main())
"""


def test_no_process_is_left_for_the_daemon(tmp_path: Path) -> None:
    """It is said in a line, and the socket does not stay."""
    program = (sys.executable, "-c", NO_FORK)
    daemon = Daemon(root=tmp_path, arguments=(), program=program, wait=False)
    assert daemon.process.wait(DEADLINE) == 2
    last = daemon.output().splitlines()[-1]
    assert last == "pyxsd: cannot go into the background: Resource temporarily unavailable"
    assert "Traceback" not in daemon.output()
    assert not daemon.socket.exists() and not daemon.pid_file.exists()


STRANGE = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


def test_started_with_signals_ignored_and_blocked(tmp_path: Path) -> None:
    """As some programs leave them to what they execute: the command hears how its daemon began, and
    the daemon how its children end, and when it shall."""
    prefix = (sys.executable, "-c", STRANGE)
    daemon = Daemon(root=tmp_path, arguments=(), prefix=prefix, wait=False)
    pid = 0
    try:
        assert daemon.process.wait(DEADLINE) == 0, daemon.output()
        pid = launched_pid(daemon)
        with Client(daemon.socket) as client:
            answer = client.ask("CONTROL", b"live-update\0-f\0/bin/false\0")[1]
        assert answer == b"Command '/bin/false --help' exited with code 1"
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not daemon.pid_file.exists(), "it does not end")
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        daemon.stop()


@pytest.mark.parametrize("arguments", ((), ("--no-fork",)), ids=("daemon", "foreground"))
def test_sd_notify(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """READY=1 when it serves, STOPPING=1 at the end, to $NOTIFY_SOCKET."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(DEADLINE)
        daemon = Daemon(
            root=tmp_path, arguments=arguments, env={"NOTIFY_SOCKET": str(path)}, wait=False
        )
        pid = 0
        try:
            ready = notify.recv(4096).decode().splitlines()
            assert "READY=1" in ready
            assert daemon.answers()
            pid = launched_pid(daemon)
            if not arguments:
                assert daemon.process.wait(DEADLINE) == 0
                assert f"MAINPID={pid}" in ready
            os.kill(pid, signal.SIGTERM)
            assert "STOPPING=1" in notify.recv(4096).decode().splitlines()
            wait_for(lambda: not daemon.pid_file.exists(), "the pid file stays")
            pid = 0
            assert daemon.process.wait(DEADLINE) == 0
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
            daemon.stop()


def test_no_garbage_is_looked_for_while_it_serves(tmp_path: Path) -> None:
    """The collector would stop all clients for as long as it takes to look at every object."""
    code = (
        "import gc, sys; from pyxsd import cli; from pyxsd.start import serving\n"
        "def run(*_): print(gc.isenabled(), gc.get_freeze_count() > 1000, flush=True)\n"
        "serving.run = run\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    daemon = Daemon(root=tmp_path, program=(sys.executable, "-c", code), wait=False)
    try:
        assert daemon.process.wait(DEADLINE) == 0, daemon.output()
        assert daemon.output().splitlines()[-1] == "False True"
    finally:
        daemon.stop()


def test_run_directory_and_modes(tmp_path: Path) -> None:
    """Missing folders are made with 0700; the pid file has 0640."""
    with Daemon(root=tmp_path, env={"XENSTORED_RUNDIR": str(tmp_path / "run")}) as daemon:
        assert daemon.run.stat().st_mode & 0o777 == 0o700
        assert daemon.pid_file.stat().st_mode & 0o777 == 0o640
        assert daemon.socket.is_socket()
        assert daemon.end() == 0
    # It is not removed at the end, as oxenstored does not.
    assert daemon.socket.exists()


def test_without_rights_to_its_places(tmp_path: Path) -> None:
    """A run directory that cannot be made: it says so and ends."""
    (tmp_path / "file").write_text("")
    daemon = Daemon(
        root=tmp_path, env={"XENSTORED_RUNDIR": str(tmp_path / "file" / "run")}, wait=False
    )
    try:
        assert daemon.process.wait(DEADLINE) != 0
        assert str(tmp_path / "file") in daemon.output()
        assert "Traceback" not in daemon.output()
    finally:
        daemon.stop()


def test_nobody_can_be_told(tmp_path: Path) -> None:
    """stdout and stderr on a full disk, and something to say on both: it serves all the same."""
    full = ("sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh")
    daemon = Daemon({"wrong": "1"}, root=tmp_path, prefix=full, wait=False)
    try:
        wait_for(lambda: daemon.process.poll() is not None or daemon.answers(), "it hangs")
        assert daemon.answers()
        assert daemon.end() == 0
        daemon.check_logs("unknown key wrong")
        assert "unknown key wrong" in daemon.log_file.read_text()
    finally:
        daemon.stop()


def test_few_warnings_of_what_a_client_does_often(tmp_path: Path) -> None:
    """Each of its events is too long to be sent; the end tells how many were not mentioned."""
    with Daemon(root=tmp_path) as daemon, daemon.client() as client:
        path = b"/" + b"p" * 1500
        client.ask("WATCH", b"/\0" + b"t" * 4000 + b"\0")
        for _ in range(100):
            assert client.ask("WRITE", path + b"\0v") == WRITE_OK
        assert sum("event of" in line for line in daemon.log()) == rate_limit.LINES
        assert daemon.end() == 0
        told = [line for line in daemon.log() if "more lines" in line]
        assert len(told) == 1 and re.search(r"event too long: \d\d more lines", told[0]), told
        daemon.log_file.unlink()


def exhaust(daemon: Daemon) -> list[Client]:
    """Clients that have taken the last descriptor, and some that wait for one."""
    limit = daemon.descriptors() + 4
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
    clients = [daemon.client() for _ in range(limit)]
    wait_for(
        lambda: "cannot accept: Too many open files" in "".join(daemon.log()),
        "it has descriptors left",
    )
    return clients


def test_without_a_free_descriptor(tmp_path: Path) -> None:
    """SIGUSR1, SIGHUP and SIGTERM do what they do otherwise, and systemd is told of the end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(DEADLINE)
        daemon = Daemon(root=tmp_path, env={"NOTIFY_SOCKET": str(path)})
        try:
            assert notify.recv(4096) == b"READY=1"
            with daemon.client() as client:
                assert client.ask("WRITE", b"/saved\0value") == WRITE_OK
            clients = exhaust(daemon)
            dump = daemon.run / "db.debug"
            for _ in range(2):  # what was given up is held again
                os.kill(daemon.pid, signal.SIGUSR1)
                wait_for(lambda: dump.exists() and "saved" in dump.read_text(), "no dump")
                dump.unlink()
            moved = daemon.access_log_file.with_suffix(".moved")
            daemon.access_log_file.rename(moved)
            os.kill(daemon.pid, signal.SIGHUP)
            wait_for(daemon.access_log_file.exists, "the log is not opened again")
            assert daemon.end() == 0, daemon.output()
            assert notify.recv(4096) == b"STOPPING=1"
            assert f"store,{b'/saved'.hex()}," in (daemon.run / "db").read_text()
            daemon.check_logs("cannot accept: Too many open files")
            for client in clients:
                client.close()
        finally:
            daemon.stop()


#: The program, with a SIGTERM between the word READY and the loop.
TERMINATED_AT_READY = """
import os, signal, sys
from pyxsd import cli
from pyxsd.system.notify import Notifier

ready = Notifier.ready

def ready_and_terminated(*arguments):
    told = ready(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)
    return told

Notifier.ready = ready_and_terminated
sys.exit(cli.main())
"""


def test_sigterm_right_after_ready(tmp_path: Path) -> None:
    """It saves, removes its pid file and ends with 0."""
    daemon = Daemon(root=tmp_path, program=(sys.executable, "-c", TERMINATED_AT_READY), wait=False)
    try:
        assert daemon.process.wait(DEADLINE) == 0, daemon.output()
        assert (daemon.run / "db").exists()
        assert not daemon.pid_file.exists()
        daemon.check_logs()
    finally:
        daemon.stop()


#: Command line, status, and what the program prints (a part of it) to stdout and stderr.
COMMAND_LINES = (
    ("--help", 0, "--config-file <file>", ""),
    ("-h", 0, "usage: pyxsd", ""),
    ("--version", 0, f"pyxsd {__version__}\n", ""),
    ("--wrong", 2, "", "unknown option '--wrong'"),
    ("extra", 2, "", "pyxsd: unexpected word 'extra'.\nTry 'pyxsd --help'.\n"),
    ("--no-fork extra", 2, "", "pyxsd: unexpected word 'extra'.\nTry 'pyxsd --help'.\n"),
    ("--config-test --config-file /none", 2, "", "error: config: /none: No such file"),
    ("--config-test --config-file /dev/null", 0, "Configuration valid at /dev/null\n", ""),
)


@pytest.mark.parametrize(("line", "status", "stdout", "stderr"), COMMAND_LINES)
def test_command_line(line: str, status: int, stdout: str, stderr: str) -> None:
    """Through the program itself, which starts no daemon."""
    done = subprocess.run(
        [sys.executable, "-m", "pyxsd", *line.split()],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == status, done.stderr
    assert stdout in done.stdout and bool(stdout) == bool(done.stdout)
    assert stderr in done.stderr and bool(stderr) == bool(done.stderr)


def test_names_that_are_no_text() -> None:
    """The name of a file is printed as the bytes that it is."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyxsd",
            "--config-test",
            "--config-file",
            b"/dev/../dev/./\xff/../null",
        ],
        cwd=PROJECT,
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == b"error: config: /dev/../dev/./\xff/../null: No such file or directory\n"
    assert (done.returncode, done.stdout) == (2, b"")


def test_the_version_is_that_of_the_installed_package() -> None:
    assert importlib.metadata.version("pyxsd") == __version__


def test_as_debian_starts_it(tmp_path: Path) -> None:
    """Debian's init script puts choom and a `--` before the arguments."""
    choom = shutil.which("choom")
    if choom is None:
        require("choom is not installed (Debian package util-linux)")
    program = str(Path(sys.executable).parent / "pyxsd")
    with Daemon(root=tmp_path, program=(str(choom), "-n", "0", program, "--")) as daemon:
        assert daemon.answers()


#: Lines of a configuration, and what is said of them behind the name of the file.
BROKEN = (
    ("persistent = 1", "persistent: expect bool arg"),
    (
        "acesss-log-nb-chars = 180",
        "unknown key acesss-log-nb-chars, did you mean access-log-nb-chars?",
    ),
    ("quota-maxwatch : 5", "no '=' in 'quota-maxwatch : 5'"),
    ("access-log-file = syslog:nobody", "access-log-file: unknown syslog facility nobody"),
)


@pytest.mark.parametrize("arguments", ((), ("--no-fork",)), ids=("daemon", "foreground"))
def test_a_broken_configuration_at_boot(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It serves with the defaults for what is wrong; stderr and the log say what that is."""
    own = (
        f"pid-file = {tmp_path}/pid\nxenstored-log-file = {tmp_path}/xenstored.log\n"
        f"access-log-file = {tmp_path}/access.log\nquota-maxsize = 4\n"
    )
    config = own + "".join(f"{line}\n" for line, _ in BROKEN)
    daemon = Daemon(root=tmp_path, config=config.encode(), arguments=arguments, wait=False)
    try:
        wait_for(daemon.answers, f"it does not answer: {daemon.output()}")
        warnings = [
            f"config: {daemon.config}:{number}: {text}"
            for number, (_, text) in enumerate(BROKEN, own.count("\n") + 1)
        ]
        assert [line for line in daemon.output().splitlines() if "config" in line] == warnings
        assert [line.partition("] ")[2] for line in daemon.log() if "config" in line] == warnings
        with daemon.client() as client:
            client.ask("WRITE", b"/a\0v")
            # What is right counts.
            assert b"node-size         : 4\n" in client.ask("CONTROL", b"quota\0")[1]
        wait_for(lambda: b"/a v" in daemon.access_log_file.read_bytes(), "not logged")
        os.kill(launched_pid(daemon), signal.SIGTERM)
        wait_for(lambda: not daemon.pid_file.exists(), "it does not end")
        assert daemon.process.wait(DEADLINE) == 0
    finally:
        daemon.stop()


@pytest.mark.parametrize("way", [("--no-fork",), ()])
def test_a_start_that_fails_leaves_no_socket(tmp_path: Path, way: tuple[str, ...]) -> None:
    """The pid file is written only when the socket is there already."""
    pid_file = tmp_path / "missing" / "pid"
    daemon = Daemon(root=tmp_path, arguments=(*way, "--pid-file", str(pid_file)), wait=False)
    assert daemon.process.wait(DEADLINE) == 2
    assert f"cannot write the pid file {pid_file}" in daemon.output()
    assert daemon.run.is_dir() and not daemon.socket.exists()


FEW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))
def refused(*_):
    raise ValueError("not permitted")
resource.setrlimit = refused
from pyxsd.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("way", [("--no-fork",), ()])
def test_a_start_with_too_few_descriptors(tmp_path: Path, way: tuple[str, ...]) -> None:
    """One line says how many there are, and nothing is left."""
    program = (sys.executable, "-c", FEW.format(descriptors.NEEDED - 1))
    daemon = Daemon(root=tmp_path, arguments=way, program=program, wait=False)
    assert daemon.process.wait(DEADLINE) == 2
    assert "31 descriptors are not enough to start: 32 are needed" in daemon.output()
    assert "Traceback" not in daemon.output()
    assert not daemon.socket.exists() and not daemon.pid_file.exists()


def test_as_many_descriptors_as_are_needed_will_do(tmp_path: Path) -> None:
    program = (sys.executable, "-c", FEW.format(descriptors.NEEDED))
    with Daemon(root=tmp_path, program=program) as daemon:
        with daemon.client() as client:
            assert client.ask("WRITE", b"/a\0v") == WRITE_OK
        assert daemon.end() == 0
