# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the extension modules.  PYXSD_BUILD chooses how:

release   (default) optimised, no checks
debug     bounds checks, assertions, AddressSanitizer and UndefinedBehaviorSanitizer
coverage  line tracing, for coverage.py and profilers
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

MODES = {
    "release": (
        {"boundscheck": False, "wraparound": False, "initializedcheck": False,
         "nonecheck": False, "cdivision": True},
        ["-O2", "-fno-plt"],
        [],
        [],
    ),
    "debug": (
        {"boundscheck": True, "wraparound": False, "initializedcheck": True,
         "nonecheck": True, "cdivision": True},
        ["-O1", "-g", "-fno-omit-frame-pointer",
         "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
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


setup(
    ext_modules=cythonize(
        [extension(source) for source in sorted(glob("pyxsd/**/*.pyx", recursive=True))],
        compiler_directives={"language_level": "3", **directives},
        build_dir=os.path.join("build", "cython-" + mode),
    ),
    cffi_modules=["glue/cffi_build.py:ffibuilder"],
)
