# SPDX-License-Identifier: LGPL-2.1-or-later
"""Description files of other daemons, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyxsd_bench import daemons

GOOD = """
[daemon]
name = mine
command = /opt/d --config {config}
socket = {run}/s ; kept as it is
preload = no
[config]
quota-maxwatch = 100
Key = {host}/x
[environment]
Some_NAME = %{run}%
"""
BAD = {
    "no section": ("name = x\n", "no section headers"),
    "no daemon": ("[config]\na = b\n", "daemon is missing"),
    "no name": ("[daemon]\ncommand = x\n", "name is missing"),
    "no command": ("[daemon]\nname = x\n", "command is missing"),
    "empty": ("[daemon]\nname = x\ncommand =\n", "empty"),
    "preload": ("[daemon]\nname = x\ncommand = x\npreload = perhaps\n", "Not a boolean"),
    "twice": ("[daemon]\nname = x\nname = y\ncommand = x\n", "already exists"),
}


def test_a_description_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.ini"
    path.write_text(GOOD)
    found = daemons.find(str(path))
    assert found.name == "mine"
    assert found.command == ("/opt/d", "--config", "{config}")
    assert found.config == (("quota-maxwatch", "100"), ("Key", "{host}/x"))
    assert found.environment == (("Some_NAME", "%{run}%"),)
    assert not found.preload
    places = {"run": "/r", "host": "/h"}
    assert daemons.fill("{run} {host} {other} {}", places) == "/r /h {other} {}"


@pytest.mark.parametrize("fault", BAD)
def test_bad_descriptions_are_named(tmp_path: Path, fault: str) -> None:
    text, reason = BAD[fault]
    path = tmp_path / "bad.ini"
    path.write_text(text)
    with pytest.raises(daemons.BadDescription, match=reason) as caught:
        daemons.find(str(path))
    assert "bad.ini" in str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "/no/such/file", "none.ini"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(daemons.BadDescription, match=name):
        daemons.find(name)


def test_built_in_names_are_unique() -> None:
    names = [description.name for description in daemons.BUILT_IN]
    assert len(names) == len(set(names))
    assert set(daemons.DEFAULT) <= set(names)


def test_a_build_whose_program_has_another_name() -> None:
    with pytest.raises(daemons.BadDescription) as caught:
        daemons.find("mine=/bin/true")
    assert str(caught.value) == (
        "mine=/bin/true: no built-in daemon is called true; say which one the program is a build "
        "of, as in mine=pyxsd:/bin/true"
    )
    assert daemons.find("mine=pyxsd:/bin/true").command[0] == "/bin/true"
