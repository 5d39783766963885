# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL `live-update`: the dialogue with xenstore-control, in the words of oxenstored.

    -f PROGRAM          the program that shall take over, with the daemon's own arguments
    -c ARGUMENT...      more arguments for it, kept for good
    -s [-t S] [-F]      does it; for another xenstored, and for nobody else, it waits at most S
                        seconds (60) for what that cannot have, or goes on without (-F)
    -a                  calls it off
    (nothing)           says how things are

-f and -c are answered when the program has been checked; the client that asked is not served until
then, everybody else is.  -s is answered `BUSY` until the update is over, then with its outcome,
once; where it went well it is the new daemon that answers `OK`.  An outcome that nobody asks for
within OUTCOME_SECONDS is dropped: the next -s begins another update.

Where the program is another xenstored, this process, or its keeper, becomes it (switch.departure).
Where that is C xenstored, -s is answered in its way: not until it is over.

What takes time is written as generators: each yields how many seconds it wants to wait, and the
daemon serves meanwhile.
"""

from __future__ import annotations

import os
import time

from pyxsd import __version__
from pyxsd.keeper.report import NOT_LEAVING
from pyxsd.switch import departure, kept
from pyxsd.update import channel
from pyxsd.update.program import Process, Program, ProgramError, fault_of, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from typing import Any, Callable, Protocol

    from pyxsd.keeper.ward import Ward
    from pyxsd.switch.departure import Departure
    from pyxsd.switch.target import Question

    class OldDaemon(Protocol):
        """What the dialogue needs of the daemon that it is held with."""

        server: Any
        domains: Any
        listener: int
        run_directory: str
        ward: Ward | None

        def after(self, seconds: float, what: Callable[[], None]) -> None:
            """Calls `what` once, between two turns, in so many seconds."""

        def soon(self, what: Callable[[], None]) -> None:
            """Calls `what` once, when the turn at hand is over."""

        def saving(self, put: Callable[[bytes], object]) -> Any:
            """An image of the whole state in the making (state.image.Saving)."""

        def descriptors(self) -> list[int]:
            """Those that an image of now speaks of."""

        def share(self) -> None:
            """A process is about to be started: it may have copies of the sockets for a moment."""

        def before_exec(self) -> None:
            """This process becomes another program in a moment."""

        def handed_over(self, pid: int) -> None:
            """Another process serves from now on: this one leaves without touching anything."""

        def claim_back(self) -> None:
            """The process that was to serve is dead: this one's pid stands in the pid files."""

        def log(self, level: str, text: str) -> None:
            """A line for the daemon log."""


OK = b"OK\0"
BUSY = b"BUSY"
UNDER_WAY = "a live update is under way"

POLL_SECONDS = 0.01  # between two looks at the new program
CHECK_SECONDS = 15.0  # for --help, also where the host is busy
READY_SECONDS = 15.0  # for the new program's imports
WRITTEN_SECONDS = 3.0  # for a trial or for taking over, and
NODE_SECONDS = 50e-6  # as much more for each node
STATE_MAX = 1 << 36  # bytes of a state
OUTCOME_SECONDS = 10.0  # for the next -s, to be told how the update went
TIMEOUT = 60  # of -s, seconds, for what another xenstored cannot have
CHOSEN_SECONDS = 5.0  # for -s behind the -f that has named another xenstored
COMPARED = 1 << 18  # bytes of two states that are compared at once
SLICE_SECONDS = 100e-6  # of writing the state between two turns
ANSWER_MAX = 4096  # bytes, of a payload


