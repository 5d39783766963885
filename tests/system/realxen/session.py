# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole run: the images, the machine, the verdict; the logs are kept when it is not good."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from . import checks, image, machine

DAEMONS = ("pyxsd", "oxenstored", "cxenstored")
STARTS = ("debian", "launch")
SIZES = ("quick", "full")

#: Seconds after which a machine is given up; a loaded host may take several times what is usual.
PATIENCE = {"quick": 400.0, "full": 1200.0}


@dataclass(frozen=True)
class Session:
    """What a run gave."""

    wrong: list[str]
    results: list[checks.Result]
    log: str
    summary: str

    def tail(self, lines: int = 80) -> str:
        """Return the log's last lines."""
        return "\n".join(self.log.splitlines()[-lines:])


def package_given() -> Path | None:
    """Return the package named by SYSTEM_DEB or SYSTEM_WHEEL, if one is."""
    name = os.environ.get("SYSTEM_DEB") or os.environ.get("SYSTEM_WHEEL")
    return Path(name) if name else None


def hold(folder: Path, daemon: str, start: str, size: str, package: Path | None) -> Session:
    """Build, run and judge.

    Args:
        folder: for the images, serial.log and qemu.log; the images are removed afterwards.
        daemon: one of DAEMONS.
        start: one of STARTS.
        size: one of SIZES.
        package: a Debian package (.deb) or a wheel of pyxsd, or None for the pyxsd that this
            interpreter imports. A Debian package is chosen in dom0 with pyxsd-setup, and started
            by its launcher.

    Raises:
        MissingError: something that is needed is missing.
    """
    began = time.monotonic()
    packaged = daemon == "pyxsd" and package is not None and package.suffix == ".deb"
    built = image.build(folder, daemon, package)
    build_time = machine.elapsed(began)
    began = time.monotonic()
    parameters = {"daemon": daemon, "start": start, "size": size, "packaged": str(int(packaged))}
    log = machine.run(built, folder, parameters, PATIENCE[size])
    (folder / "run.log").write_text(log)
    for left in (*folder.glob("*.cpio"), built.hypervisor):
        left.unlink()
    results = checks.results(log)
    summary = (
        f"{daemon} ({built.packed}), start {start}, {size}: {len(results)} checks, "
        f"image {build_time}, machine {machine.elapsed(began)}"
    )
    wrong = checks.verdict(log, daemon, start, size, packaged)
    return Session(wrong, results, log, summary)
