# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pid files: written, locked, and removed at the end.

A pid file counts as held where another process has it locked, or where the process whose pid
stands in it is alive, root's or this user's, and is a xenstored by its name.  Any other pid file
is stale and is taken over.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from pyxsd.system.errors import AlreadyRunning, ServiceError

# struct flock: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"

# How the programs that are a xenstored are called; a suffix (-4.17, .orig) may follow.
_XENSTOREDS = ("xenstored", "oxenstored", "pyxsd")


def is_xenstored(pid: int) -> bool:
    """Whether a live process is a xenstored, by its user and its names: pids of dead daemons are
    reused.

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
        if not is_of_root_or_own(pid):
            return False
        names.append(state)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            names.extend(_program_words(file.read().split(b"\0")))
        names.append(os.fsencode(os.readlink(f"/proc/{pid}/exe")))
    except OSError:
        pass  # it ended meanwhile, or its exe link is not for us: the names so far decide
    return any(os.path.basename(os.fsdecode(name)).startswith(_XENSTOREDS) for name in names)


def is_of_root_or_own(pid: int) -> bool:
    """Whether root or this user has started a process; OSError where it has ended.  Anybody can
    call a process of his own xenstored, and wait for the pid of a daemon that has died."""
    with open(f"/proc/{pid}/status", "rb") as file:
        # Of a program with the set-user-ID bit the first one is still the caller's.
        user = next((line.split()[1] for line in file if line.startswith(b"Uid:")), b"0")
    return int(user) in (0, os.getuid())


def _program_words(words: list[bytes]) -> list[bytes]:
    """The words of a command line that name the program: of `python3 -m pyxsd` the third."""
    if not os.path.basename(words[0]).startswith(b"python"):
        return words[:1]
    for word in words[1:]:
        if not word.startswith(b"-"):
            return [words[0], word]
    return words[:1]


class PidFile:
    """A pid file that this process holds: locked, and removed by `remove`.

    pid: the process that is to stand in it; a child's may be its keeper.
    """

    def __init__(self, path: str, fd: int, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity  # device and inode
        self.pid = os.getpid()
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

    @classmethod
    def adopt(cls, path: str, fd: int) -> PidFile:
        """A pid file that another process has claimed and whose descriptor it has handed over: the
        lock came with it."""
        status = os.fstat(fd)
        return cls(path, fd, (status.st_dev, status.st_ino))

    def fileno(self) -> int:
        """Its descriptor; -1 where there is none to lock."""
        return self._fd

    def write(self) -> None:
        """Put the pid into the file instead of what stands there; OSError.

        Where another file with the same pid is at the path, that is held from now on: a start
        script that removed the file gets it back from pyxsd-launch.
        """
        self._follow(_read_pid(self._fd))
        text = f"{self.pid}\n".encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def _follow(self, pid: int) -> None:
        """Holds another file at the path in which this pid stands, under the same descriptor."""
        try:
            if _is_at(self.path, os.fstat(self._fd)) or not _names(self.path, pid):
                return
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError):
            return  # there is none, or no descriptor is left
        try:
            status = os.fstat(fd)
            if _read_pid(fd) == pid and _lock(fd):
                os.dup2(fd, self._fd, inheritable=False)
                self.identity = (status.st_dev, status.st_ino)
        finally:
            os.close(fd)

    def leave(self) -> None:
        """Let go of the file, which belongs to another process now."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Remove the file, and release it.  Never fails.

        Another file at its path stays, unless the same pid stands in it, see write().
        """
        if self._fd < 0:
            return
        try:
            if _is_at(self.path, os.fstat(self._fd)) or _names(self.path, self.pid):
                os.unlink(self.path)
        except OSError:
            pass  # gone already, or not permitted any more
        os.close(self._fd)
        self._fd = -1


def remove_own(path: str) -> None:
    """Removes a pid file that this process's pid stands in, of which no PidFile is left.  Never
    fails."""
    try:
        if _names(path, os.getpid()):
            os.unlink(path)
    except (OSError, ValueError):
        pass  # there is none, or not permitted any more


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
    """The pid in the file, or 0, also where it cannot be read."""
    try:
        text = os.pread(fd, 32, 0).strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _names(path: str, pid: int) -> bool:
    """Whether a regular file at the path has this pid."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and _read_pid(fd) == pid
    finally:
        os.close(fd)


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
