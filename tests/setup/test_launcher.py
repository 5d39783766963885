# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd-launch: it starts pyxsd once, and tells in plain words why it does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.setup import launch, running
from tests.clients.daemon import Client, wait_for
from tests.setup.dom0 import ends, need, programs

BASE = ["/bin", "/usr/bin"]


class Place:
    """A run directory, a configuration, and the launcher; daemons are ended at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = programs(folder / "bin")
        self.socket = folder / "run" / "socket"
        self.pid_file = folder / "pid"
        self.logged = folder / "logged"
        self.config = folder / "conf"
        self.config.write_text(
            f"pid-file = {folder}/configured-pid\n"
            f"xenstored-log-file = {folder}/log\n"
            f"access-log-file = {folder}/access\n"
        )
        # A logger that writes its words into a file: the machine's log is left alone.
        stubs = folder / "stubs"
        stubs.mkdir()
        (stubs / "logger").write_text(f'#!/bin/sh\necho "$@" >>{self.logged}\n')
        (stubs / "logger").chmod(0o755)
        self.env = {
            "PATH": ":".join([str(stubs), *BASE]),
            "XENSTORED_RUNDIR": f"{folder}/run",
            "JOURNAL_STREAM": "",
        }

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The launcher as a boot script calls it, in the end to its end."""
        return subprocess.run(
            [
                str(self.launcher),
                "--config-file",
                str(self.config),
                "--no-domain-init",
                "--pid-file",
                str(self.pid_file),
                *words,
            ],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def pid(self) -> int:
        """The daemon's."""
        return int(self.pid_file.read_text())

    def end(self) -> None:
        """Ends the daemon, if one listens."""
        pid = running.listener(str(self.socket))
        if pid and pid != os.getpid():
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)
            ends(pid)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where nothing runs yet."""
    here = Place(tmp_path)
    yield here
    here.end()


def test_started_twice(place: Place) -> None:
    """The second start ends with 0, and the first daemon has noticed nothing."""
    first = place.run()
    assert (first.returncode, first.stdout) == (0, "")
    pid = place.pid()
    with Client(place.socket) as client:
        client.ask("WRITE", b"/here\0yes")
        # What status, check_pid_file and ps see of it.
        assert running.look(str(place.socket)).kind == "pyxsd"
        assert client.ask("READ", b"/tool/xenstored\0")[1] == os.fsencode(place.launcher)
    again = place.run()
    assert again.returncode == 0
    assert (
        f"nothing to start: a xenstored (pyxsd, process {pid}) answers on {place.socket}"
        in again.stderr
    )
    assert place.pid() == pid == running.listener(str(place.socket))
    with Client(place.socket) as client:
        assert client.ask("READ", b"/here\0") == (2, b"yes")


def test_a_start_script_that_removed_the_pid_file_gets_it_back(place: Place) -> None:
    """As Xen's launch-xenstore does; with systemd it also waits for READY=1."""
    place.run()
    pid = place.pid()
    place.pid_file.unlink()
    notify = place.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify))
        assert place.run(NOTIFY_SOCKET=str(notify)).returncode == 0
        assert manager.recv(1000) == f"READY=1\nMAINPID={pid}".encode()
    assert place.pid() == pid
    # One that is there belongs to somebody else, whatever it says.
    place.pid_file.write_text("another\n")
    assert place.run().returncode == 0
    assert place.pid_file.read_text() == "another\n"


def test_a_socket_that_was_left_behind(place: Place) -> None:
    (place.folder / "run").mkdir()
    socket.socket(socket.AF_UNIX).bind(str(place.socket))
    started = place.run()
    assert started.returncode == 0
    assert (
        f"{place.socket} was left behind by a daemon that is gone; pyxsd replaces it"
        in started.stderr
    )
    assert running.look(str(place.socket)).state == running.LIVE


def test_a_file_at_the_path_of_the_socket_is_left_alone(place: Place) -> None:
    (place.folder / "run").mkdir()
    place.socket.write_text("precious")
    refused = place.run()
    assert refused.returncode != 0
    assert "left behind by" not in refused.stderr
    assert f"cannot listen on {place.socket}: it is not a socket" in refused.stderr
    assert place.socket.read_text() == "precious"


def test_a_daemon_that_hangs(place: Place) -> None:
    place.run()
    pid = place.pid()
    os.kill(pid, signal.SIGSTOP)
    refused = place.run()
    assert refused.returncode == launch.STATUS_HANGS == 1
    assert (
        f"a xenstored (pyxsd, process {pid}) listens on {place.socket} but has not answered "
        "for 5 seconds; it hangs, or is very busy" in refused.stderr
    )
    os.kill(pid, signal.SIGCONT)
    assert place.run().returncode == 0


def test_the_status_and_words_of_pyxsd_come_through(place: Place) -> None:
    refused = place.run("--no-such-option")
    assert refused.returncode == 2
    assert "unknown option '--no-such-option'" in refused.stderr
    (place.folder / "run").write_text("no folder")
    assert place.run().returncode == 2


# words after which the launcher leaves the socket alone, and what pyxsd says on stdout
PASSED_ON = [(["--help"], "usage: pyxsd-launch ["), (["--config-test"], "Configuration valid at ")]


@pytest.mark.parametrize(("words", "said"), PASSED_ON)
def test_questions_are_passed_on(place: Place, words: list[str], said: str) -> None:
    place.run()
    answer = place.run(*words)
    assert (answer.returncode, answer.stdout[: len(said)], answer.stderr) == (0, said, "")


