# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPMs: built, checked, installed, upgraded and removed on a Debian system with Debian's rpm.

Its rpm lacks Fedora's macros, which packaging/rpm/macros.debian stands in for, and its database
knows none of Debian's packages: dependencies are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packages import dom0
from tests.packages.conftest import TOP, chroot, deb

pytestmark = pytest.mark.full

RPM = TOP / "packaging" / "rpm"
BUILD = (
    "rpmbuild --load /root/macros.debian --nodeps --noclean --define '_topdir /root/rpmbuild' "
    "-bb /root/pyxsd.spec"
)


@pytest.fixture(scope="module")
def system(chroots: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A system with the RPMs of this checkout in /root/first, and of release 2 in /root/second."""
    sources = [
        deb.sdist(TOP / folder, tmp_path_factory.mktemp("sdist"))
        for folder, _suffix in deb.TARBALLS
    ]
    with chroot.Chroot("rpm", "bookworm") as made:
        made.put("/root/rpmbuild/SOURCES", *sources)
        made.put("/root", RPM / "pyxsd.spec", RPM / "macros.debian", RPM / "rpmlintrc")
        made.run(BUILD)
        # The folder that is packed has the release in its name.
        made.run(
            "mkdir first second && mv rpmbuild/RPMS/*/*.rpm first && "
            "cd rpmbuild/BUILDROOT && for old in *; do "
            'mv "$old" "$(echo "$old" | sed s/-1.test/-2.test/)"; done; cd /root && '
            "sed -i 's/^Release:.*/Release: 2%{?dist}/' pyxsd.spec && "
            f"{BUILD} --short-circuit && mv rpmbuild/RPMS/*/*.rpm second"
        )
        yield made


def installed(system: Any) -> str:
    """Version and release of the installed package, or rpm's word that there is none."""
    return str(system.run("rpm -q --qf '%{version}-%{release}' pyxsd", status=None))


def test_rpmlint(system: Any, tmp_path: Path) -> None:
    printed = system.run("rpmlint -r rpmlintrc pyxsd.spec first/*.rpm", status=None)
    assert "0 errors, 0 warnings" in printed, printed


def test_metadata(system: Any) -> None:
    requires = system.run("rpm -qp --requires first/pyxsd-0*.rpm")
    assert "libc.so.6" in requires
    scripts = system.run("rpm -qp --scripts first/*.rpm")
    assert "refuse-removal" in scripts
    for word in ("systemctl", "service ", "kill"):
        assert word not in scripts


def test_life(system: Any) -> None:
    system.run("rpm -i --nodeps first/pyxsd-0*.rpm")
    version = installed(system)
    pid = dom0.start(system)
    system.run("rpm -U --nodeps second/pyxsd-0*.rpm")
    assert installed(system) != version
    assert dom0.pid(system) == pid
    printed = system.run("rpm -e pyxsd", status=1)
    assert "pyxsd is running" in printed, printed
    assert dom0.pid(system) == pid
    dom0.stop(system)
    system.run("rpm -e pyxsd")
    assert "not installed" in installed(system)
    left = system.run("find /usr /etc -path '*pyxsd*'")
    assert left == "", left
