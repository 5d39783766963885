# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon as a service of the host: run directory, socket, pid files, systemd, file limit.

What lives here: everything between "the command line is read" and "the loop runs" that concerns
the machine and its init system.  It knows nothing of the store, of connections or of logs:
failures are `ServiceError`s and warnings are returned texts.

Two xenstoreds on one host would both answer the guests, so a start beside a live one must fail
(`AlreadyRunning`), while what a killed one left behind must not stop the host from booting.
"""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import fcntl
import os
import resource
import select
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_RUN_DIRECTORY = "/var/run/xenstored"

# The kernel cuts it to net.core.somaxconn.
BACKLOG = 65535

STATUS_FATAL = 2  # exit status of oxenstored's fatal errors

PROBE_SECONDS = 2.0

# Others lock directories for moments (systemd-tmpfiles does), and a daemon that starts holds its
# run directory's lock no longer than its own probe takes.
LOCK_SECONDS = 5.0

# struct xsd_sockmsg: type, req_id, tx_id, len.  READ is 2; any answer at all will do.
_READ_ROOT = struct.pack("=IIII", 2, 0, 0, 2) + b"/\0"
_HEADER_LENGTH = 16

# struct flock: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"

# How the programs that are a xenstored are called; a suffix (-4.17, .orig) may follow.
_XENSTOREDS = ("xenstored", "oxenstored", "pyxsd")


class ServiceError(Exception):
    """The daemon cannot start; the text says why, for stderr."""


class AlreadyRunning(ServiceError):
    """A live xenstored holds the socket or a pid file."""


# --- where things are ---


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


# --- the socket ---

ABSENT = "absent"  # nothing is at the path
STALE = "stale"  # something is there, and nobody listens
LIVE = "live"  # a daemon answers
SILENT = "silent"  # something listens and does not answer: a hung daemon is a live one


def probe(path: str, timeout: float = PROBE_SECONDS) -> str:
    """Whether a xenstored serves the socket: connects and reads `/`, within `timeout` seconds.

    OSError where it cannot be told (no permission, another kind of socket).
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

    Its mode is left to the umask.  A stale socket is replaced.  The run directory is made, and
    locked meanwhile: of two daemons that start together exactly one gets the socket.
    AlreadyRunning beside a live xenstored, ServiceError for what the system refuses.
    """
    directory = os.path.dirname(path) or "."
    make_directory(directory)
    lock = _lock_directory(directory, lock_timeout)
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
        os.close(lock)


def _lock_directory(directory: str, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ServiceError(f"cannot open {directory}: {error.strerror}") from error
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise AlreadyRunning(f"another daemon is starting in {directory}") from None
            time.sleep(0.01)
        except OSError as error:
            os.close(fd)
            raise ServiceError(f"cannot lock {directory}: {error.strerror}") from error


def _bind(path: str, backlog: int) -> int:
    kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    server = _socket.socket(_socket.AF_UNIX, kind)
    try:
        server.bind(path)
        server.listen(backlog)
    except OSError:
        server.close()
        raise
    return server.detach()


# --- pid files ---


def is_xenstored(pid: int) -> bool:
    """Whether a live process is a xenstored, by its names: pids of dead daemons are reused.

    Where /proc does not tell, a process that exists counts as one.
    """
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # EPERM: it exists
    except OverflowError:
        return False
    if not os.path.isdir("/proc/self"):
        return True
    names = []
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, rest = file.read().partition(b"(")[2].rpartition(b")")
        if rest[1:2] in (b"Z", b"X"):  # killed, and nobody has waited for it yet
            return False
        names.append(state)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            names.extend(_program_words(file.read().split(b"\0")))
        names.append(os.fsencode(os.readlink(f"/proc/{pid}/exe")))
    except OSError:
        pass  # it ended meanwhile, or its exe link is not for us: the names so far decide
    return any(os.path.basename(os.fsdecode(name)).startswith(_XENSTOREDS) for name in names)


def _program_words(words: list[bytes]) -> list[bytes]:
    """The words of a command line that name the program: of `python3 -m pyxsd` the third."""
    if not os.path.basename(words[0]).startswith(b"python"):
        return words[:1]
    for word in words[1:]:
        if not word.startswith(b"-"):
            return [words[0], word]
    return words[:1]


class PidFile:
    """A pid file that this process holds: locked, and removed by `remove`."""

    def __init__(self, path: str, fd: int, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity  # device and inode
        self._fd = fd

    @classmethod
    def claim(cls, path: str) -> PidFile:
        """Write `<pid>\\n` into the file, mode 0640, and keep it locked.

        A stale file is taken over, with its lock held while that is decided: of several
        claimers one succeeds.  AlreadyRunning where a live xenstored holds it; OSError else.
        The lock conflicts with the one that C xenstored takes on its pid file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        while True:
            fd = os.open(path, flags, 0o640)
            try:
                status = os.fstat(fd)
                regular = stat.S_ISREG(status.st_mode)
                if regular:
                    if not _lock(fd):
                        raise AlreadyRunning(_holder_text(path, _read_pid(fd)))
                    if not _is_at(path, status):
                        os.close(fd)  # its holder removed it while we opened it
                        continue
                    pid = _read_pid(fd)
                    if is_xenstored(pid):
                        raise AlreadyRunning(_holder_text(path, pid))
                    os.fchmod(fd, 0o640)
                    os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
            except BaseException:
                os.close(fd)
                raise
            if not regular:  # /dev/null and the like: nothing to lock, nothing to remove
                os.close(fd)
                fd = -1
            return cls(path, fd, (status.st_dev, status.st_ino))

    def remove(self) -> None:
        """Remove the file, if it is still this one, and release it.  Never fails."""
        if self._fd < 0:
            return
        try:
            if _is_at(self.path, os.fstat(self._fd)):
                os.unlink(self.path)
        except OSError:
            pass  # gone already, or not permitted any more
        os.close(self._fd)
        self._fd = -1


