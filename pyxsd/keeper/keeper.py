# SPDX-License-Identifier: LGPL-2.1-or-later
"""The keeper: the process that is started, which makes the daemon proper as a child and makes it
anew when it dies.

Both share the table of descriptors, so all that a dead child had open is open still, under the same
numbers.  The keeper has one thread and no state but which child lives; it waits for signals without
handlers, and opens nothing while a child lives.  SIGTERM, SIGINT, SIGHUP and SIGUSR1 go on to the
child.

A child that has made all ready for another program says with which words that is executed, and
ends; the keeper executes it, so that the process stays.  Where it cannot, the next child goes on.

A child that ends on purpose has said so (report.py).  Any other end is a death: the next child goes
on from what stands in memory (`Memory`).  Three deaths in a row without progress are too many: what
killed the last three would kill the next.  SIGKILL is nobody's fault but the killer's: of a child
that serves it does not count, and of children that have not come so far there may be more, with
pauses in which the system may find the memory that it lacks.

Where no child can be made, it is tried until one is.  Who is told to end meanwhile does in this
process what a child would do: it goes on, hears that, and writes the state.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from pyxsd.keeper import clone
from pyxsd.keeper.report import BECOMES, ENDED, HANDED_OVER, LOST, SERVING, STARTING, Report
from pyxsd.named import NamedTuple
from pyxsd.system import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, NoReturn, Protocol

    from pyxsd.keeper.witness import Witness

    class Memory(Protocol):
        """What outlives a child."""

        def progress(self) -> int:
            """Grows with every request served."""

        def is_begun(self) -> bool:
            """Is there anything to go on from?"""

        def died(self, cause: int) -> None:
            """What a child died of: a signal, or -1 for an exit that nobody has ordered."""


#: Deaths in a row without progress after which no child is made any more.
DEATHS_MAX = 3
#: The same for those that SIGKILL has killed before they served, and the longest pause between two.
KILLS_MAX = 100
PAUSE_SECONDS = 0.2
#: Seconds until a child is tried again that the system has refused to make.
REFUSED_SECONDS = 0.01
#: Seconds from the first child on in which it gets ready, and has the processors for itself.
PREPARE_SECONDS = 0.1

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_ENDING = (signal.SIGTERM, signal.SIGINT)
#: Signals by which a process dies of what it does itself.
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
_WAITED_FOR = (*FORWARDED, signal.SIGCHLD)


class Life(NamedTuple):
    """One child, as it sees itself."""

    number: int  # 0 the first one
    keeper: int  # its keeper's process id
    report: Report
    mask: set[int]  # signals that were blocked when the keeper was started
    deaths: int = 0  # before it
    cause: str = ""  # how the last one of them came: "killed by SIGKILL"
    refused: str = ""  # the one before it did not die: why its program could not be executed
    noticed: float = 0.0  # monotonic seconds when the keeper knew of that
    witness: Witness | None = None  # who writes down what the one before has left

    def let_signals_in(self) -> None:
        """The child has its handlers: what was sent to it or to its keeper meanwhile comes now."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


class End(NamedTuple):
    """How all ended.

    word: ENDED, with the exit status; HANDED_OVER, with the process that serves; STARTING where the
    first child died before it served, and LOST where no child is made any more, with the reason and
    with what the last one died of.
    """

    word: int
    number: int = 0
    lost: str = ""
    cause: str = ""


def can_keep() -> None:
    """OSError where this kernel, this C library or a filter of system calls does not allow it."""
    clone.check()
    # With it a child watches its keeper.
    os.close(os.pidfd_open(os.getpid()))


