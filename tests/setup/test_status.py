# SPDX-License-Identifier: LGPL-2.1-or-later
"""status: what runs now, by the socket and by the pid file, and what that means for a removal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyxsd
from pyxsd.setup import cli, running
from tests.clients.daemon import Daemon, catches, wait_for
from tests.setup.dom0 import DEBIAN, PACKAGE, copy, make, without_pyxsd
from tests.unit.processes import ROOT

LAUNCHER = "/usr/sbin/pyxsd-launch"
SELECTED = {**DEBIAN, "/etc/default/xen": f"XENSTORED={LAUNCHER}\n"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A dom0 in a folder whose name is short enough for a socket."""
    root = Path(
        subprocess.run(
            ["mktemp", "-d", "/tmp/dom0.XXXX"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
    )
    yield root
    subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.fixture
def daemon(host: Path) -> Iterator[Daemon]:
    """A pyxsd whose socket is the folder's."""
    with Daemon(env={"XENSTORED_RUNDIR": str(host / "run/xenstored")}, wait=False) as started:
        started.socket = host / "run/xenstored/socket"
        started.wait_ready()
        yield started


def status(capsys: pytest.CaptureFixture[str], host: Path, *words: str) -> tuple[int, str]:
    code = cli.main(["status", "--root", str(host), *words])
    return code, capsys.readouterr().out


def test_nothing_runs(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    make(host, without_pyxsd(DEBIAN))
    assert status(capsys, host) == (
        0,
        (
            "running now:      nothing\n"
            "at the next boot: oxenstored (/usr/lib/xen-4.17/bin/oxenstored); "
            "Debian's init script; /etc/default/xen does not set XENSTORED\n"
            "installed:        no pyxsd\n"
        ),
    )
    assert status(capsys, host, "--in-use") == (1, "")


def test_pyxsd_runs_and_is_selected(
    capsys: pytest.CaptureFixture[str], host: Path, daemon: Daemon
) -> None:
    make(host, {**SELECTED, **copy(PACKAGE, pyxsd.__version__)})
    version = pyxsd.__version__
    assert status(capsys, host) == (
        0,
        (
            f"running now:      pyxsd {version}, process {daemon.pid}, answers on {daemon.socket}\n"
            f"at the next boot: pyxsd {version} ({LAUNCHER}); /etc/default/xen, line 1\n"
            f"installed:        pyxsd {version} in /usr/lib/python3/dist-packages\n"
        ),
    )
    assert status(capsys, host, "--in-use") == (
        0,
        (
            f"pyxsd is running (process {daemon.pid}).\n"
            "pyxsd is what the next boot starts (/etc/default/xen, line 1).\n"
        ),
    )


def test_another_version_is_installed(
    capsys: pytest.CaptureFixture[str], host: Path, daemon: Daemon
) -> None:
    make(host, {**SELECTED, **copy(PACKAGE, "99.1")})
    _, said = status(capsys, host)
    assert f"running now:      pyxsd {pyxsd.__version__}, process" in said
    assert "at the next boot: pyxsd 99.1 (" in said
    assert said.endswith(
        f"The daemon that runs is still version {pyxsd.__version__}; version 99.1 "
        "is installed and starts at the next boot of the host, or now with "
        "`pyxsd-setup update`.\n"
    )


def test_it_runs_and_is_no_longer_selected(
    capsys: pytest.CaptureFixture[str], host: Path, daemon: Daemon
) -> None:
    make(host, DEBIAN)
    assert status(capsys, host)[1].endswith("The next boot changes from pyxsd to oxenstored.\n")
    assert status(capsys, host, "--in-use") == (0, f"pyxsd is running (process {daemon.pid}).\n")


def test_a_daemon_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: Path, daemon: Daemon
) -> None:
    make(host, DEBIAN)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        found = running.look(str(daemon.socket), seconds=0.2)
        assert (found.state, found.pid, found.kind) == (running.SILENT, daemon.pid, "pyxsd")
        monkeypatch.setattr("pyxsd.setup.cli.running.look_in", lambda tree: found)
        _, said = status(capsys, host)
        assert f"pyxsd, process {daemon.pid}, does not answer on {daemon.socket}: it hangs" in said
        assert status(capsys, host, "--in-use")[0] == 0
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def test_a_socket_that_was_left_behind(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    make(host, DEBIAN)
    (host / "run/xenstored").mkdir()
    path = host / "run/xenstored/socket"
    socket.socket(socket.AF_UNIX).bind(str(path))
    assert f"nothing; {path} was left behind by a daemon that is gone" in status(capsys, host)[1]
    assert status(capsys, host, "--in-use")[0] == 1


def test_a_daemon_whose_socket_was_removed(
    capsys: pytest.CaptureFixture[str], host: Path, daemon: Daemon
) -> None:
    make(host, DEBIAN)
    daemon.socket.rename(host / "away")
    try:
        _, said = status(capsys, host)
        assert f"pyxsd, process {daemon.pid}, without a socket at {daemon.socket}" in said
        assert status(capsys, host, "--in-use")[0] == 0
    finally:
        (host / "away").rename(daemon.socket)


@pytest.mark.parametrize("pid_file", ["run/xenstore.pid", "run/xen/xenstored.pid", "run/mine"])
def test_a_daemon_without_a_socket_is_found_by_its_pid_file(
    capsys: pytest.CaptureFixture[str], host: Path, pid_file: str
) -> None:
    """The two that boot scripts give, and the configured one."""
    make(host, {**DEBIAN, "/etc/xen/oxenstored.conf": "pid-file = /var/run/mine\n"})
    (host / "run/xen").mkdir()
    with Daemon(
        arguments=("--no-fork", "--disable-socket", "--pid-file", str(host / pid_file)),
        env={"XENSTORED_RUNDIR": str(host / "elsewhere")},
        wait=False,
    ) as daemon:
        # The file is made first, and gets its text, locked, a moment later.
        wait_for(
            lambda: (host / pid_file).exists() and (host / pid_file).read_text() != "",
            "no pid file",
        )
        _, said = status(capsys, host)
        assert f"pyxsd, process {daemon.pid}, without a socket at " in said
        assert status(capsys, host, "--in-use")[0] == 0
        # The pid files are claimed first; SIGTERM is acted on from the handlers on.
        wait_for(lambda: catches(daemon.pid, signal.SIGTERM), "no handler of SIGTERM")
        assert daemon.end() == 0
    assert status(capsys, host, "--in-use")[0] == 1


@pytest.mark.parametrize("heir", ["child", "parent"])
def test_of_a_parent_and_its_child_the_parent_is_the_listener(tmp_path: Path, heir: str) -> None:
    """Whatever their numbers are; where it has gone, the child is."""
    path = str(tmp_path / "socket")
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            child = os.fork()
            if child == 0:
                os.write(writing, b"%d" % os.getpid())
            signal.pause()
    child = int(os.read(reading, 20))
    try:
        assert running.listener(path) == parent
        if heir == "child":
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
            assert running.listener(path) == child
    finally:
        os.kill(child, signal.SIGKILL)
        if heir == "parent":
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
        os.close(reading)
        os.close(writing)


def test_only_a_socket_that_listens_has_a_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert running.listener(path) == 0
        server.listen()
        assert running.listener(path) == os.getpid()


def test_another_user_is_no_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can mount folders for himself and listen on a path that is called like this one."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        process = subprocess.Popen(
            ["sleep", "1000"],
            pass_fds=[server.fileno()],
            user=65534 if os.getuid() == 0 else None,
        )
    try:
        if os.getuid():
            assert running.listener(path) == process.pid
            monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert running.listener(path) == 0
    finally:
        process.kill()
        process.wait()


def test_the_copy_of_an_environment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """This one lies in no folder of the system's Python."""
    assert cli.main(["status"]) == 0
    assert re.search(
        rf"^installed: +pyxsd {re.escape(pyxsd.__version__)} in {ROOT}$",
        capsys.readouterr().out,
        re.MULTILINE,
    )


# settings of Debian's file, whether pyxsd may be what they mean
DOUBTFUL = [
    ("if\nXENSTORED=/usr/sbin/pyxsd-launch\n", True),
    ("[ -x /usr/sbin/pyxsd ] && XENSTORED=/usr/sbin/pyxsd\n", True),
    ("XENSTORED=/usr/sbin/pyxsd-gone\n", True),
    ("if\n", False),
    ("if\n#XENSTORED=/usr/sbin/pyxsd-launch\n", False),
]


@pytest.mark.parametrize(("text", "used"), DOUBTFUL)
def test_in_use_where_the_settings_are_doubtful(
    capsys: pytest.CaptureFixture[str], host: Path, text: str, used: bool
) -> None:
    make(host, {**DEBIAN, "/etc/default/xen": text})
    code, said = status(capsys, host, "--in-use")
    assert (code, bool(said)) == ((0, True) if used else (1, False))


@pytest.mark.parametrize("answer", [rb"\x03\0\0\0OK\0", rb"\x09\0\0\0OK\0", rb"\x03\0"], ids=repr)
def test_an_older_pyxsd_tells_no_version(tmp_path: Path, answer: bytes) -> None:
    """It answers CONTROL commands that it does not know with OK; or it goes within its answer."""
    path = str(tmp_path / "s")
    code = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("up", flush=True)
client, _ = server.accept()
client.recv(100)
client.sendall(bytes(12) + b"ANSWER")
client.shutdown(socket.SHUT_WR)
client.recv(1)
""".replace("ANSWER", answer.decode())
    with subprocess.Popen(
        ["python3", "-c", code, path], stdout=subprocess.PIPE, cwd=ROOT
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        assert running.listener(path) == server.pid
        assert running.kind_of_process(server.pid) == "unknown"
        assert running.control_version(path) == ""
    wait_for(lambda: running.listener(path) == 0, "the listener is still found")
    assert running.control_version(path) == ""


@pytest.mark.parametrize("options", [[], ["-I"], ["-I", "-B"]], ids=len)
def test_a_script_is_known_by_its_name(tmp_path: Path, options: list[str]) -> None:
    """The first word behind the interpreter that is no option."""
    script = tmp_path / "oxenstored"
    script.write_text("print('up', flush=True)\ninput()\n")
    with subprocess.Popen(
        [sys.executable, *options, str(script), "pyxsd"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert running.kind_of_process(process.pid) == "oxenstored"
        process.kill()


def test_what_a_folder_of_somebody_says_is_only_shown(
    capsys: pytest.CaptureFixture[str], host: Path
) -> None:
    """Control characters, and what is no UTF-8, are escaped."""
    make(host, DEBIAN)
    (host / "etc/default/xen").write_bytes(b"XENSTORED=/usr/sbin/\x1b[2J\xff\n")
    code, out = status(capsys, host)
    assert code == 0 and "/usr/sbin/\\x1b[2J\\udcff is missing" in out


def test_letters_that_the_terminal_does_not_know(host: Path) -> None:
    """What a file of the host has in UTF-8 is shown as escapes, and read all the same."""
    files = {
        "/etc/default/xen": "XENSTORED=/usr/sbin/\u20ac\n",
        "/etc/xen/oxenstored.conf": "pid-file = /run/\u20ac\n",
    }
    make(host, {**DEBIAN, **files})
    done = subprocess.run(
        [sys.executable, "-m", "pyxsd.setup.cli", "status", "--root", str(host)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "POSIX",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert b"/usr/sbin/\\u20ac is missing" in done.stdout, done.stdout
    assert done.returncode == 0
