# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which sources are compiled: Cython's translation, or the generated C of a source distribution."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "packaging" / "backend"))
pyxsd_build: Any = importlib.import_module("pyxsd_build")


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source distribution with one module and its C, on a machine without Cython."""
    (tmp_path / "pyxsd").mkdir()
    (tmp_path / "pyxsd" / "_core.pyx").write_text("# Cython\n")
    (tmp_path / "pyxsd" / "_core.pxd").write_text("# declarations\n")
    (tmp_path / "generated" / "pyxsd").mkdir(parents=True)
    (tmp_path / "generated" / "pyxsd" / "_core.c").write_text("/* C */\n")
    sums = pyxsd_build.checksums(str(tmp_path))
    (tmp_path / "generated" / "sources.json").write_text(json.dumps(sums))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyxsd_build, "cython_version", lambda: ())
    return tmp_path


def sources(mode: str = "release") -> list[str]:
    """The files that are compiled for the module."""
    [module] = pyxsd_build.sources([Extension("pyxsd._core", ["pyxsd/_core.pyx"])], {}, mode)
    return list(module.sources)


def test_generated_c_is_taken_without_cython(unpacked: Path) -> None:
    assert sources() == ["generated/pyxsd/_core.c"]


def test_generated_c_is_taken_with_an_old_cython(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyxsd_build, "cython_version", lambda: (0, 29, 32))
    assert sources() == ["generated/pyxsd/_core.c"]


def test_a_new_cython_translates(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("Cython", "3.0.8")
    monkeypatch.setattr(pyxsd_build, "cython_version", lambda: (3, 0, 8))
    assert sources() == ["build/cython-release/pyxsd/_core.c"]


@pytest.mark.parametrize("name", ["pyxsd/_core.pyx", "pyxsd/_core.pxd", "pyxsd/added.pxd"])
def test_c_of_other_sources_is_refused(unpacked: Path, name: str) -> None:
    with open(name, "a", encoding="utf-8") as file:
        file.write("# patched\n")
    with pytest.raises(SystemExit, match=f"made of other sources.*{name}"):
        sources()


def test_a_checkout_needs_cython(unpacked: Path) -> None:
    (unpacked / "generated" / "sources.json").unlink()
    with pytest.raises(SystemExit, match="Cython is not installed.*pip install"):
        sources()


def test_other_modes_need_cython(unpacked: Path) -> None:
    with pytest.raises(SystemExit, match="Cython is not installed.*pip install"):
        sources("debug")


def test_cython_is_required_only_without_generated_c(unpacked: Path) -> None:
    assert pyxsd_build.CYTHON not in pyxsd_build.get_requires_for_build_wheel()
    (unpacked / "generated" / "sources.json").unlink()
    assert pyxsd_build.CYTHON in pyxsd_build.get_requires_for_build_wheel()


def test_the_requirement_is_the_one_of_checkouts() -> None:
    done = subprocess.run(
        [sys.executable, str(TOP / "packaging" / "requirements.py"), "cython"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.split() == [pyxsd_build.CYTHON]


def test_all_modules_in_one(tmp_path: Path) -> None:
    """Their files and the table of their names, compiled as each would be by itself."""
    table = tmp_path / "made" / "table.c"
    given = [
        Extension(
            f"pyxsd.{name}", [f"{name}.c"], include_dirs=["a"], depends=[f"{name}.h"],
            extra_compile_args=["-O2"], extra_link_args=["-l"], define_macros=[("A", "1")],
        )
        for name in ("_core", "store.tree")
    ]  # fmt: skip
    [one] = pyxsd_build.linked(given, str(table))
    assert one.name == "pyxsd._linked"
    assert one.sources == ["_core.c", "store.tree.c", str(table)]
    assert one.depends == ["_core.h", "store.tree.h"]
    assert (one.include_dirs, one.define_macros) == (["a"], [("A", "1")])
    assert one.extra_compile_args == ["-O2", "-fvisibility=hidden"]
    assert one.extra_link_args == ["-l"]
    assert '{"pyxsd._core", "pyxsd.store.tree"}' in table.read_text()


def test_modules_that_cannot_be_told_apart(tmp_path: Path) -> None:
    given = [Extension(name, []) for name in ("pyxsd.store.tree", "pyxsd.events.tree")]
    with pytest.raises(SystemExit, match="pyxsd.store.tree and pyxsd.events.tree cannot"):
        pyxsd_build.linked(given, str(tmp_path / "table.c"))


def test_shared_objects_of_another_mode_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would load them, or not, in place of what was just built."""
    (tmp_path / "pyxsd" / "store").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = ("pyxsd/_linked", "pyxsd/_glue", "pyxsd/_core", "pyxsd/store/tree")
    for name in names:
        (tmp_path / f"{name}.so").touch()
    command: Any = pyxsd_build.BuildExtensions(Distribution())
    command.extensions = [Extension("pyxsd._linked", []), Extension("pyxsd._glue", [])]
    command.get_ext_fullpath = lambda name: name.replace(".", "/") + ".so"
    monkeypatch.setattr(build_ext, "copy_extensions_to_source", lambda self: None)
    command.copy_extensions_to_source()
    assert [name for name in names if (tmp_path / f"{name}.so").exists()] == list(names[:2])


def test_the_sources_of_one_module_are_all_compiled() -> None:
    """At the same time, and their objects come in the order of the sources."""
    command: Any = pyxsd_build.BuildExtensions(Distribution())
    command.parallel, command.extensions = 3, []
    compiled: list[tuple[str, str]] = []

    def compile_one(sources: list[str], output_dir: str) -> list[str]:
        [source] = sources
        compiled.append((source, output_dir))
        return [source.replace(".c", ".o")]

    command.compiler = SimpleNamespace(compile=compile_one)
    command.build_extensions()
    objects = command.compiler.compile(["b.c", "a.c", "c.c"], output_dir="x")
    assert objects == ["b.o", "a.o", "c.o"]
    assert sorted(compiled) == [("a.c", "x"), ("b.c", "x"), ("c.c", "x")]
