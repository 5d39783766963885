# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps on a throwaway system that is taken for dom0: installing, starting, asking, upgrading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

#: As Debian's init script starts it, but for the pid file's place.
START = "/usr/sbin/pyxsd --pid-file /run/xenstore.pid"


def install(system: Any, package: Path) -> str:
    """Installs a package file, and from Debian what it depends on; what apt printed."""
    system.put("/packages", package)
    return str(system.run(f"apt-get -qq update && apt-get -y install /packages/{package.name}"))


def start(system: Any) -> int:
    """Starts the daemon; its process id, as it is numbered inside."""
    system.run(f"mkdir -p /var/log/xen /run/xen && {START}")
    return pid(system)


#: Finds the daemon's process, and not the shell that looks for it.
FIND = "pgrep -f '^[^ ]*python3 .*/usr/sbin/pyxsd'"


def pid(system: Any) -> int:
    """The process that runs the daemon; it must be exactly one."""
    text = system.run(FIND, status=None)
    assert len(text.split()) == 1, f"processes: {text!r}"
    return int(text)


def stop(system: Any) -> None:
    """Ends the daemon, if there is one, and waits until it is gone."""
    system.run(f"pid=$({FIND}) || exit 0; kill $pid && tail --pid=$pid -f /dev/null")


def installed(system: Any) -> str:
    """The version of the package pyxsd, with its state if that is not "installed"."""
    text = system.run("dpkg-query -W -f='${Version} ${db:Status-Status}' pyxsd", status=None)
    return str(text).replace(" installed", "").strip()


def next_version(system: Any, package: Path, version: str) -> str:
    """Makes a package with the same content but for its version; its path inside.

    What tells the version is changed: Debian's field, Python's metadata, and pyxsd itself.  dpkg
    replaces every file in an upgrade, whether its content changed or not.
    """
    old = re.match(r"pyxsd_([^-]+)-", package.name)
    assert old is not None
    system.put("/packages", package)
    system.run(
        'rm -rf tree && dpkg-deb -R "/packages/$1" tree && '
        'sed -i "s/^Version: .*/Version: $3-1/" tree/DEBIAN/control && '
        "cd tree/usr/lib/python3/dist-packages && "
        'mv "pyxsd-$2.dist-info" "pyxsd-$3.dist-info" && '
        'sed -i "s/^Version: .*/Version: $3/" "pyxsd-$3.dist-info/METADATA" && '
        'sed -i "s/^__version__ = .*/__version__ = \\"$3\\"/" pyxsd/__init__.py && '
        'cd /root && sed -i "s/pyxsd-$2.dist-info/pyxsd-$3.dist-info/" tree/DEBIAN/md5sums && '
        'dpkg-deb --root-owner-group -b tree "/packages/pyxsd_$3.deb"',
        package.name,
        old.group(1),
        version,
    )
    return f"/packages/pyxsd_{version}.deb"
