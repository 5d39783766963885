# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian source package: it builds, lintian has nothing to say, the contents are right."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages.conftest import SUITES, Built, chroot, deb

#: Programs of the package pyxsd.
PROGRAMS = ("pyxsd", "pyxsd-launch", "pyxsd-setup")

#: Another way to the same bytes: folder, and commands before the build.
#: (Debian's pybuild takes no blanks in it.)
ELSEWHERE = "/srv/elsewhere/a-longer-folder/pyxsd"


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian suite."""
    return str(request.param)


def contents(package: Path) -> set[str]:
    """The paths of a package's files."""
    done = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=subprocess.PIPE
    )
    names = subprocess.run(["tar", "-t"], input=done.stdout, check=True, stdout=subprocess.PIPE)
    return {name[1:] for name in names.stdout.decode().splitlines() if not name.endswith("/")}


def field(package: Path, name: str) -> str:
    """A field of a package's control file."""
    return subprocess.run(
        ["dpkg-deb", "-f", str(package), name], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def test_lintian(suite: str, dsc: Path, built: Callable[[str], Built]) -> None:
    """No error, no warning; information and overrides are allowed where they are explained."""
    with chroot.Chroot("build", suite) as system:
        system.put("/source", *deb.source_files(dsc))
        system.put("/build", *built(suite).files)
        printed = system.run("lintian --allow-root --fail-on none /build/*.changes /source/*.dsc")
    assert [line for line in printed.splitlines() if re.match(r"[EWP]: ", line)] == []


def test_contents(suite: str, built: Callable[[str], Built]) -> None:
    made = built(suite)
    daemon, bench = contents(made.package("pyxsd")), contents(made.package("pyxsd-bench"))
    assert {f"/usr/sbin/{program}" for program in PROGRAMS} <= daemon
    assert any(re.search(r"/pyxsd/_linked\..*\.so$", path) for path in daemon)
    assert not [path for path in daemon if "bench" in path and "/usr/share/doc/" not in path]
    assert not [path for path in daemon | bench if "/local/" in path or "/build/" in path]
    assert "/usr/bin/pyxsd-bench" in bench
    assert any(path.endswith("/pyxsd_bench/glue/standin/host.c") for path in bench)
    for name in ("pyxsd-dbgsym", "pyxsd-bench-dbgsym"):
        assert any(path.endswith(".debug") for path in contents(made.package(name)))


def test_dependencies(suite: str, built: Callable[[str], Built]) -> None:
    depends = field(built(suite).package("pyxsd"), "Depends")
    assert re.search(r"python3 \(>= 3\.\d+~\), python3 \(<< 3\.\d+\)", depends), depends
    for needed in ("python3-sortedcontainers", "python3-cffi-backend-api-min", "libc6"):
        assert needed in depends, depends


def test_cython_of_the_suite(suite: str, built: Callable[[str], Built]) -> None:
    """Debian 12's Cython is too old; elsewhere the sources are translated anew."""
    assert ("Cython 0.29.32 is too old: compiling the C files" in built(suite).log) == (
        suite == "bookworm"
    )


def test_maintainer_scripts_start_nothing(
    suite: str, built: Callable[[str], Built], tmp_path: Path
) -> None:
    for file in built(suite).files:
        if file.suffix != ".deb":
            continue
        folder = tmp_path / file.stem
        subprocess.run(["dpkg-deb", "-e", str(file), str(folder)], check=True)
        for script in ("preinst", "postinst", "prerm", "postrm"):
            text = (folder / script).read_text() if (folder / script).exists() else ""
            for word in ("systemctl", "invoke-rc.d", "service ", "deb-systemd", "kill"):
                assert word not in text, f"{file.name} {script}: {word}"


@pytest.mark.full
def test_reproducible(suite: str, dsc: Path, built: Callable[[str], Built], tmp_path: Path) -> None:
    """Another folder, time zone, language, umask and day give the same bytes."""
    with chroot.Chroot("build", suite) as system:
        system.run("localedef -i tr_TR -f UTF-8 tr_TR.UTF-8")
        deb.build(
            system,
            dsc,
            ELSEWHERE,
            before="umask 027",
            TZ="Asia/Kathmandu",
            LANG="tr_TR.UTF-8",
            LC_ALL="tr_TR.UTF-8",
            HOME="/nonexistent",
        )
        again = system.get(str(Path(ELSEWHERE).parent), tmp_path)
    sums = [
        {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.suffix == ".deb"
        }
        for files in (built(suite).files, again)
    ]
    assert len(sums[0]) == 4
    assert sums[0] == sums[1]


def test_autopkgtests(suite: str, built: Callable[[str], Built], tmp_path: Path) -> None:
    """All tests of debian/tests/control, run as autopkgtest does without a testbed of its own."""
    files = built(suite).files
    with chroot.Chroot("build", suite) as system:
        system.put("/packages", *(file for file in files if file.suffix == ".deb"))
        system.put("/tests", *(deb.DEBIAN / "tests").iterdir())
        system.run(
            "apt-get -qq update && apt-get -y install /packages/pyxsd_*.deb "
            "/packages/pyxsd-bench_*.deb xenstore-utils"
        )
        control = (deb.DEBIAN / "tests" / "control").read_text(encoding="utf-8")
        names = re.findall(r"^Tests: (\S+)", control, re.MULTILINE)
        assert len(names) >= 4
        for name in names:
            printed = system.run('chmod +x "/tests/$1" && "/tests/$1"', name)
            assert f"{name}: passed" in printed


def test_the_source_package_is_reproducible(dsc: Path, tmp_path: Path) -> None:
    """Made twice of the same checkout, all its files have the same bytes."""
    again = deb.source_package(tmp_path)
    for first, second in zip(deb.source_files(dsc), deb.source_files(again)):
        assert first.read_bytes() == second.read_bytes(), first.name
