# SPDX-License-Identifier: LGPL-2.1-or-later
"""Python and pyxsd in an image.

The interpreter is the one that runs this, its library goes as byte code, and pyxsd comes from a
wheel, or as it is installed (or built in place) here.

Every module is byte-compiled with unchecked hashes: under emulation a compilation or a stat
costs milliseconds each.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import py_compile
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from .cpio import Archive
from .packages import MissingError, fetched, libraries, run

#: pyxsd as it is built in place.
BUILT_HERE = Path(__file__).resolve().parents[3] / "pyxsd"

#: Where pyxsd and what it needs lie in the image.
SITE = "/usr/lib/pyxsd"

#: The programs in /usr/sbin, and what they run where no metadata says it.
PROGRAMS = {"pyxsd": "pyxsd.cli:main", "pyxsd-setup": "pyxsd.setup.cli:main"}

#: Parts of the library that no daemon loads.
LEFT_OUT = frozenset(
    [
        "__pycache__",
        "asyncio",
        "curses",
        "dbm",
        "dist-packages",
        "distutils",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "multiprocessing",
        "pydoc_data",
        "site-packages",
        "sqlite3",
        "test",
        "tkinter",
        "turtledemo",
        "unittest",
        "venv",
        "wsgiref",
        "xmlrpc",
    ]
)

#: What pyxsd imports besides the library.
NEEDED = ("_cffi_backend", "sortedcontainers")

#: The same as Debian's packages, and where they and pyxsd's own have their modules.
NEEDED_PACKAGES = ("python3-cffi-backend", "python3-sortedcontainers")
DEBIAN_SITE = "/usr/lib/python3/dist-packages"


def _compiled(source: Path, seen_as: str) -> bytes:
    """Return a module's byte code."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "code")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(target), seen_as, doraise=True, invalidation_mode=mode)
        return target.read_bytes()


def add_object(archive: Archive, file: Path, where: str) -> None:
    """Add a program or shared object and the libraries it loads.

    Libraries lie where they lie here (below /usr, as the image has no other /lib), but those
    beside the object, as wheels carry them, stay beside it.
    """
    archive.file(where, file.read_bytes(), 0o755)
    for library in libraries(file):
        inside = str(library)
        if library.is_relative_to(file.parent):
            inside = f"{os.path.dirname(where)}/{library.relative_to(file.parent)}"
        elif inside.startswith("/lib"):
            inside = "/usr" + inside
        if inside not in archive:
            archive.file(inside, library.read_bytes(), 0o755)


def interpreter_path() -> Path:
    """Return the interpreter that runs this, not that of its virtual environment."""
    return Path(os.path.realpath(sys.executable))


def add_interpreter(archive: Archive) -> None:
    """Add the interpreter and its library, at the paths they have here."""
    interpreter = interpreter_path()
    library = Path(sysconfig.get_path("stdlib"))
    add_object(archive, interpreter, str(interpreter))
    for folder, folders, names in os.walk(library):
        here = Path(folder)
        folders[:] = sorted(f for f in set(folders) - LEFT_OUT if not f.startswith("config-"))
        for name in sorted(names):
            file = here / name
            if name.endswith(".py"):
                try:
                    archive.file(f"{file}c", _compiled(file, str(file)))
                except py_compile.PyCompileError:
                    continue  # a template or a sample, not a module
            elif name.endswith(".so"):
                add_object(archive, file, str(file))


def _add_package(archive: Archive, found: Path, inside: str) -> None:
    """Add a module or package: sources, byte code where Python looks for it, shared objects."""
    files = [found] if found.is_file() else sorted(found.rglob("*"))
    for file in files:
        where = f"{inside}/{file.relative_to(found.parent)}"
        if "__pycache__" in file.parts or not file.is_file():
            continue
        if file.suffix == ".so":
            add_object(archive, file, where)
        elif file.suffix == ".py":
            archive.file(where, file.read_bytes())
            folder, name = where.rsplit("/", 1)
            cached = f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc"
            archive.file(cached, _compiled(file, where))


def add_deb(archive: Archive, deb: Path) -> str:
    """Add the files of the Debian package pyxsd, and Debian's packages of what it imports.

    The programs in the package have /usr/bin/python3, which must be the interpreter that runs
    this. Returns what was packed, for the log.

    Raises:
        MissingError: this is another interpreter, or a package cannot be had.
    """
    if Path("/usr/bin/python3").resolve() != interpreter_path():
        raise MissingError(f"a Debian package is tried with /usr/bin/python3, not {sys.executable}")
    archive.link("/usr/bin/python3", interpreter_path().name)
    with tempfile.TemporaryDirectory() as scratch:
        run("dpkg-deb", "-x", str(deb), scratch)
        for root in (Path(scratch), *map(fetched, NEEDED_PACKAGES)):
            for found in sorted((root / DEBIAN_SITE[1:]).iterdir()):
                _add_package(archive, found, DEBIAN_SITE)
        for folder in ("usr/sbin", "usr/libexec"):
            for file in sorted(Path(scratch, folder).rglob("*")):
                if file.is_file():
                    archive.file(f"/{file.relative_to(scratch)}", file.read_bytes(), 0o755)
    return deb.name


def _located(module: str) -> Path:
    """Return a module's file or a package's folder as this interpreter would import it.

    Raises:
        MissingError: there is none.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingError(f"this Python ({sys.executable}) has no module {module}")
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


def _entry_point(folder: Path, program: str) -> tuple[str, str]:
    """Return module and function of a program, from the metadata beside a package."""
    parser = configparser.ConfigParser()
    parser.read(folder.glob("pyxsd-*.dist-info/entry_points.txt"))
    entry = parser.get("console_scripts", program, fallback=PROGRAMS[program])
    module, _, function = entry.partition(":")
    return module, function


def add_pyxsd(archive: Archive, wheel: Path | None) -> str:
    """Add pyxsd, what it imports besides Python's library, and its programs.

    Returns what was packed, for the log.

    Args:
        archive: where to.
        wheel: a wheel of pyxsd, or None for the pyxsd that is built in place in this repository,
            or else that this interpreter imports.

    Raises:
        MissingError: there is no pyxsd, or it has no compiled modules, or a dependency lacks.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if wheel is not None:
            with zipfile.ZipFile(wheel) as content:
                content.extractall(scratch)
            package = Path(scratch, "pyxsd")
        else:
            package = BUILT_HERE if any(BUILT_HERE.glob("_linked*.so")) else _located("pyxsd")
        if not any(package.glob("_linked*.so")):
            raise MissingError(f"{package} has no compiled modules: build pyxsd first")
        _add_package(archive, package, SITE)
        for program in PROGRAMS:
            module, function = _entry_point(package.parent, program)
            archive.file(
                f"/usr/sbin/{program}",
                f"#!{interpreter_path()} -IS\n"
                "import sys\n"
                f"sys.path.insert(0, {SITE!r})\n"
                f"from {module} import {function}\n"
                f"sys.exit({function}())\n".encode(),
                0o755,
            )
    for needed in NEEDED:
        _add_package(archive, _located(needed), SITE)
    return str(wheel or package)
