# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house rules that a program can check: linters, and that no floor imports a higher one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "pyxsd"
IMPORT = re.compile(
    r"^\s*(?:from\s+pyxsd((?:\.\w+)*)\s+c?import\s+(.+)"
    r"|c?import\s+pyxsd\.([\w.]+))",
    re.MULTILINE,
)


def module_name(path: Path) -> str:
    """store.tree for pyxsd/store/tree.pyx and for its .pxd."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = sorted(
    {module_name(path) for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyx")}
    | {"_glue"}
)

#: What each module may import of the package; a new edge is written down here by hand.
EDGES: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "edges.json").read_text(encoding="utf-8")
)


def need(module: str) -> None:
    """A linter that is not installed is said loudly."""
    if importlib.util.find_spec(module) is None:
        text = f"{module} is not installed: pip install the extra 'test'"
        if os.environ.get("PYXSD_REQUIRE_ALL"):
            pytest.fail(text)
        pytest.skip(text)


def run(*command: str) -> None:
    """A program of this environment that has nothing to complain of."""
    programs = Path(sys.executable).parent
    env = dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}")
    done = subprocess.run(
        [str(programs / command[0]), *command[1:]],
        cwd=ROOT,
        text=True,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def imported(path: Path) -> set[str]:
    """The modules of the package that a source imports."""
    found = set()
    for folder, names, plain in IMPORT.findall(path.read_text(encoding="utf-8")):
        if plain:
            found.add(plain)
        elif folder[1:] in MODULES:
            found.add(folder[1:])
        else:
            found.update((folder + "." + name)[1:] for name in re.findall(r"\w+", names))
    return found & set(MODULES)


def edges_of(module: str) -> set[str]:
    """What a module imports, by its source and its declarations together."""
    base = PACKAGE.joinpath(*module.split("."))
    return set().union(
        *(
            imported(path)
            for suffix in (".py", ".pyx", ".pxd")
            if (path := base.with_suffix(suffix)).exists()
        )
    ) - {module}


def test_every_module_has_its_edges() -> None:
    assert set(EDGES) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_only_allowed_edges(module: str) -> None:
    assert edges_of(module) == set(EDGES[module])


def test_edges_make_no_circle() -> None:
    left = {module: set(below) for module, below in EDGES.items()}
    while left:
        leaves = {module for module, below in left.items() if not below & set(left)}
        assert leaves, f"a circle among {sorted(left)}"
        for module in leaves:
            del left[module]


def test_the_import_pattern_sees_imports() -> None:
    assert edges_of("store.nodes") >= {"_wire", "store.tree", "store.path", "store.perms"}
    assert edges_of("cli") >= {"system.options", "start.fresh", "offline"}


def test_every_package_is_installed() -> None:
    """pyproject.toml lists each folder that has an __init__.py."""
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    }
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w.]+)"', text[text.index("packages = [") :].split("]")[0])
    assert set(listed) == folders


def test_a_start_imports_only_what_it_needs() -> None:
    """dataclasses alone take 10 ms; what reads foreign states is for --show-state only, and what
    live updates need is loaded behind READY (daemon.load_rest)."""
    code = "import sys, pyxsd.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=ROOT,
        text=True,
        check=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        stdout=subprocess.PIPE,
    )
    heavy = {
        "dataclasses",
        "inspect",
        "ast",
        "json",
        "typing",
        "pyxsd.state.show",
        "pyxsd.state.image",
        "pyxsd.state.surroundings",
        "pyxsd.state.disk",
        "random",
    }
    imported_at_all = set(done.stdout.split())
    assert not heavy & imported_at_all
    behind = (
        "pyxsd.update",
        "pyxsd.switch",
        "pyxsd.keeper",
        "pyxsd.recovery",
        "pyxsd.start.update",
        "pyxsd.start.switched",
        "pyxsd.offline",
    )
    assert not [name for name in imported_at_all if name.startswith(behind)]


def test_ruff() -> None:
    need("ruff")
    run("ruff", "check", ".")


def test_ruff_format() -> None:
    """The layout of all Python sources is the formatter's."""
    need("ruff")
    run("ruff", "format", "--check", "--quiet", ".")


def test_mypy() -> None:
    need("mypy")
    run("mypy")


def test_stubs_say_what_the_binaries_have() -> None:
    """Every .pyi against its compiled module."""
    need("mypy")
    stubs = sorted("pyxsd." + module_name(path) for path in PACKAGE.rglob("*.pyi"))
    run(
        "stubtest",
        "--mypy-config-file",
        "pyproject.toml",
        "--ignore-unused-allowlist",
        "--allowlist",
        "tests/lint/stubtest.allow",
        *stubs,
    )


def test_cython_lint() -> None:
    need("cython_lint")
    files = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.p[yx][xd]"))
    run("cython-lint", "--max-line-length", "100", *files)


def test_every_source_names_its_licence() -> None:
    folders = ("pyxsd", "glue", "benchmarks", "tests", "tools")
    bare = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h")
        and "build" not in path.parts
        and path.stat().st_size
        and "SPDX-License-Identifier"
        not in path.read_text(encoding="utf-8", errors="replace")[:300]
    ]
    assert not bare


def test_the_architecture_names_every_module() -> None:
    """In its table, and only modules that there are."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| module |") : text.index("## One request")]
    named = {
        name
        for row in table.splitlines()
        if row.startswith("|")
        for name in re.findall(r"`([\w.]+(?:\.\*)?)`", row.split("|")[1])
    }
    folders = {name[:-1] for name in named if name.endswith(".*")}
    there = {
        module
        for module in MODULES
        if not module.endswith("__init__")
        and module not in ("__main__", "_glue")
        and not any(module.startswith(folder) for folder in folders)
    }
    assert named - {folder + "*" for folder in folders} == there
