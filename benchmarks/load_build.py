# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds `pyxsd_bench._load`, the compiled load generator, with cffi in API mode.

`setup.py` names this file in `cffi_modules`; paths are relative to the folder of both.
The declarations come from the C header itself, so the two cannot drift apart.
"""

from __future__ import annotations

import os

from cffi import FFI

FOLDER = "load"
STANDIN = os.path.join("pyxsd_bench", "glue", "standin")  # xsd_guest.h, the guests' side of rings
SOURCES = ("xb_engine.c", "xb_conn.c", "xb_check.c", "xb_floor.c", "xb_probe.c", "xb_ring.c")


def declarations(header: str) -> str:
    """The header without what only the C preprocessor understands."""
    kept = []
    for line in header.splitlines():
        directive = line.startswith("#")
        if directive and (not line.startswith("#define ") or len(line.split()) < 3):
            continue
        kept.append(line.split("/*")[0] if directive else line)
    return "\n".join(kept)


def _builder() -> FFI:
    ffi = FFI()
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "load", "xb_load.h"), encoding="ascii") as header:
        ffi.cdef(declarations(header.read()))
    ffi.set_source(
        "pyxsd_bench._load",
        '#include "xb_load.h"',
        sources=[os.path.join(FOLDER, name) for name in SOURCES],
        include_dirs=[FOLDER, STANDIN],
        libraries=["dl"],
        extra_compile_args=["-O2", "-std=c11", "-Wall", "-Wextra"],
    )
    return ffi


ffibuilder = _builder()
