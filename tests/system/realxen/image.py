# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images of dom0 and of its guests, as initramfs archives.

dom0 is a small Debian: Xen's tools, the C library, bash and busybox from this machine, the
kernel's modules, the scenario's scripts, a guest kernel and a guest image, and the daemons.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from . import packages, pytree
from .cpio import Archive

HERE = Path(__file__).resolve().parent.parent
XEN_BIN = "usr/lib/xen-4.17/bin"

DOM0_MODULES = (
    "xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback xen-netback loop bridge"
)
GUEST_MODULES = "xen-blkfront xen-netfront"

#: Programs with the libraries they load. Those of busybox fill every name that is left.
PROGRAMS = (
    "usr/bin/bash",
    "usr/bin/dash",  # as sh: busybox's sh runs its own applets in place of the programs
    "usr/bin/busybox",
    "usr/bin/choom",
    "usr/bin/prlimit",
    "usr/bin/flock",
    "usr/sbin/start-stop-daemon",
    "usr/sbin/ip",
    "usr/sbin/brctl",
    "usr/sbin/losetup",
    "usr/bin/xenstore",
    *(
        f"{XEN_BIN}/{name}"
        for name in (
            "xl",
            "xenconsoled",
            "xen-init-dom0",
            "libxl-save-helper",
            "xenstore-control",
            "lsevtchn",
            "oxenstored",
            "xenstored",
        )
    ),
)

#: Libraries that are loaded by name at run time, so that nothing lists them.
LOADED_BY_NAME = (
    "libxengnttab.so.1",
    "libxenevtchn.so.1",
    "libxenctrl.so.4.17",
    "libgcc_s.so.1",  # for pthread_cancel
)

#: Files and folders copied as they are.
COPIED = (
    "etc/init.d/xen",
    "etc/xen",
    "lib/init/vars.sh",
    "lib/lsb",
    "usr/lib/xen-common/bin",
)

XENSTORE_TOOLS = "chmod exists list ls read rm watch write"


@dataclass(frozen=True)
class Image:
    """Everything that QEMU is given."""

    hypervisor: Path
    kernel: Path
    initramfs: Path
    packed: str


def _usr(path: str) -> str:
    """Return a path with /bin, /sbin and /lib below /usr, where they really are."""
    first = path.strip("/").split("/", 1)[0]
    return f"/usr/{path.strip('/')}" if first in ("bin", "sbin", "lib", "lib64") else f"/{path}"


def _add_links(archive: Archive) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        archive.directory(f"/usr/{name}")
        archive.link(f"/{name}", f"usr/{name}")
    archive.link("/usr/bin/sh", "dash")
    archive.link("/var/run", "/run")
    for folder in (
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "var/log/xen/console",
        "var/lib/xen",
        "etc",
    ):
        archive.directory(folder)
    archive.directory("/etc/default")
    archive.character_device("/dev/console", 5, 1)
    archive.character_device("/dev/null", 1, 3)


def _add_tree(archive: Archive, source: Path, where: str) -> None:
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        inside = where if path == source else f"{where}/{path.relative_to(source)}"
        if path.is_symlink():
            archive.link(inside, os.readlink(path))
        elif path.is_file():
            archive.file(inside, path, path.stat().st_mode & 0o777)


def _add_busybox(archive: Archive, folder: str) -> None:
    """Give every applet its name, where no real program has it."""
    places = {"/usr/bin", "/usr/sbin", folder}
    for applet in packages.run(str(packages.find("usr/bin/busybox")), "--list").split():
        if not any(f"{place}/{applet}" in archive for place in places):
            archive.link(f"{folder}/{applet}", "busybox")


def compiled(name: str, sources: tuple[str, ...]) -> Path:
    """Compile a program of probe/, statically, unless that was done from the same sources."""
    folder = HERE / "probe"
    texts = [path.read_bytes() for path in sorted(folder.glob("*.[ch]"))]
    key = hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
    program = packages.cache_directory() / f"{name}-{key}"
    if not program.exists():
        partial = program.with_name(f"{program.name}.{os.getpid()}")
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
        paths = [str(folder / source) for source in sources]
        packages.run(os.environ.get("CC", "gcc"), *flags, "-o", str(partial), *paths)
        partial.rename(program)
    return program


def probe() -> Path:
    """Return the compiled xsprobe."""
    return compiled("xsprobe", ("xs.c", "suite.c", "xsprobe.c"))


