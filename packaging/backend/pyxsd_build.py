# SPDX-License-Identifier: LGPL-2.1-or-later
"""How pyxsd is built from a checkout, and from a source distribution where Cython is missing.

The extension modules are written in Cython (`.pyx`).  A source distribution also carries the C
that Cython made of them, in the folder `generated/`, so that whoever installs pyxsd needs a C
compiler but no Cython.  `sources` decides which of the two is compiled.

pyproject.toml names this module as its build backend.  It is the backend of setuptools, except
that Cython is required only where there is no generated C.

A release has all extension modules in one shared object: `linked` puts them together, and
pyxsd/linked.py finds them there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from itertools import chain
from typing import Any

from setuptools import Extension
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

CYTHON = "Cython>=3.0.8,<4"
CYTHON_OLDEST = (3, 0, 8)

GENERATED = "generated"
#: The checksums of the Cython sources that the generated C was made of: {path: SHA-256}.
CHECKSUMS = os.path.join(GENERATED, "sources.json")


# --- what has to be installed before a build ---


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """A source distribution of a checkout is made with Cython."""
    return [] if os.path.exists(CHECKSUMS) else [CYTHON]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Cython where there is no generated C, and what old releases of setuptools need."""
    return ["wheel", *get_requires_for_build_sdist()]


get_requires_for_build_editable = get_requires_for_build_wheel


# --- Cython or generated C ---


def cython_version() -> tuple[int, ...]:
    """The version of the installed Cython, for example (3, 0, 8); () where there is none."""
    try:
        from Cython import __version__  # type: ignore[attr-defined]
    except ImportError:
        return ()
    numbers = []
    for word in __version__.split(".")[:3]:
        digits = "".join(c for c in word if c.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def checksums(folder: str = ".") -> dict[str, str]:
    """The SHA-256 of every .pyx and .pxd below folder/pyxsd, by path relative to the folder."""
    found = {}
    for suffix in ("pyx", "pxd"):
        for path in glob(os.path.join(folder, "pyxsd", "**", "*." + suffix), recursive=True):
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            found[os.path.relpath(path, folder).replace(os.sep, "/")] = digest
    return dict(sorted(found.items()))


def c_name(source: str) -> str:
    """generated/pyxsd/_core.c for pyxsd/_core.pyx."""
    return os.path.join(GENERATED, os.path.splitext(source)[0] + ".c")


def sources(modules: Sequence[Extension], directives: dict[str, Any], mode: str) -> list[Extension]:
    """The extension modules, each with the C file that is to be compiled.

    Cython translates them where it is installed and new enough.  Else the generated C is taken,
    which exists for the mode "release" only.  SystemExit says what is missing where neither
    goes, and where a Cython source was changed after its C was generated.
    """
    version = cython_version()
    if version >= CYTHON_OLDEST:
        from Cython.Build import cythonize

        translated: list[Extension] = cythonize(
            modules,
            compiler_directives={"language_level": "3", **directives},
            build_dir=os.path.join("build", "cython-" + mode),
        )
        return translated
    shown = ".".join(map(str, version))
    reason = f"Cython {shown} is too old" if version else "Cython is not installed"
    if mode != "release" or not os.path.exists(CHECKSUMS):
        raise SystemExit(f"{reason}, and this build needs it: pip install '{CYTHON}'")
    with open(CHECKSUMS, encoding="ascii") as file:
        known = json.load(file)
    actual = checksums()
    changed = sorted(name for name in {*known, *actual} if known.get(name) != actual.get(name))
    if changed:
        raise SystemExit(
            f"{reason}, and the C files in {GENERATED}/ were made of other sources; "
            f"pip install '{CYTHON}'.  Changed: {', '.join(changed)}"
        )
    print(f"{reason}: compiling the C files in {GENERATED}/")
    for module in modules:
        module.sources = [c_name(source) for source in module.sources]
    return list(modules)


# --- all modules in one shared object ---

#: The module that is made of them all, and what it is generated from.
LINKED = "pyxsd._linked"
TABLE = os.path.join("build", "linked.c")

_TABLE = """\
/* The names of the extension modules that this shared object has. */
#include <Python.h>

static const char *const names[] = {%s};

static int fill(PyObject *module)
{
    Py_ssize_t count = sizeof names / sizeof *names;
    PyObject *tuple = PyTuple_New(count);

    if (!tuple)
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyUnicode_InternFromString(names[i]);

        if (!name || PyTuple_SetItem(tuple, i, name)) {
            Py_DECREF(tuple);
            return -1;
        }
    }
    if (PyModule_AddObject(module, "NAMES", tuple)) {
        Py_DECREF(tuple);
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_linked", .m_slots = slots};

PyMODINIT_FUNC PyInit__linked(void)
{
    return PyModuleDef_Init(&definition);
}
"""


def linked(modules: Sequence[Extension], table: str = TABLE) -> list[Extension]:
    """One extension module that has all of them; writes the C file `table` with their names.

    Python finds the beginning of a module by the last part of its name, so no two may have the
    same: SystemExit names those that have.
    """
    by_last: dict[str, str] = {}
    for module in modules:
        other = by_last.setdefault(module.name.rpartition(".")[2], module.name)
        if other != module.name:
            raise SystemExit(f"{other} and {module.name} cannot be linked into one file")
    names = ", ".join(f'"{module.name}"' for module in modules)
    os.makedirs(os.path.dirname(table), exist_ok=True)
    with open(table, "w", encoding="ascii") as file:
        file.write(_TABLE % names)
    first = modules[0]
    return [
        Extension(
            LINKED,
            [*(source for module in modules for source in module.sources), table],
            include_dirs=first.include_dirs,
            define_macros=first.define_macros,
            extra_compile_args=[*first.extra_compile_args, "-fvisibility=hidden"],
            extra_link_args=first.extra_link_args,
            depends=[path for module in modules for path in module.depends],
        )
    ]


class BuildExtensions(build_ext):
    """build_ext that compiles the sources of one module at the same time, and leaves no shared
    object of another mode beside its own."""

    def build_extensions(self) -> None:
        one_by_one = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **named: Any) -> list[str]:
            with ThreadPoolExecutor(self.parallel or 1) as pool:
                made = pool.map(lambda source: one_by_one([source], *args, **named), sources)
                return list(chain.from_iterable(made))

        self.compiler.compile = compile_all
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        made = {os.path.abspath(self.get_ext_fullpath(module.name)) for module in self.extensions}
        for path in glob(os.path.join("pyxsd", "**", "*.so"), recursive=True):
            if os.path.abspath(path) not in made:
                os.unlink(path)


class SourceDistribution(sdist):
    """sdist that puts the generated C and the checksums of its sources into the archive."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if cython_version() < CYTHON_OLDEST:
            return  # made from a source distribution: its generated C has been copied
        translated = os.path.join("build", "cython-release")
        found = [
            source
            for module in self.distribution.ext_modules
            for source in module.sources
            if source.startswith(translated + os.sep)
        ]
        if not found:
            raise SystemExit("a source distribution is made with PYXSD_BUILD=release")
        for source in found:
            target = os.path.join(base_dir, GENERATED + source[len(translated) :])
            self.mkpath(os.path.dirname(target))
            self.copy_file(source, target)
        with open(os.path.join(base_dir, CHECKSUMS), "w", encoding="ascii") as file:
            json.dump(checksums(base_dir), file, indent=0)
