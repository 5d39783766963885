# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings files that a boot script reads as shell text: /etc/default/xen and xencommons.

What lives here works on the text alone: what a variable is set to and in which line, and the
texts that `pyxsd-setup select` and `deselect` make.  Nothing is executed.  Where only running
the text would tell (`XENSTORED=$(which pyxsd)`, an assignment below an `if`), that is said
instead of guessed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass

VARIABLE = "XENSTORED"

#: Stands above the line that select writes.
MARK = "# The next line was written by 'pyxsd-setup select'; 'pyxsd-setup deselect' removes it."
#: Stands before each line that select switched off.
OFF = "#pyxsd-setup# "
#: Stands before a line that deselect switched off since select had not written it.
OUT = "#pyxsd-setup deselect# "

# What makes a value depend on more than its own line.
_EVALUATED = re.compile(r"[$`;|&()<>]|\\$")
_OPENING = re.compile(r"^\s*(?:if|case|while|until|for)\b|\{\s*$")
_CLOSING = re.compile(r"^\s*(?:fi|esac|done|\})(?:\s|;|$)")
_SYNTAX_SECONDS = 10
#: Characters of a value.  To take a word of a megabyte apart takes a minute.
VALUE_MAX = 16384


@dataclass(frozen=True)
class Found:
    """What a text says of a variable.

    value: None where it is not set.  line: the line that sets it, counted from 1.
    unclear: why the value cannot be told without running the text; "" where it can.
    """

    value: str | None = None
    line: int = 0
    unclear: str = ""


def _assignment(name: str) -> re.Pattern[str]:
    return re.compile(rf"^\s*(?:export\s+)?{name}=(.*)$", re.DOTALL)


def find(text: str, name: str) -> Found:
    """What the shell would have in the variable after reading the text; the last line counts."""
    simple = _assignment(name)
    mention = re.compile(rf"(?:^|[^\w${{]){name}\b|\$\{{{name}:?=")
    found = Found()
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        code = line.lstrip()
        if code.startswith("#"):
            continue
        if _CLOSING.search(line):
            depth = max(0, depth - 1)
        assigned = simple.match(line)
        if assigned:
            found = _value(assigned.group(1), number, name, depth > 0)
        elif re.match(rf"{name}\s+=", code):
            found = Found(
                found.value,
                number,
                f"line {number} has blanks around '=', which the shell does not take "
                f"for an assignment: write {name}=...",
            )
        elif re.match(r"(?:\.|source)\s", code):
            found = Found(found.value, number, f"line {number} reads another file")
        elif mention.search(line.split(" #")[0]):
            found = Found(
                found.value,
                number,
                f"line {number} sets {name} in a way that only running it would tell",
            )
        if _OPENING.search(line):
            depth += 1
        if found.line == number and found.unclear:
            return found
    return found


def _value(raw: str, number: int, name: str, conditional: bool) -> Found:
    """What one assignment sets; `raw` is the text behind `=`."""
    if len(raw) > VALUE_MAX:
        return Found(None, number, f"line {number} has more than {VALUE_MAX} characters behind '='")
    if "\r" in raw or "\0" in raw:
        return Found(
            None,
            number,
            f"line {number} has a stray control character (was the file "
            "written on another system?)",
        )
    if conditional:
        return Found(None, number, f"line {number} sets {name} only under a condition")
    if _EVALUATED.search(raw):
        return Found(
            None, number, f"line {number} sets {name} to something that only running it would tell"
        )
    if raw[:1].isspace():
        raw = ""  # NAME= followed by a command would be two words, below
    try:
        words = shlex.split(raw, comments=True)
    except ValueError:
        return Found(None, number, f"line {number} has a quotation mark without its partner")
    if len(words) > 1:
        return Found(None, number, f"line {number} has more than one word behind '='; quote them")
    return Found(words[0] if words else "", number)


def fault(text: str) -> str:
    """What keeps the boot script from reading the text to its end; "" where nothing is seen.

    The shell checks the syntax (`sh -n`), which runs nothing.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if "\0" in line:
            return f"line {number} has a NUL character: this is no text file"
        if line.endswith("\r") and not line.lstrip().startswith("#"):
            return (
                f"line {number} ends with a carriage return, which the shell takes for a part "
                "of it: save the file with Unix line ends"
            )
        if re.match(r"\s*exit\b", line):
            return f"line {number}: 'exit' ends the boot script that reads this file"
    try:
        done = subprocess.run(
            ["sh", "-n"],
            input=text.encode("utf-8", "surrogateescape"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SYNTAX_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode == 0:
        return ""
    told = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
    return "the shell does not understand it: " + re.sub(r"^sh: ", "", told)


def selected(text: str, program: str) -> str:
    """The text with XENSTORED set to `program`; lines that set it before are switched off."""
    simple = _assignment(VARIABLE)
    lines = [OFF + line if simple.match(line) else line for line in _without_mark(text)]
    if lines and lines[-1] == "":
        lines.pop()
    return "\n".join([*lines, MARK, f"{VARIABLE}={program}", ""])


def deselected(text: str, programs: tuple[str, ...]) -> str:
    """The text without what select wrote; lines that it had switched off count again.

    Where one of `programs` is set by a line that select had not written, that line is switched
    off.
    """
    lines = [line[len(OFF) :] if line.startswith(OFF) else line for line in _without_mark(text)]
    simple = _assignment(VARIABLE)
    for index, line in enumerate(lines):
        assigned = simple.match(line)
        if assigned and _value(assigned.group(1), 1, VARIABLE, False).value in programs:
            lines[index] = OUT + line
    return "\n".join(lines)


def _without_mark(text: str) -> list[str]:
    """The lines without the mark and the assignment below it."""
    kept: list[str] = []
    behind_mark = False
    for line in text.split("\n"):
        ours = behind_mark and _assignment(VARIABLE).match(line)
        behind_mark = line == MARK
        if not behind_mark and not ours:
            kept.append(line)
    return kept