def check_pid_file(path: str) -> None:
    """AlreadyRunning where a live xenstored holds the file; nothing is changed.

    For the parent before it forks, so that the refusal is seen early; `claim` decides.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            pid = _read_pid(fd)
            if _is_locked(fd) or is_xenstored(pid):
                raise AlreadyRunning(_holder_text(path, pid))
    finally:
        os.close(fd)


def claim_pid_files(configured: str, given: str) -> tuple[list[PidFile], list[str]]:
    """Claim the configured pid file and the command line's; return them, and warnings.

    Empty names are none, and the same file twice is one.  What the system refuses is a warning
    for the configured file and a ServiceError for the given one; AlreadyRunning is either's.
    On an exception nothing stays claimed.
    """
    held: list[PidFile] = []
    warnings: list[str] = []
    try:
        for path, required in ((configured, False), (given, True)):
            if not path or _identity(path) in [file.identity for file in held]:
                continue
            try:
                held.append(PidFile.claim(path))
            except (OSError, ValueError) as error:
                text = f"cannot write the pid file {path}: {_reason(error)}"
                if required:
                    raise ServiceError(text) from error
                warnings.append(text)
    except BaseException:
        for file in held:
            file.remove()
        raise
    return held, warnings


def _reason(error: OSError | ValueError) -> str:
    """In words; a ValueError is how Python refuses such a path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else "NUL in the name"


def _holder_text(path: str, pid: int) -> str:
    who = f"process {pid}" if pid > 0 else "another process"
    return f"a xenstored is running: {who} holds the pid file {path}"


def _read_pid(fd: int) -> int:
    """The pid in the file, or 0."""
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_at(path: str, status: os.stat_result) -> bool:
    return _identity(path) == (status.st_dev, status.st_ino)


