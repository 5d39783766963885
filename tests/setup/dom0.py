# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of a dom0 in a folder, as Debian or Xen's own installation lays them out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "packaging" / "launcher" / "pyxsd-launch"

PROGRAM = "#!/bin/sh\n"
UNIT = "/usr/lib/systemd/system/xenstored.service"
LAUNCH_XENSTORE = """#!/bin/bash
XENSTORED=/usr/sbin/oxenstored
test -f {settings} && . {settings}
$XENSTORED --pid-file /var/run/xen/xenstored.pid $XENSTORED_ARGS
"""

#: A whole copy of pyxsd, as a package installs it.
PACKAGE = "/usr/lib/python3/dist-packages/pyxsd"
PARTS: dict[str, str | None] = {
    "/cli.py": "",
    "/_linked.cpython-311.so": "",
    "/_glue.abi3.so": "",
    "/setup/launch.py": "",
}


def copy(folder: str, version: str) -> dict[str, str | None]:
    """The files of a whole installed copy."""
    return {
        **{folder + name: text for name, text in PARTS.items()},
        folder + "/__init__.py": f'__version__ = "{version}"\n',
    }


#: What every dom0 has here: path, text.  Programs are executable; None is a folder.
COMMON: dict[str, str | None] = {
    "/usr/sbin/pyxsd-launch": PROGRAM,
    **copy(PACKAGE, "0.1.0"),
    "/usr/bin/python3.11": "",
    "/sys/hypervisor/type": "xen\n",
    "/sys/hypervisor/version/major": "4\n",
    "/sys/hypervisor/version/minor": "17\n",
    "/proc/xen/capabilities": "control_d\n",
    "/proc/xen/xsd_kva": "",
    "/proc/xen/xsd_port": "",
    "/usr/lib/x86_64-linux-gnu/libxenevtchn.so.1": "",
    "/usr/lib/x86_64-linux-gnu/libxengnttab.so.1": "",
    "/usr/lib/x86_64-linux-gnu/libxenctrl.so.4.17": "",
    "/etc/xen/oxenstored.conf": "xenstored-kva = /proc/xen/xsd_kva\n"
    "xenstored-port = /proc/xen/xsd_port\n",
    "/run": None,
    "/var/log/xen": None,
}
DEBIAN: dict[str, str | None] = {
    **COMMON,
    "/etc/init.d/xen": "#!/bin/sh\n. /etc/default/xen\n",
    "/etc/default/xen": "# Settings of Xen's daemons\n#XENSTORED=/usr/sbin/oxenstored\n"
    "XENSTORED_ARGS=\n",
    "/usr/lib/xen-4.17/bin/oxenstored": PROGRAM,
    "/usr/lib/xen-4.17/bin/xenstored": PROGRAM,
}
SYSTEMD: dict[str, str | None] = {
    **COMMON,
    UNIT: "[Service]\nType=notify\nExecStart=/etc/xen/scripts/launch-xenstore\n",
    "/etc/xen/scripts/launch-xenstore": LAUNCH_XENSTORE.format(
        settings="/etc/sysconfig/xencommons"
    ),
    "/etc/sysconfig/xencommons": "#XENSTORED=/usr/sbin/oxenstored\n",
    "/usr/sbin/oxenstored": PROGRAM,
}
DEVICES = ("evtchn", "gntdev", "privcmd")


def without_pyxsd(files: Mapping[str, str | None]) -> dict[str, str | None]:
    """The same host without a copy of pyxsd; the launcher stays."""
    return {path: text for path, text in files.items() if not path.startswith(PACKAGE)}


def make(folder: Path, files: Mapping[str, str | None]) -> Path:
    """Lays the files out below `folder`; /var/run is a link to /run, as on every host."""
    for path, text in files.items():
        place = folder / path[1:]
        if text is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        if text.startswith("#!"):
            place.chmod(0o755)
    (folder / "var").mkdir(exist_ok=True)
    (folder / "var" / "run").symlink_to("/run")
    if "/usr/bin/python3" not in files:
        (folder / "usr" / "bin" / "python3").symlink_to("python3.11")
    (folder / "dev" / "xen").mkdir(parents=True)
    for name in DEVICES:
        (folder / "dev" / "xen" / name).symlink_to("/dev/null")
    return folder


def content(folder: Path) -> dict[str, object]:
    """Everything below a folder: path, and text or link with the mode."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None,
            path.lstat().st_mode,
        )
        for path in folder.rglob("*")
        if not path.is_socket()
    }


def programs(folder: Path, python: str = f'exec {sys.executable} "$@"') -> Path:
    """A folder with a copy of the launcher and a python3 beside it; the launcher's path.

    `python` is the python3's shell text; "" leaves it away.
    """
    folder.mkdir()
    shutil.copy(LAUNCHER, folder / "pyxsd-launch")
    if python:
        (folder / "python3").write_text(f"#!/bin/sh\n{python}\n")
        (folder / "python3").chmod(0o755)
    return folder / "pyxsd-launch"


def need(program: str, package: str) -> str:
    """The path of a program; without it the test fails where all must run, else skips."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        lacking(f"{program} is not installed (Debian package {package})")
    assert path is not None
    return path


def lacking(reason: str) -> None:
    """Something is missing: fails where all must run, else skips."""
    if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def ends(pid: int) -> None:
    """Waits until a process that is no child of this one has ended."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        subprocess.run(["sleep", "0.02"], check=True)
    raise TimeoutError(f"process {pid} does not end")
