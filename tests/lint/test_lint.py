# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house rules that a program can check: linters, and that no floor imports a higher one."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted(path.name for path in (ROOT / "pyxsd").glob("*.py*")
                 if path.suffix in (".py", ".pyx"))

#: Which floor each module is on; a module may import from its own floor and below.
FLOORS = {
    0: ["_wire", "_path", "_counts", "_perms", "_store", "_accesslog"],
    1: ["_watch", "_txn", "_nodes", "_outq", "_sock", "_ring", "_poll"],
    2: ["_hub", "_delivery", "_conflict", "_commit", "_requests", "_listing", "_core", "_loop"],
    3: ["config", "logs", "dump", "xen", "_glue", "domains", "control", "extension", "host"],
    4: ["daemon", "service", "restore", "options", "cli", "__main__", "__init__"],
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
IMPORT = re.compile(r"^\s*(?:from\s+pyxsd\.(\w+)\s+c?import|c?import\s+pyxsd\.(\w+)"
                    r"|from\s+pyxsd\s+import\s+(.+))", re.MULTILINE)


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
    done = subprocess.run([str(programs / command[0]), *command[1:]], cwd=ROOT, text=True, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout


def imported(path: Path) -> set[str]:
    """The modules of the package that a source imports."""
    found = set()
    for one, two, many in IMPORT.findall(path.read_text(encoding="utf-8")):
        names = re.findall(r"\w+", many) if many else [one or two]
        found.update(name for name in names if name in FLOOR)
    return found


def test_every_module_has_a_floor() -> None:
    modules = {re.sub(r"\.pyx?$", "", name) for name in SOURCES} | {"_glue"}
    assert modules == set(FLOOR)


@pytest.mark.parametrize("name", SOURCES)
def test_no_import_points_up(name: str) -> None:
    own = FLOOR[re.sub(r"\.pyx?$", "", name)]
    sources = [ROOT / "pyxsd" / name]
    if name.endswith(".pyx"):
        sources.append(sources[0].with_suffix(".pxd"))
    for source in sources:
        if source.exists():
            up = {other for other in imported(source) if FLOOR[other] > own}
            assert not up, f"{source.name} imports from a higher floor: {up}"


def test_the_import_pattern_sees_imports() -> None:
    assert imported(ROOT / "pyxsd" / "_delivery.pyx") >= {"_wire", "_store", "_watch"}
    assert imported(ROOT / "pyxsd" / "cli.py") >= {"options", "service", "daemon"}


def test_ruff() -> None:
    need("ruff")
    run("ruff", "check", ".")


def test_mypy() -> None:
    need("mypy")
    run("mypy")


def test_cython_lint() -> None:
    need("cython_lint")
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pyxsd").glob("*.p[yx][xd]"))
    run("cython-lint", "--max-line-length", "100", *files)


def test_every_source_names_its_licence() -> None:
    folders = ("pyxsd", "glue", "benchmarks", "tests", "tools")
    bare = [str(path.relative_to(ROOT)) for folder in folders
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h")
            and "build" not in path.parts and path.stat().st_size
            and "SPDX-License-Identifier" not in path.read_text(encoding="utf-8",
                                                                errors="replace")[:300]]
    assert not bare