def guest_image(target: Path) -> None:
    """Write the guests' initramfs."""
    archive = Archive()
    archive.directory("/dev")
    archive.character_device("/dev/console", 5, 1)
    for folder in ("proc", "sys", "sbin", "tmp"):
        archive.directory(folder)
    archive.file("/bin/busybox", packages.find("usr/bin/busybox"), 0o755)
    archive.file("/bin/xsprobe", probe(), 0o755)
    archive.file("/init", HERE / "guest/init", 0o755)
    for name in ("poweroff", "reboot"):
        archive.file(f"/sbin/{name}", HERE / "guest/poweroff", 0o755)
    _add_busybox(archive, "/bin")
    for name, (file, _needs) in packages.modules(tuple(GUEST_MODULES.split())).items():
        archive.file(f"/modules/{name}.ko", file)
    archive.write(target)


def _add_modules(archive: Archive) -> None:
    """Add dom0's kernel modules with the list of what each needs, as depmod would write it."""
    _root, release = packages.kernel_tree()
    folder = f"/usr/lib/modules/{release}"
    found = packages.modules(tuple(DOM0_MODULES.split()))
    lines = []
    for name, (file, _needs) in found.items():
        archive.file(f"{folder}/{file.name}", file)
        needs: list[str] = []
        wanted = [name]
        while wanted:  # modprobe loads from the end of the list: what others need moves there
            for need in found[wanted.pop()][1]:
                if need in needs:
                    needs.remove(need)
                needs.append(need)
                wanted.append(need)
        lines.append(f"{file.name}: {' '.join(found[need][0].name for need in needs)}\n")
    archive.file(f"{folder}/modules.dep", "".join(lines).encode())


def dom0_base(target: Path, guest: Path) -> None:
    """Write dom0's initramfs but for the daemon."""
    archive = Archive()
    _add_links(archive)
    for program in PROGRAMS:
        pytree.add_object(archive, packages.find(program), _usr(program))
    for name in LOADED_BY_NAME:
        library = packages.find(f"usr/lib/{sysconfig.get_config_var('MULTIARCH')}/{name}")
        pytree.add_object(archive, library, str(library))
    for copied in COPIED:
        _add_tree(archive, packages.find(copied), _usr(copied))
    for name in ("xl", "xenstore-control"):
        place = "/usr/sbin" if name == "xl" else "/usr/bin"
        archive.link(f"{place}/{name}", "/usr/lib/xen-common/bin/xen-utils-wrapper")
    for tool in XENSTORE_TOOLS.split():
        archive.link(f"/usr/bin/xenstore-{tool}", "xenstore")
    archive.file("/usr/bin/xsprobe", probe(), 0o755)
    archive.file("/usr/bin/notifyd", compiled("notifyd", ("notifyd.c",)), 0o755)
    _add_tree(archive, HERE / "dom0", "/system")
    archive.file("/init", HERE / "dom0/init", 0o755)
    _add_modules(archive)
    archive.file("/boot/vmlinux", packages.unpacked_kernel())
    archive.file("/boot/guest.cpio", guest)
    _add_busybox(archive, "/usr/bin")
    archive.write(target)


def _interpreter_archive() -> Path:
    """Return the archive of the interpreter and its library, made once for each version."""
    key = hashlib.sha256(f"{os.path.realpath(sys.executable)} {sys.version}".encode()).hexdigest()
    target = packages.cache_directory() / f"python-{key[:16]}.cpio"
    if not target.exists():
        archive = Archive()
        pytree.add_interpreter(archive)
        archive.write(target)
    return target


def build(folder: Path, with_pyxsd: bool, package: Path | None) -> Image:
    """Build the images for a run.

    Args:
        folder: where to.
        with_pyxsd: pyxsd is in the image, and Python.
        package: a Debian package or a wheel of pyxsd; None: see `pytree.add_pyxsd`.

    Raises:
        MissingError: something is missing; the text says what.
    """
    parts = [folder / "base.cpio"]
    packed = "without pyxsd"
    guest_image(folder / "guest.cpio")
    dom0_base(parts[0], folder / "guest.cpio")
    if with_pyxsd:
        archive = Archive()
        if package is not None and package.suffix == ".deb":
            packed = pytree.add_deb(archive, package)
        else:
            packed = pytree.add_pyxsd(archive, package)
        archive.write(folder / "pyxsd.cpio")
        parts += [_interpreter_archive(), folder / "pyxsd.cpio"]
    initramfs = folder / "dom0.cpio"
    with initramfs.open("wb") as out:
        for part in parts:  # the kernel unpacks one archive after another
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, out)
    hypervisor = folder / "xen"
    packed_xen = packages.find("boot/xen-4.17-amd64.gz")
    hypervisor.write_bytes(gzip.decompress(packed_xen.read_bytes()))
    return Image(hypervisor, packages.unpacked_kernel(), initramfs, packed)
