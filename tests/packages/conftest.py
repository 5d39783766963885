# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the packages share: which of them run, throwaway systems, built packages.

The RPMs are built on this machine always.  What needs throwaway systems takes minutes and runs
where $PACKAGE_SIZE is set: quick (one Debian suite) or full (`make package-test`: all suites, the
second build for comparison, RPMs, wheels; about half an hour).  $PACKAGE_FOLDER names a folder in
which `make deb` left packages that are to be tried instead of new ones.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "packaging"))

# Plain modules of the folder packaging/, which no type checker sees.
chroot: Any = importlib.import_module("chroot")
deb: Any = importlib.import_module("deb")

SIZE = os.environ.get("PACKAGE_SIZE", "")
FULL = SIZE == "full"
SUITES = ("bookworm", "trixie", "sid") if FULL else ("bookworm",)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", "full: takes minutes, runs with PACKAGE_SIZE=full only")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what takes minutes, and says so."""
    for item in items:
        if "full" in item.keywords and not FULL:
            item.add_marker(pytest.mark.skip(reason="runs in `make package-test` (minutes)"))


def require(reason: str) -> None:
    """Something is missing: fails where all must run, else skips."""
    if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chroots() -> None:
    """Skips where no throwaway systems can be made."""
    if not SIZE:
        pytest.skip("runs in `make package-test` (minutes)")
    missing = chroot.missing()
    if missing:
        require(f"packages are tried in throwaway systems: {missing}")


@pytest.fixture(scope="session")
def dsc(chroots: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package of this checkout."""
    folder = os.environ.get("PACKAGE_FOLDER")
    if folder:
        return next(Path(folder).glob("*.dsc"))
    if importlib.util.find_spec("build.__main__") is None:
        require("build is not installed: pip install the extra 'test'")
    found: Path = deb.source_package(tmp_path_factory.mktemp("source"))
    return found


class Built:
    """The binary packages of a suite: all files that were made, and what was printed meanwhile."""

    def __init__(self, files: list[Path], log: str) -> None:
        self.files = files
        self.log = log

    def package(self, name: str) -> Path:
        """The file of the package of that name."""
        return next(
            file
            for file in self.files
            if file.name.startswith(name + "_") and file.suffix == ".deb"
        )


@pytest.fixture(scope="session")
def built(
    request: pytest.FixtureRequest, chroots: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Built]:
    """built(suite): its binary packages, built once in a session."""
    known: dict[str, Built] = {}
    folder = os.environ.get("PACKAGE_FOLDER")

    def of(suite: str) -> Built:
        if suite in known:
            return known[suite]
        if folder:
            files = sorted(Path(folder, suite).iterdir())
            log = Path(folder, f"{suite}.log").read_text(encoding="utf-8")
        else:
            with chroot.Chroot("build", suite) as system:
                log = deb.build(system, request.getfixturevalue("dsc"))
                files = system.get("/build", tmp_path_factory.mktemp(suite))
        known[suite] = Built(files, log)
        return known[suite]

    return of


@pytest.fixture
def host(chroots: None) -> Iterator[Callable[[str], Any]]:
    """host(suite): a throwaway system with Debian's Xen tools, and without pyxsd."""
    with ExitStack() as systems:
        yield lambda suite: systems.enter_context(chroot.Chroot("host", suite))


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in's libraries for Xen's."""
    if shutil.which("make") is None or shutil.which("cc") is None:
        require("the stand-in Xen is compiled: install make and gcc")
    sys.path.insert(0, str(TOP / "glue" / "standin"))
    peers: Any = importlib.import_module("peers")
    libraries: Path = peers.build_standin(tmp_path_factory.mktemp("standin"))
    return libraries / "lib"
