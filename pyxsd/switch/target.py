# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a program is that shall take this host over, and with which words it is executed.

Each daemon is known by what it says to `--help`: C xenstored on standard error, oxenstored and
pyxsd on standard output.  Whatever says something else is refused: executing it would end the
host's xenstore.
"""

from __future__ import annotations

import os
import signal
import time

from pyxsd.named import NamedTuple
from pyxsd.switch.c_options import unpack
from pyxsd.system.configuration import keys
from pyxsd.system.options import Exit, Options, parse
from pyxsd.update.program import ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

PYXSD, C, OX = "pyxsd", "C xenstored", "oxenstored"

HELP_SECONDS = 15.0  # a Python's start on a busy host; the daemon serves meanwhile
POLL_SECONDS = 0.01
_OUTPUT_MAX = 65536
_REASON_MAX = 300
#: What oxenstored says on standard error of a configuration, and behind the last fault of it.
UNKNOWN_KEY = "config: unknown key "
KEYS_ARE_WRONG = "Fatal exception: Config.Error(_)"

#: Kind; on standard error rather than on standard output; what stands there.
WORDS = (
    (C, True, "xenstored <options>"),
    (OX, False, "usage : xenstored"),
    (PYXSD, False, "usage: pyxsd"),
)


class Answer(NamedTuple):
    """What came of a process: its exit status (as os.waitstatus_to_exitcode has it), its texts."""

    status: int
    out: str
    error: str


class Question:
    """A process that is asked something, and its output; nobody waits for it in here."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        self._pipes: list[int] = []
        self._texts = [b"", b""]
        theirs = []
        try:
            for _ in range(2):
                reading, writing = os.pipe()
                os.set_blocking(reading, False)
                self._pipes.append(reading)
                theirs.append(writing)
            self.pid = os.posix_spawn(
                words[0],
                list(words),
                dict(environ),
                setsigdef=[signal.SIGPIPE],
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs[0], 1),
                    (os.POSIX_SPAWN_DUP2, theirs[1], 2),
                ],
            )
        except OSError as error:
            self._close()
            raise ProgramError(f"{words[0]}: {error.strerror}") from error
        finally:
            for fd in theirs:
                os.close(fd)

    def answer(self) -> Answer | None:
        """What it came to; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        self._read()
        if not pid:
            return None
        self.pid = 0
        self._close()
        out, error = (text.decode("utf-8", "replace") for text in self._texts)
        return Answer(os.waitstatus_to_exitcode(status), out, error)

    def kill(self) -> None:
        """Ends it, whatever it does."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self._close()

    def _read(self) -> None:
        """One look, which takes as much as a pipe holds: a program may write without end."""
        for i, fd in enumerate(self._pipes):
            try:
                self._texts[i] = (self._texts[i] + os.read(fd, 65536))[:_OUTPUT_MAX]
            except BlockingIOError:
                pass

    def _close(self) -> None:
        while self._pipes:
            os.close(self._pipes.pop())


def ask(
    words: Sequence[str],
    environ: Mapping[str, str],
    seconds: float,
    started: Callable[[Question | None], None],
) -> Generator[float, None, Answer]:
    """Yields pauses while a process runs; its Answer at the end.  ProgramError.

    started: is told of the process, so that it can be ended from outside, and with None of its end.
    """
    question = Question(words, environ)
    started(question)
    end = time.monotonic() + seconds
    while (answer := question.answer()) is None:
        if time.monotonic() > end:
            question.kill()
            started(None)
            raise ProgramError(
                f"Command '{' '.join(words)}' did not end within {seconds:.0f} seconds"
            )
        yield POLL_SECONDS
    started(None)
    return answer


def kind_of(path: str, answer: Answer) -> str:
    """Which daemon has answered so to `--help`; ProgramError."""
    for kind, on_error, words in WORDS:
        if words in (answer.error if on_error else answer.out):
            return kind
    if answer.status:
        ended = (
            f"exited with code {answer.status}"
            if answer.status > 0
            else f"was killed by signal {-answer.status}"
        )
        why = answer.error.partition("\n")[0][:_REASON_MAX]
        raise ProgramError(f"Command '{path} --help' {ended}{why and f': {why}'}")
    raise ProgramError(
        f"{path} is no xenstored: `--help` says neither what C xenstored nor what "
        "oxenstored nor what pyxsd says"
    )


def minds_our_keys_alone(answer: Answer) -> bool:
    """Is there nothing that oxenstored minds but keys of the configuration that are pyxsd's alone?

    Its trial run ends at a key that it does not know, and names all faults before.  When it starts
    in earnest it says the same and goes on.
    """
    lines = answer.error.splitlines()
    faults = [line for line in lines if line.startswith("config: ")]
    known = keys()
    return (
        bool(faults)
        and all(line.removeprefix(UNKNOWN_KEY) in known for line in faults)
        and lines[: len(faults) + 1] == [*faults, KEYS_ARE_WRONG]
    )


# -- command lines ------------------------------------------------------------


def c_command(path: str, own: Sequence[str], given: Sequence[str]) -> list[str]:
    """How C xenstored is executed.  own: our own arguments; given: those of `-c`, which replace all
    others and are cut at blanks, as C's own dialogue does it."""
    options = _options(own)
    if given:
        words = " ".join(given).split()
    elif options.c_arguments:
        words = unpack(options.c_arguments)
    else:
        words = [*_flag(options), *(["--pid-file", options.pid_file] if options.pid_file else [])]
        words += ["-T", options.trace_file] if options.trace_file else []
    return [path, *words, *([] if "-U" in words else ["-U"])]


def ox_command(path: str, own: Sequence[str], given: Sequence[str], *more: str) -> list[str]:
    """How oxenstored is executed: with what it knows of our own arguments, then those of `-c`."""
    options, default = _options(own), Options()
    words = _flag(options)
    if options.config_file != default.config_file:
        words += ["--config-file", options.config_file]
    for named, value in (("--pid-file", options.pid_file), ("-T", options.trace_file)):
        words += [named, value] if value else []
    for named, is_set in (
        ("--reraise-top-level", options.reraise_top_level),
        ("--no-access-log", not options.access_log),
        ("--disable-socket", options.disable_socket),
    ):
        words += [named] if is_set else []
    return [path, "--live", "--restart", *words, *given, *more]


def ox_config(command: Sequence[str]) -> str:
    """The configuration file that a command line of oxenstored names, the last one."""
    found = Options().config_file
    words = iter(command)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config-file":
            found = value if equals else next(words, found)
    return found


def _flag(options: Options) -> list[str]:
    """What both daemons call as we do."""
    return [
        *([] if options.domain_init else ["--no-domain-init"]),
        *([] if options.daemonize else ["--no-fork"]),
    ]


def _options(own: Sequence[str]) -> Options:
    parsed = parse(list(own))
    return Options() if isinstance(parsed, Exit) else parsed