class Dialogue:
    """The state of one daemon's live update.

    took_over: when this process has taken over for a client that waits to be told (monotonic
    seconds).
    """

    def __init__(
        self,
        daemon: OldDaemon,
        program: Program,
        environ: Mapping[str, str],
        took_over: float = float("-inf"),
    ) -> None:
        self._daemon = daemon
        self._environ = environ
        self.program = program
        self._checked = False  # has the program loaded a state and written it out again?
        self._pending = False
        self._outcome = "OK"
        self._owed_until = took_over + OUTCOME_SECONDS
        self._asked: Any = None  # the connection that waits for the end of a check, or,
        self._held = False  # where it has asked with -s in C xenstored's way, of an update
        self._steps: Iterator[float] | None = None
        self._process: Process | Question | None = None
        # Where a client has chosen another xenstored.  -s of anybody else is about this program.
        self._departure: Departure | None = None
        self._chosen_by: Any = None
        self._chosen_at = 0.0  # monotonic seconds

    # -- what is asked --------------------------------------------------------

    def command(self, connection: Any, words: list[str]) -> bytes | None:
        """The answer to live-update with these words; None where Server.answer() gives it."""
        if not words:
            return _text(self._shown(), b"\0")
        handler = COMMANDS.get(words[0])
        if handler is None:
            return _text("Unknown arguments: " + ",".join(words))
        try:
            return handler(self, connection, words[1:])
        except ProgramError as error:
            return _text(str(error))

    def _shown(self) -> str:
        doing = "under way" if self._pending or self._held else "none under way"
        if self._asked is not None and not self._held:
            doing = "a program is being checked"
        ward = self._daemon.ward
        kept = "" if ward is None else f"crash recovery: {ward.describe()}\n"
        return (
            f"pyxsd {__version__}, process {os.getpid()}\nlive update: {doing}\n"
            f"program: {' '.join(self.program.words())}\n{kept}"
        )

    def file(self, connection: Any, words: list[str]) -> bytes | None:
        """-f PROGRAM"""
        if len(words) != 1:
            raise ProgramError("Unknown arguments: " + ",".join(["-f", *words]))
        fault = fault_of(words[0])
        if fault:
            raise ProgramError(fault)
        self._check(
            connection, self._looking_at(Program(words[0], (), self.program.arguments), connection)
        )
        return None

    def arguments(self, connection: Any, words: list[str]) -> bytes | None:
        """-c ARGUMENT..."""
        leaving = self._departure_of(connection)
        if leaving is not None:
            self._check(connection, self._departing_for(leaving.with_arguments(words), connection))
        else:
            self._check(
                connection,
                self._checking(self.program._replace(arguments=(*self.program.arguments, *words))),
            )
        return None

    def _departure_of(self, connection: Any) -> Departure | None:
        """The other xenstored that this client has chosen."""
        return self._departure if connection is self._chosen_by else None

    def _check(self, connection: Any, steps: Iterator[float]) -> None:
        if self._steps is not None:
            raise ProgramError(UNDER_WAY)
        self._asked = connection
        self._begin(steps)

    def start(self, connection: Any, words: list[str]) -> bytes | None:
        """-s [-t S] [-F]"""
        if self._pending:
            return BUSY
        if time.monotonic() < self._owed_until:
            self._owed_until = 0.0
            return _text(self._outcome)
        seconds, force = _options(words)
        if self._steps is not None:
            raise ProgramError(UNDER_WAY)
        deadline = time.monotonic() + seconds
        leaving = self._departure_of(connection)
        if leaving is None:
            self._daemon.log("info", "live update: asked for, by " + " ".join(self.program.words()))
            steps = self._updating()
        else:
            self._daemon.log(
                "info",
                f"live switch: asked for, to {leaving.kind}, by " + " ".join(leaving.command()),
            )
            steps = leaving.leave(self._daemon, connection, deadline, force, self._environ)
        if leaving is not None and leaving.holds_the_answer:
            self._asked, self._held = connection, True
            self._begin(steps)
            return None
        self._pending = True
        self._begin(steps)
        return BUSY

    def abort(self, _connection: Any, _words: list[str]) -> bytes:
        """-a"""
        if self._steps is not None:
            self._daemon.log("info", "live update: called off")
            self._over("live update was called off")
        self._owed_until = 0.0
        return OK

    def renew(self) -> bool:
        """Begins an update that nobody has asked for, to the program that runs; False where one is
        under way already, or where a client is about to ask for another xenstored."""
        if self._steps is not None:
            return False
        if self._departure is not None and not self._chosen_by.closed:
            # Who takes over knows nothing of that, and would answer OK.
            if time.monotonic() - self._chosen_at < CHOSEN_SECONDS:
                return False
        self._begin(self._updating())
        return True

    # -- generators, step by step ---------------------------------------------

    def close(self) -> None:
        """The daemon ends: so does a program that was about to take over from it."""
        if self._steps is not None:
            self._over("the daemon ends")

    def _begin(self, steps: Iterator[float]) -> None:
        self._steps = steps
        self._daemon.soon(lambda: self._go_on(steps))

    def _go_on(self, steps: Iterator[float]) -> None:
        if steps is not self._steps:
            return  # it was called off
        try:
            pause = next(steps)
        except StopIteration:
            self._over("")
        except ProgramError as error:
            self._over(str(error))
        except Exception as error:  # whatever fails, the daemon goes on, and the log says why
            self._over(f"{type(error).__name__}: {error}")
        else:
            self._daemon.after(pause, lambda: self._go_on(steps))

    def _over(self, fault: str) -> None:
        """The end of a check or of an update: nothing of it stays but its outcome."""
        self._steps = None
        self._daemon.server.hold_starts(False)
        if self._daemon.ward is not None:
            self._daemon.ward.leaving(NOT_LEAVING)
        if self._process is not None:
            self._process.kill()
            self._process = None
        if fault:
            self._daemon.log("warn", f"live update: {fault}")
        asked, self._asked, self._held = self._asked, None, False
        if asked is not None:
            self._daemon.server.answer(asked, _text(fault) if fault else OK)
        elif self._pending:
            self._pending = False
            self._owe(fault or "OK")

    def _owe(self, outcome: str) -> None:
        """The next -s is told so."""
        self._outcome = outcome
        self._owed_until = time.monotonic() + OUTCOME_SECONDS

    def _spawn(self, program: Program, *more: str, converse: bool) -> Process:
        self._daemon.share()
        self._process = Process(program, self._environ, *more, converse=converse)
        return self._process

    def _done_with(self, process: Process) -> None:
        process.kill()
        self._process = None

    # -- the check ------------------------------------------------------------

    def _looking_at(self, program: Program, connection: Any) -> Iterator[float]:
        """What is it?  A pyxsd is checked by a trial, another xenstored as far as it can be."""
        self._daemon.share()
        found = yield from departure.find(
            program.path, program.arguments, self._environ, self._started
        )
        if found is None:
            yield from self._checking(program)
            self._choose(None, None)
        else:
            yield from self._departing_for(found, connection)

    def _departing_for(self, found: Departure, connection: Any) -> Iterator[float]:
        self._daemon.share()
        yield from found.check(self._environ, self._started)
        self._choose(found, connection)

    def _choose(self, departure: Departure | None, connection: Any) -> None:
        self._departure, self._chosen_by = departure, connection
        self._chosen_at = time.monotonic()
        ward = self._daemon.ward
        if ward is not None:
            ward.chosen(b"" if departure is None else kept.choice(departure, connection))

    def resume(self, departure: Departure, connection: Any, outcome: str) -> None:
        """This process goes on for one in which a client had chosen that program.  connection: None
        where the client has gone.  outcome: what the next -s is to be told, where that is owed."""
        if connection is not None:
            self._choose(departure, connection)
        if outcome:
            self._owe(outcome)

    def _started(self, question: Question | None) -> None:
        """A process runs that is to be ended where the check is called off; None: no more."""
        self._process = question

    def _checking(self, program: Program) -> Iterator[float]:
        yield from self._asking_for_help(program)
        yield from self._trying(program)
        self.program = program
        self._checked = True

    def _asking_for_help(self, program: Program) -> Iterator[float]:
        process = self._spawn(program, "--help", converse=False)
        end = time.monotonic() + CHECK_SECONDS
        while not process.ended():
            process.output()
            if time.monotonic() > end:
                raise ProgramError(
                    f"Command '{' '.join(program.words('--help'))}' did not end "
                    f"within {CHECK_SECONDS:.0f} seconds"
                )
            yield POLL_SECONDS
        fault = verdict(program, process)
        self._done_with(process)
        if fault:
            raise ProgramError(fault)

    def _trying(self, program: Program) -> Iterator[float]:
        """The program loads the state of now in a process of its own and writes it out again."""
        process = yield from self._ready(program)
        given = yield from self._written()
        # Mapped before it is given away, since its descriptor is.
        try:
            state = channel.read_memory_file(os.dup(given), STATE_MAX)
        except BaseException:
            os.close(given)
            raise
        self._send(process, "try", descriptors=[given])
        seconds = WRITTEN_SECONDS + NODE_SECONDS * self._daemon.server.tree.size
        message = yield from self._expecting(process, "written", seconds)
        if len(message.descriptors) != 1:
            _close(message.descriptors)
            raise ProgramError("the program has written no state")
        try:
            written = channel.read_memory_file(message.descriptors[0], 2 * len(state) + 65536)
        except (OSError, ValueError) as error:
            raise ProgramError(f"the program has written no state: {error}") from None
        for at in range(0, max(len(state), len(written)), COMPARED):
            if state[at : at + COMPARED] != written[at : at + COMPARED]:
                raise ProgramError(
                    "the program has written out another state than it was given: "
                    + _difference(
                        bytes(state[at : at + COMPARED]), bytes(written[at : at + COMPARED]), at
                    )
                )
            yield 0.0
        self._done_with(process)

    def _written(self) -> Generator[float, None, int]:
        """The descriptor of an image of now, written in slices."""
        file = channel.MemoryFile()
        try:
            saving = self._daemon.saving(file.put)
            while not saving.step(SLICE_SECONDS):
                yield 0.0
            return file.detach()
        finally:
            file.close()

    # -- talking to the program -----------------------------------------------

    def _ready(self, program: Program) -> Generator[float, None, Process]:
        """A process that has done its imports and waits for a state."""
        process = self._spawn(program, converse=True)
        message = yield from self._expecting(process, "ready", READY_SECONDS)
        _close(message.descriptors)
        return process

    def _expecting(
        self, process: Process, word: str, seconds: float
    ) -> Generator[float, None, channel.Message]:
        """The next message, which must be that word; ProgramError."""
        end = time.monotonic() + seconds
        while True:
            message = _next(process, word, 0.0)
            if message is not None:
                return message
            if time.monotonic() > end:
                raise ProgramError(
                    f"the new program is silent: it did not say `{word}` within "
                    f"{seconds:.0f} seconds"
                )
            yield POLL_SECONDS

    def _send(self, process: Process, word: str, text: str = "", *, descriptors: list[int]) -> None:
        """Sends a message with descriptors of our own, which are closed."""
        assert process.channel is not None
        try:
            process.channel.send(word, text, descriptors, seconds=1.0)
        finally:
            _close(descriptors)

    # -- the update -----------------------------------------------------------

    def _updating(self) -> Iterator[float]:
        if not self._checked:
            yield from self._checking(self.program)
        process = yield from self._ready(self.program)
        self._hand_over(process)

    def _hand_over(self, process: Process) -> None:
        """Nobody is served in here: this process hands over, or goes on as if nothing had been."""
        daemon = self._daemon
        assert process.channel is not None
        began = time.monotonic()
        seconds = WRITTEN_SECONDS + NODE_SECONDS * daemon.server.tree.size
        file = channel.MemoryFile()
        try:
            daemon.saving(file.put).step(float("inf"))
            asked = "" if self._pending else channel.UNASKED
            self._send(process, "take", asked, descriptors=[file.detach()])
        finally:
            file.close()
        given = daemon.descriptors()
        # However many there are, a program that takes them slowly has no more time for all.
        end = time.monotonic() + seconds
        for at in range(0, len(given), channel.PIECE):
            left = max(end - time.monotonic(), POLL_SECONDS)
            process.channel.send("descriptors", "", given[at : at + channel.PIECE], seconds=left)
        process.channel.send("end", seconds=seconds)
        _must(process, "built", seconds)
        if daemon.ward is not None:
            daemon.ward.handing(process)
        # It serves nobody before it has said so; where it does not, it is ended.
        try:
            process.channel.send("go", seconds=seconds)
            # The word stays there for who goes on where this process dies now.
            _must(process, "taken", seconds, peek=True)
        except BaseException:
            # It may have written its pid already, and must not do so any more.
            self._process = None
            process.take_back()
            if "taken" not in process.last_words:
                if daemon.ward is not None:
                    daemon.ward.not_handing()
                daemon.claim_back()
                raise
        daemon.log(
            "info",
            f"live update: process {process.pid} has taken over after "
            f"{(time.monotonic() - began) * 1000:.0f} ms",
        )
        self._process = None
        daemon.handed_over(process.pid)


