# SPDX-License-Identifier: LGPL-2.1-or-later
"""The loop: epoll, timers, signals, connections of the socket.

Loop runs the turns (wait, serve, send); here is what hardly ever happens:
timers, signals, descriptors that have run out, state on disk.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
import traceback

from sortedcontainers import SortedKeyList

from pyxsd import __version__
from pyxsd._loop import Loop
from pyxsd.host import resident_bytes
from pyxsd.state import dump
from pyxsd.state.saver import LEAST_SECONDS, Saver
from pyxsd.system import tracebacks
from pyxsd.system.descriptors import Reserve
from pyxsd.system.errors import in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Callable

    from pyxsd.keeper.ward import Ward
    from pyxsd.state.image import Saving
    from pyxsd.state.surroundings import Surroundings
    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog
    from pyxsd.system.log import Log
    from pyxsd.system.pid_file import PidFile

UNEXPECTED_PAUSE = 0.05  # seconds
HANDLER_PAUSE = 0.5  # seconds without a handler that failed
ACCEPT_PAUSE = 0.1  # seconds without accepting when descriptors have run out
ACCEPT_COMPLAINT = 60.0  # seconds between complaints of that
PERSISTENT_SECONDS = 1.0  # between two writings of the database with persistent = true
PERIODIC = 15.0  # seconds between looks at what is due
STATISTICS = 120.0

#: Seconds between READY and the first piece of code that is loaded behind it.  The others follow
#: a turn apart: with cold caches each would take twice as long.
LOAD_PAUSE = 0.05

#: Modules that live updates need, and a start does not, in pieces of a few ms.
LATER = (
    ("pyxsd.state.surroundings", "pyxsd.state.image"),
    ("pyxsd.state.disk", "pyxsd.update.program", "pyxsd.state.host_state", "pyxsd.state.picture"),
    ("pyxsd.switch.leaving",),
    ("pyxsd.switch.departure", "pyxsd.update.dialogue"),
)


def load_rest(reserve: Reserve, failed: Callable[[str], None]) -> Iterator[None]:
    """Loads the code that a start does without, piece by piece.  After that a daemon loads nothing
    any more: the package, or Python, may be upgraded while it runs."""
    with reserve:
        tracebacks.load()
    yield
    for piece in LATER:
        for name in piece:
            try:
                with reserve:
                    __import__(name)
            except Exception as error:  # what is missing is told, and all else goes on
                failed(f"cannot load {name}: {type(error).__name__}: {error}")
        yield


class Daemon:
    """Everything of one running daemon.

    listener is the listening socket's descriptor or -1; the daemon closes it.
    """

    def __init__(
        self,
        config: Config,
        server: Any,
        domains: Any,
        daemon_log: DaemonLog,
        access_log: Log,
        run_directory: str,
        listener: int,
    ) -> None:
        self.config = config
        self.server = server
        self.domains = domains
        self.daemon_log = daemon_log
        self.access_log = access_log
        self.run_directory = run_directory
        self.listener = listener
        self.reraise = False
        self.stopping = False
        self.successor = 0  # the process that has taken over from this one
        self.pid_files: list[PidFile] = []  # handed over in a live update
        self.ward: Ward | None = None  # where another process makes up for this one's death
        self.protection: Any = None  # recovery.begin.Protection, where a crash is recovered from
        self.epoll = select.epoll()
        self.loop = Loop(
            server,
            self.epoll.fileno(),
            config.poll_time_us,
            self.write_access_log,
            self._handler_failed,
        )
        # (deadline, what to do), monotonic seconds
        self.timers: Any = SortedKeyList(key=lambda timer: timer[0])
        self.due = 0.0  # when something is to be done, whatever the clients do
        self.refused_at = -ACCEPT_COMPLAINT
        self.last_scan = time.monotonic()
        self.last_statistics = time.monotonic()
        self.counted: dict[str, int] = {}
        self.saved = 0
        self.saver = Saver(
            os.path.join(run_directory, "db"),
            self._database,
            self.after,
            lambda text: server.host.complain("database", text),
            least=PERSISTENT_SECONDS if config.persistent else LEAST_SECONDS,
        )
        self.reserve = Reserve()
        self.noted: dict[int, None] = {}  # signals that have come
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.loop.add_handler(self._wake[0], self._on_signal)
        if listener >= 0:
            os.set_blocking(listener, False)
            self.loop.add_handler(listener, self._on_accept)

    def watch_event_channels(self) -> None:
        """Serves domains whose event channel fires."""
        self.loop.add_handler(self.domains.xen.fileno(), self.domains.on_events)

    # -- the loop -------------------------------------------------------------

    def run(self) -> None:
        """Serves until SIGTERM; install_signals() comes first."""
        self.after(PERIODIC, self._periodic)
        loop = self.loop
        while not self.stopping:
            try:
                if self.domains.next:
                    self.after(0.0, self.domains.look_next)
                self._do_what_is_due(loop.poller.now)
                if self.stopping:
                    break  # another process serves now
                # Returns for what hardly ever happens; requests are served in there.
                loop.run(self.due, self.config.persistent)
            except Exception as error:
                if self.reraise:
                    raise
                self.server.journal.met(error)
                self.server.host.complain("loop", "unexpected:\n" + traceback.format_exc())
                # What fails in every turn must not fill the log in no time.
                time.sleep(UNEXPECTED_PAUSE)

    def _do_what_is_due(self, now: float) -> None:
        """Timers, credit; when it is due again."""
        server = self.server
        while self.timers and self.timers[0][0] <= now:
            _, what = self.timers.pop(0)
            what()
            if self.stopping:
                return
        self.due = self.timers[0][0]
        if server.wants_time:
            self.due = min(self.due, server.tick(now) or self.due)
        if self.config.persistent and server.transactions_done != self.saved:
            self.saved = server.transactions_done
            self.saver.start()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Calls `what` once, in so many seconds."""
        deadline = time.monotonic() + seconds
        self.timers.add((deadline, what))
        self.due = min(self.due, deadline)

    def load_rest(self) -> None:
        """Loads the rest within the first half second, in pieces, so that whoever asks meanwhile
        waits for one of them at most."""
        pieces = load_rest(self.reserve, lambda text: self.log("error", text))
        self.after(LOAD_PAUSE, lambda: self._load_next(pieces))

    def _load_next(self, pieces: Iterator[None]) -> None:
        if next(pieces, self) is None:
            self.after(0.0, lambda: self._load_next(pieces))

    def soon(self, what: Callable[[], None]) -> None:
        """Calls `what` once, when the turn at hand is over."""
        self.after(0.0, what)
        try:
            os.write(self._wake[1], b"\0")
        except BlockingIOError:
            pass  # there is so much in it that the loop comes here anyway

    def write_access_log(self) -> None:
        """Writes the lines of the access log that were kept back."""
        log = self.server.log
        if log.lines:
            data, lines = log.take()
            self.access_log.write(data, lines)
            if self.protection is not None:
                self.protection.memory.note_logged(len(data))

    # -- what becomes ready ---------------------------------------------------

    def _on_accept(self) -> bool:
        """Takes new connections; True where the loop must look at the timers."""
        count = self.loop.accept(self.listener)
        for _ in range(count):
            self.daemon_log.debug("xenstored", "new connection through socket")
        if -count not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            return False
        # Nobody is refused: those who wait are taken when descriptors come back.
        now = time.monotonic()
        if now - self.refused_at > ACCEPT_COMPLAINT:
            self.refused_at = now
            self.daemon_log.warn("xenstored", f"cannot accept: {os.strerror(-count)}")
        # It keeps its place: a kernel without memory might have none for it then.
        self.epoll.modify(self.listener, 0)
        self.after(ACCEPT_PAUSE, self._accept_again)
        return True

    def _accept_again(self) -> None:
        self.epoll.modify(self.listener, select.EPOLLIN)

    def _handler_failed(self, fd: int, error: Exception) -> None:
        """A handler raised: it is told, and the descriptor rests for a while, so that the
        same failure does not take up every turn."""
        if self.reraise:
            raise error
        self.server.journal.met(error)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.server.host.complain("handler", "unexpected:\n" + text)
        if fd >= 0:
            try:
                self.epoll.modify(fd, 0)
            except OSError:
                return  # it was closed
            self.after(HANDLER_PAUSE, lambda: self._wait_again(fd))

    def _wait_again(self, fd: int) -> None:
        if fd in self.loop.handlers:
            self.epoll.modify(fd, select.EPOLLIN)

    # -- signals --------------------------------------------------------------

    def install_signals(self) -> None:
        """From now on a signal is noted, and acted on in the loop.

        To be called before anybody is told that the daemon is ready: SIGTERM must save from
        then on.
        """
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        # A full pipe is no loss: the loop comes anyway, and `noted` says to what.
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, _frame: Any) -> None:
        """It is acted on when the loop comes to the pipe, which has the number as a rule."""
        self.noted[number] = None

    def _take_signals(self) -> dict[int, None]:
        """Those that have come, each once; BlockingIOError where nobody has woken the loop."""
        numbers = dict.fromkeys(filter(None, os.read(self._wake[0], 512)))
        noted, self.noted = self.noted, {}
        return {**numbers, **noted}

    def _on_signal(self) -> bool:
        try:
            numbers = self._take_signals()
        except BlockingIOError:
            return False
        # A signal that came often is done once: a tree as text takes a second of a large store.
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self.daemon_log.info("xenstored", f"Received {signal.Signals(number).name}")
                self.stopping = True
            elif number == signal.SIGHUP:
                self.write_access_log()
                self.access_log.reopen()
                self.daemon_log.reopen()
            elif number == signal.SIGUSR1:
                self._write("db.debug", dump.readable(self.server.tree))
        return True

    # -- state on disk --------------------------------------------------------

    def _write(self, name: str, rows: Any) -> bool:
        path = os.path.join(self.run_directory, name)
        try:
            with self.reserve:
                dump.write_file(path, rows)
        except (OSError, MemoryError) as error:
            self.daemon_log.error("xenstored", f"cannot write {path}: {in_words(error)}")
            return False
        return True

    def save(self) -> bool:
        """Writes the state: oxenstored's database, which has the store, the domains and their
        watches, and the image beside it, which has everything."""
        self.saver.stop()
        written = self._write(dump.DATABASE, self._database())
        try:
            with self.reserve:
                # Loaded behind READY, but where the end comes first.
                from pyxsd.state import disk, image, surroundings  # noqa: F401

                disk.write(self.run_directory, self.saving)
        except (OSError, MemoryError, ImportError) as error:
            self.daemon_log.error(
                "xenstored",
                f"cannot write {self.run_directory}/{dump.IMAGE}: {in_words(error)}; "
                "one from before stays as it was",
            )
            return False
        return written

    def _database(self) -> Any:
        return dump.lines(self.server, list(self.domains.table.values()), -1, None, sockets=False)

    # -- live update ----------------------------------------------------------

    def surroundings(self) -> Surroundings:
        """What belongs to this process and not to its server."""
        from pyxsd.state import surroundings

        xen = self.domains.xen
        return surroundings.Surroundings(
            self.listener,
            -1 if xen is None else xen.fileno(),
            self.domains.virq_port,
            bool(self.server.log.active),
            self.daemon_log.redirected,
            tuple((file.path, file.fileno()) for file in self.pid_files),
            tuple(self.server.host.program().words()),
            __version__,
            surroundings.boot_id(),
            tuple((c.id, fd) for fd, c in self.loop.connections.items() if not c.closed),
        )

    def saving(self, put: Callable[[bytes], object]) -> Saving:
        """An image of everything that another process needs in order to go on; put() takes the
        next bytes of it."""
        # Here, since a start needs none of it; it was loaded behind READY.
        from pyxsd.state import surroundings
        from pyxsd.state.image import Saving

        return Saving(
            self.server, put, lambda: surroundings.write(self.surroundings(), self.domains)
        )

    def share(self) -> None:
        """Another process may have copies of the sockets; see Loop.share."""
        self.loop.share()

    def descriptors(self) -> list[int]:
        """Those that an image of now speaks of, in its order.  The access log is written, so that
        the lines of the other process follow."""
        self.share()
        self.write_access_log()
        return self.surroundings().descriptors()

    def go_on(self) -> None:
        """Another process has stopped serving for this one: from now on it is the daemon."""
        for connection in self.server.connections.values():
            if connection.awaits:
                # Who was to find the answer is not there any more.
                self.server.answer(connection, b"another process has taken over\0")
        self.claim_back()
        if self.domains.xen is not None:
            self.domains.go_on()
        self.log(
            "info",
            f"live update: took over {self.server.tree.size} nodes, "
            f"{len(self.server.domains)} domains, {len(self.loop.connections)} sockets",
        )

    def claim_back(self) -> None:
        """This process's pid stands in the pid files, whoever else has written his there."""
        for file in self.pid_files:
            try:
                file.write()
            except OSError as error:
                self.log("warn", f"cannot write the pid file {file.path}: {error.strerror}")

    def before_exec(self) -> None:
        """This process becomes another program in a moment, or goes on where that fails."""
        self.saver.stop()
        self.write_access_log()

    def handed_over(self, pid: int) -> None:
        """Another process serves: nothing of what it has is touched from now on."""
        self.saver.stop()
        self.successor = pid
        self.stopping = True
        if self.ward is not None:
            self.ward.handed_over(pid)
        # A signal that came meanwhile is for whoever serves.
        try:
            for number in self._take_signals():
                os.kill(pid, number)
        except (BlockingIOError, ProcessLookupError):
            pass

    def log(self, level: str, text: str) -> None:
        """A line for the daemon log."""
        self.daemon_log.log(level, "xenstored", text)

    # -- periodic work --------------------------------------------------------

    def _periodic(self) -> None:
        now = time.monotonic()
        self.after(PERIODIC, self._periodic)
        self.daemon_log.tell_left_out()
        self.loop.poller.count_processors()
        interval = self.config.ring_scan_interval
        if interval >= 0 and now - self.last_scan >= interval:
            self.last_scan = now
            self.domains.scan()
        if now - self.last_statistics >= STATISTICS:
            seconds, self.last_statistics = now - self.last_statistics, now
            self._log_statistics(seconds)

    def _log_statistics(self, seconds: float) -> None:
        server, info = self.server, self.daemon_log.info
        failed, blameless = server.transactions_failed, server.transactions_no_culprit
        info("xenstored", f"Transaction conflict statistics for last {seconds:.2f} seconds:")
        info(
            "xenstored",
            f"{failed - self.counted.get('failed', 0)} failed transactions; of these "
            f"no culprit was found for {blameless - self.counted.get('blameless', 0)}",
        )
        self.counted = {"failed": failed, "blameless": blameless}
        info(
            "xenstored",
            f"store stat: nodes({server.tree.size + 1}) t-abort({failed}) "
            f"t-coalesce({server.transactions_merged})",
        )
        kinds: dict[bool, list[int]] = {True: [0, 0, 0], False: [0, 0, 0]}
        for connection in server.connections.values():
            row = kinds[connection.is_socket]
            row[0] += 1
            row[1] += connection.ops
            row[2] += connection.watch_count
        (a, a_ops, a_watches), (d, d_ops, d_watches) = kinds[True], kinds[False]
        info(
            "xenstored",
            f"  con stat: anonymous({a}, {a_ops} o, {a_watches} w) "
            f"domains({d}, {d_ops} o, {d_watches} w)",
        )
        with self.reserve:
            resident = resident_bytes()
        info("xenstored", f"  mem stat: resident({resident} b)")

    # -- the end --------------------------------------------------------------

    def send_all(self) -> None:
        """Serves once more, and sends what can be sent."""
        self.server.flush()
        self.server.send_all()

    def close(self) -> None:
        """Lets go of everything."""
        self.saver.stop()
        signal.set_wakeup_fd(-1)
        for connection in self.loop.connections.values():
            connection.transport.close()
        self.loop.connections.clear()
        self.write_access_log()
        if self.listener >= 0:
            os.close(self.listener)
        for fd in self._wake:
            os.close(fd)
        self.reserve.close()
        self.epoll.close()
