# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which copies of pyxsd are found, with which versions."""

from __future__ import annotations

from pathlib import Path

import pytest

import pyxsd
from pyxsd.setup import installed
from pyxsd.setup.tree import Tree
from tests.setup.dom0 import COMMON, make, without_pyxsd
from tests.unit.processes import ROOT

DEBIAN = "/usr/lib/python3/dist-packages"
FEDORA = "/usr/lib64/python3.12/site-packages"
PIP = "/usr/local/lib/python3.11/dist-packages"

#: What says the version, and the version.
VERSIONS: list[tuple[str, str, str]] = [
    ("/pyxsd-1.2.3.dist-info/METADATA", "", "1.2.3"),
    ("/pyxsd-1.2.3.egg-info", "", "1.2.3"),
    ("/pyxsd-1.2.3-py3.11.egg-info", "", "1.2.3"),
    ("/pyxsd/__init__.py", '#\n__version__ = "1.2.3"\n', "1.2.3"),
    ("/pyxsd/__init__.py", "__version__: Final = '1.2.3'\n", "1.2.3"),
    ("/pyxsd/__init__.py", "", ""),
    ("/pyxsd/other.py", "", ""),
]


@pytest.mark.parametrize(("path", "text", "version"), VERSIONS)
def test_version(tmp_path: Path, path: str, text: str, version: str) -> None:
    root = make(
        tmp_path, {**without_pyxsd(COMMON), f"{DEBIAN}/pyxsd/cli.py": "", DEBIAN + path: text}
    )
    assert installed.copies(Tree(str(root))) == [
        installed.Copy(DEBIAN, version, installed.PARTS[1:])
    ]


def test_those_of_packages_come_first_and_each_once(tmp_path: Path) -> None:
    """/usr/lib64 may be a link to /usr/lib: one copy, seen by two names."""
    root = make(
        tmp_path,
        {
            **without_pyxsd(COMMON),
            f"{PIP}/pyxsd/cli.py": "",
            f"{FEDORA.replace('lib64', 'lib')}/pyxsd/cli.py": "",
        },
    )
    (root / "usr/lib64").symlink_to("lib")
    assert [copy.folder for copy in installed.copies(Tree(str(root)))] == [FEDORA, PIP]


def test_the_copy_that_runs() -> None:
    assert installed.folder_here() == str(ROOT)
    assert installed.version_here() == pyxsd.__version__
