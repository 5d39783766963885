# SPDX-License-Identifier: LGPL-2.1-or-later
"""cffi builder of ``pyxsd._glue``: the glue library compiled into an extension module.

Use: ``cffi_modules=["glue/cffi_build.py:ffibuilder"]`` in setup.py (paths are relative
to the project's root, where setup.py runs), or ``python glue/cffi_build.py``.

From Python: ``api = lib.xsd_glue_api(); g = api.create(); api.open_evtchn(g)``.
From Cython: ``<const xsd_glue_api *><uintptr_t>lib.xsd_glue_api_address()`` and
``<xsd_glue *><uintptr_t>int(ffi.cast("uintptr_t", g))``, with xsd_glue.h.
"""

import re
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent


def declarations(header: str) -> str:
    """What cffi can parse of xsd_glue.h: no comments, no directives but plain number macros."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    lines = []
    for line in text.splitlines():
        number = re.match(r"#define (\w+) \d+\s*$", line)
        if number:
            lines.append(f"#define {number.group(1)} ...")
        elif not line.startswith("#"):
            lines.append(line)
    return "\n".join(lines)


ffibuilder = cffi.FFI()
ffibuilder.cdef(declarations((HERE / "xsd_glue.h").read_text(encoding="ascii")))
ffibuilder.set_source(
    "pyxsd._glue",
    '#include "xsd_glue.h"',
    sources=["glue/xsd_glue.c", "glue/xsd_domains.c"],
    include_dirs=["glue"],
    depends=["glue/xsd_glue.h", "glue/glue_internal.h"],
    libraries=["dl"],
    extra_compile_args=["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    import os

    os.chdir(HERE.parent)
    ffibuilder.compile(verbose=True)
