# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program pyxsd-setup: status, check, select, deselect, update, take-over, give-back."""

from __future__ import annotations

import argparse
import os
import re
import sys

from pyxsd.setup import boot, checks, choose, installed, running, switch, update
from pyxsd.setup.tree import Tree
from pyxsd.system.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from pyxsd.setup.boot import NextBoot
    from pyxsd.setup.running import Running

#: What `select` may have put into the settings file.
OWN_PROGRAMS = (boot.LAUNCHER, "/usr/sbin/pyxsd", "/usr/bin/pyxsd")

#: Paths that a shell takes as they are.
_PLAIN = re.compile(r"[\w/.+,:@%-]+")

#: What --timeout takes at most: an hour.
MOST_SECONDS = 3600
_DIGITS = 9  # a longer number is too large, whatever it is

STATUS_OK = 0
STATUS_NO = 1  # refused, failed, an error found, or (--in-use) not in use
STATUS_USAGE = 2  # argparse's own

EXIT_STATUS = (
    (STATUS_OK, "done; check: no error was found; status --in-use: pyxsd runs or is selected"),
    (
        STATUS_NO,
        "refused or failed, nothing was changed; check: an error was found; status "
        "--in-use: pyxsd neither runs nor is selected",
    ),
    (STATUS_USAGE, "the command line is wrong"),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="pyxsd-setup",
        description="Shows and chooses the xenstored of this host.",
        epilog="A choice counts from the next boot.  Only update, take-over and give-back change "
        "what runs: update starts a new daemon, and the old one ends; with the other two the "
        "process becomes another program.",
    )
    top.add_argument("--version", action="store_true", help="print the version and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, function, text in COMMANDS:
        command = commands.add_parser(name, help=text, description=f"{name}: {text}.")
        command.add_argument(
            "--root",
            metavar="DIR",
            default="/",
            help="work on the files of the host that lies in DIR, not on this one",
        )
        command.set_defaults(function=function)
        if name == "status":
            command.add_argument(
                "--in-use",
                action="store_true",
                help="print nothing if pyxsd neither runs nor is selected, and "
                "tell by the exit status",
            )
        if name in ("select", "deselect"):
            command.add_argument(
                "--file",
                metavar="FILE",
                default="",
                help="change this settings file, not the one found",
            )
        if name in ("check", "select", "deselect"):
            command.add_argument(
                "--launcher",
                metavar="PROGRAM",
                default="",
                help=f"the launcher, where it is neither {boot.LAUNCHER} nor beside this program",
            )
        if name in ("take-over", "give-back"):
            command.add_argument(
                "--program",
                metavar="FILE",
                default="",
                help="this program instead of "
                + (
                    "the installed pyxsd"
                    if name == "take-over"
                    else "the one that the host is configured for"
                ),
            )
        if name in ("update", "take-over", "give-back"):
            command.add_argument("--yes", action="store_true", help="do it without asking")
            command.add_argument(
                "--timeout",
                metavar="SECONDS",
                type=_seconds,
                default=update.SECONDS,
                help=(
                    f"call it off after these and {update.EXTRA_SECONDS} more"
                    if name == "update"
                    else "how long open transactions and the like are waited for"
                )
                + f"; 0 to {MOST_SECONDS} (default: {update.SECONDS})",
            )
        if name == "select":
            command.add_argument(
                "--force",
                action="store_true",
                help="select it even where check finds errors, or where no boot script reads FILE",
            )
    return top


def _seconds(word: str) -> int:
    """The number behind --timeout."""
    if not (word.isascii() and word.isdigit()) or len(word) > _DIGITS or int(word) > MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{word!r} is no number of seconds from 0 to {MOST_SECONDS}"
        )
    return int(word)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; the exit status."""
    top = parser()
    given = top.parse_args(argv)
    if given.version:
        _say(f"pyxsd-setup {installed.version_here()}".rstrip())
        return STATUS_OK
    if given.command is None:
        top.print_usage(sys.stderr)
        _say("pyxsd-setup: a command is missing", file=sys.stderr)
        return STATUS_USAGE
    if not os.path.isdir(given.root):
        _say(f"pyxsd-setup: --root {given.root}: there is no such folder", file=sys.stderr)
        return STATUS_USAGE
    for option in ("file", "launcher", "program"):
        path = getattr(given, option, "")
        fault = _path_fault(path, option == "launcher") if path else ""
        if fault:
            _say(f"pyxsd-setup: --{option} {ascii(path)[1:-1]}: {fault}", file=sys.stderr)
            return STATUS_USAGE
    tree = Tree(given.root)
    if not getattr(given, "launcher", True):
        given.launcher = _launcher(tree)
    try:
        code = int(given.function(given, tree))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Nobody reads on, as in `pyxsd-setup check | head -1`; nor shall Python try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except choose.Refused as error:
        # What a daemon has said may end in a stop of its own.
        _say(f"pyxsd-setup: {str(error).rstrip('.')}.", file=sys.stderr)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _say(f"pyxsd-setup: {what}.", file=sys.stderr)
    return STATUS_NO


def _path_fault(path: str, for_shell: bool) -> str:
    """What is wrong with a path on the command line, "" where nothing is.  A boot script's folder
    is another one than the caller's, and its shell takes blanks and `$` for more than a name."""
    if not path.startswith("/"):
        return "give the whole path, which begins with /"
    if for_shell and not _PLAIN.fullmatch(path):
        return "give a path of letters, digits and _ . + - , : @ % alone, as a boot script needs it"
    return ""


