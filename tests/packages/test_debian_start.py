# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's own ways of starting a xenstored, against the installed package.

The throwaway system is no dom0: /sys tells of Xen, the init script looks for /proc/xen in another
folder, two programs that need a hypervisor are replaced, and packages may start services though
there is no init system.  Everything else is Debian's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.packages import dom0
from tests.packages.conftest import SUITES, Built, chroot

#: Xen's version by suite.
XEN = {"bookworm": "4.17", "trixie": "4.20", "sid": "4.20"}

SYS = """
mount -t tmpfs tmpfs /sys && mkdir -p /sys/hypervisor/version /run/xenfs
echo xen > /sys/hypervisor/type
echo {major} > /sys/hypervisor/version/major
echo {minor} > /sys/hypervisor/version/minor
echo .1 > /sys/hypervisor/version/extra
echo control_d > /run/xenfs/capabilities
sed -i 's,/proc/xen,/run/xenfs,g' /etc/init.d/xen
printf '#!/bin/sh\nexit 0\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
"""

#: Stands for a program that talks to the hypervisor: leaves a line when it is started.
STUB = """
dpkg-divert --local --quiet --rename --divert "$1.real" --add "$1"
printf '#!/bin/sh\\necho "${0##*/}" >> /run/reached\\n' > "$1"
chmod 755 "$1"
"""

#: choom keeps the daemon from being killed for memory, which root may not do in a container: there
#: it is replaced by what runs the program alone (choom -n -1000 PROGRAM -- ARGUMENT...).
CHOOM = """
choom -n -1000 true || {
    dpkg-divert --local --quiet --rename --divert /usr/bin/choom.real --add /usr/bin/choom
    printf '#!/bin/sh\\nprogram=$3\\nshift 4\\nexec "$program" "$@"\\n' > /usr/bin/choom
    chmod 755 /usr/bin/choom
}
"""


@pytest.fixture(params=SUITES, scope="module")
def selected(request: pytest.FixtureRequest, built: Callable[[str], Built]) -> Iterator[Any]:
    """A system on which pyxsd is installed and selected."""
    suite = request.param
    with chroot.Chroot("host", suite) as found:
        major, minor = XEN[suite].split(".")
        found.run(SYS.format(major=major, minor=minor))
        found.run(CHOOM)
        for program in ("xen-init-dom0", "xenconsoled"):
            found.run(STUB, f"/usr/lib/xen-{XEN[suite]}/bin/{program}")
        dom0.install(found, built(suite).package("pyxsd"))
        found.run("pyxsd-setup select --force")
        found.run("mkdir /saved && cp /etc/default/xen /etc/xen/oxenstored.conf /saved")
        yield found


@pytest.fixture
def system(selected: Any) -> Any:
    """The same, with its settings as they were, and nothing that runs."""
    selected.run(
        "cp /saved/xen /etc/default/xen && cp /saved/oxenstored.conf /etc/xen/oxenstored.conf"
    )
    dom0.stop(selected)
    reached(selected)
    return selected


def reached(system: Any) -> list[str]:
    """The replaced programs that were started since the last question."""
    return str(system.run("cat /run/reached 2>/dev/null; rm -f /run/reached")).split()


def test_the_init_script_twice(system: Any) -> None:
    """Started again beside a live daemon, the script succeeds and leaves that daemon alone."""
    system.run("/etc/init.d/xen start")
    pid = dom0.pid(system)
    assert reached(system) == ["xen-init-dom0", "xenconsoled"]
    assert system.run("cat /run/xenstore.pid").strip() == str(pid)
    system.run("xenstore-write /tool/marker kept")
    system.run("/etc/init.d/xen start")
    assert dom0.pid(system) == pid
    assert reached(system) == ["xen-init-dom0", "xenconsoled"]
    assert system.run("xenstore-read /tool/marker") == "kept\n"


def test_an_upgrade_of_xen_utils(system: Any) -> None:
    """dpkg stops and starts Xen's daemons by the init script, and ends with status 0."""
    system.run("/etc/init.d/xen start")
    pid = dom0.pid(system)
    system.run("xenstore-write /tool/marker kept")
    reached(system)
    package = system.run("dpkg-query -S /usr/lib/xen-*/bin/xl | cut -d: -f1").strip()
    system.run(f"cd /packages && apt-get -qq update && apt-get -qq download {package}")
    system.run("dpkg -i /packages/xen-utils-4*.deb")
    assert "xenconsoled" in reached(system), "the step behind xenstored was not reached"
    assert dom0.pid(system) == pid
    assert system.run("xenstore-read /tool/marker") == "kept\n"
    assert system.run("dpkg --audit") == ""


@pytest.mark.parametrize(
    "text",
    [
        "XENSTORED=/usr/sbin/pyxsd-launch\nif [ ; then\n",
        "XENSTORED=/nonexistent/pyxsd\n",
        "XENSTORED=$(echo /usr/sbin/pyxsd-launch\n",
        "\x00\xff binary \x80\n",
    ],
)
def test_nonsense_in_the_settings(system: Any, text: str) -> None:
    """What root wrote there by hand is told, and does not get in the way of an upgrade."""
    system.run('printf %s "$1" > /etc/default/xen', text.replace("\x00", ""))
    status = system.run("pyxsd-setup status")
    assert "/etc/default/xen" in status, status
    version = dom0.installed(system)
    system.run("dpkg -i /packages/pyxsd_*.deb")
    assert dom0.installed(system) == version


def test_a_broken_configuration_at_boot(system: Any) -> None:
    """The daemon starts, with the defaults for what is wrong, and says what that is."""
    system.run(
        "printf 'quota-maxsize = many\\nno-such-key = 1\\nnonsense\\n' >> /etc/xen/oxenstored.conf"
    )
    printed = system.run("/etc/init.d/xen start 2>&1")
    dom0.pid(system)
    for word in ("quota-maxsize", "no-such-key"):
        assert word in printed, printed
