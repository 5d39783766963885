# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which version of a daemon is measured; an empty text where nobody knows.

A description's own `version` command comes first.  Else the program is asked for: what lies in a
Debian package has the package's version; a Python script's package is looked up with the
interpreter that the script names, which need not be ours, and a checkout adds its commit; the
floor is a part of this package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from . import daemons, standin

LIMIT_S = 10.0
# Without the current directory in the path: a checkout there is not what the script runs.
_LOOK_UP = """
import sys
sys.path = [entry for entry in sys.path if entry]
import importlib, importlib.metadata, os
print(importlib.metadata.version({distribution!r}))
print(os.path.dirname(os.path.realpath(importlib.import_module({package!r}).__file__)))
"""


def version(description: daemons.Description) -> str:
    """The version in one line."""
    if description.version:
        return " ".join(_output(description.version).split())
    if description.echo and description.command[0] == "{python}":
        return _python_package(sys.executable, "pyxsd-bench", "pyxsd_bench")
    program = shutil.which(_program(description.command[0]))
    if program is None:
        return ""
    python = _interpreter(program)
    return _python_package(python, "pyxsd", "pyxsd") if python else _debian_package(program)


def _program(word: str) -> str:
    """The first word of a command with the places of built-in daemons put in."""
    name = word.strip("{}")
    if word == "{pyxsd}":
        return daemons.places("", "", "", {})["pyxsd"]
    if word != "{" + name + "}":
        return word
    try:
        return str(standin.load().find_program(name))
    except (standin.StandinMissing, RuntimeError, OSError):
        return name


def _interpreter(program: str) -> str:
    """The Python of a script named pyxsd; empty for other programs."""
    if os.path.basename(program) != "pyxsd":
        return ""
    try:
        with open(program, "rb") as script:
            first = script.readline(512)
    except OSError:
        return ""
    path = first[2:].decode("utf-8", "replace").strip() if first.startswith(b"#!") else ""
    # pip writes "#!/bin/sh" where the path would be too long.
    return path if os.path.basename(path).startswith("python") else sys.executable


def _python_package(python: str, distribution: str, package: str) -> str:
    asked = _LOOK_UP.format(distribution=distribution, package=package)
    lines = _output([python, "-c", asked]).splitlines()
    if len(lines) != 2:
        return ""
    number, folder = lines
    git = ("git", "--no-optional-locks", "-C", folder)
    if not _output([*git, "ls-files", "__init__.py"]):
        return number  # no checkout, or one that merely holds the environment
    commit = _output([*git, "describe", "--always", "--dirty", "--exclude=*"])
    return f"{number} (git {commit.strip()})" if commit else number


def _debian_package(program: str) -> str:
    owner = _output(["dpkg-query", "-S", os.path.realpath(program)]).partition(": ")[0]
    if not owner or "\n" in owner or "," in owner:
        return ""
    return _output(["dpkg-query", "-W", "-f", "${Version}", owner]).strip()


def _output(command: Sequence[str]) -> str:
    """What a command writes; empty where it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
