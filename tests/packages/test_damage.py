# SPDX-License-Identifier: LGPL-2.1-or-later
"""An installation that is not whole: a full disk, missing parts, a second copy made by pip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.packages import dom0
from tests.packages.conftest import SUITES, Built

SUITE = SUITES[0]
FOLDER = "/usr/lib/python3/dist-packages/pyxsd"
#: The launcher as a boot script calls it, with what it says.
LAUNCH = (
    "mkdir -p /var/log/xen /run/xen && /usr/sbin/pyxsd-launch --pid-file /run/xenstore.pid 2>&1"
)


@pytest.fixture
def system(host: Callable[[str], Any], built: Callable[[str], Built]) -> Any:
    """A throwaway system on which the package is installed."""
    made = host(SUITE)
    dom0.install(made, built(SUITE).package("pyxsd"))
    return made


# what is removed, a word of what the launcher says
PARTS = [
    (f"{FOLDER}", "No module named 'pyxsd'"),
    (f"{FOLDER}/setup", "No module named 'pyxsd.setup'"),
    (f"{FOLDER}/cli.py", "No module named 'pyxsd.cli'"),
    (f"{FOLDER}/_linked.*.so", "No module named 'pyxsd._"),
    ("/usr/lib/python3/dist-packages/sortedcontainers", "No module named 'sortedcontainers'"),
    (
        "/usr/libexec/pyxsd/pyxsd-start",
        "a part of the package is missing: /usr/libexec/pyxsd/pyxsd-start",
    ),
]


@pytest.mark.parametrize(("part", "said"), PARTS)
def test_a_part_is_missing(system: Any, part: str, said: str) -> None:
    """It does not start, says what is missing, and a new installation mends it."""
    system.run(f"mkdir /away && mv {part} /away")
    printed = system.run(LAUNCH, status=5)
    assert said in printed and "cannot start pyxsd" in printed, printed
    assert "Traceback" not in printed
    system.run(
        "apt-get -y install --reinstall python3-sortedcontainers && dpkg -i /packages/pyxsd_*.deb"
    )
    system.run(LAUNCH)
    pid = dom0.pid(system)
    # Damaged again while it runs: whoever starts it again learns that there is nothing to do.
    system.run(f"rm -r /away/* && mv {part} /away")
    printed = system.run(f"apt-get -y install xenstore-utils && {LAUNCH}")
    assert "there is nothing to start" in printed or "nothing to start: " in printed, printed
    assert dom0.pid(system) == pid


def test_a_full_disk_at_the_first_installation(
    built: Callable[[str], Built], host: Callable[[str], Any]
) -> None:
    """dpkg fails, the host's settings are as they were, and with space it goes through."""
    package = built(SUITE).package("pyxsd")
    made = host(SUITE)
    made.put("/packages", package)
    settings = made.run("cat /etc/default/xen")
    made.run(
        "apt-get -qq update && apt-get -y install python3-sortedcontainers python3-cffi-backend"
    )
    made.run(f"mkdir -p {FOLDER} && mount -t tmpfs -o size=200k tmpfs {FOLDER}")
    printed = made.run(f"dpkg -i /packages/{package.name}", status=1)
    assert "No space left on device" in printed, printed
    assert made.run("cat /etc/default/xen") == settings
    assert made.run(dom0.FIND, status=1) == ""
    made.run(f"umount {FOLDER} && dpkg -i /packages/{package.name}")
    assert "Python" in made.run("pyxsd-setup check", status=None)
    dom0.start(made)


def test_a_copy_made_by_pip_beside_the_package(system: Any) -> None:
    """The package's programs take the package's copy, and check tells of the other."""
    python = system.run("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
    local = f"/usr/local/lib/python{python}/dist-packages"
    system.run(
        f"mkdir -p {local} && cp -a {FOLDER} {local} && "
        f"sed -i 's/^__version__ = .*/__version__ = \"9.9.9\"/' {local}/pyxsd/__init__.py"
    )
    assert system.run("python3 -I -m pyxsd --version") == "pyxsd 9.9.9\n"
    version = dom0.installed(system).split("-")[0]
    for program in ("pyxsd", "pyxsd-launch", "pyxsd-setup"):
        assert system.run(f"/usr/sbin/{program} --version") == f"{program} {version}\n"
    system.run(LAUNCH)
    dom0.pid(system)
    status = system.run("pyxsd-setup status")
    assert f"running now:      pyxsd {version}, process " in status, status
    assert f"9.9.9 in {local}" in status, status
    printed = system.run("pyxsd-setup check", status=None)
    assert "pyxsd is installed 2 times" in printed, printed
