# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a foreign xenstored has left for this process, which was it a moment ago: a state file and
descriptors.

The descriptors are looked at before anything else is opened: a number in the file that is free
would soon name something of our own.
"""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import os
import stat

from pyxsd.named import NamedTuple
from pyxsd.state.database import read_db
from pyxsd.state.dump import WARNINGS_MAX
from pyxsd.state.host_state import HostState, StateError
from pyxsd.state.node_reading import NodesOfFile
from pyxsd.state.stream_reader import read_stream
from pyxsd.store.filling import Filling
from pyxsd.system.files import content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Nodes that are there even where the file does not have them.
SPECIAL = (b"@introduceDomain", b"@releaseDomain")

STREAM_NAME, DB_NAME = "state_dump", "db"

#: Where C xenstored 4.15 and 4.16 keep their file, where XENSTORED_ROOTDIR does not say it.
OLD_C_DIRECTORY = "/var/lib/xenstored"


class Inherited(NamedTuple):
    """What was found.

    path: the state file, "" where there is none.  state: without its nodes, and empty where the
    file cannot be read; nodes: those, in a tree.
    listener, channels: descriptors that are what they should be, or -1.  sockets: those of
    the clients of the state, by its number there.  faults: what could not be had, in sentences.
    """

    path: str
    state: HostState
    nodes: NodesOfFile
    listener: int
    channels: int
    sockets: frozenset[int]
    faults: list[str]

    @property
    def should_listen(self) -> bool:
        """Did the old daemon listen, or was nothing left by any?"""
        return self.state.listener >= 0 or (self.channels < 0 and not self.sockets)


def stream_paths(run_directory: str, environ: Mapping[str, str]) -> list[str]:
    """Where a C xenstored may have left its state, or look for one."""
    old = environ.get("XENSTORED_ROOTDIR") or OLD_C_DIRECTORY
    return [os.path.join(folder, STREAM_NAME) for folder in (run_directory, old)]


def take(kind: str, run_directory: str, environ: Mapping[str, str]) -> Inherited:
    """Reads the file of a `stream` or of a `db` and looks at the descriptors that it names.

    Whatever is wrong with them is a fault: nobody else will serve this host.
    """
    faults: list[str] = []
    path = (
        _newest(stream_paths(run_directory, environ))
        if kind == "stream"
        else os.path.join(run_directory, DB_NAME)
    )
    nodes = NodesOfFile(Filling())
    for name in SPECIAL:
        nodes.tree.load([name], b"n0\0", b"")
    state = _read(kind, path, nodes, faults)
    taken: set[int] = set()
    listener = _socket_of(state.listener, "the listening socket", True, taken, faults)
    if listener < 0 and (state.listener >= 0 or not nodes.count):
        listener = _own_listener(taken)
    channels = -1
    if state.evtchn >= 0 and _is_device(state.evtchn):
        channels = state.evtchn
        taken.add(channels)
    elif state.evtchn >= 0:
        faults.append(f"descriptor {state.evtchn}, the event channels, is not what it should be")
    sockets = {
        client.fd
        for client in state.clients
        if client.domid is None and _socket_of(client.fd, "a client", False, taken, faults) >= 0
    }
    return Inherited(path, state, nodes, listener, channels, frozenset(sockets), faults)


def _newest(paths: list[str]) -> str:
    """The one that was written last; the first where there is none."""
    times = []
    for path in paths:
        try:
            times.append((os.stat(path).st_mtime_ns, path))
        except OSError:
            pass
    return max(times)[1] if times else paths[0]


def _read(kind: str, path: str, nodes: NodesOfFile, faults: list[str]) -> HostState:
    """The state of the file; a part of it where its form is damaged, as the faults say."""
    try:
        data = content(path)
        state = (
            read_stream(data, damaged=True, into=nodes)
            if kind == "stream"
            else read_db(data, into=nodes)
        )
    except OSError as error:
        faults.append(f"{path}: {error.strerror}; the store is empty")
        return HostState(kind)
    except StateError as error:
        faults.append(f"{path}: {error}; the store is empty")
        return HostState(kind)
    faults += [f"{path}: {fault}" for fault in state.faults[:WARNINGS_MAX]]
    if len(state.faults) > WARNINGS_MAX:
        faults.append(f"{path}: {len(state.faults) - WARNINGS_MAX} more faults")
    return state


def _socket_of(fd: int, what: str, listens: bool, taken: set[int], faults: list[str]) -> int:
    """The descriptor, close-on-exec and not blocking, where it is a socket of that kind that nobody
    has taken yet; else -1."""
    if fd < 0:
        return -1
    if fd in taken or not _is_socket(fd, listens):
        faults.append(f"descriptor {fd}, {what}, is not what it should be")
        return -1
    taken.add(fd)
    os.set_inheritable(fd, False)
    os.set_blocking(fd, False)
    return fd


def _is_socket(fd: int, listens: bool) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        found = _socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return (found.family, found.type & 0xF) == (_socket.AF_UNIX, _socket.SOCK_STREAM) and bool(
            found.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
        ) == listens
    except OSError:
        return False
    finally:
        found.detach()


def _is_device(fd: int) -> bool:
    """Is it open, and neither a socket nor standard input or output?"""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return fd > 2 and not _is_socket(fd, True) and not _is_socket(fd, False)


def _own_listener(taken: set[int]) -> int:
    """A listening socket among all descriptors of this process; -1 where there is none."""
    try:
        numbers = sorted(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return -1
    for fd in numbers:
        if fd > 2 and fd not in taken and _is_socket(fd, True):
            return _socket_of(fd, "", True, taken, [])
    return -1


def remove(path: str) -> None:
    """Removes a stream that was read, as C xenstored does.  Never fails."""
    try:
        os.unlink(path)
    except OSError:
        pass  # it was not there, or somebody removed it
