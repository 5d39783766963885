# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts pyxsd in the foreground for a look at it, with its files under ./run/.

It runs on the stand-in Xen, so that domains can be introduced on a machine
without one: see glue/standin/README.md and tools/ask.py.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "run"
sys.path.insert(0, str(ROOT / "glue" / "standin"))

import guest  # noqa: E402
import peers  # noqa: E402

EXAMPLES = f"""\
In another terminal, in {ROOT}:
    python3 tools/ask.py write /hello world ls /     # write a value, show the tree
    python3 tools/ask.py domain 5                    # boot a domain that uses its ring
    XENSTORED_RUNDIR=$PWD/run xenstore-ls -s         # Debian's own client (xenstore-utils)
"""


def lock() -> int:
    """A lock on ./run/ that lasts as long as anybody has its descriptor; -1: somebody else's."""
    RUN.mkdir(exist_ok=True)
    fd = os.open(RUN / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def prepare() -> dict[str, str]:
    """Makes the pretended host and the configuration anew; the daemon's environment."""
    shutil.rmtree(RUN / "host", ignore_errors=True)
    (RUN / "host").mkdir()
    libs = peers.build_standin()
    guest.Host(RUN / "host").close()
    settings = {
        "pid-file": RUN / "xenstored.pid",
        "xenstored-log-file": RUN / "xenstored.log",
        "access-log-file": RUN / "xenstored-access.log",
        "xenstored-log-level": "info",
        "xenstored-kva": RUN / "host" / "xsd_kva",
        "xenstored-port": RUN / "host" / "xsd_port",
    }
    (RUN / "pyxsd.conf").write_text("".join(f"{key} = {at}\n" for key, at in settings.items()))
    env = peers.standin_env(RUN / "host", libs=libs)
    env["XENSTORED_RUNDIR"] = str(RUN)
    env.pop("XENSTORED_PATH", None)
    return env


def wait_ready(daemon: subprocess.Popen[bytes], notify: socket.socket) -> bool:
    """Until the daemon says READY; False where it ended instead."""
    while daemon.poll() is None:
        if select.select([notify], [], [], 0.2)[0] and b"READY=1" in notify.recv(4096):
            return True
    return False


def wait_end(pid: int, notify: socket.socket) -> int:
    """Until that process ends, or says that another one has taken over from it by a live update:
    the process id of that one, else 0."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        while True:
            ready = select.select([notify.fileno(), watched], [], [])[0]
            if notify.fileno() in ready:
                # Descriptors that come along (a barrier) are closed by not being taken.
                for line in notify.recv(4096).split(b"\n"):
                    if line.startswith(b"MAINPID="):
                        return int(line[len(b"MAINPID=") :])
            elif ready:
                return 0
    finally:
        os.close(watched)


def serve(held: int) -> int:
    """Runs the daemon until it ends; its exit status.  It keeps the lock as well."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("")  # the kernel chooses an abstract name
        env = prepare()
        env["NOTIFY_SOCKET"] = "@" + notify.getsockname()[1:].decode()
        command = [
            sys.executable,
            "-m",
            "pyxsd",
            "--no-fork",
            "--config-file",
            str(RUN / "pyxsd.conf"),
        ]
        daemon = subprocess.Popen(command, env=env, cwd=ROOT, pass_fds=[held])
        serving = daemon.pid
        ends = [signal.SIGINT, signal.SIGTERM]
        # A terminal that is closed, unless `nohup` was asked for that: the daemon would go on
        # with nobody to end it, since to itself SIGHUP says "open the logs again".
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            ends.append(signal.SIGHUP)
        for number in ends:
            signal.signal(number, lambda *_: os.kill(serving, signal.SIGTERM))
        if wait_ready(daemon, notify):
            print(f"ready: {RUN}/socket\n\n{EXAMPLES}\nCtrl-C ends it.", flush=True)
            while following := wait_end(serving, notify):
                serving = following
        status = daemon.wait()
    (RUN / "socket").unlink(missing_ok=True)
    return status


def main(words: list[str]) -> int:
    """Runs one daemon, unless one runs already."""
    if words:
        sys.exit(f"run.py takes no arguments.\n{__doc__}")
    try:
        held = lock()
        if held < 0:
            sys.exit(
                f"A pyxsd runs here already, with its socket at {RUN}/socket: "
                f"Ctrl-C in its terminal ends it.\n\n{EXAMPLES}"
            )
        status = serve(held)
    except (OSError, peers.PeerFailed) as error:
        sys.exit(f"run.py: {error}")
    if status == 0:
        print(f"\nGoodbye. The logs are in {RUN}/.", flush=True)
    else:
        print(f"\npyxsd ended with status {status}. The logs are in {RUN}/.", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
