# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command in the documents is run, or stands in a table with the reason why not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documents.commands import PLACES, Command, all_commands, commands, how
from tests.documents.copy import DEADLINE, MakeRun, environment

TEXT = """
Say `make it` or `make  run` or `make`, with `FOO=1 xenstore-ls -s` and `notmake x` and `pyxsd 1.0`.

    python3 tools/ask.py ls /    # a comment
    output of it

```
pyxsd-bench list
make = 3
```
"""


def test_the_extraction() -> None:
    assert [command.text for command in commands("T", TEXT)] == [
        "make it",
        "make  run",
        "FOO=1 xenstore-ls -s",
        "python3 tools/ask.py ls /",
        "pyxsd-bench list",
        "make = 3",
    ]


def test_the_documents_have_commands() -> None:
    found = {command.text for command in all_commands()}
    assert {"make run", "make test", "python3 tools/ask.py domain 5"} <= found


@pytest.mark.parametrize("command", all_commands(), ids=lambda c: f"{c.document}: {c.text[:60]}")
def test_each_command_is_in_a_table(command: Command) -> None:
    try:
        how(command.text)
    except KeyError:
        pytest.fail(
            f"{command.document}: `{command.text}` is in neither table of commands.py: "
            "say there how it is run, or why it is not"
        )


def test_commands_that_can_be_run(copy: Path, running: MakeRun) -> None:
    """In the copy, beside the daemon of `make run`."""
    env = {**environment(copy), "XENSTORED_RUNDIR": str(copy / "run")}
    # Debian's wrapper of xenstore-control looks for a hypervisor first; the program does not.
    programs = [str(path) for path in Path("/usr/lib").glob("xen-*/bin")]
    env["PATH"] = ":".join([*programs, env.get("PATH", os.environ["PATH"])])
    subprocess.run(
        ["python3", "tools/ask.py", "domain", "5"],
        cwd=copy,
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    failed = []
    for command in all_commands():
        statuses, _ = how(command.text)
        if not statuses or not runnable(command.text):
            continue
        text = command.text
        for place, here in PLACES.items():
            text = text.replace(place, here)
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=copy,
            env=env,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE,
        )
        if done.returncode not in statuses:
            failed.append((command.document, text, done.returncode, done.stdout[-500:]))
    assert not failed


def runnable(text: str) -> bool:
    """Whether the client programs it needs are installed."""
    name = next(word for word in text.split() if "=" not in word)
    if not name.startswith("xenstore-") or shutil.which(name):
        return True
    if os.environ.get("PYXSD_REQUIRE_ALL"):
        pytest.fail(f"{name} is not installed (Debian package xenstore-utils)")
    return False
