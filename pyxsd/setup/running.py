# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which xenstored runs now: its process, whether it answers, and its version.

Looking changes nothing: `/` is read over the socket, and a pyxsd is asked for its version.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from dataclasses import dataclass

from pyxsd.setup import ANSWER_SECONDS, boot
from pyxsd.setup.tree import Tree
from pyxsd.system import configuration, listening, pid_file

ABSENT, STALE, LIVE, SILENT = listening.ABSENT, listening.STALE, listening.LIVE, listening.SILENT

#: Pid files that Debian's and Xen's scripts give, besides the configured one.
PID_FILES = ("/run/xenstore.pid", "/run/xen/xenstored.pid")

# struct xsd_sockmsg: type, req_id, tx_id, len.  CONTROL is type 0.
_HEADER = struct.Struct("=IIII")
_CONTROL = 0
_ANSWER_MAX = 4096

# The flag of a listening socket in /proc/net/unix.
_LISTENING = 0x10000


@dataclass(frozen=True)
class Running:
    """What was found.

    state: ABSENT, STALE, LIVE or SILENT; "" where it cannot be told, and fault says why.
    socket: its path.  pid: 0 where no process is found.  kind: pyxsd, oxenstored, C xenstored,
    or "unknown", "" without a process.  version: pyxsd's, "" where it does not say.
    """

    state: str
    socket: str
    pid: int = 0
    kind: str = ""
    version: str = ""
    fault: str = ""

    @property
    def who(self) -> str:
        """The process in words."""
        if not self.pid:
            return "an unknown process"
        name = self.kind if self.kind not in ("", "unknown") else "an unknown program"
        return f"{name}, process {self.pid}"


def look(
    path: str, pid_files: tuple[str, ...] = (), ask: bool = True, seconds: float = ANSWER_SECONDS
) -> Running:
    """What runs at the socket `path`, or holds one of `pid_files` (both paths of this machine).

    With ask=False the socket is left alone: a process that listens there counts as LIVE.
    """
    pid = listener(path) or next(filter(None, map(holder, pid_files)), 0)
    state, fault = "", ""
    if ask:
        try:
            state = listening.probe(path, seconds)
        except OSError as error:
            fault = f"{path}: {error.strerror or error}"
    else:
        state = LIVE if pid else STALE if os.path.lexists(path) else ABSENT
    kind = kind_of_process(pid) if pid else ""
    version = ""
    if ask and state == LIVE and kind == "pyxsd":
        version = control_version(path, seconds)
    return Running(state, path, pid, kind, version, fault)


def look_in(tree: Tree, ask: bool = True) -> Running:
    """What runs on the host with these files."""
    path = (
        listening.socket_path(os.environ)
        if tree.is_this_host
        else listening.DEFAULT_RUN_DIRECTORY + "/socket"
    )
    try:
        text = tree.read(configuration.DEFAULT_PATH) or ""
    except OSError:
        text = ""
    config, _ = configuration.parse(text.encode("utf-8", "surrogateescape"))
    names = (config.pid_file, *PID_FILES)
    return look(tree.locate(path), tuple(tree.locate(name) for name in names if name), ask)


def listener(path: str) -> int:
    """The process that listens on a Unix socket, 0 where none is found.

    The kernel names the socket's inode in /proc/net/unix; the process is the one that has it
    among its descriptors, and the parent where a parent and its child have it.  Only root sees
    those of others.
    """
    found = _holders(path)
    return next((pid for pid in found if _parent(pid) not in found), 0)


def _holders(path: str) -> list[int]:
    """All processes of root's or this user's that have the socket.  With folders of its own for a
    process, anybody can let a socket have this path in the kernel's list."""
    found: list[int] = []
    inodes = _listening_inodes(os.path.realpath(path))
    if not inodes:
        return found
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        folder = f"/proc/{name}/fd"
        try:
            for fd in os.listdir(folder):
                link = os.readlink(f"{folder}/{fd}")
                if link.startswith("socket:[") and link[8:-1] in inodes:
                    if pid_file.is_of_root_or_own(int(name)):
                        found.append(int(name))
                    break
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def _parent(pid: int) -> int:
    """The process that has started it; 0 where that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _listening_inodes(real_path: str) -> set[str]:
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(None, 7) for line in file]
    except OSError:
        return set()
    return {
        row[6]
        for row in rows[1:]
        if len(row) == 8
        and int(row[3], 16) & _LISTENING
        and row[7].startswith("/")
        and os.path.realpath(row[7]) == real_path
    }


def holder(path: str) -> int:
    """The live xenstored that a pid file names, 0 where there is none."""
    try:
        text = configuration.read_file(path)[:32].strip()
    except OSError:
        return 0
    pid = int(text) if text.isdigit() else 0
    return pid if pid_file.is_xenstored(pid) else 0


def kind_of_process(pid: int) -> str:
    """What a process is, by its program and, of an interpreter, the first word that names one."""
    names = []
    for read in (_executable, _command_name, _script):
        try:
            names.append(read(pid))
        except OSError:
            continue
    kinds = [boot.kind_of(name) for name in names]
    return next((kind for kind in kinds if kind != "unknown"), "unknown")


def _executable(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/exe")


def _command_name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return os.fsdecode(file.read().strip())


def _script(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    return os.fsdecode(next((word for word in words[1:] if not word.startswith(b"-")), b""))


def control_version(path: str, seconds: float = ANSWER_SECONDS) -> str:
    """The version that a pyxsd gives to CONTROL `version`, such as "0.1.0".

    "" where it gives none: it is older than that command, or did not answer in time.
    """
    text = control(path, b"version\0", seconds)
    found = re.fullmatch(rb"pyxsd ([^\s\0]+)\0?", text)
    return found.group(1).decode("ascii", "replace") if found else ""


def control(path: str, payload: bytes, seconds: float = ANSWER_SECONDS) -> bytes:
    """The answer to a CONTROL request; b"" where there was none in time, or an error."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect(path)
            client.sendall(_HEADER.pack(_CONTROL, 0, 0, len(payload)) + payload)
            kind, _, _, length = _HEADER.unpack(_receive(client, _HEADER.size))
            text = _receive(client, min(length, _ANSWER_MAX))
        except (OSError, EOFError):
            return b""
    return text if kind == _CONTROL else b""


def _receive(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = client.recv(length - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