class Keeper:
    """Makes children that serve.

    memory was made before, so that each child has it.  begun() is called once when the first child
    has been made; prepare() some time later: what is loaded then, the later ones have.  witness: is
    told of each death by a fault that another child makes up for.
    """

    def __init__(
        self,
        memory: Memory,
        prepare: Callable[[], None] = lambda: None,
        kills_max: int = KILLS_MAX,
        witness: Witness | None = None,
        begun: Callable[[], object] = lambda: None,
    ) -> None:
        self._kills_max = kills_max
        self._memory = memory
        self._prepare: Callable[[], None] | None = prepare
        self._begun = begun
        self._witness = witness
        self._report = Report()
        self._ending = 0  # SIGTERM or SIGINT where that was sent: for later children, too
        self._deaths = 0  # in a row without progress
        self._kills = 0

    def run(self, serve: Callable[[Life], int]) -> End:
        """Lets children serve until one has ended on purpose, or until no other is worth making.

        serve() runs in the child; what it returns is the status of an end on purpose, and an
        exception is one where it has not begun to serve.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)}
        life = Life(0, os.getpid(), self._report, mask, witness=self._witness)
        while True:
            before = self._memory.progress()
            self._report.begin()
            pid = self._child(serve, life)
            if not pid:
                return self._end_without(serve, life)
            status = self._wait_for(pid)
            noticed = time.monotonic()
            word = self._report.word()
            if word in (ENDED, HANDED_OVER):
                return End(word, self._report.number())
            if word == BECOMES:
                refused = self._execute(self._report.command(), mask)
                if not self._memory.is_begun():
                    return End(LOST, 0, f"there is nothing to go on from: {refused}")
                life = life._replace(number=life.number + 1, refused=refused, noticed=noticed)
                continue
            cause = _in_words(status)
            if fault_of(status):
                self._memory.died(fault_of(status))
            if word == STARTING and not self._memory.is_begun():
                return End(STARTING, 0, f"the daemon died before it served: {cause}")
            lost = self._judge(word, status, self._memory.progress() != before)
            if lost:
                if self._witness is not None:
                    self._witness.wait()
                return End(LOST, 0, f"{lost}: {cause}", cause)
            if self._witness is not None and fault_of(status):
                self._witness.died(cause)
            life = life._replace(
                number=life.number + 1,
                deaths=life.deaths + 1,
                cause=cause,
                refused="",
                noticed=noticed,
            )

    def _execute(self, command: list[str], mask: set[int]) -> str:
        """This process is that program from now on; why that cannot be, where it returns."""
        # Who wants the daemon to end is heard by the next child; the others have been in vain.
        while found := signal.sigtimedwait(FORWARDED, 0):
            if found.si_signo in _ENDING:
                self._ending = found.si_signo
        if self._ending:
            return f"{command[0]}: the daemon was told to end"
        # For what comes in the last moment: the program begins with the default of each.
        before = {number: signal.signal(number, self._note) for number in FORWARDED}
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            os.execv(command[0], command)
        except (OSError, ValueError) as error:
            return f"{command[0]}: {errors.in_words(error)}"
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _judge(self, word: int, status: int, progress: bool) -> str:
        """Why no other child is to be made; "" where one is."""
        if not self._memory.is_begun():
            return "there is nothing to go on from"
        if progress or (word == SERVING and status == -signal.SIGKILL):
            self._deaths = self._kills = 0
        elif status == -signal.SIGKILL:
            self._kills += 1
        else:
            self._deaths += 1
        if self._deaths < DEATHS_MAX and self._kills < self._kills_max:
            return ""
        count = self._deaths + self._kills
        return f"the daemon died {count} times in a row without serving a request"

    def _child(self, serve: Callable[[Life], int], life: Life) -> int:
        """Makes a child; its pid.  0: none can be made, and the daemon is to end."""
        if self._kills >= DEATHS_MAX:
            self._sleep(min(REFUSED_SECONDS * self._kills, PAUSE_SECONDS))
        while True:
            try:
                pid = clone.spawn()
            except OSError:
                # No memory, or too many processes.  Nobody else can serve: there is no end to it.
                if self._ending:
                    return 0
                self._sleep(REFUSED_SECONDS)
                continue
            if pid == 0:
                _live(serve, life)
            if self._ending:
                os.kill(pid, self._ending)
            if life.number == 0:
                self._begun()
            if self._witness is not None:
                self._witness.next_is_made()
            return pid

    def _end_without(self, serve: Callable[[Life], int], life: Life) -> End:
        """Does in this process what a child is to do that cannot be made: to go on and to end."""
        if not self._memory.is_begun():
            return End(STARTING, 0, "no process could be made until it was told to end")
        os.kill(os.getpid(), self._ending)  # it waits until the daemon has its handlers
        try:
            clone.leave_no_core()
            status = serve(life)
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            return End(LOST, 0, f"no process can be made, and this one cannot go on: {error}")
        if self._report.word() == HANDED_OVER:
            return End(HANDED_OVER, self._report.number())
        return End(ENDED, status)

    def _note(self, number: int, _frame: object) -> None:
        if number in _ENDING:
            self._ending = number

    def _sleep(self, seconds: float) -> None:
        """A pause; who wants the daemon to end is heard."""
        found = signal.sigtimedwait(_ENDING, seconds)
        if found is not None:
            self._ending = found.si_signo

    def _wait_for(self, pid: int) -> int:
        """The child's exit status, or the negative number of the signal that has killed it."""
        while True:
            number = self._next_signal()
            if number != signal.SIGCHLD:
                if number in _ENDING:
                    self._ending = number
                os.kill(pid, number)
                continue
            status = self._reap(pid)
            if status is not None:
                return status

    def _next_signal(self) -> int:
        """Waits for one, and prepares where none comes for a while."""
        while self._prepare is not None:
            found = signal.sigtimedwait(_WAITED_FOR, PREPARE_SECONDS)
            if found is not None:
                return found.si_signo
            prepare, self._prepare = self._prepare, None
            prepare()
        return signal.sigwaitinfo(_WAITED_FOR).si_signo

    def _reap(self, pid: int) -> int | None:
        """The status of that child if it has ended.  Others are waited for as well: the witness's,
        and where another program has executed this one, that one's."""
        found = None
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if not ended:
                return found
            if ended == pid:
                found = os.waitstatus_to_exitcode(status)
            elif self._witness is not None:
                self._witness.ended(ended, _in_words(os.waitstatus_to_exitcode(status)))


def _live(serve: Callable[[Life], int], life: Life) -> NoReturn:
    """The whole life of a child."""
    status = 1
    try:
        clone.leave_no_core()
        status = serve(life)
        if life.report.word() != HANDED_OVER:
            life.report.ended(status)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        if life.number == 0 and life.report.word() != SERVING:
            life.report.ended(status)
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # as Python has it where the descriptor was closed
                    stream.flush()
        finally:
            os._exit(status)


def fault_of(status: int) -> int:
    """What a child died of by its own fault, for Memory.died(); 0: somebody else has killed it."""
    return -1 if status >= 0 else -status if -status in _FAULTS else 0


def _in_words(status: int) -> str:
    """killed by SIGSEGV, exited with status 1."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