def _lock(fd: int) -> bool:
    """Lock the whole file for as long as the descriptor is open; False where another has it.

    An open file description's lock: unlike lockf's, it is not dropped when some other
    descriptor of the file is closed, and survives a fork.
    """
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_locked(fd: int) -> bool:
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted)
    except OSError:
        return False
    kind: int = struct.unpack_from("h", found)[0]
    return kind != fcntl.F_UNLCK


# --- systemd ---


class Notifier:
    """sd_notify(3)'s protocol.  Without NOTIFY_SOCKET every call does nothing and is False."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # '@' stands for the NUL that an abstract socket's name begins with.
        self._address = "\0" + name[1:] if name.startswith("@") else name

    def ready(self, main_pid: int = 0) -> bool:
        """READY=1; after daemonizing with the pid that the service manager shall watch."""
        return self._send(f"READY=1\nMAINPID={main_pid}" if main_pid else "READY=1")

    def reloading(self) -> bool:
        """RELOADING=1, to be followed by `ready`."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> bool:
        """STOPPING=1."""
        return self._send("STOPPING=1")

    def _send(self, text: str) -> bool:
        if not self._address:
            return False
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC
        client = _socket.socket(_socket.AF_UNIX, kind)
        try:
            client.settimeout(1.0)
            client.connect(self._address)
            client.send(text.encode())
        except OSError:
            return False
        finally:
            client.close()
        return True


# --- going into the background ---


class Launch:
    """The daemon's end of the pipe to the process that was called, which waits for it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """Let the caller's process end with success, and leave its terminal: stdio is /dev/null.

        Until here warnings on stderr are seen by whoever called.
        """
        _flush()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        self._report(0, "")

    def failed(self, status: int, message: str) -> None:
        """Let the caller's process end with `status` (1 to 255) after showing `message`."""
        self._report(status, message)

    def _report(self, status: int, message: str) -> None:
        try:
            os.write(self._fd, bytes([status]) + message.encode("utf-8", "backslashreplace"))
        except BrokenPipeError:
            pass  # the caller's process was killed: nobody waits
        os.close(self._fd)


class Verdict:
    """What became of the daemon, for the process that was called: to show, and to exit with."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


def ensure_stdio() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed.

    To be called before anything is opened: a socket that got such a number would be taken for
    stderr.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as Python has it where the descriptor was closed
            stream.flush()


def daemonize() -> Launch | Verdict:
    """Fork the daemon: its process gets a `Launch`, the calling one a `Verdict` once it is known.

    The daemon is in a session of its own which it does not lead, so no terminal can become its
    own.  Directory, umask and descriptors stay.  A daemon that ends without a word, whatever
    ended it, is a verdict with STATUS_FATAL.
    """
    ensure_stdio()
    reading, writing = os.pipe()
    _flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        return Launch(writing)
    os.close(writing)
    os.waitpid(child, 0)
    report = b""
    while True:
        chunk = os.read(reading, 65536)
        if not chunk:
            break
        report += chunk
    os.close(reading)
    if not report:
        return Verdict(STATUS_FATAL, "the daemon ended before it was ready")
    return Verdict(report[0], report[1:].decode("utf-8", "replace"))


# --- limits ---


def raise_file_limit(nr_open_path: str = "/proc/sys/fs/nr_open") -> tuple[int, str]:
    """Raise RLIMIT_NOFILE to what the kernel allows, as far as permitted.

    Returns the limit that holds now, and a warning ("" where all was granted).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with open(nr_open_path, "rb") as file:
            wanted = int(file.read(32))
    except (OSError, ValueError):
        wanted = hard
    unlimited = hard == resource.RLIM_INFINITY
    new_hard = hard if unlimited or hard >= wanted else wanted
    for pair in ((wanted, new_hard), (wanted, wanted), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, pair)
        except (OSError, ValueError):
            continue  # not permitted: as far as it goes without
        soft = pair[0]
        break
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return soft, ""
    return soft, f"file limit: {soft} descriptors; {wanted}, as {nr_open_path} says, not permitted"
