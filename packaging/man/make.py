# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the manual pages from their sources, the programs' --help and the table of keys.

    python packaging/man/make.py            writes packaging/man/pyxsd.8 and the others
    python packaging/man/make.py pyxsd.8    writes that page alone

A source, such as pyxsd.8.md, is Markdown of a few forms: `## HEADING`, paragraphs, `- ` lists,
indented lines for what is typed, `` `code` `` and `*word*`.  What a program tells of itself is not
written there again:

    {{options pyxsd}}          its options, as --help has them
    {{commands pyxsd-setup}}   its commands with their options, from --help of each
    {{keys}}                   the keys of the configuration file, from docs/configuration.md
    {{statuses}}               pyxsd-setup's exit statuses

A line `+ --option: text` behind such a line adds text to an entry.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from pyxsd.setup import cli  # noqa: E402
from pyxsd.system import configuration, options  # noqa: E402

SECTIONS = {"1": "User commands", "5": "File formats", "8": "System administration"}
PAGES = tuple(sorted(path.name[: -len(".md")] for path in HERE.glob("*.md")))

#: Pages that are another page under a second name.
ALIASES = {"pyxsd-launch.8": "pyxsd.8"}

#: What is typed to run a program, for its --help.
PROGRAMS = {
    "pyxsd-setup": [sys.executable, "-m", "pyxsd.setup.cli"],
    "pyxsd-bench": [sys.executable, "-m", "pyxsd_bench"],
}


class Entry(NamedTuple):
    """One entry of a generated list: a term with its text, or a sub-heading with its text."""

    term: str
    text: str
    heading: bool = False


def main(pages: list[str]) -> int:
    """Writes the pages."""
    for page in pages or (*PAGES, *ALIASES):
        (HERE / page).write_text(make(page), encoding="utf-8")
    return 0


def make(page: str) -> str:
    """The text of a page, such as pyxsd.8."""
    if page in ALIASES:
        return f".so man{page[-1]}/{ALIASES[page]}\n"
    name, _, section = page.rpartition(".")
    source = (HERE / f"{page}.md").read_text(encoding="utf-8").split("\n")
    if source[0].startswith("<!--"):
        del source[0]
    out = [
        '.\\" SPDX-License-Identifier: LGPL-2.1-or-later',
        f'.\\" Made by packaging/man/make.py from {page}.md: change that.',
        f'.TH {name.upper()} {section} "" "pyxsd" "{SECTIONS[section]}"',
    ]
    for block in blocks(source):
        out += roff(block)
    return "\n".join(out) + "\n"


