# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: oxenstored's options, and --version.

What lives here: the table of options, the parser, the usage text, and what --config-test
answers.  Nothing here prints or ends the process: an early end is an `Exit` that is handed back.

The rules are those of oxenstored's own parser but for one.  Options may stand in any order.  An
argument is the next word, whatever it is, or follows `=`.  The last of several counts.  A fault
anywhere wins over --help and --version.  Two differences: a word that is no option is a fault,
where oxenstored ignores it, and so is an empty name for --config-file, where oxenstored reads
its default file.  (An empty word is ignored here too: it is what a shell script makes of an unset
variable in quotes.)
"""

from __future__ import annotations

from pyxsd import __version__
from pyxsd.named import NamedTuple
from pyxsd.system import configuration as config
from pyxsd.system.spelling import hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATUS_USAGE = 2  # exit status of a wrong command line, and of --config-test's refusal


class Options(NamedTuple):
    """What the command line says.  An empty string is an option that was not given."""

    domain_init: bool = True
    config_file: str = config.DEFAULT_PATH
    daemonize: bool = True
    reraise_top_level: bool = False
    access_log: bool = True
    pid_file: str = ""
    trace_file: str = ""  # of old daemons; without effect
    restart: bool = False
    live: bool = False
    config_test: bool = False
    disable_socket: bool = False
    show_state: str = ""
    as_format: str = ""  # of the state that is shown; empty: text
    replay: str = ""  # a directory of recordings
    until: str = ""  # where the replay ends; empty: at the end
    take_over: str = ""  # the descriptor on which a daemon that leaves waits
    c_arguments: str = ""  # with which C xenstored ran before this host came to pyxsd


class Exit(NamedTuple):
    """End here: write the texts to their streams and exit with the status."""

    status: int = 0
    stdout: str = ""
    stderr: str = ""


# option, field of Options, the value it sets (None: its argument), what --help says
TABLE: tuple[tuple[str, str, bool | None, str], ...] = (
    ("--no-domain-init", "domain_init", False, "do not set up domain 0"),
    ("--config-file", "config_file", None, f"read this file, not {config.DEFAULT_PATH}"),
    ("--no-fork", "daemonize", False, "stay in the foreground"),
    ("--reraise-top-level", "reraise_top_level", True, "end at an unexpected error"),
    ("--no-access-log", "access_log", False, "write no access log"),
    ("--pid-file", "pid_file", None, "write the process id there as well"),
    ("-T", "trace_file", None, "accepted, without effect"),
    ("--restart", "restart", True, "read the database at the start"),
    ("--live", "live", True, "with --restart: for another xenstored, which becomes pyxsd"),
    ("--config-test", "config_test", True, "check the configuration file and end"),
    ("--disable-socket", "disable_socket", True, "serve no socket"),
    ("--show-state", "show_state", None, "print a xenstored's state file as text and end"),
    ("--as", "as_format", None, "print it as oxenstored's (db) or C xenstored's (stream)"),
    ("--replay", "replay", None, "run a recording again, print its requests, and end"),
    ("--until", "until", None, "run it until so many requests were served, or until a time"),
)

STATE_FORMATS = ("db", "stream")  # arguments of --as; with --replay also text

#: By field: what --help calls an argument that is no file.
ARGUMENTS = {"as_format": "|".join(STATE_FORMATS), "replay": "<folder>", "until": "<n>|<time>"}

#: The option that a daemon gives to the program that shall take over from it; for nobody else, so
#: --help does not name it.
TAKE_OVER = "--take-over"
#: The arguments of the C xenstored that has handed over, kept for the way back; for nobody else,
#: either.
C_ARGUMENTS = "--c-arguments"
#: What --live --help prints: a program that does not is no pyxsd that can take over.
CAN_TAKE_OVER = "pyxsd can take over by live update\n"

_HELP = ("--help", "-help", "-h")
_VERSION = "--version"


def usage(program: str = "pyxsd") -> str:
    """The text of --help; ends in a newline."""
    lines = [f"usage: {program} [option]..."]
    for option, field, value, text in TABLE:
        argument = ARGUMENTS.get(field, "<file>")
        left = option if value is not None else f"{option} {argument}"
        lines.append(f"  {left:<22} {text}")
    lines.append(f"  {_VERSION:<22} show the version and end")
    lines.append(f"  {'-h, --help':<22} show this text and end; with --live: can it take over?")
    return "\n".join(lines) + "\n"


def may_be_c_line(argv: list[str]) -> bool:
    """Could it be C xenstored that executes this program, in its live update?  What the words say
    then, switch.c_options tells."""
    return any(
        word.startswith("--live-") or word[:1] == "-" != word[1:2] and "U" in word for word in argv
    )


def parse(argv: list[str], program: str = "pyxsd") -> Options | Exit:
    """Read the words behind the program's name.

    Faults end with STATUS_USAGE and two lines on stderr: what is wrong, and how to see the
    options.  --help ends with 0 and the usage on stdout.
    An old daemon asks a new binary whether it could take over by `--live ... --help`; that, in
    any order, is --config-test.
    """
    rows: dict[str, tuple[str, bool | None]] = {
        option: (field, value) for option, field, value, _text in TABLE
    }
    rows[TAKE_OVER] = ("take_over", None)
    rows[C_ARGUMENTS] = ("c_arguments", None)
    values: dict[str, Any] = {}
    wants_help = wants_version = False
    words = iter(argv)
    for word in words:
        if not word:
            continue
        option, equals, argument = word.partition("=")
        if option in _HELP and not equals:
            wants_help = True
            continue
        if word == _VERSION:
            wants_version = True
            continue
        if not word.startswith("-"):
            return _wrong(program, f"unexpected word '{word}'")
        if option not in rows:
            known = (*(row[0] for row in TABLE), _VERSION)
            return _wrong(program, f"unknown option '{word}'" + hint(option, known))
        field, value = rows[option]
        if value is not None:
            if equals:
                return _wrong(program, f"option '{option}' takes no argument")
            values[field] = value
            continue
        if not equals:
            following = next(words, None)
            if following is None:
                return _wrong(program, f"option '{option}' needs an argument")
            argument = following
        if field in ("config_file", "show_state", "replay") and not argument:
            return _wrong(
                program, f"option '{option}' needs the name of a file, and got an empty word"
            )
        values[field] = argument
    as_format = values.get("as_format", "")
    replays = "replay" in values
    formats = (*STATE_FORMATS, "text") if replays else STATE_FORMATS
    if replays and values.get("show_state"):
        return _wrong(program, "options '--show-state' and '--replay' do not go together")
    if as_format and as_format not in formats:
        return _wrong(program, f"option '--as' takes {' or '.join(formats)}")
    if as_format and not replays and not values.get("show_state"):
        return _wrong(program, "option '--as' needs '--show-state' or '--replay'")
    if "until" in values and not replays:
        return _wrong(program, "option '--until' needs '--replay'")
    if "live" in values and not (
        wants_help or wants_version or "restart" in values or "config_test" in values
    ):
        return _wrong(program, "option '--live' needs '--restart' or '--help'")
    if wants_help and "live" not in values:
        return Exit(stdout=usage(program))
    if wants_version:
        return Exit(stdout=f"{program} {__version__}\n")
    if wants_help:
        values["config_test"] = True
    return Options(**values)


def _wrong(program: str, what: str) -> Exit:
    stop = "" if what.endswith("?") else "."
    return Exit(status=STATUS_USAGE, stderr=f"{program}: {what}{stop}\nTry '{program} --help'.\n")


def check_config(path: str, live: bool = False) -> Exit:
    """What --config-test answers about the file: here alone a warning is fatal.

    live: a daemon asks on behalf of a live update.

    A file that cannot be read is fatal as well, but for one case: where nothing stands at the
    default path the daemon runs with the defaults, as oxenstored does, and that is valid.
    """
    valid = f"Configuration valid at {path}\n" + (CAN_TAKE_OVER if live else "")
    try:
        text = config.read_file(path)
    except OSError as error:
        told = f"error: config: {path}: {error.strerror}\n"
        if path == config.DEFAULT_PATH and isinstance(error, FileNotFoundError):
            return Exit(stdout=valid, stderr=told)
        return Exit(status=STATUS_USAGE, stderr=told)
    _config, warnings = config.parse(text, path)
    if warnings:
        return Exit(status=STATUS_USAGE, stderr="".join(f"{line}\n" for line in warnings))
    return Exit(stdout=valid)
