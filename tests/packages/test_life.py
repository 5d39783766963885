# SPDX-License-Identifier: LGPL-2.1-or-later
"""A package's life on a host: installed, started, upgraded, refused to go, removed, purged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.packages import dom0
from tests.packages.conftest import SUITES, Built

NEXT = "0.9.9"  # a version that is later than the one of the checkout


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian suite."""
    return str(request.param)


def running(system: Any) -> list[str]:
    """The commands of all processes inside, but for those that ask for them."""
    return sorted(set(system.run("ps -e -o comm=").split()) - {"ps", "sh"})


def test_life(suite: str, built: Callable[[str], Built], host: Callable[[str], Any]) -> None:
    package = built(suite).package("pyxsd")
    system = host(suite)
    version = package.name.split("_")[1]
    processes = running(system)
    dom0.install(system, package)
    assert dom0.installed(system) == version
    assert running(system) == processes, "installing started something"
    assert system.run("pyxsd-setup status --in-use", status=1) == ""

    system.run("printf 'XENSTORED=\\nXENSTORED_ARGS=\\n' > /etc/default/xen")
    system.run("pyxsd-setup select --force")
    pid = dom0.start(system)
    system.run("xenstore-write /tool/marker kept")

    def serves_still() -> None:
        assert dom0.pid(system) == pid
        assert system.run("xenstore-read /tool/marker") == "kept\n"

    # Reinstalled, and upgraded: the daemon is left alone, and the upgrade tells that it is.
    system.run(f"dpkg -i /packages/{package.name}")
    serves_still()
    printed = system.run(f"dpkg -i {dom0.next_version(system, package, NEXT)}")
    upstream = version.split("-")[0]
    assert f"still version {upstream}" in printed and NEXT in printed, printed
    assert "pyxsd-setup update" in printed, printed
    serves_still()
    status = system.run("pyxsd-setup status")
    assert upstream in status and NEXT in status, status

    # The way that the hint names: the installed version takes over.
    assert f"Updated: pyxsd {NEXT}, process " in system.run("pyxsd-setup update --yes")
    system.run(f"tail --pid={pid} -f /dev/null")
    pid = dom0.pid(system)
    serves_still()
    assert "still version" not in system.run("pyxsd-setup status")

    # It cannot be removed while it runs or is selected, by either tool.
    for command in ("dpkg -r pyxsd", "apt-get -y remove pyxsd", "dpkg -P pyxsd"):
        printed = system.run(command, status=None)
        assert "pyxsd is running" in printed and "pyxsd-setup deselect" in printed, printed
        assert dom0.installed(system) == f"{NEXT}-1"
        serves_still()
    dom0.stop(system)
    printed = system.run("dpkg -r pyxsd", status=1)
    assert "/etc/default/xen" in printed, printed
    assert dom0.installed(system) == f"{NEXT}-1"

    # Deselected: it goes, and leaves its logs and what it keeps in /run.
    system.run("pyxsd-setup deselect")
    system.run("dpkg -P pyxsd")
    left = system.run(
        "find / -xdev \\( -path /proc -o -path /packages -o -path /root/tree \\) "
        "-prune -o -path '*pyxsd*' -print"
    ).split()
    assert [path for path in left if not path.startswith(("/etc/default/", "/var/log/"))] == []
    assert "XENSTORED=\n" in system.run("cat /etc/default/xen")


def test_a_broken_package_is_not_removed_while_it_runs(
    built: Callable[[str], Built], host: Callable[[str], Any]
) -> None:
    system = host(SUITES[0])
    dom0.install(system, built(SUITES[0]).package("pyxsd"))
    pid = dom0.start(system)
    system.run("rm -r /usr/lib/python3/dist-packages/pyxsd/setup")
    assert "pyxsd is running" in system.run("dpkg -r pyxsd", status=1)
    assert dom0.pid(system) == pid
    dom0.stop(system)
    system.run("dpkg -r pyxsd")


def test_a_full_disk_leaves_the_old_version(
    built: Callable[[str], Built], host: Callable[[str], Any]
) -> None:
    """Installing or upgrading onto a full disk fails, and nothing that was there suffers."""
    package = built(SUITES[0]).package("pyxsd")
    system = host(SUITES[0])
    dom0.install(system, package)
    system.run(
        # dpkg has each file twice until the whole package is unpacked.
        "modules=/usr/lib/python3/dist-packages/pyxsd && "
        "room=$((3 * $(du -sk $modules | cut -f1))) && "
        "mkdir /small && mount -t tmpfs -o size=${room}k tmpfs /small && "
        "cp -a $modules /small/ && "
        "mount --bind /small/pyxsd /usr/lib/python3/dist-packages/pyxsd"
    )
    pid = dom0.start(system)
    system.run("xenstore-write /tool/marker kept")
    newer = dom0.next_version(system, package, NEXT)
    system.run("head -c 100M /dev/zero > /small/ballast", status=1)
    printed = system.run(f"dpkg -i {newer}", status=1)
    assert "No space left on device" in printed, printed
    assert dom0.pid(system) == pid
    assert system.run("xenstore-read /tool/marker") == "kept\n"
    system.run("pyxsd --config-test && rm /small/ballast")
    system.run(f"dpkg -i {newer}")
    assert dom0.installed(system) == f"{NEXT}-1"
