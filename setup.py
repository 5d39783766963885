# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the extension modules.  PYXSD_BUILD chooses how:

release   (default) optimised, no checks; all modules in one shared object (see pyxsd/linked.py)
separate  the same with a shared object for each module, so that one can be built anew by itself
debug     bounds checks, assertions, AddressSanitizer and UndefinedBehaviorSanitizer
coverage  line tracing, for coverage.py and profilers

PYXSD_JOBS is how many compilers run at once; default: one for each CPU.
"""

import os
import sys
from glob import glob

import setuptools
from setuptools import Extension, setup

sys.path.insert(0, "packaging/backend")  # for `python setup.py`; a build backend has it already

import pyxsd_build  # noqa: E402

MODES = {
    "release": (
        {
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "nonecheck": False,
            "cdivision": True,
        },
        ["-O2", "-fno-plt"],
        [],
        [],
    ),
    "debug": (
        {
            "boundscheck": True,
            "wraparound": False,
            "initializedcheck": True,
            "nonecheck": True,
            "cdivision": True,
        },
        [
            "-O1",
            "-g",
            "-fno-omit-frame-pointer",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
        ],
        ["-fsanitize=address,undefined"],
        [("PYXSD_DEBUG", "1")],
    ),
    "coverage": (
        {"boundscheck": True, "wraparound": False, "linetrace": True, "binding": True},
        ["-O1", "-g"],
        [],
        [("CYTHON_TRACE_NOGIL", "1")],
    ),
}

MODES["separate"] = MODES["release"]

mode = os.environ.get("PYXSD_BUILD", "release")
if mode not in MODES:
    raise SystemExit(f"PYXSD_BUILD={mode}: expected one of {', '.join(MODES)}")
directives, cflags, ldflags, macros = MODES[mode]


def extension(source: str) -> Extension:
    name = source[: -len(".pyx")].replace(os.sep, ".")
    return Extension(
        name,
        [source],
        include_dirs=["pyxsd", "glue"],
        extra_compile_args=cflags,
        extra_link_args=ldflags,
        define_macros=macros,
    )


# setuptools knows license_expression since 77; Debian 12 has 66, EL10 has 69.
licence = "license_expression" if int(setuptools.__version__.split(".")[0]) >= 77 else "license"

modules = pyxsd_build.sources(
    [extension(source) for source in sorted(glob("pyxsd/**/*.pyx", recursive=True))],
    directives,
    mode,
)

setup(
    ext_modules=pyxsd_build.linked(modules) if mode == "release" else modules,
    cffi_modules=["glue/cffi_build.py:ffibuilder"],
    options={"build_ext": {"parallel": int(os.environ.get("PYXSD_JOBS") or os.cpu_count() or 1)}},
    cmdclass={
        "build_ext": pyxsd_build.BuildExtensions,
        "sdist": pyxsd_build.SourceDistribution,
    },
    **{licence: "LGPL-2.1-or-later"},
)
