# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start a xenstored (Debian's two, or any command) on the stand-in Xen, in a private directory.

Each peer has a directory of its own: ``host/`` is the pretended host
(``$XSD_STANDIN_DIR``), ``run/`` holds socket, pid file and logs. Nothing is
read or written outside it, so many peers run side by side. Stdlib only; may be
run as a script: ``peers.py oxenstored`` starts one and waits for ^C.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import final

GLUE = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
NAMES = ("oxenstored", "xenstored")


class PeerMissing(RuntimeError):
    """A program that is needed is not installed (the text says which)."""


class PeerFailed(RuntimeError):
    """A peer ended, or did not answer in time; the text holds its output."""


def find_program(name: str) -> Path:
    """Debian's daemon `name`, or PeerMissing. ``$XSD_PEER_<NAME>`` overrides the path."""
    given = os.environ.get("XSD_PEER_" + name.upper())
    found = [given] if given else sorted(glob.glob(f"/usr/lib/xen-*/bin/{name}"))
    if not found or not os.access(found[-1], os.X_OK):
        raise PeerMissing(f"{name} is not installed (Debian package xen-utils-4.17)")
    return Path(found[-1])


def xen_version() -> str:
    """ "4.17": the version in the sonames of the installed daemons, else 4.17."""
    for name in NAMES:
        for path in glob.glob(f"/usr/lib/xen-*/bin/{name}"):
            match = re.search(r"xen-(\d+\.\d+)/", path)
            if match:
                return match.group(1)
    return "4.17"


def build_standin(out: Path | None = None, san: bool = False) -> Path:
    """Build the stand-in libraries (make, incremental) and return their directory.

    The default directory is ``$XSD_STANDIN_LIBS`` or ``glue/build``. Safe to
    call from many processes at once.
    """
    if out is None:
        out = Path(os.environ.get("XSD_STANDIN_LIBS") or GLUE / ("build-san" if san else "build"))
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-s", "-C", str(GLUE), "standin", f"OUT={out.resolve()}"]
        command += [f"XENVER={xen_version()}"] + (["SAN=1"] if san else [])
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    if done.returncode:
        raise PeerFailed(f"{' '.join(command)}\n{done.stdout}")
    return out.resolve()


def private_dir(prefix: str = "xsd-") -> Path:
    """A new directory, on tmpfs where there is one: no page is written back, paths are short."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix=prefix, dir=base))


def standin_env(
    host: Path,
    run: Path | None = None,
    *,
    manage: str = "",
    base: Mapping[str, str] | None = None,
    libs: Path | None = None,
) -> dict[str, str]:
    """The environment that puts a process on the pretended host `host`.

    run: also move the built-in paths (/proc/xen, /var/run/xenstored, ...) there
    with LD_PRELOAD, as Debian's daemons need. manage: "" no libxenmanage (as up to Xen
    4.19), "manage" with it, "manage0" in its first form.
    """
    libs = libs or build_standin()
    env = dict(os.environ if base is None else base)
    path = [str(libs / manage)] if manage else []
    path += [str(libs / "lib")] + [p for p in [env.get("LD_LIBRARY_PATH")] if p]
    env.update(XSD_STANDIN_DIR=str(host), LD_LIBRARY_PATH=":".join(path))
    if run is not None:
        env.update(XSD_STANDIN_RUNDIR=str(run), XENSTORED_RUNDIR=str(run))
        env["LD_PRELOAD"] = str(libs / "lib" / "xsd_preload.so")
    return env


def answers(path: Path) -> bool:
    """Whether a xenstored at the socket answers a DIRECTORY of the root."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(path))
            sock.sendall(struct.pack("=4I", 1, 1, 0, 2) + b"/\0")
            return len(sock.recv(16)) > 0
        except OSError:
            return False


