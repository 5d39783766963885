# SPDX-License-Identifier: LGPL-2.1-or-later
"""The launcher's second half, behind the shell script pyxsd-launch: what XENSTORED= starts.

Boot scripts that do not know pyxsd start it again while it runs: Debian's does so at each upgrade
of the package xen-utils.  So the launcher first looks at the socket:

answers            nothing to start: says so, and ends with status 0
does not answer    a xenstored hangs; a second one would make things worse: status 1
left behind        its daemon is gone: says so, and starts pyxsd, which replaces the socket
not there          starts pyxsd

Starting pyxsd means becoming it: this process runs pyxsd's main function.  So what is imported on
that way stays in memory for as long as the daemon runs, and is kept small.  What is written to
stderr meanwhile also goes to the system's log, unless stderr is the journal anyway.
"""

from __future__ import annotations

import _socket  # the bare module, as in the daemon: `socket` takes 5 ms to import
import gc
import os
import sys

from pyxsd.setup import ANSWER_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from pyxsd.setup.running import Running

NAME = "pyxsd-launch"

STATUS_OK = 0
STATUS_HANGS = 1  # something listens on the socket and does not answer
STATUS_NOT_INSTALLED = 5  # Python or a part of pyxsd is missing: LSB's "program is not installed"

LOG_SOCKET = "/dev/log"
#: syslog(3)'s facility daemon (3) and level warning (4).
_PRIORITY = 3 * 8 + 4


class SystemLog:
    """stderr that is copied to the system's log by lines, in the process that made it.

    A log that does not take a line at once loses it: the host's start must not wait for it.
    """

    def __init__(self, stream: TextIO, path: str = LOG_SOCKET) -> None:
        self._stream = stream
        self._path = path
        self._pid = os.getpid()
        self._rest = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes to the stream; whole lines also go to the log."""
        written = self._stream.write(text)
        if os.getpid() == self._pid:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in filter(None, lines):
                self._send(line)
        return written

    def _send(self, line: str) -> None:
        packet = f"<{_PRIORITY}>{NAME}[{self._pid}]: {line.removeprefix(NAME + ': ')}"
        log = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
        try:
            log.connect(self._path)
            log.send(packet.encode("utf-8", "backslashreplace"))
        except OSError:
            pass
        finally:
            log.close()


def is_journal(stream: TextIO) -> bool:
    """Whether a stream is the journal; systemd names it by device and inode in JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def tell(text: str) -> None:
    """One line for whoever starts the host."""
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Runs the launcher; argv[0] is the script's path.  The exit status."""
    if sys.stderr is not None and not is_journal(sys.stderr):
        sys.stderr = SystemLog(sys.stderr)  # type: ignore[assignment]
    # What pyxsd writes into the store as its program, and shows in its usage.
    sys.argv = argv
    from pyxsd.system import options

    of_c = options.may_be_c_line(argv[1:])  # it has become this process, and nothing else runs
    parsed = options.Options(live=True) if of_c else options.parse(argv[1:], NAME)
    if isinstance(parsed, options.Exit):
        sys.stdout.write(parsed.stdout)
        sys.stderr.write(parsed.stderr)
        return parsed.status
    if not parsed.config_test and not parsed.live and not parsed.show_state:
        status = _look(parsed.pid_file)
        if status is not None:
            return status
    gc.disable()  # as in pyxsd.__main__
    try:
        from pyxsd.cli import main as daemon
    except ImportError as error:
        tell(
            f"cannot start pyxsd: {error}.  Its package is damaged, or was made for another "
            f"Python than {sys.executable} ({sys.version.split()[0]}); install it again"
        )
        return STATUS_NOT_INSTALLED
    return daemon(argv[1:])


def _look(pid_file: str) -> int | None:
    """The status where nothing is to be started; None where pyxsd is to be started."""
    from pyxsd.system import listening

    path = listening.socket_path(os.environ)
    try:
        state = listening.probe(path, ANSWER_SECONDS)
    except OSError as error:
        tell(f"cannot tell whether a xenstored runs: {path}: {error.strerror or error}")
        return None
    if state == listening.STALE:
        tell(f"{path} was left behind by a daemon that is gone; pyxsd replaces it")
    if state in (listening.STALE, listening.ABSENT):
        return None

    from pyxsd.setup import running

    found = running.look(path, (pid_file,) if pid_file else (), ask=False)
    if state == listening.SILENT:
        tell(
            f"cannot start pyxsd: a xenstored ({found.who}) listens on {path} but has not "
            f"answered for {ANSWER_SECONDS:.0f} seconds; it hangs, or is very busy"
        )
        return STATUS_HANGS
    tell(f"nothing to start: a xenstored ({found.who}) answers on {path}")
    _serve_the_caller(found, pid_file)
    return STATUS_OK


def _serve_the_caller(found: Running, pid_file: str) -> None:
    """Gives a start script what it waits for: the pid file if it removed that, and READY=1."""
    from pyxsd.system import notify

    if not found.pid:
        return
    if pid_file:
        try:
            with open(pid_file, "x", encoding="ascii") as file:
                file.write(f"{found.pid}\n")
        except FileExistsError:
            pass
        except OSError as error:
            tell(f"cannot write the pid file {pid_file}: {error.strerror}")
    notify.Notifier(os.environ).ready(found.pid)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
