# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian packages of a checkout: the source package, and binary packages for a suite.

`deb.py FOLDER [SUITE...]` puts the source package into FOLDER and, for each suite named, the
binary packages into FOLDER/SUITE; `make deb` calls it.  Both steps run in a throwaway Debian
system (chroot.py), so nothing need be installed here but mmdebstrap and Python's `build`.

The source package has two original tarballs, which are the source distributions of pyxsd and of
pyxsd-bench (its component "benchmarks"), packed anew so that the same sources give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import chroot

TOP = Path(__file__).resolve().parent.parent
DEBIAN = TOP / "packaging" / "debian"

#: Folder of each distribution, and what its original tarball's name has behind "orig".
TARBALLS = ((".", ""), ("benchmarks", "-benchmarks"))

#: The suite whose tools make the source package.
SOURCE_SUITE = "bookworm"


def changelog() -> tuple[str, int]:
    """The version of the newest entry of debian/changelog, and its date in seconds."""
    from email.utils import parsedate_to_datetime

    text = (DEBIAN / "changelog").read_text(encoding="utf-8")
    version = re.match(r"pyxsd \(([^)]+)\)", text)
    date = re.search(r"^ -- .*>  (.*)$", text, re.MULTILINE)
    assert version is not None and date is not None, "debian/changelog has another form"
    return version.group(1), int(parsedate_to_datetime(date.group(1)).timestamp())


def sdist(folder: Path, out: Path) -> Path:
    """Makes the source distribution of a folder with this Python; its path.

    Its name is the one that PyPI asks for, such as pyxsd_bench-0.2.0.tar.gz: setuptools before
    release 69 writes pyxsd-bench-0.2.0.tar.gz.
    """
    with tempfile.TemporaryDirectory(dir=out) as work:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "build",
                "--sdist",
                "--no-isolation",
                "--outdir",
                work,
                str(folder),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        [made] = Path(work).iterdir()
        name, dash, version = made.name[: -len(".tar.gz")].rpartition("-")
        top = name.replace("-", "_") + dash + version
        archive = out / f"{top}.tar.gz"
        repack(unpacked(made), top, int(made.stat().st_mtime), archive)
    return archive


def repack(members: Iterable[tuple[str, bytes, bool]], top: str, date: int, target: Path) -> None:
    """Writes a .tar.gz whose bytes depend on its arguments alone.

    members: (name, content, whether it is a program).  Each is put below the folder `top`.
    """
    with (
        open(target, "wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=date) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, content, program in sorted(members):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime = len(content), date
            member.mode = 0o755 if program else 0o644
            archive.addfile(member, io.BytesIO(content))


def unpacked(archive: Path) -> list[tuple[str, bytes, bool]]:
    """The files of a source distribution as `repack` takes them."""
    found = []
    with tarfile.open(archive) as source:
        for member in source.getmembers():
            file = source.extractfile(member) if member.isfile() else None
            if file is not None:
                name = member.name.split("/", 1)[1]
                found.append((name, file.read(), bool(member.mode & 0o100)))
    return found


def source_package(out: Path) -> Path:
    """Makes the source package in a folder; the path of its .dsc."""
    version, date = changelog()
    upstream = version.rsplit("-", 1)[0]
    top = f"pyxsd-{upstream}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        originals = []
        for folder, suffix in TARBALLS:
            archive = sdist(TOP / folder, Path(work))
            original = out / f"pyxsd_{upstream}.orig{suffix}.tar.gz"
            repack(unpacked(archive), folder if suffix else top, date, original)
            originals.append(original)
        debian = Path(work) / "debian.tar.gz"
        files = [path for path in DEBIAN.rglob("*") if path.is_file()]
        repack(
            [
                (
                    str(path.relative_to(DEBIAN)),
                    path.read_bytes(),
                    bool(path.stat().st_mode & 0o100),
                )
                for path in files
            ],
            "debian",
            date,
            debian,
        )
        with chroot.Chroot("build", SOURCE_SUITE) as system:
            system.put("/build", *originals, debian)
            system.run(
                f"tar xf pyxsd_{upstream}.orig.tar.gz && cd {top} && "
                f"mkdir benchmarks && tar xf ../pyxsd_{upstream}.orig-benchmarks.tar.gz && "
                "tar xf ../debian.tar.gz && rm ../debian.tar.gz && cd .. && "
                f"dpkg-source -b {top} && chmod 644 pyxsd_*",
                cwd="/build",
                SOURCE_DATE_EPOCH=str(date),
            )
            system.get("/build", out)
    return out / f"pyxsd_{version}.dsc"


def source_files(dsc: Path) -> list[Path]:
    """The .dsc and the files that it names."""
    names = re.findall(r"^ [0-9a-f]{64} \d+ (\S+)$", dsc.read_text(encoding="utf-8"), re.MULTILINE)
    return [dsc, *(dsc.parent / name for name in names)]


def build(
    system: chroot.Chroot,
    dsc: Path,
    folder: str = "/build/pyxsd",
    before: str = ":",
    **environment: str,
) -> str:
    """Builds the binary packages in a chroot of the kind "build"; what the build printed.

    folder: where the source is unpacked; the packages are put beside it.  before: shell commands
    to be run first, `umask 027` for example.
    """
    system.put("/source", *source_files(dsc))
    options: Any = {"DEB_BUILD_OPTIONS": f"parallel={os.cpu_count()}", **environment}
    return system.run(
        f'mkdir -p "$(dirname "$1")" && cd "$(dirname "$1")" && {before} && '
        f'dpkg-source -x /source/{dsc.name} "$1" && cd "$1" && '
        "dpkg-buildpackage -us -uc -b",
        folder,
        **options,
    )


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    if not argv:
        print("usage: deb.py FOLDER [SUITE...]", file=sys.stderr)
        return 2
    trouble = chroot.missing()
    if trouble:
        print(f"deb.py: {trouble}", file=sys.stderr)
        return 1
    out = Path(argv[0])
    try:
        dsc = source_package(out)
        print(dsc)
        for suite in argv[1:]:
            with chroot.Chroot("build", suite) as system:
                log = build(system, dsc)
                (out / f"{suite}.log").write_text(log, encoding="utf-8")
                for file in system.get("/build", out / suite):
                    print(file)
    except chroot.ChrootError as error:
        print(f"deb.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
