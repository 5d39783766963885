# SPDX-License-Identifier: LGPL-2.1-or-later
"""C xenstored's command line, with which it executes its successor.

C xenstored (4.15 to 4.22) becomes the program of its live update with its own arguments, or with
those of `live-update -c`, and `-U` among them.  The rules are getopt_long's: `-NU` are two options,
`-Ffile` and `--pid-file=file` have their argument with them, `--pid-f file` is an abbreviation.

What pyxsd has no option for is accepted without effect, but for limits: those are handed on.  Its
own options may stand there as well (`live-update -c "--config-file FILE"`).  Nothing is fatal: the
program that was here before does not exist any more, so what makes no sense is told and left out.
"""

from __future__ import annotations

from pyxsd.named import NamedTuple
from pyxsd.system.options import C_ARGUMENTS, TABLE, Exit, Options, parse

LIVE_UPDATE = "U"

NONE, NEEDED, JOINED = range(3)  # JOINED: an argument only where it stands with the option

#: Letter, long name, argument; a letter of two bytes has no short form.
C_TABLE: tuple[tuple[str, str, int], ...] = (
    ("D", "no-domain-init", NONE),
    ("E", "entry-nb", NEEDED),
    ("F", "pid-file", NEEDED),
    ("H", "help", NONE),
    ("I", "internal-db", JOINED),
    ("K", "keep-orphans", NONE),
    ("N", "no-fork", NONE),
    ("P", "output-pid", NONE),
    ("R", "no-recovery", NONE),
    ("S", "entry-size", NEEDED),
    ("t", "transaction", NEEDED),
    ("T", "trace-file", NEEDED),
    ("A", "perm-nb", NEEDED),
    ("M", "path-max", NEEDED),
    ("Q", "quota", NEEDED),
    ("q", "quota-soft", NEEDED),
    ("V", "verbose", NONE),
    ("W", "watch-nb", NEEDED),
    ("w", "timeout", NEEDED),
    (LIVE_UPDATE, "live-update", NONE),
    ("ev", "event", NEEDED),
    ("md", "master-domid", NEEDED),
    ("pd", "priv-domid", NEEDED),
    ("tc", "trace-control", NEEDED),
)

#: Letter: the option of pyxsd that has the same effect.
OWN: dict[str, str] = {"D": "--no-domain-init", "F": "--pid-file", "N": "--no-fork", "T": "-T"}

#: Letter: the limit that its argument sets, by C's name, which is pyxsd's.
LIMITS: dict[str, str] = {
    "E": "nodes",
    "W": "watches",
    "t": "transactions",
    "S": "node-size",
    "M": "path-max",
    "A": "node-permissions",
}

#: C's names of limits that have another one here.
RENAMED = {"permissions": "node-permissions"}


class Line(NamedTuple):
    """What a command line of C xenstored says to pyxsd."""

    options: Options
    words: list[str]  # the same as a command line of pyxsd
    limits: dict[str, int]  # by name
    faults: list[str]  # what made no sense


class _Option(NamedTuple):
    """One option as it was found."""

    letter: str  # of C_TABLE, or "" for one of pyxsd's own
    name: str  # as pyxsd spells it, where it is its own
    argument: str | None


def is_c_line(argv: list[str]) -> bool:
    """Does C xenstored say with this that its successor shall take over?

    oxenstored's `--live` is an abbreviation of C's `--live-update`, and counts as oxenstored's.
    """
    if "--live" in argv:
        return False
    return any(option.letter == LIVE_UPDATE for option in _options(argv, []))


