# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPMs, built and checked on this machine: the part of test_rpm.py that runs always.

Debian's rpm builds them from the source distributions, with packaging/rpm/macros.debian in place of
the macros of Fedora that it lacks, by the system's Python.  Nothing is installed, and everything
lies in a temporary folder, rpm's database too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.packages.conftest import TOP, deb, require

RPM = TOP / "packaging" / "rpm"

#: What the build needs beside a compiler: a program, or a module of the system's Python, and the
#: Debian package that has it.
PROGRAMS = (
    ("rpmbuild", "rpm"),
    ("rpmlint", "rpmlint"),
    ("xenstore-read", "xenstore-utils"),
    ("gcc", "gcc"),
    ("make", "make"),
)
MODULES = (
    ("pip", "python3-pip"),
    ("setuptools", "python3-setuptools"),
    ("wheel", "python3-wheel"),
    ("cffi", "python3-cffi"),
    ("sortedcontainers", "python3-sortedcontainers"),
)
PYTHON = "/usr/bin/python3"


def missing() -> list[str]:
    """The Debian packages that are not installed."""
    found = [package for program, package in PROGRAMS if shutil.which(program) is None]
    if not os.access(PYTHON, os.X_OK):
        return [*found, "python3", *(package for _, package in MODULES)]
    return found + [
        package
        for module, package in MODULES
        if subprocess.run(
            [PYTHON, "-I", "-c", f"import {module}"], check=False, capture_output=True
        ).returncode
        != 0
    ]


def run(command: Sequence[str | Path], status: int | None = 0) -> str:
    """What a command prints; fails where it ends with another status (None: any will do)."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    # The compiler's output is looked at by nobody here: without optimization it is there sooner.
    environment["CFLAGS"] = "-O0"
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert status is None or done.returncode == status, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The binary packages of this checkout."""
    lacking = missing()
    if lacking:
        require(f"the RPMs are built here: apt install {' '.join(lacking)}")
    top = tmp_path_factory.mktemp("rpmbuild")
    (top / "SOURCES").mkdir()
    for folder, _suffix in deb.TARBALLS:
        deb.sdist(TOP / folder, top / "SOURCES")
    run(
        [
            "rpmbuild",
            "--load",
            RPM / "macros.debian",
            "--nodeps",
            "--define",
            f"_topdir {top}",
            "--define",
            f"_dbpath {top}/database",
            "--define",
            f"_tmppath {top}",
            "-bb",
            RPM / "pyxsd.spec",
        ]
    )
    return sorted(top.glob("RPMS/*/*.rpm"))


def contents(package: Path) -> set[str]:
    """The paths that a package has."""
    return set(run(["rpm", "-qlp", package]).split())


def test_the_packages(packages: list[Path]) -> None:
    daemon, bench = packages
    assert bench.name.startswith("pyxsd-bench-")
    assert {
        "/usr/sbin/pyxsd",
        "/usr/sbin/pyxsd-launch",
        "/usr/sbin/pyxsd-setup",
        "/usr/libexec/pyxsd/pyxsd-start",
    } <= contents(daemon)
    assert any(path.startswith("/usr/share/man/man8/pyxsd.8") for path in contents(daemon))
    assert "/usr/bin/pyxsd-bench" in contents(bench)
    assert not contents(daemon) & contents(bench)


def test_no_scriptlet_touches_the_daemon(packages: list[Path]) -> None:
    scripts = run(["rpm", "-qp", "--scripts", *packages])
    assert "refuse-removal" in scripts
    for word in ("systemctl", "service ", "kill"):
        assert word not in scripts


def test_rpmlint(packages: list[Path]) -> None:
    printed = run(["rpmlint", "-r", RPM / "rpmlintrc", RPM / "pyxsd.spec", *packages], status=None)
    assert "0 errors, 0 warnings" in printed, printed
