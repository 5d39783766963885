# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the pieces of an image come from: this machine, or Debian packages fetched into a cache.

Packages are downloaded and unpacked, never installed: the machine stays as it is. What is
installed is preferred. Knows nothing of images.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

#: What must be found, and the Debian package that has it. ``{kernel}`` is resolved at need.
SOURCES = {
    "boot/xen-4.17-amd64.gz": "xen-hypervisor-4.17-amd64",
    "usr/bin/busybox": "busybox-static",
    "usr/bin/qemu-system-x86_64": "qemu-system-x86",
    "usr/lib/xen-4.17/bin/xl": "xen-utils-4.17",
    "etc/init.d/xen": "xen-utils-common",
    "usr/bin/xenstore": "xenstore-utils",
    "lib/lsb/init-functions": "sysvinit-utils",
    "usr/bin/choom": "util-linux",
    "usr/bin/prlimit": "util-linux",
    "usr/sbin/ip": "iproute2",
    "usr/sbin/brctl": "bridge-utils",
    "usr/sbin/losetup": "mount",
}

#: Programs whose libraries are only complete when they are installed, not merely unpacked.
INSTALLED_ONLY = ("qemu-system-x86", "xen-utils-4.17", "xenstore-utils")


class MissingError(Exception):
    """Something that the test needs is neither here nor to be had; the text names it."""


def cache_directory() -> Path:
    """Return where packages and images are kept between runs (``SYSTEM_TEST_CACHE``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pyxsd-system-test"
    cache = Path(os.environ.get("SYSTEM_TEST_CACHE", default))
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command and return its output.

    Raises:
        MissingError: it cannot be run, or fails; with what it said.
    """
    try:
        done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MissingError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise MissingError(f"{' '.join(command)}: {error.stderr.strip()[-600:]}") from error
    return done.stdout


def _fetch(package: str) -> Path:
    """Download and unpack a package, once; return the root of its files."""
    root = cache_directory() / "packages" / package
    if root.is_dir():
        return root
    partial = root.with_name(f"{package}.{os.getpid()}")
    downloads = partial / "deb"
    downloads.mkdir(parents=True)
    try:
        run("apt-get", "download", package, cwd=downloads)
        (deb,) = downloads.glob("*.deb")
        run("dpkg-deb", "-x", str(deb), str(partial))
        shutil.rmtree(downloads)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return root


def fetched(package: str) -> Path:
    """Return the root of the files of a Debian package, which is not installed for it.

    Raises:
        MissingError: it cannot be fetched.
    """
    return _fetch(package)


def find(path: str) -> Path:
    """Return a file of ``SOURCES`` on this machine, from its package if need be.

    Raises:
        MissingError: it is not installed and cannot be fetched, or must be installed.
    """
    here = Path("/", path)
    if here.exists():
        return here
    package = SOURCES.get(path)
    if package is None:
        raise MissingError(f"{here} is missing")
    if package in INSTALLED_ONLY:
        raise MissingError(f"{here} is missing: apt-get install {package}")
    return _unpacked(_fetch(package), path)


def _unpacked(root: Path, path: str) -> Path:
    """Return the file in an unpacked package, which may have it as ``sbin/x`` for ``usr/sbin/x``.

    An installed system merges the two; a package of Debian 12 need not. A link to an absolute
    name means a file of the same package.

    Raises:
        MissingError: the package has no such file.
    """
    for name in (path, path.removeprefix("usr/")):
        file = root / name
        if file.is_symlink() and os.readlink(file).startswith("/"):
            return _unpacked(root, os.readlink(file)[1:])
        if file.exists():
            return file
    raise MissingError(f"{root.name} has no {path}: is it of another release of Debian?")


def kernel_tree() -> tuple[Path, str]:
    """Return the root of Debian's kernel package and the kernel's release.

    A kernel that was fetched before is used again; else the newest is fetched.
    """
    cached = sorted((cache_directory() / "packages").glob("linux-image-*/lib/modules/*"))
    if not cached:
        depends = run("apt-cache", "depends", "linux-image-amd64")
        found = re.search(r"Depends: (linux-image-\S+)", depends)
        if found is None:
            raise MissingError("apt-cache knows no kernel behind linux-image-amd64")
        cached = sorted(_fetch(found.group(1)).glob("lib/modules/*"))
    modules = cached[-1]
    return modules.parents[2], modules.name


def unpacked_kernel() -> Path:
    """Return the kernel as the ELF file inside its bzImage.

    Unpacking it under emulation would take longer than the rest of the boot.
    """
    root, release = kernel_tree()
    plain = cache_directory() / f"vmlinux-{release}"
    if not plain.exists():
        image = (root / "boot" / f"vmlinuz-{release}").read_bytes()
        start = image.find(b"\xfd7zXZ\0")
        if start < 0:
            raise MissingError(f"vmlinuz-{release} is not packed with xz")
        partial = plain.with_name(f"{plain.name}.{os.getpid()}")
        partial.write_bytes(lzma.LZMADecompressor().decompress(image[start:]))
        partial.rename(plain)
    return plain


def modules(names: tuple[str, ...]) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Return these kernel modules and all that they need: name -> (file, names it needs)."""
    root, release = kernel_tree()
    files = {
        path.stem.replace("-", "_"): path for path in (root / "lib/modules" / release).rglob("*.ko")
    }
    wanted = [name.replace("-", "_") for name in names]
    result: dict[str, tuple[Path, tuple[str, ...]]] = {}
    while wanted:
        name = wanted.pop()
        if name in result:
            continue
        if name not in files:
            raise MissingError(f"kernel {release} has no module {name}")
        found = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        needs = found.group(1).decode().replace("-", "_") if found else ""
        result[name] = (files[name], tuple(filter(None, needs.split(","))))
        wanted.extend(result[name][1])
    return result


def libraries(program: Path) -> list[Path]:
    """Return the shared objects, dynamic loader included, that a program or object loads."""
    done = subprocess.run(["ldd", str(program)], check=False, capture_output=True, text=True)
    listing = done.stdout + done.stderr
    if "not found" in listing:
        raise MissingError(f"{program} lacks libraries:\n{listing}")
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listing)]
