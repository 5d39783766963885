# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's own xenstored_start and Xen's own launch-xenstore, each run twice with the launcher.

They are read from the installed package xen-utils-common; paths of the host in them are replaced
by those of a temporary folder.  The daemon runs on the stand-in Xen, so that domain 0 is set up.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd.setup import running
from tests.clients.daemon import Client
from tests.domains.standin import guests, peers
from tests.setup.dom0 import ends, lacking, need, programs

DEBIAN = Path("/etc/init.d/xen")
LAUNCH_XENSTORE = Path("/etc/xen/scripts/launch-xenstore")

# What surrounds Debian's function: its variables, and messages that go to stdout.
AROUND = """
log_progress_msg() {{ echo "progress: $1"; }}
log_failure_msg() {{ echo "failure: $1"; }}
PATH=/sbin:/bin:/usr/sbin:/usr/bin
ROOT={folder}/xen
CXENSTORED=$ROOT/bin/xenstored
OXENSTORED=$ROOT/bin/oxenstored
XENSTORED_DIR={folder}/run
XENSTORED_PIDFILE={folder}/xenstore.pid
. {folder}/default
{function}
xenstored_start
"""


class Host:
    """A temporary folder as a dom0 on the stand-in Xen."""

    def __init__(self) -> None:
        self.folder: Path = peers.make_root(None)
        self.standin: Any = guests.Host(self.folder / "host")
        self.launcher = programs(self.folder / "bin")
        self.socket = self.folder / "run" / "socket"
        (self.folder / "run").mkdir(exist_ok=True)
        (self.folder / "xen" / "bin").mkdir(parents=True)
        init = self.folder / "xen" / "bin" / "xen-init-dom0"
        init.write_text(f"#!/bin/sh\necho called >>{self.folder}/init-dom0\n")
        init.chmod(0o755)
        (self.folder / "conf").write_text(
            f"pid-file = {self.folder}/configured.pid\nxenstored-log-file = {self.folder}/log\n"
            f"access-log-file = {self.folder}/access\nxenstored-kva = {self.folder}/host/xsd_kva\n"
            f"xenstored-port = {self.folder}/host/xsd_port\n"
        )
        (self.folder / "default").write_text(
            f"XENSTORED={self.launcher}\nXENSTORED_ARGS='--config-file {self.folder}/conf'\n"
            # Both without the rights that a container lacks.
            "XENSTORED_MAX_OPEN_FDS=1024\nXENSTORED_OOM_MEM_THRESHOLD=0\n"
        )
        self.env = peers.standin_env(self.folder / "host", libs=peers.build_standin())
        self.env["XENSTORED_RUNDIR"] = str(self.folder / "run")

    def shell(self, text: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
        """Runs a script's text."""
        return subprocess.run(
            [shell, "-c", text],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def pid(self) -> int:
        """The daemon that listens, 0 if none does."""
        return running.listener(str(self.socket))

    def close(self) -> None:
        """Ends the daemon."""
        pid = self.pid()
        if pid:
            os.kill(pid, 15)
            ends(pid)
        self.standin.close()


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on which nothing runs."""
    for program, package in (
        ("start-stop-daemon", "dpkg"),
        ("choom", "util-linux"),
        ("xenstore-read", "xenstore-utils"),
    ):
        need(program, package)
    here = Host()
    yield here
    here.close()


def script(path: Path) -> str:
    """The text of an installed script."""
    if not path.exists():
        lacking(f"{path} is not installed (Debian package xen-utils-common)")
    return path.read_text()


def test_debian_s_script_twice(host: Host) -> None:
    """An upgrade of xen-utils runs it again beside the daemon: status 0 and the same process."""
    found = re.search(r"^xenstored_start\(\)\n\{\n.*?^\}", script(DEBIAN), re.DOTALL | re.MULTILINE)
    assert found, f"{DEBIAN} has no function xenstored_start"
    # Scores below 0 need rights that a container lacks.
    assert "-n -1000" in found.group()
    text = AROUND.format(folder=host.folder, function=found.group().replace("-n -1000", "-n 100"))
    first = host.shell(text)
    assert first.returncode == 0, first.stdout + first.stderr
    pid = host.pid()
    assert pid and (host.folder / "xenstore.pid").read_text() == f"{pid}\n"
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "100\n"
    with Client(host.socket) as client:
        assert client.ask("WRITE", b"/kept\0yes")[0] != 16
        assert client.ask("IS_DOMAIN_INTRODUCED", b"0\0")[1] == b"T\0"

    again = host.shell(text)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"nothing to start: a xenstored (pyxsd, process {pid}) answers" in again.stderr
    assert host.pid() == pid
    assert (host.folder / "xenstore.pid").read_text() == f"{pid}\n"
    assert (host.folder / "init-dom0").read_text() == "called\n" * 2
    with Client(host.socket) as client:
        assert client.ask("READ", b"/kept\0")[1] == b"yes"


def test_launch_xenstore_twice(host: Host) -> None:
    """Run again, it removes the pid file and waits for it, if the file is not there first."""
    folder = host.folder
    text = script(LAUNCH_XENSTORE)
    for old, new in (
        ("/etc/xen/scripts/hotplugpath.sh", "/dev/null"),
        ("/etc/default/xencommons", f"{folder}/default"),
        ("/var/run/xen", f"{folder}"),
        ("systemd-notify", "false"),
    ):
        assert old in text
        text = text.replace(old, new)
    text = text.replace("/etc/sysconfig/xencommons", f"{folder}/default")
    first = host.shell(text, "bash")
    assert first.returncode == 0, first.stdout + first.stderr
    pid = host.pid()
    pid_file = folder / "xenstored.pid"
    assert pid and pid_file.read_text() == f"{pid}\n"

    assert host.shell(text, "bash").returncode == 0
    assert host.pid() == pid
    # Something took the pid file away: the script starts the daemon again.
    pid_file.unlink()
    again = host.shell(text, "bash")
    assert again.returncode == 0, again.stdout + again.stderr
    assert host.pid() == pid
    assert pid_file.read_text() == f"{pid}\n"