def _launcher(tree: Tree) -> str:
    """The package's launcher, or the one that pip put beside this program."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "pyxsd-launch")
    pip_s = tree.is_this_host and not tree.exists(boot.LAUNCHER) and tree.is_program(beside)
    return beside if pip_s else boot.LAUNCHER


def status(given: argparse.Namespace, tree: Tree) -> int:
    """status: three facts and what follows from them."""
    now = running.look_in(tree)
    then = boot.look(tree)
    if given.in_use:
        reasons = _uses(now, then)
        for reason in reasons:
            _say(reason)
        return STATUS_OK if reasons else STATUS_NO
    copies = installed.copies(tree, boot.LAUNCHER)
    version = installed.version_here() if tree.is_this_host else copies[0].version if copies else ""
    rows = [("running now", _running(now)), ("at the next boot", _next(then, version))]
    kept = update.crash_recovery(now)
    if kept:
        rows.insert(1, ("crash recovery", kept))
    rows += [
        (
            "installed",
            f"pyxsd {copy.version or '(unknown version)'} in {copy.folder}"
            + (" (incomplete)" if copy.missing else ""),
        )
        for copy in copies
    ]
    if not copies:
        rows.append(("installed", "no pyxsd"))
    for name, text in rows:
        _say(f"{name + ':':<18}{text}")
    for line in _advice(now, then, version):
        _say(line)
    return STATUS_OK


def _uses(now: Running, then: NextBoot) -> list[str]:
    """Why pyxsd must not be removed, in sentences; none where it may be."""
    reasons = []
    if now.kind == "pyxsd":
        reasons.append(f"pyxsd is running (process {now.pid}).")
    code = [line for line in (then.text or "").split("\n") if not line.lstrip().startswith("#")]
    if then.kind == "pyxsd":
        reasons.append(f"pyxsd is what the next boot starts ({then.origin}).")
    elif then.fault and any("pyxsd" in line for line in code):
        reasons.append(f"pyxsd may be what the next boot starts: {then.fault}.")
    return reasons


def _running(now: Running) -> str:
    if now.state == running.LIVE:
        version = (
            f" {now.version}"
            if now.version
            else " (does not tell its version)"
            if now.kind == "pyxsd"
            else ""
        )
        name = now.kind or "an unknown xenstored"
        process = f", process {now.pid}" if now.pid else ""
        return f"{name}{version}{process}, answers on {now.socket}"
    if now.state == running.SILENT:
        return f"{now.who}, does not answer on {now.socket}: it hangs or is very busy"
    if now.pid:
        return f"{now.who}, without a socket at {now.socket}: no tool can reach it"
    if now.state == running.STALE:
        return f"nothing; {now.socket} was left behind by a daemon that is gone"
    return now.fault or "nothing"


def _next(then: NextBoot, version: str) -> str:
    if then.fault:
        return f"nothing, or it cannot be told: {then.fault}"
    name = f"pyxsd {version}".rstrip() if then.kind == "pyxsd" else then.kind
    return f"{name} ({then.program}); {then.origin}"


def _advice(now: Running, then: NextBoot, version: str) -> list[str]:
    lines = []
    if now.kind == "pyxsd" and now.state == running.LIVE and version and now.version != version:
        old = f"version {now.version}" if now.version else "an older version"
        lines.append(
            f"The daemon that runs is still {old}; version {version} is installed and "
            "starts at the next boot of the host, or now with `pyxsd-setup update`."
        )
    if now.pid and not then.fault and now.kind != then.kind:
        lines.append(f"The next boot changes from {now.kind} to {then.kind}.")
    return lines


def check(given: argparse.Namespace, tree: Tree) -> int:
    """check: the report of the dry run."""
    findings = checks.run(tree, given.launcher)
    for finding in findings:
        _say(f"{finding.level + ':':<9}{finding.text}")
    errors = sum(finding.level == checks.ERROR for finding in findings)
    warnings = sum(finding.level == checks.WARNING for finding in findings)
    where = "on this host" if tree.is_this_host else f"on the host that lies in {tree.root}"
    _say(
        f"{_count(errors, 'error')}, {_count(warnings, 'warning')}."
        + ("" if errors else f"  pyxsd can be started {where}.")
    )
    if not tree.is_this_host:
        _say(f"The paths are that host's: /etc is {tree.root}/etc.")
    return STATUS_NO if errors else STATUS_OK


def _count(number: int, what: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def select(given: argparse.Namespace, tree: Tree) -> int:
    """select: edits the settings file, after the checks."""
    if not given.force:
        # Selecting mends what is wrong with the next boot, unless the host has no way of starting.
        mends = bool(given.file) or boot.look(tree).way is not None
        errors = [
            finding.text
            for finding in checks.run(tree, given.launcher)
            if finding.level == checks.ERROR
            and not (mends and finding.text.startswith("next boot:"))
        ]
        if errors:
            for text in errors:
                _say(f"error:   {text}", file=sys.stderr)
            # What --force does not pass over either: nothing to start, a file not to be edited.
            forced = tree.is_program(given.launcher) and boot.look(tree, given.file).editable
            raise choose.Refused(
                "not selected, since it would not work"
                + ("; --force selects it all the same" if forced else "")
            )
    _print(choose.select(tree, given.launcher, given.file, given.force))
    return STATUS_OK


def deselect(given: argparse.Namespace, tree: Tree) -> int:
    """deselect: takes the launcher, or pyxsd itself, out of the settings file."""
    _print(choose.deselect(tree, (given.launcher, *OWN_PROGRAMS), given.file))
    return STATUS_OK


def update_now(given: argparse.Namespace, tree: Tree) -> int:
    """update: a live update of the daemon that runs to the installed version."""
    what = update.plan(running.look_in(tree), installed.version_here())
    _print(update.described(what))
    if not update.agreed(given.yes):
        _say("Nothing was changed.")
        return STATUS_NO
    version = update.run(what, given.timeout)
    now = update.successor(what.now, lambda: running.look_in(tree))
    _say(f"Updated: pyxsd {version}, process {now.pid}, serves now; process {what.now.pid} ends.")
    return STATUS_OK


def take_over(given: argparse.Namespace, tree: Tree) -> int:
    """take-over: the xenstored that runs becomes pyxsd."""
    now = running.look_in(tree)
    return _switch(given, tree, switch.take_over(now, given.program or switch.own_program(tree)))


def give_back(given: argparse.Namespace, tree: Tree) -> int:
    """give-back: pyxsd becomes the xenstored that the host had."""
    now = running.look_in(tree)
    return _switch(given, tree, switch.give_back(now, given.program, tree, OWN_PROGRAMS))


def _switch(given: argparse.Namespace, tree: Tree, what: switch.Plan) -> int:
    seconds = given.timeout
    _print(switch.described(what, seconds))
    if not update.agreed(given.yes, f"Change to {what.kind} now?"):
        _say("Nothing was changed.")
        return STATUS_NO
    _say(switch.run(what, seconds))
    _print(switch.left(what, boot.look(tree)))
    return STATUS_OK


def _say(text: str, file: TextIO | None = None) -> None:
    """Some of the text may come from a folder that is somebody else's (--root), and a terminal need
    not know its letters."""
    out = sys.stdout if file is None else file
    letters = out.encoding or "utf-8"
    print(printable(text).encode(letters, "backslashreplace").decode(letters), file=out)


def _print(lines: list[str]) -> None:
    for line in lines:
        _say(line)


#: Command, its function, what --help and the manual say.
COMMANDS = (
    ("status", status, "show what runs now, and what the next boot starts"),
    ("check", check, "see whether pyxsd would work on this host, without touching anything"),
    ("select", select, "let the next boot start pyxsd"),
    ("update", update_now, "let the daemon that runs hand over to the installed version"),
    ("take-over", take_over, "let the xenstored that runs become pyxsd, while guests run"),
    ("give-back", give_back, "let pyxsd become the xenstored that the host had, while guests run"),
    ("deselect", deselect, "let the next boot start what it started before"),
)

if __name__ == "__main__":
    sys.exit(main())
