# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole run: the images, the machine, the verdict; the logs are kept when it is not good."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from . import checks, image, machine
from .checks import DAEMONS, SIZES, STARTS, STORIES, Run

__all__ = ["DAEMONS", "SIZES", "STARTS", "STORIES", "Run", "Session", "hold", "runs"]

#: Seconds after which a machine is given up; a loaded host may take several times what is usual.
PATIENCE = {"quick": 700.0, "full": 1500.0}


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


def runs(daemon: str, size: str) -> list[Run]:
    """Return the machines of a size, for the daemon that is tried."""
    if daemon != "pyxsd":
        return [Run(daemon, start, size) for start in (STARTS if size == "full" else STARTS[:1])]
    quick = [
        Run(daemon, "debian", size),
        Run(daemon, "debian", size, "deaths"),
        Run("cxenstored", "debian", size, "switches"),
    ]
    more = [Run(daemon, "launch", size), Run("oxenstored", "launch", size, "switches")]
    return quick + more if size == "full" else quick


def hold(folder: Path, run: Run, package: Path | None) -> Session:
    """Build, run and judge.

    Args:
        folder: for the images, serial.log and qemu.log; the images are removed afterwards.
        run: what the machine does.
        package: a Debian package (.deb) or a wheel of pyxsd, or None for the pyxsd that this
            interpreter imports. A Debian package is chosen in dom0 with pyxsd-setup, and started
            by its launcher.

    Raises:
        MissingError: something that is needed is missing.
    """
    began = time.monotonic()
    packaged = run.daemon == "pyxsd" and package is not None and package.suffix == ".deb"
    run = replace(run, packaged=packaged)
    built = image.build(folder, run.has_pyxsd, package)
    build_time = machine.elapsed(began)
    began = time.monotonic()
    parameters = {name: str(value) for name, value in asdict(run).items()}
    parameters["packaged"] = str(int(packaged))
    log = machine.run(built, folder, parameters, PATIENCE[run.size])
    (folder / "run.log").write_text(log)
    for left in (*folder.glob("*.cpio"), built.hypervisor):
        left.unlink()
    results = checks.results(log)
    summary = (
        f"{run.story} of {run.daemon} ({built.packed}), start {run.start}, {run.size}: "
        f"{len(results)} checks, image {build_time}, machine {machine.elapsed(began)}"
    )
    wrong = checks.verdict(log, run)
    return Session(wrong, results, log, summary)
