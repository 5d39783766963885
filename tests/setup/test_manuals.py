# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages: made from their sources, complete, and without complaints of man."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pyxsd.system import configuration
from tests.setup.dom0 import ROOT, lacking, need

FOLDER = ROOT / "packaging" / "man"
PAGES = sorted(path.name[:-3] for path in FOLDER.glob("*.md"))
MAKE = "python packaging/man/make.py"

#: Program, its page, and its commands.
PROGRAMS = [
    ("pyxsd", "pyxsd.8", [""]),
    (
        "pyxsd.setup.cli",
        "pyxsd-setup.8",
        ["", "status", "check", "select", "deselect", "update", "take-over", "give-back"],
    ),
    ("pyxsd_bench", "pyxsd-bench.1", ["", "run", "report", "compare", "list", "load"]),
]

OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The generator as a module."""
    spec = importlib.util.spec_from_file_location("make_manuals", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def text_of(page: str) -> str:
    return (FOLDER / page).read_text(encoding="utf-8")


def need_program(module: str) -> None:
    if subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode:
        lacking(f"{module} is not installed")


def test_all_pages_are_there() -> None:
    assert PAGES == ["pyxsd-bench.1", "pyxsd-setup.8", "pyxsd.8", "pyxsd.conf.5"]


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_up_to_date(make: ModuleType, page: str) -> None:
    if page.startswith("pyxsd-bench"):
        need_program("pyxsd_bench")
    assert text_of(page) == make.make(page), f"run: {MAKE}"


@pytest.mark.parametrize("page", PAGES)
def test_every_entry_has_a_text(page: str) -> None:
    """An option without a help text gives a lone full stop."""
    entries = re.findall(r"^\.TP\n(.*)\n(.*)$", text_of(page), re.MULTILINE)
    assert entries and [entry for entry in entries if not re.search(r"\w\w", entry[1])] == []


@pytest.mark.parametrize(
    ("module", "page", "commands"), PROGRAMS, ids=[page for _, page, _ in PROGRAMS]
)
def test_pages_and_help_name_the_same_options(module: str, page: str, commands: list[str]) -> None:
    need_program(module)
    helped: set[str] = set()
    for command in commands:
        words = [sys.executable, "-m", module, *([command] if command else []), "--help"]
        told = subprocess.run(
            words,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=dict(os.environ, COLUMNS="1000", NO_COLOR="1"),
        ).stdout
        helped |= {
            option
            for line in told.split("\n")
            if re.match(r"  +-", line)
            for option in OPTION.findall(re.split(r"\s{2,}", line.strip())[0])
        }
    terms = re.findall(r"^\.TP\n\\fB((?:\\-)+\S.*?)\\fR", text_of(page), re.MULTILINE)
    paged = {option for term in terms for option in OPTION.findall(term.replace("\\", ""))}
    assert paged == helped
    assert len(helped) > 2


def test_the_page_names_every_key_with_its_default() -> None:
    page = text_of("pyxsd.conf.5").replace("\\-", "-")
    found = dict(
        re.findall(
            r"^\.TP\n\\fB([\w-]+)\\fR = .*\n"
            r".*\((?:default: \\fB(.*)\\fR|no default)\)$",
            page,
            re.MULTILINE,
        )
    )
    defaults = configuration.Config()
    expected = {}
    for key in configuration.keys():
        value = getattr(defaults, key.replace("-", "_"))
        expected[key] = str(value).lower() if isinstance(value, bool) else str(value)
    assert found == expected


@pytest.mark.parametrize("page", PAGES)
def test_man_has_no_complaint(page: str) -> None:
    need("man", "man-db")
    need("groff", "groff-base")
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(FOLDER / page)],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_launcher_s_page_is_the_daemon_s(make: ModuleType) -> None:
    assert text_of("pyxsd-launch.8") == make.make("pyxsd-launch.8") == ".so man8/pyxsd.8\n"


def test_entries_that_do_not_exist_are_refused(make: ModuleType) -> None:
    entry = make.Entry("`--one FILE`", "Text.")
    assert make.added([entry], ["+ --one: More", "  lines."])[0].text == "Text. More lines."
    with pytest.raises(KeyError, match="--two"):
        make.added([entry], ["+ --two: More."])


# text of a source, what roff gets
INLINE = [
    ("a `--b` *c*", "a \\fB\\-\\-b\\fR \\fIc\\fR"),
    (".x", "\\&.x"),
    ("'x", "\\&'x"),
    ("back\\slash", "back\\eslash"),
]


@pytest.mark.parametrize(("text", "expected"), INLINE)
def test_inline(make: ModuleType, text: str, expected: str) -> None:
    assert make.inline(text) == expected


def test_the_drop_in_is_understood_by_systemd(tmp_path: Path) -> None:
    analyze = need("systemd-analyze", "systemd")
    unit = tmp_path / "xenstored.service"
    unit.write_text("[Unit]\nDescription=x\n[Service]\nType=notify\nExecStart=/bin/true\n")
    (tmp_path / "xenstored.service.d").mkdir()
    text = (ROOT / "packaging/systemd/xenstored.service.d/pyxsd.conf").read_text()
    (tmp_path / "xenstored.service.d" / "pyxsd.conf").write_text(
        text.replace("/usr/sbin/pyxsd-launch", "/bin/true")
    )
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    about_it = [line for line in done.stderr.split("\n") if "xenstored.service" in line]
    assert about_it == []