def blocks(lines: list[str]) -> list[list[str]]:
    """The lines in groups that blank lines part; of what is typed, blank lines are kept."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def roff(block: list[str]) -> list[str]:
    """One block."""
    first = block[0]
    if first.startswith("## "):
        return [".SH " + escaped(first[3:])] + (roff(block[1:]) if block[1:] else [])
    if first.startswith("{{"):
        words = first.strip("{}").split()
        expand: Any = EXPANSIONS[words[0]]
        return entries(added(expand(*words[1:]), block[1:]))
    if first.startswith("    "):
        return [".PP", ".RS 4", ".nf", *(literal(line[4:]) for line in block), ".fi", ".RE"]
    if first.startswith("- "):
        items = " ".join(line if line.startswith("- ") else line.strip() for line in block)
        return [
            line
            for item in items.split("- ")[1:]
            if item.strip()
            for line in (".IP \\(bu 2", inline(item.strip()))
        ]
    if len(block) > 1 and block[1].startswith(": "):
        return [
            ".TP",
            inline(first),
            inline(" ".join([block[1][2:].strip(), *(line.strip() for line in block[2:])])),
        ]
    return [".PP", inline(" ".join(line.strip() for line in block))]


def entries(found: list[Entry]) -> list[str]:
    """The list as roff."""
    out = []
    for entry in found:
        if entry.heading:
            out += [".SS " + literal(entry.term), inline(entry.text)]
        else:
            out += [".TP", inline(entry.term), inline(entry.text)]
    return out


def added(found: list[Entry], lines: list[str]) -> list[Entry]:
    """The entries with the texts of the `+` lines; KeyError for an entry that is not there."""
    texts: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith("+ "):
            name, _, line = line[2:].partition(": ")
            texts[name] = ""
        texts[name] = f"{texts[name]} {line.strip()}".strip()
    whole = []
    for entry in found:
        # The key of "-o, --output FILE" is -o, and of the heading "pyxsd-setup status" status.
        key = entry.term.split()[-1] if entry.heading else re.split("[`, ]+", entry.term)[1]
        whole.append(entry._replace(text=f"{entry.text} {texts.pop(key, '')}".strip()))
    if texts:
        raise KeyError(f"no such entry: {', '.join(texts)}")
    return whole


# -- what the programs tell ---------------------------------------------------


def of_options(program: str) -> list[Entry]:
    """The options of pyxsd, from the text of its --help."""
    assert program == "pyxsd"
    rows = re.findall(r"^  (\S.*?)  +(.*)$", options.usage(), re.MULTILINE)
    return [Entry(f"`{left}`", sentence(text)) for left, text in rows]


def of_commands(program: str) -> list[Entry]:
    """Each command as a sub-heading, its description, its arguments and options."""
    rows = help_rows(program)
    found = [Entry(f"`{name}`", sentence(text)) for name, text in rows if name.startswith("-")]
    for name, text in rows:
        if not re.fullmatch("[a-z][a-z-]*", name):
            continue  # an option, or the words COMMAND and {run,report} that stand for all
        found.append(Entry(f"{program} {name}", sentence(text), heading=True))
        found += [
            Entry(f"`{option}`", sentence(what))
            for option, what in help_rows(program, name)
            if option != "-h, --help"
        ]
    return found


def help_rows(program: str, *words: str) -> list[tuple[str, str]]:
    """(option or command, text) of each entry of a program's --help, in order."""
    env = dict(os.environ, COLUMNS="1000", PYTHONPATH=str(ROOT), NO_COLOR="1", PYTHON_COLORS="0")
    text = subprocess.run(
        [*PROGRAMS[program], *words, "--help"],
        env=env,
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    rows = []
    for line in re.sub(r"\n {12,}(\S)", r"  \1", text).split("\n"):
        entry = re.match(r"  +(\S.*?)(?:  +(.*))?$", line)
        if entry and not line.startswith(" " * 8):
            rows.append((one_metavar(entry.group(1)), entry.group(2) or ""))
    return rows


def one_metavar(term: str) -> str:
    """`-o OUT, --out OUT`, as older Pythons print it, is `-o, --out OUT`."""
    twice = re.fullmatch(r"(-\w) (\S+), (--\S+) (\S+)", term)
    return f"{twice.group(1)}, {twice.group(3)} {twice.group(4)}" if twice else term


def of_keys() -> list[Entry]:
    """The keys, their kinds and defaults from the program, their meanings from the documents."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    meanings = dict(re.findall(r"^\| `([\w-]+)` \|[^|]*\| (.*) \|$", text, re.MULTILINE))
    defaults = configuration.Config()
    found: list[Entry] = []
    for key, kind in configuration.keys().items():
        value = getattr(defaults, key.replace("-", "_"))
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        default = f"default: `{shown}`" if shown else "no default"
        meaning = meanings[key]
        if meaning.startswith("as above"):  # of the access log: as of the daemon's log
            daemon_s = meanings[key.replace("access-log", "xenstored-log")]
            meaning = daemon_s + meaning[len("as above") :]
        found.append(Entry(f"`{key}` = *{KINDS[kind]}*", f"{sentence(meaning)} ({default})"))
    return found


#: A kind of value as it is told.
KINDS = {
    "bool": "true|false",
    "int": "integer",
    "float": "number",
    "str": "file",
    "Destination": "file|syslog:facility",
    "Level": "level",
    "Errno": "EQUOTA|ENOSPC",
}


def of_statuses() -> list[Entry]:
    """pyxsd-setup's exit statuses."""
    return [Entry(f"`{status}`", sentence(text)) for status, text in cli.EXIT_STATUS]


EXPANSIONS = {
    "options": of_options,
    "commands": of_commands,
    "keys": of_keys,
    "statuses": of_statuses,
}


# -- text ---------------------------------------------------------------------


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", ":")) else ".")


def inline(text: str) -> str:
    """A line of text: `code` in bold, *word* in italics."""
    out = []
    for part in re.split(r"(`[^`]*`|\*[^*]+\*)", text):
        if part.startswith("`"):
            out.append(f"\\fB{literal(part[1:-1])}\\fR")
        elif part.startswith("*") and part.endswith("*") and len(part) > 2:
            out.append(f"\\fI{literal(part[1:-1])}\\fR")
        else:
            out.append(escaped(part))
    return guarded("".join(out))


def escaped(text: str) -> str:
    """Text for roff."""
    return guarded(text.replace("\\", "\\e"))


def literal(text: str) -> str:
    """What is typed: hyphens stay hyphens."""
    return guarded(text.replace("\\", "\\e").replace("-", "\\-"))


def guarded(text: str) -> str:
    """A dot or quote at the begin of a line would be a command of roff."""
    return "\\&" + text if text.startswith((".", "'")) else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
