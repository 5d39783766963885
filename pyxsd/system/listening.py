# SPDX-License-Identifier: LGPL-2.1-or-later
"""The run directory and the listening socket in it.

Two xenstored daemons on one host would both answer the guests.  Starting beside one that is
alive therefore fails (`AlreadyRunning`), while a socket that a killed daemon left behind is
replaced, so that it does not keep the host from booting.
"""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import errno
import fcntl
import os
import select
import stat
import struct
import time

from pyxsd.system.errors import AlreadyRunning, ServiceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_RUN_DIRECTORY = "/var/run/xenstored"

# The kernel cuts it to net.core.somaxconn.
BACKLOG = 65535

PROBE_SECONDS = 2.0

# A daemon that starts holds the lock for as long as it probes the socket.
LOCK_SECONDS = 5.0
# Beside the socket, while a daemon starts.  Whoever may read the run directory could lock the
# directory itself, and keep every daemon from starting; only its owner can open this file.
LOCK_SUFFIX = ".lock"

# struct xsd_sockmsg: type, req_id, tx_id, len.  READ is 2; any answer at all will do.
_READ_ROOT = struct.pack("=IIII", 2, 0, 0, 2) + b"/\0"
_HEADER_LENGTH = 16


def run_directory(environ: Mapping[str, str]) -> str:
    """XENSTORED_RUNDIR as libxenstore reads it, else /var/run/xenstored."""
    return environ.get("XENSTORED_RUNDIR") or DEFAULT_RUN_DIRECTORY


def socket_path(environ: Mapping[str, str]) -> str:
    """XENSTORED_PATH as libxenstore reads it, else `socket` in the run directory."""
    return environ.get("XENSTORED_PATH") or run_directory(environ) + "/socket"


def make_directory(path: str) -> None:
    """Make a directory and those above it, mode 0700; one that exists is left as it is."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        raise ServiceError(f"cannot make the directory {path}: {error.strerror}") from error


ABSENT = "absent"  # nothing is at the path
STALE = "stale"  # a socket, or a link to nothing, is there, and nobody listens
LIVE = "live"  # a daemon answers
SILENT = "silent"  # something listens and does not answer: a hung daemon is a live one


def probe(path: str, timeout: float = PROBE_SECONDS) -> str:
    """Whether a xenstored serves the socket: connects and reads `/`, within `timeout` seconds.

    OSError where it cannot be told: no permission, another kind of socket, or something that no
    daemon can have left behind, such as a regular file or a directory.
    """
    deadline = time.monotonic() + timeout
    while True:
        state = _probe_once(path, deadline)
        # "" is a connection that was accepted and ended without an answer: perhaps a daemon that
        # is just leaving, so look again whether it still listens.
        if state:
            return state
        if time.monotonic() >= deadline:
            return SILENT
        time.sleep(0.02)


def _probe_once(path: str, deadline: float) -> str:
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        client.setblocking(False)
        try:
            client.connect(path)
        except FileNotFoundError:
            return ABSENT
        except ConnectionRefusedError:
            _must_be_socket(path)
            return STALE
        except BlockingIOError:  # its backlog is full
            return SILENT
        try:
            client.send(_READ_ROOT)
            answer = b""
            while len(answer) < _HEADER_LENGTH:
                if not _readable(client.fileno(), deadline - time.monotonic()):
                    return SILENT
                chunk = client.recv(_HEADER_LENGTH - len(answer))
                if not chunk:
                    return ""
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            return ""
        return LIVE
    finally:
        client.close()


def _must_be_socket(path: str) -> None:
    """OSError if something other than a socket is at the path; links are followed."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise OSError(errno.ENOTSOCK, "it is not a socket, so no daemon left it behind")


def _readable(fd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(seconds, 0.0) * 1000))


def listen(
    path: str,
    backlog: int = BACKLOG,
    timeout: float = PROBE_SECONDS,
    lock_timeout: float = LOCK_SECONDS,
) -> int:
    """Make the listening socket and return its descriptor (non-blocking, cloexec).

    Its mode is left to the umask, but that others may not connect: whoever connects is domain 0,
    and the run directory may be one that everybody may enter.  A stale socket is replaced, anything
    else at the path is left alone and refused.  The run directory is made.  A file beside the
    socket is locked meanwhile: of two daemons that start together exactly one gets the socket.
    AlreadyRunning beside a live xenstored, ServiceError for what the system refuses.
    """
    directory = os.path.dirname(path) or "."
    make_directory(directory)
    lock = _lock(path + LOCK_SUFFIX, directory, lock_timeout)
    try:
        state = probe(path, timeout)
        if state == LIVE:
            raise AlreadyRunning(f"a xenstored is running: it answers on {path}")
        if state == SILENT:
            raise AlreadyRunning(f"a xenstored is running: something listens on {path}")
        if os.path.lexists(path):  # stale, or a symbolic link to nothing
            os.unlink(path)
        return _bind(path, backlog)
    except OSError as error:
        raise ServiceError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        remove(path + LOCK_SUFFIX)
        os.close(lock)


def remove(path: str) -> None:
    """Remove the socket that `listen` made, where the start fails behind it.  Never fails.

    To be called while its descriptor is open: until it is closed nobody else listens at the path,
    and nobody else has the lock, where it is the file that `listen` locks.
    """
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody removed it


def _lock(path: str, directory: str, timeout: float) -> int:
    """The descriptor of a file that this process has locked at the path; whoever removes it does
    so while it is locked."""
    deadline = time.monotonic() + timeout
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise ServiceError(f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass  # somebody has it, or had it and has removed it
        except OSError as error:
            os.close(fd)
            raise ServiceError(f"cannot lock {path}: {error.strerror}") from error
        os.close(fd)
        if time.monotonic() >= deadline:
            raise AlreadyRunning(f"another daemon is starting in {directory}")
        time.sleep(0.01)


def _bind(path: str, backlog: int) -> int:
    kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    server = _socket.socket(_socket.AF_UNIX, kind)
    mask = os.umask(0o777)
    try:
        os.umask(mask | stat.S_IWOTH)
        server.bind(path)
        server.listen(backlog)
    except OSError:
        server.close()
        raise
    finally:
        os.umask(mask)
    return server.detach()