def read(argv: list[str]) -> Line | Exit:
    """The whole line; Exit where it only asks for help."""
    faults: list[str] = []
    words: list[str] = []
    limits: dict[str, int] = {}
    kept = []  # C's own, for the way back
    for option in _options(argv, faults):
        if option.letter == "H":
            return Exit(stderr="usage: see pyxsd --help\n")
        if option.letter not in ("", LIVE_UPDATE):
            kept.append(_as_word(option))
        own = option.name or OWN.get(option.letter, "")
        if own:
            words.append(own if option.argument is None else f"{own}={option.argument}")
        _limit(option, limits, faults)
    parsed = parse(words)
    if isinstance(parsed, Exit):
        faults.append(parsed.stderr.split("\n")[0])
        words, parsed = [], Options()
    words.append(f"{C_ARGUMENTS}={pack(kept)}")
    return Line(
        parsed._replace(live=True, restart=True, c_arguments=pack(kept)), words, limits, faults
    )


def _as_word(option: _Option) -> str:
    """An option of C's as one word."""
    name = next(row[1] for row in C_TABLE if row[0] == option.letter)
    return f"--{name}" if option.argument is None else f"--{name}={option.argument}"


def pack(words: list[str]) -> str:
    """C's arguments as one word, in which the next pyxsd gets them too: hexadecimal digits."""
    return "\0".join(words).encode("utf-8", "surrogateescape").hex()


def unpack(text: str) -> list[str]:
    """C's arguments of such a word; [] where it is none."""
    try:
        words = bytes.fromhex(text).decode("utf-8", "surrogateescape")
    except ValueError:
        return []
    return words.split("\0") if words else []


def _limit(option: _Option, limits: dict[str, int], faults: list[str]) -> None:
    name, number = LIMITS.get(option.letter, ""), option.argument or ""
    if option.letter == "Q":
        name, _, number = number.partition("=")
        name = RENAMED.get(name, name)
    if not name:
        return
    if number.isdigit() and len(number) < 10:
        limits[name] = int(number)
    else:
        faults.append(f"{name}: not a number: '{number}'")


def _options(argv: list[str], faults: list[str]) -> list[_Option]:
    """The options of a line in their order; what is none goes to the faults."""
    found: list[_Option] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            found += _long(word[2:], words, faults)
        elif word.startswith("-") and len(word) > 1:
            found += _short(word[1:], words, faults)
        elif word:
            faults.append(f"unexpected word '{word}'")
    return found


def _long(word: str, words: object, faults: list[str]) -> list[_Option]:
    """One word that begins with two dashes, which were taken off."""
    name, equals, argument = word.partition("=")
    rows = [row for row in C_TABLE if row[1].startswith(name)]
    exact = [row for row in rows if row[1] == name]
    rows = exact or rows
    if not rows:
        own = next((row for row in TABLE if row[0] == f"--{name}"), None)
        if own is None:
            faults.append(f"unknown option '--{word}'")
            return []
        takes = NONE if own[2] is not None else NEEDED
        letter, name = "", own[0]
    elif len(rows) > 1:
        faults.append(f"ambiguous option '--{word}'")
        return []
    else:
        (letter, _, takes), name = rows[0], ""
    if takes == NONE:
        if equals:
            faults.append(f"an option without argument: '--{word}'")
        return [_Option(letter, name, None)]
    if not equals and takes == NEEDED:
        return _with_next(letter, name, words, faults, f"--{word}")
    return [_Option(letter, name, argument if equals else None)]


def _short(letters: str, words: object, faults: list[str]) -> list[_Option]:
    """One word that begins with one dash, which was taken off."""
    found = []
    while letters:
        letter, letters = letters[0], letters[1:]
        row = next((row for row in C_TABLE if row[0] == letter), None)
        if row is None:
            faults.append(f"unknown option '-{letter}'")
        elif row[2] == NONE:
            found.append(_Option(letter, "", None))
        elif letters or row[2] == JOINED:
            found.append(_Option(letter, "", letters or None))
            break
        else:
            found += _with_next(letter, "", words, faults, f"-{letter}")
    return found


def _with_next(
    letter: str, name: str, words: object, faults: list[str], shown: str
) -> list[_Option]:
    argument = next(words, None)  # type: ignore[call-overload]
    if argument is None:
        faults.append(f"option '{shown}' needs an argument")
        return []
    return [_Option(letter, name, argument)]