@final
class Peer:
    """A running daemon; use as a context manager, or call stop()."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        root: Path,
        env: Mapping[str, str],
        *,
        sock: Path,
        owns_root: bool,
        nofile: int | None = None,
    ) -> None:
        """Start `command` and wait until it answers at `sock`."""
        self.name = name
        self.root = root
        self.host = root / "host"
        self.run = root / "run"
        self.socket = sock
        self.env = dict(env)
        self._owns_root = owns_root
        self._output = open(root / f"{name}.out", "wb")  # noqa: SIM115 (closed by stop)

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = f"--nofile={min(nofile or hard, hard)}:{hard}"
        self.process = subprocess.Popen(
            ["prlimit", limit, *command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._wait_ready(READY_SECONDS)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    def output(self) -> str:
        """What it wrote to stdout and stderr."""
        return (self.root / f"{self.name}.out").read_text(errors="replace")

    def _wait_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not answers(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                status = self.process.poll()
                text = self.output()
                self.stop()
                raise PeerFailed(f"{self.name}: status {status}, no answer\n{text}")
            time.sleep(0.005)

    def cpu_seconds(self) -> float:
        """User and system CPU time used so far (clock ticks of /proc, usually 10 ms)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))

    def kill(self) -> None:
        """End it without a goodbye (SIGKILL) and wait; the directory stays."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, SIGKILL after ten seconds, and remove the directory if it was made here."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._output.close()
        if self._owns_root:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def make_root(root: Path | None) -> Path:
    """`root` (or a new private directory) with its host/ and run/."""
    root = root or private_dir()
    for part in ("host", "run"):
        (root / part).mkdir(parents=True, exist_ok=True)
    return root


def oxenstored_config(root: Path, settings: Mapping[str, str] | None = None) -> Path:
    """Write root/oxenstored.conf: paths inside root, the rest built in or from `settings`."""
    values = {
        "pid-file": f"{root}/run/oxenstored.pid",
        "xenstored-kva": f"{root}/host/xsd_kva",
        "xenstored-port": f"{root}/host/xsd_port",
        "xenstored-log-file": f"{root}/run/xenstored.log",
        "access-log-file": f"{root}/run/xenstored-access.log",
    }
    values.update(settings or {})
    path = root / "oxenstored.conf"
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    return path


def start_oxenstored(
    root: Path | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    nofile: int | None = None,
) -> Peer:
    """Debian's oxenstored with dom0's ring. settings: lines of its configuration file,
    for instance {"access-log-nb-files": "0"} for no access log."""
    program = find_program("oxenstored")
    owns, root = root is None, make_root(root)
    config = oxenstored_config(root, settings)
    command = [str(program), "--no-fork", "--config-file", str(config), *args]
    return Peer(
        "oxenstored",
        command,
        root,
        standin_env(root / "host", root / "run"),
        sock=root / "run" / "socket",
        owns_root=owns,
        nofile=nofile,
    )


def start_xenstored(
    root: Path | None = None,
    *,
    args: Sequence[str] = (),
    nofile: int | None = None,
) -> Peer:
    """Debian's C xenstored with dom0's ring (no trace file)."""
    program = find_program("xenstored")
    owns, root = root is None, make_root(root)
    command = [str(program), "--no-fork", "--pid-file", f"{root}/run/xenstored.pid", *args]
    return Peer(
        "xenstored",
        command,
        root,
        standin_env(root / "host", root / "run"),
        sock=root / "run" / "socket",
        owns_root=owns,
        nofile=nofile,
    )


def start_command(
    name: str,
    command: Sequence[str],
    root: Path,
    *,
    sock: Path,
    manage: str = "",
    extra_env: Mapping[str, str] | None = None,
    preload: bool = False,
) -> Peer:
    """Any other daemon on the host root/host (see make_root); `sock`: where it will listen."""
    env = standin_env(root / "host", root / "run" if preload else None, manage=manage)
    env.update(extra_env or {})
    return Peer(name, command, root, env, sock=sock, owns_root=False)


STARTERS = {"oxenstored": start_oxenstored, "xenstored": start_xenstored}


def main(argv: Sequence[str]) -> int:
    """``peers.py oxenstored|xenstored``: start it, print where, stop at the end of stdin or ^C."""
    if len(argv) != 2 or argv[1] not in STARTERS:
        print(f"usage: {argv[0]} {'|'.join(STARTERS)}", file=sys.stderr)
        return 2
    starter = start_oxenstored if argv[1] == "oxenstored" else start_xenstored
    with starter() as peer:
        print(f"XENSTORED_RUNDIR={peer.run} XSD_STANDIN_DIR={peer.host} pid={peer.pid}", flush=True)
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
