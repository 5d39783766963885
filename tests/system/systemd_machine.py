# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with this system's systemd as its first process, under QEMU, without Xen.

Its initramfs holds the files of the package systemd, a shell, Python, pyxsd as it is built in
place, the stand-in for Xen's libraries, and the units and the scenario of the folder systemd/.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from realxen import packages, pytree
from realxen.cpio import Archive

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(TOP / "glue" / "standin"))

#: Plain module of the stand-in's folder, which no type checker sees.
peers: Any = importlib.import_module("peers")

MEMORY_MB = 1024
#: Seconds after which the machine is given up; a loaded host takes several times what is usual.
PATIENCE = 600.0
KERNEL_OPTIONS = (
    "console=ttyS0 nokaslr mitigations=off loglevel=4 panic=1 random.trust_cpu=on "
    "systemd.unit=test.target systemd.show_status=false"
)

LAUNCHER = "/usr/sbin/pyxsd"
PROGRAMS = ("bash", "cat", "env", "mkdir", "prlimit", "rm", "sleep")

FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "/etc/group": "root:x:0:\ntty:x:5:\n",
    "/etc/os-release": 'ID=test\nNAME="a machine for tests"\nVERSION_ID=1\n',
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\n",
    "/etc/default/xencommons": f"XENSTORED={LAUNCHER}\n",
    "/etc/xen/oxenstored.conf": "xenstored-kva = /standin/host/xsd_kva\n"
    "xenstored-port = /standin/host/xsd_port\n"
    "xenstored-log-level = info\n",
}


def _files_of(package: str) -> list[Path]:
    try:
        done = subprocess.run(
            ["dpkg-query", "-L", package], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise packages.MissingError(f"the package {package} is not installed") from error
    return [Path(line) for line in done.stdout.splitlines()]


def _merged(path: str) -> str:
    """A path with /bin, /sbin and /lib below /usr, where they really are."""
    first = path.strip("/").split("/", 1)[0]
    return f"/usr{path}" if first in ("bin", "sbin", "lib", "lib64") else path


def _add_systemd(archive: Archive) -> None:
    """The programs, libraries and units of the package; no udev, no D-Bus."""
    for file in _files_of("systemd"):
        inside = _merged(str(file))
        if file.parent == Path("/"):
            continue  # /lib and the like, which are links
        if file.is_symlink():
            archive.link(inside, str(file.readlink()))
        elif file.is_file() and not inside.startswith("/usr/share/"):
            if file.read_bytes()[:4] == b"\x7fELF":
                pytree.add_object(archive, file, inside)
            else:
                archive.file(inside, file, file.stat().st_mode & 0o777)


def _drop_in() -> bytes:
    """The example of the packages, but that the program is here started without the launcher."""
    text = (TOP / "packaging/systemd/xenstored.service.d/pyxsd.conf").read_text()
    launcher = "ExecStart=/usr/sbin/pyxsd-launch "
    if launcher not in text:
        raise packages.MissingError("the drop-in of the packages starts another program")
    return text.replace(launcher, f"ExecStart={LAUNCHER} ").encode()


def build(target: Path) -> None:
    """Write the initramfs.

    Raises:
        MissingError: something is missing; the text says what.
    """
    archive = Archive()
    for name in ("bin", "sbin", "lib", "lib64"):
        archive.directory(f"/usr/{name}")
        archive.link(f"/{name}", f"usr/{name}")
    for folder in ("proc", "sys", "dev", "run", "tmp", "var/log", "standin", "root"):
        archive.directory(f"/{folder}")
    archive.link("/var/run", "/run")
    archive.character_device("/dev/console", 5, 1)
    archive.character_device("/dev/null", 1, 3)
    _add_systemd(archive)
    archive.link("/init", "usr/lib/systemd/systemd")
    archive.link("/usr/bin/sh", "bash")
    for name in PROGRAMS:
        pytree.add_object(archive, Path("/usr/bin", name), f"/usr/bin/{name}")
    for path, text in FILES.items():
        archive.file(path, text.encode())
    for script in ("etc/xen/scripts/launch-xenstore", "etc/xen/scripts/hotplugpath.sh"):
        archive.file(f"/{script}", packages.find(script), 0o755)
    for library in sorted(Path(peers.build_standin(), "lib").glob("*.so*")):
        archive.file(f"/standin/lib/{library.name}", library.read_bytes(), 0o755)
    pytree.add_interpreter(archive)
    pytree.add_pyxsd(archive, None)
    units = "/etc/systemd/system"
    scripts = HERE / "systemd"
    archive.file(f"{units}/xenstored.service", scripts / "xenstored.service")
    archive.file(f"{units}/xenstored.service.d/standin.conf", scripts / "standin.conf")
    archive.file(f"{units}/test.target", scripts / "test.target")
    scenario = (scripts / "scenario.service").read_text()
    archive.file(
        f"{units}/scenario.service",
        scenario.replace("@PYTHON@", str(pytree.interpreter_path())).encode(),
    )
    archive.file("/system/scenario.py", scripts / "scenario.py")
    archive.file("/system/hangs", scripts / "hangs", 0o755)
    archive.file("/system/pyxsd.conf", _drop_in())
    archive.file(
        "/system/pyxsd-recovery.conf",
        TOP / "packaging/systemd/xenstored.service.d/pyxsd-recovery.conf",
    )
    archive.write(target)


def run(folder: Path) -> str:
    """Build, run until the machine ends or the time is over; the serial log.

    Raises:
        MissingError: something is missing; the text says what.
    """
    initramfs, serial = folder / "systemd.cpio", folder / "serial.log"
    build(initramfs)
    command = [
        *("nice", "-n", "10", str(packages.find("usr/bin/qemu-system-x86_64"))),
        *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64", "-machine", "pc"),
        *("-smp", "1", "-m", str(MEMORY_MB), "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-serial", f"file:{serial}"),
        *("-kernel", str(packages.unpacked_kernel()), "-append", KERNEL_OPTIONS),
        *("-initrd", str(initramfs)),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
        said = done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        said = b"killed: it did not end in time\n"
    finally:
        initramfs.unlink()
    text = serial.read_bytes() if serial.exists() else b""
    return (text + said).decode("utf-8", "replace").replace("\r", "")
