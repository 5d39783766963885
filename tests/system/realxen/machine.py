# SPDX-License-Identifier: LGPL-2.1-or-later
"""One run of an image under QEMU: start, follow the serial line, end.

Knows nothing of what is said on the line but the word that ends it.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from . import packages
from .image import Image

#: Without eager-fpu, spec-ctrl=no would have Xen switch FPU registers lazily, which goes wrong
#: under emulation. The other options leave out what an emulated CPU pays for in vain.
XEN_OPTIONS = (
    "console=com1 com1=115200 loglvl=info spec-ctrl=no,eager-fpu=yes xpti=no smt=0 smep=0 smap=0 "
    "bootscrub=0 dom0_mem=768M,max:768M"
)
KERNEL_OPTIONS = "console=hvc0 nokaslr mitigations=off loglevel=4 panic=1 random.trust_cpu=on"
MEMORY_MB = 1392
#: PVH guests need svm and npt.
CPU = "qemu64,+svm,+npt"


def command(image: Image, serial: Path, parameters: dict[str, str]) -> list[str]:
    """Return QEMU's command line, at low priority.

    The parameters reach dom0's init as system.<name>=<value>.
    """
    words = " ".join(f"system.{name}={value}" for name, value in parameters.items())
    return [
        *("nice", "-n", "10"),
        str(packages.find("usr/bin/qemu-system-x86_64")),
        *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", CPU, "-machine", "pc"),
        *("-smp", "1", "-m", str(MEMORY_MB), "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-serial", f"file:{serial}"),
        *("-kernel", str(image.hypervisor), "-append", XEN_OPTIONS),
        *("-initrd", f"{image.kernel} {KERNEL_OPTIONS} {words},{image.initramfs}"),
    ]


def run(image: Image, folder: Path, parameters: dict[str, str], seconds: float) -> str:
    """Run the machine until it ends or the time is over, and return its serial log.

    A machine that did not end is killed; the log then lacks its last lines.
    """
    serial = folder / "serial.log"
    errors = folder / "qemu.log"
    with errors.open("wb") as out:
        machine = subprocess.Popen(
            command(image, serial, parameters),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            machine.wait(seconds)
        except subprocess.TimeoutExpired:
            out.write(b"killed: it did not end in time\n")
        finally:
            machine.kill()
            machine.wait()
    text = serial.read_bytes() if serial.exists() else b""
    return (text + errors.read_bytes()).decode("utf-8", "replace").replace("\r", "")


def elapsed(since: float) -> str:
    """Return the seconds since a time.monotonic(), for a message."""
    return f"{time.monotonic() - since:.0f} s"
