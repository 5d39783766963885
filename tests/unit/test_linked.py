# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules that are linked into one shared object are found there, and nothing else is."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pyxsd
from pyxsd.linked import Linked

FILE = "/x/_linked.so"


def test_what_is_found() -> None:
    loader = ExtensionFileLoader("pyxsd._linked", FILE)
    spec = ModuleSpec("pyxsd._linked", loader, origin=FILE)
    linked = Linked(SimpleNamespace(NAMES=("pyxsd._core", "pyxsd.store.tree"), __spec__=spec))
    for name in ("pyxsd", "pyxsd.cli", "pyxsd.tree", "tree", "pyxsd.store.tree.x"):
        assert linked.find_spec(name) is None
    found = linked.find_spec("pyxsd.store.tree", ["/y"], None)
    assert type(found) is ModuleSpec and found.name == "pyxsd.store.tree" and found.origin == FILE
    assert type(found.loader) is ExtensionFileLoader
    assert (found.loader.name, found.loader.path) == ("pyxsd.store.tree", FILE)


def test_every_module_is_linked() -> None:
    """Each is itself, and knows its name and its file."""
    folder = Path(pyxsd.__file__).parent
    linked: Any = None
    try:
        linked = importlib.import_module("pyxsd._linked")
    except ImportError:
        pass
    if linked is None or not Path(linked.__file__).is_relative_to(folder):
        pytest.skip("this build has a shared object for each module")
    sources = {
        ".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.pyx")
    }
    # An installed package has none.
    assert not sources or {"pyxsd." + name for name in sources} == set(linked.NAMES)
    for name in linked.NAMES:
        module = importlib.import_module(name)
        assert module.__name__ == name and module.__file__ == linked.__file__
        assert sys.modules[name] is module
    assert len({id(sys.modules[name]) for name in linked.NAMES}) == len(linked.NAMES)


@pytest.mark.parametrize("has_one", [False, True])
def test_a_copy_has_its_own_modules(tmp_path: Path, has_one: bool) -> None:
    """An editable installation of another folder does not give it the modules from there."""
    folder = Path(pyxsd.__file__).parent
    (tmp_path / "pyxsd").mkdir()
    for name in ("__init__.py", "linked.py"):
        (tmp_path / "pyxsd" / name).write_bytes((folder / name).read_bytes())
    if has_one:
        (tmp_path / "pyxsd" / "_linked.py").write_text("NAMES = ()\n")
    code = "import sys, pyxsd; print([type(finder).__name__ for finder in sys.meta_path])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))),
        },
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert ("Linked" in done.stdout) == has_one
