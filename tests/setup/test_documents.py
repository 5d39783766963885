# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the documents for administrators say is what the program has: commands, messages, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyxsd.control import COMMANDS
from pyxsd.setup import boot, cli, settings
from tests.setup.dom0 import ROOT

DOCS = ROOT / "docs"
NAMES = ("installation", "upgrade", "troubleshooting", "signals", "control", "logs", "questions")


def text_of(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, but heads and rules."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.split("\n")
        if line.startswith("| `")
    ]


def test_control_commands() -> None:
    """Every command has a row, and whom it is answered is right."""
    found: dict[str, set[str]] = {}
    for commands, who, _ in rows(text_of("control")):
        for command in re.findall(r"`([\w-]+)", commands):
            found.setdefault(command, set()).add(who)
    assert set(found) == {name.decode() for name in COMMANDS}
    for command, answered in found.items():
        assert ("all" in answered) == COMMANDS[command.encode()].is_open, command


def test_log_messages_exist() -> None:
    """Each message that troubleshooting explains is one that the code has."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "pyxsd").rglob("*.py*")
        if path.suffix in (".py", ".pyx")
    )
    sources = re.sub(r"\"\s*\n\s*f?\"", "", sources)  # strings of several lines
    section = text_of("troubleshooting").partition("## The log says")[2]
    messages = [message for row in rows(section) for message in re.findall(r"`([^`]+)`", row[0])]
    assert len(messages) > 10
    assert [message for message in messages if message not in sources] == []


def test_start_messages_exist() -> None:
    """The fixed words of what the start may say are in the launcher or the daemon."""
    sources = "\n".join(
        (ROOT / path).read_text(encoding="utf-8")
        for path in (
            "packaging/launcher/pyxsd-launch",
            "pyxsd/setup/launch.py",
            "pyxsd/__main__.py",
        )
    )
    sources += "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "pyxsd" / "system").glob("*.py")
    )
    sources = re.sub(r"\"\s*\n\s*f?\"", "", sources)
    section = text_of("troubleshooting").partition("## It hangs")[0]
    for first, _ in rows(section):
        message = first.split("`")[1]
        if "script)" in first:
            continue  # Debian's and Xen's own words
        for words in re.split(r"\(?\.\.\.\)?|\([A-Z].*|\d+|'.*'", message):
            assert words.strip() in sources, (message, words)


def test_signals() -> None:
    source = (ROOT / "pyxsd" / "daemon.py").read_text(encoding="utf-8")
    handled = set(re.findall(r"signal\.(SIG(?!NAL)[A-Z0-9]+)\b", source)) - {"SIG_IGN"}
    named = {name for row in rows(text_of("signals")) for name in re.findall(r"SIG\w+", row[0])}
    assert named == {name for name in handled if not name.startswith("SIG_")}


@pytest.mark.parametrize("name", NAMES)
def test_commands_files_and_links_exist(name: str) -> None:
    text = text_of(name)
    for command in re.findall(r"pyxsd-setup ([a-z]+(?:-[a-z]+)*)", text):
        assert command in [row[0] for row in cli.COMMANDS], command
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / link).resolve().exists(), link
    for path in re.findall(r"`(packaging/[^`]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_sample_of_status_is_what_status_prints() -> None:
    sample = re.search(r"(?:    .*\n){4}", text_of("installation").partition("status\n\ntells")[2])
    assert sample is not None
    lines = [line[4:] for line in sample.group().splitlines()]
    assert [line[:18].rstrip() for line in lines[:3]] == [
        "running now:",
        "at the next boot:",
        "installed:",
    ]
    assert lines[3] == "The next boot changes from oxenstored to pyxsd."


def test_names_in_the_documents() -> None:
    text = text_of("installation")
    assert f"{settings.VARIABLE}={boot.LAUNCHER}" in text
    assert Path(boot.LAUNCHER).name == "pyxsd-launch"