#: By its first word: who serves a command.
COMMANDS: dict[str, Callable[[Dialogue, Any, list[str]], bytes | None]] = {
    "-f": Dialogue.file,
    "-c": Dialogue.arguments,
    "-s": Dialogue.start,
    "-a": Dialogue.abort,
}


def _text(text: str, end: bytes = b"") -> bytes:
    """An answer of that text, cut where a packet could not hold it, and its end."""
    return text.encode("utf-8", "surrogateescape")[: ANSWER_MAX - len(end)] + end


def _options(words: list[str]) -> tuple[int, bool]:
    """(seconds, force) of -s; ProgramError.  Another pyxsd needs neither."""
    seconds, force = TIMEOUT, False
    left = iter(words)
    for word in left:
        if word == "-F":
            force = True
        elif word == "-t":
            number = next(left, "")
            if not (number.isascii() and number.isdigit()) or len(number) > 9:
                raise ProgramError(
                    f"live-update -s: wrong argument '{number}'; option '-t' expects an integer."
                )
            seconds = int(number)
        else:
            raise ProgramError(f"live-update -s: unknown option '{word}'.")
    return seconds, force


def _next(
    process: Process, word: str, seconds: float, peek: bool = False
) -> channel.Message | None:
    """The next message, which must be that word; None where none has come within `seconds`."""
    assert process.channel is not None
    try:
        message = process.channel.receive(seconds, peek)
    except (BlockingIOError, TimeoutError):
        return None
    except (EOFError, OSError):
        process.take_back()
        raise ProgramError(
            f"the new program {process.how_it_ended()} before it said `{word}`"
        ) from None
    if message.word == word:
        return message
    _close(message.descriptors)
    if message.word == "refused":
        raise ProgramError(f"the new program refuses: {message.text}")
    raise ProgramError(f"the new program says `{message.word[:32]}` where `{word}` was expected")


def _must(process: Process, word: str, seconds: float, peek: bool = False) -> None:
    """Waits for a message, which must be that word; ProgramError."""
    message = _next(process, word, seconds, peek)
    if message is None:
        raise ProgramError(
            f"the new program is silent: it did not say `{word}` within {seconds:.0f} seconds"
        )
    _close(message.descriptors)


def _close(descriptors: list[int]) -> None:
    """Those that came with a message, which a program may give with any."""
    for fd in descriptors:
        os.close(fd)


def _difference(given: bytes, written: bytes, at: int) -> str:
    """Where two pieces of a state differ, and what stands there."""
    n = next(
        (i for i, (a, b) in enumerate(zip(given, written)) if a != b), min(len(given), len(written))
    )
    return f"offset {at + n}: {written[n : n + 32]!r}, not {given[n : n + 32]!r}"