def test_in_the_foreground(place: Place) -> None:
    """With --no-fork the started process is the daemon: signals reach it."""
    command = [
        str(place.launcher),
        "--config-file",
        str(place.config),
        "--no-domain-init",
        "--no-fork",
    ]
    with subprocess.Popen(command, env=place.env, stdout=subprocess.PIPE) as daemon:
        wait_for(lambda: running.look(str(place.socket)).state == running.LIVE, "no answer")
        assert running.listener(str(place.socket)) == daemon.pid
        daemon.terminate()
        assert daemon.wait(30) == 0


# name, what python3 beside the launcher does ("": there is none), what is said
BROKEN = [
    ("none", "", "cannot start pyxsd: there is no Python: /nowhere/python3 is missing"),
    (
        "old",
        "echo pyxsd needs Python 3.9 or later, and this is 3.6 >&2; exit 1",
        "cannot load it (pyxsd needs Python 3.9 or later, and this is 3.6)",
    ),
    (
        "without-pyxsd",
        f'shift; exec {sys.executable} -I -S "$@"',
        "cannot load it (ModuleNotFoundError: No module named 'pyxsd')",
    ),
    ("crash", "kill -SEGV $$", "cannot load it (it ended with status 139)"),
]


@pytest.mark.parametrize(
    ("python", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_python_is_missing_or_broken(place: Place, python: str, said: str) -> None:
    shutil.rmtree(place.folder / "bin")
    programs(place.folder / "bin", python)
    script = place.launcher.read_text().replace("/usr/bin/python3", "/nowhere/python3")
    place.launcher.write_text(script)
    failed = place.run()
    assert failed.returncode == launch.STATUS_NOT_INSTALLED == 5
    assert "pyxsd-launch: cannot start pyxsd: " in failed.stderr and said in failed.stderr
    assert "Traceback" not in failed.stderr
    # The same words in the system's log.
    assert place.logged.read_text().startswith("-p daemon.err -t pyxsd-launch -- ")
    assert said in place.logged.read_text()


def test_python_is_missing_and_a_xenstored_answers(place: Place) -> None:
    """In the middle of an upgrade of Python: there is nothing to start all the same."""
    need("xenstore-read", "xenstore-utils")
    place.run()
    (place.folder / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    again = place.run()
    assert again.returncode == 0
    assert "but a xenstored answers, so there is nothing to start" in again.stderr


def test_a_package_that_is_half_there(place: Place) -> None:
    """Its extension modules were made for another Python, or are gone."""
    package = place.folder / "lib" / "pyxsd"
    source = Path(launch.__file__).parents[1]
    for folder in ("setup", "start", "system"):
        shutil.copytree(source / folder, package / folder)
    for name in ("__init__.py", "cli.py", "named.py"):
        shutil.copy(source / name, package)
    libraries = [str(place.folder / "lib"), *(p for p in sys.path if p.endswith("-packages"))]
    starter = place.folder / "starter.py"
    starter.write_text(
        f"import sys\nsys.path[:0] = {libraries!r}\n"
        "from pyxsd.setup.launch import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    (place.folder / "bin" / "python3").write_text(
        f'#!/bin/sh\n[ "$2" = -m ] || exit 0\nshift 3\nexec {sys.executable} -S {starter} "$@"\n'
    )
    failed = place.run()
    assert failed.returncode == 5, failed.stderr
    assert (
        "cannot start pyxsd: No module named 'pyxsd._accesslog'.  Its package is damaged"
        in failed.stderr
    )


def test_nothing_of_root_s_home_or_environment_gets_in(place: Place) -> None:
    intruder = place.folder / "intruder"
    intruder.mkdir()
    (intruder / "pyxsd.py").write_text("raise SystemExit('intruder')\n")
    assert place.run(PYTHONPATH=str(intruder), HOME=str(intruder)).returncode == 0


def test_the_daemon_keeps_little_of_the_launcher_in_memory(place: Place) -> None:
    code = """
import sys
import pyxsd.cli
before = set(sys.modules)
pyxsd.cli.main = lambda argv: print(*sorted(set(sys.modules) - before))
from pyxsd.setup.launch import main
main(["pyxsd-launch"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=place.env, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.split() == ["pyxsd.setup", "pyxsd.setup.launch"]


def test_stderr_is_copied_to_the_system_s_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log,
        open(tmp_path / "stderr", "w") as stream,
    ):
        log.bind(str(path))
        copy = launch.SystemLog(stream, str(path))
        for text in ("pyxsd-launch: one\ntw", "o\n", "", "rest"):
            copy.write(text)
        assert copy.fileno() == stream.fileno()  # type: ignore[operator]
        copy.flush()  # type: ignore[operator]
        assert (tmp_path / "stderr").read_text() == "pyxsd-launch: one\ntwo\nrest"
        log.setblocking(False)
        head = f"<28>pyxsd-launch[{os.getpid()}]: "
        assert [log.recv(100).decode() for _ in range(2)] == [head + "one", head + "two"]
        with pytest.raises(BlockingIOError):
            log.recv(100)
        # The daemon that was forked off does not write there.
        child = os.fork()
        if child == 0:
            copy.write("three\n")
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(BlockingIOError):
            log.recv(100)
    path.unlink()
    launch.SystemLog(sys.stderr, str(path)).write("")


def test_the_journal_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "journal", "w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert launch.is_journal(stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:1")
        assert not launch.is_journal(stream)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not launch.is_journal(stream)
