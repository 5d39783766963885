# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the fuzzer: instrumented modules in a copy of the project, and the program around them.

python -m tests.fuzz.build         prints the command that fuzzes without an end
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.sanitize import copies

MAX_LEN = 2048

ENVIRONMENT = {
    "CC": "clang",
    "CFLAGS": "-fsanitize=fuzzer-no-link",
    "LDSHARED": "clang -shared",
    # Behind all others: Cython's own code adds 0 to NULL, which C23 allows.
    "CCC_OVERRIDE_OPTIONS": "# +-fno-sanitize=pointer-overflow",
}


def needs() -> str:
    """Why the fuzzer cannot be built here; empty where it can."""
    reason = copies.missing("clang")
    if not reason and not list(
        Path("/usr/lib").glob("llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a")
    ):
        reason = "clang's libFuzzer is not installed (Debian package libclang-rt-14-dev)"
    if not reason and not Path(sysconfig.get_path("include"), "Python.h").exists():
        reason = "Python.h is not installed (Debian package python3-dev)"
    return reason


def _link() -> list[str]:
    """What an embedded interpreter links with."""
    known = {
        key: sysconfig.get_config_var(key) or ""
        for key in ("LIBDIR", "LIBPL", "LDLIBRARY", "LDVERSION", "LIBS", "SYSLIBS")
    }
    return [
        f"-L{known['LIBDIR']}",
        f"-L{known['LIBPL']}",
        f"-lpython{known['LDVERSION']}",
        f"-Wl,-rpath,{known['LIBDIR']}",
        *shlex.split(known["LIBS"]),
        *shlex.split(known["SYSLIBS"]),
    ]


def build() -> Path:
    """The fuzzer; copies.BuildFailed."""
    copy = copies.build("fuzz", "debug", ENVIRONMENT)
    source = copy / "tests/fuzz/target.c"
    target = copy / "fuzz-target"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        command = [
            "clang",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-g",
            "-rdynamic",
            "-fsanitize=fuzzer,address,undefined",
            f"-I{sysconfig.get_path('include')}",
            str(source),
            "-o",
            str(target),
            *_link(),
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise copies.BuildFailed(f"{shlex.join(command)}\n{done.stdout}")
    return target


def environment(target: Path) -> dict[str, str]:
    """What the fuzzer runs with."""
    return {
        **os.environ,
        "PYTHONPATH": str(target.parent),
        "PYXSD_FUZZ_PYTHON": sys.executable,
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_abort=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


def main() -> int:
    """Builds, and says how to go on."""
    target = build()
    env = environment(target)
    names = ("PYTHONPATH", "PYXSD_FUZZ_PYTHON", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    print(
        *(f"{name}={shlex.quote(env[name])}" for name in names),
        target,
        f"-max_len={MAX_LEN} -timeout=60 -rss_limit_mb=4096 CORPUS_DIRECTORY",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
